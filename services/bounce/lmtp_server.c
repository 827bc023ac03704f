#include "lmtp_server.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tandem/log.h"

enum { SESSIONS_MAX = 200, IDLE_MS = 300000 };

enum answer { ANSWER_NONE = 0, ANSWER_TAKEN, ANSWER_LATER };

struct lmtp_session {
    struct lmtp_server *server;
    struct lmtp_session *prev, *next;
    uv_tcp_t tcp;
    uv_timer_t timer;
    struct lmtp *lmtp;
    struct lmtp_ops ops; /* the server's, with this session as user */
    enum answer answer[LMTP_RCPT_MAX];
    size_t told, owed; /* recipients answered to the client; answers still to come from the service */
    unsigned handles;  /* open libuv handles */
    bool closing;
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

static void session_send(struct lmtp_session *s, struct td_buf *out, bool last)
{
    struct write *w;
    uv_buf_t buf;
    size_t len;

    if (s->closing || (!out->len && !last))
        return;
    w = calloc(1, sizeof(*w));
    if (!w || !out->len) {
        free(w);
        session_close(s);
        return;
    }
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

static void on_idle(uv_timer_t *timer)
{
    session_close(timer->data);
}

static void feed(struct lmtp_session *s, const char *data, size_t len)
{
    struct td_buf out = TD_BUF_INIT(65536);
    int rc = lmtp_feed(s->lmtp, data, len, &out);

    session_send(s, &out, rc < 0);
    td_buf_release(&out);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct lmtp_session *s = handle->data;

    (void)suggested;
    *buf = uv_buf_init(s->buffer, sizeof(s->buffer));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct lmtp_session *s = stream->data;

    if (n < 0) {
        session_close(s);
        return;
    }
    uv_timer_start(&s->timer, on_idle, IDLE_MS, 0);
    if (n > 0)
        feed(s, buf->base, (size_t)n);
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
    struct td_buf out = TD_BUF_INIT(65536);
    size_t n = lmtp_recipient_count(s->lmtp);
    int rc = 0;

    s->answer[recipient] = taken ? ANSWER_TAKEN : ANSWER_LATER;
    s->owed--;
    while (!s->closing && rc == 0 && s->told < n && s->answer[s->told] != ANSWER_NONE) {
        size_t at = s->told++;

        /* After the last one the dialogue reads on and may begin the next message, which resets told and n. */
        rc = lmtp_answer(s->lmtp, s->answer[at] == ANSWER_TAKEN, &out);
        if (at + 1 == n)
            break;
    }
    session_send(s, &out, rc < 0);
    td_buf_release(&out);
    if (s->closing)
        session_release(s);
}

const struct lmtp *lmtp_session_dialogue(const struct lmtp_session *s)
{
    return s->lmtp;
}

const char *lmtp_session_peer(const struct lmtp_session *s)
{
    return s->peer;
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
    if (uv_accept(stream, (uv_stream_t *)&s->tcp) < 0 || !s->lmtp || server->count > SESSIONS_MAX) {
        session_close(s);
        return;
    }
    peer_name(s);
    uv_timer_start(&s->timer, on_idle, IDLE_MS, 0);
    uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read);
    feed(s, NULL, 0);
}

static int resolve(const char *listen, struct sockaddr_storage *ret, struct td_err *reterr)
{
    const char *colon = strrchr(listen, ':');
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *found = NULL;
    char host[256];
    int rc;

    if (!colon || (size_t)(colon - listen) >= sizeof(host))
        return td_fail(reterr, TD_ECONFIG, "bounce.lmtp_listen: host:port is wanted");
    memcpy(host, listen, (size_t)(colon - listen));
    host[colon - listen] = '\0';
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

int lmtp_server_new(uv_loop_t *loop, const char *listen, size_t max_bytes, const struct lmtp_server_ops *ops, void *user,
                    struct lmtp_server **ret, struct td_err *reterr)
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
    if (rc < 0) {
        td_fail(reterr, TD_ECONFIG, "bounce.lmtp_listen %s: %s", listen, uv_strerror(rc));
        lmtp_server_free(server);
        return TD_ECONFIG;
    }
    *ret = server;
    return TD_OK;
}

void lmtp_server_stop(struct lmtp_server *server)
{
    if (server->stopped)
        return;
    server->stopped = true;
    uv_close((uv_handle_t *)&server->tcp, on_server_closed);
    for (struct lmtp_session *s = server->sessions; s; s = s->next)
        if (!s->owed)
            session_close(s);
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
