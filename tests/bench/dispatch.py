"""The engine alone into relaysim: paired rounds, medians, ratios to smtp-source (R) of the same round."""

import json
import math
import os
import shutil
import subprocess
import sys
import time

from common import CLIENT_CORE, ROOT, Goals, Relay, Rounds, load, make_ca, median, on_core, program, spread, table, write_section

sys.path.insert(0, str(ROOT / "tests/flow"))
from stack import answers, free_port, wait_for  # noqa: E402
from mta_servers import NotHere, find, libraries, unpack  # noqa: E402

RTT_S = 0.025
HOLD_S, REST_S = 20, 185  # what the memory takes, and all that comes after the rates
CONNECTIONS = 1000
SIZES = (10240, 51200)
MODES = ("lock step", "PIPELINING", "BDAT")
# (plaintext or TLS, mode, size) -> what the rate must be, in R of the same size. Where the design names no size, 10 KiB.
GOALS = {("plain", "lock step", 10240): 1.3, ("plain", "PIPELINING", 10240): 3, ("TLS", "lock step", 10240): 0.8,
         ("TLS", "PIPELINING", 10240): 2, ("TLS", "PIPELINING", 51200): 0.7}
STAGES_MAILS = {"lock step": 60000, "PIPELINING": 160000, "BDAT": 240000}
MAILS = {"lock step": 8000, "PIPELINING": 20000, "BDAT": 20000}


class Bench:
    def __init__(self, build, folder, rounds, until):
        self.build, self.folder, self.rounds, self.until, self.goals = build, folder, rounds, until, Goals("dispatch")
        self.reference_cpu = []
        make_ca(folder)
        self.relays = {"lock step": Relay(build, folder, "lock", "--no-pipelining"), "PIPELINING": Relay(build, folder, "pipe"),
                       "BDAT": Relay(build, folder, "bdat", "--chunking")}
        self.smtp_source = self.find_smtp_source()

    def find_smtp_source(self):
        here = shutil.which("smtp-source") or shutil.which("smtp-source", path="/usr/sbin")
        if here:
            return [here], {}
        try:
            unpack(["postfix"], self.folder / "postfix")
            path = find(self.folder / "postfix", "usr/sbin/smtp-source")
        except NotHere as e:
            print(f"SKIP bench.dispatch.reference: {e}")
            return None
        return [path], {"LD_LIBRARY_PATH": ":".join(libraries(self.folder / "postfix"))}

    def stop(self):
        for relay in self.relays.values():
            relay.stop()

    def reference(self, size):
        """smtp-source, 10 sessions, plaintext. Mails a second."""
        argv, env = self.smtp_source
        mails, cpu, relay_cpu = 8000, os.times(), self.relays["PIPELINING"].cpu_us()
        began = time.monotonic()
        subprocess.run([*argv, "-d", "-s", "10", "-l", str(size), "-m", str(mails), "-f", "a@example.com", "-t", "b@example.net",
                        f"127.0.0.1:{self.relays['PIPELINING'].port}"], env={**os.environ, **env}, check=True,
                       preexec_fn=on_core(CLIENT_CORE), stderr=subprocess.DEVNULL)
        seconds, now = time.monotonic() - began, os.times()
        self.reference_cpu.append(((now.children_user - cpu.children_user) * 1e6 / mails, (now.children_system - cpu.children_system) * 1e6 / mails,
                                   (self.relays["PIPELINING"].cpu_us() - relay_cpu) / mails))
        return mails / seconds

    def engine(self, relay, wire, mode, size, mails, connections=10, port=None, at_once=False, **more):
        """One run of the program. Its JSON, and the relay's CPU a mail."""
        plain = wire == "plain"
        argv = [program(self.build, "td_bench_dispatch_plain" if plain else "td_bench_dispatch"),
                "--port", port or (relay.port if plain else relay.tls_port), "--ca", self.folder / "tls/ca.pem", "--connections", connections,
                "--mails", mails, "--bytes", size]
        argv += ["--starttls"] if plain else []
        argv += ["--lock-step"] if mode == "lock step" else []
        for key, value in more.items():
            argv += [f"--{key}", value]
        before = relay.cpu_us()
        done = subprocess.run([str(a) for a in argv], check=True, stdout=subprocess.PIPE, text=True, preexec_fn=on_core(CLIENT_CORE, at_once))
        result = json.loads(done.stdout)
        result["relay_us"] = (relay.cpu_us() - before) / max(1, result["mails"])
        return result

    # ---- what is measured ----

    def rates(self):
        """Each round: R and every cell, one after another, so that a busy moment of the machine hits neighbours alike."""
        cells = [(wire, mode, size) for size in SIZES for wire in ("plain", "TLS") for mode in MODES]
        results, ratios, r = {c: [] for c in cells}, {c: [] for c in cells}, {s: [] for s in SIZES}
        rounds = Rounds(self.rounds, self.until - REST_S)
        for _ in rounds:
            for wire, mode, size in cells:
                # R right before and after each cell would double the time; before is what the ratio uses.
                now = self.reference(size)
                got = self.engine(self.relays[mode], wire, mode, size, MAILS[mode] // (1 if size == 10240 else 2))
                r[size].append(now)
                results[wire, mode, size].append(got)
                ratios[wire, mode, size].append(got["rate"] / now)
        user, system, theirs = (median(column) for column in zip(*self.reference_cpu))
        reference = f"{user:.1f} + {system:.1f}", f"{theirs:.1f}"
        rows = [[f"{size // 1024} KiB", "smtp-source (R)", "", f"{median(r[size]):,.0f}", "1", "", "", *reference] for size in SIZES]
        for cell in cells:
            wire, mode, size = cell
            goal, ratio = GOALS.get(cell), median(ratios[cell])
            met = "" if goal is None else self.goals.check(f"{wire.lower()}_{size // 1024}k_{mode.lower().replace(' ', '_')}",
                                                           ratio >= goal, f"{ratio:.2f} x R, goal {goal}")
            rows.append([f"{size // 1024} KiB", wire, mode, f"{median([g['rate'] for g in results[cell]]):,.0f}",
                         f"{ratio:.2f} ({spread(ratios[cell])})", goal or "", met,
                         "{:.1f} + {:.1f}".format(median([g["user_us"] for g in results[cell]]), median([g["system_us"] for g in results[cell]])),
                         f"{median([g['relay_us'] for g in results[cell]]):.1f}"])
        return f"{rounds.said()}:\n\n" + table(["mail", "client", "dialogue", "mails/s", "in R (min–max)", "goal", "met",
                                                "CPU µs a mail, user + system", "relay's"], rows)

    def round_trips(self):
        rows = []
        for name, mode, connections, bound, share in (("lock step", "lock step", 50, 50 / (4 * RTT_S), 0.95),
                                                      ("pipelining", "PIPELINING", 50, 50 / RTT_S, 0.95),
                                                      ("bdat_window_8", "BDAT", 1, 8 / RTT_S, 7 / 8)):
            relay, rates = self.relays[mode], []
            port = free_port()
            delay = subprocess.Popen([program(self.build, "td_delay"), str(port), str(relay.tls_port), str(int(RTT_S / 2 * 1e6))],
                                     stdin=subprocess.PIPE, preexec_fn=on_core(0, True))
            relay.at_once(True)
            wait_for("td_delay", 5, lambda: answers(port))
            for _ in range(3):
                rates.append(self.engine(relay, "TLS", mode, 10240, int(bound * 2), connections, port=port, at_once=True)["rate"])
            relay.at_once(False)
            delay.stdin.close()
            delay.wait()
            met = self.goals.check(f"rtt_{name.replace(' ', '_')}", median(rates) >= bound * share,
                                   f"{median(rates):.0f}/s of {bound:.0f}/s, goal {share:.1%}")
            rows.append([connections, mode, f"{bound:,.0f}", f"{median(rates):,.0f} ({spread(rates)})", f"{median(rates) / bound:.1%}",
                         f"{share:.1%}", met])
        return table(["connections", "dialogue", "bound, mails/s", "measured (min–max)", "of it", "goal", "met"], rows)

    def refusals(self):
        rows = []
        for mode in MODES:
            relay, ratios, got = self.relays[mode], [], None
            rounds = Rounds(max(5, self.rounds), self.until - 2 * HOLD_S - 30 * (len(MODES) - 1 - MODES.index(mode)))
            for _ in rounds:
                clean = self.engine(relay, "TLS", mode, 10240, MAILS[mode])
                relay.ask("POST", "/fault", {"at": "rcpt", "do": "reply", "code": 550, "text": "no such user", "share": 0.05})
                got = self.engine(relay, "TLS", mode, 10240, MAILS[mode])
                relay.ask("DELETE", "/fault")
                again = self.engine(relay, "TLS", mode, 10240, MAILS[mode])
                ratios.append(got["rate"] / ((clean["rate"] + again["rate"]) / 2))
            met = self.goals.check(f"refused_{mode.lower().replace(' ', '_')}", median(ratios) >= 0.95,
                                   f"{median(ratios):.3f} of the rate without, goal 0.95")
            rows.append([mode, f"{got['refused'] / got['mails']:.1%}", f"{median(ratios):.3f} ({spread(ratios)})", rounds.made, "0.95", met])
        return table(["dialogue", "refused at RCPT", "rate ÷ rate without (min–max)", "rounds", "goal", "met"], rows)

    def handshakes(self):
        """One mail a connection, so that what is measured is connecting: with and without resumption in turn. Not all are resumed:
        OpenSSL uses a ticket of TLS 1.3 once, and libcurl before 8.12 keeps only the last one."""
        relay, found = self.relays["PIPELINING"], {"full": [], "resumed": []}
        for _ in Rounds(self.rounds, self.until - HOLD_S):
            for how, seconds in (("full", 0), ("resumed", 600)):
                before = relay.ask("GET", "/status")
                got = self.engine(relay, "TLS", "PIPELINING", 10240, CONNECTIONS, **{"per-connection": 1, "resume": seconds})
                after = relay.ask("GET", "/status")
                got["share"] = (after["tls_resumed"] - before["tls_resumed"]) / (after["tls_handshakes"] - before["tls_handshakes"])
                found[how].append(got)
        cost = {how: median([g["user_us"] + g["system_us"] for g in runs]) for how, runs in found.items()}
        share = median([g["share"] for g in found["resumed"]])
        met = self.goals.check("tls_resumed", share >= 0.5 and cost["resumed"] < cost["full"],
                               f"{share:.0%} resumed, {cost['resumed']:.0f} µs a connection instead of {cost['full']:.0f}")
        rows = [[how, f"{median([g['share'] for g in runs]):.0%}", f"{median([g['rate'] for g in runs]):,.0f}", f"{cost[how]:.0f}",
                 f"{median([g['relay_us'] for g in runs]):.0f}", met if how == "resumed" else ""] for how, runs in found.items()]
        return table(["handshakes", "resumed", "connections/s", "CPU µs a connection", "relay's", "met"], rows)

    def stages(self):
        """With and without in turn in one process; see run_stages of td_bench_dispatch.c."""
        ratios, cost = {mode: [] for mode in MODES}, {mode: [] for mode in MODES}
        rounds = Rounds(5, self.until - HOLD_S)
        for _ in rounds:
            for mode in MODES:
                argv = [program(self.build, "td_bench_dispatch"), "--port", self.relays[mode].tls_port, "--ca", self.folder / "tls/ca.pem",
                        "--stages", "--mails", STAGES_MAILS[mode]]
                done = subprocess.run([str(a) for a in argv], check=True, stdout=subprocess.PIPE, text=True, preexec_fn=on_core(CLIENT_CORE))
                got = json.loads(done.stdout)
                ratios[mode].append(got["with_us"] / got["without_us"])
                cost[mode].append(got["without_us"])
        return f"{rounds.said()}:\n\n" + table(["dialogue", "CPU µs a mail", "÷ without stages (min–max)"], [
            [mode, f"{median(cost[mode]):.1f}", f"{median(ratios[mode]):.3f} ({min(ratios[mode]):.3f}–{max(ratios[mode]):.3f})"] for mode in MODES])

    def memory(self):
        got = self.hold()
        each = [(kib - got["before_kib"]) / got["connections"] for kib in got["rss_kib"]]
        flat = each[-1] <= each[1] * 1.05 + 1
        met = self.goals.check("memory", max(each) <= 100 and flat and got["connections"] == 1000,
                               f"{max(each):.0f} KB a connection of {got['connections']}, {each[0]:.0f} at first, {each[-1]:.0f} at the end")
        return (f"{got['connections']} TLS connections in one process and loop, {got['mails']:,} mails over them: resident memory grown by "
                + ", ".join(f"{kib:.0f}" for kib in each) + f" KiB a connection (eight looks, one after another). Goal ≤ 100, flat: {met}.")

    def hold(self):
        argv = [program(self.build, "td_bench_dispatch"), "--port", self.relays["PIPELINING"].tls_port, "--ca", self.folder / "tls/ca.pem",
                "--connections", 1000, "--bytes", 10240, "--hold", 12]
        done = subprocess.run([str(a) for a in argv], check=True, stdout=subprocess.PIPE, text=True, preexec_fn=on_core(CLIENT_CORE))
        return json.loads(done.stdout)


def main(build, folder, quick=False, until=math.inf):
    began = load()
    bench = Bench(build, folder, 2 if quick else 4, until)
    parts = []
    try:
        if bench.smtp_source:
            parts += [bench.rates()]
        parts += [f"Round trip {RTT_S * 1000:.0f} ms, 10 KiB, TLS:\n\n" + bench.round_trips(), "5 % of the recipients refused, 10 KiB, TLS, "
                  "10 connections:\n\n" + bench.refusals(), "A connection for each mail, 10 KiB, TLS 1.3, P-256:\n\n" + bench.handshakes(),
                  "CPU by stage measured as in a service, 10 KiB, TLS, " + bench.stages(), bench.memory()]
        unoffered = bench.relays["lock step"].ask("GET", "/status")["unoffered_pipelining"]
        bench.goals.check("lock_step_is_lock_step", unoffered == 0, f"{unoffered} commands ahead of a reply")
    finally:
        bench.stop()
    write_section("dispatch", f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, {began}.\n\n" + "\n\n".join(parts))
    return bench.goals.failed
