/* tandem/topics.h - the one table of topics: `tandemctl topics apply` and devbroker create them from it. Pure. */
#ifndef TD_TOPICS_H
#define TD_TOPICS_H

#include <stdbool.h>
#include <stddef.h>

enum td_topic_id {
    TD_T_SUBMISSIONS,
    TD_T_CONTENTS,
    TD_T_RECIPIENTS,
    TD_T_OUTBOUND,
    TD_T_EXPRESS,
    TD_T_RETRY_1M,
    TD_T_RETRY_10M,
    TD_T_RETRY_1H,
    TD_T_OUTCOMES,
    TD_T_FEEDBACK,
    TD_T_SUPPRESSIONS,
    TD_T_DEAD_LETTERS,
    TD_T_COUNT
};

struct td_topic {
    const char *name; /* without prefix */
    int partitions;   /* 0: kafka.lanes of the configuration */
    bool compacted;
    long long retention_ms; /* -1: for ever */
    const char *message;    /* short protobuf type name of the value; NULL for dead letters */
};

extern const struct td_topic td_topics[TD_T_COUNT];

/** prefix + name into out (size bytes, cut if need be: topics of Kafka have at most 249). */
void td_topic_name(char *out, size_t size, const char *prefix, enum td_topic_id id);

#endif /* TD_TOPICS_H */
