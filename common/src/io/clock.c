#include "tandem/clock.h"

#include <time.h>

static uint64_t read_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t td_mono_us(void)
{
    return read_ns(CLOCK_MONOTONIC) / 1000;
}

uint64_t td_mono_ms(void)
{
    return td_mono_us() / 1000;
}

int64_t td_wall_ms(void)
{
    return (int64_t)(read_ns(CLOCK_REALTIME) / 1000000);
}

uint64_t td_thread_cpu_ns(void)
{
    return read_ns(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t td_process_cpu_ns(void)
{
    return read_ns(CLOCK_PROCESS_CPUTIME_ID);
}
