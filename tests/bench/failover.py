"""How long a switch between relays takes: 20 rounds in one run, three dispatchers, real Apache Kafka and redis-server.

usage: failover.py BUILD_DIR [case...]      TANDEM_TEST_ROUNDS=n changes the rounds
A release build. Between rounds the relay's health is made as new, so that round 20 is not the twentieth relapse of one relay.
"""

import functools
import os
import signal
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))

import aids  # noqa: E402

flow = aids.flow
CASES = []
case = functools.partial(flow.case, CASES)
ROUNDS = int(os.environ.get("TANDEM_TEST_ROUNDS", "20"))


def at_rate(rate, connections=20, **more):
    """Options of a case: both relays and the settings know the rate."""
    entry = {"max_mails_per_s": rate, "max_connections": connections}
    return {"dispatchers": 3, "delay": 20, "primary_entry": {**entry, **more}, "backup_entry": entry}


def spread(values, unit="ms"):
    v = sorted(x * 1000 for x in values)
    return f"median {statistics.median(v):.0f} {unit}, worst {v[-1]:.0f} {unit}"


def rounds(stack, campaign, fail, mend):
    """-> [(to the backup's first mail, back to the primary's first, longest pause, when it failed)], seconds."""
    primary, backup = (aids.Tail(r) for r in stack.relays)
    found = []
    for _ in range(ROUNDS):
        aids.as_new(stack, primary.relay)
        began = time.time()
        assert primary.first_after(began, 20), "the primary gets no mail"
        time.sleep(1)
        backup.read(), primary.read()
        failed = time.time()
        fail(primary.relay)
        away = backup.first_after(failed, 60)
        assert away, "no mail by the backup in 60 s"
        time.sleep(1)
        mended = time.time()
        mend(primary.relay)
        # What lay in its sockets while it was stopped is taken at once, and is no return.
        back = primary.first_after(mended + 0.2, 60)
        assert back, "no mail by the primary in 60 s"
        backup.read()
        around = sorted(at for at, _, _ in primary.rows + backup.rows if failed - 0.5 < at < mended)
        found.append((away - failed, back - mended, max((b - a for a, b in zip(around, around[1:])), default=0), failed))
    assert flow.done_count(stack, campaign) < aids.wait_for("its size", 10, lambda: stack.status(campaign)["submitted"]), \
        "the campaign ended before the rounds did"
    return found


def late(stack, t, failures, seconds=1.0):
    """Mails that were with the primary when it failed, came back, and were taken more than a second after the failure."""
    count = 0
    for relay in stack.relays:
        for at, message_id, _ in relay.taken():
            again = t.attempts.get(int(message_id.partition("@")[0].rpartition(".")[2]), 1) > 1
            count += again and at - max((f for f in failures if f < at), default=at) > seconds
    return count


def switch(stack, rate, fail, mend, goal):
    mails = max(int(rate * (ROUNDS * 6.5 + 10)), 5000)
    campaign = flow.submit(stack, mails)
    flow.wait_part(stack, campaign, min(500, rate))
    began = time.time()
    found = rounds(stack, campaign, fail, mend)
    real = flow.done_count(stack, campaign) / (time.time() - began)
    stack.ctl("campaign", "cancel", campaign)
    flow.wait_done(stack, campaign, mails)
    t = flow.truth(stack, campaign)
    connections = 3 * stack.relays[0].settings["max_connections"]
    said = t.check(mails, unconfirmed_at_most=ROUNDS * connections)
    away, back, pause, failures = zip(*found)
    slow = [round(x * 1000) for x in away if x > goal]
    told = (f"L D(0) C: {ROUNDS} rounds at {real:.0f}/s: to the backup {spread(away)}; back {spread(back)}; longest pause {spread(pause)}; "
            f"{late(stack, t, failures)} mails that came back waited longer than 1 s; {said}")
    assert not slow, f"{len(slow)} rounds took longer than {goal * 1000:.0f} ms: {slow}; {told}"
    return told


def kill(relay):
    relay.process.kill()


def stop(relay):
    relay.process.send(signal.SIGSTOP)


def go_on(relay):
    relay.process.send(signal.SIGCONT)


def start(relay):
    relay.start()


@case(**at_rate(200))
def killed_at_200(stack):
    """The primary's process is killed; 200 mails a second."""
    return switch(stack, 200, kill, start, 0.25)


@case(**at_rate(200, connect_timeout="2s"))
def hangs_at_200(stack):
    """The primary hangs without closing; 200 mails a second."""
    return switch(stack, 200, stop, go_on, 1)


@case(**at_rate(5000, 50))
def killed_at_5000(stack):
    """The primary's process is killed; 5,000 mails a second, or what the machine carries."""
    return switch(stack, 5000, kill, start, 0.25)


@case(**at_rate(5000, 50, connect_timeout="2s"))
def hangs_at_5000(stack):
    """The primary hangs without closing; 5,000 mails a second, or what the machine carries."""
    return switch(stack, 5000, stop, go_on, 1)


def rate_cut(stack, rate):
    primary, backup = stack.relays
    mails = rate * 75
    primary.ask("POST", "/limits", {"rate": rate})
    campaign = flow.submit(stack, mails)
    flow.wait_part(stack, campaign, rate * 5)
    tail = aids.Tail(primary)

    def flowing():
        """Mails a second that the primary took in the last two."""
        tail.read()
        return sum(1 for at, _, _ in tail.rows[-3 * rate:] if at > time.time() - 2) / 2

    before = flowing()
    assert before > 0.5 * rate, f"only {before:.0f}/s before the cut"
    primary.ask("POST", "/limits", {"rate": rate // 10})
    cut = time.time()
    first = aids.Tail(backup).first_after(cut, 20)
    time.sleep(15)
    primary.ask("POST", "/limits", {"rate": rate})
    grown = time.time()

    def found_again():
        return flowing() >= 0.9 * before
    again = "not within the campaign"
    try:
        aids.wait_for("its rate again", 60, lambda: found_again() or flow.done_count(stack, campaign) >= mails, 0.25)
        again = f"{time.time() - grown:.1f} s" if flow.done_count(stack, campaign) < mails else again
    except aids.Failed:
        pass
    refusals = aids.refused(primary, 454)
    stack.ctl("campaign", "cancel", campaign)
    flow.wait_done(stack, campaign, mails)
    t = flow.truth(stack, campaign)
    said = t.check(mails)
    by = [sum(1 for at, _, _ in r.taken() if cut + 2 < at < grown) / (grown - cut - 2) for r in stack.relays]
    pause = aids.longest_pause(stack.relays, grown)
    assert first - cut < 1 and pause < 1, f"first by the backup {first - cut:.2f} s, pause {pause:.2f} s"
    return (f"L D(0) R: cut from {before:.0f} ({rate} allowed) to {rate // 10}/s: backup from {(first - cut) * 1000:.0f} ms on; "
            f"in the cut primary {by[0]:.0f}/s, backup {by[1]:.0f}/s ({100 * by[1] / sum(by):.0f} % flow over); primary's rate again: {again}; "
            f"{refusals} replies of 454, longest pause {pause:.2f} s; {said}")


@case(**at_rate(500))
def rate_cut_500_to_50(stack):
    """The primary answers 454 to all above a tenth of its rate, 500 a second before."""
    return rate_cut(stack, 500)


@case(**at_rate(5000, 50))
def rate_cut_5000_to_500(stack):
    """The same at 5,000 a second, or what the machine carries."""
    return rate_cut(stack, 5000)


def wilson_lower(hits, n, z=1.96):
    p = hits / n
    return (p + z * z / (2 * n) - z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5) / (1 + z * z / n)


# Judged by its own bounces alone, not by the relay's of all campaigns.
@case(**at_rate(200, bounce_warn="100%", bounce_throttle="100%", bounce_stop="100%"), primary=("--bounce-share", "20"))
def bounce_trigger(stack):
    """A fifth of a campaign bounces at 200 mails a second: how many the primary still got after the ceiling (5 %) was
    provably crossed, at the sizes 100, 200, 400 ... at which it is tested."""
    import hashlib

    campaign = flow.submit(stack, 6000)
    flow.wait_done(stack, campaign, 6000)
    t = flow.truth(stack, campaign)
    said = t.check(6000)
    taken = [m for _, m, _ in stack.relays[0].taken()]
    hits, crossed = 0, None
    for n, m in enumerate(taken, 1):
        hits += int.from_bytes(hashlib.sha256(m.encode()).digest()[:4], "big") % 1000000 < 200000
        if crossed is None and n in (100, 200, 400, 800) and wilson_lower(hits, n) > 0.05:
            crossed = n
    assert crossed and len(taken) < 3000, f"crossed at {crossed}, the primary got {len(taken)}"
    moved = [c for c in t.relay_changes if c.campaign_id == campaign]
    assert moved, "no event says that the campaign moved"
    return (f"L D(0) C: crossed at {crossed} mails, the primary got {len(taken) - crossed} more, {6000 - len(taken)} by the backup; "
            f"{moved[0].reason}: {moved[0].evidence}; {said}")


if __name__ == "__main__":
    sys.exit(flow.main("failover", CASES))
