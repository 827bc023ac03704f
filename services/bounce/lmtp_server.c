#include "lmtp_server.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tandem/log.h"
#include "tandem/stages.h"

enum { IDLE_MS = 300000 /* RFC 5321 s.4.5.3.2.7 */, LAST_WORDS_MS = 5000, OUT_MAX = 64 * 1024 };

#define GOING "421 4.3.2 Going down\r\n"

enum answer { ANSWER_NONE = 0, ANSWER_TAKEN, ANSWER_LATER };

struct lmtp_session {
    struct lmtp_server *server;
    struct lmtp_session *prev, *next;
    uv_tcp_t tcp;
    uv_timer_t timer;
    struct lmtp *lmtp;
    struct lmtp_ops ops; /* the server's, with this session as user */
    enum answer answer[LMTP_RCPT_MAX];
    size_t told, owed;    /* recipients answered to the client; answers still to come from the service */
    unsigned handles;     /* open libuv handles */
    bool inside;          /* the dialogue runs: answers are kept until it has returned */
    bool ending, closing; /* the last words are on their way; handles are closing */
    char peer[64];
    char buffer[16384];
};

struct lmtp_server {
    uv_tcp_t tcp;
    uv_loop_t *loop;
    struct lmtp_server_ops ops;
    void *user;
    struct lmtp_session *sessions;
    size_t count, max_bytes;
    char host[256];
    bool stopped, freed, closed;
};

static void server_release(struct lmtp_server *server)
{
    if (server->freed && server->closed && !server->sessions)
        free(server);
}

/* Gone when both handles are closed and the service owes no answer any more. */
static void session_release(struct lmtp_session *s)
{
    struct lmtp_server *server = s->server;

    if (s->handles || s->owed)
        return;
    if (s->prev)
        s->prev->next = s->next;
    else
        server->sessions = s->next;
    if (s->next)
        s->next->prev = s->prev;
    server->count--;
    lmtp_free(s->lmtp);
    free(s);
    server_release(server);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct lmtp_session *s = handle->data;

    s->handles--;
    session_release(s);
}

static void session_close(struct lmtp_session *s)
{
    if (s->closing)
        return;
    s->closing = true;
    uv_close((uv_handle_t *)&s->tcp, on_handle_closed);
    uv_close((uv_handle_t *)&s->timer, on_handle_closed);
}

static void on_idle(uv_timer_t *timer)
{
    session_close(timer->data);
}

/* ---- writing ---- */

struct write {
    uv_write_t req;
    struct lmtp_session *session;
    bool last;
    char *data;
};

static void on_written(uv_write_t *req, int status)
{
    struct write *w = (struct write *)req;

    if (w->last || status < 0)
        session_close(w->session);
    free(w->data);
    free(w);
}

/* Takes the memory of out. */
static void session_send(struct lmtp_session *s, struct td_buf *out, bool last)
{
    struct write *w;
    uv_buf_t buf;
    size_t len;

    if (s->closing || s->ending || (!out->len && !last))
        return;
    s->ending = last;
    w = calloc(1, sizeof(*w));
    /* Nothing to say, or a client that sends and does not read. */
    if (!w || !out->len || uv_stream_get_write_queue_size((uv_stream_t *)&s->tcp) > OUT_MAX) {
        free(w);
        session_close(s);
        return;
    }
    if (last)
        uv_timer_start(&s->timer, on_idle, LAST_WORDS_MS, 0);
    w->session = s;
    w->last = last;
    w->data = td_buf_take(out, &len);
    buf = uv_buf_init(w->data, (unsigned)len);
    if (uv_write(&w->req, (uv_stream_t *)&s->tcp, &buf, 1, on_written) < 0) {
        free(w->data);
        free(w);
        session_close(s);
    }
}

static void session_end(struct lmtp_session *s, const char *reply)
{
    struct td_buf out = TD_BUF_INIT(OUT_MAX);

    td_buf_adds(&out, reply);
    session_send(s, &out, true);
    td_buf_release(&out);
}

/* ---- the dialogue ---- */

/* Bytes from the client, then the answers that are there, in order. Either may bring a further message (which sets
 * told and answer anew) and answers to it at once; the dialogue is never entered from inside itself. */
static void session_run(struct lmtp_session *s, const char *data, size_t len)
{
    struct td_buf out = TD_BUF_INIT(OUT_MAX);
    int rc;

    if (s->inside || s->closing || s->ending)
        return;
    s->inside = true;
    rc = lmtp_feed(s->lmtp, data, len, &out);
    while (rc == 0 && lmtp_waiting(s->lmtp) && s->answer[s->told] != ANSWER_NONE) {
        bool taken = s->answer[s->told++] == ANSWER_TAKEN;

        rc = lmtp_answer(s->lmtp, taken, &out);
    }
    s->inside = false;
    if (rc == 0 && s->server->stopped && !s->owed) {
        td_buf_adds(&out, GOING);
        rc = -1;
    }
    session_send(s, &out, rc < 0);
    td_buf_release(&out);
}

static bool on_recipient(void *user, const char *address)
{
    struct lmtp_session *s = user;

    return s->server->ops.recipient(s->server->user, address);
}

static void on_message(void *user)
{
    struct lmtp_session *s = user;
    size_t n = lmtp_recipient_count(s->lmtp);

    memset(s->answer, 0, sizeof(s->answer));
    s->told = 0;
    s->owed = n;
    for (size_t i = 0; i < n; i++)
        s->server->ops.message(s->server->user, s, i);
}

void lmtp_session_answer(struct lmtp_session *s, size_t recipient, bool taken)
{
    s->answer[recipient] = taken ? ANSWER_TAKEN : ANSWER_LATER;
    s->owed--;
    if (s->closing)
        session_release(s);
    else
        session_run(s, NULL, 0);
}

const struct lmtp *lmtp_session_dialogue(const struct lmtp_session *s)
{
    return s->lmtp;
}

const char *lmtp_session_peer(const struct lmtp_session *s)
{
    return s->peer;
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct lmtp_session *s = handle->data;

    (void)suggested;
    *buf = uv_buf_init(s->buffer, sizeof(s->buffer));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct lmtp_session *s = stream->data;
    enum td_stage before;

    if (n < 0) {
        session_close(s);
        return;
    }
    if (!s->ending)
        uv_timer_start(&s->timer, on_idle, IDLE_MS, 0);
    before = td_stage(TD_STAGE_TAKE);
    if (n > 0)
        session_run(s, buf->base, (size_t)n);
    td_stage(before);
}

static void peer_name(struct lmtp_session *s)
{
    struct sockaddr_storage addr;
    int len = sizeof(addr);

    if (uv_tcp_getpeername(&s->tcp, (struct sockaddr *)&addr, &len) == 0)
        getnameinfo((struct sockaddr *)&addr, (socklen_t)len, s->peer, sizeof(s->peer), NULL, 0, NI_NUMERICHOST);
}

static void on_connection(uv_stream_t *stream, int status)
{
    struct lmtp_server *server = stream->data;
    struct lmtp_session *s;

    if (status < 0 || server->stopped)
        return;
    s = calloc(1, sizeof(*s));
    if (!s)
        return;
    s->server = server;
    s->ops = (struct lmtp_ops){on_recipient, on_message};
    s->lmtp = lmtp_new(server->host, server->max_bytes, &s->ops, s);
    s->next = server->sessions;
    if (s->next)
        s->next->prev = s;
    server->sessions = s;
    server->count++;
    uv_tcp_init(server->loop, &s->tcp);
    uv_timer_init(server->loop, &s->timer);
    s->tcp.data = s->timer.data = s;
    s->handles = 2;
    if (uv_accept(stream, (uv_stream_t *)&s->tcp) < 0 || !s->lmtp) {
        session_close(s);
        return;
    }
    if (server->count > LMTP_SESSIONS_MAX) {
        session_end(s, "421 4.3.2 Too many sessions\r\n");
        return;
    }
    peer_name(s);
    uv_timer_start(&s->timer, on_idle, IDLE_MS, 0);
    uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read);
    session_run(s, NULL, 0);
}

static int resolve(const char *listen, struct sockaddr_storage *ret, struct td_err *reterr)
{
    const char *colon = strrchr(listen, ':'), *from = listen;
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *found = NULL;
    char host[256];
    size_t len;
    int rc;

    if (!colon || (size_t)(colon - listen) >= sizeof(host))
        return td_fail(reterr, TD_ECONFIG, "bounce.lmtp_listen: host:port is wanted");
    len = (size_t)(colon - listen);
    if (len >= 2 && from[0] == '[' && from[len - 1] == ']') {
        from++;
        len -= 2;
    }
    memcpy(host, from, len);
    host[len] = '\0';
    rc = getaddrinfo(host[0] ? host : NULL, colon + 1, &hints, &found);
    if (rc != 0)
        return td_fail(reterr, TD_ECONFIG, "bounce.lmtp_listen: %s", gai_strerror(rc));
    memcpy(ret, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return TD_OK;
}

static void on_server_closed(uv_handle_t *handle)
{
    struct lmtp_server *server = handle->data;

    server->closed = true;
    server_release(server);
}

int lmtp_server_new(uv_loop_t *loop, const char *listen, size_t max_bytes, const struct lmtp_server_ops *ops,
                    void *user, struct lmtp_server **ret, struct td_err *reterr)
{
    struct lmtp_server *server = calloc(1, sizeof(*server));
    struct sockaddr_storage addr;
    int rc;

    if (!server)
        return td_fail(reterr, TD_ENOMEM, "LMTP server");
    rc = resolve(listen, &addr, reterr);
    if (rc < 0) {
        free(server);
        return rc;
    }
    server->loop = loop;
    server->ops = *ops;
    server->user = user;
    server->max_bytes = max_bytes;
    if (gethostname(server->host, sizeof(server->host) - 1) < 0)
        snprintf(server->host, sizeof(server->host), "localhost");
    uv_tcp_init(loop, &server->tcp);
    server->tcp.data = server;
    rc = uv_tcp_bind(&server->tcp, (struct sockaddr *)&addr, 0);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&server->tcp, 128, on_connection);
    if (rc < 0) { /* taken, or not ours: an operator must act */
        td_fail(reterr, TD_ECONFIG, "bounce.lmtp_listen %s: %s", listen, uv_strerror(rc));
        lmtp_server_free(server);
        return TD_ECONFIG;
    }
    *ret = server;
    return TD_OK;
}

int lmtp_server_port(const struct lmtp_server *server)
{
    struct sockaddr_storage addr;
    char port[8];
    int len = sizeof(addr);

    if (uv_tcp_getsockname(&server->tcp, (struct sockaddr *)&addr, &len) < 0 ||
        getnameinfo((struct sockaddr *)&addr, (socklen_t)len, NULL, 0, port, sizeof(port), NI_NUMERICSERV) != 0)
        return -1;
    return (int)strtol(port, NULL, 10);
}

void lmtp_server_stop(struct lmtp_server *server)
{
    if (server->stopped)
        return;
    server->stopped = true;
    uv_close((uv_handle_t *)&server->tcp, on_server_closed);
    for (struct lmtp_session *s = server->sessions; s; s = s->next)
        if (!s->owed)
            session_end(s, GOING);
}

void lmtp_server_free(struct lmtp_server *server)
{
    if (!server)
        return;
    lmtp_server_stop(server);
    for (struct lmtp_session *s = server->sessions; s; s = s->next)
        session_close(s);
    server->freed = true;
    server_release(server);
}
