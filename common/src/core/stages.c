#include "tandem/stages.h"

#include <assert.h>
#include <string.h>

enum { COST_READINGS = 50 };

struct td_stages *td_stages_measured;

const char *td_stage_name(enum td_stage stage)
{
    static const char *const name[] = {"other",   "read",   "take", "parse",   "validate", "turn",  "compile", "render", "hash",
                                       "connect", "compose", "send", "reply",   "outcome",  "redis", "publish", "http"};

    static_assert(sizeof(name) / sizeof(name[0]) == TD_STAGE_COUNT, "a name for each");
    return (unsigned)stage < TD_STAGE_COUNT ? name[stage] : "?";
}

/* The least of some: the others met an interrupt. */
static uint64_t clock_cost(const struct td_stages *stages)
{
    uint64_t least = UINT64_MAX, before = stages->clock_ns();

    for (int i = 0; i < COST_READINGS; i++) {
        uint64_t now = stages->clock_ns();

        least = now - before < least ? now - before : least;
        before = now;
    }
    return least;
}

static unsigned draw(struct td_stages *stages)
{
    return 1 + (unsigned)td_rng_below(&stages->rng, 2 * TD_STAGES_EVERY - 1); /* 1 to 2 n - 1: n on average */
}

void td_stages_init(struct td_stages *stages, uint64_t (*clock_ns)(void), uint64_t seed)
{
    *stages = (struct td_stages){.clock_ns = clock_ns};
    td_rng_seed(&stages->rng, seed);
    stages->until = draw(stages);
    stages->clock_cost_ns = clock_cost(stages);
    stages->shared_ns = clock_ns();
    stages->seconds[TD_STAGE_OTHER] = (double)stages->shared_ns / 1e9;
}

enum td_stage td_stages_switch(struct td_stages *stages, enum td_stage to)
{
    enum td_stage from = stages->now;
    uint64_t now_ns, spent_ns;

    if (from == to)
        return from;
    now_ns = stages->clock_ns();
    spent_ns = now_ns - stages->since_ns;
    stages->measured_ns[from] += spent_ns > stages->clock_cost_ns ? spent_ns - stages->clock_cost_ns : 0;
    stages->since_ns = now_ns;
    stages->now = to;
    return from;
}

static void turn_over(struct td_stages *stages)
{
    uint64_t now_ns = stages->clock_ns();

    assert(stages->now == TD_STAGE_OTHER); /* a stage was not put back */
    stages->measured_ns[TD_STAGE_OTHER] += now_ns - stages->since_ns;
    stages->turns++;
    td_stages_measured = NULL;
}

void td_stages_turn(struct td_stages *stages)
{
    if (td_stages_measured == stages)
        turn_over(stages);
    if (--stages->until > 0)
        return;
    stages->until = draw(stages);
    stages->now = TD_STAGE_OTHER;
    stages->since_ns = stages->clock_ns();
    td_stages_measured = stages;
}

void td_stages_share(struct td_stages *stages)
{
    uint64_t now_ns = stages->clock_ns(), all_ns = 0;
    double each;

    for (int i = 0; i < TD_STAGE_COUNT; i++)
        all_ns += stages->measured_ns[i];
    if (stages->turns < TD_STAGES_TURNS_MIN || all_ns == 0)
        return;
    each = (double)(now_ns - stages->shared_ns) / (double)all_ns / 1e9;
    for (int i = 0; i < TD_STAGE_COUNT; i++)
        stages->seconds[i] += (double)stages->measured_ns[i] * each;
    memset(stages->measured_ns, 0, sizeof(stages->measured_ns));
    stages->shared_ns = now_ns;
    stages->turns = 0;
}

void td_stages_end(struct td_stages *stages)
{
    if (td_stages_measured == stages)
        td_stages_measured = NULL;
}
