"""Processes that share one relay's rate through Redis: evenness, never above the quota, all of it used."""

import array
import bisect
import math
import shutil
import signal
import subprocess
import time

from common import HERE, Goals, load, on_core, program, table, write_section
from stack import Failed, answers, free_port, wait_for

RATES = (14, 200, 1000, 5000)
PROCESSES = (1, 2, 4, 8)
RAMP_S = 1.5  # joining is not yet steady
LONG_S = 200  # what it takes when nothing is cut short


class Fleet:
    def __init__(self, build, folder, port, rate):
        self.build, self.folder, self.url, self.rate = build, folder, f"redis://127.0.0.1:{port}", rate
        self.logs, self.live = [], []

    def join(self):
        log = self.folder / f"pace-{self.rate}-{len(self.logs)}.log"
        self.logs.append(log)
        self.live.append(subprocess.Popen([program(self.build, "td_bench_pace"), self.url, str(self.rate), log], preexec_fn=on_core(None), stderr=subprocess.DEVNULL))

    def go(self, how):
        popen = self.live.pop(0)
        popen.send_signal(how)
        popen.wait()

    def end(self):
        while self.live:
            self.go(signal.SIGTERM)
        times = []
        for log in self.logs:
            values = array.array("Q", log.read_bytes())
            times += values[:values.index(0) if 0 in values else len(values)]
            log.unlink()
        return sorted(times)


def redis_cli(port, *words):
    return subprocess.run(["redis-cli", "-p", str(port), *words], check=True, capture_output=True, text=True).stdout


def script_calls(port):
    lines = [line for line in redis_cli(port, "info", "commandstats").splitlines() if line.startswith(("cmdstat_eval", "cmdstat_evalsha"))]
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in lines)


def worst_second(times):
    """The most sends in any second, wherever it begins."""
    worst = 0
    for i, at in enumerate(times):
        worst = max(worst, i - bisect.bisect_right(times, at - 1000000) + 1)
    return worst


def deviation(times, begin, end):
    """Standard deviation of the counts of 100 ms windows, as a part of their mean."""
    counts = [0] * ((end - begin) // 100000)
    for at in times:
        if begin <= at < begin + len(counts) * 100000:
            counts[(at - begin) // 100000] += 1
    mean = sum(counts) / len(counts)
    return math.sqrt(sum((c - mean) ** 2 for c in counts) / len(counts)) / mean if mean else math.inf


def steady(build, folder, port, rate, count, seconds):
    redis_cli(port, "flushall")
    fleet = Fleet(build, folder, port, rate)
    for _ in range(count):
        fleet.join()
    time.sleep(RAMP_S)
    begin, calls = time.monotonic_ns() // 1000, script_calls(port)
    time.sleep(seconds)
    end, calls = time.monotonic_ns() // 1000, script_calls(port) - calls
    times = fleet.end()
    within = [t for t in times if begin <= t < end]
    return {"worst": worst_second(times) / rate, "deviation": deviation(within, begin, end),
            "used": len(within) / (rate * (end - begin) / 1e6), "calls": calls / max(1, len(within)), "times": within, "begin": begin}


def churn(build, folder, port, rate, seconds):
    """Up to eight; every half second one joins, leaves, or is killed."""
    redis_cli(port, "flushall")
    fleet = Fleet(build, folder, port, rate)
    begin = time.monotonic_ns() // 1000
    for step in range(int(seconds * 2)):
        if len(fleet.live) < 3 or (step % 3 == 0 and len(fleet.live) < 8):
            fleet.join()
        else:
            fleet.go(signal.SIGKILL if step % 3 == 1 else signal.SIGTERM)
            fleet.join()
        time.sleep(0.5)
    end = time.monotonic_ns() // 1000
    times = fleet.end()
    return {"worst": worst_second(times) / rate, "used": len([t for t in times if begin + 1500000 <= t < end]) / (rate * (end - begin - 1500000) / 1e6),
            "times": times, "begin": begin}


# ---- the picture ----

def svg(panels, path):
    """One panel a run: mails in each 100 ms, as a part of what the quota allows in 100 ms."""
    width, height, columns = 300, 110, 4
    rows = (len(panels) + columns - 1) // columns
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{columns * width}" height="{rows * height + 20}" font-family="sans-serif" font-size="10">',
           f'<rect width="100%" height="100%" fill="white"/><text x="8" y="14">Mails in each 100 ms ÷ quota. Line: 1.0</text>']
    for i, (title, times, begin, rate) in enumerate(panels):
        left, top = (i % columns) * width, 20 + (i // columns) * height
        counts = [0] * 50
        for at in times:
            if 0 <= (at - begin) // 100000 < len(counts):
                counts[(at - begin) // 100000] += 1
        scale, base = (height - 40) / 2, top + height - 8
        out.append(f'<text x="{left + 8}" y="{top + 14}">{title}</text>')
        for k, count in enumerate(counts):
            tall = min(2.0, count / (rate / 10)) * scale
            out.append(f'<rect x="{left + 8 + k * 5.6:.1f}" y="{base - tall:.1f}" width="4.6" height="{tall:.1f}" fill="#3b6ea5"/>')
        out.append(f'<line x1="{left + 8}" x2="{left + 288}" y1="{base - scale:.1f}" y2="{base - scale:.1f}" stroke="#c0392b"/>')
    path.write_text("\n".join([*out, "</svg>"]) + "\n")


def main(build, folder, quick=False, until=math.inf):
    goals, rows, panels, began = Goals("pace"), [], [], load()
    if not shutil.which("redis-server"):
        raise Failed("redis-server is not installed")
    port = free_port()
    server = subprocess.Popen(["redis-server", "--port", str(port), "--save", "", "--dir", folder], stdout=subprocess.DEVNULL,
                              preexec_fn=on_core(None))
    try:
        wait_for("redis-server", 10, lambda: answers(port))
        for rate in RATES:
            for count in PROCESSES:
                short = quick or time.monotonic() > until - LONG_S * (len(RATES) - RATES.index(rate)) / len(RATES)
                seconds = (4 if short else 6) * (2 if rate < 100 else 1)
                got = steady(build, folder, port, rate, count, seconds)
                even = rate < 200 or got["deviation"] <= 0.05
                good = got["worst"] <= 1 and even and got["used"] >= 0.98 and got["calls"] * rate <= max(2 * rate, 6 * count)
                met = goals.check(f"{rate}_per_s_{count}_processes", good,
                                  f"worst second {got['worst']:.3f}, deviation {got['deviation']:.1%}, used {got['used']:.1%}, "
                                  f"{got['calls']:.2f} calls a mail")
                rows.append([f"{rate:,}", count, f"{got['worst']:.3f}", f"{got['deviation']:.1%}", f"{got['used']:.1%}", f"{got['calls']:.3f}", met])
                panels.append((f"{rate}/s, {count} processes", got["times"], got["begin"], rate))
        for rate in RATES:
            got = churn(build, folder, port, rate, 6 if quick or time.monotonic() > until - 20 * (len(RATES) - RATES.index(rate)) else 10)
            met = goals.check(f"{rate}_per_s_churn", got["worst"] <= 1, f"worst second {got['worst']:.3f}, used {got['used']:.1%}")
            rows.append([f"{rate:,}", "3 to 8, one joins, leaves or is killed each 0.5 s", f"{got['worst']:.3f}", "", f"{got['used']:.1%}", "", met])
            panels.append((f"{rate}/s, joining, leaving, killed", got["times"], got["begin"] + 1500000, rate))
    finally:
        server.terminate()
        server.wait()
    svg(panels, HERE / "pace.svg")
    write_section("pace", f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, {began}.\n\n" + table(
        ["quota, mails/s", "processes", "worst 1 s ÷ quota (≤ 1.00)", "deviation of 100 ms windows (≤ 5 % from 200/s)", "quota used (≥ 98 %)",
         "Redis calls a mail (≤ 2, or 6 a second a process)", "met"], rows) + "\n\n![100 ms windows](pace.svg)")
    return goals.failed
