"""Relays that hang, flap, throttle, pause, or whose certificate is wrong."""

import functools
import signal
import subprocess
import time

import aids
from aids import flow, never_above, wait_for

CASES = []
case = functools.partial(flow.case, CASES)
QUOTA = "454 Throttling failure: Daily message quota exceeded."
PAUSED = "Message rejected: Sending paused for this account"


@case(primary_entry={"connect_timeout": "2s", "command_timeout": "5s", "data_timeout": "5s", "final_timeout": "10s"})
def relay_is_a_black_hole(stack):
    """SIGSTOP of the primary, for 20 s: it accepts connections and never says a word, as behind a firewall that drops."""
    campaign, stopped, first = hangs(stack, 8000, 1500, 20)
    flow.wait_done(stack, campaign, 8000)
    said = flow.truth(stack, campaign).check(8000, unconfirmed_at_most=20)
    pause = aids.longest_pause(stack.relays, stopped + 19)  # then it takes the mails that lay in its sockets
    return f"L D(0) C: {said}, switched in {first:.2f} s, longest pause {pause:.2f} s"


def hangs(stack, mails, before, seconds):
    """The primary is stopped for so many seconds, after so many mails. -> the campaign, when, and how long the switch took."""
    primary, backup = stack.relays
    campaign = flow.submit(stack, mails)
    flow.wait_part(stack, campaign, before)
    primary.process.send(signal.SIGSTOP)
    stopped = time.time()
    wait_for("the backup's first mail", 30, lambda: backup.taken(), 0.02)
    first = backup.taken()[0][0] - stopped
    time.sleep(max(0, seconds - (time.time() - stopped)))
    primary.process.send(signal.SIGCONT)
    assert first < 1.3, f"the switch took {first:.1f} s"
    return campaign, stopped, first


FEW = {"max_connections": 1, "connect_timeout": "30s", "command_timeout": "60s", "data_timeout": "60s", "final_timeout": "60s"}


@case(primary_entry=FEW)
def relay_hangs_with_one_connection(stack):
    """The same with one connection, which is all there is, and timeouts of a minute: the probe finds out."""
    primary = stack.relays[0]
    campaign, _, first = hangs(stack, 1500, 200, 5)
    back = time.time()
    flow.wait_done(stack, campaign, 1500)
    t = flow.truth(stack, campaign)
    said = t.check(1500)
    assert aids.changes(t, primary, "open")[0].reason == "down.silent"
    again = [x for x in aids.times([primary]) if x > back + 0.2]
    return (f"L D(0) C: {said}, switched in {first:.2f} s, the primary again "
            f"{f'{again[0] - back:.1f} s after it went on' if again else 'not before the end'}")


@case(dispatchers=2, primary_entry={"max_mails_per_s": 200, "connect_timeout": "30s"})
def dispatcher_cut_off_from_the_primary(stack):
    """One of two dispatchers loses its way to the primary for 10 s; the other is served. That one alone uses the backup."""
    primary, backup = stack.relays
    process = stack.services["dispatch-1"]
    proxy = aids.Proxy(primary.port)
    process.stop()
    own = stack.dir / "way-round.yaml"
    own.write_text(stack.settings_file.read_text().replace(f"port: {primary.port}", f"port: {proxy.port}"))
    process.argv[process.argv.index(str(stack.settings_file))] = str(own)
    process.start()
    stack.ready(process)
    campaign = flow.submit(stack, 7000)
    flow.wait_part(stack, campaign, 600)
    proxy.cut()
    cut = time.time()
    wait_for("the backup's first mail", 10, lambda: [x for x in aids.times([backup]) if x > cut], 0.02)
    first = min(x for x in aids.times([backup]) if x > cut) - cut
    time.sleep(max(0, 10 - (time.time() - cut)))
    shares = [aids.share_after(stack.relays, r, cut + 2, time.time()) for r in stack.relays]
    state = aids.state(stack, primary)
    proxy.heal()
    healed = time.time()
    flow.wait_done(stack, campaign, 7000)
    t = flow.truth(stack, campaign)
    said = t.check(7000, unconfirmed_at_most=20)
    late = aids.share_after(stack.relays, backup, healed + 2, time.time())
    proxy.close()
    assert state == "closed" and not aids.changes(t, primary, "open"), f"{state}, {[c.reason for c in aids.changes(t, primary)]}"
    assert all(shares) and first < 3 and not late, f"first after {first:.2f} s, {shares} by each meanwhile, {late} by the backup after"
    return (f"L D(0) C: {said}, the backup after {first:.2f} s, meanwhile {shares[0]} by the primary and {shares[1]} by the backup; "
            f"it stayed {state}")


@case(primary_entry={**FEW, "max_connections": 2})
def slow_relay_with_two_connections(stack):
    """The primary suddenly takes 3 s for each final reply, with two connections: it is slow, not silent, and not left."""
    primary, backup = stack.relays
    campaign = flow.submit(stack, 600)
    flow.wait_part(stack, campaign, 500)
    primary.ask("POST", "/fault", {"at": "final", "do": "slow", "delay_ms": 3000})
    began = time.time()
    time.sleep(20)
    slow = [x for x in aids.times([primary]) if x > began]
    primary.ask("DELETE", "/fault")
    flow.wait_done(stack, campaign, 600)
    t = flow.truth(stack, campaign)
    said = t.check(600)
    assert slow and not backup.taken() and not aids.changes(t, primary, "open"), \
        f"{len(backup.taken())} mails by the backup, {[c.reason for c in aids.changes(t, primary)]}"
    return f"L D(0) C: {said}, {len(slow)} mails in 20 s, all by the slow one"


@case(dispatchers=2, primary_entry={"host": "relay.invalid", "connect_timeout": "2s"})
def relay_name_does_not_resolve(stack):
    """The primary's host name is nowhere (RFC 2606): all goes by the backup, and the reason says dns."""
    campaign = flow.submit(stack, 1000)
    flow.wait_done(stack, campaign, 1000)
    t = flow.truth(stack, campaign)
    said = t.check(1000)
    assert not stack.relays[0].taken()
    opened = aids.changes(t, stack.relays[0], "open")
    assert opened and opened[0].reason == "down.dns", f"{[c.reason for c in opened]}"
    return f"L D(0): {said}, all by the backup; {opened[0].reason}: {opened[0].evidence}"


NAMED = "primary.test"  # RFC 2606


def ask_own_server(stack, server):
    """Start the dispatchers anew, each in a namespace in which names are asked of this server."""
    resolv = stack.dir / "resolv.conf"
    resolv.write_text(f"nameserver {server.address}\noptions timeout:1 attempts:1\n")
    wrap = ["unshare", "-m", "sh", "-c", 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"', "sh", str(resolv)]
    if subprocess.run([*wrap, "true"], capture_output=True, check=False).returncode != 0:
        raise flow.Skipped("no right to make a mount namespace")
    for process in aids.dispatchers(stack):
        process.stop()
        process.argv = wrap + process.argv
        process.start()
        stack.ready(process)


@case(dispatchers=2, delay=5, primary_entry={"host": NAMED, "max_mails_per_s": 100, "mails_per_connection": 10, "connect_timeout": "3s"},
      backup_entry={"max_mails_per_s": 100})
def relay_name_is_lost_and_found(stack):
    """The primary's name stops resolving mid-send (NXDOMAIN, SERVFAIL, silence) for 75 s: libcurl knows it for 60 s, then all goes
    by the backup, and by the primary again when the name is back."""
    primary, backup = stack.relays
    try:
        names = aids.NameServer(NAMED)
    except OSError as e:
        raise flow.Skipped(f"no name server on port 53: {e}") from e
    subprocess.run([aids.ROOT / "deploy/relaysim/make-ca", stack.dir / "tls", NAMED], check=True, capture_output=True)
    primary.process.stop()
    primary.start()
    ask_own_server(stack, names)
    aids.as_new(stack, primary)
    campaign = flow.submit(stack, 12000)
    flow.wait_part(stack, campaign, 500)
    began = time.time()
    assert primary.taken() and names.asked, "the primary was not found by its name"
    names.well = False
    wait_for("the backup's first mail", 70, lambda: [x for x in aids.times([backup]) if x > began], 0.1)
    first = min(x for x in aids.times([backup]) if x > began)
    time.sleep(max(0, 75 - (time.time() - began)))
    lost = aids.share_after(stack.relays, primary, first + 2, time.time())
    names.well, back = True, time.time()
    flow.wait_done(stack, campaign, 12000)
    names.close()
    t = flow.truth(stack, campaign)
    said = t.check(12000)
    opened = aids.changes(t, primary, "open")
    again = [x for x in aids.times([primary]) if x > back]
    assert opened and opened[0].reason == "down.dns", f"{[c.reason for c in opened]}"
    assert lost == 0 and again, f"{lost} by a relay without a name, {len(again)} after it had one again"
    pause = aids.longest_pause(stack.relays)
    assert pause < 3.5, f"a pause of {pause:.2f} s"
    return (f"L D(0): {said}, {opened[0].reason} {first - began:.0f} s after the name was lost, longest pause {pause:.2f} s, "
            f"the primary again {again[0] - back:.1f} s after it was back")


@case(delay=5, primary_entry={"final_timeout": "60s"})
def tarpit_at_the_final_dot(stack):
    """The primary takes 11 s for each final reply: nothing becomes unconfirmed, the backup takes over."""
    primary, backup = stack.relays
    primary.ask("POST", "/fault", {"at": "final", "do": "slow", "delay_ms": 11000})
    began = time.time()
    campaign = flow.submit(stack, 3000)
    flow.wait_done(stack, campaign, 3000)
    took = time.time() - began
    t = flow.truth(stack, campaign)
    said = t.check(3000)
    changes = [c for c in aids.changes(t, primary) if c.to_state != "closed"]
    assert changes, "the primary kept its good name"
    assert len(primary.taken()) <= 100, f"{len(primary.taken())} mails were left to a tarpit"
    first = min(x for x, _, _ in backup.taken()) - began
    return (f"L D(0) C: {said}, {len(primary.taken())} by the tarpit, backup from {first:.1f} s on, all in {took:.1f} s; "
            f"{changes[0].to_state} {changes[0].reason}")


@case(primary_entry={"connect_timeout": "1s"})
def tarpit_at_the_greeting(stack):
    """The primary's greeting takes 30 s: connect_timeout ends the wait, the backup takes all."""
    primary, backup = stack.relays
    primary.ask("POST", "/fault", {"at": "banner", "do": "slow", "delay_ms": 30000})
    began = time.time()
    campaign = flow.submit(stack, 2000)
    flow.wait_done(stack, campaign, 2000)
    said = flow.truth(stack, campaign).check(2000)
    assert not primary.taken()
    return f"L D(0): {said}, backup from {min(aids.times([backup])) - began:.2f} s on"


def bad_handshakes(stack, faults):
    primary, backup = stack.relays
    alarms = []
    for name, fault in faults:
        aids.as_new(stack, primary)
        primary.ask("DELETE", "/fault")
        primary.ask("POST", "/fault", fault)
        began = time.time()
        campaign = flow.submit(stack, 40, "--id", name)
        flow.wait_done(stack, campaign, 40, 60)
        t = flow.truth(stack, campaign)
        t.check(40)
        assert t.count("ACCEPTED") == 40 and not primary.taken(), f"{name}: {len(primary.taken())} mails went to it"
        opened = [c for c in aids.changes(t, primary, "open") if c.reason == "down.tls"]
        alarms.append((name, len(opened)))
        assert primary.ask("GET", "/status")["accepted"] == 0
        wait_for(f"the alarm about {name}", 5, lambda: aids.redis_cli(stack, "HGET", "td:{r:ses-eu}:state", "reason") == "down.tls", 0.05)
    return alarms


@case(delay=0, primary_entry={"mails_per_connection": 1}, settings={"health": {"probe": "20s"}})
def bad_certificates(stack):
    """Expired, of another name, of a CA nobody knows: no mail, the relay is open with down.tls, the backup takes all."""
    alarms = bad_handshakes(stack, [(w, {"certificate": w}) for w in ("expired", "wrong-name", "self-signed")])
    return f"L D(0): 3 x 40 accepted by the backup, 0 mails and 0 AUTH to the primary; alarm down.tls each: {', '.join(n for n, _ in alarms)}"


@case(delay=0, primary_entry={"mails_per_connection": 1, "tls": "starttls"}, settings={"health": {"probe": "20s"}})
def starttls_stripped_or_injected(stack):
    """STARTTLS taken out of EHLO's answer, plaintext slipped in behind its 220: nothing is sent in clear."""
    alarms = bad_handshakes(stack, [("stripped", {"starttls": "strip"}), ("injected", {"starttls": "inject"})])
    return f"L D(0): 2 x 40 accepted by the backup, 0 mails and 0 AUTH to the primary; alarm down.tls each: {', '.join(n for n, _ in alarms)}"


@case(delay=0, primary_entry={"mails_per_connection": 1}, settings={"health": {"probe": "20s"}})
def tls_of_1_1_only(stack):
    """A server in the primary's place, with its certificate, that speaks TLS 1.1 at most: down.tls, the backup takes all."""
    primary = stack.relays[0]
    primary.process.kill()
    tls = stack.dir / "tls"
    old = subprocess.Popen(["openssl", "s_server", "-accept", f"127.0.0.1:{primary.port}", "-cert", tls / "server.pem", "-key", tls / "server.key",
                            "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-quiet"], stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        wait_for("openssl s_server", 5, lambda: aids.answers(primary.port))
        old_client = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{primary.port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
                                    input=b"", capture_output=True, timeout=10, check=False)
        assert b"TLSv1.1" in old_client.stdout, "the server does not speak TLS 1.1 either"
        campaign = flow.submit(stack, 40)
        flow.wait_done(stack, campaign, 40, 60)
    finally:
        old.kill()
        heard, _ = old.communicate()
    t = flow.truth(stack, campaign)
    said = t.check(40)
    opened = aids.changes(t, primary, "open")
    assert opened and opened[0].reason == "down.tls", f"{[c.reason for c in opened]}"
    assert not heard.strip(), "it was told something"
    return f"L D(0): {said}, all by the backup; {opened[0].reason}: {opened[0].evidence}"


@case(dispatchers=3, delay=5, primary_entry={"max_mails_per_s": 400}, backup_entry={"max_mails_per_s": 150},
      settings={"health": {"probe": "500ms"}})
def failback_under_backlog(stack):
    """The primary answers no greeting for 20 s while the backup carries less than comes in: few probes, then its rate over a ramp."""
    primary, backup = stack.relays
    with aids.Crowd() as crowd:
        unseen = aids.put_first(stack.relays, crowd)
        probes, back, campaign = down_for_20_s(stack, primary)
        flow.wait_done(stack, campaign, 24000)
    t = flow.truth(stack, campaign)
    said = t.check(24000, unconfirmed_at_most=60)
    came = [x - back for x in aids.times([primary]) if x > back]
    by_second = [sum(1 for x in came if n <= x < n + 1) for n in range(int(came[-1]))]
    whole = next((n for n, c in enumerate(by_second) if c >= 0.9 * 400), None)
    pause = aids.longest_pause(stack.relays)
    assert probes <= 5 * 18, f"{probes} probes in 18 s"
    assert pause < 1, f"pause {pause:.2f} s"
    assert whole is not None and whole >= 3, f"no ramp: {by_second}"
    return (f"L D(0) R: {said}, {probes} probes in 18 s, first mail {came[0]:.2f} s after its return, "
            f"{by_second[int(came[0]) + 1]}/s in the second after, nine tenths of its rate after {whole} s, worst 1 s "
            f"{never_above(primary, 400, unseen)} of 400, backup {never_above(backup, 150, unseen)} of 150, longest pause {pause:.2f} s")


def down_for_20_s(stack, primary):
    """-> (probes in the last 18 s of it, when it was well again, the campaign)"""
    campaign = flow.submit(stack, 24000)
    flow.wait_part(stack, campaign, 1000)
    down = primary.ask("POST", "/fault", {"at": "banner", "do": "reply", "code": 421, "text": "Service not available"})["id"]
    primary.ask("POST", "/fault", {"at": "any", "do": "reset", "count": 60})
    wait_for("the primary to be left", 10, lambda: aids.state(stack, primary) == "open", 0.02)
    time.sleep(2)
    tried = faults_met(primary, down)
    time.sleep(18)
    probes = faults_met(primary, down) - tried
    primary.ask("DELETE", "/fault")
    return probes, time.time(), campaign


def faults_met(relay, fault):
    return next(f["hits"] for f in relay.ask("GET", "/fault") if f["id"] == fault)


def flapping(stack, mails, rate, times, switches_at_most):
    """The primary is down for 10 s and up for 10 s, so many times."""
    primary, backup = stack.relays
    with aids.Crowd() as crowd:
        unseen = aids.put_first(stack.relays, crowd)
        campaign = flow.submit(stack, mails)
        flow.wait_part(stack, campaign, 200)
        began = time.time()
        for _ in range(times):
            primary.process.kill()
            time.sleep(10)
            primary.start()
            aids.put_first([primary], crowd)
            time.sleep(10)
        up = time.time()
        assert flow.done_count(stack, campaign) < mails, "the campaign ended before the flapping did"
        flow.wait_done(stack, campaign, mails)
    t = flow.truth(stack, campaign)
    said = t.check(mails, unconfirmed_at_most=times * 60)
    left = [c for c in aids.changes(t, primary, "open") if c.from_state in ("closed", "limited")]
    pause = aids.longest_pause(stack.relays, up)
    seconds = [never_above(relay, rate, unseen) for relay in stack.relays]
    said = (f"{said}, {len(left)} switches away in {up - began:.0f} s, longest pause {pause:.2f} s, "
            f"worst 1 s {seconds[0]} and {seconds[1]} of {rate}")
    assert len(left) <= switches_at_most and pause < 2, said
    return f"L D(0) R C: {said}"


@case(dispatchers=3, primary_entry={"max_mails_per_s": 300}, backup_entry={"max_mails_per_s": 300})
def flapping_primary(stack):
    """Down and up five times, at 300 mails a second: it is left less and less often."""
    return flapping(stack, 32000, 300, 5, 4)


@case(dispatchers=3, primary_entry={"max_mails_per_s": 50}, backup_entry={"max_mails_per_s": 50})
def flapping_primary_30_min(stack):
    """Half an hour of it, at 50 mails a second. Runs when named only."""
    return flapping(stack, 92000, 50, 90, 12)


@case(dispatchers=2)
def both_relays_down(stack):
    """Both relays are killed for 20 s: mails wait, none is spent, and sending goes on within seconds of their return."""
    campaign = flow.submit(stack, 8000)
    flow.wait_part(stack, campaign, 2000)
    for relay in stack.relays:
        relay.process.kill()
    down = time.time()
    time.sleep(1)
    before = flow.done_count(stack, campaign)
    time.sleep(19)
    after = flow.done_count(stack, campaign)
    for relay in stack.relays:
        relay.start()
    back = time.time()
    flow.wait_done(stack, campaign, 8000)
    t = flow.truth(stack, campaign)
    said = t.check(8000, unconfirmed_at_most=80)
    first = min(x for x in aids.times(stack.relays) if x > down + 1) - back
    assert after == before and t.count("REFUSED") + t.count("EXPIRED") == 0
    assert first < 12, f"the first mail came {first:.1f} s after their return"
    return f"L D(0) C: {said}, nothing ended while both were away, first mail {first:.2f} s after their return"


def paced(stack, mails, midway=lambda: None, unconfirmed_at_most=0):
    """A campaign at 50 a second, something midway, and no reply of 454."""
    primary, began = stack.relays[0], time.time()
    with aids.Crowd() as crowd:
        unseen = aids.put_first([primary], crowd)
        campaign = flow.submit(stack, mails)
        flow.wait_part(stack, campaign, mails // 3)
        midway()
        flow.wait_done(stack, campaign, mails, 120)
    took = time.time() - began
    said = flow.truth(stack, campaign).check(mails, unconfirmed_at_most=unconfirmed_at_most)
    second, tenth, over = never_above(primary, 50, unseen), aids.worst_window(primary, 0.1), aids.refused(primary, 454)
    assert over <= 50 * unseen(), f"{over} times 454; longest wait for a processor {crowd.worst_s * 1000:.0f} ms"
    times = aids.times([primary])
    return (f"L D(0) R: {said}, {len(times) / (times[-1] - times[0]):.1f}/s, worst 1 s {second}, worst 100 ms {tenth}, 454: {over} "
            f"(longest wait for a processor {crowd.worst_s * 1000:.0f} ms), {took:.0f} s")


@case(delay=5, primary=("--rate", "50"), primary_entry={"max_mails_per_s": 50}, backup=None)
def rate_of_one_dispatcher(stack):
    """50 a second allowed, one dispatcher: never one more in any second, no 454."""
    return paced(stack, 500)


@case(dispatchers=3, delay=5, primary=("--rate", "50"), primary_entry={"max_mails_per_s": 50}, backup=None)
def rate_of_three_dispatchers(stack):
    """50 a second allowed, three dispatchers, one of them killed on the way: the rate is shared."""
    def kill():
        stack.services["dispatch-2"].kill()
        stack.services["dispatch-2"].start()
    return paced(stack, 800, kill, 40)


@case(dispatchers=2, delay=5, primary=("--rate", "300"), primary_entry={"max_mails_per_s": 300})
def rate_cut_by_454(stack):
    """The primary suddenly takes a tenth of its rate: what it refuses goes by the backup at once, and comes back after."""
    primary, backup = stack.relays
    aids.put_first([primary], aids.Crowd())
    campaign = flow.submit(stack, 14000)
    flow.wait_part(stack, campaign, 1000)
    primary.ask("POST", "/limits", {"rate": 30})
    cut = time.time()
    wait_for("mail by the backup", 20, lambda: [x for x in aids.times([backup]) if x > cut], 0.02)
    first = min(x for x in aids.times([backup]) if x > cut) - cut
    time.sleep(10)
    primary.ask("POST", "/limits", {"rate": 300})
    back = time.time()
    flow.wait_done(stack, campaign, 14000)
    ended = max(aids.times(stack.relays))
    t = flow.truth(stack, campaign)
    said = t.check(14000)
    early = [x for x in aids.times([backup]) if x < cut]
    pause = aids.longest_pause(stack.relays)
    second = aids.worst_window(primary)
    assert first < 1 and pause < 1, f"the backup's first mail after {first:.2f} s, pause {pause:.2f} s"
    assert t.count("REFUSED") == 0
    by = aids.share_after(stack.relays, primary, cut, back), aids.share_after(stack.relays, backup, cut, back)
    last = aids.share_after(stack.relays, primary, ended - 3, ended) / 3
    return (f"L D(0) R: {said}, backup from {first * 1000:.0f} ms on, in the cut primary {by[0]} and backup {by[1]}, "
            f"worst 1 s {second}, longest pause {pause:.2f} s, primary {last:.0f}/s at the end, {len(early)} by the backup before")


@case(dispatchers=2, delay=5, primary=("--daily", "600"))
def daily_quota_used_up(stack):
    """The 601st mail of the day gets 454: the primary is exhausted for hours, the backup takes the rest."""
    primary = stack.relays[0]
    campaign = flow.submit(stack, 2500)
    flow.wait_done(stack, campaign, 2500)
    t = flow.truth(stack, campaign)
    said = t.check(2500)
    over, now = aids.refused(primary, 454), aids.state(stack, primary)
    assert now == "exhausted" and len(primary.taken()) == 600 and t.count("REFUSED") == 0, f"{now}, {len(primary.taken())}"
    assert over <= 60, f"{over} mails met the quota's 454"
    pause = aids.longest_pause(stack.relays)
    return f"L D(0) C: {said}, 600 by the primary, {over} replies of 454, then {now}, longest pause {pause:.2f} s"


@case(dispatchers=2, delay=5)
def account_paused_by_554(stack):
    """SES pauses the account with a permanent code: no recipient is refused for it, all go by the backup."""
    primary = stack.relays[0]
    campaign = flow.submit(stack, 3000)
    flow.wait_part(stack, campaign, 500)
    primary.ask("POST", "/fault", {"at": "final", "do": "reply", "code": 554, "text": PAUSED})
    flow.wait_done(stack, campaign, 3000)
    t = flow.truth(stack, campaign)
    said = t.check(3000)
    paused, met = aids.changes(t, primary, "paused"), aids.refused(primary, 554)
    assert t.count("REFUSED") == 0 and paused and met <= 60, f"{t.count('REFUSED')} refused, {len(paused)} events, {met} replies"
    return f"L D(0) C: {said}, {met} replies of 554, 0 refused, {paused[0].to_state} {paused[0].reason}"
