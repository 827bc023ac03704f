/* connection.h - one SMTP connection to a relay, from DNS to QUIT. Loop thread only.
 *
 *   connecting --libcurl: DNS to AUTH--> up --> [mails] --> idle --> ... --> QUIT, closed or lost --> ended
 *        |
 *        +--> failed
 *
 * While connecting the socket is libcurl's and watched for its multi handle; once up it is ours and watched by one
 * uv_poll, the transaction runs over curl_easy_send and curl_easy_recv. Exactly one of failed and ended is called,
 * once, last; after it the connection frees itself. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <uv.h>

#include "pool.h"
#include "smtp_transaction.h"

struct connector; /* a multi handle on the loop: what all connections to one relay share */
struct connection;

struct connection_ops {
    void (*up)(void *user);
    /** It never came up. detail: short, without personal data. */
    void (*failed)(void *user, enum relay_event event, const char *detail);
    /** There is room for a mail: fill *ret and return true, or return false. */
    bool (*next)(void *user, struct smtp_mail *ret);
    /** The last octet of a mail was handed to the socket. */
    void (*sent)(void *user, void *mail_user, uint64_t now_us);
    /** A mail is done. connection_end tells whether the connection is. */
    void (*result)(void *user, void *mail_user, const struct attempt_result *result);
    /** Nothing in flight and next had nothing: each time it becomes so. */
    void (*idle)(void *user);
    /** Idle for idle_timeout_ms: still open. */
    void (*stale)(void *user);
    void (*ended)(void *user, enum smtp_end why);
};

/** relay is borrowed for the connector's life. */
int connector_new(uv_loop_t *loop, const struct td_relay_settings *relay, struct connector **ret,
                  struct td_err *reterr);
/** For refusals before any mail; borrowed; NULL: the built-in ones alone. */
void connector_rules(struct connector *connector, const struct reply_rules *rules);
/** When a reply, or a part of one, last came from the relay on any connection that is not set apart: td_mono_us. */
uint64_t connector_heard_us(const struct connector *connector);
/** All its connections must have been closed. Freed when the loop has run on. NULL is fine. */
void connector_free(struct connector *connector);

/** Begin to connect. No callback before the loop runs. */
int connection_open(struct connector *connector, const struct connection_ops *ops, void *user,
                    struct connection **ret, struct td_err *reterr);
/** Ask ops->next and write. Only while up. */
void connection_run(struct connection *conn);
/** Say QUIT once nothing is in flight; ended follows, soon even when the relay is silent. Only while up. */
void connection_quit(struct connection *conn);
/** Ask for a sign of life; idle follows when it came. Only while up. */
void connection_noop(struct connection *conn);
/** The relay has gone silent: end it as after a timeout. */
void connection_give_up(struct connection *conn);
/** Is a mail in flight whose final dot is out, so that the relay may have taken it? */
bool connection_final_out(const struct connection *conn);
/** Drop it now, without a word and without any further callback. Not from inside its callbacks. */
void connection_close(struct connection *conn);

/* How far one that connects has come. */
enum connection_stage {
    CONNECTION_RESOLVING, /* the name is not known yet */
    CONNECTION_REACHING,
    CONNECTION_SECURED, /* TLS is up */
    CONNECTION_GREETED  /* the relay has said something */
};
enum connection_stage connection_stage(const struct connection *conn);
/** A probe's: what comes on it does not count for connector_heard_us. */
void connection_set_apart(struct connection *conn);
/** From the first packet to the end of the TLS handshake. Only while up. */
uint64_t connection_secured_us(const struct connection *conn);

enum smtp_end connection_end(const struct connection *conn);
/** Mails that it can have in flight. Only while up. */
size_t connection_slots(const struct connection *conn);
/** Its TLS resumed a session: no whole handshake was done. Only while up. */
bool connection_resumed(const struct connection *conn);
/** Mails begun on it. */
uint64_t connection_mails(const struct connection *conn);

#endif /* CONNECTION_H */
