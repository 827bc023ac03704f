"""Flow cases: whose turn it is, express and bulk."""

import run as flow
from stack import wait_for

RATE, BULK, EXPRESS = 150, 300, 4000


def taken_between(stack, campaign, begin, end):
    return sum(1 for t in flow.taken_of(stack, campaign) if begin <= t < end)


@flow.case(dispatchers=2, backup=None, primary_entry={"max_mails_per_s": RATE}, settings={"kafka": {"lanes": 4}})
def large_express_leaves_bulk_its_share(stack):
    """An express campaign that fills the relay's rate for long: a bulk campaign submitted beside it gets about a fifth, and ends
    while the express one goes on; express itself keeps the most."""
    express = flow.submit(stack, EXPRESS, "--express", "--id", "express")
    wait_for("the express campaign's first mails", 60, lambda: len(flow.taken_of(stack, express)) >= 2 * RATE, 0.1)
    bulk = flow.submit(stack, BULK, "--id", "bulk")
    wait_for("all mails of bulk", 60, lambda: len(flow.taken_of(stack, bulk)) >= BULK, 0.1)
    times = flow.taken_of(stack, bulk)
    # From its first mail to its last but for a few, so that neither end counts.
    begin, end = times[0], times[BULK - BULK // 10]
    of_bulk, of_express = (taken_between(stack, c, begin, end) for c in (bulk, express))
    share = of_bulk / (of_bulk + of_express)
    left = EXPRESS - len(flow.taken_of(stack, express))
    assert left > EXPRESS // 10, f"only {left} express mails were left when bulk had ended: nothing was tested"
    assert 0.10 <= share <= 0.35, f"bulk got {of_bulk} of {of_bulk + of_express} mails, {share:.0%}"
    # One express mail more is not behind either: it shares express' part, as one of two campaigns.
    single, at_once = flow.time_until_taken(stack, 1, "--express", "--id", "single")
    assert at_once < 6, f"a single express mail took {at_once:.1f} s beside the express campaign"
    stack.ctl("campaign", "cancel", express)
    flow.wait_done(stack, express, EXPRESS)
    for campaign, count in ((bulk, BULK), (single, 1), (express, EXPRESS)):
        flow.truth(stack, campaign).check(count)
    return f"bulk had {share:.0%} for {end - begin:.0f} s, {left} express mails left then; a single express mail {at_once:.1f} s"
