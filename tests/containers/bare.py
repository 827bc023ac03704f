"""Both commands of the README in a container that holds Debian's minimal base and a clean clone, nothing else."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import engine


def bare(version):
    image = engine.base(version)
    folder = Path(tempfile.mkdtemp(prefix="tandem-bare-"))
    try:
        engine.clone(folder / "tandem")
        # Certificates of this machine: where packages come through a proxy of its own, it is trusted here and must be there.
        trust = ["-v", "/etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro"] if os.environ.get("TANDEM_TEST_TRUST") else []
        # git and the clone are what a newcomer has; all else is installed by the commands. Packages of the suites that are not run
        # here exist at least.
        script = ("cd /tandem && deploy/quickstart --once --json --recipients 2000 >/tmp/sums.json 2>/tmp/quickstart.log "
                  "|| { tail -30 /tmp/quickstart.log; exit 1; }; cat /tmp/sums.json; "
                  "apt-get install -q -s --no-install-recommends $(deploy/packages --names build run kafka test strict lint containers) "
                  ">/tmp/names.log 2>&1 || { tail -10 /tmp/names.log; exit 1; }; "
                  f"tests/run {os.environ.get('TANDEM_TEST_BARE', 'unit')} >/tmp/tests.log 2>&1 || {{ tail -60 /tmp/tests.log; exit 1; }}; tail -1 /tmp/tests.log")
        out = engine.quiet("docker", "run", "--rm", "--name", folder.name, "--network", "host", "-v", f"{folder}/tandem:/tandem", *trust, image,
                           "bash", "-c", script)
    finally:
        engine.quiet("docker", "rm", "-f", folder.name, check=False)  # there still when we were interrupted
        shutil.rmtree(folder, ignore_errors=True)
    lines = out.strip().splitlines()
    sums = json.loads(next(line for line in lines if line.startswith("{")))
    assert sums["lost"] == sums["duplicates"] == 0 and sums["submitted"] == 2000, sums
    assert lines[-1].endswith("0 failed") or ", 0 failed, " in lines[-1], lines[-1]
    return f"quickstart: {sums['accepted']} accepted, lost 0, duplicates 0; tests/run: {lines[-1]}"


if __name__ == "__main__":
    sys.exit(engine.main("bare", [("debian12", lambda: bare(12)), ("debian13", lambda: bare(13))], together=True))
