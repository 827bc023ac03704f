#include "throttle.h"

#include <stdlib.h>
#include <string.h>

#define SECOND_NS UINT64_C(1000000000)
#define DAY_NS (UINT64_C(86400) * SECOND_NS)
#define WINDOW_NS (SECOND_NS / 10)

int throttle_init(struct throttle *throttle, uint64_t rate, uint64_t daily, uint64_t now_ns)
{
    memset(throttle, 0, sizeof(*throttle));
    throttle->window_number = throttle->window_first = now_ns / WINDOW_NS;
    return throttle_set(throttle, rate, daily);
}

void throttle_release(struct throttle *throttle)
{
    free(throttle->stamps);
    throttle->stamps = NULL;
    throttle->rate = 0;
}

int throttle_set(struct throttle *throttle, uint64_t rate, uint64_t daily)
{
    uint64_t *stamps = NULL;

    if (rate > THROTTLE_RATE_MAX)
        return TD_ETOOBIG;
    if (rate && !(stamps = calloc((size_t)rate, sizeof(*stamps))))
        return TD_ENOMEM;
    free(throttle->stamps);
    throttle->stamps = stamps;
    throttle->rate = (size_t)rate;
    throttle->head = throttle->used = 0;
    throttle->daily = daily;
    return TD_OK;
}

static void second_forget(struct throttle *throttle, uint64_t now_ns)
{
    while (throttle->used && now_ns - throttle->stamps[throttle->head] >= SECOND_NS) {
        throttle->head = throttle->head + 1 == throttle->rate ? 0 : throttle->head + 1;
        throttle->used--;
    }
}

static void second_add(struct throttle *throttle, uint64_t n, uint64_t now_ns)
{
    for (; n; n--) {
        size_t tail = throttle->head + throttle->used;

        throttle->stamps[tail < throttle->rate ? tail : tail - throttle->rate] = now_ns;
        throttle->used++;
    }
}

enum throttle_verdict throttle_take(struct throttle *throttle, uint64_t n, uint64_t now_ns)
{
    if (throttle->rate) {
        second_forget(throttle, now_ns);
        if (throttle->used + n > throttle->rate)
            return THROTTLE_OVER_RATE;
    }
    if (throttle->day_count && now_ns - throttle->day_begin_ns >= DAY_NS)
        throttle->day_count = 0;
    if (throttle->daily && throttle->day_count + n > throttle->daily)
        return THROTTLE_OVER_DAY;
    if (!throttle->day_count)
        throttle->day_begin_ns = now_ns;
    throttle->day_count += n;
    if (throttle->rate)
        second_add(throttle, n, now_ns);
    return THROTTLE_FIT;
}

static void windows_advance(struct throttle *throttle, uint64_t now_ns)
{
    uint64_t number = now_ns / WINDOW_NS;

    if (number - throttle->window_number >= THROTTLE_WINDOWS) {
        memset(throttle->window, 0, sizeof(throttle->window));
        throttle->window_number = number;
    }
    while (throttle->window_number < number)
        throttle->window[++throttle->window_number % THROTTLE_WINDOWS] = 0;
}

void throttle_count(struct throttle *throttle, uint64_t now_ns)
{
    windows_advance(throttle, now_ns);
    throttle->window[throttle->window_number % THROTTLE_WINDOWS]++;
}

uint32_t throttle_window(struct throttle *throttle, size_t back, uint64_t now_ns)
{
    windows_advance(throttle, now_ns);
    if (back >= THROTTLE_WINDOWS || back > throttle->window_number - throttle->window_first)
        return 0;
    return throttle->window[(throttle->window_number - back) % THROTTLE_WINDOWS];
}

void throttle_reset(struct throttle *throttle, uint64_t now_ns)
{
    memset(throttle->window, 0, sizeof(throttle->window));
    throttle->window_number = throttle->window_first = now_ns / WINDOW_NS;
    throttle->day_count = 0;
}
