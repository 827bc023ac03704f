"""Dispatchers that sleep, come and go, or cannot reach Kafka. (Killed, joined and drained: tests/flow.)"""

import functools
import signal
import time

import aids
from aids import flow
from stack import free_port

CASES = []
case = functools.partial(flow.case, CASES)


class SplitKafka(flow.Kafka):
    """A broker with a second listener that tells its clients to come by way of a proxy, which can be cut."""

    def __init__(self, folder):
        super().__init__(folder)
        self.stack.kafka("stop")
        inner = free_port()
        self.proxy = aids.Proxy(inner, requests=aids.kafka_requests)
        config = folder / "kafka/server.properties"
        lines = []
        for line in config.read_text().splitlines():
            if line.startswith("listeners="):
                line += f",SPLIT://127.0.0.1:{inner}"
            elif line.startswith("advertised.listeners="):
                line += f",SPLIT://127.0.0.1:{self.proxy.port}"
            elif line.startswith("listener.security.protocol.map="):
                line += ",SPLIT:PLAINTEXT"
            lines.append(line)
        config.write_text("\n".join(lines) + "\n")
        self.stack.kafka("start")
        SplitKafka.way_round = self.proxy


@case(dispatchers=2)
def zombie_dispatcher(stack):
    """SIGSTOP of one of two dispatchers for 30 s, then CONT: the other takes its lanes, the sleeper starts nothing."""
    campaign = flow.submit(stack, 30000)
    flow.wait_part(stack, campaign, 1500)
    sleeper = stack.services["dispatch-1"]
    sleeper.send(signal.SIGSTOP)
    time.sleep(30)
    sleeper.send(signal.SIGCONT)
    woke = time.time()
    flow.wait_done(stack, campaign, 30000)
    t = flow.truth(stack, campaign)
    said = t.check(30000, unconfirmed_at_most=40)
    return f"L D(0) C: {said}, longest pause {aids.longest_pause(stack.relays):.2f} s, {sum(x > woke for x in aids.times(stack.relays))} mails after it woke"


@case(dispatchers=1, delay=50)
def rebalance_storm(stack):
    """For 60 s a dispatcher joins or leaves every 5 s."""
    campaign = flow.submit(stack, 20000)
    began = time.time()
    flow.wait_part(stack, campaign, 300)
    moves = 0
    while time.time() - began < 60 and flow.done_count(stack, campaign) < 20000:
        number = 2 + moves // 2 % 2
        key = f"dispatch-{number}"
        if key in stack.services and stack.services[key].alive():
            code = stack.services[key].stop()
            assert code == 0, f"{key} ended with {code}"
        elif key in stack.services:
            stack.services[key].start()
        else:
            stack.service("dispatch", number).start()
        moves += 1
        time.sleep(5)
    flow.wait_done(stack, campaign, 20000)
    said = flow.truth(stack, campaign).check(20000)
    return f"L D(0) C: {said}, {moves} moves, longest pause {aids.longest_pause(stack.relays):.2f} s"


ONE_RATE = {"max_mails_per_s": 300, "max_connections": 60}
# So few mails wait in each lane that all lanes are served all the time: a pause is one of the lane's owner.
EVENLY = {"rendering": {"ahead": 30}}


@case(dispatchers=3, primary_entry=ONE_RATE, backup=None, settings=EVENLY)
def dispatchers_come_and_go(stack):
    """Three dispatchers at 300/s: one joins, leaves for good, is started anew, killed and started, killed for good. Session and
    lease are 6 s. The pause is that of the lane which waits longest."""
    mails = 27000
    campaign = flow.submit(stack, mails)
    flow.wait_part(stack, campaign, 1500)
    one, two = stack.services["dispatch-1"], stack.services["dispatch-2"]
    four = stack.service("dispatch", 4)

    def ends(process):
        code = process.stop()
        assert code == 0, f"{process.name} ended with {code}"

    steps = [("joins", 8, four.start), ("leaves", 8, lambda: ends(four)), ("is restarted", 8, lambda: (ends(one), one.start())),
             ("is killed and restarted", 16, lambda: (two.kill(), two.start())), ("is killed for good", 16, one.kill)]
    times = []
    for _, seconds, act in steps:
        times.append(time.time())
        act()
        time.sleep(seconds)
    times.append(time.time())
    assert flow.done_count(stack, campaign) < mails, "the campaign ended before the last of them did"
    flow.wait_done(stack, campaign, mails)
    said = flow.truth(stack, campaign).check(mails, unconfirmed_at_most=2 * 90)
    by_lane = aids.lane_times(stack, campaign)
    pauses = {name: aids.longest_lane_pause(by_lane, at, until) for (name, _, _), at, until in zip(steps, times, times[1:])}
    text = ", ".join(f"{name} {pause:.2f} s" for name, pause in pauses.items())
    late = [name for name, pause in pauses.items() if pause > (14 if "killed" in name else 1.5)]
    assert not late, f"pauses of a lane when a dispatcher {text}"
    return f"L D(0) C: {said}, longest pause of a lane when one {text}"


@case(delay=5, primary_entry=ONE_RATE, backup=None, settings={"rendering": {"ahead": 100}})
def coordinator_killed_at_renderings_commit(stack):
    """The broker, which is the groups' coordinator, is killed (-9) while rendering's offsets are on their way to it, then while its
    answer is on its way back: rendering repeats what it must, dispatch drops the repeat."""
    mails, proxy, process = 15000, SplitKafka.way_round, stack.services["rendering-1"]
    process.stop()
    process.argv += ["--set", f"kafka.brokers=127.0.0.1:{proxy.port}"]
    process.start()
    stack.ready(process)
    campaign = flow.submit(stack, mails)
    done, outages = 1000, []
    for keep in ("request", "answer"):
        flow.wait_part(stack, campaign, done)
        held = proxy.hold(lambda request: request[4:6] == (8).to_bytes(2, "big"), keep)
        assert held.wait(30), "rendering committed nothing"
        time.sleep(0.1)
        stack.kafka("kill")
        outages.append(time.time())
        time.sleep(1)
        proxy.heal()
        stack.kafka("start")
        done = flow.done_count(stack, campaign) + 1000
    flow.wait_done(stack, campaign, mails)
    said = flow.truth(stack, campaign).check(mails)
    audit = stack.audit(campaign)
    assert audit["lost"] == audit["duplicates"] == 0, f"{audit}"
    again = sum(1 for _ in aids.outbound(stack)) - mails
    t = aids.times(stack.relays)
    pauses = [max(b - a for a, b in zip(t, t[1:]) if at - 1 < b < at + 20) for at in outages]
    return f"L D(0) C: {said}, {again} mails rendered again, pauses {pauses[0]:.1f} and {pauses[1]:.1f} s"


@case(dispatchers=2, delay=5, primary_entry=ONE_RATE, backup=None)
def small_campaign_beside_a_large_one(stack):
    """40,000 recipients are under way at 300/s when a campaign of 1,000 comes: it does not wait for them."""
    large = flow.submit(stack, 40000, "--id", "large")
    flow.wait_part(stack, large, 3000)
    began = time.time()
    small = flow.submit(stack, 1000, "--id", "small")
    flow.wait_done(stack, small, 1000, 300)
    waits = sorted(at - began for times in aids.lane_times(stack, small).values() for at in times)
    beside = sum(1 for at in aids.times(stack.relays) if began + waits[0] <= at <= began + waits[-1]) - 1000
    jain = (1000 + beside) ** 2 / (2 * (1000 ** 2 + beside ** 2))
    still = flow.done_count(stack, large) < 40000
    stack.ctl("campaign", "cancel", large)
    said = flow.truth(stack, small).check(1000)
    p99 = waits[989]
    assert still and p99 < 20, f"p99 {p99:.1f} s of the small campaign's wait, {1000 / 150:.1f} s at half the rate"
    return (f"L D(0): {said}, submitted until taken: median {waits[499]:.1f} s, p99 {p99:.1f} s, last {waits[-1]:.1f} s "
            f"({1000 / 150:.1f} s at half the rate), meanwhile {beside} of the large one: Jain's index {jain:.2f}")


@case(dispatchers=2)
def dispatcher_cut_off_from_kafka(stack):
    """One of two dispatchers loses Kafka for 12 s, longer than its session: the other takes its lanes, nobody gets two."""
    proxy, process = SplitKafka.way_round, stack.services["dispatch-1"]
    process.stop()
    process.argv += ["--set", f"kafka.brokers=127.0.0.1:{proxy.port}"]
    process.start()
    stack.ready(process)
    campaign = flow.submit(stack, 32000)
    flow.wait_part(stack, campaign, 2000)
    proxy.cut()
    time.sleep(12)
    proxy.heal()
    flow.wait_done(stack, campaign, 32000)
    t = flow.truth(stack, campaign)
    said = t.check(32000, unconfirmed_at_most=40)
    return f"L D(0) C: {said}, longest pause {aids.longest_pause(stack.relays):.2f} s"
