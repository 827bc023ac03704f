"""deploy/quickstart as a user runs it: its sums, its refusals, and that nothing is left of it.

usage: quickstart.py [case...]
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"submitted": int, "accepted": int, "primary": int, "backup": int, "lost": int, "duplicates": int, "unconfirmed": int,
        "failover_ms": int, "seconds": (int, float)}
CASES = []


def case(function):
    CASES.append(function)
    return function


class Quickstart:
    """One run, in a session of its own, with all its files below a temp folder by which its processes are known."""

    def __init__(self, *args):
        self.folder = Path(tempfile.mkdtemp(prefix="quickstart-test-"))
        # As from a terminal: who runs tests in the background has SIGINT ignored, and so would all below.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.popen = subprocess.Popen([ROOT / "deploy/quickstart", *args], cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(self.folder)},
                                      start_new_session=True)
        self.out, self.err = [], []
        self.readers = [threading.Thread(target=self._read, args=pair, daemon=True)
                        for pair in ((self.popen.stdout, self.out), (self.popen.stderr, self.err))]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def _read(pipe, into):
        for line in pipe:
            into.append(line)

    def stderr(self):
        return "".join(self.err)

    def wait_line(self, text, seconds):
        end = time.monotonic() + seconds
        while text not in self.stderr():
            assert self.popen.poll() is None, f"ended with {self.popen.returncode} before it said \"{text}\": {self.tail()}"
            assert time.monotonic() < end, f"did not say \"{text}\" within {seconds} s: {self.tail()}"
            time.sleep(0.1)

    def end(self, seconds):
        """Its exit code."""
        try:
            code = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {seconds} s: {self.tail()}") from None
        for reader in self.readers:
            reader.join(5)
            assert not reader.is_alive(), "something that it started still holds its output open"
        return code

    def interrupt(self):
        """Ctrl-C: the terminal sends SIGINT to the foreground process group."""
        os.killpg(self.popen.pid, signal.SIGINT)

    def left(self):
        """Processes of ours: by a path on the command line, the working directory (redis-server writes over its command
        line) or the environment that they inherited."""
        found = []
        for pid in (p for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()):
            command, marks = self._proc(pid, "cmdline"), self._proc(pid, "environ")
            try:
                marks += os.readlink(f"/proc/{pid}/cwd")
            except OSError:
                pass
            if str(self.folder) in command + marks:
                found.append((int(pid), command.replace("\0", " ").strip()))
        return found

    @staticmethod
    def _proc(pid, name):
        try:
            return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
        except OSError:  # gone, or another user's
            return ""

    def check_nothing_left(self):
        left = self.left()
        assert not left, f"still running: {'; '.join(f'{pid} {command[:80]}' for pid, command in left)}"
        files = sorted(p.name for p in self.folder.iterdir())
        assert not files, f"left in the temp folder: {files}"

    def tail(self):
        return " | ".join(line.strip() for line in self.err[-6:])

    def close(self):
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGTERM)
            try:
                self.popen.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.popen.pid, signal.SIGKILL)
        for pid, _ in self.left():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if os.environ.get("TANDEM_TEST_KEEP") and any(self.folder.iterdir()):
            print(f"    kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


@case
def once_json(start):
    """Every recipient one mail across a failover, said in one JSON object and nothing else on stdout."""
    run = start("--once", "--json")
    code = run.end(1800)
    assert code == 0, f"exit code {code}: {run.tail()}"
    out = "".join(run.out)
    sums, end = json.JSONDecoder().raw_decode(out)
    assert isinstance(sums, dict) and not out[end:].strip(), f"more than one JSON object on stdout: {out[:200]!r}"
    for key, kind in KEYS.items():
        assert isinstance(sums.get(key), kind) and not isinstance(sums[key], bool), f"{key}: {sums.get(key)!r}"
    assert sums["lost"] == 0 and sums["duplicates"] == 0, f"lost or sent twice: {sums}"
    assert sums["submitted"] == 10000 and sums["accepted"] + sums["unconfirmed"] == sums["submitted"], f"sums do not add up: {sums}"
    assert sums["primary"] + sums["backup"] == sums["accepted"], f"relays do not add up: {sums}"
    assert sums["backup"] > 0 and sums["primary"] > 0, f"one relay took nothing: {sums}"
    run.check_nothing_left()
    return (f"{sums['primary']} + {sums['backup']} accepted, {sums['unconfirmed']} unconfirmed, switched in {sums['failover_ms']} ms, "
            f"{sums['seconds']} s")


@case
def too_many_recipients(start):
    """More than the broker in memory holds: refused before anything is started, with what to do instead."""
    run = start("--once", "--json", "--recipients", "1000000")
    code = run.end(1800)
    assert code == 64, f"exit code {code}: {run.tail()}"
    assert "--broker kafka" in run.stderr(), f"no hint to --broker kafka: {run.tail()}"
    assert not "".join(run.out).strip(), "something on stdout"
    run.check_nothing_left()
    return f"exit code {code}"


@case
def wrong_options(start):
    """Typing errors end with a usage error, and start nothing."""
    for args in (("--nonsense",), ("--recipients", "many"), ("--recipients", "3"), ("--broker", "rabbit")):
        run = start(*args)
        code = run.end(1800)
        assert code == 64, f"{' '.join(args)}: exit code {code}: {run.tail()}"
        run.check_nothing_left()
    return "4 refused"


def run_hint(said):
    """The commands that it shows, as somebody would paste them."""
    commands = "\n".join(line for line in said.splitlines() if line.startswith("  ") and re.match(r"\s+(export|\S*tandemctl|--)", line))
    assert "TANDEM_CONFIG=" in commands and "campaign submit" in commands, f"it does not say how to go on: {said[-300:]}"
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, f"the commands that it shows end with {done.returncode}: {done.stderr.strip()[-300:]}"


@case
def ctrl_c_at_the_end(start):
    """It stays up and shows commands that work, until Ctrl-C; then nothing of it is left."""
    run = start("--recipients", "2000")
    run.wait_line("Ctrl-C stops everything", 900)
    running = len(run.left())
    assert running >= 9, f"only {running} processes are up"  # itself, redis-server, broker, two relays, four services
    run_hint(run.stderr())
    run.interrupt()
    code = run.end(60)
    assert code == 0, f"exit code {code}: {run.tail()}"
    run.check_nothing_left()
    return f"{running} processes stopped"


@case
def ctrl_c_in_the_middle(start):
    """Ctrl-C while mails are on their way: no process is left."""
    run = start("--once", "--json", "--recipients", "10000")
    run.wait_line("submitting", 900)
    time.sleep(1)
    run.interrupt()
    code = run.end(60)
    assert code != 0, "an interrupted run says that all is well"
    assert not "".join(run.out).strip(), "sums of an interrupted run"
    left = run.left()
    assert not left, f"still running: {left}"
    return f"exit code {code}"


def run_case(function):
    started = []

    def start(*args):
        started.append(Quickstart(*args))
        return started[-1]

    try:
        print(f"PASS quickstart.{function.__name__}: {function(start)}", flush=True)
        return True
    except (AssertionError, ValueError) as why:
        print(f"FAIL quickstart.{function.__name__}: {why}", flush=True)
        return False
    finally:
        for run in started:
            run.close()


def main():
    wanted = sys.argv[1:]
    results = [run_case(f) for f in CASES if not wanted or f.__name__ in wanted]
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
