"""The real Postfix and Exim as relays: what Tandem sends arrives once and unchanged, and their bounces come back.

usage: mta.py BUILD_DIR [--broker kafka]
"""

import argparse
import email
import email.policy
import os
import shutil
import smtplib
import ssl
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy/rehearsal"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from stack import Failed, Stack, wait_for  # noqa: E402
from mta_servers import MAIL_DOMAIN, UNKNOWN, Exim, NotHere, Postfix  # noqa: E402

READERS, UNKNOWN_READERS = 20, 2
SAMPLE = ROOT / "deploy/sample"
SUBJECT = "Vårbrev till {{first_name}} – smörgåsbord & räkor 🌷"
# Lines that begin with dots, a lone dot, "From ", tabs and blanks at the end, a very long line, no ASCII.
TEXT = """Hej {{first_name}}!

.
..
.början på en rad med punkt
...och tre
From här börjar en rad som mbox inte tål
blanksteg på slutet:  \t
""" + "å" * 2500 + """

Åke, Östen och Ärla hälsar {{name}}
"""
HTML = """<!doctype html>
<html lang="sv"><body>
<p>Hej {{first_name}}, <b>räksmörgås</b>!</p>
.<br>
..
<img src="cid:logo" alt="bild">
<p>""" + "ö" * 1200 + """</p>
</body></html>
"""


def name_of(i):
    return ("Åsa", "Björn", "Märta", "Göran")[i % 4], f"Öberg {i}"


def address_of(i, relay):
    """The unknown ones are different for each relay: after the first campaign they are suppressed."""
    return f"reader{i}@{MAIL_DOMAIN}" if i < READERS else f"{UNKNOWN}-{relay}{i}@{MAIL_DOMAIN}"


def write_campaign(folder, relay):
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    (folder / "page.html").write_text(HTML, encoding="utf-8")
    with open(folder / "recipients.csv", "w", encoding="utf-8") as f:
        f.write("email,name,first_name\n")
        for i in range(READERS + UNKNOWN_READERS):
            first, last = name_of(i)
            f.write(f"{address_of(i, relay)},{first} {last},{first}\n")


def filled(template, i, html=False):
    first, last = name_of(i)
    return template.replace("{{first_name}}", first).replace("{{name}}", f"{first} {last}")


def refuses_without_tls_and_auth(mta):
    """The relays would not take the mail of somebody who skips a step, so what arrives proves STARTTLS and AUTH."""
    def refused(link):
        try:
            link.sendmail("a@example.com", [f"reader0@{MAIL_DOMAIN}"], b"Subject: no\r\n\r\nno\r\n")
        except smtplib.SMTPException:
            return True
        return False

    with smtplib.SMTP("localhost", mta.port, timeout=20) as link:
        assert refused(link), "it takes mail without TLS"
    with smtplib.SMTP("localhost", mta.port, timeout=20) as link:
        link.starttls(context=ssl.create_default_context(cafile=str(mta.tls / "ca.pem")))
        assert refused(link), "it takes mail without AUTH"


def body_of(mail, kind):
    parts = [p for p in mail.walk() if p.get_content_type() == kind and not p.get_filename()]
    assert len(parts) == 1, f"{len(parts)} parts of {kind}"
    return parts[0].get_payload(decode=True).decode(parts[0].get_content_charset()).replace("\r\n", "\n")


def the_file(mail, kind):
    parts = [p for p in mail.walk() if p.get_content_type() == kind]
    assert len(parts) == 1, f"{len(parts)} parts of {kind}"
    return parts[0]


def same(what, got, expected):
    if got != expected:
        at = next((k for k, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
        raise AssertionError(f"{what} differs at {at}: {got[max(0, at - 20):at + 40]!r}, not {expected[max(0, at - 20):at + 40]!r}")


def check_mail(raw, i, mta):
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert not mail.defects and not any(p.defects for p in mail.walk()), f"the parser complains: {[p.defects for p in mail.walk()]}"
    same("the subject", mail["Subject"], filled(SUBJECT, i))
    assert mail["From"].addresses[0].addr_spec == "nyheter@news.example.com" and mail["From"].addresses[0].display_name == "Föreningen Norrsken"
    assert mail["To"].addresses[0].addr_spec == address_of(i, mta.name), "To is somebody else"
    assert mail["List-Unsubscribe"] and "avsluta@news.example.com" in mail["List-Unsubscribe"], "List-Unsubscribe is missing"
    assert "nyheter.news.example.com" in mail["List-Id"], "List-Id is missing"
    same("the text", body_of(mail, "text/plain"), filled(TEXT, i))
    same("the HTML", body_of(mail, "text/html"), filled(HTML, i))
    image, pdf = the_file(mail, "image/png"), the_file(mail, "application/pdf")
    same("the image", image.get_payload(decode=True), (SAMPLE / "logo.png").read_bytes())
    assert image["Content-ID"] == "<logo>", f"Content-ID: {image['Content-ID']}"
    same("the PDF", pdf.get_payload(decode=True), (SAMPLE / "programme.pdf").read_bytes())
    assert pdf.get_filename() == "programme.pdf", f"file name {pdf.get_filename()!r}"
    return_path = mail["Return-Path"] or f"<{mta.bounce_domain}>"
    assert mta.bounce_domain in return_path, f"Return-Path: {return_path}"


def run(stack, mta):
    refuses_without_tls_and_auth(mta)
    write_campaign(stack.dir, mta.name)
    total = READERS + UNKNOWN_READERS
    campaign = stack.ctl(
        "campaign", "submit", "--recipients", stack.dir / "recipients.csv", "--from", "Föreningen Norrsken <nyheter@news.example.com>",
        "--subject", SUBJECT, "--html", stack.dir / "page.html", "--text", stack.dir / "text.txt", "--inline", f"logo={SAMPLE / 'logo.png'}",
        "--attach", SAMPLE / "programme.pdf", "--language", "sv", "--list-id", "nyheter.news.example.com",
        "--unsubscribe-mailto", "avsluta@news.example.com", "--route", mta.name, "--id", f"via-{mta.name}").stdout.strip().splitlines()[-1]
    wait_for("the end of the campaign", 120, lambda: stack.status(campaign).get("accepted", 0) >= total, 0.2)
    wait_for(f"{READERS} mails in the mailbox", 60, lambda: len(mta.mails()) >= READERS, 0.2)
    wait_for(f"{UNKNOWN_READERS} bounces", 90, lambda: stack.status(campaign).get("hard", {}).get(mta.name) == UNKNOWN_READERS, 0.5)
    status = stack.status(campaign)
    assert status["accepted"] == total and status.get("by_relay", {}).get(mta.name) == total, f"{status}"
    raws = mta.mails()
    once = Counter(email.message_from_bytes(r, policy=email.policy.default)["To"].addresses[0].addr_spec for r in raws)
    assert once == Counter(address_of(i, mta.name) for i in range(READERS)), f"not everybody got it once: {once}"
    for raw in raws:
        to = email.message_from_bytes(raw, policy=email.policy.default)["To"].addresses[0].addr_spec
        check_mail(raw, int(to.partition("@")[0].removeprefix("reader")), mta)
    return f"{READERS} mails arrived once and unchanged, {UNKNOWN_READERS} bounced to suppression"


def make_mtas(folder, lmtp_port):
    """Those that can be run here; prints what cannot."""
    mtas, good = [], True
    tls = folder / "stack/tls"
    for make, country in ((Postfix, "SE"), (Exim, "DE")):
        name = make.__name__.lower()
        try:
            mta = make(folder / name, tls, "tandem", "hemligt-lösen".encode().hex(), (f"bounce.{name}.example.com", lmtp_port), country)
            mtas.append(mta)
            mta.start()
        except NotHere as why:
            print(f"SKIP mta.{name}: {why}", flush=True)
        except (Failed, subprocess.CalledProcessError, OSError) as why:
            good = False
            mta.stop()
            mtas = [m for m in mtas if m.name != name]
            print(f"FAIL mta.{name}: {why}", flush=True)
    return [m for m in mtas if m.process], good


def main():
    options = argparse.ArgumentParser()
    options.add_argument("build", type=Path)
    options.add_argument("--broker", choices=("dev", "kafka"), default="dev")
    args = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tandem-mta-"))
    stack, mtas, good = None, [], False
    try:
        stack = Stack(folder / "stack", args.build.resolve(), args.broker)
        mtas, good = make_mtas(folder, stack.lmtp_port)
        for mta in mtas:
            stack.add_own_relay(mta.name, mta.entry())
        if mtas:
            stack.start()
        for mta in mtas:
            try:
                print(f"PASS mta.{mta.name}: {run(stack, mta)}", flush=True)
            except (AssertionError, Failed, OSError, KeyError) as why:
                good = False
                print(f"FAIL mta.{mta.name}: {why}", flush=True)
                for line in mta.log_tail():
                    print(f"    {line}")
    except (Failed, OSError, subprocess.CalledProcessError) as why:
        good = False
        print(f"FAIL mta: {why}", flush=True)
        traceback.print_exc()
    finally:
        for mta in mtas:
            mta.stop()
        if stack:
            stack.stop()
        for mta in mtas:
            mta.root("chmod", "-R", "u+rwX,go+rwX", mta.dir)
        if good or not os.environ.get("TANDEM_TEST_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"kept: {folder}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
