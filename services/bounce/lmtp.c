/* Only CRLF ends a line, also inside a message: whoever takes a bare LF for an end of line can be made to see a
 * dot, and with it the end of a message, where the sender saw text (SMTP smuggling). */
#include "lmtp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tandem/err.h"

enum lmtp_state { LS_GREET = 0, LS_GREETED, LS_READY, LS_MAIL, LS_RCPT, LS_DATA, LS_WAIT };

enum { ADDRESS_MAX = 320, BAD_MAX = 20 };

struct lmtp {
    const struct lmtp_ops *ops;
    void *user;
    char host[256];
    enum lmtp_state state;
    char sender[ADDRESS_MAX];
    char recipient[LMTP_RCPT_MAX][ADDRESS_MAX];
    size_t recipients, answered;
    unsigned bad; /* commands that made no sense; too many end the session */
    struct td_buf input, content;
    size_t received; /* bytes of the message, kept or not */
    bool mid_line;   /* the beginning of this line of the message has been taken already */
    bool cut, no_memory;
    bool unsaid; /* a reply did not fit into out: the client would take the next one for it */
};

struct lmtp *lmtp_new(const char *host_name, size_t max_bytes, const struct lmtp_ops *ops, void *user)
{
    struct lmtp *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->ops = ops;
    l->user = user;
    snprintf(l->host, sizeof(l->host), "%s", host_name);
    td_buf_init(&l->input, LMTP_INPUT_MAX);
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
    l->recipients = l->answered = l->received = 0;
    l->sender[0] = '\0';
    l->mid_line = l->cut = l->no_memory = false;
    td_buf_clear(&l->content);
}

static void say(struct lmtp *l, struct td_buf *out, const char *reply)
{
    if (td_buf_adds(out, reply) < 0)
        l->unsaid = true;
}

/* ---- commands ---- */

/* Take what stands between < and > of "MAIL FROM:<...> params". No quoting can hide a '>' that matters to us: an
 * address that needs quotes is none of our return paths. Only printable ASCII: SMTPUTF8 is not offered, and what
 * goes on to mail.feedback must be UTF-8. */
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
    if (!close || (size_t)(close - open) > ADDRESS_MAX || (close[1] != '\0' && close[1] != ' '))
        return false;
    n = (size_t)(close - open - 1);
    for (const char *at = open; at < close; at++)
        if (*at < ' ' || *at > '~')
            return false;
    memcpy(out, open + 1, n);
    out[n] = '\0';
    return true;
}

static int bad(struct lmtp *l, struct td_buf *out, const char *reply)
{
    say(l, out, reply);
    if (++l->bad < BAD_MAX)
        return 0;
    say(l, out, "421 4.7.0 Too many errors\r\n");
    return -1;
}

static int on_mail(struct lmtp *l, const char *args, struct td_buf *out)
{
    if (l->state != LS_READY)
        return bad(l, out, "503 5.5.1 Not now\r\n");
    if (!path(args, "FROM:", l->sender))
        return bad(l, out, "501 5.5.4 MAIL FROM:<address>\r\n");
    l->state = LS_MAIL;
    say(l, out, "250 2.1.0 Ok\r\n");
    return 0;
}

/* What is refused here is no error of the client: it only hands on what others wrote. */
static int on_rcpt(struct lmtp *l, const char *args, struct td_buf *out)
{
    if (l->state != LS_MAIL && l->state != LS_RCPT)
        return bad(l, out, "503 5.5.1 MAIL first\r\n");
    if (l->recipients == LMTP_RCPT_MAX) {
        say(l, out, "452 4.5.3 Too many recipients\r\n");
        return 0;
    }
    if (!path(args, "TO:", l->recipient[l->recipients]))
        return bad(l, out, "501 5.5.4 RCPT TO:<address>\r\n");
    if (!l->ops->recipient(l->user, l->recipient[l->recipients])) {
        say(l, out, "550 5.1.1 No such return path here\r\n");
        return 0;
    }
    l->recipients++;
    l->state = LS_RCPT;
    say(l, out, "250 2.1.5 Ok\r\n");
    return 0;
}

static int on_lhlo(struct lmtp *l, struct td_buf *out)
{
    forget(l);
    if (td_buf_printf(out,
                      "250-%s\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 SIZE %d\r\n",
                      l->host, LMTP_MESSAGE_MAX) < 0)
        l->unsaid = true;
    return 0;
}

static int on_data(struct lmtp *l, struct td_buf *out)
{
    if (l->state != LS_RCPT)
        return bad(l, out, "503 5.5.1 RCPT first\r\n");
    l->state = LS_DATA;
    say(l, out, "354 End with a dot\r\n");
    return 0;
}

static int command(struct lmtp *l, const char *line, struct td_buf *out)
{
    size_t verb = strcspn(line, " ");
    const char *args = line + verb + (line[verb] == ' ');

#define IS(word) (verb == sizeof(word) - 1 && strncasecmp(line, word, verb) == 0)
    if (IS("LHLO"))
        return on_lhlo(l, out);
    if (IS("MAIL"))
        return on_mail(l, args, out);
    if (IS("RCPT"))
        return on_rcpt(l, args, out);
    if (IS("DATA"))
        return on_data(l, out);
    if (IS("QUIT")) {
        say(l, out, "221 2.0.0 Bye\r\n");
        return -1;
    }
    if (IS("RSET") && l->state > LS_READY)
        forget(l);
    if (IS("NOOP") || IS("RSET")) {
        say(l, out, "250 2.0.0 Ok\r\n");
        return 0;
    }
    if (IS("HELO") || IS("EHLO"))
        return bad(l, out, "500 5.5.1 This is LMTP: LHLO (RFC 2033)\r\n");
#undef IS
    return bad(l, out, "500 5.5.2 What?\r\n");
}

/* ---- the message ---- */

/* The dot has come. */
static void message_end(struct lmtp *l, struct td_buf *out)
{
    const char *no = l->received > LMTP_MESSAGE_MAX ? "552 5.3.4 Too long\r\n"
                     : l->no_memory                 ? "451 4.3.0 No memory\r\n"
                                                    : NULL;

    if (!no) {
        l->state = LS_WAIT;
        l->ops->message(l->user);
        return;
    }
    for (size_t i = 0; i < l->recipients; i++)
        say(l, out, no);
    forget(l);
}

static void keep(struct lmtp *l, const char *data, size_t len)
{
    size_t room = l->content.limit - l->content.len;

    /* Counted up to one past the limit only, so that no client can make it wrap. */
    l->received = len > LMTP_MESSAGE_MAX - l->received || l->received > LMTP_MESSAGE_MAX ? LMTP_MESSAGE_MAX + 1ul
                                                                                         : l->received + len;
    if (len > room) {
        len = room;
        l->cut = true;
    }
    if (len && td_buf_add(&l->content, data, len) < 0)
        l->no_memory = true;
}

/* A line of the message, or (ended false) a first or further piece of a very long one. */
static void content_line(struct lmtp *l, const char *line, size_t len, bool ended, struct td_buf *out)
{
    if (!l->mid_line && len && line[0] == '.') {
        if (ended && len == 1) {
            message_end(l, out);
            return;
        }
        line++;
        len--;
    }
    keep(l, line, len);
    if (ended)
        keep(l, "\r\n", 2);
    l->mid_line = !ended;
}

/* ---- bytes ---- */

static int too_long(struct lmtp *l, struct td_buf *out)
{
    say(l, out, "500 5.5.2 Line too long\r\n");
    return -1;
}

/* There is no line end among the `left` bytes at hand. @return bytes used */
static size_t no_line_yet(struct lmtp *l, const char *at, size_t left, struct td_buf *out, int *rc)
{
    left -= at[left - 1] == '\r'; /* its LF may be next */
    if (left <= LMTP_LINE_MAX)
        return 0;
    if (l->state != LS_DATA) {
        *rc = too_long(l, out);
        return 0;
    }
    content_line(l, at, left, false, out);
    return left;
}

static int run(struct lmtp *l, struct td_buf *out)
{
    size_t used = 0;
    int rc = 0;

    while (rc == 0 && l->state != LS_WAIT && used < l->input.len) {
        char *at = l->input.data + used;
        size_t left = l->input.len - used, n;
        char *end = memmem(at, left, "\r\n", 2);

        if (!end) {
            used += no_line_yet(l, at, left, out, &rc);
            break;
        }
        n = (size_t)(end - at);
        used += n + 2;
        if (l->state == LS_DATA) {
            content_line(l, at, n, true, out);
        } else {
            *end = '\0';
            rc = n > LMTP_LINE_MAX ? too_long(l, out)
                 : strlen(at) != n ? bad(l, out, "500 5.5.2 Not a command\r\n")
                                   : command(l, at, out);
        }
        if (l->unsaid)
            rc = -1;
    }
    td_buf_consume(&l->input, used);
    return rc;
}

int lmtp_feed(struct lmtp *l, const char *data, size_t len, struct td_buf *out)
{
    if (l->state == LS_GREET) {
        if (td_buf_printf(out, "220 %s LMTP Tandem\r\n", l->host) < 0)
            return -1;
        l->state = LS_GREETED;
    }
    while (len) {
        size_t room = l->input.limit - l->input.len, n = room < len ? room : len;

        /* No room: the client sends on while it waits for replies, more than we keep. */
        if (n == 0 || td_buf_add(&l->input, data, n) < 0 || run(l, out) < 0)
            return -1;
        data += n;
        len -= n;
    }
    return 0;
}

int lmtp_answer(struct lmtp *l, bool taken, struct td_buf *out)
{
    if (l->state != LS_WAIT)
        return -1;
    say(l, out, taken ? "250 2.0.0 Ok\r\n" : "451 4.3.0 Try again later\r\n");
    if (l->unsaid)
        return -1;
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

bool lmtp_cut(const struct lmtp *l)
{
    return l->cut;
}
