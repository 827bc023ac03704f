/* sns_https.c - the host that stands for sns.<region>.amazonaws.com: GET /<name>.pem, GET /?Action=ConfirmSubscription&...
 * One request a connection. */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_request.h"
#include "sns.h"

#define REQUEST_NS (10 * UINT64_C(1000000000))
#define PEERS_MAX 32

struct sns_https {
    struct listener listener; /* first: on_peer casts */
    const char *pem, *token;
    void (*confirmed)(void *user);
    void *user;
    struct peer *peers;
    size_t count;
};

struct peer {
    struct watch watch;
    struct timer timer;
    struct peer *prev, *next;
    struct sns_https *https;
    SSL *ssl;
    struct td_buf in, out;
    bool answered;
};

static void peer_close(struct peer *peer)
{
    struct sns_https *https = peer->https;

    loop_timer_stop(&https->listener.sim->loop, &peer->timer);
    if (peer->answered)
        SSL_shutdown(peer->ssl);
    SSL_free(peer->ssl);
    ERR_clear_error();
    loop_close(&https->listener.sim->loop, &peer->watch);
    td_buf_release(&peer->in);
    td_buf_release(&peer->out);
    if (peer->prev)
        peer->prev->next = peer->next;
    else
        https->peers = peer->next;
    if (peer->next)
        peer->next->prev = peer->prev;
    https->count--;
    free(peer);
}

static void on_timer(struct timer *timer)
{
    peer_close((struct peer *)((char *)timer - offsetof(struct peer, timer)));
}

static bool ends_with(struct slice text, const char *end)
{
    size_t len = strlen(end);

    return text.len >= len && memcmp(text.data + text.len - len, end, len) == 0;
}

static void answer(struct peer *peer, const struct http_request *request)
{
    struct sns_https *https = peer->https;
    const char *body = "no such thing\n";
    char confirmation[128];
    int status = 404;

    snprintf(confirmation, sizeof(confirmation), "&Token=%s", https->token);
    if (ends_with(request->path, ".pem")) {
        status = 200;
        body = https->pem;
    } else if (request->query.len > 26 && memcmp(request->query.data, "Action=ConfirmSubscription", 26) == 0 &&
               ends_with(request->query, confirmation)) {
        status = 200;
        body = "<ConfirmSubscriptionResponse/>\n";
        https->confirmed(https->user);
    }
    td_buf_printf(&peer->out, "HTTP/1.1 %d %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", status,
                  status == 200 ? "OK" : "Not Found", strlen(body), body);
    peer->answered = true;
}

/* @return 1: done; 0: wait for `want`; -1: gone */
static int result(const struct peer *peer, int rc, uint32_t *want)
{
    int error;

    if (rc == 1)
        return 1;
    error = SSL_get_error(peer->ssl, rc);
    ERR_clear_error();
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        return -1;
    *want = error == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT;
    return 0;
}

static int peer_step(struct peer *peer, uint32_t *want)
{
    struct http_request request;
    char data[4096];
    size_t n = 0;
    int rc;

    if (peer->answered) {
        rc = result(peer, SSL_write_ex(peer->ssl, peer->out.data, peer->out.len, &n), want);
        if (rc == 1)
            td_buf_consume(&peer->out, n);
        return rc == 1 && peer->out.len == 0 ? -1 : rc;
    }
    rc = result(peer, SSL_read_ex(peer->ssl, data, sizeof(data), &n), want); /* does the handshake, too */
    if (rc != 1)
        return rc;
    if (td_buf_add(&peer->in, data, n) < 0)
        return -1;
    rc = http_request_read((struct slice){peer->in.data, peer->in.len}, &request);
    if (rc == TD_OK)
        answer(peer, &request);
    return rc == TD_OK || rc == TD_EAGAIN ? 1 : -1;
}

static void on_ready(struct watch *watch, uint32_t events)
{
    struct peer *peer = (struct peer *)watch;
    uint32_t want = 0;
    int rc;

    (void)events;
    do
        rc = peer_step(peer, &want);
    while (rc == 1);
    if (rc < 0 || loop_watch(&peer->https->listener.sim->loop, &peer->watch, want) < 0)
        peer_close(peer);
}

static void on_peer(struct watch *watch, uint32_t events)
{
    struct sns_https *https = (struct sns_https *)watch;
    struct sim *sim = https->listener.sim;
    int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct peer *peer = fd < 0 || https->count >= PEERS_MAX ? NULL : calloc(1, sizeof(*peer));

    (void)events;
    if (!peer) {
        if (fd >= 0)
            close(fd);
        return;
    }
    peer->watch = (struct watch){.fd = fd, .ready = on_ready};
    peer->timer.fire = on_timer;
    peer->https = https;
    td_buf_init(&peer->in, HTTP_HEAD_MAX);
    td_buf_init(&peer->out, 65536);
    peer->next = https->peers;
    if (peer->next)
        peer->next->prev = peer;
    https->peers = peer;
    https->count++;
    peer->ssl = SSL_new(sim->tls.ctx[CERTIFICATE_GOOD]);
    if (!peer->ssl || SSL_set_fd(peer->ssl, fd) != 1 || loop_watch(&sim->loop, &peer->watch, EPOLLIN) < 0 ||
        loop_timer(&sim->loop, &peer->timer, sim->loop.now_ns + REQUEST_NS) < 0) {
        peer_close(peer);
        return;
    }
    SSL_set_accept_state(peer->ssl);
}

struct sns_https *sns_https_new(struct sim *sim, const char *pem, const char *token, void (*confirmed)(void *user),
                                void *user, struct td_err *reterr)
{
    struct sns_https *https = calloc(1, sizeof(*https));

    if (!https) {
        td_fail(reterr, TD_ENOMEM, "sns");
        return NULL;
    }
    *https = (struct sns_https){.pem = pem, .token = token, .confirmed = confirmed, .user = user};
    https->listener = (struct listener){.watch.fd = -1, .sim = sim, .where = sim->options.sns_listen};
    if (listener_open(&https->listener, on_peer, reterr) < 0) {
        free(https);
        return NULL;
    }
    return https;
}

void sns_https_free(struct sns_https *https)
{
    if (!https)
        return;
    while (https->peers)
        peer_close(https->peers);
    loop_close(&https->listener.sim->loop, &https->listener.watch);
    free(https);
}

uint16_t sns_https_port(const struct sns_https *https)
{
    return https->listener.port;
}
