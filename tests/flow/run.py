"""Flow tests: campaigns across failures, against real Apache Kafka and redis-server.

usage: run.py BUILD_DIR [case...]
Each case ends with the relays' own ledgers compared with mail.outcomes (outcomes.py). Cases that judge times run first, one by one; the
others, which wait more than they compute, two at a time, each of the two with a broker of its own.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy/rehearsal"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from stack import Stack, free_port, wait_for  # noqa: E402
import outcomes  # noqa: E402
import turns  # noqa: E402

CASES = []


def case(into=CASES, alone=False, **options):
    """Register a case; its docstring says what it shows. alone: it judges times, so no other runs beside it; options: those of
    make_stack."""
    def register(function):
        function.alone = alone
        into.append((function.__name__, function, options))
        return function
    return register


class Skipped(Exception):
    """A case cannot run on this machine; the text says why."""


class Kafka:
    """One real broker for many cases; each case has its own topics by prefix."""

    def __init__(self, folder):
        self.stack = Stack(folder, BUILD, "kafka")
        self.stack.start_broker()


def make_stack(folder, kafka, prefix, dispatchers=1, delay=20, primary=(), backup=(), settings=None, primary_entry=None,
               backup_entry=None, sns=None):
    """The system on one Kafka for all cases. primary, backup: options of relaysim; ..._entry: the relay's settings;
    backup = None: one relay only; sns: the primary tells by SNS, with this version of signatures."""
    all_settings = {"kafka": {"topic_prefix": prefix, "lanes": 6, "session_timeout": "6s"}, "dispatch": {"lane_lease": "6s"}}
    for group, entries in (settings or {}).items():
        all_settings.setdefault(group, {}).update(entries)
    stack = Stack(folder, BUILD, "dev", dispatchers=dispatchers, settings=all_settings)
    if sns:
        at, answers_at = free_port(), free_port()
        primary = [*primary, "--sns", f"http://127.0.0.1:{at}/sns", "--sns-listen", f"127.0.0.1:{answers_at}", "--sns-version", sns]
        primary_entry = {"ses_configuration_set": "tandem", **(primary_entry or {})}
        stack.extra["bounce"] = {"sns_listen": f"127.0.0.1:{at}", "sns_topics": ["arn:aws:sns:eu-west-1:123456789012:relaysim"],
                                 "sns_host": f"127.0.0.1:{answers_at}", "sns_ca_file": str(stack.dir / "tls/ca.pem")}
    stack.prefix = prefix
    stack.kafka = kafka.stack.kafka
    stack.start_broker = lambda: (setattr(stack, "bootstrap", kafka.stack.bootstrap),
                                  setattr(stack, "after_settings", True))
    stack.add_relay("ses-eu", "SE", ["--profile", "ses", "--delay", str(delay), *primary], **(primary_entry or {}))
    if backup is not None:
        stack.add_relay("backup", "DE", ["--delay", str(delay), *backup], **{"tls": "starttls", **(backup_entry or {})})
    original = stack.write_settings

    def write_then_topics():
        original()
        stack.ctl("topics", "apply")
    stack.write_settings = write_then_topics
    return stack


def recipients(stack, count, domain="example.com"):
    path = stack.dir / "recipients.csv"
    with open(path, "w", encoding="utf-8") as f:
        f.write("email,name,first_name\n")
        for i in range(count):
            f.write(f"reader{i}@{domain},Åsa {i},Åsa\n")
    return path


def submit(stack, count, *options, html="<p>Hej {{first_name}}, nu är det vår.</p>", domain="example.com"):
    page = stack.dir / "page.html"
    page.write_text(html, encoding="utf-8")
    done = stack.ctl("campaign", "submit", "--recipients", recipients(stack, count, domain), "--from", "Tandem <news@news.example.com>",
                     "--subject", "Vårbrev till {{first_name}} 🌷", "--html", page, *options, timeout=300)
    return done.stdout.strip().splitlines()[-1]


def done_count(stack, campaign):
    s = stack.status(campaign)
    return sum(s.get(k, 0) for k in ("accepted", "refused", "invalid", "suppressed", "expired", "cancelled", "unconfirmed"))


def wait_done(stack, campaign, count, seconds=240):
    wait_for(f"the end of {campaign}", seconds, lambda: done_count(stack, campaign) >= count, 0.2)
    # The ledger comes first, the topic a moment after it.
    wait_for(f"outcomes of {campaign}", 10, lambda: sum(map(bool, truth(stack, campaign).results.values())) >= count, 0.2)


def wait_part(stack, campaign, part, seconds=120):
    wait_for(f"{part} mails", seconds, lambda: done_count(stack, campaign) >= part, 0.05)


def truth(stack, campaign):
    return outcomes.Truth(stack, OUTCOME, campaign, stack.prefix)


def recipient_outcomes(stack, campaign, whole=False):
    """index -> its recipient outcome, or the whole record."""
    found = {}
    for message in outcomes.records(stack.bootstrap, stack.prefix + "mail.outcomes"):
        o = OUTCOME.Outcome.FromString(message.value())
        if o.campaign_id == campaign and o.WhichOneof("kind") == "recipient":
            found[o.index] = o if whole else o.recipient
    return found


@case(alone=True)
def primary_killed_midway_and_back(stack):
    """10,000 recipients; the primary's process is killed and started again; mail goes by the backup meanwhile."""
    primary, backup = stack.relays
    campaign = submit(stack, 10000)
    wait_part(stack, campaign, 2500)
    primary.process.kill()
    killed = time.time()
    wait_for("the backup's first mail", 30, lambda: any(t > killed for t, _, _ in backup.taken()), 0.05)
    first = min(t for t, _, _ in backup.taken() if t > killed)
    time.sleep(2)
    primary.start()
    back = time.time()
    wait_done(stack, campaign, 10000)
    t = truth(stack, campaign)
    said = t.check(10000, unconfirmed_at_most=20)
    assert first - killed < 1.0, f"the switch took {first - killed:.2f} s"
    assert any(c.to_state == "open" and c.relay == "ses-eu" for c in t.relay_changes), "no relay event on mail.outcomes"
    assert any(x > back for x, _, _ in primary.taken()), "nothing went by the primary after its return"
    audit = stack.audit(campaign)
    assert audit["lost"] == audit["duplicates"] == 0 and audit["accepted"] == t.count("ACCEPTED"), f"tandemctl audit differs: {audit}"
    return f"{said}, switched in {(first - killed) * 1000:.0f} ms"


def settle_the_unconfirmed(stack, campaign):
    """What the relays' ledgers prove is noted by tandemctl; the outcomes stay as they are."""
    def listed():
        return [json.loads(line) for line in stack.ctl("--json", "unconfirmed", "list", campaign).stdout.splitlines()]
    t = truth(stack, campaign)
    open_ones = {i for i, r in t.results.items() if r and r[0][0] == "UNCONFIRMED"}
    assert {u["index"] for u in listed()} == open_ones and all(u["evidence"] == "none" for u in listed()), f"{listed()}"
    wrong = next(i for i in range(3000) if i not in open_ones)
    refused = stack.ctl("unconfirmed", "settle", campaign, wrong, "accepted", check=False)
    assert refused.returncode == 1 and "nothing was settled" in refused.stderr, refused.stderr
    for word, part in (("accepted", [i for i in open_ones if t.taken[i]]), ("refused", [i for i in open_ones if not t.taken[i]])):
        if part:
            stack.ctl("unconfirmed", "settle", campaign, *part, word)
            assert all(u["evidence"] == f"{word}, says an operator" for u in listed() if u["index"] in part), f"{listed()}"
    truth(stack, campaign).check(3000, unconfirmed_at_most=40)
    return f"{sum(1 for i in open_ones if t.taken[i])} of {len(open_ones)} settled as accepted"


def dispatcher_killed(stack, policy):
    campaign = submit(stack, 3000, "--on-unconfirmed", policy)
    wait_part(stack, campaign, 700)
    victim = stack.services["dispatch-1"]
    victim.kill()
    victim.start()
    wait_done(stack, campaign, 3000)
    # At most what was in flight (20 connections, one mail each) and what had begun (half as many).
    if policy == "hold":
        said = truth(stack, campaign).check(3000, unconfirmed_at_most=40, copies_at_most=0)
        return f"{said}; {settle_the_unconfirmed(stack, campaign)}"
    return truth(stack, campaign).check(3000, unconfirmed_at_most=0, copies_at_most=40)


@case()
def dispatcher_killed_hold(stack):
    """SIGKILL mid-send, on_unconfirmed = hold: nobody gets a second copy."""
    return dispatcher_killed(stack, "hold")


@case()
def dispatcher_killed_resend(stack):
    """SIGKILL mid-send, on_unconfirmed = resend: everybody gets it; at most what was in flight twice."""
    return dispatcher_killed(stack, "resend")


@case(dispatchers=2)
def dispatchers_join_and_leave(stack):
    """Two, then three, then one dispatcher during a send: no loss, no repeat, nothing unconfirmed."""
    campaign = submit(stack, 8000)
    wait_part(stack, campaign, 1000)
    third = stack.service("dispatch", 3).start()
    stack.ready(third)
    wait_part(stack, campaign, 3000)
    codes = [stack.services[n].stop() for n in ("dispatch-1", "dispatch-2")]
    wait_done(stack, campaign, 8000)
    assert codes == [0, 0], f"dispatchers ended with {codes}"
    return truth(stack, campaign).check(8000)


@case(alone=True, dispatchers=2, delay=1)
def campaign_cap_holds_over_dispatchers(stack):
    """--rate 400 with two dispatchers: no more than 400 mails a second, and no less than nine tenths of it."""
    campaign = submit(stack, 4000, "--rate", "400")
    wait_done(stack, campaign, 4000)
    said = truth(stack, campaign).check(4000)
    times = sorted(t for r in stack.relays for t, _, _ in r.taken())
    worst = max(sum(1 for t in times[i:i + 3000] if t < start + 3) for i, start in enumerate(times))
    seconds = times[-1] - times[0]
    # The cap is on mails that are begun. When relay or machine stall for a moment, what is in flight (20 connections a process
    # and relay) and in reserve is written down together: so many may come on top, in three seconds as in one.
    assert worst <= 3 * 400 + 60, f"{worst} mails within three seconds"
    assert seconds < 10 / 0.9, f"4,000 mails took {seconds:.1f} s"
    return f"{said}, at most {worst} in three seconds, {3999 / seconds:.0f}/s"


def taken_of(stack, campaign):
    """When the relays took each mail of that campaign."""
    return sorted(t for r in stack.relays for t, message_id, _ in r.taken() if message_id.startswith(campaign + "."))


def time_until_taken(stack, count, *options):
    """Submit that many; their campaign and the seconds until the last one is taken."""
    start = time.time()
    campaign = submit(stack, count, *options)
    wait_for(f"{count} mails of {campaign}", 120, lambda: len(taken_of(stack, campaign)) >= count, 0.1)
    return campaign, taken_of(stack, campaign)[-1] - start


def counter(process, name):
    """A metric of a service, summed over its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{process.http_port}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return sum(float(l.split()[-1]) for l in lines if l.startswith(name) and l[len(name)] in " {")


@case(alone=True, dispatchers=2, backup=None, primary_entry={"max_mails_per_s": 250}, settings={"kafka": {"lanes": 2}})
def small_campaign_beside_a_large_one(stack):
    """Two lanes full of a large campaign at the relay's rate: a small one ends long before it, an express mail goes at once, and
    a rendering process killed then does not render again what is done."""
    small, ideal = time_until_taken(stack, 500, "--id", "alone")
    large = submit(stack, 6000, "--id", "large")
    wait_for("the large campaign's first mails", 60, lambda: len(taken_of(stack, large)) >= 500, 0.1)
    beside, took = time_until_taken(stack, 500, "--id", "beside")
    express, at_once = time_until_taken(stack, 1, "--express", "--id", "express")
    left = 6000 - len(taken_of(stack, large))
    assert took < 3 * ideal, f"500 recipients took {took:.1f} s beside the large campaign, {ideal:.1f} s alone"
    assert at_once < 4, f"an express mail took {at_once:.1f} s"
    assert left > 1500, f"only {left} of the large one were left when the small ones had ended: nothing was tested"
    rendering = stack.services["rendering-1"]
    rendering.kill()
    rendering.start()
    stack.ready(rendering)
    again = wait_for("chunks known as done", 20, lambda: counter(rendering, "tandem_rendering_chunks_done_before_total"), 0.2)
    wait_done(stack, large, 6000)
    said = truth(stack, large).check(6000)
    for campaign, count in ((small, 500), (beside, 500), (express, 1)):
        truth(stack, campaign).check(count)
    return f"{took:.1f} s beside, {ideal:.1f} s alone, express {at_once:.1f} s, {again:.0f} chunks not done again; large: {said}"


@case()
def same_submission_twice(stack):
    """The whole campaign is handed in again, at once and after it ended: no second mail."""
    campaign = submit(stack, 2000, "--id", "twice")
    submit(stack, 2000, "--id", "twice")
    wait_done(stack, campaign, 2000)
    submit(stack, 2000, "--id", "twice")
    time.sleep(3)
    said = truth(stack, campaign).check(2000)
    assert stack.status(campaign)["submitted"] == 2000, "submitted was counted twice"
    return said


@case()
def redis_stopped_for_10_s(stack):
    """Redis is shut down mid-send and started 10 s later: sending goes on, nothing is lost or repeated."""
    campaign = submit(stack, 8000)
    wait_part(stack, campaign, 1000)
    before = sum(len(r.taken()) for r in stack.relays)
    stack.redis.stop()
    time.sleep(10)
    during = sum(len(r.taken()) for r in stack.relays) - before
    stack.redis.start()
    wait_done(stack, campaign, 8000)
    said = truth(stack, campaign).check(8000)
    assert during > 500, f"only {during} mails were sent while Redis was away"
    return f"{said}, {during} sent while Redis was away"


def flush_redis(stack):
    subprocess.run(["redis-cli", "-p", str(stack.redis_port), "FLUSHALL"], check=True, capture_output=True)


def view_built(stack, times):
    """Wait until ingestion has said so often that the view is whole."""
    log = Path(stack.services["ingestion-1"].log)
    wait_for(f"the view's rebuilding no. {times}", 60, lambda: log.read_text(errors="replace").count("view.whole") >= times, 0.1)


def totals_agree(stack, campaign, count):
    """What Redis says of a finished campaign is what mail.outcomes says."""
    t, s = truth(stack, campaign), stack.status(campaign)
    told = {k: s.get(k, 0) for k in ("submitted", "accepted", "unconfirmed")}
    assert told == {"submitted": count, "accepted": t.count("ACCEPTED"), "unconfirmed": t.count("UNCONFIRMED")}, f"totals: {told}"


@case(primary=("--bounce-share", "5"))
def redis_emptied_midway(stack):
    """FLUSHALL mid-send, twice, the dispatcher lives: one outcome each, no copies, nothing in doubt, totals right again."""
    campaign = submit(stack, 8000)
    wait_part(stack, campaign, 1500)
    flush_redis(stack)
    view_built(stack, 2)  # the first was of the empty topics
    wait_part(stack, campaign, 4500)
    flush_redis(stack)
    view_built(stack, 3)
    wait_done(stack, campaign, 8000)
    said = truth(stack, campaign).check(8000)
    totals_agree(stack, campaign, 8000)
    told = wait_for("bounces", 30, lambda: (lambda n: n if n and n == stack.status(campaign).get("hard", {}).get("ses-eu") else 0)(
        len(truth(stack, campaign).bounces)), 0.5)
    return f"{said}; {told} bounces counted"


FEW = {"max_connections": 10, "pipelining": False}


def redis_and_dispatcher_killed(stack, policy):
    campaign = submit(stack, 4000, "--on-unconfirmed", policy)
    wait_part(stack, campaign, 1000)
    victim = stack.services["dispatch-1"]
    stack.redis.kill()
    victim.kill()
    shutil.rmtree(stack.dir / "redis")
    (stack.dir / "redis").mkdir()
    stack.redis.start()
    victim.start()
    view_built(stack, 2)
    wait_done(stack, campaign, 4000)
    # README of dispatch: of each lane, as many of the first as one dispatcher may have under way: one a connection, as many
    # on their way to mail.outcomes, half as many begun. Only what was with a relay can be a copy.
    t = truth(stack, campaign)
    said = t.check(4000, unconfirmed_at_most=6 * 50) if policy == "hold" else t.check(4000, copies_at_most=50)
    totals_agree(stack, campaign, 4000)
    return said


@case(primary_entry=FEW, backup_entry=FEW)
def redis_and_dispatcher_killed_together_hold(stack):
    """Redis dies with its data and the dispatcher with it, on_unconfirmed = hold: nobody is lost, nobody gets a second copy."""
    return redis_and_dispatcher_killed(stack, "hold")


@case(primary_entry=FEW, backup_entry=FEW)
def redis_and_dispatcher_killed_together_resend(stack):
    """The same with on_unconfirmed = resend: everybody gets it."""
    return redis_and_dispatcher_killed(stack, "resend")


@case(alone=True)
def view_of_200000_outcomes(stack):
    """Redis is emptied with 200,000 outcomes on the topic: all are counted again, at 20,000 a second or more."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": stack.bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 500000})
    outcome = OUTCOME.Outcome(campaign_id="large", at_unix_ms=int(time.time() * 1000), service="dispatch")
    outcome.recipient.result, outcome.recipient.relay, outcome.recipient.address_hash = 1, "ses-eu", bytes(range(16))
    for i in range(200000):
        outcome.index = i
        producer.produce(stack.prefix + "mail.outcomes", outcome.SerializeToString(), key=f"large/{i}")
        producer.poll(0)
    producer.flush()
    view_built(stack, 1)  # not while the first is being built, which would then be of these already
    flush_redis(stack)
    view_built(stack, 2)
    said = stack.status("large")
    assert said["submitted"] == said["accepted"] == 200000, f"totals: {said}"
    log = [json.loads(line) for line in Path(stack.services["ingestion-1"].log).read_text().splitlines() if '"view.whole"' in line]
    ms = int(log[-1]["ms"])
    assert ms < 10000, f"it took {ms} ms"
    return f"{ms} ms, {200000 * 1000 // ms} a second"


@case()
def same_submission_after_redis_lost_all(stack):
    """A finished campaign is handed in again after Redis was emptied: no second mail, nothing counted twice."""
    campaign = submit(stack, 2000, "--id", "again")
    wait_done(stack, campaign, 2000)
    flush_redis(stack)
    submit(stack, 2000, "--id", "again")  # at once: it has to wait for the view
    view_built(stack, 2)
    time.sleep(3)
    said = truth(stack, campaign).check(2000)
    totals_agree(stack, campaign, 2000)
    return said


@case()
def kafka_restarted(stack):
    """The broker is stopped and started mid-send."""
    campaign = submit(stack, 6000)
    wait_part(stack, campaign, 1000)
    stack.kafka("restart")
    wait_done(stack, campaign, 6000)
    return truth(stack, campaign).check(6000)


@case()
def kafka_away_longer_than_a_session(stack):
    """The broker is down for longer than the members' session: all are thrown out, join again and go on."""
    campaign = submit(stack, 6000)
    wait_part(stack, campaign, 1000)
    stack.kafka("stop")
    time.sleep(8)
    stack.kafka("start")
    wait_done(stack, campaign, 6000)
    return truth(stack, campaign).check(6000)


# Not by the bounces of all campaigns together: that is cases_bounces.py.
NOT_JUDGED = {"bounce_warn": "100%", "bounce_throttle": "100%", "bounce_stop": "100%"}


@case(primary=("--bounce-share", "10"), primary_entry=NOT_JUDGED)
def bounces_come_back(stack):
    """A tenth of the mails bounce by DSN over LMTP: each is tied to its mail, counted per relay, its address suppressed."""
    campaign = submit(stack, 1000, "--bounce-ceiling", "10000")
    wait_done(stack, campaign, 1000)
    said = truth(stack, campaign).check(1000)
    wait_for("the relay's reports", 30, lambda: stack.relays[0].ask("GET", "/status")["dsn_waiting"] == 0, 0.2)
    expected = stack.relays[0].ask("GET", "/status")["dsn_sent"]
    wait_for("bounces", 30, lambda: len(truth(stack, campaign).bounces) == expected == stack.status(campaign).get("hard", {}).get("ses-eu"), 0.5)
    assert 50 < expected < 150, f"{expected} bounces of 1,000 at 10 %"
    again = submit(stack, 1000, "--id", "again")
    wait_done(stack, again, 1000)
    suppressed = truth(stack, again).count("SUPPRESSED")
    assert suppressed == expected, f"{suppressed} of {expected} bounced addresses were suppressed the next time"
    return f"{said}; {expected} bounces, as many suppressed in the next campaign"


@case(primary=("--bounce-share", "20"), primary_entry=NOT_JUDGED)
def bounce_killed_and_without_redis(stack):
    """SIGKILL and SIGTERM of tandem-bounce, also while Redis is away: every bounce that the relay sent counts, and counts once."""
    campaign, bounce = submit(stack, 2000, "--bounce-ceiling", "10000"), stack.services["bounce-1"]
    wait_part(stack, campaign, 300)
    for _ in range(2):
        bounce.kill()
        bounce.start()
        time.sleep(1.5)
    stack.redis.stop()
    time.sleep(2)
    code = bounce.stop()
    assert code == 0, f"tandem-bounce ended with {code} while Redis was away"
    bounce.start()
    time.sleep(2)
    stack.redis.start()
    wait_done(stack, campaign, 2000)
    # relaysim chooses by Message-ID, so it is known which of the mails that it took must bounce.
    taken = {m for _, m, _ in stack.relays[0].taken() if m.startswith(f"{campaign}.")}
    sent = {int(m.partition("@")[0].rpartition(".")[2]) for m in taken
            if int.from_bytes(hashlib.sha256(m.encode()).digest()[:4], "big") % 1000000 < 200000}
    assert len(sent) > 200, f"only {len(sent)} bounces of {len(taken)} mails"
    wait_for(f"{len(sent)} bounces", 60, lambda: stack.status(campaign).get("hard", {}).get("ses-eu") == len(sent), 0.5)
    told = set(truth(stack, campaign).bounces)
    assert told == sent, f"{len(sent - told)} bounces are missing on mail.outcomes, {len(told - sent)} are of nobody"
    return f"{len(sent)} of {len(sent)} bounces"


BAD_LIST = ("--bounce-share", "20", "--bounce-match", "@gone.example")


@case(alone=True, primary=BAD_LIST, delay=60, dispatchers=2, primary_entry=NOT_JUDGED)
def bounce_trigger_moves_that_campaign(stack):
    """Two campaigns; a fifth of the mails of one bounce at the primary: it goes on by the backup, the other stays."""
    bad = submit(stack, 4000, "--id", "bad", domain="gone.example")
    good = submit(stack, 3000, "--id", "good")
    wait_for("the trigger", 60, lambda: stack.status(bad).get("left", {}).get("ses-eu"), 0.1)
    left = time.time()
    wait_done(stack, bad, 4000)
    wait_done(stack, good, 3000)
    t, other = truth(stack, bad), truth(stack, good)
    t.check(4000)
    other.check(3000)
    events = [c for c in t.relay_changes if c.campaign_id]
    assert [(c.campaign_id, c.relay, c.reason, c.to_state) for c in events] == [("bad", "ses-eu", "bounces.ceiling", "open")], f"{events}"
    assert not any(c.to_state == "open" and not c.campaign_id for c in t.relay_changes), "the relay itself was opened"
    primary, backup = stack.relays
    late = [m for at, m, _ in primary.taken() if at > left + 1 and m.startswith("bad.")]
    assert not late, f"{len(late)} mails of it went by the primary more than 1 s after it had left"
    by = {r.name: sum(m.startswith("bad.") for _, m, _ in r.taken()) for r in stack.relays}
    assert by["backup"] > 1000, f"{by}"
    stays = sum(m.startswith("good.") for _, m, _ in primary.taken())
    assert stays == 3000, f"only {stays} of the other's mails went by the primary"
    return f"left after {by['ses-eu']} of its mails ({events[0].evidence}), {by['backup']} by the backup; the other: 3000 by the primary"


def submit_until_held(stack):
    """A bad list of 12,000 that no relay is left for: it stands still and says why. -> its id, its status."""
    bad = submit(stack, 12000, "--id", "bad", domain="gone.example")
    wait_for("the hold", 90, lambda: stack.status(bad).get("held"), 0.1)
    time.sleep(1.5)
    before = stack.status(bad)
    time.sleep(2)
    assert stack.status(bad)["done"] == before["done"] < 12000, "a held campaign went on"
    text = stack.ctl("campaign", "status", bad, check=False).stdout
    assert "left ses-eu: " in text and "left backup: " in text and "HELD: " in text, text
    return bad, before


@case(primary=BAD_LIST, backup=BAD_LIST, delay=60, primary_entry=NOT_JUDGED, backup_entry=NOT_JUDGED)
def bounce_trigger_holds_without_a_relay(stack):
    """A campaign that bounces at both relays is held, says why, and spends nothing; what is left can be cancelled."""
    bad, before = submit_until_held(stack)
    good = submit(stack, 200, "--id", "good")
    wait_done(stack, good, 200)
    stack.ctl("relay", "enable", "backup", bad)
    wait_for("mails again", 90, lambda: stack.status(bad)["done"] > before["done"], 0.1)
    stack.ctl("campaign", "cancel", bad)
    wait_done(stack, bad, 12000) # those set aside come round within a minute
    assert len([c for c in truth(stack, bad).relay_changes if c.campaign_id == bad]) >= 2, "each relay that it left is an event"
    return truth(stack, bad).check(12000) + f", held at {before['done']}"


@case()
def relay_commands(stack):
    """relay show, test, drain, enable: what they say is so, dispatch obeys, each change is an event."""
    primary = stack.relays[0]
    shown = wait_for("a dispatcher's report", 10, lambda: (lambda s: s["state"] != "unknown" and s)(
        json.loads(stack.ctl("--json", "relay", "show", "ses-eu").stdout)), 0.1)
    assert shown["state"] == "closed" and shown["reason_words"], f"{shown}"
    tested = json.loads(stack.ctl("--json", "relay", "test", "ses-eu").stdout)
    assert tested["result"] == "up" and tested["authenticated"] and tested["tls"].startswith("TLSv1."), f"{tested}"
    assert "localhost" in tested["certificate_names"] and tested["certificate_days_left"] > 0, f"{tested}"
    assert "8BITMIME" in tested["offers"] and not primary.taken(), "a test sends no mail"
    stack.ctl("relay", "drain", "ses-eu")
    wait_for("the dispatcher to obey", 10, lambda: json.loads(stack.ctl("--json", "relay", "show", "ses-eu").stdout)["state"] == "paused", 0.1)
    campaign = submit(stack, 300)
    wait_done(stack, campaign, 300)
    assert not primary.taken(), "a drained relay got mail"
    text = stack.ctl("relay", "show", "ses-eu").stdout
    assert "operator.drain" in text and "relay enable" in text and "password: \"***\"" in text, text
    stack.ctl("relay", "enable", "ses-eu")
    again = submit(stack, 2000, "--id", "again")
    wait_done(stack, again, 2000)
    t = truth(stack, again)
    t.check(2000)
    assert primary.taken(), "nothing went by the relay that was enabled"
    states = [(c.from_state, c.to_state) for c in t.relay_changes if c.relay == "ses-eu"]
    assert ("closed", "paused") in states and ("paused", "half-open") in states, f"{states}"
    primary.process.kill()
    down = stack.ctl("--json", "relay", "test", "ses-eu", check=False)
    assert down.returncode == 1 and json.loads(down.stdout)["result"] == "connect", down.stdout
    return f"{len(states)} events of the primary"


@case()
def poison_and_refusals(stack):
    """Garbage goes to mail.dead-letters with its reason, a bad campaign is refused by code; a good one goes on."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": stack.bootstrap})
    topic = stack.prefix + "mail.submissions"
    for garbage in (b"\xff\xff\xff garbage", b"", b"\x0a\x05ab\x00cd"):
        producer.produce(topic, garbage, key="poison")
    bad = SUBMISSION.Submission(campaign_id="bad", submission_id="s1")
    bad.campaign.__getattribute__("from").address = "news@news.example.com"
    bad.campaign.subject_template, bad.campaign.text_template = "x", "{{unclosed"
    producer.produce(topic, bad.SerializeToString(), key="bad")
    producer.flush()
    good = submit(stack, 50)
    wait_done(stack, good, 50)

    def dead():
        return [dict(m.headers()) for m in outcomes.records(stack.bootstrap, stack.prefix + "mail.dead-letters")]
    letters = wait_for("dead letters", 20, lambda: len(dead()) >= 3 and dead(), 0.5)
    assert all(h.get("reason") and h.get("source-topic") for h in letters), f"headers say too little: {letters[0]}"
    answers = [o.answer for o in (OUTCOME.Outcome.FromString(m.value()) for m in outcomes.records(
        stack.bootstrap, stack.prefix + "mail.outcomes")) if o.campaign_id == "bad"]
    assert answers and not answers[0].accepted and answers[0].refusals[0].code.startswith("template."), f"{answers}"
    return truth(stack, good).check(50) + f"; refused: {answers[0].refusals[0].sentence}"


def no_personal_data(stack):
    """No log line of any service holds an address, a name or a secret."""
    words = [b"reader1", b"@example.com", "Åsa".encode(), *((stack.dir / n).read_bytes().strip() for n in ("keys.token", "keys.address", "relay.password"))]
    for key, process in stack.services.items():
        log = Path(process.log).read_bytes()
        for word in words:
            assert word not in log, f"the log of {key} holds {word!r}"


def loud_lines(stack):
    """What the services logged of errors, or their last lines."""
    for key, process in stack.services.items():
        tail = Path(process.log).read_text(errors="replace").splitlines() if Path(process.log).exists() else []
        loud = [l for l in tail if '"error"' in l or "ERROR" in l or "Sanitizer" in l or "runtime error" in l][-12:] or tail[-4:]
        yield from (f"    {key}: {line[:400]}" for line in loud)


def run(suite, name, function, options, kafka, folder):
    """One case: whether it is good, and the lines to print."""
    began, good, lines, stack = time.monotonic(), True, [], None
    try:
        stack = make_stack(folder / name, kafka, f"{name}.", **options)
        for relay in stack.relays:
            if relay.process and "--bounce-share" in relay.process.argv and "--sns" not in relay.process.argv:
                relay.process.argv += ["--bounce-to", f"127.0.0.1:{stack.lmtp_port}"]
        stack.start()
        said = function(stack)
        no_personal_data(stack)
        codes = stack.stop()
        bad = {k: c for k, c in codes.items() if c not in (0, -signal.SIGKILL)}
        assert not bad, f"services ended with {bad}"
        lines = [f"PASS {suite}.{name}: {said}"]
    except Skipped as e:
        lines = [f"SKIP {suite}.{name}: {e}"]
    except Exception as e:  # noqa: BLE001  a failed case must not stop the others
        good, lines = False, [f"FAIL {suite}.{name}: {e}"]
        if not isinstance(e, AssertionError):
            lines += traceback.format_exc().splitlines()
    finally:
        if stack:
            stack.stop()
    lines[0] += f" ({time.monotonic() - began:.1f} s)"
    return good, lines if good or not stack else [*lines, *loud_lines(stack)]


def main(suite="flow", cases=CASES, wanted=None, broker=Kafka, two=False):
    """Run the cases (all, or those wanted), `two` at a time where they allow it; 0 when all passed."""
    global BUILD, SUBMISSION, OUTCOME
    BUILD = Path(sys.argv[1]).resolve()
    wanted = sys.argv[2:] if wanted is None else wanted
    unknown = [name for name in wanted if name not in [c[0] for c in cases]]
    if unknown:
        print(f"no such case: {', '.join(unknown)}", file=sys.stderr)
        return 64
    chosen = [c for c in cases if not wanted or c[0] in wanted]
    folder = Path(tempfile.mkdtemp(prefix=f"tandem-{suite}-"))
    good = False
    try:
        SUBMISSION, OUTCOME = outcomes.protos(folder / "protos")
        good = turns.take(chosen, two, lambda name: broker(folder / name), lambda kafka, c: run(suite, *c, kafka, folder))
    finally:
        if good or not os.environ.get("TANDEM_TEST_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"kept: {folder}")
    return 0 if good else 1


if __name__ == "__main__":
    # The module, which the files of cases import too, and not this script beside it.
    import run as flow
    import cases_bounces  # noqa: F401
    import cases_evidence  # noqa: F401
    import cases_metrics  # noqa: F401
    import cases_pause  # noqa: F401
    import cases_turns  # noqa: F401
    import cases_refusals  # noqa: F401
    import cases_terminated  # noqa: F401

    sys.exit(flow.main(two=True))
