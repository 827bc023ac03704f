"""Flow cases: a campaign that waits must not stand in others' way."""

import time

import run as flow
from stack import wait_for

NARROW = {"dispatch": {"window": 200, "lane_lease": "6s"}}


def taken(stack, campaign):
    return sorted(t for r in stack.relays for t, m, _ in r.taken() if m.startswith(f"{campaign}."))


def pause(stack, campaign):
    """Pause, and wait until what the relays have in hand is through."""
    stack.ctl("campaign", "pause", campaign)
    said = time.time()
    time.sleep(2)
    late = [t for t in taken(stack, campaign) if t > said + 1]
    assert not late, f"{len(late)} mails went out more than 1 s after the pause"
    return len(taken(stack, campaign))


@flow.case(settings=NARROW, dispatchers=2)
def paused_campaign_lets_others_pass(stack):
    """20,000 recipients paused midway: another campaign passes at full rate; resumed it goes on at once and ends complete."""
    first = flow.submit(stack, 20000, "--id", "first")
    flow.wait_part(stack, first, 2000)
    sent = pause(stack, first)
    begun = time.time()
    second = flow.submit(stack, 2000, "--id", "second")
    flow.wait_done(stack, second, 2000, seconds=40)
    took = taken(stack, second)[-1] - begun
    time.sleep(3)
    assert len(taken(stack, first)) == sent, "a paused campaign went on"
    stack.ctl("campaign", "resume", first)
    resumed = time.time()
    wait_for("the first mail after the pause", 10, lambda: len(taken(stack, first)) > sent, 0.05)
    again = taken(stack, first)[sent] - resumed
    flow.wait_done(stack, first, 20000)
    said = flow.truth(stack, first).check(20000)
    flow.truth(stack, second).check(2000)
    return f"{said}; paused at {sent}; the other's 2,000 in {took:.1f} s; on again after {again:.1f} s"


@flow.case(settings=NARROW, dispatchers=2)
def paused_campaign_is_cancelled(stack):
    """A paused campaign is cancelled: all that is left of it ends at once, what was set aside too."""
    first = flow.submit(stack, 20000, "--id", "first")
    flow.wait_part(stack, first, 2000)
    sent = pause(stack, first)
    stack.ctl("campaign", "cancel", first)
    begun = time.time()
    flow.wait_done(stack, first, 20000, seconds=60)
    took = time.time() - begun
    t = flow.truth(stack, first)
    said = t.check(20000)
    assert t.count("CANCELLED") >= 20000 - sent, f"{t.count('CANCELLED')} cancelled, {sent} sent"
    return f"{said}; {t.count('CANCELLED')} cancelled within {took:.1f} s"
