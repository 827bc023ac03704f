"""Flow cases: TERM while Kafka is away. What cannot be written must not keep a service, nor be lost."""

import json
import os
import signal
import time
from pathlib import Path

import run as flow
from stack import Failed, wait_for

DRAIN_S = 8
SHORT = {"dispatch": {"drain": f"{DRAIN_S}s", "lane_lease": "6s"}}
AGAIN = 75  # EX_TEMPFAIL
LEFT = ("outcomes_unsent", "mails_without_outcome", "records_unsent", "offsets_uncommitted")


def left_behind(process):
    """What the service says it left, of its last run: {name: count}, or None when it left nothing."""
    run = Path(process.log).read_text(errors="replace").rpartition("stop.begin")[2]
    line = next((l for l in run.splitlines() if "stop.undone" in l), None)
    return line and {key: count for key, count in json.loads(line).items() if key in LEFT}


def terminate(stack):
    """TERM to all services at once -> {key: (seconds, exit code)}."""
    began, ended = time.monotonic(), {}
    for process in stack.services.values():
        process.send(signal.SIGTERM)
    while len(ended) < len(stack.services):
        for key, process in stack.services.items():
            if key not in ended and process.popen.poll() is not None:
                ended[key] = (time.monotonic() - began, process.popen.returncode)
        if time.monotonic() - began > 3 * DRAIN_S:
            raise Failed(f"{[k for k in stack.services if k not in ended]} did not end in {3 * DRAIN_S} s")
        time.sleep(0.02)
    return ended


def sanitizer_said(stack):
    return [key for key, process in stack.services.items()
            if any(word in Path(process.log).read_text(errors="replace") for word in ("Sanitizer", "runtime error"))]


def pending(process):
    return flow.counter(process, "tandem_kafka_producer_pending_records")


def terminated(stack, away, back):
    """Kafka goes away mid-campaign, all services get TERM, Kafka comes back, they are started again."""
    count = 20000
    campaign = flow.submit(stack, count)
    flow.wait_part(stack, campaign, 1500)
    away()
    gone = time.monotonic()
    dispatchers = [p for key, p in stack.services.items() if key.startswith("dispatch-")]
    wait_for("outcomes that cannot be written", 20, lambda: all(pending(p) > 20 for p in dispatchers))
    time.sleep(max(0.0, 2 - (time.monotonic() - gone)))
    ended = terminate(stack)
    left = {key: left_behind(process) for key, process in stack.services.items()}
    back()
    text = "; ".join(f"{key} {seconds:.1f} s, {code}, {left[key] or 'nothing left'}" for key, (seconds, code) in ended.items())
    assert not sanitizer_said(stack), f"sanitizer reports in the logs of {sanitizer_said(stack)}: {text}"
    late = [key for key, (seconds, _) in ended.items() if seconds > DRAIN_S]
    assert not late, f"drain is {DRAIN_S} s, these took longer: {late}: {text}"
    wrong = [key for key, (_, code) in ended.items() if code != (AGAIN if left[key] else 0)]
    assert not wrong, f"exit codes that do not fit what was left: {wrong}: {text}"
    for process in dispatchers:
        said = left[process.name]
        assert said and said.get("outcomes_unsent"), f"{process.name} had outcomes that were not written: {text}"
    for process in stack.services.values():
        process.start()
    flow.wait_done(stack, campaign, count)
    said = flow.truth(stack, campaign).check(count)
    audit = stack.audit(campaign)
    assert audit["lost"] == audit["duplicates"] == 0, f"{audit}"
    return f"{said}; {text}"


@flow.case(settings=SHORT, dispatchers=2, primary=("--bounce-share", "5"), primary_entry=flow.NOT_JUDGED)
def terminated_while_kafka_is_down(stack):
    """Kafka is killed mid-send, all services get TERM: each ends within dispatch.drain, says what it left and exits 75; started
    again with Kafka they lose nothing and send nothing twice."""
    return terminated(stack, lambda: stack.kafka("kill"), lambda: stack.kafka("start"))


@flow.case(settings=SHORT, dispatchers=2, primary=("--bounce-share", "5"), primary_entry=flow.NOT_JUDGED)
def terminated_while_kafka_hangs(stack):
    """The same while the broker's process is stopped (SIGSTOP): connections stay, nothing is answered."""
    pid = int((stack.kafka.__self__.dir / "kafka/pid").read_text())
    return terminated(stack, lambda: os.kill(pid, signal.SIGSTOP), lambda: os.kill(pid, signal.SIGCONT))


@flow.case(settings=SHORT)
def terminated_while_a_relay_hangs(stack):
    """A relay keeps the final replies of 20 mails for itself when dispatch gets TERM: it ends within dispatch.drain, says how many
    mails have no outcome and exits 75; its successor has exactly those in doubt."""
    process, (primary, _) = stack.services["dispatch-1"], stack.relays
    campaign = flow.submit(stack, 3000)
    flow.wait_part(stack, campaign, 500)
    primary.process.send(signal.SIGSTOP)
    flow.wait_part(stack, campaign, 1500)  # by the backup
    began = time.monotonic()
    code = process.stop()
    took, left = time.monotonic() - began, left_behind(process)
    primary.process.send(signal.SIGCONT)
    assert not sanitizer_said(stack), "a sanitizer's report is in the log"
    assert code == AGAIN and took <= DRAIN_S and left and left.keys() == {"mails_without_outcome"}, f"{took:.1f} s, {code}, {left}"
    process.start()
    flow.wait_done(stack, campaign, 3000)
    t = flow.truth(stack, campaign)
    said = t.check(3000, unconfirmed_at_most=20)
    assert t.count("UNCONFIRMED") == left["mails_without_outcome"], f"{said}, but {left}"
    return f"{said}; {took:.1f} s, {code}, {left}"
