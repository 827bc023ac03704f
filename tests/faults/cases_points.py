"""Row 3 of the matrix: kill -9 of a dispatcher at each point of a mail's way. Its relay, its Redis or its Kafka is held at that
very moment; what the ledger had then decides what the next owner must say."""

import functools
import time

import aids
from aids import flow, wait_for
from cases_group import SplitKafka

CASES = []
case = functools.partial(flow.case, CASES)

MAILS, CONNECTIONS = 60, 10
# README of dispatch: connections, half as many again, at least 8, and those whose end is on its way to the ledger.
BOUND = CONNECTIONS + max(8, CONNECTIONS // 2) + CONNECTIONS
ENTRY = {"max_connections": CONNECTIONS, "pipelining": False}
LARGE = b"Nu \xc3\xa4r det v\xc3\xa5r.\n" * 250000  # more than the sockets' buffers hold: its dot cannot be out

# Kafka's numbers of requests.
PRODUCE, OFFSET_COMMIT = (0).to_bytes(2, "big"), (8).to_bytes(2, "big")


def ledger(*keys):
    """A call of the script whose keys, after td:{c:X}:, are these."""
    return lambda request: all(f":{k}\r\n".encode() in request for k in keys) and b"EVAL" in request


def kafka(kind):
    return lambda request: request[4:6] == kind


BEGIN, END = ledger("tried", "done", "pending"), ledger("done", "totals", "pending")

# Name, what is held, how. In this order a mail passes them.
POINTS = (
    ("before begin", "redis", BEGIN, "request"),
    ("begun, answer not heard", "redis", BEGIN, "answer"),
    ("begun, before MAIL", "relay", {"at": "banner", "do": "hang"}, None),
    ("in the body", "relay", {"at": "body", "do": "hang"}, "large"),
    ("after the dot, not taken", "relay", {"at": "final", "do": "hang"}, None),
    ("after the dot, taken", "relay", {"at": "final", "do": "hang", "taken": True}, None),
    ("replied, before end", "redis", END, "request"),
    ("ended, answer not heard", "redis", END, "answer"),
    ("ended, before its outcome", "kafka", kafka(PRODUCE), "request"),
    ("outcome written, not heard", "kafka", kafka(PRODUCE), "answer"),
    ("outcome heard, before the offset", "kafka", kafka(OFFSET_COMMIT), "request"),
)

DOUBT = """
local doubt, done = {}, 0
for i = 0, ARGV[1] - 1 do
  local t, d = redis.call('GETBIT', KEYS[1], i), redis.call('GETBIT', KEYS[2], i)
  if t == 1 and d == 0 then doubt[#doubt + 1] = i end
  done = done + d
end
return table.concat(doubt, ' ') .. ';' .. done
"""


def in_doubt(stack, campaign):
    """(numbers that are begun and have no end, how many have one), as the ledger has them."""
    doubt, _, done = aids.redis_cli(stack, "EVAL", DOUBT, 2, *(f"td:{{c:{campaign}}}:{k}" for k in ("tried", "done")), MAILS).partition(";")
    return {int(i) for i in doubt.split()}, int(done)


def hold(stack, proxies, what, how, keep):
    """-> a function that waits until it is held."""
    if what == "relay":
        stack.relays[0].ask("POST", "/fault", how)

        def met():
            return sum(f["hits"] for f in stack.relays[0].ask("GET", "/fault"))

        def wait():
            wait_for("the relay's fault", 20, met)
            time.sleep(0.3)  # until all connections stand there
        return wait
    held = proxies[what].hold(how, keep)

    def wait():
        assert held.wait(20), "the request did not come"
        # "answer": the server shall have it. Offsets alone are held while mails go on to their end.
        time.sleep(2 if how is POINTS[-1][2] else 0.1 if keep == "answer" else 0)
    return wait


def stop_at(stack, number, policy, name, what, how, keep):
    """-> (how many were in doubt, of those taken, second copies)"""
    victim, proxies = stack.services["dispatch-1"], {"redis": aids.Proxy(stack.redis_port, requests=aids.redis_requests),
                                                    "kafka": SplitKafka.way_round}
    plain = list(victim.argv)
    assert victim.stop() == 0
    victim.argv += ["--set", f"redis.url=redis://127.0.0.1:{proxies['redis'].port}"]
    victim.argv += ["--set", f"kafka.brokers=127.0.0.1:{proxies['kafka'].port}"] if what == "kafka" else []
    victim.start()
    stack.ready(victim)
    large = stack.dir / "programme.txt"
    large.write_bytes(LARGE)
    wait = hold(stack, proxies, what, how, keep)
    campaign = flow.submit(stack, MAILS, "--id", f"point{number}", "--on-unconfirmed", policy,
                           *(["--attach", large] if keep == "large" else []))
    wait()
    victim.kill()
    doubt, done = in_doubt(stack, campaign)
    time.sleep(0.3)  # the relay takes what lies whole in its sockets
    taken = {i for i, by in flow.truth(stack, campaign).taken.items() if by}
    stack.relays[0].ask("DELETE", "/fault")
    proxies["kafka"].heal()
    proxies["redis"].close()
    victim.argv = plain
    aids.as_new(stack, stack.relays[0])
    victim.start()
    flow.wait_done(stack, campaign, MAILS, 60)
    t = flow.truth(stack, campaign)
    t.check(MAILS, unconfirmed_at_most=MAILS, copies_at_most=MAILS)
    told = {i for i in range(MAILS) if t.results[i][0][0] == "UNCONFIRMED"}
    copies = {i for i in range(MAILS) if len(t.taken[i]) > 1}
    said = f"{name}: {len(doubt)} in doubt, {len(doubt & taken)} of them taken, {done} ended; then {len(told)} unconfirmed, {len(copies)} copies"
    assert len(doubt) <= BOUND, said
    assert told == (doubt if policy == "hold" else set()), said
    assert copies == (set() if policy == "hold" else doubt & taken), said
    return said


def stop_points(stack, policy):
    said = [stop_at(stack, number, policy, *point) for number, point in enumerate(POINTS)]
    for line in said:
        print(f"    {line}", flush=True)
    return f"L C, {'D(0)' if policy == 'hold' else 'D(what was taken and in doubt)'}: killed at {len(said)} points of {MAILS} mails each"


@case(backup=None, primary_entry=ENTRY, settings={"dispatch": {"lane_lease": "2s"}})
def stop_points_hold(stack):
    """on_unconfirmed = hold: UNCONFIRMED are exactly those begun without an end, and nobody gets a second copy."""
    return stop_points(stack, "hold")


@case(backup=None, primary_entry=ENTRY, settings={"dispatch": {"lane_lease": "2s"}})
def stop_points_resend(stack):
    """on_unconfirmed = resend: nobody is unconfirmed; a second copy gets exactly who is in doubt and was taken."""
    return stop_points(stack, "resend")
