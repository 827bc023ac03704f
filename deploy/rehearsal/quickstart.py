"""The story that deploy/quickstart tells: a newsletter, its primary relay taken away in the middle and brought back."""

import argparse
import csv
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from stack import ROOT, Failed, Stack, wait_for

DEV_BROKER_MAX = 20000  # its partitions keep 5 MiB each
FIRST = "Åsa Björn Märta Göran Linnéa Örjan Elsa Nils Saga Östen Maja Lars Freja Håkan Alva Åke".split()
LAST = "Öberg Ångström Lindqvist Sjöström Håkansson Ek Björk Nyström Åkesson Falk".split()


def say(text):
    # On a terminal tandemctl's progress may stand on the line: write over it.
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}quickstart: {text}", file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        say(message)
        sys.exit(64)


def options():
    p = Parser(prog="deploy/quickstart", add_help=False)
    p.add_argument("--once", action="store_true")
    p.add_argument("--json", action="store_true")
    p.add_argument("--recipients", type=int, default=10000)
    p.add_argument("--broker", choices=("dev", "kafka"), default="dev")
    p.add_argument("--keep", type=Path)
    args = p.parse_args()
    if args.recipients < 100:
        p.error("--recipients: at least 100, or there is no middle to take the relay away in")
    if args.broker == "dev" and args.recipients > DEV_BROKER_MAX:
        p.error(f"--recipients: the broker in memory drops its oldest records past 5 MiB a partition and so holds {DEV_BROKER_MAX} "
                "recipients at most; use --broker kafka")
    return args


def write_recipients(path, count):
    with open(path, "w", newline="", encoding="utf-8") as f:
        out = csv.writer(f)
        out.writerow(["email", "name", "first_name", "city", "member_no"])
        for i in range(count):
            h = hashlib.sha256(str(i).encode()).digest()
            first, last = FIRST[h[0] % len(FIRST)], LAST[h[1] % len(LAST)]
            city = ("Malmö", "Göteborg", "Örebro", "Umeå", "Ystad")[h[2] % 5]
            out.writerow([f"reader{i}@example.com", f"{first} {last}", first, city, 100000 + i])


def submit(stack, recipients):
    sample = ROOT / "deploy/sample"
    done = stack.ctl(
        "campaign", "submit", "--recipients", recipients, "--from", "Föreningen Norrsken <nyheter@news.example.com>",
        "--subject", (sample / "subject.txt").read_text(encoding="utf-8").strip(), "--html", sample / "newsletter.html",
        "--text", sample / "newsletter.txt", "--inline", f"logo={sample / 'logo.png'}", "--attach", sample / "programme.pdf",
        "--language", "sv", "--list-id", "nyheter.news.example.com", "--unsubscribe-mailto", "avsluta@news.example.com",
        "--unsubscribe-url", "https://news.example.com/u/{{token}}", "--one-click", timeout=600)
    return done.stdout.strip().splitlines()[-1]


def accepted(stack, campaign, relay=None):
    status = stack.status(campaign)
    return status.get("by_relay", {}).get(relay, 0) if relay else status.get("accepted", 0)


def story(stack, args):
    """Returns the sums. The relays' own ledgers are the truth they are compared with."""
    primary, backup = stack.relays
    recipients = stack.dir / "recipients.csv"
    write_recipients(recipients, args.recipients)
    began = time.monotonic()
    say(f"submitting a newsletter to {args.recipients} recipients: Swedish text, HTML and plain, an inline image, a PDF")
    campaign = submit(stack, recipients)
    watch = stack.ctl_process("campaign", "watch", campaign)
    try:
        wait_for("a quarter of the mails", 300, lambda: accepted(stack, campaign) >= args.recipients // 4, 0.1)
        primary.process.kill()
        killed_at = time.time()
        say(f"primary relay {primary.name} killed")
        wait_for("the backup's first mail", 60, lambda: any(t >= killed_at for t, _, _ in backup.taken()), 0.1)
        failover_ms = (min(t for t, _, _ in backup.taken() if t >= killed_at) - killed_at) * 1000
        say(f"{backup.name} took its first mail {failover_ms:.0f} ms later")
        time.sleep(1)
        primary.start()
        back_at = time.time()
        say(f"primary relay {primary.name} is back")
        wait_for("the end of the campaign", 600, lambda: watch.poll() is not None, 0.1)
    finally:
        if watch.poll() is None:
            watch.terminate()
    audit = stack.audit(campaign)
    sums = {key: audit.get(key, 0) for key in ("submitted", "accepted", "lost", "duplicates", "unconfirmed")}
    sums["primary"] = audit.get("by_relay", {}).get(primary.name, 0)
    sums["backup"] = audit.get("by_relay", {}).get(backup.name, 0)
    sums["extra"], sums["conflicts"] = audit.get("extra", 0), audit.get("conflicts", 0)
    sums["failover_ms"] = round(failover_ms)
    returned = [t for t, _, _ in primary.taken() if t >= back_at]
    sums["back_on_primary_ms"] = round((min(returned) - back_at) * 1000) if returned else None
    sums["seconds"] = round(time.monotonic() - began, 1)
    sums["campaign"] = campaign
    return sums


def show(sums, primary, backup):
    back = "not before the end" if sums["back_on_primary_ms"] is None else f"{sums['back_on_primary_ms']} ms after its return"
    rows = [("submitted", sums["submitted"]), (f"accepted by {primary}", sums["primary"]), (f"accepted by {backup}", sums["backup"]),
            ("unconfirmed", f"{sums['unconfirmed']}   (its final reply was lost: never sent twice)"), ("lost", sums["lost"]),
            ("duplicates", sums["duplicates"]), ("time to switch", f"{sums['failover_ms']} ms"), ("back on primary", back),
            ("seconds", sums["seconds"])]
    for name, value in rows:
        print(f"  {name:<24}{value}", file=sys.stderr)


def well(sums, count):
    return (sums["submitted"] == count and sums["lost"] == sums["duplicates"] == sums["extra"] == sums["conflicts"] == 0
            and sums["accepted"] + sums["unconfirmed"] == count and sums["backup"] > 0)


def hint(stack):
    ctl = os.path.relpath(stack.program("tandemctl"))
    say(f"the system is up (settings and logs: {stack.dir}). Send one yourself, in another terminal:")
    print(f"""
  export TANDEM_CONFIG={stack.settings_file}
  {ctl} campaign submit --recipients deploy/sample/recipients.csv --from 'Me <me@news.example.com>' \\
      --subject 'Hello {{{{first_name}}}}' --html deploy/sample/newsletter.html --inline logo=deploy/sample/logo.png \\
      --unsubscribe-url 'https://news.example.com/u/{{{{token}}}}' --watch
  {ctl} relay list
""", file=sys.stderr)
    say("Ctrl-C stops everything")


def main():
    args = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = args.keep or Path(tempfile.mkdtemp(prefix="tandem-"))
    stack = Stack(folder, ROOT / "build/release", args.broker, say)
    code = 1
    try:
        say("starting redis-server, broker, two relays, four services")
        # 20 ms a final reply: a relay across the country, and time to see what happens.
        stack.add_relay("ses-eu", "SE", ["--profile", "ses", "--delay", "20"])
        stack.add_relay("backup", "DE", ["--delay", "20"])
        stack.start()
        sums = story(stack, args)
        code = 0 if well(sums, args.recipients) else 1
        show(sums, *(r.name for r in stack.relays))
        if args.json:
            print(json.dumps(sums), flush=True)
        if not args.once and code == 0:
            hint(stack)
            signal.pause()
    except KeyboardInterrupt:
        code = code if not args.once else 130
    except Failed as failed:
        say(str(failed))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say("stopping")
        stack.stop(remove=not args.keep and code == 0)
        if not args.keep and code != 0:
            say(f"logs are kept in {folder}")
    return code


if __name__ == "__main__":
    sys.exit(main())
