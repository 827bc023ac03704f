#include "redis_conn.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "tandem/stages.h"

/* A reply of more bytes than this is no answer to anything we ask. */
#define REPLY_MAX_BYTES (64u << 20)
#define READ_BYTES 65536

struct redis_conn {
    uv_tcp_t tcp;
    uv_getaddrinfo_t resolving;
    uv_connect_t connecting;
    const struct redis_conn_ops *ops;
    void *user;
    redisReader *reader;
    SSL *ssl;               /* NULL: plain */
    BIO *from_net, *to_net; /* owned by ssl */
    size_t unanswered;      /* bytes read since the last whole reply */
    unsigned attempt;
    unsigned holds; /* libuv still refers to it: the handle, the resolver */
    bool open;      /* TLS is done too */
    bool closed;
    char in[READ_BYTES];
    char plain[READ_BYTES / 4]; /* one TLS record */
};

struct write {
    uv_write_t req;
    char *bytes;
};

static void conn_unhold(struct redis_conn *conn)
{
    if (--conn->holds > 0)
        return;
    if (conn->reader)
        redisReaderFree(conn->reader);
    SSL_free(conn->ssl);
    free(conn);
}

static void on_handle_closed(uv_handle_t *handle)
{
    conn_unhold(handle->data);
}

void redis_conn_close(struct redis_conn *conn)
{
    if (!conn || conn->closed)
        return;
    conn->closed = true;
    uv_cancel((uv_req_t *)&conn->resolving); /* fails when it runs or is done: then its callback comes anyway */
    uv_close((uv_handle_t *)&conn->tcp, on_handle_closed);
}

static void conn_fail(struct redis_conn *conn, const char *why)
{
    if (conn->closed)
        return;
    redis_conn_close(conn);
    conn->ops->closed(conn->user, why);
}

static void on_written(uv_write_t *req, int status)
{
    struct write *write = (struct write *)req;
    struct redis_conn *conn = req->data;

    free(write->bytes);
    free(write);
    if (status < 0 && status != UV_ECANCELED)
        conn_fail(conn, uv_strerror(status));
}

static int send_bytes(struct redis_conn *conn, char *bytes, size_t len)
{
    struct write *write = malloc(sizeof(*write));
    uv_buf_t buf = uv_buf_init(bytes, (unsigned)len);
    int rc;

    if (!write) {
        free(bytes);
        return UV_ENOMEM;
    }
    write->bytes = bytes;
    write->req.data = conn;
    rc = uv_write(&write->req, (uv_stream_t *)&conn->tcp, &buf, 1, on_written);
    if (rc < 0) {
        free(bytes);
        free(write);
    }
    return rc;
}

/* What OpenSSL has to say goes to the peer. */
static int tls_flush(struct redis_conn *conn)
{
    size_t len = BIO_ctrl_pending(conn->to_net);
    char *bytes;

    if (len == 0)
        return 0;
    bytes = malloc(len);
    if (!bytes)
        return UV_ENOMEM;
    BIO_read(conn->to_net, bytes, (int)len);
    return send_bytes(conn, bytes, len);
}

int redis_conn_write(struct redis_conn *conn, char *bytes, size_t len)
{
    size_t done = 0;

    if (conn->closed || !conn->open) {
        free(bytes);
        return UV_ENOTCONN;
    }
    if (!conn->ssl)
        return send_bytes(conn, bytes, len);
    ERR_clear_error();
    /* A memory BIO takes all; SSL_write only fails when the session is broken. */
    if (SSL_write_ex(conn->ssl, bytes, len, &done) != 1 || done != len) {
        free(bytes);
        return UV_EPROTO;
    }
    free(bytes);
    return tls_flush(conn);
}

static void feed(struct redis_conn *conn, const char *bytes, size_t len)
{
    conn->unanswered += len;
    if (conn->unanswered > REPLY_MAX_BYTES) {
        conn_fail(conn, "a reply is too large");
        return;
    }
    redisReaderFeed(conn->reader, bytes, len);
    while (!conn->closed) {
        void *reply = NULL;

        if (redisReaderGetReply(conn->reader, &reply) != REDIS_OK) {
            conn_fail(conn, "it does not speak the Redis protocol");
            return;
        }
        if (!reply)
            return;
        conn->unanswered = 0;
        conn->ops->reply(conn->user, reply);
        freeReplyObject(reply);
    }
}

static void tls_fail(struct redis_conn *conn)
{
    long verdict = SSL_get_verify_result(conn->ssl);

    conn_fail(conn, verdict != X509_V_OK ? X509_verify_cert_error_string(verdict) : "the TLS session broke");
}

static void tls_read(struct redis_conn *conn)
{
    int n;

    while ((n = SSL_read(conn->ssl, conn->plain, sizeof(conn->plain))) > 0) {
        feed(conn, conn->plain, (size_t)n);
        if (conn->closed)
            return;
    }
    if (SSL_get_error(conn->ssl, n) != SSL_ERROR_WANT_READ)
        tls_fail(conn);
}

static void tls_step(struct redis_conn *conn)
{
    int rc;

    ERR_clear_error();
    if (!conn->open) {
        rc = SSL_do_handshake(conn->ssl);
        if (rc != 1 && SSL_get_error(conn->ssl, rc) != SSL_ERROR_WANT_READ) {
            tls_fail(conn);
            return;
        }
        if (rc == 1) {
            conn->open = true;
            conn->ops->opened(conn->user);
        }
    }
    if (!conn->closed && conn->open)
        tls_read(conn);
    if (!conn->closed && tls_flush(conn) < 0)
        conn_fail(conn, "the TLS session broke");
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct redis_conn *conn = handle->data;

    (void)suggested;
    *buf = uv_buf_init(conn->in, sizeof(conn->in));
}

static void take(struct redis_conn *conn, ssize_t n, const uv_buf_t *buf)
{
    if (conn->closed || n == 0)
        return;
    if (n < 0) {
        conn_fail(conn, n == UV_EOF ? "it closed the connection" : uv_strerror((int)n));
    } else if (!conn->ssl) {
        feed(conn, buf->base, (size_t)n);
    } else if (BIO_write(conn->from_net, buf->base, (int)n) != (int)n) {
        conn_fail(conn, "out of memory");
    } else {
        tls_step(conn);
    }
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    enum td_stage before = td_stage(TD_STAGE_REDIS);

    take(stream->data, n, buf);
    td_stage(before);
}

static void on_connected(uv_connect_t *req, int status)
{
    struct redis_conn *conn = req->data;

    if (conn->closed)
        return;
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
    if (status < 0) {
        conn_fail(conn, uv_strerror(status));
        return;
    }
    uv_tcp_nodelay(&conn->tcp, 1);
    uv_tcp_keepalive(&conn->tcp, 1, 15);
    if (conn->ssl) {
        tls_step(conn);
        return;
    }
    conn->open = true;
    conn->ops->opened(conn->user);
}

static const struct addrinfo *pick_address(const struct addrinfo *list, unsigned attempt)
{
    const struct addrinfo *at;
    unsigned count = 0;

    for (at = list; at; at = at->ai_next)
        count++;
    for (at = list, attempt %= count; attempt > 0; attempt--)
        at = at->ai_next;
    return at;
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct redis_conn *conn = req->data;

    if (!conn->closed) {
        if (status == 0 && !list)
            status = UV_EAI_NODATA;
        if (status == 0) {
            conn->connecting.data = conn;
            status = uv_tcp_connect(&conn->connecting, &conn->tcp, pick_address(list, conn->attempt)->ai_addr,
                                    on_connected);
        }
        if (status < 0)
            conn_fail(conn, uv_strerror(status));
    }
    if (list)
        uv_freeaddrinfo(list);
    conn_unhold(conn);
}

SSL_CTX *redis_tls_new(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    if (!ctx)
        return NULL;
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_default_verify_paths(ctx);
    return ctx;
}

static bool tls_prepare(struct redis_conn *conn, SSL_CTX *ctx, const char *host)
{
    conn->ssl = SSL_new(ctx);
    conn->from_net = BIO_new(BIO_s_mem());
    conn->to_net = BIO_new(BIO_s_mem());
    if (!conn->ssl || !conn->from_net || !conn->to_net) {
        BIO_free(conn->from_net);
        BIO_free(conn->to_net);
        return false;
    }
    SSL_set_bio(conn->ssl, conn->from_net, conn->to_net); /* ssl owns them from here */
    SSL_set_connect_state(conn->ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(conn->ssl), host) == 1)
        return true; /* an address is checked against the certificate's addresses, and is never sent as SNI */
    return SSL_set1_host(conn->ssl, host) == 1 && SSL_set_tlsext_host_name(conn->ssl, host) == 1;
}

int redis_conn_open(uv_loop_t *loop, const struct redis_target *target, unsigned attempt, SSL_CTX *tls,
                    const struct redis_conn_ops *ops, void *user, struct redis_conn **ret)
{
    static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct redis_conn *conn = calloc(1, sizeof(*conn));
    int rc;

    if (!conn)
        return UV_ENOMEM;
    conn->ops = ops;
    conn->user = user;
    conn->attempt = attempt;
    conn->reader = redisReaderCreate();
    conn->holds = 1;
    if (!conn->reader || (tls && !tls_prepare(conn, tls, target->host))) {
        conn_unhold(conn);
        return UV_ENOMEM;
    }
    uv_tcp_init(loop, &conn->tcp); /* from here on only redis_conn_close ends it */
    conn->tcp.data = conn;
    conn->resolving.data = conn;
    rc = uv_getaddrinfo(loop, &conn->resolving, on_resolved, target->host, target->port, &hints);
    if (rc < 0) {
        redis_conn_close(conn);
        return rc;
    }
    conn->holds++;
    *ret = conn;
    return 0;
}
