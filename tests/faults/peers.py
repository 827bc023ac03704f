"""The faults that other senders were measured with (README.md), with Tandem: 5,000 recipients, relays whose final replies
take 20 ms, every recipient in the relay's own ledger.

usage: peers.py BUILD_DIR [case...]
"""

import functools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import aids  # noqa: E402

flow = aids.flow
CASES, TABLE = [], []
case = functools.partial(flow.case, CASES)
MAILS, BEFORE = 5000, 1000


def row(stack, campaign, name, unconfirmed_at_most, copies_at_most=0):
    """Wait for the end, without any help, and write the row down."""
    flow.wait_done(stack, campaign, MAILS, 120)
    t = flow.truth(stack, campaign)
    t.check(MAILS, unconfirmed_at_most, copies_at_most)
    doubt = [i for i in range(MAILS) if t.results[i][0][0] == "UNCONFIRMED"]
    never = sum(1 for i in range(MAILS) if not t.taken[i] and i not in doubt)
    twice = sum(1 for i in range(MAILS) if len(t.taken[i]) > 1)
    pause = aids.longest_pause(stack.relays)
    TABLE.append(f"| {name} | {never} | {twice} | {len(doubt)} (taken: {sum(1 for i in doubt if t.taken[i])}) | {pause:.2f} s | yes |")
    assert never == 0, f"{never} were never sent"
    return f"L D({copies_at_most}) C: never sent 0, sent twice {twice}, unconfirmed {len(doubt)}, longest pause {pause:.2f} s"


def relay_down(stack, seconds, name):
    campaign = flow.submit(stack, MAILS)
    flow.wait_part(stack, campaign, BEFORE)
    stack.relays[0].process.kill()
    time.sleep(seconds)
    stack.relays[0].start()
    return row(stack, campaign, name, 40)


@case(backup=None)
def one_relay_down_half_a_second(stack):
    """One relay, killed and back after 0.5 s."""
    return relay_down(stack, 0.5, "one relay, down 0.5 s")


@case(backup=None)
def one_relay_down_5_s(stack):
    """One relay, killed and back after 5 s."""
    return relay_down(stack, 5, "one relay, down 5 s")


@case(backup=None)
def one_relay_down_20_s(stack):
    """One relay, killed and back after 20 s."""
    return relay_down(stack, 20, "one relay, down 20 s")


@case()
def two_relays_first_down_20_s(stack):
    """Two relays, the first killed and back after 20 s."""
    return relay_down(stack, 20, "**two relays**, first down 20 s")


@case()
def two_relays_first_down_10_s(stack):
    """Two relays, the first killed and back after 10 s."""
    return relay_down(stack, 10, "two relays, first down 10 s")


def sender(stack, act, name):
    campaign = flow.submit(stack, MAILS)
    flow.wait_part(stack, campaign, BEFORE)
    for process in stack.services.values():
        act(process)
    for process in stack.services.values():
        process.start()
    return row(stack, campaign, name, 40)


@case(backup=None)
def sender_killed(stack):
    """All of Tandem's processes are killed (-9) at once, and started again."""
    return sender(stack, lambda p: p.kill(), "all processes killed (-9), restarted")


@case(backup=None)
def sender_stopped(stack):
    """All of Tandem's processes are stopped (TERM), and started again."""
    def stop(process):
        code = process.stop()
        assert code == 0, f"{process.name} ended with {code}"
    return sender(stack, stop, "all processes stopped (TERM), restarted")


def cut_after_the_dot(stack, policy, copies):
    stack.relays[0].ask("POST", "/fault", {"at": "final", "do": "lose", "count": 50, "after": BEFORE})
    campaign = flow.submit(stack, MAILS, "--on-unconfirmed", policy)
    return row(stack, campaign, f"50 connections cut after the dot, `{policy}`", 50 - copies, copies)


@case(backup=None)
def cut_after_the_dot_hold(stack):
    """The relay takes 50 mails and cuts each connection before its reply; on_unconfirmed = hold."""
    return cut_after_the_dot(stack, "hold", 0)


@case(backup=None)
def cut_after_the_dot_resend(stack):
    """The same with on_unconfirmed = resend, which asks for second copies."""
    return cut_after_the_dot(stack, "resend", 50)


def main():
    code = flow.main("peers", CASES)
    print("\n| case | never sent | sent twice | unconfirmed | pause | goes on by itself |\n|---|---|---|---|---|---|")
    print("\n".join(TABLE))
    return code


if __name__ == "__main__":
    sys.exit(main())
