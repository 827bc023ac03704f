"""Every fault at every point of the dialogue: class and outcome of each mail against the relay's own ledger."""

import time

import aids
from aids import flow, wait_for

MAILS, HITS = 12, 3
ATTACHMENT = b"Nu \xc3\xa4r det v\xc3\xa5r.\n" * 250000  # 4 MB: more than the sockets' buffers hold
POINTS = ("connect", "banner", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body", "final")
REPLIES = {"421": {"code": 421, "text": "Service not available, closing"},
           "4yz": {"code": 451, "text": "Requested action aborted: local error in processing"},
           "5yz": {"code": 550, "text": "Requested action not taken: mailbox unavailable"}}
# On one connection for one mail, so that every mail passes every point; waits short enough to sit out.
ENTRY = {"tls": "starttls", "mails_per_connection": 1, "connect_timeout": "1s", "command_timeout": "1s", "data_timeout": "1s",
         "final_timeout": "10s", "max_connections": 4}
TRIED = {"health": {"probe": "10s"}}  # a relay that is opened stays open until the row ends


def rows(quick):
    for point in POINTS:
        for do in ("reset", "close", "garbage", "hang"):
            if not quick or do in ("reset", "garbage"):
                yield point, do, {"at": point, "do": do}
        for name, reply in REPLIES.items():
            if point != "connect" and (not quick or (point in ("banner", "mail", "rcpt", "final") and name != "4yz")):
                yield point, name, {"at": point, "do": "reply", **reply}
    for do in ("reset", "close", "garbage"):
        yield "mid-body", do, {"at": "body", "do": do}
    for do in ("reset", "close", "garbage") + (() if quick else ("hang",)):
        yield "after it", do, {"at": "final", "do": do, "taken": True}
    yield "after it", "lose", {"at": "final", "do": "lose"}


def expected(point, name, hits):
    """Per row: (unconfirmed, refused). Only a reply about the recipient may end it; only a reply lost after the final dot
    may leave doubt. "body" is a mail so small that its dot was written when the first octet of it met the fault."""
    in_doubt = point in ("body", "final", "after it") and name in ("reset", "close", "garbage", "hang", "lose")
    return (hits if in_doubt else 0), (hits if name == "5yz" and point in ("rcpt", "data", "body", "final") else 0)


def run_row(stack, number, point, name, fault):
    primary = stack.relays[0]
    aids.as_new(stack, primary)
    fault_id = primary.ask("POST", "/fault", {**fault, "count": HITS})["id"]
    large = stack.dir / "programme.txt"
    large.write_bytes(ATTACHMENT)
    campaign = flow.submit(stack, MAILS, "--id", f"row{number}", *(["--attach", large] if point == "mid-body" else []))
    slow = name == "hang" and point in ("final", "after it")
    late = name == "4yz" and point in ("rcpt", "data", "body", "final")  # waits in a retry topic or for another relay

    def met():  # what is used up is not in the list any more
        return next((f["hits"] for f in primary.ask("GET", "/fault") if f["id"] == fault_id), HITS)

    def over():
        waits = met() if slow else HITS if late else 0  # those that the fault has met, or may have
        return met() and flow.done_count(stack, campaign) >= MAILS - waits
    # A relay opened by the first hit gets no further mail: the fault may meet fewer than HITS.
    wait_for(f"the mails of {name} at {point}", 30, over, 0.05)
    hits = met()
    primary.ask("DELETE", "/fault")
    return campaign, hits


def check_row(stack, campaign, point, name, hits):
    """-> (class, how many) of those that the fault met, and what is wrong."""
    t = flow.truth(stack, campaign)
    doubt, refused = expected(point, name, hits)
    t.check(MAILS, unconfirmed_at_most=doubt)
    assert t.count("UNCONFIRMED") == doubt, f"{t.count('UNCONFIRMED')} UNCONFIRMED, {doubt} replies were lost"
    if name == "5yz" and point in ("data", "body", "final"):  # about the message or the recipient: both end the mail or move it
        assert t.count("REFUSED") <= refused, f"{t.count('REFUSED')} REFUSED of {refused}"
    else:
        assert t.count("REFUSED") == refused, f"{t.count('REFUSED')} REFUSED, {refused} were refused by the relay"
    for index, taken in t.taken.items():
        if any(answered == "lost" for _, answered in taken):
            assert t.results[index][0][0] == "UNCONFIRMED", f"{index}: its reply was lost, yet {t.results[index]}"
    moved = sum(1 for r in t.results.values() if r[0] == ("ACCEPTED", "backup"))
    states = [f"{c.to_state} {c.reason}" for c in t.relay_changes if c.relay == "ses-eu"]
    return {"unconfirmed": t.count("UNCONFIRMED"), "refused": t.count("REFUSED"), "by backup": moved, "states": states}


def phases(stack, quick):
    began, done, wrong = time.monotonic(), [], []
    for number, (point, name, fault) in enumerate(rows(quick)):
        campaign, hits = run_row(stack, number, point, name, fault)
        done.append((campaign, point, name, hits))
    for campaign, _, _, _ in done:  # those in retry topics wait for a minute
        flow.wait_done(stack, campaign, MAILS, 90)
    table = []
    for campaign, point, name, hits in done:
        try:
            table.append((point, name, hits, check_row(stack, campaign, point, name, hits)))
        except AssertionError as e:
            wrong.append(f"{name} at {point} ({hits} hits): {e}")
    show(table)
    assert not wrong, f"{len(wrong)} of {len(done)} rows: " + "; ".join(wrong)
    doubt, refused = (sum(row[3][k] for row in table) for k in ("unconfirmed", "refused"))
    return (f"L D(0) C: {len(done)} rows, {sum(row[2] for row in table)} faults met {len(done) * MAILS} mails: {doubt} unconfirmed, "
            f"each a lost final reply, {refused} refused, 0 lost, 0 twice, in {time.monotonic() - began:.0f} s")


def show(table):
    """One line a point, for the README."""
    for point in (*POINTS[:-1], "mid-body", POINTS[-1], "after it"):
        cells = [f"{name} {'U' if r['unconfirmed'] else 'R' if r['refused'] else 'ok'}{hits}" for p, name, hits, r in table if p == point]
        if cells:
            print(f"    {point:9} {'  '.join(cells)}", flush=True)
