#include "tandem/stages.h"

#include <assert.h>
#include <string.h>

enum { COST_READINGS = 50, WINDOW_MS = 100, EVERY_MAX = 4096 };

static const double readings_a_ms = TD_STAGES_READINGS_PER_S / 1000.0;

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

void td_stages_init(struct td_stages *stages, uint64_t (*clock_ns)(void), uint64_t seed)
{
    *stages = (struct td_stages){.clock_ns = clock_ns, .every = 1};
    td_rng_seed(&stages->rng, seed);
    stages->clock_cost_ns = clock_cost(stages);
    stages->shared_ns = clock_ns();
    stages->seconds[TD_STAGE_OTHER] = (double)stages->shared_ns / 1e9;
}

/* What was spent since the last reading belongs to the present stage. */
static void note(struct td_stages *stages)
{
    uint64_t now_ns = stages->clock_ns(), spent_ns = now_ns - stages->since_ns;

    if (spent_ns > stages->clock_cost_ns)
        stages->found_ns[stages->now] += (double)(spent_ns - stages->clock_cost_ns) * stages->weight;
    stages->since_ns = now_ns;
    stages->readings++;
}

enum td_stage td_stages_switch(struct td_stages *stages, enum td_stage to)
{
    enum td_stage from = stages->now;

    if (from != to)
        note(stages);
    stages->now = to;
    return from;
}

/* How often to measure follows from what the turns before would have cost, never from the one that comes: else those
 * that are measured would differ from the others. A rush that begins while all are measured ends the window early. */
static void adapt(struct td_stages *stages, uint64_t now_ms)
{
    uint64_t passed_ms = now_ms - stages->window_ms;
    double all, may, every;

    if (passed_ms < WINDOW_MS && (double)stages->readings < 2 * WINDOW_MS * readings_a_ms)
        return;
    if (stages->measured_turns > 0)
        stages->readings_a_turn = (double)stages->readings / (double)stages->measured_turns;
    all = (double)stages->turns * stages->readings_a_turn;
    may = readings_a_ms * (double)(passed_ms > 0 ? passed_ms : 1);
    every = all / may;
    if (every < stages->every / 2.0)
        every = stages->every / 2.0;
    stages->every = every >= EVERY_MAX ? EVERY_MAX : every <= 1 ? 1 : (unsigned)(every + 0.999);
    stages->window_ms = now_ms;
    stages->turns = stages->measured_turns = stages->readings = 0;
}

static void turn_over(struct td_stages *stages)
{
    assert(stages->now == TD_STAGE_OTHER); /* else a stage was not put back */
    note(stages);
    stages->measured_turns++;
    stages->found_turns++;
    td_stages_measured = NULL;
}

void td_stages_turn(struct td_stages *stages, uint64_t now_ms)
{
    if (td_stages_measured == stages)
        turn_over(stages);
    adapt(stages, now_ms);
    stages->turns++;
    if (stages->every > 1 && td_rng_below(&stages->rng, stages->every) > 0)
        return;
    stages->weight = stages->every;
    stages->now = TD_STAGE_OTHER;
    stages->since_ns = stages->clock_ns();
    stages->readings++;
    td_stages_measured = stages;
}

void td_stages_share(struct td_stages *stages)
{
    uint64_t now_ns = stages->clock_ns();
    double all_ns = 0, each;

    for (int i = 0; i < TD_STAGE_COUNT; i++)
        all_ns += stages->found_ns[i];
    if (stages->found_turns < TD_STAGES_TURNS_MIN || !(all_ns > 0))
        return;
    each = (double)(now_ns - stages->shared_ns) / all_ns / 1e9;
    for (int i = 0; i < TD_STAGE_COUNT; i++)
        stages->seconds[i] += stages->found_ns[i] * each;
    memset(stages->found_ns, 0, sizeof(stages->found_ns));
    stages->shared_ns = now_ns;
    stages->found_turns = 0;
}

void td_stages_end(struct td_stages *stages)
{
    if (td_stages_measured == stages)
        td_stages_measured = NULL;
}
