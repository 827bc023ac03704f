/* bouncer.h - sends delivery status notifications (RFC 3464) for a share of the mails, over LMTP (RFC 2033).
 *
 * Which mails: the first four octets of SHA-256(Message-ID without <>), big-endian, modulo 1,000,000, are below
 * percent * 10,000. So a test can tell beforehand. Mails without a return path never bounce.
 * With --bounce-match only mails to a recipient that holds that text. */
#ifndef RELAYSIM_BOUNCER_H
#define RELAYSIM_BOUNCER_H

#include "session.h"

struct bouncer;

/** @return NULL when the address cannot be used or memory is out, with reterr */
struct bouncer *bouncer_new(struct sim *sim, struct td_err *reterr);
void bouncer_free(struct bouncer *bouncer); /* NULL is fine; what waits is lost */

/** @param recipients  each with a NUL after it */
bool bouncer_chooses(const struct options *options, struct slice message_id, struct slice recipients);

/** Queue a DSN about a mail just taken; when the queue is full it is dropped and counted. Copies what it needs. */
void bouncer_add(struct bouncer *bouncer, const struct mail *mail, uint64_t unix_s);

size_t bouncer_waiting(const struct bouncer *bouncer);

#endif /* RELAYSIM_BOUNCER_H */
