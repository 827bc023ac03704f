"""What the benchmarks share: programs on chosen cores, a relay to send to, medians, tables in README.md, PASS and FAIL lines."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "deploy/rehearsal"))
from stack import Failed, free_port, wait_for  # noqa: E402

RELAY_CORE, CLIENT_CORE = 0, (os.cpu_count() or 2) - 1
TICKS = os.sysconf("SC_CLK_TCK")


def on_core(core, at_once=False):
    """For preexec_fn: pin to one core, allow thousands of connections, go before what else the machine does (where
    allowed); at_once: woken without delay, for what measures time and hardly computes."""
    def pin():
        try:
            os.setpriority(os.PRIO_PROCESS, 0, -10)
            if at_once:
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        except PermissionError:
            pass
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {core})
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192) if hard != resource.RLIM_INFINITY else 8192, hard))
    return pin


def program(build, name):
    for folder in ("tests/bench", "deploy/relaysim"):
        if (build / folder / name).exists():
            return build / folder / name
    raise Failed(f"{name} is not built in {build}")


class Relay:
    """A relaysim on a core of its own, without AUTH and without a ledger: a sink."""

    def __init__(self, build, folder, name, *args, core=RELAY_CORE):
        ready = folder / f"{name}.ready"
        self.popen = subprocess.Popen(
            [program(build, "tandem-relaysim"), "--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0", "--control", "127.0.0.1:0",
             "--cert", folder / "tls/server.pem", "--key", folder / "tls/server.key", "--ready-file", ready, *args],
            preexec_fn=on_core(core))
        wait_for(f"relay {name}", 10, ready.exists)
        ports = json.loads(ready.read_text())
        self.port, self.tls_port, self.control = ports["port"], ports["tls_port"], ports["control_port"]

    def ask(self, method, path, body=None):
        import http.client

        link = http.client.HTTPConnection("127.0.0.1", self.control, timeout=5)
        link.request(method, path, json.dumps(body) if body is not None else None)
        answer = link.getresponse()
        text = answer.read()
        link.close()
        if answer.status >= 300:
            raise Failed(f"relaysim: {method} {path}: {text[:200]!r}")
        return json.loads(text)

    def at_once(self, on):
        try:
            os.sched_setscheduler(self.popen.pid, os.SCHED_RR if on else os.SCHED_OTHER, os.sched_param(1 if on else 0))
        except PermissionError:
            pass

    def cpu_us(self):
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) * 1e6 / TICKS

    def stop(self):
        self.popen.terminate()
        self.popen.wait()


def make_ca(folder):
    subprocess.run([ROOT / "deploy/relaysim/make-ca", folder / "tls"], check=True, capture_output=True)


def median(values):
    return statistics.median(values)


def spread(values):
    return f"{min(values):.2f}–{max(values):.2f}" if max(values) < 100 else f"{min(values):,.0f}–{max(values):,.0f}"


class Rounds:
    """for _ in Rounds(4, until): at most so many rounds, at least two, none begun that would end behind `until` (time.monotonic)."""

    def __init__(self, most, until, least=2):
        self.most, self.until, self.least, self.made = most, until, least, 0

    def __iter__(self):
        began = time.monotonic()
        while self.made < self.most:
            now = time.monotonic()
            longest = (now - began) / self.made if self.made else 0
            if self.made >= self.least and now + longest > self.until:
                break
            yield self.made
            self.made += 1

    def said(self):
        return f"{self.made} rounds" if self.made == self.most else f"{self.made} of {self.most} rounds, as the time was up"


class Goals:
    """Each goal is one line that tests/run counts."""

    all_met, all_missed = 0, 0

    def __init__(self, suite):
        self.suite, self.failed = suite, 0

    def check(self, name, good, text):
        self.failed += not good
        Goals.all_met += bool(good)
        Goals.all_missed += not good
        print(f"{'PASS' if good else 'FAIL'} bench.{self.suite}.{name}: {text}", flush=True)
        return "yes" if good else "**no**"


def load():
    return "load {:.1f} before".format(os.getloadavg()[0])


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows])


def write_section(name, text):
    """Replace what stands between the section's marks in README.md."""
    path = HERE / "README.md"
    page = path.read_text()
    begin, end = f"<!-- {name}: written by tests/bench/run -->", f"<!-- end of {name} -->"
    at, till = page.index(begin) + len(begin), page.index(end)
    path.write_text(page[:at] + "\n" + text.strip() + "\n" + page[till:])
