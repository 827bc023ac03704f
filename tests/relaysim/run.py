#!/usr/bin/python3
"""Does the rehearsal relay do what it is told, and does its ledger tell the truth?

usage: run.py BUILD_DIR|RELAYSIM [case...]     needs Python's own library and the openssl command only
"""
import os
import shutil
import subprocess
import sys
import tempfile
import traceback

import harness
import cases_faults
import cases_ledger
import cases_smtp  # importing the three registers their cases


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    place, only = sys.argv[1], sys.argv[2:]
    harness.PROGRAM = os.path.abspath(os.path.join(place, "deploy/relaysim/tandem-relaysim") if os.path.isdir(place) else place)
    harness.TOP = tempfile.mkdtemp(prefix="relaysim-test-")
    chosen = [f for f in harness.CASES if not only or f.__name__ in only]
    passed = failed = 0
    try:
        subprocess.run([harness.MAKE_CA, harness.TOP + "/ca"], check=True)
        for function in chosen:
            try:
                function()
                passed += 1
                print("PASS relaysim." + function.__name__, flush=True)
            except Exception as error:
                failed += 1
                traceback.print_exc()
                print("FAIL relaysim.%s: %s" % (function.__name__, str(error).split("\n")[0] or type(error).__name__), flush=True)
    finally:
        shutil.rmtree(harness.TOP, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
