"""A container engine for tests: the one that runs, or dockerd of our own; base images by debootstrap, since none can be
pulled where tests run.

usage: engine.py bases: make those that are not in the folder that TANDEM_TEST_BASES names, for the suites that come later
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUITES = {12: "bookworm", 13: "trixie"}


class Unavailable(Exception):
    """No engine can be started here; the text says why."""


def sh(*argv, check=True, **more):
    return subprocess.run([str(a) for a in argv], check=check, **more)


def quiet(*argv, check=True, log=None, env=None):
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env)
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


def base_tar(version, tar):
    """Debian's minimal base as a tar file. As in Debian's own images dpkg does not wait for the disk: what it writes need not
    outlive a power cut."""
    folder = Path(tempfile.mkdtemp(prefix="tandem-base-"))
    try:
        quiet("debootstrap", "--variant=minbase", SUITES[version], folder / "root",
              env={**os.environ, "DPKG_FORCE": "security-mac,downgrade,unsafe-io"})
        (folder / "root/etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
        quiet("tar", "-C", folder / "root", "-cf", folder / "tar", ".")
        tar.parent.mkdir(parents=True, exist_ok=True)
        part = f"{tar}.{os.getpid()}"
        shutil.move(folder / "tar", part)
        os.replace(part, tar)
    finally:
        sh("rm", "-rf", "--one-file-system", folder)


def base(version):
    """Debian's minimal base as an image; its name. Its tar file is kept for the next suite in the folder that TANDEM_TEST_BASES names."""
    name = f"tandem-test-debian:{version}"
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode == 0:
        return name
    kept = os.environ.get("TANDEM_TEST_BASES")
    folder = Path(kept or tempfile.mkdtemp(prefix="tandem-bases-"))
    try:
        tar = folder / f"debian{version}.tar"
        if not tar.exists():
            base_tar(version, tar)
        quiet("docker", "import", tar, name)
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    return name


def clone(folder):
    """A clean clone of what is committed."""
    quiet("git", "-c", "safe.directory=*", "clone", "-q", "--no-hardlinks", ROOT, folder)
    return folder


def run(suite, name, function):
    began = time.monotonic()
    try:
        said, good = f"PASS {suite}.{name}: {function()}", True
    except Exception as e:  # noqa: BLE001  the next test must still run
        said, good = f"FAIL {suite}.{name}: {e}", False
    print(f"{said} ({time.monotonic() - began:.0f} s)\n", end="", flush=True)
    return good


def main(suite, tests, together=False):
    """Run tests (name, function), or all of them together: a line each; all skipped by name where no engine can be started."""
    try:
        engine()
    except Unavailable as why:
        for name, _ in tests:
            print(f"SKIP {suite}.{name}: {why}", flush=True)
        return 0
    if together:
        with ThreadPoolExecutor(len(tests)) as pool:
            good = list(pool.map(lambda test: run(suite, *test), tests))
    else:
        good = [run(suite, *test) for test in tests]
    return 0 if all(good) else 1


if __name__ == "__main__":
    if sys.argv[1:] != ["bases"] or not os.environ.get("TANDEM_TEST_BASES"):
        sys.exit(__doc__)
    for number in SUITES:
        file = Path(os.environ["TANDEM_TEST_BASES"]) / f"debian{number}.tar"
        if not file.exists():
            base_tar(number, file)
