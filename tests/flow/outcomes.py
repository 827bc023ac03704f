"""mail.outcomes and the relays' ledgers, read without any of Tandem's own code, and compared."""

import importlib
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ("", "ACCEPTED", "REFUSED", "INVALID", "SUPPRESSED", "EXPIRED", "CANCELLED", "UNCONFIRMED")


def protos(folder):
    """Generate Python modules from proto/ into folder and import them: (submission, outcome)."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [str(p) for p in (ROOT / "proto").glob("tandem/*/v1/*.proto")]
    subprocess.run(["protoc", "-I", str(ROOT / "proto"), f"--python_out={folder}", *files], check=True)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return (importlib.import_module("tandem.mail.v1.submission_pb2"), importlib.import_module("tandem.mail.v1.outcome_pb2"))


def records(bootstrap, topic):
    """Every record that is on the topic now."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test-reader", "enable.auto.commit": False,
                         "auto.offset.reset": "earliest"})
    meta = consumer.list_topics(topic, timeout=10).topics[topic]
    parts, ends = [], {}
    for p in meta.partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)
        if high > low:
            parts.append(TopicPartition(topic, p, low))
            ends[p] = high
    consumer.assign(parts)
    while ends:
        message = consumer.poll(10)
        if message is None:
            raise AssertionError(f"{topic}: {len(ends)} partitions were not read to their end")
        if message.error():
            continue
        if message.partition() not in ends:
            continue  # written since
        yield message
        if message.offset() + 1 >= ends[message.partition()]:
            del ends[message.partition()]
    consumer.close()


class Truth:
    """What became of each number of one campaign."""

    def __init__(self, stack, outcome_pb2, campaign, prefix=""):
        self.results = defaultdict(list)  # index -> [(result, relay)]
        self.attempts = {}  # index -> how often it was handed to a relay
        self.bounces = defaultdict(list)
        self.complaints = defaultdict(list)
        self.relay_changes = []
        for message in records(stack.bootstrap, prefix + "mail.outcomes"):
            o = outcome_pb2.Outcome.FromString(message.value())
            kind = o.WhichOneof("kind")
            if kind == "relay":
                self.relay_changes.append(o.relay)
            elif o.campaign_id != campaign:
                continue
            elif kind == "recipient":
                self.attempts[o.index] = o.recipient.attempts
                pair = (RESULTS[o.recipient.result], o.recipient.relay)
                if pair not in self.results[o.index]:  # the same record may be seen twice
                    self.results[o.index].append(pair)
            elif kind == "bounce":
                self.bounces[o.index].append(o.bounce)
            elif kind == "complaint":
                self.complaints[o.index].append(o.complaint)
        self.taken = defaultdict(list)  # index -> [(relay, answered)]
        for relay in stack.relays:
            for _, message_id, answered in relay.taken():
                name, _, _ = message_id.partition("@")
                owner, _, index = name.rpartition(".")
                if owner == campaign:
                    self.taken[int(index)].append((relay.name, answered))

    def count(self, result):
        return sum(1 for r in self.results.values() if r[0][0] == result)

    def check(self, count, unconfirmed_at_most=0, copies_at_most=0):
        """Every number one outcome; ACCEPTED if and only if that relay took it; no second copy."""
        missing = [i for i in range(count) if not self.results[i]]
        assert not missing, f"{len(missing)} recipients have no outcome, such as {missing[:5]}"
        extra = [i for i in self.results if i >= count and self.results[i]]
        assert not extra, f"outcomes for numbers that were never submitted: {extra[:5]}"
        two = [i for i in range(count) if len(self.results[i]) > 1]
        assert not two, f"{len(two)} recipients have two outcomes, such as {two[0]}: {self.results[two[0]]}"
        copies = [i for i in range(count) if len(self.taken[i]) > 1]
        assert len(copies) <= copies_at_most, f"{len(copies)} recipients were sent twice, such as {copies[0]}: {self.taken[copies[0]]}"
        for i in range(count):
            result, relay = self.results[i][0]
            if result == "ACCEPTED":
                assert any(r == relay for r, _ in self.taken[i]), f"{i} is ACCEPTED by {relay}, whose ledger does not have it"
            elif result != "UNCONFIRMED":
                assert not self.taken[i], f"{i} is {result}, but {self.taken[i][0][0]} took it"
        unconfirmed = self.count("UNCONFIRMED")
        assert unconfirmed <= unconfirmed_at_most, f"{unconfirmed} unconfirmed, {unconfirmed_at_most} allowed"
        return f"{self.count('ACCEPTED')} accepted, {unconfirmed} unconfirmed, {len(copies)} copies"
