"""docker-compose.yml for real: images built, 2,000 mails, the primary stopped mid-way, dispatchers scaled from 1 to 3; then up
once more by Compose v2."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import engine

COUNT = 2000
PROJECT = "tandemtest"


def compose_command():
    """docker-compose 1.29 or v2, by what is installed."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"]


def compose2_command(folder):
    """The v2 of Debian 13, in a container that has the engine's socket and the folder by its own name."""
    engine.quiet("docker", "build", "-q", "--network", "host", "--build-arg", f"BASE={engine.base(13)}", "-t", "tandem-test-compose2", "-f",
                 engine.ROOT / "tests/containers/compose2.Dockerfile", engine.ROOT / "tests/containers")
    socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    names = ("COMPOSE_PROJECT_NAME", "TANDEM_BASE", "KAFKA_IMAGE", "REDIS_IMAGE")
    return ["docker", "run", "--rm", "-i", "--network", "host", "-v", f"{socket}:/var/run/docker.sock", "-v", f"{folder}:{folder}:ro", "-w", str(folder),
            *(word for name in names for word in ("-e", name)), "tandem-test-compose2"]


class Compose:
    def __init__(self, folder, command=None):
        self.folder = folder
        self.command = command or compose_command()
        self.env = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "TANDEM_BASE": engine.base(13), "KAFKA_IMAGE": "tandem-test-kafka",
                    "REDIS_IMAGE": "tandem-test-redis", "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}

    def __call__(self, *args, check=True, text=None):
        done = subprocess.run([*self.command, *args], cwd=self.folder, env=self.env, input=text, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise AssertionError(f"docker-compose {' '.join(args)}: exit code {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
        return done.stdout

    def inside(self, *args, text=None, check=True):
        return self("exec", "-T", "ingestion", *args, text=text, check=check)

    def status(self, campaign):
        out = self.inside("tandemctl", "--json", "campaign", "status", campaign, check=False).strip()
        try:
            return json.loads(out.splitlines()[-1])
        except (IndexError, ValueError):
            return {}


def stand_ins():
    """Kafka's jars and Redis as images of the names that docker-compose.yml takes from the environment."""
    folder = Path(tempfile.mkdtemp(prefix="tandem-kafka-"))
    try:
        jars = subprocess.run([engine.ROOT / "deploy/kafka/run", "jars"], check=True, capture_output=True, text=True).stdout.strip()
        shutil.copytree(jars, folder / "jars")
        shutil.copy(engine.ROOT / "tests/containers/kafka-start", folder / "start")
        for name in ("kafka", "redis"):
            engine.quiet("docker", "build", "-q", "--network", "host", "--build-arg", f"BASE={engine.base(13)}", "-t", f"tandem-test-{name}", "-f",
                         engine.ROOT / f"tests/containers/{name}.Dockerfile", folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait(what, seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come within {seconds} s")
        time.sleep(0.3)


def slow_down(port):
    """A final reply after 400 ms: 50 mails a second by 20 connections, so that the story has a middle."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    link.request("POST", "/fault", json.dumps({"at": "final", "do": "slow", "delay_ms": 400}), {"Content-Type": "application/json"})
    assert link.getresponse().status == 200, "the relay's control port does not answer"


def wait_healthy(stack):
    wait("the four services to be healthy", 120, lambda: all(
        "healthy" in subprocess.run(["docker", "ps", "--filter", f"name={PROJECT}", "--filter", f"name={name}", "--format", "{{.Status}}"],
                                    capture_output=True, text=True, env=stack.env).stdout.replace("unhealthy", "")
        for name in ("ingestion", "rendering", "dispatch", "bounce")))


def submit(stack, count):
    stack.inside("sh", "-c", "cat >/tmp/r.csv", text="email,first_name\n" + "".join(f"reader{i}@example.com,Åsa\n" for i in range(count)))
    stack.inside("sh", "-c", "cat >/tmp/t.html", text="<p>Hej {{first_name}}</p>")
    return stack.inside("tandemctl", "campaign", "submit", "--recipients", "/tmp/r.csv", "--from", "News <news@news.example.com>",
                        "--subject", "Hej {{first_name}}", "--html", "/tmp/t.html").strip().splitlines()[-1]


def send_through_failover():
    stand_ins()
    folder = Path(tempfile.mkdtemp(prefix="tandem-compose-"))
    engine.clone(folder / "tandem")
    stack = Compose(folder / "tandem")
    try:
        stack("up", "-d", "--build", "--scale", "dispatch=1")
        wait_healthy(stack)
        slow_down(28081)
        slow_down(28082)
        campaign = submit(stack, COUNT)
        wait("a tenth of the mails", 60, lambda: stack.status(campaign).get("accepted", 0) > COUNT // 10)
        stack("kill", "relay-primary")
        stack("up", "-d", "--no-build", "--scale", "dispatch=3")  # starts the primary again, too
        stack("kill", "relay-primary")
        wait("mail by the backup", 60, lambda: stack.status(campaign).get("by_relay", {}).get("backup", 0) > 50)
        stack("start", "relay-primary")
        wait("the end of the campaign", 180, lambda: stack.status(campaign).get("finished"))
        for name in ("primary", "backup"):
            ledger = stack("exec", "-T", f"relay-{name}", "cat", "/ledger/mails")
            stack.inside("sh", "-c", f"cat >/tmp/{name}", text=ledger)
        audit = json.loads(stack.inside("tandemctl", "--json", "campaign", "audit", campaign, "--ledger", "/tmp/primary", "--ledger",
                                        "/tmp/backup", check=False).strip().splitlines()[-1])
        assert audit["submitted"] == COUNT and audit["lost"] == audit["duplicates"] == audit["extra"] == audit["conflicts"] == 0, audit
        assert audit["accepted"] + audit["unconfirmed"] == COUNT, audit
        running = subprocess.run(["docker", "ps", "-q", "--filter", f"name={PROJECT}.dispatch"], capture_output=True, text=True, env=stack.env)
        assert len(running.stdout.split()) == 3, "dispatch was not scaled to 3"
        return f"{audit['accepted']} accepted ({audit['by_relay']}), {audit['unconfirmed']} unconfirmed, lost 0, duplicates 0"
    except AssertionError:
        print(stack("ps", check=False)[-3000:])
        print(stack("logs", "--tail", "8", check=False)[-6000:])
        raise
    finally:
        stack("down", "-v", "--remove-orphans", "-t", "15", check=False)
        shutil.rmtree(folder, ignore_errors=True)


def up_by_v2():
    """The images are there from the case before: both versions read the same file."""
    folder = Path(tempfile.mkdtemp(prefix="tandem-compose2-"))
    engine.clone(folder / "tandem")
    stack = Compose(folder / "tandem", compose2_command(folder / "tandem"))
    try:
        said = subprocess.run([*stack.command, "config", "-q"], env=stack.env, capture_output=True, text=True)
        assert said.returncode == 0 and not said.stderr.strip(), said.stderr
        stack("up", "-d", "--no-build", "--scale", "dispatch=2")
        wait_healthy(stack)
        campaign = submit(stack, COUNT // 10)
        wait("the end of the campaign", 60, lambda: stack.status(campaign).get("finished"))
        status = stack.status(campaign)
        assert status["accepted"] == COUNT // 10, status
        return f"{stack('version', '--short').strip()}: no error, no warning; {status['accepted']} accepted by 2 dispatchers"
    finally:
        stack("down", "-v", "--remove-orphans", "-t", "15", check=False)
        shutil.rmtree(folder, ignore_errors=True)


def config_is_clean():
    done = subprocess.run([*compose_command(), "config", "-q"], cwd=engine.ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    return "no error, no warning"


if __name__ == "__main__":
    sys.exit(engine.main("compose", [("config", config_is_clean), ("failover", send_through_failover), ("v2", up_by_v2)]))
