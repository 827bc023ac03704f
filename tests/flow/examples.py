"""The examples of proto/ and the commands of the READMEs for sending from one's own service, run as they stand.

usage: examples.py BUILD_DIR [case...]
Commands are taken out of the READMEs' code blocks; only the broker's address is replaced.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy/rehearsal"))

from stack import Failed, Stack, wait_for  # noqa: E402

CASES = []


def case(*needs):
    """Register a case; needs: Python modules and programs without which it is skipped."""
    def register(function):
        CASES.append((function, needs))
        return function
    return register


def blocks(path, heading):
    """Code blocks below a heading: fenced ones marked sh, or indented ones."""
    text = (ROOT / path).read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert section, f"{path} has no section \"{heading}\""
    fenced = re.findall(r"^```sh\n(.*?)^```$", section[1], re.M | re.S)
    indented = ["\n".join(line[4:] for line in block.splitlines()) for block in
                re.findall(r"(?:^    .*\n(?:^\n(?=^    ))?)+", re.sub(r"^```.*?^```$", "", section[1], flags=re.M | re.S), re.M)]
    return fenced + indented


def block(path, heading, word):
    found = [b for b in blocks(path, heading) if word in b]
    assert len(found) == 1, f"{path}, \"{heading}\": {len(found)} code blocks with \"{word}\""
    return found[0]


class Shell:
    """A user's shell: programs on the PATH, settings in TANDEM_CONFIG, a folder that looks like the tree."""

    def __init__(self, stack, folder):
        self.stack, self.folder = stack, folder
        folder.mkdir()
        programs = folder / "bin"
        programs.mkdir()
        (programs / "tandemctl").symlink_to(stack.program("tandemctl"))
        for name in ("deploy", "proto"):
            (folder / name).symlink_to(ROOT / name)
        self.env = {**os.environ, "PATH": f"{programs}:/usr/bin:/bin", "TANDEM_CONFIG": str(stack.settings_file), "BROKERS": stack.bootstrap}

    def run(self, script, seconds=120):
        script = script.replace("localhost:9092", self.stack.bootstrap)
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=seconds)
        assert done.returncode == 0, f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}"
        return done.stdout


def wait_accepted(shell, campaign, count):
    wait_for(f"{count} mails of {campaign}", 60, lambda: shell.stack.status(campaign).get("accepted", 0) >= count, 0.2)
    mine = [m for r in shell.stack.relays for _, m, _ in r.taken() if m.startswith(f"{campaign}.")]
    assert len(mine) == len(set(mine)) == count, f"the relays took {len(mine)} mails of {campaign}"


@case("confluent_kafka", "google.protobuf", "protoc")
def producer(shell):
    """proto/examples/producer.py: a campaign of two, its answers, its mails."""
    out = shell.run("/usr/bin/python3 proto/examples/producer.py localhost:9092 example-1")
    assert sorted(out.split()) == sorted("campaign accepted recipient_batch accepted seal accepted".split()), f"it prints {out!r}"
    wait_accepted(shell, "example-1", 2)
    lines = (ROOT / "proto/examples/producer.py").read_text(encoding="utf-8").splitlines()
    return f"3 answers, 2 mails, {len(lines)} lines"


@case("confluent_kafka", "google.protobuf", "protoc")
def producer_twice(shell):
    """The same campaign handed in once more: answered again, and nobody gets a second mail."""
    for _ in range(2):
        shell.run("/usr/bin/python3 proto/examples/producer.py localhost:9092 example-2")
        wait_accepted(shell, "example-2", 2)
    return "2 mails"


@case("kcat")
def kcat_example(shell):
    """proto/examples/kcat.sh: one mail by tandemctl and kcat, and its answer."""
    out = shell.run("sh proto/examples/kcat.sh localhost:9092")
    answer = json.loads(out.strip().splitlines()[0])
    assert answer["answer"]["accepted"] is True, f"{answer}"
    wait_accepted(shell, answer["campaign_id"], 1)
    return answer["campaign_id"]


@case("kcat")
def readme_kcat(shell):
    """README, "Send from your own service": encode and decode around kcat."""
    mail = json.loads((ROOT / "proto/examples/single_mail.json").read_text(encoding="utf-8"))
    script = block("README.md", "Send from your own service", "kcat -P")
    key = re.search(r"-k (\S+)", script)[1]
    (shell.folder / "campaign.json").write_text(json.dumps({**mail, "campaign_id": key, "submission_id": "s1"}), encoding="utf-8")
    out = shell.run(script)
    shown = [json.loads(line) for line in out.strip().splitlines()]
    assert shown and all("at_unix_ms" in o for o in shown), f"the second command shows {out[:200]!r}"
    wait_accepted(shell, key, 1)
    return f"{key}, {len(shown)} outcome shown"


@case()
def readme_submit(shell):
    """README, "Send from your own service": a CSV file by tandemctl, watched to its end."""
    shell.run(block("README.md", "Send from your own service", "campaign submit"))
    rows = len((ROOT / "deploy/sample/recipients.csv").read_text(encoding="utf-8").strip().splitlines()) - 1
    taken = [m for r in shell.stack.relays for _, m, _ in r.taken() if not re.match(r"(example-|receipt-|spring-)", m)]
    assert len(taken) == len(set(taken)) == rows, f"{len(taken)} mails for {rows} rows"
    return f"{rows} mails"


@case("kcat", "protoc")
def proto_readme_shell(shell):
    """proto/README, "From a shell": protoc and kcat alone. The reading command waits for what comes next."""
    script = "\n".join(blocks("proto/README.md", "From a shell"))
    write, _, read = script.partition("\nkcat -C")
    assert read, "proto/README.md, \"From a shell\": no kcat -C"
    waiting = subprocess.Popen(["bash", "-euo", "pipefail", "-c", ("kcat -C" + read).replace("localhost:9092", shell.stack.bootstrap)],
                               cwd=shell.folder, env=shell.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for("kcat", 10, lambda: waiting.poll() is None)
        shell.run("sleep 2; " + write)  # kcat says nowhere that it has found the end of the topic
        out, err = waiting.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        raise AssertionError("the reading command showed no outcome within 60 s") from None
    finally:
        if waiting.poll() is None:
            waiting.kill()
    assert waiting.returncode == 0 and "campaign_id: \"receipt-4711\"" in out, f"it shows {out[:200]!r} {err[-300:]}"
    wait_accepted(shell, "receipt-4711", 1)
    return "1 mail, 1 outcome shown"


def missing(needs):
    for need in needs:
        if "." in need or need == "confluent_kafka":
            try:
                __import__(need)
            except ImportError:
                return f"Python module {need}"
        elif not shutil.which(need, path="/usr/bin:/bin"):
            return f"program {need}"
    return None


def run_case(function, needs, shell):
    name = f"examples.{function.__name__}"
    if missing(needs):
        print(f"SKIP {name}: {missing(needs)} is not here", flush=True)
        return True
    try:
        print(f"PASS {name}: {function(shell)}", flush=True)
        return True
    except (AssertionError, Failed, ValueError, KeyError, subprocess.TimeoutExpired) as why:
        print(f"FAIL {name}: {type(why).__name__ + ': ' if not str(why) else ''}{why}", flush=True)
        return False


def main():
    build, wanted = Path(sys.argv[1]).resolve(), sys.argv[2:]
    folder = Path(tempfile.mkdtemp(prefix="tandem-examples-"))
    stack, good = None, True
    try:
        stack = Stack(folder / "stack", build, "dev")
        stack.add_relay("ses-eu", "SE")
        stack.add_relay("backup", "DE")
        stack.start()
        shell = Shell(stack, folder / "shell")
        for function, needs in CASES:
            if not wanted or function.__name__ in wanted:
                good = run_case(function, needs, shell) and good
    except (Failed, OSError, subprocess.CalledProcessError) as why:
        good = False
        print(f"FAIL examples: {why}", flush=True)
    finally:
        if stack:
            stack.stop()
        if good or not os.environ.get("TANDEM_TEST_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"kept: {folder}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
