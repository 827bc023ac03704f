"""A large campaign runs at the relay's rate: how long does a small one take, and an express mail?"""

import time

from common import Goals, load, median, write_section
from system import System, rate_between

RATE, SMALL, EXPRESS = 200, 1000, 30


def main(build, folder, quick=False):
    goals, began = Goals("fairness"), load()
    large, express = 30000, EXPRESS // 2 if quick else EXPRESS
    system = System(build, folder / "fairness", dispatchers=2, lanes=12, delay=20, max_connections=20, max_mails_per_s=RATE)
    try:
        # Its ideal time: the same campaign alone on the same system.
        system.submit("warm", 50)
        system.wait_taken("warm", 50, 60)
        start = time.time()
        system.submit("alone", SMALL)
        alone = system.wait_taken("alone", SMALL, 120)[-1] - start
        system.submit("large", large)
        system.wait_taken("large", 5 * RATE, 120)
        start = time.time()
        system.submit("small", SMALL)
        beside = system.wait_taken("small", SMALL, 240)[-1] - start
        rate = rate_between(system.taken("large") + system.taken("small"), start, start + beside)
        waits = []
        for i in range(express):
            start = time.time()
            system.submit(f"express{i}", 1, "--express")
            waits.append(system.wait_taken(f"express{i}", 1, 60)[0] - start)
        still = len(system.taken("large")) < large
    finally:
        system.stop()
    waits.sort()
    p99 = waits[min(len(waits) - 1, int(len(waits) * 0.99))]
    small_met = goals.check("small_campaign", beside <= 2 * alone and still, f"{beside:.1f} s beside the large one, {alone:.1f} s alone: {beside / alone:.2f}")
    express_met = goals.check("express", p99 <= 2 and still, f"p99 {p99:.2f} s, median {median(waits):.2f} s")
    write_section("fairness", f"""{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, {began}. {large:,} recipients at a relay's {RATE}/s, two dispatchers.

| | alone | beside the large campaign | goal | met |
|---|---|---|---|---|
| {SMALL:,} recipients, submitted until the last one is taken | {alone:.1f} s | {beside:.1f} s = {beside / alone:.2f} times | ≤ 2 times | {small_met} |
| express mail, submitted until taken: p99 of {express} (median) | | {p99:.2f} s ({median(waits):.2f} s) | ≤ 2 s | {express_met} |

The relay took {rate:.0f} mails a second meanwhile, of both campaigns together.""")
    return goals.failed
