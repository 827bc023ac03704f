"""The whole system for scale.py and fairness.py: real Apache Kafka, redis-server, one relaysim, all services; see deploy/rehearsal/stack.py."""

import time

from common import Failed, wait_for  # also finds stack.py
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

    def stop(self):
        self.stack.stop()


def rate_between(times, begin, end):
    return sum(1 for t in times if begin <= t < end) / (end - begin)


__all__ = ["Failed", "System", "rate_between", "time"]
