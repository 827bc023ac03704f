#include "silence.h"

enum {
    TIMES = 2, /* mean and four deviations, so often */
    PROBE_TIMES = 1, /* handshakes come in volleys: their times are those of many at once, a probe is alone */
    LEAST_US = 300 * 1000,
    PROBE_LEAST_US = 250 * 1000,
    UNKNOWN_US = 1000 * 1000, /* before the first one is known */
    SLOW_MAX = 6,
    AWAKE_MAX_US = 100 * 1000, /* of the time between two looks; the rest we slept */
    /* Where something in front of the relay answers for it (TLS, and then nothing), only that all wait tells. */
    ALL_MIN = 3,
    ALL_TIMES = 5,
    ALL_LEAST_US = 1300 * 1000,
    ALL_UNKNOWN_US = 5 * 1000 * 1000,
};

void took_add(struct took *took, uint64_t us)
{
    uint64_t off;

    if (took->mean_us == 0) {
        took->mean_us = us + 1;
        took->deviation_us = us / 2;
        return;
    }
    off = us > took->mean_us ? us - took->mean_us : took->mean_us - us;
    took->deviation_us += off / 4 - took->deviation_us / 4;
    took->mean_us += us / 8 - took->mean_us / 8;
}

static uint64_t patience(const struct took *took, uint64_t times, uint64_t least_us, uint64_t unknown_us)
{
    uint64_t us = (took->mean_us + 4 * took->deviation_us) * times;

    if (took->mean_us == 0)
        return unknown_us;
    return us < least_us ? least_us : us;
}

uint64_t silence_patience_us(const struct silence *silence)
{
    return patience(&silence->final, TIMES, LEAST_US, UNKNOWN_US) << silence->slow;
}

uint64_t silence_probe_patience_us(const struct silence *silence)
{
    return patience(&silence->secure, PROBE_TIMES, PROBE_LEAST_US, UNKNOWN_US);
}

void silence_final(struct silence *silence, uint64_t us)
{
    if (us <= patience(&silence->final, TIMES, LEAST_US, UNKNOWN_US))
        silence->slow = 0;
    took_add(&silence->final, us);
}

/* Everything anew but what is known of its times. */
static void begin_anew(struct silence *silence)
{
    silence->deaf_us = silence->quiet_us = silence->asked_us = 0;
    silence->asked = false;
}

void silence_answered(struct silence *silence)
{
    if (!silence->asked)
        return;
    silence->quiet_us = silence->asked_us = 0;
    silence->asked = false;
    if (silence->slow < SLOW_MAX)
        silence->slow++;
}

static bool all_are_deaf(const struct silence *silence, const struct silence_view *view)
{
    return view->waiting >= (view->most < ALL_MIN ? view->most : ALL_MIN) &&
           silence->deaf_us >= patience(&silence->final, ALL_TIMES, ALL_LEAST_US, ALL_UNKNOWN_US);
}

static enum silence_step look_asked(struct silence *silence, const struct silence_view *view)
{
    bool deaf = all_are_deaf(silence, view);

    if ((view->probe == PROBE_REACHING && silence->asked_us >= silence_probe_patience_us(silence)) ||
        (view->probe == PROBE_SECURED && deaf) || (view->probe != PROBE_GREETED && view->others)) {
        begin_anew(silence);
        silence->slow = 0;
        return SILENCE_GONE;
    }
    if (view->probe == PROBE_GREETED)
        silence_answered(silence);
    return SILENCE_NONE;
}

enum silence_step silence_look(struct silence *silence, const struct silence_view *view)
{
    uint64_t awake_us = view->now_us - silence->looked_us;
    bool heard = view->heard_us != silence->heard_us;

    silence->looked_us = view->now_us;
    silence->heard_us = view->heard_us;
    if (awake_us > AWAKE_MAX_US)
        awake_us = AWAKE_MAX_US;
    if (view->waiting == 0 || heard) {
        if (heard)
            silence_answered(silence);
        begin_anew(silence);
        return SILENCE_NONE;
    }
    silence->deaf_us += awake_us;
    silence->quiet_us += awake_us;
    if (silence->asked) {
        silence->asked_us += awake_us;
        return look_asked(silence, view);
    }
    if (silence->slow > 0 && all_are_deaf(silence, view)) {
        silence->deaf_us = 0;
        return SILENCE_STALE;
    }
    if (silence->quiet_us < silence_patience_us(silence))
        return SILENCE_NONE;
    silence->asked = true;
    silence->asked_us = 0;
    return SILENCE_ASK;
}
