/* pool.h - the connections to one relay: how a mail gets into a relay and what became of it. Loop thread only.
 *
 * libcurl (CURLOPT_CONNECT_ONLY on one multi handle, driven by the loop) does DNS, TCP, TLS with verification,
 * EHLO and AUTH; the transaction is smtp_transaction.c over curl_easy_send/recv. One mail is one transaction with
 * one recipient. The pool knows nothing of relay choice, pacing, Redis or Kafka. */
#ifndef POOL_H
#define POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "attempt.h"
#include "reply_classify.h"
#include "tandem/err.h"
#include "tandem/metrics.h"
#include "tandem/settings.h"

/* Facts about the relay that no single mail answers for. */
enum relay_event {
    RELAY_UP,        /* a connection is ready */
    RELAY_DNS,       /* host name did not resolve */
    RELAY_CONNECT,   /* refused, unreachable, timed out */
    RELAY_TLS,       /* handshake or verification failed, or STARTTLS is not offered: nothing was sent */
    RELAY_BANNER,    /* greeting or EHLO refused, garbage, timed out */
    RELAY_AUTH,      /* credentials refused (535 and so on) */
    RELAY_RESET,     /* an established connection broke during a transaction */
    RELAY_SILENT,    /* it hangs: nothing comes for long, nor on a probe's connection; until RELAY_UP it gets nothing */
    RELAY_TOO_MANY,  /* 421 too many connections */
    RELAY_QUOTA,     /* refused before any mail: its quota is used up */
    RELAY_SUSPENDED, /* refused before any mail: our account is paused */
    RELAY_EVENT_COUNT
};
const char *relay_event_name(enum relay_event event); /* "dns", "connect", ... */

struct mail_job {
    /* Set by the caller, borrowed until done. */
    const char *reverse_path;   /* without <>; "" = null */
    const char *recipient;      /* without <>; has passed td_addr_check */
    const struct slice *slices; /* header and body, CRLF line ends, NOT dot-stuffed */
    size_t slice_count;
    size_t bytes; /* of all slices */
    void *user;
    /* Private to the pool. */
    struct mail_job *next;
    bool retried; /* it has been given a fresh connection once */
};

struct pool;

struct pool_ops {
    /** Exactly once for every job that pool_send took; never from inside pool_send. It is the caller's then. */
    void (*done)(void *user, struct mail_job *job, const struct attempt_result *result);
    /** The mail's last octet was handed to the socket at now_us (td_mono_us): before done. Twice for a job whose
     * connection the relay then closed before it looked at it, and which went over a fresh one. NULL: nobody asks. */
    void (*sent)(void *user, struct mail_job *job, uint64_t now_us);
    /** detail: a short text without personal data, such as "Connection refused" or "535 5.7.8". */
    void (*event)(void *user, struct pool *pool, enum relay_event event, const char *detail);
    /** pool_room has risen from 0. */
    void (*room)(void *user, struct pool *pool);
};

int pool_new(uv_loop_t *loop, const struct td_relay_settings *relay, struct td_metrics *metrics,
             const struct pool_ops *ops, void *user, struct pool **ret, struct td_err *reterr);
/** How the relay's refusals before any mail are classified, see reply_classify; borrowed. Without: built-in rules
 * alone. */
void pool_rules(struct pool *pool, const struct reply_rules *rules);
const struct td_relay_settings *pool_relay(const struct pool *pool);

/** How many more jobs it would take now: free connections, plus those it may still open (or is opening) less their
 * jobs. Opening is staggered: at most 8 handshakes at once. */
size_t pool_room(const struct pool *pool);
/** Would one more be written at once, on a connection that is up? */
bool pool_takes_now(const struct pool *pool);
/** Have so many more connections opened, as far as there is room; each that is up is told as RELAY_UP. */
void pool_warm(struct pool *pool, size_t connections);
/** @return TD_OK, or TD_EAGAIN when there is no room. Copies nothing. */
int pool_send(struct pool *pool, struct mail_job *job);
/** Jobs taken and not done. */
size_t pool_busy(const struct pool *pool);

/** Connect, TLS, EHLO, AUTH, NOOP, QUIT, without mail. cb once: event RELAY_UP when all went well. */
int pool_probe(struct pool *pool, void (*cb)(void *user, enum relay_event event, const char *detail), void *user);
/** Cap below relay->max_connections (421 too many); rises again by one a minute by itself. */
void pool_limit(struct pool *pool, size_t max_connections);
size_t pool_connections(const struct pool *pool); /* established */
/** How long nothing has come from it, ms, since it was found silent; 0: it is not. Meanwhile there is no room. */
uint64_t pool_silent_ms(const struct pool *pool);
/** All have left it because it was silent to another process: see silence.h. */
void pool_others_silent(struct pool *pool, bool others);
/** Jobs still waiting for a connection (nothing sent yet) are given back as NOT_TAKEN: after the relay was found
 * down. */
void pool_give_back(struct pool *pool);

/** Close idle connections with QUIT now, the others after their job; cb when none is left. */
void pool_stop(struct pool *pool, void (*cb)(void *user), void *user);
/** Jobs not done are never called back: stop first. Not from inside a callback of the pool. Its handles close as
 * the loop runs on; a pool keeps the loop alive until then. NULL is fine. */
void pool_free(struct pool *pool);

#endif /* POOL_H */
