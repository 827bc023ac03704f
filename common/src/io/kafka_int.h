/* kafka_int.h - what the kafka_*.c files share. Not for anybody else.
 *
 * How librdkafka meets the loop: every queue that we read writes to one eventfd per object when it goes from empty
 * to not empty; a uv_poll on it (and a slow tick, for deadlines) calls the object's pump, which reads until the
 * queues are empty or its budget is spent, and in the latter case asks to be called again. All callbacks of
 * librdkafka but the log one are served by those reads, so they run on the loop. */
#ifndef TD_KAFKA_INT_H
#define TD_KAFKA_INT_H

#include <librdkafka/rdkafka.h>

#include "tandem/kafka.h"
#include "tandem/stages.h"

enum { KAFKA_TEXT_MAX = 256 }; /* longest topic or group name (Kafka: 249) with its NUL */

/* ---- kafka_conf.c ---- */

struct kafka_prop {
    const char *name;  /* with a leading ?: skipped by releases of librdkafka that do not know it */
    const char *value; /* NULL: skipped */
};

/** Properties of every handle, then `props`, then the user's. Free with rd_kafka_conf_destroy unless a handle took
 * it. */
int kafka_conf_new(const struct td_settings *settings, const struct kafka_prop *props, size_t count,
                   rd_kafka_conf_t **ret, struct td_err *reterr);
/** Takes conf, also on failure. */
int kafka_handle_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, rd_kafka_t **ret, struct td_err *reterr);
/** Our code for librdkafka's. */
enum td_code kafka_code(rd_kafka_resp_err_t err);
/** Fill reterr from err: its code, "what: librdkafka's words". */
int kafka_fail(struct td_err *reterr, rd_kafka_resp_err_t err, const char *what);
/** For error callbacks: log what an operator should see. Handle-wide errors heal by themselves, unless fatal. */
void kafka_log_error(const char *what, rd_kafka_resp_err_t err, const char *reason);
/** Prefix + name of a group, as the broker knows it. */
int kafka_group_name(char out[KAFKA_TEXT_MAX], const struct td_settings *settings, const char *group,
                     struct td_err *reterr);
/** Partitions a topic has by the configuration. */
int kafka_partitions(const struct td_settings *settings, enum td_topic_id topic);

/* ---- kafka_end.c ---- */

/** Destroy the handle, all its queues and topics having been let go; the consumer is not closed. Blocks until it is gone,
 * unless the process stops (tandem/stop.h): then td_kafka_ended waits. Its callbacks come no more, but that for its log. */
void kafka_handle_end(rd_kafka_t *rk);

/* ---- kafka_wake.c ---- */

struct kafka_wake;

/** fn is called on the loop when a watched queue has something, and every tick_ms; stage: what its CPU time is. */
struct kafka_wake *kafka_wake_new(uv_loop_t *loop, unsigned tick_ms, enum td_stage stage, void (*fn)(void *user), void *user);
void kafka_wake_watch(struct kafka_wake *wake, rd_kafka_queue_t *queue);
void kafka_wake_soon(struct kafka_wake *wake); /* call fn in the next turn of the loop */
/** fn is not called any more. Queues must not be watched any more; the memory goes when the loop has closed it. */
void kafka_wake_free(struct kafka_wake *wake); /* NULL is fine */

/* ---- kafka_admin.c ---- */

/** Ask for committed offsets of `list` (not empty, borrowed). The answer arrives on queue as an event with opaque.
 */
int kafka_offsets_ask(rd_kafka_t *rk, const char *group_id, const rd_kafka_topic_partition_list_t *list,
                      void *opaque, rd_kafka_queue_t *queue, struct td_err *reterr);
/** @return borrowed from the event; NULL with reterr filled. offset is < 0 where nothing was committed. */
const rd_kafka_topic_partition_list_t *kafka_offsets_answer(rd_kafka_event_t *event, struct td_err *reterr);

/* ---- kafka_commit.c ---- */

struct kafka_lane {
    struct td_lane lane;
    const char *topic;       /* belongs to td_kafka_in */
    rd_kafka_queue_t *queue; /* this partition's records */
    int64_t start;           /* committed when it was assigned; -1: nothing */
    int64_t wanted, acked;   /* commits; -1: none yet */
    char *note;              /* goes with the next commit and all that repeat it; owned; NULL: none */
    uint32_t note_now, note_sent, note_acked; /* versions of it: wanted, on its way, taken */
    bool paused;
};

/* Lanes are kept in this order. */
int kafka_lane_compare(const void *a, const void *b);
struct kafka_lane *kafka_lane_find(struct kafka_lane *lanes, size_t count, const char *topic, int32_t partition);

typedef void kafka_commit_fn(rd_kafka_t *rk, rd_kafka_resp_err_t err, rd_kafka_topic_partition_list_t *list,
                             void *generation);

/* Commits of one assignment. At most one request is on its way; it carries all lanes that have something new. */
struct kafka_commits {
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue; /* where answers arrive; whoever polls it calls kafka_commits_answer from on_answer */
    kafka_commit_fn *on_answer;
    struct kafka_lane *lanes;
    size_t count;
    uintptr_t generation; /* rises with each assignment: an answer to an older one is not ours */
    uint64_t sent_ms;     /* of the request on its way or the last one */
    uint64_t proof_ms;    /* when a request was sent that the group then took: we were a member at that moment */
    bool on_its_way;
    bool rejected; /* the group does not know us in this generation any more: nothing will be taken */
};

void kafka_commits_begin(struct kafka_commits *commits, struct kafka_lane *lanes, size_t count, uint64_t proof_ms);
void kafka_commits_end(struct kafka_commits *commits);
/** Send what is new, at most every min_gap_ms; when the last proof is older than proof_every_ms, repeat one as a
 * proof. */
void kafka_commits_pump(struct kafka_commits *commits, uint64_t min_gap_ms, uint64_t proof_every_ms);
void kafka_commits_answer(struct kafka_commits *commits, rd_kafka_resp_err_t err,
                          const rd_kafka_topic_partition_list_t *list, uintptr_t generation);
/** Lanes with something that has not been taken and still may be. */
size_t kafka_commits_unsettled(const struct kafka_commits *commits);
bool kafka_commits_settled(const struct kafka_commits *commits);

/* ---- kafka_index.c: keys of a table, compact, with a bounded cache of values ---- */

struct kafka_cached;

struct kafka_item {
    int64_t offset;
    struct kafka_cached *cached; /* NULL: not in the cache */
    uint32_t hash;
    uint16_t partition;
    uint16_t key_len;
    char key[]; /* key_len bytes */
};

struct kafka_index;

enum { KAFKA_KEY_MAX = 1024 }; /* longest key a table takes, bytes */

struct kafka_index *kafka_index_new(size_t cache_bytes);
void kafka_index_free(struct kafka_index *index);
size_t kafka_index_count(const struct kafka_index *index);
size_t kafka_index_cached_bytes(const struct kafka_index *index);
struct kafka_item *kafka_index_find(const struct kafka_index *index, const void *key, size_t key_len);
/** Insert or move to a new place; a cached value is dropped. @return NULL when out of memory */
struct kafka_item *kafka_index_put(struct kafka_index *index, const void *key, size_t key_len, uint16_t partition,
                                   int64_t offset);
void kafka_index_remove(struct kafka_index *index, const void *key, size_t key_len);
/** Keep a value (takes a reference) and forget the least recently used ones until it fits. Too large: not kept. */
void kafka_index_cache(struct kafka_index *index, struct kafka_item *item, struct td_table_value *value);
/** The cached value, borrowed, now the most recently used; NULL when it is not there. */
struct td_table_value *kafka_index_cached(struct kafka_index *index, struct kafka_item *item);

#endif /* TD_KAFKA_INT_H */
