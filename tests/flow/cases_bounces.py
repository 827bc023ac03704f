"""Flow cases: the bounces of all campaigns together at one relay."""

import importlib
import json
import smtplib
import time

import outcomes
import run as flow
from stack import wait_for

GONE = ("--bounce-share", "100", "--bounce-match", "@gone.example")
SMALL = 90  # below the sample at which one campaign is judged


def small(stack, name, gone, *options, count=SMALL):
    """A campaign of `count`, of which so many are at addresses that bounce."""
    path = stack.dir / f"{name}.csv"
    with open(path, "w", encoding="utf-8") as f:
        f.write("email\n")
        for i in range(count):
            f.write(f"{name}.{i}@{'gone.example' if i < gone else 'example.com'}\n")
    stack.ctl("campaign", "submit", "--id", name, "--recipients", path, "--from", "news@news.example.com", "--subject", "Vår",
              "--text", stack.dir / "text.txt", *options, timeout=300)
    return name


def relay(stack, name="ses-eu"):
    return json.loads(stack.ctl("--json", "relay", "show", name).stdout)


def bulk_is(stack, word, seconds=60):
    return wait_for(f"bulk {word}", seconds, lambda: (lambda r: r["bulk"] == word and r)(relay(stack)), 0.2)


def by_relay(stack, campaign):
    return {r.name: sum(m.startswith(f"{campaign}.") for _, m, _ in r.taken()) for r in stack.relays}


def dsn(address, return_path):
    return (f"From: Mail Delivery System <mailer-daemon@example.com>\r\nTo: <{return_path}>\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n"
            "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nno\r\n"
            "--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.com\r\n\r\n"
            f"Final-Recipient: rfc822; {address}\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 User unknown\r\n"
            "\r\n--b--\r\n")


def forge(stack, campaign, count):
    """Reports with return paths that nobody signed: at the front door, and past it straight on mail.feedback."""
    from confluent_kafka import Producer

    feedback = importlib.import_module("tandem.internal.v1.feedback_pb2")
    domain = "bounce.ses-eu.example.com"
    paths = [f"b+{campaign}.{i % 10}.{'a' * 16}@{domain}" for i in range(count)]  # right but for the signature
    with smtplib.LMTP("127.0.0.1", stack.lmtp_port) as link:
        link.ehlo()
        for path in (paths[0], f"news@{domain}", f"postmaster@{domain}"):
            link.mail("")
            code, _ = link.rcpt(path)
            assert code == 550, f"a forged return path was answered {code}"
            link.rset()
    producer = Producer({"bootstrap.servers": stack.bootstrap})
    for i, path in enumerate(paths):
        record = feedback.Feedback(source=1, envelope_recipient=path, received_at_unix_ms=int(time.time() * 1000),
                                   raw=dsn(f"reader{i}@example.com", path).encode())
        producer.produce(stack.prefix + "mail.feedback", record.SerializeToString(), key=path)
    producer.flush()


@flow.case(primary=GONE, settings={"rendering": {"ahead": 100}})
def bounces_of_all_campaigns_throttle_and_stop_bulk(stack):
    """Small campaigns, none judged by itself: together they warn, throttle and stop bulk at the primary; express stays; forged reports
    change nothing; with no relay left a campaign is held, says why, and goes on when an operator says so."""
    (stack.dir / "text.txt").write_text("Hej, nu är det vår.\n", encoding="utf-8")
    names = [small(stack, f"warn{i}", 3) for i in range(12)]
    for name in names:
        flow.wait_done(stack, name, SMALL)
    wait_for("36 bounces", 30, lambda: (lambda r: (r["bounced_hard"], r["bounced_of"]) == (36, 1080))(relay(stack)), 0.2)
    bulk_is(stack, "warned")

    forge(stack, "warn0", 300)
    time.sleep(3)
    told = relay(stack)
    assert (told["bounced_hard"], told["bounced_of"], told["bulk"]) == (36, 1080, "warned"), f"after forged reports: {told}"

    more = [small(stack, f"throttle{i}", 9) for i in range(6)]
    for name in more:
        flow.wait_done(stack, name, SMALL)
    bulk_is(stack, "quarter")
    small(stack, "split", 0, count=1000)
    flow.wait_done(stack, "split", 1000)
    split = by_relay(stack, "split")
    assert 150 < split["ses-eu"] < 350 and sum(split.values()) == 1000, f"a quarter of 1,000 by the primary: {split}"

    small(stack, "alone", 0, "--route", "ses-eu", count=300)  # no other relay: beyond its part it waits, and goes
    flow.wait_done(stack, "alone", 300)

    small(stack, "urgent0", 60, "--express")
    small(stack, "urgent1", 60, "--express")
    for name in ("urgent0", "urgent1"):
        flow.wait_done(stack, name, SMALL)
        assert by_relay(stack, name) == {"ses-eu": SMALL, "backup": 0}, f"express left the primary: {by_relay(stack, name)}"
    stopped = bulk_is(stack, "stopped")
    assert stopped["state"] == "closed", f"{stopped}"
    text = stack.ctl("relay", "show", "ses-eu").stdout + stack.ctl("relay", "list").stdout
    assert "does not go through here, for bounces surely above 5 %" in text and "bounced hard, " in text and "stopped" in text, text

    small(stack, "after", 0, count=500)
    small(stack, "urgent2", 0, "--express")
    small(stack, "held", 0, "--route", "ses-eu", count=8000)
    flow.wait_done(stack, "after", 500)
    flow.wait_done(stack, "urgent2", SMALL)
    assert by_relay(stack, "after") == {"ses-eu": 0, "backup": 500}, f"bulk by a relay that has stopped it: {by_relay(stack, 'after')}"
    assert by_relay(stack, "urgent2") == {"ses-eu": SMALL, "backup": 0}, f"express left the primary: {by_relay(stack, 'urgent2')}"
    wait_for("the hold", 30, lambda: stack.status("held").get("held"), 0.2)
    text = stack.ctl("campaign", "status", "held", check=False).stdout
    assert "HELD: no relay of its route takes bulk mail now" in text, text
    time.sleep(5)
    rendered = sum(1 for m in outcomes.records(stack.bootstrap, stack.prefix + "mail.outbound") if m.key().startswith(b"held/"))
    assert rendered < 4000, f"{rendered} mails of a held campaign were rendered"
    assert not any(by_relay(stack, "held").values()), "a held campaign was sent"

    stack.ctl("relay", "enable", "ses-eu")
    bulk_is(stack, "full")
    flow.wait_done(stack, "held", 8000)
    assert by_relay(stack, "held") == {"ses-eu": 8000, "backup": 0}, f"{by_relay(stack, 'held')}"
    told = relay(stack)
    assert told["bounced_hard"] == 0 and told["bulk"] == "full", f"counted anew: {told}"
    said = flow.truth(stack, "held").check(8000)
    events = [c for c in flow.truth(stack, "held").relay_changes if c.relay == "ses-eu" and c.reason.startswith("bounces.")]
    reasons = [c.reason for c in events]
    assert reasons == ["bounces.warn", "bounces.throttle", "bounces.stop", "bounces.fell"], f"events: {reasons}"
    assert "surely above 5.00 %" in events[2].evidence and events[2].to_state == "closed", f"{events[2]}"
    return f"{said}; {split['ses-eu']} of 1,000 while throttled; {rendered} of 8,000 rendered while held"


@flow.case(primary=GONE)
def bounce_rate_is_rebuilt_with_redis(stack):
    """Redis is emptied after bulk was stopped: the window is rebuilt from mail.outcomes, and bulk stays away."""
    (stack.dir / "text.txt").write_text("Hej, nu är det vår.\n", encoding="utf-8")
    names = [small(stack, f"bad{i}", 12, "--express") for i in range(8)]
    for name in names:
        flow.wait_done(stack, name, SMALL)
    all_of_them = (96, 8 * SMALL)
    counted = lambda: (lambda r: (r["bounced_hard"], r["bounced_of"]) == all_of_them and r)(relay(stack))  # noqa: E731
    wait_for("96 bounces", 30, counted, 0.2)
    bulk_is(stack, "stopped")
    flow.flush_redis(stack)
    flow.view_built(stack, 2)
    after = bulk_is(stack, "stopped")
    wait_for("the same sums", 30, counted, 0.2)
    small(stack, "after", 0, count=300)
    flow.wait_done(stack, "after", 300)
    assert by_relay(stack, "after")["ses-eu"] == 0, f"{by_relay(stack, 'after')}"
    return f"{after['bounced_hard']} of {after['bounced_of']} before and after"
