/* live.h - what the cases of td_kafka_live share: settings, a loop to turn, a producer that numbers its records, a
 * member that counts them. */
#ifndef LIVE_H
#define LIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "tandem/kafka.h"

enum { LANES = 4, RECORDS_MAX = 100000, SESSION_MS = 6000, PATIENCE_MS = 60000 };

struct live {
    const char *brokers;
    const char *run;  /* deploy/kafka/run */
    const char *dir;  /* of the broker */
    const char *self; /* this program */
    uv_loop_t loop;
    char prefix[32]; /* of this case's topics */
    struct td_settings settings;
    char why[512]; /* of the first check that failed */
};

/* Ends a case. Only in functions that return bool and have `live`. */
#define CHECK(cond, ...)                                                                                          \
    do {                                                                                                          \
        if (!(cond))                                                                                              \
            return live_failed(live, #cond, __VA_ARGS__);                                                         \
    } while (0)

bool live_failed(struct live *live, const char *cond, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/** Turn the loop until *done. @return false after PATIENCE_MS */
bool live_until(struct live *live, const bool *done);
void live_for(struct live *live, uint64_t ms);
struct td_settings live_settings(const struct live *live, const char *instance);
bool live_topics(struct live *live);
/** Run deploy/kafka/run in the background: "stop", then 5 s of silence, then "start". */
bool live_broker_outage(struct live *live, const char *how, bool *back);

/* ---- a producer of records 0, 1, 2, ... of mail.outbound; number n goes to lane n % LANES ---- */

struct numbers {
    struct live *live;
    struct td_kafka_out *out;
    int next, end; /* what is sent next, where it stops */
    int acked, failed;
    bool done;
};

bool numbers_begin(struct live *live, struct numbers *numbers, int first, int end);
/** Send what the queue takes. Call it in turn with the loop until done. */
bool numbers_pump(struct live *live, struct numbers *numbers);
bool numbers_all(struct live *live, int first, int end); /* begin, pump to the end, free */
void numbers_end(struct numbers *numbers);

/* ---- a member of group "dispatch" ---- */

/* Shared by a test and a member in another process. */
struct tally {
    uint8_t seen[RECORDS_MAX]; /* times */
    int64_t committed[LANES];  /* handed to td_kafka_in_commit */
    int records;
};

struct member {
    struct live *live;
    struct td_settings settings;
    struct td_kafka_in *in;
    struct tally *tally;
    int commit_every; /* records a lane; 0: only when revoked */
    bool manual;      /* the case itself calls td_kafka_in_revoke_done */
    bool owns[LANES];
    int64_t next[LANES], start[LANES];
    int assignments, revocations, lost, lanes, unowned;
    bool revoking, closed, fatal;
};

bool member_join(struct live *live, struct member *member, const char *instance, struct tally *tally);
void member_commit_all(struct member *member);
bool member_leave(struct live *live, struct member *member);
/** Wait until `member` has read up to record `end` (all processes together). */
bool tally_until(struct live *live, const struct tally *tally, int end);
/** Every record of [0, end) was seen at least once, and if `once` not twice. */
bool tally_check(struct live *live, const struct tally *tally, int end, bool once);

/* ---- cases ---- */

bool case_topics_apply_twice(struct live *live);
bool case_fifty_thousand_arrive_once(struct live *live);
bool case_two_members_share_and_one_leaves(struct live *live);
bool case_the_last_member_stays(struct live *live);
bool case_a_killed_member_is_replaced(struct live *live);
bool case_revoke_may_take_two_seconds(struct live *live);
bool case_commits_are_seen_and_never_fall(struct live *live);
bool case_the_same_instance_twice_is_fatal(struct live *live);
bool case_stopped_broker_loses_nothing(struct live *live);
bool case_killed_broker_loses_nothing(struct live *live);
bool case_table_follows_a_topic(struct live *live);
int live_member_process(struct live *live, const char *instance, const char *tally_file);

#endif /* LIVE_H */
