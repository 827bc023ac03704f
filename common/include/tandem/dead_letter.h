/* tandem/dead_letter.h - a record that nobody can read goes aside as it came, with the reason, so that its lane
 * goes on. Loop thread only. */
#ifndef TD_DEAD_LETTER_H
#define TD_DEAD_LETTER_H

#include "tandem/err.h"
#include "tandem/kafka.h"

/**
 * Write a record to mail.dead-letters, key and value as they are, with headers that say where it came from and
 * why: source-topic (as td_topics names it: without prefix, which both topics have), source-partition,
 * source-offset, service, reason, and sha256 of the value. What is handed over is logged once, as record.dead. A
 * value that these headers make too large for a record is left out: sha256 and offset still find it.
 * @param service  such as "dispatch"
 * @param rec      copied; its timestamp is not looked at
 * @param reason   a stable code or a sentence; no personal data
 * @param cb       as td_kafka_out_send: exactly once if TD_OK was returned; until then the offset must not be
 * committed
 * @return as td_kafka_out_send, but never TD_ETOOBIG
 */
int td_dead_letter(struct td_kafka_out *out, const char *service, const struct td_record *rec, const char *reason,
                   td_delivered_fn *cb, void *user, struct td_err *reterr);

#endif /* TD_DEAD_LETTER_H */
