/* redis_conn.h - one connection to Redis: resolve, connect, TLS, bytes out, replies in. Loop thread only.
 *
 * Of hiredis only the reply reader is used. Its async context resolves names with a blocking getaddrinfo, knows no
 * deadline before 1.0, frees itself under its callbacks in ways that changed between 0.14 and 1.2, and its TLS
 * never checks the host's name; a libuv stream and OpenSSL need less code than working around that. */
#ifndef TD_REDIS_CONN_H
#define TD_REDIS_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <hiredis/hiredis.h>
#include <openssl/ssl.h>
#include <uv.h>

#include "redis_url.h"

struct redis_conn;

struct redis_conn_ops {
    void (*opened)(void *user); /* bytes may be written now */
    void (*reply)(void *user, const redisReply *reply);
    /** It broke: once, never inside redis_conn_write. The connection is gone when this returns. why: no addresses.
     */
    void (*closed)(void *user, const char *why);
};

/**
 * @param attempt  counts tries: a host with several addresses is tried at the next one each time
 * @param tls      NULL for a plain connection; borrowed until closed
 * @param ops      borrowed for ever (static)
 * @return 0, or a libuv error
 */
int redis_conn_open(uv_loop_t *loop, const struct redis_target *target, unsigned attempt, SSL_CTX *tls,
                    const struct redis_conn_ops *ops, void *user, struct redis_conn **ret);
/** Takes bytes (malloc) even when it fails. @return 0, or a libuv error: close it then */
int redis_conn_write(struct redis_conn *conn, char *bytes, size_t len);
/** No callback after this; safe inside callbacks. Memory goes when libuv has closed the handle. NULL is fine. */
void redis_conn_close(struct redis_conn *conn);

/** A client context that verifies against the system's authorities (SSL_CERT_FILE and SSL_CERT_DIR are heeded),
 * TLS 1.2 or later. NULL when OpenSSL cannot make one. */
SSL_CTX *redis_tls_new(void);

#endif /* TD_REDIS_CONN_H */
