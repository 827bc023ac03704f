/* tandem/clock.h - the only place where td_io reads a clock. Core code gets time as an argument. Any thread. */
#ifndef TD_CLOCK_H
#define TD_CLOCK_H

#include <stdint.h>

uint64_t td_mono_us(void); /* monotonic microseconds: for every duration */
uint64_t td_mono_ms(void);
int64_t td_wall_ms(void); /* Unix milliseconds: only for Date:, deadlines and logs */
uint64_t td_thread_cpu_ns(void); /* user and system time of the caller; a system call */
uint64_t td_process_cpu_ns(void);

#endif /* TD_CLOCK_H */
