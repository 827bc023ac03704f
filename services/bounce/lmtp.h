/* lmtp.h - the server's side of one LMTP session (RFC 2033), as bytes in and bytes out. Pure.
 *
 *  GREETED --LHLO--> READY --MAIL--> MAIL --RCPT (one or more)--> RCPT --DATA--> DATA --dot--> WAIT
 *                      ^------------------------- replies, one a recipient --------------------|
 *
 * Pipelined commands are read one after the other; while WAIT nothing is read on, so the order of replies holds.
 * Memory is bounded whatever the client sends: 64 KiB of input, max_bytes of a message, 50 recipients. */
#ifndef LMTP_H
#define LMTP_H

#include <stdbool.h>
#include <stddef.h>

#include "tandem/buf.h"

enum { LMTP_LINE_MAX = 1024, LMTP_RCPT_MAX = 50, LMTP_INPUT_MAX = 64 * 1024, LMTP_MESSAGE_MAX = 64 * 1024 * 1024 };

struct lmtp; /* opaque */

struct lmtp_ops {
    /** May mail come to this address (printable ASCII)? @return false: refused with 550 5.1.1 */
    bool (*recipient)(void *user, const char *address);
    /**
     * A whole message for the recipients so far (lmtp_recipient). Later, never from inside, lmtp_answer must be
     * called once for each recipient in order.
     */
    void (*message)(void *user);
};

/**
 * @param max_bytes  of a longer message only the beginning is kept (lmtp_cut): a report says what it has to say
 * before the mail that it returns. One longer than LMTP_MESSAGE_MAX is refused with 552 5.3.4.
 */
struct lmtp *lmtp_new(const char *host_name, size_t max_bytes, const struct lmtp_ops *ops, void *user);
void lmtp_free(struct lmtp *lmtp); /* NULL is fine */

/**
 * Give bytes from the client; what is to be sent to it is appended to out (the greeting at the first call, which
 * may have len 0). The limit of out should be 64 KiB or more.
 * @return 0, or -1: send what is in out, then close (QUIT, too many errors, or more than we keep)
 */
int lmtp_feed(struct lmtp *lmtp, const char *data, size_t len, struct td_buf *out);
/** Reply for the next recipient of the message at hand: 250, or 451 to make the client try again. Reads on after
 * the last one, which may bring the next message before this returns. @return as lmtp_feed */
int lmtp_answer(struct lmtp *lmtp, bool taken, struct td_buf *out);
/** true between `message` and the last lmtp_answer. */
bool lmtp_waiting(const struct lmtp *lmtp);

size_t lmtp_recipient_count(const struct lmtp *lmtp);
const char *lmtp_recipient(const struct lmtp *lmtp, size_t i);
const char *lmtp_sender(const struct lmtp *lmtp);           /* "" = null reverse-path */
const struct td_buf *lmtp_content(const struct lmtp *lmtp); /* the message, dots unstuffed */
bool lmtp_cut(const struct lmtp *lmtp);                     /* the message was longer than its content */

#endif /* LMTP_H */
