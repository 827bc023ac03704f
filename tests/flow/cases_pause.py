"""Flow cases: a campaign that waits must not stand in others' way."""

import time

import run as flow
from stack import wait_for

# Two lanes, full of the large campaign, and a small window: whoever comes after it has to pass it.
NARROW = {"kafka": {"lanes": 2}, "dispatch": {"window": 200, "lane_lease": "6s"}}


def pause(stack, campaign):
    """Pause, and wait until what the relays have in hand is through."""
    stack.ctl("campaign", "pause", campaign)
    said = time.time()
    time.sleep(2)
    late = [t for t in flow.taken_of(stack, campaign) if t > said + 1]
    assert not late, f"{len(late)} mails went out more than 1 s after the pause"
    return len(flow.taken_of(stack, campaign))


@flow.case(alone=True, settings=NARROW, dispatchers=2)
def paused_campaign_lets_others_pass(stack):
    """12,000 recipients paused midway: another campaign in the same two lanes passes at full rate; resumed it goes on where it was, at
    once, and ends complete."""
    first = flow.submit(stack, 12000, "--id", "first")
    flow.wait_part(stack, first, 2000)
    sent = pause(stack, first)
    second, took = flow.time_until_taken(stack, 2000, "--id", "second")
    flow.wait_done(stack, second, 2000, seconds=40)
    time.sleep(3)
    assert len(flow.taken_of(stack, first)) == sent, "a paused campaign went on"
    assert took < 16, f"2,000 recipients took {took:.1f} s beside a paused campaign"
    stack.ctl("campaign", "resume", first)
    resumed = time.time()
    wait_for("the first mail after the pause", 10, lambda: len(flow.taken_of(stack, first)) > sent, 0.05)
    again = flow.taken_of(stack, first)[sent] - resumed
    flow.wait_done(stack, first, 12000)
    said = flow.truth(stack, first).check(12000)
    flow.truth(stack, second).check(2000)
    return f"{said}; paused at {sent}; the other's 2,000 in {took:.1f} s; on again after {again:.1f} s"


@flow.case(alone=True, settings=NARROW, backup=None, primary_entry={"max_mails_per_s": 250})
def paused_campaign_is_cancelled(stack):
    """A campaign is paused, resumed, paused again and cancelled: all that is left of it ends within seconds, what was set aside too,
    though most of its chunks have to be read again for that."""
    first = flow.submit(stack, 20000, "--id", "first")
    wait_for("its first mails", 60, lambda: len(flow.taken_of(stack, first)) >= 300, 0.1)
    sent = pause(stack, first)
    stack.ctl("campaign", "resume", first)
    wait_for("mails after the pause", 30, lambda: len(flow.taken_of(stack, first)) >= sent + 500, 0.1)
    sent = pause(stack, first)
    stack.ctl("campaign", "cancel", first)
    begun = time.time()
    flow.wait_done(stack, first, 20000, seconds=60)
    took = time.time() - begun
    t = flow.truth(stack, first)
    said = t.check(20000)
    again = flow.counter(stack.services["rendering-1"], "tandem_rendering_chunks_reread_total")
    assert t.count("CANCELLED") >= 20000 - sent, f"{t.count('CANCELLED')} cancelled, {sent} sent"
    assert again > 50, f"only {again:.0f} chunks were read again"
    assert took < 45, f"{t.count('CANCELLED')} recipients took {took:.1f} s to be cancelled"
    return f"{said}; {t.count('CANCELLED')} cancelled within {took:.1f} s, {again:.0f} chunks read again"
