"""Faults: rows 3-21 and 33 of the fault matrix (README.md), against real Apache Kafka and redis-server.

usage: run.py BUILD_DIR [--quick | case...]
All is all but those that take half an hour, which are to be named.
Each case prints one line with its figures and the invariants it shows: L one outcome each and none missing, D(n) at most n
second copies, R never above the rate, C class and outcome as the relays' ledgers have them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import aids  # noqa: E402
import cases_group  # noqa: E402
import cases_phases  # noqa: E402
import cases_points  # noqa: E402
import cases_redis  # noqa: E402
import cases_relay  # noqa: E402

flow = aids.flow
CASES = []


@flow.case(CASES, delay=5, primary_entry=cases_phases.ENTRY, settings=cases_phases.TRIED)
def phases(stack):
    """Ten points, seven faults at each, and final replies lost after the relay took the mail."""
    return cases_phases.phases(stack, QUICK)


CASES += cases_points.CASES + cases_relay.CASES + cases_redis.CASES + cases_group.CASES
# What takes long and shows what a shorter case or a flow test shows in part.
LONG = {"flapping_primary", "rebalance_storm", "both_relays_down", "rate_cut_by_454", "dispatcher_cut_off_from_kafka",
        "zombie_dispatcher", "dispatchers_come_and_go", "stop_points_resend", "redis_emptied",
        "coordinator_killed_at_renderings_commit", "failback_under_backlog", "dispatchers_join_while_redis_is_away",
        "dispatcher_cut_off_from_redis_while_events_come", "rate_while_one_is_cut_off_from_redis", "slow_relay_with_two_connections",
        "relay_name_is_lost_and_found", "small_campaign_beside_a_large_one"}
NAMED = {"flapping_primary_30_min"}  # half an hour


def main():
    global QUICK
    args = sys.argv[2:]
    QUICK = "--quick" in args
    wanted = [a for a in args if a != "--quick"]
    if not wanted:
        wanted = [name for name, _, _ in CASES if name not in NAMED and not (QUICK and name in LONG)]
    return flow.main("faults", CASES, wanted, cases_group.SplitKafka)


if __name__ == "__main__":
    sys.exit(main())
