#include "bouncer.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dsn.h"

#define QUEUE_BYTES_MAX (256u << 20)
#define HEAD_MAX 16384 /* header octets quoted in a DSN */
#define TRIES_MAX 30   /* of one DSN, half a second apart */
#define RETRY_NS (500 * UINT64_C(1000000))
#define REPLY_NS (60 * UINT64_C(1000000000)) /* longest wait for the LMTP server */
#define REPLY_LINE_MAX 4096

struct job {
    struct job *next;
    size_t size;
    uint64_t unix_s, number;
    uint32_t tries;
    size_t return_path_len, recipients_len, head_len;
    char data[]; /* the three, one after another */
};

/* AWAY -> GREETING -> LHLO -> MAIL -> RCPT -> DATA -> TEXT -> MAIL ... ; MAIL, RCPT and DATA go out in one write,
 * as every LMTP server takes pipelining (RFC 2033 s.5). Any trouble: AWAY, and again after RETRY_NS. */
enum bouncer_state { AWAY = 0, CONNECTING, GREETING, LHLO, IDLE, MAIL, RCPT, DATA, TEXT };

struct bouncer {
    struct watch watch;
    struct timer timer; /* try again, or the server is silent */
    struct sim *sim;
    struct sockaddr_storage address;
    unsigned address_len;
    enum bouncer_state state;
    struct job *first, **last;
    size_t waiting, bytes;
    uint64_t number;
    int refusal; /* first code of this transaction that was not 2yz or 354; 0 = none */
    struct td_buf in, out;
};

static void on_ready(struct watch *watch, uint32_t events);
static void on_timer(struct timer *timer);

struct bouncer *bouncer_new(struct sim *sim, struct td_err *reterr)
{
    struct bouncer *bouncer = calloc(1, sizeof(*bouncer));

    if (!bouncer) {
        td_fail(reterr, TD_ENOMEM, "bouncer");
        return NULL;
    }
    if (address_parse(sim->options.bounce_to, &bouncer->address, &bouncer->address_len, reterr) < 0) {
        free(bouncer);
        return NULL;
    }
    bouncer->watch = (struct watch){.fd = -1, .ready = on_ready};
    bouncer->timer.fire = on_timer;
    bouncer->sim = sim;
    bouncer->last = &bouncer->first;
    td_buf_init(&bouncer->in, REPLY_LINE_MAX);
    td_buf_init(&bouncer->out, 4u << 20);
    return bouncer;
}

void bouncer_free(struct bouncer *bouncer)
{
    if (!bouncer)
        return;
    while (bouncer->first) {
        struct job *job = bouncer->first;

        bouncer->first = job->next;
        free(job);
    }
    loop_timer_stop(&bouncer->sim->loop, &bouncer->timer);
    loop_close(&bouncer->sim->loop, &bouncer->watch);
    td_buf_release(&bouncer->in);
    td_buf_release(&bouncer->out);
    free(bouncer);
}

size_t bouncer_waiting(const struct bouncer *bouncer)
{
    return bouncer->waiting;
}

bool bouncer_chooses(const struct options *options, struct slice message_id, struct slice recipients)
{
    const char *match = options->bounce_match;
    unsigned char sha256[EVP_MAX_MD_SIZE];
    uint32_t number;

    if (match && !memmem(recipients.data, recipients.len, match, strlen(match)))
        return false;
    if (EVP_Digest(message_id.data, message_id.len, sha256, NULL, EVP_sha256(), NULL) != 1)
        return false;
    number = (uint32_t)sha256[0] << 24 | (uint32_t)sha256[1] << 16 | (uint32_t)sha256[2] << 8 | sha256[3];
    return number % 1000000u < options->bounce_share * 10000.0;
}

/* ---- the queue ---- */

static void push(struct bouncer *bouncer, struct job *job)
{
    job->next = NULL;
    *bouncer->last = job;
    bouncer->last = &job->next;
    bouncer->waiting++;
    bouncer->bytes += job->size;
}

static struct job *pop(struct bouncer *bouncer)
{
    struct job *job = bouncer->first;

    bouncer->first = job->next;
    if (!bouncer->first)
        bouncer->last = &bouncer->first;
    bouncer->waiting--;
    bouncer->bytes -= job->size;
    return job;
}

static void again_later(struct bouncer *bouncer)
{
    loop_close(&bouncer->sim->loop, &bouncer->watch);
    bouncer->state = AWAY;
    loop_timer(&bouncer->sim->loop, &bouncer->timer, bouncer->sim->loop.now_ns + RETRY_NS);
}

/* The first DSN of the queue is done with: sent, to be tried again, or given up. */
static void finish(struct bouncer *bouncer, int code)
{
    struct job *job = pop(bouncer);

    if (code >= 200 && code < 300) {
        bouncer->sim->counts.dsn_sent++;
        free(job);
    } else if (code < 500 && ++job->tries < TRIES_MAX) {
        push(bouncer, job);
    } else {
        bouncer->sim->counts.dsn_dropped++;
        free(job);
    }
}

/* ---- talking ---- */

static void flush(struct bouncer *bouncer)
{
    struct loop *loop = &bouncer->sim->loop;

    while (bouncer->out.len) {
        ssize_t sent = send(bouncer->watch.fd, bouncer->out.data, bouncer->out.len, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0) {
            again_later(bouncer);
            return;
        }
        td_buf_consume(&bouncer->out, (size_t)sent);
    }
    if (loop_watch(loop, &bouncer->watch, bouncer->out.len ? EPOLLIN | EPOLLOUT : EPOLLIN) < 0)
        again_later(bouncer);
    else
        loop_timer(loop, &bouncer->timer, loop->now_ns + REPLY_NS);
}

static void begin_next(struct bouncer *bouncer)
{
    const struct job *job = bouncer->first;

    bouncer->state = IDLE;
    if (!job) {
        loop_timer(&bouncer->sim->loop, &bouncer->timer, bouncer->sim->loop.now_ns + REPLY_NS);
        return;
    }
    bouncer->refusal = 0;
    bouncer->state = MAIL;
    if (td_buf_printf(&bouncer->out, "MAIL FROM:<>\r\nRCPT TO:<%.*s>\r\nDATA\r\n", (int)job->return_path_len,
                      job->data) < 0)
        again_later(bouncer);
    else
        flush(bouncer);
}

static void send_text(struct bouncer *bouncer)
{
    const struct job *job = bouncer->first;
    struct dsn dsn = {.reporting_mta = bouncer->sim->options.name,
                      .status = bouncer->sim->options.bounce_status,
                      .unix_s = job->unix_s,
                      .number = job->number,
                      .return_path = {job->data, job->return_path_len},
                      .recipients = {job->data + job->return_path_len, job->recipients_len},
                      .head = {job->data + job->return_path_len + job->recipients_len, job->head_len}};

    bouncer->state = TEXT;
    if (dsn_compose(&dsn, &bouncer->out) < 0) {
        again_later(bouncer);
        return;
    }
    flush(bouncer);
}

/* DATA was answered. With a refused recipient a server should say 503 here, but one that says 354 must get its
 * dot. */
static void data_answered(struct bouncer *bouncer, int code)
{
    if (code == 354 && !bouncer->refusal) {
        send_text(bouncer);
    } else if (code == 354) {
        again_later(bouncer);
        finish(bouncer, bouncer->refusal);
    } else {
        int refusal = bouncer->refusal ? bouncer->refusal : code;

        finish(bouncer, refusal);
        if (refusal < 500) {
            again_later(bouncer); /* it is busy: give it the time */
            return;
        }
        td_buf_adds(&bouncer->out, "RSET\r\n");
        bouncer->state = LHLO; /* its 250 leads on, like that of LHLO */
        flush(bouncer);
    }
}

static void on_reply(struct bouncer *bouncer, int code)
{
    switch (bouncer->state) {
    case GREETING:
        if (code != 220 || td_buf_printf(&bouncer->out, "LHLO %s\r\n", bouncer->sim->options.name) < 0) {
            again_later(bouncer);
            return;
        }
        bouncer->state = LHLO;
        flush(bouncer);
        break;
    case LHLO:
        if (code != 250)
            again_later(bouncer);
        else
            begin_next(bouncer);
        break;
    case MAIL:
    case RCPT:
        if (code >= 400 && !bouncer->refusal)
            bouncer->refusal = code;
        bouncer->state = bouncer->state == MAIL ? RCPT : DATA;
        break;
    case DATA:
        data_answered(bouncer, code);
        break;
    case TEXT:
        finish(bouncer, code);
        if (code >= 400 && code < 500)
            again_later(bouncer);
        else
            begin_next(bouncer);
        break;
    case AWAY:
    case CONNECTING:
    case IDLE: /* unasked: 421 on an idle connection */
        again_later(bouncer);
        break;
    }
}

static void read_replies(struct bouncer *bouncer)
{
    char data[2048];
    ssize_t got = recv(bouncer->watch.fd, data, sizeof(data), 0);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0 || td_buf_add(&bouncer->in, data, (size_t)got) < 0) {
        again_later(bouncer);
        return;
    }
    while (bouncer->state != AWAY && bouncer->in.len) {
        const char *line = bouncer->in.data, *eol = memchr(line, '\n', bouncer->in.len);
        bool more;
        int code;

        if (!eol)
            break;
        if (eol - line < 3) {
            again_later(bouncer);
            return;
        }
        code = (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
        more = line[3] == '-';
        td_buf_consume(&bouncer->in, (size_t)(eol - line) + 1);
        if (!more)
            on_reply(bouncer, code);
    }
}

static void connect_now(struct bouncer *bouncer)
{
    td_buf_clear(&bouncer->in);
    td_buf_clear(&bouncer->out);
    bouncer->watch.fd = socket(bouncer->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bouncer->watch.fd < 0) {
        again_later(bouncer);
        return;
    }
    bouncer->state = CONNECTING;
    if ((connect(bouncer->watch.fd, (const struct sockaddr *)&bouncer->address, bouncer->address_len) < 0 &&
         errno != EINPROGRESS) ||
        loop_watch(&bouncer->sim->loop, &bouncer->watch, EPOLLOUT) < 0)
        again_later(bouncer);
    else
        loop_timer(&bouncer->sim->loop, &bouncer->timer, bouncer->sim->loop.now_ns + REPLY_NS);
}

static void on_ready(struct watch *watch, uint32_t events)
{
    struct bouncer *bouncer = (struct bouncer *)watch;

    if (bouncer->state == CONNECTING) {
        int error = 0;
        socklen_t len = sizeof(error);

        if (getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error ||
            loop_watch(&bouncer->sim->loop, watch, EPOLLIN) < 0) {
            again_later(bouncer);
            return;
        }
        bouncer->state = GREETING;
        return;
    }
    if (events & EPOLLOUT)
        flush(bouncer);
    if (bouncer->state != AWAY && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        read_replies(bouncer);
}

static void on_timer(struct timer *timer)
{
    struct bouncer *bouncer = (struct bouncer *)((char *)timer - offsetof(struct bouncer, timer));

    if (bouncer->state == AWAY && bouncer->first)
        connect_now(bouncer);
    else if (bouncer->state != AWAY) { /* silent for too long, or idle with nothing to send */
        loop_close(&bouncer->sim->loop, &bouncer->watch);
        bouncer->state = AWAY;
        if (bouncer->first)
            again_later(bouncer);
    }
}

void bouncer_add(struct bouncer *bouncer, const struct mail *mail, uint64_t unix_s)
{
    size_t head_len = mail->head.len < HEAD_MAX ? mail->head.len : HEAD_MAX;
    size_t data_len = mail->return_path.len + mail->recipients.len + head_len;
    struct job *job = bouncer->bytes + data_len > QUEUE_BYTES_MAX ? NULL : malloc(sizeof(*job) + data_len);

    if (!job) {
        bouncer->sim->counts.dsn_dropped++;
        return;
    }
    *job = (struct job){.size = data_len,
                        .unix_s = unix_s,
                        .number = ++bouncer->number,
                        .return_path_len = mail->return_path.len,
                        .recipients_len = mail->recipients.len,
                        .head_len = head_len};
    memcpy(job->data, mail->return_path.data, mail->return_path.len);
    memcpy(job->data + job->return_path_len, mail->recipients.data, mail->recipients.len);
    if (head_len)
        memcpy(job->data + job->return_path_len + job->recipients_len, mail->head.data, head_len);
    push(bouncer, job);
    if (bouncer->state == IDLE)
        begin_next(bouncer);
    else if (bouncer->state == AWAY && !bouncer->timer.slot)
        connect_now(bouncer);
}
