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
        self.proxy = aids.Proxy(inner)
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


@case(dispatchers=2)
def dispatcher_cut_off_from_kafka(stack):
    """One of two dispatchers loses Kafka for 12 s, longer than its session: the other takes its lanes, nobody gets two."""
    proxy, process = SplitKafka.way_round, stack.services["dispatch-1"]
    process.stop()
    process.argv += ["--set", f"kafka.brokers=127.0.0.1:{proxy.port}"]
    process.start()
    stack.ready(process)
    campaign = flow.submit(stack, 16000)
    flow.wait_part(stack, campaign, 2000)
    proxy.cut()
    time.sleep(12)
    proxy.heal()
    flow.wait_done(stack, campaign, 16000)
    t = flow.truth(stack, campaign)
    said = t.check(16000, unconfirmed_at_most=40)
    return f"L D(0) C: {said}, longest pause {aids.longest_pause(stack.relays):.2f} s"
