"""The whole system for scale.py and fairness.py: real Apache Kafka, redis-server, one relaysim, all services; see deploy/rehearsal/stack.py."""

import re
import time
import urllib.request

from common import Failed, table, wait_for  # also finds stack.py
from stack import Stack


class System:
    def __init__(self, build, folder, dispatchers=1, lanes=8, delay=50, **relay):
        self.stack = Stack(folder, build, "kafka", dispatchers=dispatchers, settings={"kafka": {"lanes": lanes}})
        self.relay = self.stack.add_relay("ses-eu", "SE", ["--delay", str(delay)], **relay)
        self.stack.start()

    def submit(self, name, count, *options):
        """A campaign to count recipients at <name>.example.com. Its id."""
        path, page = self.stack.dir / f"{name}.csv", self.stack.dir / "page.html"
        with open(path, "w", encoding="utf-8") as f:
            f.write("email,first_name\n")
            f.writelines(f"reader{i}@{name}.example.com,Åsa\n" for i in range(count))
        page.write_text("<p>Hej {{first_name}}, nu är det vår.</p>", encoding="utf-8")
        done = self.stack.ctl("campaign", "submit", "--recipients", path, "--from", "Tandem <news@news.example.com>", "--subject",
                              "Vårbrev till {{first_name}}", "--html", page, *options, timeout=300)
        return done.stdout.strip().splitlines()[-1]

    def taken(self, name):
        """When the relay took each mail of that campaign, unix seconds, in order."""
        with open(self.relay.ledger, encoding="ascii") as f:
            fields = [line.split("\t") for line in f if not line.startswith("#")]
        return [int(f[0]) / 1e6 for f in fields if len(f) > 2 and f[2].endswith(f"@{name}.example.com")]

    def wait_taken(self, name, count, seconds):
        wait_for(f"{count} mails of {name}", seconds, lambda: len(self.taken(name)) >= count, 0.2)
        return self.taken(name)

    def metrics(self, service):
        """The counters of all processes of a service, summed: name with its labels -> value."""
        total = {}
        for key, process in self.stack.services.items():
            if key.rsplit("-", 1)[0] == service:
                with urllib.request.urlopen(f"http://127.0.0.1:{process.http_port}/metrics", timeout=5) as page:
                    for name, value in re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", page.read().decode(), re.M):
                        total[name] = total.get(name, 0) + float(value)
        return total

    def stages(self):
        """Look at the counters now, for cpu_by_stage."""
        return {service: self.metrics(service) for service in MAILS}

    def stop(self):
        self.stack.stop()


# What each service counts as its mails.
MAILS = {"ingestion": "tandem_ingestion_recipients_total", "rendering": "tandem_rendering_mails_total",
         "dispatch": "tandem_dispatch_outcomes_total"}
STAGE = re.compile(r'tandem_stage_cpu_seconds_total\{stage="(\w+)"\}')


def cpu_by_stage(before, after):
    """A table: microseconds of CPU a mail in each stage, between two looks."""
    grown = {s: {k: v - before[s].get(k, 0) for k, v in after[s].items()} for s in MAILS}
    mails = {s: max(1, sum(v for k, v in grown[s].items() if k.split("{")[0] == name)) for s, name in MAILS.items()}
    us = {s: {STAGE.match(k)[1]: v * 1e6 / mails[s] for k, v in grown[s].items() if STAGE.match(k)} for s in MAILS}
    stages = sorted({stage for s in us for stage in us[s]}, key=lambda stage: -sum(us[s].get(stage, 0) for s in us))
    rows = [[stage, *(f"{us[s][stage]:.1f}" if us[s].get(stage, 0) >= 0.05 else "" for s in MAILS)] for stage in stages]
    rows.append(["**sum**", *(f"**{sum(us[s].values()):.1f}**" for s in MAILS)])
    rows.append(["of the process", *(f"{sum(us[s].values()) * mails[s] / 1e6 / grown[s]['process_cpu_seconds_total']:.0%}" for s in MAILS)])
    return table(["stage", *(f"{s}, {mails[s]:,.0f} mails" for s in MAILS)], [r for r in rows if any(r[1:])])


def rate_between(times, begin, end):
    return sum(1 for t in times if begin <= t < end) / (end - begin)


__all__ = ["Failed", "System", "cpu_by_stage", "rate_between", "time"]
