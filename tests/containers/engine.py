"""A container engine for tests: the one that runs, or dockerd of our own; base images by debootstrap, since none can be
pulled where tests run."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUITES = {12: "bookworm", 13: "trixie"}


class Unavailable(Exception):
    """No engine can be started here; the text says why."""


def sh(*argv, check=True, **more):
    return subprocess.run([str(a) for a in argv], check=check, **more)


def quiet(*argv, check=True, log=None):
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if log:
        Path(log).write_text(done.stdout)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, argv))[:120]}: exit code {done.returncode}\n" + "\n".join(done.stdout.splitlines()[-25:]))
    return done.stdout


def engine():
    """Make `docker` usable. dockerd and its data are ours and go away at the end."""
    if subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        return
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        raise Unavailable("no container engine runs, and only root with docker.io installed can start one")
    folder = Path(tempfile.mkdtemp(prefix="tandem-docker-"))
    socket = folder / "docker.sock"
    log = open(folder / "log", "wb")
    daemon = subprocess.Popen(["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid",
                               "-H", f"unix://{socket}"], stdout=log, stderr=log, start_new_session=True)

    def stop():
        daemon.terminate()
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
        subprocess.run(["umount", folder / "exec/netns/default"], capture_output=True)  # dockerd leaves it mounted
        shutil.rmtree(folder, ignore_errors=True)
    atexit.register(stop)
    os.environ["DOCKER_HOST"] = f"unix://{socket}"
    for _ in range(150):
        if subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
            return
        if daemon.poll() is not None:
            break
        time.sleep(0.2)
    tail = (folder / "log").read_text(errors="replace").splitlines()[-1:]
    raise Unavailable(f"dockerd does not start here: {tail}")


def base(version):
    """Debian's minimal base as an image; its name."""
    name = f"tandem-test-debian:{version}"
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode == 0:
        return name
    folder = tempfile.mkdtemp(prefix="tandem-base-")
    try:
        quiet("debootstrap", "--variant=minbase", SUITES[version], folder)
        tar = subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE)
        sh("docker", "import", "-", name, stdin=tar.stdout, stdout=subprocess.DEVNULL)
        if tar.wait() != 0:
            raise AssertionError("tar of the base failed")
    finally:
        sh("rm", "-rf", "--one-file-system", folder)
    return name


def clone(folder):
    """A clean clone of what is committed."""
    quiet("git", "-c", "safe.directory=*", "clone", "-q", "--no-hardlinks", ROOT, folder)
    return folder


def main(suite, tests):
    """Run tests (name, function): a line each; all skipped by name where no engine can be started."""
    try:
        engine()
    except Unavailable as why:
        for name, _ in tests:
            print(f"SKIP {suite}.{name}: {why}", flush=True)
        return 0
    good = True
    for name, function in tests:
        began = time.monotonic()
        try:
            said = function()
            print(f"PASS {suite}.{name}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
        except Exception as e:  # noqa: BLE001  the next test must still run
            good = False
            print(f"FAIL {suite}.{name}: {e}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit("a module of compose.py and bare.py")
