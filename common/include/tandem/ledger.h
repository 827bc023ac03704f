/* tandem/ledger.h - exactly one outcome: two bits a recipient in Redis, changed only by scripts (DESIGN s.5).
 *
 * Keys of a campaign, all tagged {c:<campaign_id>} (one slot of a Redis Cluster):
 *   td:{c:X}:seen     bitmap, ingestion took it            td:{c:X}:totals   hash of counts, see below
 *   td:{c:X}:tried    bitmap, it may have been handed over td:{c:X}:pending  hash index -> packed Outcome, from
 * end td:{c:X}:done     bitmap, it has its outcome                             until mail.outcomes has it
 *   td:{c:X}:addr     string, 16 bytes a recipient         td:{c:X}:bounced  bitmap, counted as bounced
 *   td:{c:X}:doubt    hash index -> relay that may have    td:{c:X}:evidence hash index -> packed Outcome: a relay told that
 *                     it, of mails that may have been                         it took this mail while it was under way
 *                     sent and wait for evidence
 * totals fields: submitted, accepted, refused, invalid, suppressed, expired, cancelled, unconfirmed,
 *   accepted:<relay>, refused:<relay> (because the address takes no mail), hard:<relay>, soft:<relay>, block:<relay>,
 *   and count (sealed recipient count).
 *   td:{c:X}:begun:T  what begin with token T answered, for 10 minutes
 *   td:{c:X}:hours    hash, what each relay took and what bounced there by the hour, for 26 hours after the last change
 * All expire 30 days after the last change. Every call may be repeated: it has no further effect, except begin
 * without a token, see there. A Redis that is new or has lost its data has no key td:{view}: begin, end, admit,
 * seal, bounce, a lane's lease and the suppression check then fail (TD_EIO, the link drops) until ingestion has
 * rebuilt the view, so that nobody is told GO of a mail that is done. `tried` cannot be rebuilt: see
 * td_lane_acquire. Loop thread only. Batches hold 1..TD_LEDGER_BATCH entries of one campaign; more, or an index
 * over TD_LEDGER_INDEX_MAX, or an invalid name is TD_EINVAL: returned, and no callback comes (as after TD_ENOMEM).
 */
#ifndef TD_LEDGER_H
#define TD_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/err.h"
#include "tandem/id.h"
#include "tandem/redis.h"

#define TD_LEDGER_BATCH 500
#define TD_LEDGER_INDEX_MAX                                                                                       \
    16777215u /* bounds what one number can make Redis allocate: 2 MiB of bits, 256 MiB of addr */

enum td_verdict {
    TD_GO = 0,   /* not tried: `tried` is set now, go on */
    TD_DONE = 1, /* it has its outcome; when `outcome` is given mail.outcomes may lack it: publish it again */
    TD_TRIED = 2, /* somebody may have handed it over and nobody knows the result: unconfirmed */
    TD_PROVEN = 3 /* the same, but its relay has told that it took it: end it with `outcome` */
};

struct td_begun {
    enum td_verdict verdict;
    const void *outcome; /* packed tandem.mail.v1.Outcome, valid in the callback; NULL when none is pending */
    size_t outcome_len;
};

/** err: as td_redis_cb; begun has count entries in the order asked, NULL on failure. */
typedef void td_ledger_begin_cb(void *user, const struct td_begun *begun, size_t count, const struct td_err *err);
int td_ledger_begin(struct td_redis *redis, const char *campaign_id, const uint32_t *index, size_t count,
                    td_ledger_begin_cb *cb, void *user);
/**
 * The same, safe to repeat: after TD_ETIMEOUT or TD_EIO nobody knows whether begin was carried out, and begun
 * again it would answer TRIED for mails that were never handed over. With the same token, indices in the same
 * order, within 10 minutes, it answers what it answered then.
 * @param token  1..64 bytes of a-z 0-9 - _ :, unique to this batch (process run and a counter); "" = none
 */
int td_ledger_begin_as(struct td_redis *redis, const char *campaign_id, const char *token, const uint32_t *index,
                       size_t count, td_ledger_begin_cb *cb, void *user);

struct td_ended {
    uint32_t index;
    const char *result;  /* totals field: "accepted", "refused", ...; or TD_UNPROVEN */
    const char *relay;   /* that accepted it, or refused it because the address takes no mail; "" for all else */
    const void *outcome; /* packed Outcome */
    size_t outcome_len;
};
/** As "unconfirmed", unless its relay has told that it took the mail: then it does not end, and is among the others. */
#define TD_UNPROVEN "unproven"
/**
 * Set done, count once, keep the packed outcome as pending. Then produce it, then td_ledger_published.
 * Reply: an array: how many were new; an array of texts for td_relay_count; then, from TD_ENDED_OTHERS on, the
 * places in `ended` of those that had ended with another outcome before (another owner was faster), or are proven:
 * those must not be produced. begin tells which.
 */
enum { TD_ENDED_HOURS = 1, TD_ENDED_OTHERS = 2 };
int td_ledger_end(struct td_redis *redis, const char *campaign_id, const struct td_ended *ended, size_t count,
                  td_redis_cb *cb, void *user);
/** mail.outcomes has them: forget the pending copies. */
int td_ledger_published(struct td_redis *redis, const char *campaign_id, const uint32_t *index, size_t count,
                        td_redis_cb *cb, void *user);
/** Has it ended? Changes nothing. Reply: an array: 1 or 0; the packed outcome that mail.outcomes may lack, "" when there
 * is none; 1 when it is in doubt, else 0. */
enum { TD_LOOKED_PENDING = 1, TD_LOOKED_DOUBT = 2 };
int td_ledger_look(struct td_redis *redis, const char *campaign_id, uint32_t index, td_redis_cb *cb, void *user);
/**
 * It may have been sent, and nobody knows: whoever has evidence may end it from now on. Safe to repeat.
 * @param relay  that may have it; "" when not known, or named before
 * Reply: an array: TD_TRIED: in doubt; TD_DONE, TD_PROVEN: as begin answers; then the packed outcome or "".
 */
int td_ledger_doubt(struct td_redis *redis, const char *campaign_id, uint32_t index, const char *relay, td_redis_cb *cb,
                    void *user);
/**
 * A relay tells that it took this mail, which has no outcome yet: keep that for whoever will find it in doubt.
 * Reply: TD_NOTED; TD_NOTE_DONE: it has its outcome now; TD_NOTE_DOUBT: it is in doubt, td_ledger_end ends it.
 */
enum { TD_NOTED = 0, TD_NOTE_DONE = 1, TD_NOTE_DOUBT = 2 };
int td_ledger_note(struct td_redis *redis, const char *campaign_id, uint32_t index, const void *outcome, size_t outcome_len,
                   td_redis_cb *cb, void *user);
/** The relay provably did not take them: clear `tried`. */
int td_ledger_undo(struct td_redis *redis, const char *campaign_id, const uint32_t *index, size_t count,
                   td_redis_cb *cb, void *user);

/** Ingestion took these: set seen, count submitted once each, store address hashes. */
int td_ledger_admit(struct td_redis *redis, const char *campaign_id, const uint32_t *index,
                    const uint8_t (*hash)[TD_HASH_BYTES], size_t count, td_redis_cb *cb, void *user);
/** The sealed count. */
int td_ledger_seal(struct td_redis *redis, const char *campaign_id, uint32_t recipient_count, td_redis_cb *cb,
                   void *user);
/** A bounce of an accepted mail: counts class:<relay> ("hard", "soft", "block") once a recipient; hard wins over
 * soft seen before. Reply: an array: 1 when it was counted now, else 0; an array of texts for td_relay_count, the
 * same when it is asked again. */
int td_ledger_bounce(struct td_redis *redis, const char *campaign_id, uint32_t index, const char *relay,
                     const char *class_name, td_redis_cb *cb, void *user);

/**
 * Tell the relay's hours what a campaign has there. hour: a text from the reply of end, bounce or restore. A total,
 * so it may be told again, or be replaced by a later one that was not told yet.
 * Reply: by how much the relay's sum grew. TD_EINVAL: no such text.
 */
int td_relay_count(struct td_redis *redis, const char *campaign_id, const char *hour, td_redis_cb *cb, void *user);

/* Lanes: one owner each, a lease td:{lane:<name>} with a fence that rises with every new owner. name: the topic
 * and partition, such as "mail.outbound-3", 1..200 bytes without braces. owner: unique to this run of this
 * process. */
/**
 * Take a lane, or renew the lease on it.
 * Reply: an array: the fence (> 0) when it is ours now (or was already: the same fence); else -milliseconds until
 * it may run out: ask again then. After a fence: 1 when the last owner let go of the lane clean; 2 when nobody
 * owned it since the view was built (td_redis_view_ms); 0 when the owner before may have left mails of unknown
 * fate, or it was ours already.
 */
int td_lane_acquire(struct td_redis *redis, const char *name, const char *owner, unsigned ttl_ms, td_redis_cb *cb,
                    void *user);
/** clean: nothing of this lane is in doubt. Reply: 1 when it was ours, else 0. */
int td_lane_release(struct td_redis *redis, const char *name, const char *owner, bool clean, td_redis_cb *cb,
                    void *user);

/* The view: rebuilt from topics when Redis is new or has lost its data. By ingestion alone, on a link without
 * td_redis_need_view. */
struct td_fact {
    uint32_t index;
    const char
        *what; /* "": it was taken in; "hard", "soft", "block": it bounced; else its result, a totals field */
    const char *relay;   /* as in td_ended; of a bounce: the one that it came from */
    const uint8_t *hash; /* TD_HASH_BYTES, NULL when not known */
    int64_t at_unix_ms;  /* when it happened */
};
/** Merge what topics say: bits are set and counted once, whoever sets them first. sealed: -1 when not known.
 * Reply: an array: how many facts were new, an array of texts for td_relay_count. */
int td_ledger_restore(struct td_redis *redis, const char *campaign_id, int64_t sealed, const struct td_fact *fact,
                      size_t count, td_redis_cb *cb, void *user);
/** Ask for the work. Reply: 3 ours now, 1 ours still, 0 somebody else's, 2 the view is whole. */
int td_view_take(struct td_redis *redis, const char *owner, unsigned lease_ms, td_redis_cb *cb, void *user);
/** The view is whole. mark: Unix ms and what makes it unique. Reply: 1, or 0: the lease was lost, begin again. */
int td_view_publish(struct td_redis *redis, const char *owner, const char *mark, td_redis_cb *cb, void *user);

/* Suppression: 256 sets td:{supp:<first byte in hex>} of 16-byte hashes. */
int td_suppression_add(struct td_redis *redis, const uint8_t hash[TD_HASH_BYTES], td_redis_cb *cb, void *user);
int td_suppression_remove(struct td_redis *redis, const uint8_t hash[TD_HASH_BYTES], td_redis_cb *cb, void *user);
/** suppressed[i] = 1 when hash[i] is on the list; NULL on failure. */
int td_suppression_check(struct td_redis *redis, const uint8_t (*hash)[TD_HASH_BYTES], size_t count,
                         void (*cb)(void *user, const uint8_t *suppressed, size_t count, const struct td_err *err),
                         void *user);

#endif /* TD_LEDGER_H */
