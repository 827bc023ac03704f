/* tandem/stages.h - what the loop thread spends its CPU on, by stage of a mail's way. Pure. Loop thread only.
 *
 * Code says which stage begins (td_stage) and puts back the one before it at its end: time belongs to the innermost
 * stage alone, so stages add up. Reading a thread's CPU clock is a system call (0.4 us where this was measured; the
 * monotonic clock costs 0.02, but also counts the time in which others had the processor). So a turn of the loop is
 * measured with a probability that keeps readings at TD_STAGES_READINGS_PER_S: every turn when there are few, one in
 * hundreds at full speed, chosen before anybody knows what it will do; it then stands for as many. td_stages_share
 * gives the thread's whole CPU time, which the kernel knows, to the stages in the proportions found. In turns that are
 * not measured td_stage is a branch (2 ns for a stage begun and ended). Cost: 0.1 % of a processor for the readings,
 * more in the first moment of a rush; tests/bench/README.md has what dispatch's engine loses.
 *
 * Error: none in the sum. A stage's part is that of n measured turns: after a minute at full speed (n ~ 3,000) a tenth
 * of all is known to about 4 % of itself; what happens in few long turns then (a large campaign is compiled) is known
 * badly. The clock's own time is taken off each measurement, so that stages that begin often do not look dear. */
#ifndef TD_STAGES_H
#define TD_STAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "tandem/rng.h"

enum {
    TD_STAGES_READINGS_PER_S = 2000, /* of the clock */
    TD_STAGES_TURNS_MIN = 8           /* measured turns, before their parts are believed */
};

enum td_stage {
    TD_STAGE_OTHER = 0, /* the loop itself, timers, what came before it */
    TD_STAGE_READ,      /* records from librdkafka, its group, offsets */
    TD_STAGE_TAKE,      /* a record becomes a mail, chunk, submission or report: read, checked, queued */
    TD_STAGE_PARSE,     /* ingestion, bounce: what is in it */
    TD_STAGE_VALIDATE,  /* ingestion: may it be sent; bounce: did SNS sign it */
    TD_STAGE_TURN,      /* whose turn it is, which relay, its pace */
    TD_STAGE_COMPILE,   /* rendering: a campaign, once */
    TD_STAGE_RENDER,    /* templates and MIME of one recipient */
    TD_STAGE_HASH,      /* SHA-256 of the mail */
    TD_STAGE_CONNECT,   /* libcurl: names, TCP, TLS handshake, EHLO, AUTH */
    TD_STAGE_COMPOSE,   /* recipe -> wire bytes, dots doubled */
    TD_STAGE_SEND,      /* TLS and the socket, and what a connection does next */
    TD_STAGE_REPLY,     /* TLS and the socket; replies read */
    TD_STAGE_OUTCOME,   /* replies judged, outcomes made */
    TD_STAGE_REDIS,     /* commands written, replies read; ledger, pace, health */
    TD_STAGE_PUBLISH,   /* records to librdkafka, its delivery reports */
    TD_STAGE_HTTP,      /* requests, this page among them */
    TD_STAGE_COUNT
};
const char *td_stage_name(enum td_stage stage); /* "read": label of the metric */

struct td_stages {
    uint64_t (*clock_ns)(void); /* CPU time of this thread */
    uint64_t clock_cost_ns;     /* of one reading */
    struct td_rng rng;
    unsigned every;       /* one turn in so many is measured */
    uint64_t window_ms;   /* since when the next three count, from which `every` follows */
    uint64_t turns, measured_turns, readings;
    double readings_a_turn; /* of measured ones */
    enum td_stage now;
    uint64_t since_ns;      /* it is in `now` */
    unsigned weight;        /* turns that the present one stands for */
    double found_ns[TD_STAGE_COUNT]; /* since the last share, each turn by its weight */
    unsigned found_turns;
    uint64_t shared_ns;              /* of the thread's time, given to stages already */
    double seconds[TD_STAGE_COUNT];  /* the result; never falls */
};

/** What the thread spent until now is TD_STAGE_OTHER. clock_ns must not go back. */
void td_stages_init(struct td_stages *stages, uint64_t (*clock_ns)(void), uint64_t seed);
/** A turn of the loop begins, outside of any stage: the one before ends. now_ms: the loop's. */
void td_stages_turn(struct td_stages *stages, uint64_t now_ms);
/** Give what the thread has spent since the last time to the stages; later, when too few turns were measured. */
void td_stages_share(struct td_stages *stages);
/** No turn is measured from here on. */
void td_stages_end(struct td_stages *stages);

extern struct td_stages *td_stages_measured; /* the one whose turn is measured; only stages.c writes it */
enum td_stage td_stages_switch(struct td_stages *stages, enum td_stage to);

/** A stage begins. @return the one before it, to which td_stage goes back at its end, within the same turn */
static inline enum td_stage td_stage(enum td_stage to)
{
    return td_stages_measured ? td_stages_switch(td_stages_measured, to) : TD_STAGE_OTHER;
}

#endif /* TD_STAGES_H */
