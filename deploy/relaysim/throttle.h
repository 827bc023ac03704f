/* throttle.h - what the relay enforces and counts: rate in a sliding second, quota of a day, windows of 100 ms.
 * Pure: time is an argument (nanoseconds of one steady clock). */
#ifndef RELAYSIM_THROTTLE_H
#define RELAYSIM_THROTTLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/err.h"

#define THROTTLE_RATE_MAX 1000000u
#define THROTTLE_WINDOWS 600 /* of 100 ms: one minute */

enum throttle_verdict { THROTTLE_FIT = 0, THROTTLE_OVER_RATE, THROTTLE_OVER_DAY };

struct throttle {
    uint64_t *stamps; /* ring of the last `rate` recipients taken; owned; NULL = no rate */
    size_t rate, head, used;
    uint64_t daily; /* 0 = no quota */
    uint64_t day_begin_ns, day_count;
    uint32_t window[THROTTLE_WINDOWS]; /* mails taken in each, by window number modulo */
    uint64_t window_number;            /* newest, since time 0 */
    uint64_t window_first;             /* oldest number that was lived through */
};

int throttle_init(struct throttle *throttle, uint64_t rate, uint64_t daily, uint64_t now_ns);
void throttle_release(struct throttle *throttle);
/** Change the limits while running; what was taken in the last second is forgotten with a new rate. */
int throttle_set(struct throttle *throttle, uint64_t rate, uint64_t daily);

/**
 * Take n recipients, or none. Exact: no second, wherever it begins, holds more than `rate` taken recipients.
 * A day begins with its first recipient and ends 24 h later.
 */
enum throttle_verdict throttle_take(struct throttle *throttle, uint64_t n, uint64_t now_ns);

void throttle_count(struct throttle *throttle, uint64_t now_ns); /* one mail was taken */
/** Mails in the window `back` windows before the present one (0 = present, unfinished); 0 when never lived
 * through. */
uint32_t throttle_window(struct throttle *throttle, size_t back, uint64_t now_ns);
void throttle_reset(struct throttle *throttle, uint64_t now_ns); /* counts and quota, not the second of the rate */

#endif /* RELAYSIM_THROTTLE_H */
