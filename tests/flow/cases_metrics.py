"""Flow cases: what the services tell of themselves on /metrics."""

import re
import urllib.request

import run as flow

MAILS = 3000
# What each service must be seen to spend time on; other, threads and http all have.
STAGES = {"ingestion": {"read", "take", "parse", "validate", "redis", "publish"},
          "rendering": {"read", "take", "turn", "render", "hash", "publish"},
          "dispatch": {"read", "take", "turn", "compose", "send", "reply", "outcome", "redis", "publish"}}


def cpu(process):
    """CPU seconds of a service by stage, and of the whole process."""
    with urllib.request.urlopen(f"http://127.0.0.1:{process.http_port}/metrics", timeout=5) as page:
        text = page.read().decode()
    stages = {m[1]: float(m[2]) for m in re.finditer(r'^tandem_stage_cpu_seconds_total\{stage="(\w+)"\} (\S+)$', text, re.M)}
    return stages, float(re.search(r"^process_cpu_seconds_total (\S+)$", text, re.M)[1])


@flow.case(backup=None, delay=0)
def cpu_by_stage_of_mail(stack):
    """CPU time by stage grows with mails, in every stage a mail goes through, and adds up to the process's own."""
    flow.wait_done(stack, flow.submit(stack, MAILS, "--id", "first"), MAILS)
    before = {name: cpu(stack.services[f"{name}-1"]) for name in STAGES}
    flow.wait_done(stack, flow.submit(stack, MAILS, "--id", "second"), MAILS)
    said = []
    for name, stages in STAGES.items():
        process = stack.services[f"{name}-1"]
        now, whole = cpu(process)
        late = sorted(s for s in stages if now.get(s, 0) <= before[name][0].get(s, 0))
        assert not late, f"{name}: no CPU time in {', '.join(late)}: {now}"
        assert all(now[s] >= seconds for s, seconds in before[name][0].items()), f"{name}: a counter fell"
        part = sum(now.values()) / whole
        assert 0.5 <= part <= 1.05, f"{name}: stages have {sum(now.values()):.3f} s, the process {whole:.3f} s"
        own = sum(now[s] for s in stages)
        loop = sum(seconds for s, seconds in now.items() if s != "threads")
        assert own > loop / 4, f"{name}: its stages have {own:.3f} s of the loop's {loop:.3f} s: {now}"
        said.append(f"{name} {part:.0%} of {whole:.1f} s")
    told = flow.truth(stack, "second").check(MAILS)
    return f"{told}; {', '.join(said)}"
