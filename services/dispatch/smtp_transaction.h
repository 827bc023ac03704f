/* smtp_transaction.h - the client's side of SMTP on one connection after EHLO and AUTH (RFC 5321, 2920, 1870).
 * Pure.
 *
 * Bytes and time come in as arguments, bytes to write come out; whoever owns the socket moves them (connection.c).
 * Exact about the phase: a mail counts as not taken until the last byte of its final dot was handed to the socket.
 *
 *   lock step   MAIL -> 250, RCPT -> 250, DATA -> 354, content and dot -> 250
 *   PIPELINING  MAIL+RCPT+DATA -> 250 250 354, [content and dot + MAIL+RCPT+DATA of the next] -> 250, 250 250 354
 *   BDAT        [MAIL+RCPT+BDAT n LAST+content] [RSET+MAIL+RCPT+BDAT n LAST+content] ... up to a window
 *
 * so a mail costs four round trips, one, or a part of one. With PIPELINING two mails can be in flight: one waits
 * for its last reply while the next has its envelope out. With BDAT (RFC 3030, where CHUNKING and PIPELINING are
 * offered) as many as the window; the RSET makes a refused mail end where it ends, whatever a relay thinks of MAIL
 * behind a refused BDAT (RFC 3030 leaves that open). Two things wait for a reply all the same: the content of the
 * first mail after a silence, since the relay may have hung up by now and the mail would be in doubt for nothing,
 * and content too large for one write, which a refused recipient would make us send in vain. */
#ifndef SMTP_TRANSACTION_H
#define SMTP_TRANSACTION_H

#include "attempt.h"

#define SMTP_PIPELINED_MAX 2 /* mails in flight with PIPELINING */
#define SMTP_WINDOW_MAX 64   /* and with BDAT, at the most */

/* What EHLO offered, as far as it matters here. */
struct smtp_offer {
    bool pipelining;
    bool chunking;     /* BDAT may be used, if pipelining too */
    uint32_t window;   /* mails in flight with BDAT, 1..SMTP_WINDOW_MAX; 0 = 1 */
    bool size;         /* SIZE= may be said */
    uint64_t size_max; /* largest message it takes, octets; 0 = not said */
};

/* One mail with one recipient; all borrowed until its result is out. */
struct smtp_mail {
    const char *reverse_path; /* without <>; "" = null */
    const char *recipient;    /* without <> */
    const struct slice *slices;
    size_t slice_count;
    void *user;
};

enum smtp_end {
    SMTP_OPEN,        /* usable */
    SMTP_END_QUIT,    /* we said QUIT and it was answered */
    SMTP_END_421,     /* the relay said that it closes (421, or 4.4.2 to whatever) */
    SMTP_END_GARBAGE, /* a reply that cannot belong: out of step for good */
    SMTP_END_CLOSED,  /* the other side ended the stream, in order */
    SMTP_END_LOST,    /* reset, cut off */
    SMTP_END_TIMEOUT
};

/* Which of the three waits of RFC 5321 s.4.5.3.2 is under way. */
enum smtp_wait { SMTP_WAIT_NOTHING, SMTP_WAIT_COMMAND, SMTP_WAIT_DATA, SMTP_WAIT_FINAL };

struct smtp_transaction; /* about 5 KB, and 0.8 KB a mail of the window; while it writes, 66 KB more */

/* Send buffers that transactions of one thread share: one is in use only from when bytes are composed until they
 * are written, and most writes are done at once, so a thousand connections need few. */
struct smtp_buffers;
/** @return NULL when out of memory; free with smtp_buffers_free */
struct smtp_buffers *smtp_buffers_new(void);
/** After all its transactions. NULL is fine. */
void smtp_buffers_free(struct smtp_buffers *buffers);

/** @param buffers  borrowed for its life
 * @return NULL when out of memory; free with smtp_transaction_free */
struct smtp_transaction *smtp_transaction_new(const struct smtp_offer *offer, struct smtp_buffers *buffers);
void smtp_transaction_free(struct smtp_transaction *tx); /* NULL is fine */

/** Mails that can be in flight here. */
size_t smtp_transaction_slots(const struct smtp_transaction *tx);
/** May another mail be started? true on an idle connection; with PIPELINING also once the mail before has its 354;
 * with BDAT while the window is not full and the mail before is on its way. */
bool smtp_transaction_room(const struct smtp_transaction *tx);
/**
 * Take a mail (only when there is room).
 * @return 1: begun, its result comes by smtp_transaction_result; 0: *ret is its result and nothing was or will be
 *         sent for it: ATTEMPT_INVALID, or REPLIED 552 5.3.4 when it is larger than the relay takes (RFC 1870)
 */
int smtp_transaction_start(struct smtp_transaction *tx, const struct smtp_mail *mail, uint64_t now_us,
                           struct attempt_result *ret);
/** Ask for a sign of life; on success the connection is idle again, else it ends. */
void smtp_transaction_noop(struct smtp_transaction *tx);
/** Say QUIT as soon as nothing is in flight. No more mail can be started. */
void smtp_transaction_quit(struct smtp_transaction *tx);

/** Bytes to write now. They stay where they are until smtp_transaction_wrote took them (a TLS write that would
 * block must be repeated with the same bytes). @return their number, 0: nothing (or no memory for a buffer: the
 * wait runs out) */
size_t smtp_transaction_out(struct smtp_transaction *tx, const char **ret_data);
/** n of those bytes were handed to the socket. */
void smtp_transaction_wrote(struct smtp_transaction *tx, size_t n, uint64_t now_us);
/** A mail whose last octet was handed over by that, each once. @return false when there is none (more) */
bool smtp_transaction_sent(struct smtp_transaction *tx, void **ret_user);
/** Bytes came from the relay. */
void smtp_transaction_in(struct smtp_transaction *tx, const char *data, size_t len, uint64_t now_us);
/** The connection is gone, or a wait was too long: every mail in flight gets its result by its phase.
 * SMTP_END_CLOSED may only be said of an end that the other side vouched for (TLS close_notify), not of a torn
 * connection. */
void smtp_transaction_fail(struct smtp_transaction *tx, enum smtp_end why);
/** Is there a mail that would be UNCONFIRMED if the connection failed now? */
bool smtp_transaction_in_doubt(const struct smtp_transaction *tx);

/** Take the next result. @return false when there is none */
bool smtp_transaction_result(struct smtp_transaction *tx, void **ret_user, struct attempt_result *ret);
bool smtp_transaction_has_result(const struct smtp_transaction *tx);
/** Is a mail in flight whose envelope or content is out? */
bool smtp_transaction_busy(const struct smtp_transaction *tx);
/** Nothing in flight, nothing to write, no reply to come. */
bool smtp_transaction_idle(const struct smtp_transaction *tx);
enum smtp_end smtp_transaction_end(const struct smtp_transaction *tx);
/** Is a reply due to what was handed to the socket? */
bool smtp_transaction_expects(const struct smtp_transaction *tx);
enum smtp_wait smtp_transaction_wait(const struct smtp_transaction *tx);
/** Rises with every whole reply and every write: a wait starts anew then (never with a part of a reply, which a
 * relay could drip for ever). */
uint64_t smtp_transaction_progress(const struct smtp_transaction *tx);
/** The relay has said that it closes, and replies to mails behind may still come; no mail can be started. */
bool smtp_transaction_closing(const struct smtp_transaction *tx);
/** Mails begun on this connection. */
uint64_t smtp_transaction_mails(const struct smtp_transaction *tx);

#endif /* SMTP_TRANSACTION_H */
