"""What the fault cases share: a TCP proxy that can cut and delay, a relay's health made new, figures from ledgers."""

import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("deploy/rehearsal", "tests/flow"):
    sys.path.insert(0, str(ROOT / folder))

import run as flow  # noqa: E402
from stack import Failed, answers, wait_for  # noqa: E402,F401

class Proxy:
    """Forwards connections of one port. cut(): new and old ones hang, as behind a firewall that drops; heal(): old ones are
    reset and new ones go through. delay_s holds up each piece in both directions. hold(): one request is met in the middle;
    requests tells what one is: redis_requests or kafka_requests."""

    def __init__(self, target_port, port=0, requests=None):
        self.target, self.delay_s, self.is_cut = target_port, 0.0, False
        self.requests, self.gate = requests, None
        self.server = socket.create_server(("127.0.0.1", port))
        self.port = self.server.getsockname()[1]
        self.links, self.lock, self.over = [], threading.Lock(), False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.over:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            with self.lock:
                self.links.append([client])
                link = self.links[-1]
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link):
        client = link[0]
        while self.is_cut and not self.over:  # the handshake of TCP is done by the kernel; nothing more comes
            time.sleep(0.02)
        try:
            server = socket.create_connection(("127.0.0.1", self.target), 5)
            link.append(server)
            for s in link:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pump(client, server)
        except (OSError, ValueError):
            pass
        finally:
            for s in link:
                s.close()
            with self.lock:
                if link in self.links:
                    self.links.remove(link)

    def _pump(self, client, server):
        queue = []  # (due, socket, bytes): delay without a limit of throughput
        mute, rest = set(), bytearray()
        while not self.over:
            if self.is_cut:
                time.sleep(0.02)
                continue
            wait = 0.1 if not queue else max(0, queue[0][0] - time.monotonic())
            readable, _, _ = select.select([s for s in (client, server) if s not in mute], [], [], min(wait, 0.1))
            for s in readable:
                data = s.recv(65536)
                if not data:
                    return
                if s in mute:
                    continue
                if s is client and self.requests:
                    rest += data
                    data = self._until_held(rest, mute, client, server)
                queue.append((time.monotonic() + self.delay_s, server if s is client else client, data))
            while queue and queue[0][0] <= time.monotonic() and not self.is_cut:
                _, to, data = queue.pop(0)
                to.sendall(data)

    def _until_held(self, rest, mute, client, server):
        """-> what of these octets the server may have. A request that is not whole yet waits in rest."""
        out = b""
        for request in self.requests(rest):
            with self.lock:
                gate = self.gate if self.gate and self.gate[0](request) else None
                if gate:
                    self.gate = None
            if gate:
                _, keep, held = gate
                mute.add(client if keep == "request" else server)
                if keep == "answer":
                    out += request
                held.set()
                return out
            out += request
        return out

    def hold(self, met, keep):
        """The first request that met() knows is held with all that follows it on its connection: keep = "request" keeps it from
        the server; "answer": the server has it, and the client hears nothing more. -> an event, set at that moment."""
        held = threading.Event()
        with self.lock:
            self.gate = (met, keep, held)
        return held

    def cut(self):
        self.is_cut = True

    def heal(self):
        with self.lock:
            for link in self.links:
                for s in link:
                    try:
                        s.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
        self.is_cut = False

    def close(self):
        self.over = True
        self.server.close()
        self.heal()


def kafka_requests(octets):
    """Take the whole requests off the front: 4 octets of length, then two that say which it is."""
    while len(octets) >= 4 and len(octets) >= 4 + int.from_bytes(octets[:4], "big"):
        end = 4 + int.from_bytes(octets[:4], "big")
        request = bytes(octets[:end])
        del octets[:end]
        yield request


def redis_requests(octets):
    """Take the whole commands off the front: *N, then N times $length and its octets."""
    while True:
        at = octets.find(b"\r\n")
        if at < 0:
            return
        count, at = int(octets[1:at]), at + 2
        for _ in range(count):
            end = octets.find(b"\r\n", at)
            if end < 0:
                return
            at = end + 2 + int(octets[at + 1:end]) + 2
            if at > len(octets):
                return
        request = bytes(octets[:at])
        del octets[:at]
        yield request


class NameServer:
    """A name server (RFC 1035) on an address of 127/8, for one name with one address. well = False: it says NXDOMAIN, SERVFAIL
    or nothing, in turn."""

    def __init__(self, name):
        self.question = b"".join(bytes([len(p)]) + p for p in name.encode().split(b".")) + b"\0"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.address = f"127.{os.getpid() % 250 + 1}.{time.time_ns() % 250 + 1}.53"
        self.socket.bind((self.address, 53))
        self.well, self.asked, self.failed = True, 0, 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                query, client = self.socket.recvfrom(512)
            except OSError:
                return
            end = 12 + len(self.question)
            known, kind = query[12:end].lower() == self.question, query[end:end + 2]
            rcode, answers = 0 if known else 3, b""
            self.asked += known
            if known and not self.well:
                self.failed += 1
                rcode = (3, 2, None)[self.failed % 3]
            elif known and kind == b"\0\1":
                answers = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1"
            if rcode is not None:
                count = b"\0\1" if answers else b"\0\0"
                self.socket.sendto(query[:2] + bytes([0x84, 0x80 | rcode]) + b"\0\1" + count + b"\0\0\0\0" + query[12:end + 4] + answers, client)

    def close(self):
        self.socket.close()


class Crowd:
    """While a with block runs: the longest that this process waited for a processor, beside sleeps of 2 ms. worst_s."""

    worst_s = 0.0

    def __enter__(self):
        self.over = False
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self):
        while not self.over:
            began = time.monotonic()
            time.sleep(0.002)
            self.worst_s = max(self.worst_s, time.monotonic() - began - 0.002)

    def __exit__(self, *_):
        self.over = True
        self.thread.join()


def put_first(relays, crowd):
    """A relay counts by its own clock: where it waits for a processor, mails that came evenly look like a heap. So while it counts
    it goes before everybody else, if this user may say so. -> a function: how much too much a second it may have seen all the same,
    as a part of its rate."""
    try:
        for relay in relays:
            os.sched_setscheduler(relay.process.popen.pid, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return lambda: crowd.worst_s
    return lambda: 0


def never_above(relay, rate, unseen):
    """-> the worst second. unseen: of put_first."""
    second = worst_window(relay)
    assert second <= rate * (1 + unseen()), f"{relay.name}: {second} mails of {rate} in one second"
    return second


def redis_cli(stack, *args):
    return subprocess.run(["redis-cli", "-p", str(stack.redis_port), *map(str, args)], check=True, capture_output=True,
                          text=True, timeout=10).stdout.strip()


HEAL = """
local ep = tonumber(redis.call('HGET', KEYS[1], 'ep') or 0) + 1
local from = redis.call('HGET', KEYS[1], 'st') or 'closed'
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'st', 'closed', 'ep', ep, 'reason', 'well.test', 'evidence', '', 'factor', '1')
redis.call('PUBLISH', 'td:relays', 'relay=' .. ARGV[1] .. ' from=' .. from .. ' to=closed epoch=' .. ep .. ' reason=well.test evidence=""')
"""


def as_new(stack, relay, seconds=10):
    """The relay is as if it had been well for ever: between rows of a table, which shall not see each other."""
    name = relay.name
    redis_cli(stack, "EVAL", HEAL, 2, f"td:{{r:{name}}}:state", f"td:{{r:{name}}}:window", name)
    wait_for(f"{name} trusted by all", seconds, lambda: all(
        metric(p, f'tandem_dispatch_relay_state{{relay="{name}"}}') == 0 for p in dispatchers(stack)), 0.02)


def dispatchers(stack):
    return [p for key, p in stack.services.items() if key.startswith("dispatch-") and p.alive()]


def metric(process, name):
    """One value of a process's /metrics; 0 when it has none."""
    import http.client

    link = http.client.HTTPConnection("127.0.0.1", process.http_port, timeout=5)
    link.request("GET", "/metrics")
    text = link.getresponse().read().decode()
    link.close()
    return next((float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + " ")), 0.0)


def state(stack, relay):
    return redis_cli(stack, "HGET", f"td:{{r:{relay.name}}}:state", "st")


def times(relays):
    """When mails were taken, of these relays, oldest first."""
    return sorted(t for relay in relays for t, _, _ in relay.taken())


def longest_pause(relays, until=None):
    t = times(relays)
    t = [x for x in t if until is None or x <= until]
    return max((b - a for a, b in zip(t, t[1:])), default=0.0)


def worst_window(relay, seconds=1.0):
    """Most mails taken within any window of so many seconds."""
    t, worst, first = times([relay]), 0, 0
    for last, x in enumerate(t):
        while x - t[first] >= seconds:
            first += 1
        worst = max(worst, last - first + 1)
    return worst


def refused(relay, code):
    return relay.ask("GET", "/status")["refused"].get(str(code), 0)


def share_after(relays, which, since, until):
    """Mails that each of the relays took between two times, as {name: n}."""
    return {r.name: sum(1 for t, _, _ in r.taken() if since <= t < until) for r in relays}[which.name]


def changes(truth, relay, to=None):
    """The relay's changes on mail.outcomes, each once."""
    seen, found = set(), []
    for c in truth.relay_changes:
        if c.relay == relay.name and not c.campaign_id and (c.epoch, c.to_state) not in seen and to in (None, c.to_state):
            seen.add((c.epoch, c.to_state))
            found.append(c)
    return found


def outbound(stack):
    """(campaign, index, lane) of every mail that was handed to dispatch, repeats too."""
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    reader = Consumer({"bootstrap.servers": stack.bootstrap, "group.id": "test-lanes", "enable.auto.commit": False,
                       "enable.partition.eof": True})
    topic = stack.prefix + "mail.outbound"
    parts = [TopicPartition(topic, p, 0) for p in reader.list_topics(topic, timeout=10).topics[topic].partitions]
    reader.assign(parts)
    left = len(parts)
    while left:
        message = reader.poll(10)
        assert message is not None, f"{topic} was not read to its end"
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            left -= 1
            continue
        owner, _, index = message.key().decode().rpartition("/")
        yield owner, int(index), message.partition()
    reader.close()


def lane_times(stack, campaign):
    """lane -> when the relays took its mails, oldest first."""
    lane_of, found = {index: lane for owner, index, lane in outbound(stack) if owner == campaign}, {}
    for relay in stack.relays:
        for at, message_id, _ in relay.taken():
            owner, _, index = message_id.partition("@")[0].rpartition(".")
            if owner == campaign:
                found.setdefault(lane_of[int(index)], []).append(at)
    return {lane: sorted(t) for lane, t in found.items()}


def longest_lane_pause(lane_times, since, until):
    """The longest that any lane got no mail out, of the pauses that end within these times."""
    return max(b - a for t in lane_times.values() for a, b in zip(t, t[1:]) if since < b <= until)


class Tail:
    """A relay's ledger, read on as it grows: [(unix seconds, Message-ID, what was answered)]."""

    def __init__(self, relay):
        self.relay, self.offset, self.rest, self.rows = relay, 0, b"", []

    def read(self):
        """-> the rows that are new."""
        new = []
        with open(self.relay.ledger, "rb") as f:
            f.seek(self.offset)
            data = f.read()
        self.offset += len(data)
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if line and not line.startswith(b"#"):
                at, _, _, message_id, _, _, answered = line.decode().split("\t")
                new.append((int(at) / 1e6, message_id, answered))
        self.rows += new
        return new

    def first_after(self, since, seconds):
        """When it took its first mail after `since`; None when it took none for so many seconds."""
        end = time.time() + seconds
        while time.time() < end:
            found = [at for at, _, _ in self.read() if at > since]
            if found:
                return min(found)
            time.sleep(0.01)
        return None
