/* kafka_in_int.h - a member of a group: what kafka_in.c and kafka_group.c share. */
#ifndef TD_KAFKA_IN_INT_H
#define TD_KAFKA_IN_INT_H

#include "kafka_int.h"

enum in_state { IN_IDLE, IN_ASKING, IN_ASSIGNED, IN_REVOKING, IN_FLUSHING, IN_LEAVING, IN_CLOSING, IN_CLOSED };

struct td_kafka_in {
    rd_kafka_t *rk;
    rd_kafka_queue_t *group_queue, *close_queue, *answers;
    struct kafka_wake *wake;
    const struct td_settings *settings; /* both outlive us */
    char group[KAFKA_TEXT_MAX];         /* without prefix */
    struct td_kafka_in_ops ops;
    void *user;
    char group_id[KAFKA_TEXT_MAX];
    char topics[TD_T_COUNT][KAFKA_TEXT_MAX]; /* "" where not subscribed */
    uint64_t proof_every_ms; /* without a commit for so long, one is repeated */

    enum in_state state;
    uint64_t since_ms;                     /* when state began */
    rd_kafka_topic_partition_list_t *next; /* assignment that waits for its turn or for its offsets */
    uintptr_t asked, ask_generation;       /* asked == ask_generation: an answer is on its way */
    uint64_t asked_ms;
    struct kafka_lane *lanes;
    size_t lane_count, turn;
    struct kafka_commits commits;
    bool held, lost;
    bool topic_held[TD_T_COUNT];
    uint64_t lost_ms;                     /* when lanes were last lost; 0: never, or a fence was forgiven since */
    uint64_t polled_ms, polled_before_ms; /* when this poll of the group's queue began, and the one before it */
    uint64_t joined_ms;                   /* not later than when the group gave us `next` */

    bool stop_wanted;
    size_t uncommitted; /* lanes given back with news that the group had not taken */
    bool alone; /* we had every lane of our topics as we were told to stop */
    void (*stopped)(void *user);
    void *stopped_user;
    bool fatal, fatal_told;

    struct td_metric *m_lag[TD_T_COUNT], *m_rebalances;
    uint64_t lag_ms;
};

/* ---- kafka_group.c ---- */

void kafka_in_enter(struct td_kafka_in *in, enum in_state state);
/** rebalance_cb; opaque is the td_kafka_in. */
void kafka_group_on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err, rd_kafka_topic_partition_list_t *list,
                              void *opaque);
/** The committed offsets of `next`: ask (again), and the answer, after which reading begins. */
void kafka_group_ask_offsets(struct td_kafka_in *in);
void kafka_group_answer_offsets(struct td_kafka_in *in, rd_kafka_event_t *event);
/** ASSIGNED -> REVOKING: tells the service. */
void kafka_group_begin_revoke(struct td_kafka_in *in, bool lost);
/** FLUSHING -> IDLE: give the lanes back. */
void kafka_group_end_revoke(struct td_kafka_in *in);
/** IDLE, ASKING -> LEAVING, or -> CLOSING when there is nobody to leave the lanes to. */
void kafka_group_begin_leave(struct td_kafka_in *in);
/** Is LeaveGroup on its way? Then begin_close, which waits for its answer. */
bool kafka_group_has_left(struct td_kafka_in *in);
/** -> CLOSING. */
void kafka_group_begin_close(struct td_kafka_in *in);
void kafka_group_forget_next(struct td_kafka_in *in);
void kafka_group_drop_lanes(struct td_kafka_in *in);

#endif /* TD_KAFKA_IN_INT_H */
