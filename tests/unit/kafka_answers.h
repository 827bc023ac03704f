/* kafka_answers.h - what a callback of tandem/kafka.h was told, for tests on the mock cluster and on a real one. */
#ifndef KAFKA_ANSWERS_H
#define KAFKA_ANSWERS_H

#include <stdio.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tandem/kafka.h"

enum { ANSWER_LANES_MAX = 4 };

struct committed {
    bool done;
    size_t count;
    int64_t offsets[ANSWER_LANES_MAX];
    char notes[ANSWER_LANES_MAX][16];
    enum td_code code;
};

static inline void on_committed(void *user, const struct td_committed *list, size_t count, const struct td_err *err)
{
    struct committed *committed = user;

    committed->done = true;
    committed->count = count;
    committed->code = err ? err->code : TD_OK;
    for (size_t i = 0; i < count && i < ANSWER_LANES_MAX; i++) {
        committed->offsets[i] = list[i].offset;
        snprintf(committed->notes[i], sizeof(committed->notes[i]), "%s", list[i].note);
    }
}

struct got {
    bool done, missing;
    int count;
    size_t len;
    char data[64]; /* the beginning, as a string */
    enum td_code code;
};

static inline void on_got(void *user, struct td_table_value *value, const struct td_err *err)
{
    struct got *got = user;
    size_t kept = value && value->len < sizeof(got->data) ? value->len : value ? sizeof(got->data) - 1 : 0;

    got->count++;
    got->done = true;
    got->missing = !value;
    got->code = err ? err->code : TD_OK;
    got->len = value ? value->len : 0;
    if (kept)
        memcpy(got->data, value->data, kept);
    got->data[kept] = '\0';
}

#endif /* KAFKA_ANSWERS_H */
