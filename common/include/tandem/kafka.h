/* tandem/kafka.h - records in and out on the loop. kafka_*.c alone include rdkafka.h. Loop thread only.
 *
 * Out: idempotent producer, acks=all, partitioner murmur2_random. In: consumer group with the eager assignor and
 * static membership, explicit commits, no auto-reset (a group without offsets begins at the earliest).
 *
 * `settings` and `metrics` (may be NULL) must live longer than what is made from them. After a _free the loop must
 * still run until its handles are closed. */
#ifndef TD_KAFKA_H
#define TD_KAFKA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "tandem/err.h"
#include "tandem/metrics.h"
#include "tandem/settings.h"
#include "tandem/topics.h"

/* ---- out ---- */
struct td_kafka_out;

struct td_kafka_header {
    const char *name;
    const char *value; /* text */
};

/** err NULL: durable at this offset (-1: written, but by a retry that was not told where). Otherwise it was not
 * written, or nobody knows (idempotent by key: send again). TD_EFATAL: this producer takes nothing any more,
 * restart. */
typedef void td_delivered_fn(void *user, int64_t offset, const struct td_err *err);

int td_kafka_out_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
                     struct td_kafka_out **ret, struct td_err *reterr);
/**
 * @param partition  -1: by key
 * @param value      copied; NULL with len 0 is a tombstone
 * @param cb         may be NULL; called later, on the loop, exactly once if TD_OK was returned
 * @return TD_OK; TD_EAGAIN: the queue is full, try again when td_kafka_out_pending has fallen; TD_ETOOBIG;
 * TD_EFATAL
 */
int td_kafka_out_send(struct td_kafka_out *out, enum td_topic_id topic, int32_t partition, const void *key,
                      size_t key_len, const void *value, size_t len, const struct td_kafka_header *headers,
                      size_t header_count, td_delivered_fn *cb, void *user, struct td_err *reterr);
/** Records not yet acknowledged. */
size_t td_kafka_out_pending(const struct td_kafka_out *out);
/** Blocks at most timeout_ms to flush; callbacks of what is left get TD_EIO. NULL is fine.
 * @return how many records were left */
size_t td_kafka_out_free(struct td_kafka_out *out, unsigned timeout_ms);

#define TD_KAFKA_NOTE_MAX 4000 /* bytes beside an offset; brokers take 4096 (offset.metadata.max.bytes) */

/* ---- in ---- */
struct td_kafka_in;

struct td_lane { /* a partition of a topic */
    enum td_topic_id topic;
    int32_t partition;
};

struct td_record { /* valid during on_record */
    struct td_lane lane;
    int64_t offset;
    int64_t timestamp_ms; /* broker's or producer's, Unix */
    const void *key;
    size_t key_len;
    const void *value; /* NULL: tombstone */
    size_t len;
};

struct td_kafka_in_ops {
    /** Every record arrives once per assignment, in order of its lane. */
    void (*on_record)(void *user, const struct td_record *rec);
    /** offset: where reading begins, the committed one or 0 (older records may be gone: the first one read may be
     * higher). Never called with no lanes. */
    void (*on_assigned)(void *user, const struct td_lane *lanes, const int64_t *offsets, size_t count);
    /** Finish or hand back work of ALL assigned lanes, commit, then call td_kafka_in_revoke_done (at once or
     * within 15 s). lost: others may already own them, commits will fail. Records no longer arrive. */
    void (*on_revoked)(void *user, const struct td_lane *lanes, size_t count, bool lost);
    /** Fenced or broken for good: exit. on_revoked is not called after it. */
    void (*on_fatal)(void *user, const struct td_err *err);
};

/** @param group  without prefix, such as "dispatch"; group.instance.id is group + "-" + settings->instance */
int td_kafka_in_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
                    const char *group, const enum td_topic_id *topics, size_t topic_count,
                    const struct td_kafka_in_ops *ops, void *user, struct td_kafka_in **ret,
                    struct td_err *reterr);
/** Stop or restart delivery of one lane. Cheap: its records wait in its own queue (up to 4 MiB), nothing is
 * fetched twice. A lane comes unpaused with each assignment. */
void td_kafka_in_pause(struct td_kafka_in *in, struct td_lane lane);
void td_kafka_in_resume(struct td_kafka_in *in, struct td_lane lane);
/** Stop or restart delivery of all lanes: back-pressure. Group calls go on. */
void td_kafka_in_hold(struct td_kafka_in *in, bool hold);
/** The same for the lanes of one topic; a lane is delivered when neither holds it. */
void td_kafka_in_hold_topic(struct td_kafka_in *in, enum td_topic_id topic, bool hold);
/** next_offset: the first record NOT done. Sent in the background, one at a time per lane, latest wins, never
 * lower. */
void td_kafka_in_commit(struct td_kafka_in *in, struct td_lane lane, int64_t next_offset);
/**
 * The same with a note for whoever reads the offset. The offset may be the one of before; it is sent when either
 * has changed. td_kafka_in_commit leaves the note as it is.
 * @param note  text, copied; longer than TD_KAFKA_NOTE_MAX bytes: the offset goes without
 */
void td_kafka_in_commit_note(struct td_kafka_in *in, struct td_lane lane, int64_t next_offset, const char *note);
/** The note of the lane's last commit, in on_assigned of the member before; "" when there is none. Borrowed until
 * the next commit. */
const char *td_kafka_in_note(const struct td_kafka_in *in, struct td_lane lane);
/** false while a commit is on its way or waiting to go (again), or when the group has refused it: we are out. */
bool td_kafka_in_committed(const struct td_kafka_in *in);
void td_kafka_in_revoke_done(struct td_kafka_in *in);
/**
 * The zombie guard: monotonic ms at which the group is proven to have had us as a member, so nobody else owns our
 * lanes before this + session timeout. Proof is a commit that the coordinator took; without one for a quarter of the
 * session timeout (<= 3 s) a lane's offset is committed once more.
 */
uint64_t td_kafka_in_alive_ms(const struct td_kafka_in *in);
/** true while the group has given us our share, which may be no lane at all. */
bool td_kafka_in_assigned(const struct td_kafka_in *in);
/** Its lanes as a part of all lanes that the group shares, 0..1. */
double td_kafka_in_part(const struct td_kafka_in *in);
/** Leave: on_revoked is called first if lanes are assigned; cb when closed, from which td_kafka_in_free may be
 * called. The others have the lanes within a second. The last member of a group keeps its lanes until it is back or
 * the session timeout has passed, as does one that dies. What takes too long is cut short by tandem/stop.h. */
void td_kafka_in_stop(struct td_kafka_in *in, void (*cb)(void *user), void *user);
/** @return how many lanes were given back with an offset or a note that the group had not taken */
size_t td_kafka_in_free(struct td_kafka_in *in);

/* ---- what another group has committed ---- */
struct td_committed {
    int64_t offset;   /* -1: none yet */
    const char *note; /* "" when there is none; valid during the call */
};
/** Ask for `group`'s committed offsets of all partitions that the configuration gives a topic. list[p] is of
 * partition p. err NULL on success, otherwise list NULL and count 0. */
typedef void td_committed_fn(void *user, const struct td_committed *list, size_t count, const struct td_err *err);
int td_kafka_committed(struct td_kafka_out *out, const char *group, enum td_topic_id topic, td_committed_fn *cb,
                       void *user, struct td_err *reterr);

/* ---- single records, by their place ---- */
struct td_kafka_reader;

/** One per read, exactly once, later on the loop. value NULL: no such record any more, or err. */
typedef void td_kafka_read_fn(void *user, const void *key, size_t key_len, const void *value, size_t len,
                              const struct td_err *err);

/** Joins no group. Reads that lie next to each other in a partition are one fetch. */
int td_kafka_reader_new(uv_loop_t *loop, const struct td_settings *settings, enum td_topic_id topic,
                        struct td_kafka_reader **ret, struct td_err *reterr);
/** Fails with TD_ETIMEOUT after 10 s. @return TD_OK; TD_ENOMEM, TD_EIO (closing): no callback comes */
int td_kafka_reader_read(struct td_kafka_reader *reader, int32_t partition, int64_t offset, td_kafka_read_fn *fn,
                         void *user);
void td_kafka_reader_free(struct td_kafka_reader *reader); /* reads under way are called with TD_EIO; NULL is fine */

/* ---- the end ---- */
/** While the process stops (tandem/stop.h) what is freed here closes in the background: wait for it until by_ms (monotonic).
 * @return clients that have not closed; exit(3) must not run beside their threads, _exit(2) may */
size_t td_kafka_ended(uint64_t by_ms);

/* ---- topics ---- */
/**
 * Create the topics of td_topics that are missing; change none that is there. Blocks up to 45 s: for tandemctl.
 * @param report  once a topic, `what`: "created", "exists", "has 3 partitions, wants 12" or the broker's refusal
 */
int td_kafka_topics_apply(const struct td_settings *settings,
                          void (*report)(void *user, const char *topic, const char *what), void *user,
                          struct td_err *reterr);

/* ---- a compacted topic as a table: contents, suppressions ---- */
struct td_kafka_table;
struct td_table_value { /* shared bytes; keep with ref, give back with unref */
    size_t len;
    unsigned refs;
    char data[]; /* len bytes */
};
struct td_table_value *td_table_value_ref(struct td_table_value *value);
void td_table_value_unref(struct td_table_value *value);

/** value NULL: the key has no record (deleted, or did not come within timeout_ms). Else it is borrowed:
 * td_table_value_ref keeps it past the call. */
typedef void td_table_get_fn(void *user, struct td_table_value *value, const struct td_err *err);

/**
 * Follow a topic from its beginning without a group. Keeps an index key -> offset of all keys and a bounded cache
 * of values; a value that has left the cache is read again.
 * @param on_change  may be NULL; called for every record (value NULL: tombstone) as it is first read
 */
int td_kafka_table_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
                       enum td_topic_id topic, size_t cache_bytes,
                       void (*on_change)(void *user, const void *key, size_t key_len, const void *value,
                                         size_t len),
                       void *user, struct td_kafka_table **ret, struct td_err *reterr);
/** true once everything that was there at the start has been read. */
bool td_kafka_table_loaded(const struct td_kafka_table *table);
/**
 * Get the latest value. From the cache the callback is called before this returns; else later. If the key is not
 * known yet it waits for it up to timeout_ms (0: answer as soon as loaded).
 */
int td_kafka_table_get(struct td_kafka_table *table, const void *key, size_t key_len, unsigned timeout_ms,
                       td_table_get_fn *cb, void *user);
void td_kafka_table_free(struct td_kafka_table *table); /* pending gets are called with TD_EIO */

#endif /* TD_KAFKA_H */
