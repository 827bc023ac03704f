"""1, 2 and 4 dispatchers into a relay that answers after 50 ms and allows 20 connections each: does the rate grow with them?"""

import math
import time

from common import Goals, load, table, write_section
from system import System, cpu_by_stage, rate_between

LONG_S, RAMP_S = 12, 6


def measure(build, folder, count, seconds):
    """Mails a second, and where the CPU time of a mail went."""
    system = System(build, folder / f"scale-{count}", dispatchers=count, delay=50, max_connections=20)
    try:
        before = system.stages()
        # More than 20,000 recipients use eight lanes: all of them, so that every dispatcher has some.
        system.submit("large", int(count * 400 * (seconds + RAMP_S) * 1.3) + 20001)
        system.wait_taken("large", 200, 60)
        time.sleep(RAMP_S)
        begin = time.time()
        time.sleep(seconds)
        return rate_between(system.taken("large"), begin, begin + seconds), cpu_by_stage(before, system.stages())
    finally:
        system.stop()


def main(build, folder, quick=False, until=math.inf):
    goals, rows, began, one = Goals("scale"), [], load(), None
    for count in (1, 2, 4):
        short = quick or time.monotonic() > until - 80
        rate, stages = measure(build, folder, count, LONG_S // 2 if short else LONG_S)
        one = one or rate
        efficiency = rate / (count * one)
        met = "" if count == 1 else goals.check(f"{count}_dispatchers", efficiency >= 0.9, f"{rate:.0f}/s, {efficiency:.2f} of {count} times one")
        rows.append([count, f"{rate:,.0f}", f"{count * 20 / 0.05:,.0f}", f"{efficiency:.2f}", met])
    write_section("scale", f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, {began}.\n\n" + table(
        ["dispatchers", "mails/s", "what 20 connections × 1/50 ms each allow", "rate ÷ (n × rate of one), ≥ 0.9", "met"], rows))
    write_section("stages", f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, {began}. CPU µs a mail, 4 dispatchers.\n\n{stages}")
    return goals.failed
