"""Flow cases: what SES tells by SNS, as relaysim plays it, and mails in doubt that wait for it."""

import json
import time

from run import BAD_LIST, recipient_outcomes, case, counter, done_count, submit, truth, wait_done, wait_for, wait_part

ONE_WAIT = {"dispatch": {"lane_lease": "6s", "evidence_wait": "20s"}}


def sns(stack, **changes):
    """Tell the primary how to play SNS from now on."""
    return stack.relays[0].ask("POST", "/sns", changes)


def posts(stack):
    return stack.relays[0].ask("GET", "/status")["sns"]


def lose(stack, count):
    """The primary takes so many mails, writes them down, and breaks off before it answers."""
    stack.relays[0].ask("POST", "/fault", {"at": "final", "do": "lose", "count": count})


def lost_ones(stack, campaign):
    return [i for i, t in truth(stack, campaign).taken.items() if any(how == "lost" for _, how in t)]


def waiting(stack, campaign, relay="ses-eu"):
    lines = stack.ctl("--json", "unconfirmed", "list", campaign).stdout.splitlines()
    waits = [u for u in map(json.loads, lines) if u.get("waiting")]
    assert all(u["relay"] == relay for u in waits), f"{waits}"
    return sorted(u["index"] for u in waits)


def all_told(stack):
    wait_for("the subscription and all posts", 60, lambda: (lambda p: p["confirmed"] and p["waiting"] == 0)(posts(stack)), 0.2)


@case(sns=1, backup=None)
def lost_replies_are_settled_by_events(stack):
    """Final replies are lost under hold: the events of SES end those mails as ACCEPTED, once, long before the wait ends."""
    lose(stack, 15)
    began = time.time()
    campaign = submit(stack, 600)
    wait_done(stack, campaign, 600, seconds=60)
    took = time.time() - began
    t = truth(stack, campaign)
    said = t.check(600)
    lost = lost_ones(stack, campaign)
    assert len(lost) == 15, f"{len(lost)} replies were lost"
    proven = [i for i in lost if recipient_outcomes(stack, campaign)[i].reason == "evidence.ses_event"]
    assert len(proven) == 15 and all(recipient_outcomes(stack, campaign)[i].relay_message_id for i in proven), f"{len(proven)} were proven"
    assert stack.status(campaign)["accepted"] == 600, "the ledger counts them, too"
    all_told(stack)
    return f"{said}, {len(proven)} by events, in {took:.0f} s"


@case(sns=2, backup=None, settings=ONE_WAIT)
def without_events_the_wait_ends_unconfirmed(stack):
    """No event comes for lost replies: in flight until the wait is over, then UNCONFIRMED; never sent again. That the campaign is
    cancelled meanwhile makes no difference."""
    all_told(stack)
    sns(stack, mute=True)
    lose(stack, 10)
    campaign = submit(stack, 300)
    wait_part(stack, campaign, 290)
    stack.ctl("campaign", "cancel", campaign)
    time.sleep(3)
    assert done_count(stack, campaign) == 290, f"{done_count(stack, campaign)} ended before the wait was over"
    lost = sorted(lost_ones(stack, campaign))
    assert waiting(stack, campaign) == lost, "unconfirmed list shows others than those that wait"
    wrong = next(i for i in range(300) if i not in lost)
    refused = stack.ctl("unconfirmed", "settle", campaign, wrong, "accepted", check=False)
    assert refused.returncode == 1 and "nothing was settled" in refused.stderr, refused.stderr
    stack.ctl("unconfirmed", "settle", campaign, *lost[:3], "accepted")
    wait_for("outcomes of settled mails, long before the wait is over", 5,
             lambda: done_count(stack, campaign) == 293 and waiting(stack, campaign) == lost[3:], 0.1)
    wait_done(stack, campaign, 300, seconds=60)
    t = truth(stack, campaign)
    by_operator = [o for i, o in recipient_outcomes(stack, campaign).items() if o.reason == "evidence.operator"]
    assert len(by_operator) == 3 and stack.status(campaign)["by_relay"] == {"ses-eu": 293}, f"{by_operator}, {stack.status(campaign)}"
    said = t.check(300, unconfirmed_at_most=7)
    assert lost[3:] == sorted(i for i, r in t.results.items() if r and r[0][0] == "UNCONFIRMED"), "others are unconfirmed than were lost"
    rounds = counter(stack.services["dispatch-1"], "tandem_dispatch_retries_total")
    assert rounds <= 30, f"{rounds:.0f} records on retry topics for 10 mails that wait"
    return f"{said}, 3 of them by an operator; {rounds:.0f} rounds"


@case(sns=1, backup=None, settings=ONE_WAIT)
def forged_events_change_nothing(stack):
    """A bad signature, a topic that is not listed, a certificate of another region: 403, and the mails stay in doubt."""
    all_told(stack)
    forgeries = ({"signature": "bad"}, {"topic": "arn:aws:sns:eu-west-1:123456789012:other"},
                 {"certificate_url": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0.pem"})
    campaigns = []
    for n, forgery in enumerate(forgeries):
        before = posts(stack)["answers"].get("403", 0)
        sns(stack, **forgery)
        lose(stack, 3)
        campaigns.append(submit(stack, 20, "--id", f"forged-{n}"))
        wait_part(stack, campaigns[-1], 17)
        wait_for(f"40 refusals after {forgery}, {posts(stack)}", 30, lambda: posts(stack)["answers"].get("403", 0) >= before + 40, 0.1)
    assert set(posts(stack)["answers"]) == {"200", "403"}, f"{posts(stack)}"
    for campaign in campaigns:
        wait_done(stack, campaign, 20, seconds=120)
        truth(stack, campaign).check(20, unconfirmed_at_most=3)
        assert not any(o.service == "bounce" for o in recipient_outcomes(stack, campaign, whole=True).values()), "bounce believed a forged event"
    return f"{posts(stack)['answers']}"


@case(sns=2, backup=None)
def events_outlive_kafka_away(stack):
    """Kafka is away when events are posted: 503, SNS tries again, and later they count."""
    all_told(stack)
    sns(stack, delay_ms=6000, twice=True)
    lose(stack, 8)
    campaign = submit(stack, 200)
    wait_part(stack, campaign, 192)
    stack.kafka("stop")
    wait_for("a 503", 60, lambda: posts(stack)["answers"].get("503", 0) > 0, 0.2)
    stack.kafka("start")
    wait_done(stack, campaign, 200, seconds=180)
    said = truth(stack, campaign).check(200)
    all_told(stack)
    return f"{said}; posts answered {posts(stack)['answers']}"


@case(alone=True, sns=1, primary=BAD_LIST, delay=60)
def bounces_by_event_trip_the_ceiling(stack):
    """A fifth of a campaign bounces, told by events of SES alone: it leaves the primary just as it would for reports by mail."""
    bad = submit(stack, 4000, "--id", "bad", domain="gone.example")
    wait_for("the trigger", 90, lambda: stack.status(bad).get("left", {}).get("ses-eu"), 0.1)
    left = time.time()
    wait_done(stack, bad, 4000)
    t = truth(stack, bad)
    said = t.check(4000)
    late = [m for at, m, _ in stack.relays[0].taken() if at > left + 1 and m.startswith("bad.")]
    assert not late, f"{len(late)} mails went by the primary more than 1 s after it was left"
    assert t.bounces and all(b[0].relay == "ses-eu" and b[0].enhanced_status == "5.1.1" for b in t.bounces.values() if b), "no bounce facts"
    all_told(stack)
    wait_for("all bounces", 30, lambda: stack.status(bad)["hard"]["ses-eu"] == len({i for i, b in truth(stack, bad).bounces.items() if b}), 0.5)
    return f"{said}, left after {sum(m.startswith('bad.') for _, m, _ in stack.relays[0].taken())} mails"


@case(sns=1, backup=None, settings=ONE_WAIT)
def dispatcher_killed_and_events_settle(stack):
    """SIGKILL mid-send: what it had begun waits; what the relay took is ACCEPTED by its events, the rest UNCONFIRMED after the wait."""
    campaign = submit(stack, 2000)
    wait_part(stack, campaign, 500)
    victim = stack.services["dispatch-1"]
    victim.kill()
    victim.start()
    wait_done(stack, campaign, 2000, seconds=150)
    t = truth(stack, campaign)
    said = t.check(2000, unconfirmed_at_most=40)
    wrong = [i for i, r in t.results.items() if r and r[0][0] == "UNCONFIRMED" and t.taken[i]]
    assert not wrong, f"{len(wrong)} mails are UNCONFIRMED though the relay has told of them"
    proven = sum(o.reason == "evidence.ses_event" for o in recipient_outcomes(stack, campaign).values())
    return f"{said}, {proven} by events"


@case(sns=1, backup=None, settings=ONE_WAIT)
def an_operator_names_the_relay(stack):
    """SIGKILL mid-send, and no event comes: nobody knows which relay has what was begun. An operator who does settles it for that relay."""
    all_told(stack)
    sns(stack, mute=True)
    campaign = submit(stack, 2000)
    wait_part(stack, campaign, 500)
    victim = stack.services["dispatch-1"]
    victim.kill()
    victim.start()
    wait_for("all but those in doubt", 60, lambda: done_count(stack, campaign) + len(waiting(stack, campaign, "")) == 2000, 0.5)
    doubted = waiting(stack, campaign, "")
    taken = [i for i in doubted if truth(stack, campaign).taken[i]]
    assert taken, f"the relay took none of {len(doubted)}"
    wrong = stack.ctl("unconfirmed", "settle", campaign, taken[0], "accepted", "--relay", "nobody", check=False)
    assert wrong.returncode == 2 and waiting(stack, campaign, "") == doubted, "an unknown relay settles something"
    stack.ctl("unconfirmed", "settle", campaign, *taken, "accepted", "--relay", "ses-eu")
    wait_done(stack, campaign, 2000, seconds=60)
    said = truth(stack, campaign).check(2000, unconfirmed_at_most=len(doubted) - len(taken))
    status = stack.status(campaign)
    assert status["by_relay"] == {"ses-eu": status["accepted"]}, f"{status}"
    return f"{said}, {len(taken)} of {len(doubted)} in doubt by an operator"


@case(sns=1, backup=None, delay=100)
def bounce_killed_while_it_settles(stack):
    """SIGKILL of bounce again and again while events end mails: each has one outcome, and none is lost on the way."""
    stack.relays[0].ask("POST", "/fault", {"at": "final", "do": "lose", "share": 0.1}) # of all, the relay would be down
    campaign = submit(stack, 1000)
    victim = stack.services["bounce-1"]
    for _ in range(4):
        time.sleep(1.5)
        victim.kill()
        victim.start()
    wait_done(stack, campaign, 1000, seconds=120)
    said = truth(stack, campaign).check(1000)
    proven = sum(o.reason == "evidence.ses_event" for o in recipient_outcomes(stack, campaign).values())
    assert proven == len(lost_ones(stack, campaign)), f"{proven} proven, {len(lost_ones(stack, campaign))} lost"
    return f"{said}, {proven} by events"


@case(sns=2, backup=None)
def complaints_suppress(stack):
    """A complaint told by an event is a fact on mail.outcomes, and nobody who complained is written to again."""
    all_told(stack)
    sns(stack, complain=True, twice=True)
    campaign = submit(stack, 40)
    wait_done(stack, campaign, 40)
    all_told(stack)
    wait_for("complaints", 30, lambda: len(truth(stack, campaign).complaints) == 40, 0.2)
    assert all(c.relay == "ses-eu" and c.feedback_type == "abuse" and len(c.address_hash) == 16
               for facts in truth(stack, campaign).complaints.values() for c in facts)
    sns(stack)
    again = submit(stack, 60, "--id", "again")
    wait_done(stack, again, 60)
    truth(stack, again).check(60)
    assert stack.status(again)["suppressed"] == 40, f"{stack.status(again)}"
    return truth(stack, campaign).check(40) + ", 40 complaints, as many suppressed in the next campaign"
