#include "lmtp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tandem/err.h"

enum lmtp_state { LS_GREET = 0, LS_GREETED, LS_READY, LS_MAIL, LS_RCPT, LS_DATA, LS_WAIT };

enum { ADDRESS_MAX = 320, INPUT_MAX = 256 * 1024, BAD_MAX = 20 };

struct lmtp {
    const struct lmtp_ops *ops;
    void *user;
    char host[256];
    enum lmtp_state state;
    size_t max_bytes;
    char sender[ADDRESS_MAX];
    char recipient[LMTP_RCPT_MAX][ADDRESS_MAX];
    size_t recipients, answered;
    unsigned bad; /* commands that made no sense; too many end the session */
    struct td_buf input, content;
    bool too_long;
};

struct lmtp *lmtp_new(const char *host_name, size_t max_bytes, const struct lmtp_ops *ops, void *user)
{
    struct lmtp *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->ops = ops;
    l->user = user;
    l->max_bytes = max_bytes;
    snprintf(l->host, sizeof(l->host), "%s", host_name);
    td_buf_init(&l->input, INPUT_MAX);
    td_buf_init(&l->content, max_bytes);
    return l;
}

void lmtp_free(struct lmtp *l)
{
    if (!l)
        return;
    td_buf_release(&l->input);
    td_buf_release(&l->content);
    free(l);
}

static void forget(struct lmtp *l)
{
    l->state = LS_READY;
    l->recipients = l->answered = 0;
    l->sender[0] = '\0';
    l->too_long = false;
    td_buf_clear(&l->content);
}

/* Take what stands between < and > of "MAIL FROM:<...> params". No quoting can hide a '>' that matters to us: an address
 * that needs quotes is none of our return paths. */
static bool path(const char *args, const char *keyword, char out[ADDRESS_MAX])
{
    size_t k = strlen(keyword), n;
    const char *open, *close;

    if (strncasecmp(args, keyword, k) != 0)
        return false;
    open = args + k + strspn(args + k, " ");
    if (*open != '<')
        return false;
    close = strchr(open, '>');
    if (!close || (size_t)(close - open) >= ADDRESS_MAX || (close[1] != '\0' && close[1] != ' '))
        return false;
    n = (size_t)(close - open - 1);
    memcpy(out, open + 1, n);
    out[n] = '\0';
    return true;
}

static int bad(struct lmtp *l, struct td_buf *out, const char *reply)
{
    td_buf_adds(out, reply);
    return ++l->bad > BAD_MAX ? -1 : 0;
}

static int on_mail(struct lmtp *l, const char *args, struct td_buf *out)
{
    if (l->state != LS_READY)
        return bad(l, out, "503 5.5.1 Not now\r\n");
    if (!path(args, "FROM:", l->sender))
        return bad(l, out, "501 5.5.4 MAIL FROM:<address>\r\n");
    l->state = LS_MAIL;
    td_buf_adds(out, "250 2.1.0 Ok\r\n");
    return 0;
}

static int on_rcpt(struct lmtp *l, const char *args, struct td_buf *out)
{
    if (l->state != LS_MAIL && l->state != LS_RCPT)
        return bad(l, out, "503 5.5.1 MAIL first\r\n");
    if (l->recipients == LMTP_RCPT_MAX)
        return bad(l, out, "452 4.5.3 Too many recipients\r\n");
    if (!path(args, "TO:", l->recipient[l->recipients]))
        return bad(l, out, "501 5.5.4 RCPT TO:<address>\r\n");
    if (!l->ops->recipient(l->user, l->recipient[l->recipients]))
        return bad(l, out, "550 5.1.1 No such return path here\r\n");
    l->recipients++;
    l->state = LS_RCPT;
    td_buf_adds(out, "250 2.1.5 Ok\r\n");
    return 0;
}

static int command(struct lmtp *l, char *line, struct td_buf *out)
{
    char *args = strchr(line, ' ');
    size_t verb = args ? (size_t)(args - line) : strlen(line);

    args = args ? args + 1 : line + verb;
#define IS(word) (verb == sizeof(word) - 1 && strncasecmp(line, word, verb) == 0)
    if (IS("LHLO")) {
        forget(l);
        td_buf_printf(out, "250-%s\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 SIZE %zu\r\n", l->host, l->max_bytes);
        return 0;
    }
    if (IS("QUIT")) {
        td_buf_adds(out, "221 2.0.0 Bye\r\n");
        return -1;
    }
    if (IS("NOOP") || IS("RSET")) {
        if (IS("RSET") && l->state > LS_READY)
            forget(l);
        td_buf_adds(out, "250 2.0.0 Ok\r\n");
        return 0;
    }
    if (IS("HELO") || IS("EHLO"))
        return bad(l, out, "500 5.5.1 This is LMTP: LHLO (RFC 2033)\r\n");
    if (IS("MAIL"))
        return on_mail(l, args, out);
    if (IS("RCPT"))
        return on_rcpt(l, args, out);
    if (IS("DATA")) {
        if (l->state != LS_RCPT)
            return bad(l, out, "503 5.5.1 RCPT first\r\n");
        l->state = LS_DATA;
        td_buf_adds(out, "354 End with a dot\r\n");
        return 0;
    }
#undef IS
    return bad(l, out, "500 5.5.2 What?\r\n");
}

/* The dot has come. */
static void message_end(struct lmtp *l, struct td_buf *out)
{
    if (l->too_long) {
        for (size_t i = 0; i < l->recipients; i++)
            td_buf_adds(out, "552 5.3.4 Too long\r\n");
        forget(l);
        return;
    }
    l->state = LS_WAIT;
    l->ops->message(l->user);
}

static void content_line(struct lmtp *l, const char *line, size_t len, struct td_buf *out)
{
    if (len == 1 && line[0] == '.') {
        message_end(l, out);
        return;
    }
    if (len && line[0] == '.') {
        line++;
        len--;
    }
    if (!l->too_long && (td_buf_add(&l->content, line, len) < 0 || td_buf_adds(&l->content, "\r\n") < 0)) {
        l->too_long = true;
        td_buf_clear(&l->content);
    }
}

/* Lines end with CRLF alone: a bare LF must not end a message (smuggling). */
static int run(struct lmtp *l, struct td_buf *out)
{
    size_t used = 0;
    int rc = 0;

    while (rc == 0 && l->state != LS_WAIT) {
        char *at = l->input.data ? l->input.data + used : NULL;
        size_t left = l->input.len - used;
        char *end = left ? memmem(at, left, "\r\n", 2) : NULL;

        if (!end) {
            if (l->state != LS_DATA && left > LMTP_LINE_MAX) {
                td_buf_adds(out, "500 5.5.2 Line too long\r\n");
                rc = -1;
            } else if (left >= l->input.limit) {
                rc = -1; /* a line of a message as long as our whole buffer */
            }
            break;
        }
        *end = '\0';
        if (l->state == LS_DATA)
            content_line(l, at, (size_t)(end - at), out);
        else if (end - at > LMTP_LINE_MAX || strlen(at) != (size_t)(end - at))
            rc = bad(l, out, "500 5.5.2 Not a command\r\n");
        else
            rc = command(l, at, out);
        used = (size_t)(end + 2 - l->input.data);
    }
    td_buf_consume(&l->input, used);
    return rc;
}

int lmtp_feed(struct lmtp *l, const char *data, size_t len, struct td_buf *out)
{
    if (l->state == LS_GREET) {
        td_buf_printf(out, "220 %s LMTP Tandem\r\n", l->host);
        l->state = LS_GREETED;
    }
    while (len) {
        size_t n = l->input.limit - l->input.len < len ? l->input.limit - l->input.len : len;

        if (n == 0) /* the client sends on while it waits for replies: more than we keep */
            return -1;
        if (td_buf_add(&l->input, data, n) < 0)
            return -1;
        data += n;
        len -= n;
        if (run(l, out) < 0)
            return -1;
    }
    return 0;
}

int lmtp_answer(struct lmtp *l, bool taken, struct td_buf *out)
{
    if (l->state != LS_WAIT)
        return -1;
    td_buf_adds(out, taken ? "250 2.0.0 Ok\r\n" : "451 4.3.0 Try again later\r\n");
    if (++l->answered < l->recipients)
        return 0;
    forget(l);
    return run(l, out);
}

bool lmtp_waiting(const struct lmtp *l)
{
    return l->state == LS_WAIT;
}

size_t lmtp_recipient_count(const struct lmtp *l)
{
    return l->recipients;
}

const char *lmtp_recipient(const struct lmtp *l, size_t i)
{
    return l->recipient[i];
}

const char *lmtp_sender(const struct lmtp *l)
{
    return l->sender;
}

const struct td_buf *lmtp_content(const struct lmtp *l)
{
    return &l->content;
}
