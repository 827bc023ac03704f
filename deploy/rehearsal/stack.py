"""The whole system on one machine: a broker, Redis, two relays to rehearse with, the services.

Used by deploy/quickstart and by tests/flow. Everything it starts is on loopback, in one folder, and is stopped by pid.
Only Python's standard library.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("ingestion", "rendering", "dispatch", "bounce")


class Failed(Exception):
    """Something could not be started or did not come in time; the text says what and where its log is."""


def wait_for(what, seconds, condition, pause=0.05):
    """Wait until condition() is true; its value is returned."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"{what} did not come within {seconds:g} s")
        time.sleep(pause)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port):
    with socket.socket() as s:
        s.settimeout(0.2)
        return s.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """One program, started again with the same arguments after it was stopped or killed."""

    def __init__(self, name, argv, log, env=None):
        self.name, self.argv, self.log, self.env = name, [str(a) for a in argv], log, env
        self.popen, self.asked = None, False

    def start(self):
        self.asked = False
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env={**os.environ, **(self.env or {})}, start_new_session=True)
        return self

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def must_live(self):
        if not self.alive():
            tail = Path(self.log).read_text(errors="replace").strip().splitlines()[-5:]
            raise Failed(f"{self.name} has ended (exit code {self.popen.returncode}); the end of {self.log}:\n  " + "\n  ".join(tail))

    def send(self, sig):
        if self.alive():
            self.popen.send_signal(sig)

    def kill(self):
        self.send(signal.SIGKILL)
        if self.popen:
            self.popen.wait()

    def ask_to_stop(self):
        """TERM, once: a second one means "now"."""
        if not self.asked:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
        self.asked = True

    def stop(self, seconds=30):
        """TERM, then KILL when it takes too long. Returns the exit code."""
        self.ask_to_stop()
        if self.popen:
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.popen.returncode if self.popen else None


class Relay:
    """A relaysim with its ports kept over restarts, as a settings entry and as a process."""

    def __init__(self, stack, name, country, args=(), **settings):
        self.stack, self.name = stack, name
        self.ledger = stack.dir / f"{name}.ledger"
        self.port, self.control = free_port(), free_port()
        self.settings = {"country": country, "operated_by": "this machine", "return_path_domain": f"bounce.{name}.example.com",
                         "max_connections": 20, **settings}
        starttls = self.settings.get("tls") == "starttls"
        self.process = Process(name, [
            stack.program("tandem-relaysim"), "--listen" if starttls else "--listen-tls", f"127.0.0.1:{self.port}",
            "--control", f"127.0.0.1:{self.control}", "--cert", stack.dir / "tls/server.pem", "--key", stack.dir / "tls/server.key",
            "--ca", stack.dir / "tls/ca.pem", "--ca-key", stack.dir / "tls/ca.key",
            "--user", "tandem", "--password-file", stack.dir / "relay.password", "--ledger", self.ledger,
            "--name", f"{name}.example.com", *args], stack.dir / f"{name}.log")

    def start(self):
        self.process.start()
        wait_for(f"relay {self.name}", 10, lambda: self.process.must_live() or answers(self.port))

    def entry(self):
        s = {"name": self.name, "host": "localhost", "port": self.port, "tls": "implicit", "ca_file": str(self.stack.dir / "tls/ca.pem"),
             "user": "tandem", "password_file": str(self.stack.dir / "relay.password"), **self.settings}
        return s

    def ask(self, method, path, body=None):
        """The control port: faults and counts, see deploy/relaysim/README.md."""
        import http.client

        link = http.client.HTTPConnection("127.0.0.1", self.control, timeout=5)
        link.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
        answer = link.getresponse()
        text = answer.read()
        link.close()
        if answer.status >= 300:
            raise Failed(f"{self.name}: {method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text) if text.strip() else None

    def taken(self):
        """(unix seconds, Message-ID, what was answered) of every mail it took, oldest first."""
        if not self.ledger.exists():
            return []
        rows = []
        text = self.ledger.read_text()
        for line in text[:text.rfind("\n") + 1].splitlines():  # the last line may be half written
            if line and not line.startswith("#"):
                f = line.split("\t")
                rows.append((int(f[0]) / 1e6, f[3], f[6]))
        return rows


class OwnRelay:
    """A server that somebody else starts and stops, with its entry of the settings; it keeps no ledger."""

    def __init__(self, name, entry):
        self.name, self.settings, self.ledger, self.process = name, entry, None, None

    def start(self):
        wait_for(f"relay {self.name}", 10, lambda: answers(self.settings["port"]))

    def entry(self):
        return {"name": self.name, **self.settings}

    def taken(self):
        return []


def to_yaml(value, indent=0):
    """Enough YAML for our settings: maps, lists of words, lists of maps, scalars as JSON (which is YAML)."""
    pad = "  " * indent
    lines = []
    for key, v in value.items():
        if isinstance(v, dict):
            lines.append(f"{pad}{key}:\n{to_yaml(v, indent + 1)}")
        elif isinstance(v, list) and v and isinstance(v[0], dict):
            lines.append(f"{pad}{key}:")
            for item in v:
                body = to_yaml(item, indent + 2).lstrip()
                lines.append(f"{pad}  - {body}")
        else:
            lines.append(f"{pad}{key}: {json.dumps(v, ensure_ascii=False)}")
    return "\n".join(lines)


class Stack:
    def __init__(self, folder, build, broker="dev", say=lambda text: None, settings=None, dispatchers=1):
        self.dir, self.build, self.broker, self.say = Path(folder), Path(build), broker, say
        self.extra = settings or {}
        self.relays, self.services, self.processes = [], {}, []
        self.redis_port, self.lmtp_port = free_port(), free_port()
        self.bootstrap = None
        self.dispatchers = dispatchers
        self.dir.mkdir(parents=True, exist_ok=True)
        self._secret("keys.token"), self._secret("keys.address"), self._secret("relay.password")
        subprocess.run([ROOT / "deploy/relaysim/make-ca", self.dir / "tls", "localhost"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _secret(self, name):
        path = self.dir / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(16) + "\n")

    def program(self, name):
        for path in self.build.glob(f"**/{name}"):
            if path.is_file() and os.access(path, os.X_OK):
                return path
        raise Failed(f"{name} is not in {self.build}: it has not been built")

    def _run(self, process):
        self.processes.append(process)
        return process.start()

    # -- parts, in the order they are needed --

    def start_redis(self):
        data = self.dir / "redis"
        data.mkdir(exist_ok=True)
        self.redis = self._run(Process("redis", [
            "redis-server", "--port", self.redis_port, "--bind", "127.0.0.1", "--dir", data, "--save", "", "--appendonly", "yes",
            "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"], self.dir / "redis.log"))
        wait_for("redis-server", 10, lambda: self.redis.must_live() or answers(self.redis_port))

    def start_broker(self):
        if self.broker == "kafka":
            self.say("starting Apache Kafka (the first time its jars come from Maven Central)")
            subprocess.run([ROOT / "deploy/kafka/run", "start", "--dir", self.dir / "kafka"], check=True,
                           stdout=subprocess.DEVNULL, start_new_session=True)
            self.bootstrap = (self.dir / "kafka/bootstrap").read_text().strip()
            return
        ready = self.dir / "devbroker.ready"
        broker = self._run(Process("devbroker", [self.program("tandem-devbroker"), "--ready-file", ready,
                                                 "--set", f"kafka.lanes={self.lanes()}"], self.dir / "devbroker.log"))
        wait_for("devbroker", 10, lambda: broker.must_live() or (ready.exists() and ready.read_text().strip()))
        self.bootstrap = ready.read_text().strip()

    def lanes(self):
        return self.extra.get("kafka", {}).get("lanes", 12)

    def kafka(self, command):
        """restart, kill, stop or start the real broker."""
        subprocess.run([ROOT / "deploy/kafka/run", command, "--dir", self.dir / "kafka"], check=True,
                       stdout=subprocess.DEVNULL, start_new_session=True)

    def add_relay(self, name, country, args=(), **settings):
        relay = Relay(self, name, country, args, **settings)
        self.relays.append(relay)
        return relay

    def add_own_relay(self, name, entry):
        """A relay that is no relaysim: entry as in `relays` of the settings."""
        relay = OwnRelay(name, entry)
        self.relays.append(relay)
        return relay

    def write_settings(self):
        settings = {
            "kafka": {"brokers": self.bootstrap, "lanes": self.lanes()},
            "redis": {"url": f"redis://127.0.0.1:{self.redis_port}"},
            "keys": {"token_file": str(self.dir / "keys.token"), "address_file": str(self.dir / "keys.address")},
            "message_id_domain": "news.example.com",
            "route": [r.name for r in self.relays],
            "relays": [r.entry() for r in self.relays],
            "bounce": {"lmtp_listen": f"127.0.0.1:{self.lmtp_port}"},
        }
        for section, values in self.extra.items():
            settings[section] = {**settings.get(section, {}), **values} if isinstance(values, dict) else values
        self.settings_file = self.dir / "tandem.yaml"
        self.settings_file.write_text(to_yaml(settings) + "\n")

    def service(self, name, number=1):
        """Make (not start) one process of a service; number tells dispatchers apart."""
        key = f"{name}-{number}"
        port = free_port()
        process = Process(key, [self.program(f"tandem-{name}"), "--config", self.settings_file, "--set", f"instance=here-{number}",
                                "--set", f"http.listen=127.0.0.1:{port}"], self.dir / f"{key}.log")
        process.http_port = port
        self.services[key] = process
        self.processes.append(process)
        return process

    def ready(self, process, seconds=30):
        def asks():
            process.must_live()
            import http.client

            try:
                link = http.client.HTTPConnection("127.0.0.1", process.http_port, timeout=2)
                link.request("GET", "/readyz")
                return link.getresponse().status == 200
            except OSError:
                return False

        wait_for(f"{process.name} (log: {process.log})", seconds, asks)

    def start(self):
        self.start_redis()
        self.start_broker()
        for relay in self.relays:
            relay.start()
            if relay.process:
                self.processes.append(relay.process)
        self.write_settings()
        if self.broker == "kafka":
            self.ctl("topics", "apply")
        for name in SERVICES:
            for number in range(1, (self.dispatchers if name == "dispatch" else 1) + 1):
                self.service(name, number).start()
        for process in list(self.services.values()):
            self.ready(process)

    # -- use --

    def ctl(self, *args, check=True, text=None, timeout=120):
        done = subprocess.run([self.program("tandemctl"), "--config", self.settings_file, *map(str, args)], input=text,
                              capture_output=True, text=True, timeout=timeout, start_new_session=True)
        if check and done.returncode != 0:
            raise Failed(f"tandemctl {' '.join(map(str, args))}: exit code {done.returncode}\n{done.stderr.strip()}")
        return done

    def ctl_process(self, *args):
        """tandemctl left to itself; its stderr is the caller's."""
        return subprocess.Popen([self.program("tandemctl"), "--config", self.settings_file, *map(str, args)],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)

    def status(self, campaign):
        done = self.ctl("--json", "campaign", "status", campaign, check=False)
        try:
            return json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            return {}

    def audit(self, campaign):
        ledgers = [a for r in self.relays if r.ledger and r.ledger.exists() for a in ("--ledger", r.ledger)]
        done = self.ctl("--json", "campaign", "audit", campaign, *ledgers, check=False)
        if not done.stdout.strip():
            raise Failed(f"tandemctl campaign audit: {done.stderr.strip()}")
        return json.loads(done.stdout)

    # -- end --

    def stop(self, remove=False):
        """Everything, in the order of the flow, so that nothing is left half done."""
        for name in SERVICES:
            for key, process in self.services.items():
                if key.startswith(name + "-"):
                    process.ask_to_stop()
        codes = {key: process.stop() for key, process in self.services.items()}
        for process in reversed(self.processes):
            process.stop(10)
        if self.broker == "kafka" and (self.dir / "kafka").exists():
            subprocess.run([ROOT / "deploy/kafka/run", "stop", "--dir", self.dir / "kafka"], check=False,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if remove:
            shutil.rmtree(self.dir, ignore_errors=True)
        return codes
