"""Redis that stalls, is slow, refuses writes, or comes back with nothing. (Away for 10 s: flow.redis_stopped_for_10_s.)"""

import functools
import shutil
import signal
import time

import aids
import outcomes
from aids import flow

CASES = []
case = functools.partial(flow.case, CASES)


def taken(stack):
    return sum(len(r.taken()) for r in stack.relays)


def sent_while(stack, seconds):
    before = taken(stack)
    time.sleep(seconds)
    return taken(stack) - before


@case(dispatchers=2)
def redis_stalls_5_s(stack):
    """SIGSTOP of Redis for 5 s mid-send."""
    campaign = flow.submit(stack, 10000)
    flow.wait_part(stack, campaign, 1000)
    stack.redis.send(signal.SIGSTOP)
    during = sent_while(stack, 5)
    stack.redis.send(signal.SIGCONT)
    flow.wait_done(stack, campaign, 10000)
    said = flow.truth(stack, campaign).check(10000)
    pause = aids.longest_pause(stack.relays)
    assert during > 500, f"only {during} sent while Redis stalled"
    assert pause < 2, f"a pause of {pause:.2f} s"
    return f"L D(0) C: {said}, {during} sent in the stall, longest pause {pause:.2f} s"


@case(dispatchers=2)
def redis_is_read_only(stack):
    """Redis refuses writes for 5 s (READONLY, as a replica after a failover)."""
    campaign = flow.submit(stack, 10000)
    flow.wait_part(stack, campaign, 1000)
    aids.redis_cli(stack, "REPLICAOF", "127.0.0.1", "1")
    during = sent_while(stack, 5)
    aids.redis_cli(stack, "REPLICAOF", "NO", "ONE")
    flow.wait_done(stack, campaign, 10000)
    said = flow.truth(stack, campaign).check(10000)
    pause = aids.longest_pause(stack.relays)
    assert during > 500, f"only {during} sent meanwhile"
    return f"L D(0) C: {said}, {during} sent meanwhile, longest pause {pause:.2f} s"


def through(stack, proxy_of):
    """Start dispatchers anew with Redis behind a proxy of their own."""
    proxy = aids.Proxy(stack.redis_port)
    for key in [k for k in stack.services if k.startswith("dispatch-")] if proxy_of is None else proxy_of:
        process = stack.services[key]
        process.stop()
        process.argv += ["--set", f"redis.url=redis://127.0.0.1:{proxy.port}"]
        process.start()
        stack.ready(process)
    return proxy


@case(dispatchers=2)
def redis_answers_after_200_ms(stack):
    """Every command of the dispatchers takes 200 ms there and 200 ms back, for the whole send."""
    proxy = through(stack, None)
    campaign = flow.submit(stack, 3000)
    proxy.delay_s = 0.1
    flow.wait_done(stack, campaign, 3000)
    proxy.delay_s = 0
    t = aids.times(stack.relays)
    said = flow.truth(stack, campaign).check(3000)
    proxy.close()
    return f"L D(0) C: {said}, {3000 / (t[-1] - t[0]):.0f}/s at 200 ms a round trip, longest pause {aids.longest_pause(stack.relays):.2f} s"


@case(dispatchers=2)
def dispatcher_cut_off_from_redis(stack):
    """One of two dispatchers loses Redis for 8 s, the other does not: both go on, nobody gets two."""
    proxy = through(stack, ["dispatch-1"])
    campaign = flow.submit(stack, 10000)
    flow.wait_part(stack, campaign, 1000)
    proxy.cut()
    during = sent_while(stack, 8)
    proxy.heal()
    flow.wait_done(stack, campaign, 10000)
    said = flow.truth(stack, campaign).check(10000)
    proxy.close()
    return f"L D(0) C: {said}, {during} sent meanwhile, longest pause {aids.longest_pause(stack.relays):.2f} s"


def different_outcomes(stack, campaign):
    """Mails of which mail.outcomes has two that differ, in whatever field."""
    found = {}
    for message in outcomes.records(stack.bootstrap, stack.prefix + "mail.outcomes"):
        o = flow.OUTCOME.Outcome.FromString(message.value())
        if o.campaign_id == campaign and o.WhichOneof("kind") == "recipient":
            found.setdefault(o.index, set()).add(message.value())
    return [i for i, values in found.items() if len(values) > 1]


@case(dispatchers=2, sns=1, backup=None, primary_entry={"max_mails_per_s": 80})  # relaysim posts one event after the other
def dispatcher_cut_off_from_redis_while_events_come(stack):
    """One of two dispatchers loses Redis for 15 s, and SES tells bounce of what it sends meanwhile: proofs are noted, mails are ended by
    their dispatcher alone."""
    proxy = through(stack, ["dispatch-1"])
    campaign = flow.submit(stack, 2500)
    flow.wait_part(stack, campaign, 300)
    proxy.cut()
    during = sent_while(stack, 15)
    events = flow.counter(stack.services["bounce-1"], "tandem_bounce_events_total")
    noted = flow.counter(stack.services["bounce-1"], "tandem_bounce_noted_total")
    proxy.heal()
    flow.wait_done(stack, campaign, 2500)
    said = flow.truth(stack, campaign).check(2500)
    two = different_outcomes(stack, campaign)
    assert not two, f"{len(two)} mails have two outcomes, such as {two[:3]}"
    assert noted > 20, f"{noted:.0f} proofs noted of {events:.0f} events, while {during} mails were sent"
    assert not any(o.reason.startswith("evidence.") for o in flow.recipient_outcomes(stack, campaign).values()), "nobody was in doubt"
    left = [aids.redis_cli(stack, "HLEN", f"td:{{c:{campaign}}}:{key}") for key in ("doubt", "evidence")]
    assert left == ["0", "0"], f"left in the ledger: {left}"
    proxy.close()
    return f"L D(0) C: {said}, {during} sent meanwhile, {noted:.0f} proofs noted, none had two outcomes"


@case(dispatchers=2)
def redis_emptied(stack):
    """FLUSHALL mid-send, then a dispatcher is killed: what the topics say, holds."""
    campaign = flow.submit(stack, 8000)
    flow.wait_part(stack, campaign, 2000)
    aids.redis_cli(stack, "FLUSHALL")
    end_by_outcomes(stack, campaign, 8000)
    said = flow.truth(stack, campaign).check(8000)
    return f"L D(0) C: {said}, longest pause {aids.longest_pause(stack.relays):.2f} s"


@case(dispatchers=2)
def redis_started_without_data(stack):
    """Redis is killed mid-send and started 3 s later with an empty folder."""
    campaign = flow.submit(stack, 8000)
    flow.wait_part(stack, campaign, 2000)
    stack.redis.kill()
    shutil.rmtree(stack.dir / "redis")
    (stack.dir / "redis").mkdir()
    time.sleep(3)
    stack.redis.start()
    end_by_outcomes(stack, campaign, 8000)
    said = flow.truth(stack, campaign).check(8000)
    return f"L D(0) C: {said}, longest pause {aids.longest_pause(stack.relays):.2f} s"


def end_by_outcomes(stack, campaign, count, seconds=90):
    """Progress counts in Redis began anew, so the topic is asked."""
    flow.wait_for(f"{count} outcomes", seconds, lambda: len([r for r in flow.truth(stack, campaign).results.values() if r]) >= count, 1)


@case(delay=5, primary=("--rate", "60"), primary_entry={"max_mails_per_s": 60}, backup=None,
      settings={"dispatch": {"lane_lease": "6s", "redis_wait": "500ms"}})
def dispatchers_join_while_redis_is_away(stack):
    """Redis is killed, then one dispatcher becomes three: lanes that change hands wait for it, nobody gets two, and as it comes back
    to one after another the rate still holds."""
    primary = stack.relays[0]
    with aids.Crowd() as crowd:
        unseen = aids.put_first([primary], crowd)
        campaign = flow.submit(stack, 2400)
        flow.wait_part(stack, campaign, 200)
        stack.redis.kill()
        time.sleep(3)
        for number in (2, 3):
            stack.service("dispatch", number).start()
            time.sleep(3)
        time.sleep(5)
        stack.redis.start()
        flow.wait_done(stack, campaign, 2400)
    said = flow.truth(stack, campaign).check(2400)
    second, over = aids.never_above(primary, 60, unseen), aids.refused(primary, 454)
    shares = [int(aids.metric(p, 'tandem_dispatch_outcomes_total{outcome="accepted"}')) for p in aids.dispatchers(stack)]
    assert over <= 60 * unseen(), f"{over} times 454"
    assert all(n > 50 for n in shares), f"accepted by dispatcher: {shares}"
    return (f"L D(0) R: {said}, worst 1 s {second}, 454: {over}, "
            f"longest pause {aids.longest_pause([primary]):.2f} s")


@case(dispatchers=2, delay=5, primary=("--rate", "300"), primary_entry={"max_mails_per_s": 300}, backup=None)
def rate_while_one_is_cut_off_from_redis(stack):
    """One of two dispatchers loses Redis for 8 s at the relay's rate: the other leaves its part of the rate free."""
    proxy, primary = through(stack, ["dispatch-1"]), stack.relays[0]
    with aids.Crowd() as crowd:
        unseen = aids.put_first([primary], crowd)
        campaign = flow.submit(stack, 6000)
        flow.wait_part(stack, campaign, 900)
        proxy.cut()
        began = time.time()
        time.sleep(8)
        proxy.heal()
        meanwhile = aids.share_after(stack.relays, primary, began, began + 8) / 8
        flow.wait_done(stack, campaign, 6000)
    said = flow.truth(stack, campaign).check(6000)
    proxy.close()
    second, over = aids.never_above(primary, 300, unseen), aids.refused(primary, 454)
    assert over <= 300 * unseen() and meanwhile > 0.7 * 300, f"{over} times 454, {meanwhile:.0f}/s meanwhile"
    return (f"L D(0) R: {said}, {meanwhile:.0f}/s of 300 meanwhile, worst 1 s {second}, 454: {over}, "
            f"longest pause {aids.longest_pause([primary]):.2f} s")
