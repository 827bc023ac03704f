"""Flow cases: the ceiling of a campaign, by what relays refuse in the dialogue because the address takes no mail."""

import time

from run import (BAD_LIST, FEW, NOT_JUDGED, case, flush_redis, recipient_outcomes, submit, submit_until_held, truth, view_built, wait_done,
                 wait_part)
from stack import wait_for


def refuse_gone(relay, share=0.2):
    """From now on this relay refuses such a share of the recipients at gone.example at RCPT."""
    relay.ask("POST", "/fault", {"at": "rcpt", "do": "reply", "code": 550, "enhanced": "5.1.1", "text": "user unknown", "share": share,
                                 "match": "@gone.example"})


def left(stack, campaign, relay="ses-eu", seconds=60):
    """Wait until the campaign has left the relay. @return its evidence, and when it was seen"""
    evidence = wait_for(f"{campaign} to leave {relay}", seconds, lambda: stack.status(campaign).get("left", {}).get(relay), 0.1)
    return evidence, time.time()


def by_relay(stack, campaign):
    """What each relay took of the campaign."""
    return {r.name: sum(m.startswith(f"{campaign}.") for _, m, _ in r.taken()) for r in stack.relays}


def refused_by(stack, campaign):
    """relay -> how many it refused for the address's fault, as mail.outcomes says."""
    counts = {}
    for o in recipient_outcomes(stack, campaign).values():
        if o.hard_refusal:
            counts[o.relay] = counts.get(o.relay, 0) + 1
    return counts


@case(delay=60, dispatchers=2, primary_entry=NOT_JUDGED)
def bounce_trigger_by_refusals_moves_that_campaign(stack):
    """The primary refuses a fifth of one campaign's recipients at RCPT (550 5.1.1), none bounces later: it goes on by the backup, the
    other stays."""
    refuse_gone(stack.relays[0])
    bad = submit(stack, 4000, "--id", "bad", domain="gone.example")
    good = submit(stack, 3000, "--id", "good")
    evidence, at = left(stack, bad)
    wait_done(stack, bad, 4000)
    wait_done(stack, good, 3000)
    t, other = truth(stack, bad), truth(stack, good)
    said = t.check(4000)
    other.check(3000)
    assert " refused by the relay, 0 reported later)" in evidence, evidence
    events = [c for c in t.relay_changes if c.campaign_id]
    assert [(c.campaign_id, c.relay, c.reason, c.evidence) for c in events] == [("bad", "ses-eu", "bounces.ceiling", evidence)], f"{events}"
    primary = stack.relays[0]
    late = [m for when, m, _ in primary.taken() if when > at + 1 and m.startswith("bad.")]
    assert not late, f"{len(late)} mails of it went by the primary more than 1 s after it had left"
    refused = refused_by(stack, bad)
    assert set(refused) == {"ses-eu"} and refused == stack.status(bad)["hard_refused"], f"{refused}, {stack.status(bad)['hard_refused']}"
    took = by_relay(stack, bad)
    assert took["backup"] > 2000, f"{took}"
    assert by_relay(stack, good) == {"ses-eu": 3000, "backup": 0}, f"the other: {by_relay(stack, good)}"
    return f"{said}; left after {took['ses-eu']} taken and {refused['ses-eu']} refused ({evidence}), {took['backup']} by the backup; the other stayed"


@case(primary=BAD_LIST, delay=60, primary_entry=NOT_JUDGED, backup_entry=NOT_JUDGED)
def bounce_trigger_by_refusals_and_reports_holds(stack):
    """At the primary some are refused and some bounce later, which together are too many; the backup refuses a fifth: the campaign is
    held and says why."""
    primary, backup = stack.relays
    refuse_gone(primary, 0.05)
    refuse_gone(backup)
    bad, before = submit_until_held(stack)
    why = before["left"]
    assert " refused by the relay, 0 reported later)" in why["backup"], f"{why}"
    assert "(0 refused" not in why["ses-eu"] and ", 0 reported" not in why["ses-eu"], f"both kinds at the primary: {why}"
    submit(stack, 200, "--id", "good")
    wait_done(stack, "good", 200)
    stack.ctl("campaign", "cancel", bad)
    wait_done(stack, bad, 12000)
    return truth(stack, bad).check(12000) + f", held at {before['done']}; {why}"


@case(primary_entry={**FEW, **NOT_JUDGED}, backup_entry=FEW)
def refusals_are_rebuilt_with_redis(stack):
    """Redis is emptied and the dispatcher killed with it: refusals are counted again from mail.outcomes, and the new dispatcher finds that
    the campaign must leave the primary."""
    refuse_gone(stack.relays[0])
    bad = submit(stack, 6000, "--id", "bad", domain="gone.example")
    left(stack, bad)
    wait_part(stack, bad, 2500)  # the move is over
    victim = stack.services["dispatch-1"]
    victim.kill()
    time.sleep(1)  # what it had produced is on the topic
    expected, taken = refused_by(stack, bad), by_relay(stack, bad)
    assert expected["ses-eu"] > 15, f"{expected}"
    flush_redis(stack)
    view_built(stack, 2)
    told = wait_for("the same counts", 20, lambda: (lambda s: s.get("hard_refused") == expected and s)(stack.status(bad)), 0.2)
    assert not told["left"], f"the verdict was in Redis alone: {told['left']}"
    victim.start()
    evidence, at = left(stack, bad)
    assert f"({expected['ses-eu']} refused by the relay, " in evidence or by_relay(stack, bad)["ses-eu"] > taken["ses-eu"], evidence
    wait_done(stack, bad, 6000)
    late = [m for when, m, _ in stack.relays[0].taken() if when > at + 1 and m.startswith("bad.")]
    assert not late, f"{len(late)} mails went by the primary after it was left anew"
    said = truth(stack, bad).check(6000, unconfirmed_at_most=6 * 50)  # as in redis_and_dispatcher_killed
    assert refused_by(stack, bad) == stack.status(bad)["hard_refused"], "counted once each"
    more = by_relay(stack, bad)["ses-eu"] - taken["ses-eu"]
    return f"{said}; {expected['ses-eu']} refusals before and after; {evidence}; {more} more by the primary until then"
