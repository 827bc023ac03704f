"""Faults and the control port."""
import socket
import ssl
import time

import harness
from harness import Raw, Relay, case, message, password_file, raises, until


def session_steps(raw):
    """A whole session; yields (point, reply) as far as it comes."""
    yield "banner", raw.reply()
    yield "ehlo", raw.ask("EHLO x")
    yield "auth", raw.ask("AUTH PLAIN AHUAczNjcmV0")
    yield "mail", raw.ask("MAIL FROM:<a@x.test>")
    yield "rcpt", raw.ask("RCPT TO:<b@x.test>")
    yield "data", raw.ask("DATA")
    raw.send(message(1, "x" * 100))
    if raw.fault_at == "body":
        yield "body", raw.reply()
    raw.send("\r\n.\r\n")
    yield "final", raw.reply()


def walk(relay, at):
    """What is met at this point: a reply, (0, '') for FIN, 'reset', or 'silence'."""
    try:
        with Raw(relay.port, timeout=0.6, greet=False) as raw:
            raw.fault_at = at
            for point, reply in session_steps(raw):
                if point == at:
                    return reply
                assert reply[0] in (220, 250, 235, 354), (at, point, reply)
    except (ConnectionResetError, BrokenPipeError):
        return "reset"
    except socket.timeout:
        return "silence"


@case
def each_fault_at_each_point():
    normal = {"banner": 220, "ehlo": 250, "auth": 235, "mail": 250, "rcpt": 250, "data": 354, "final": 250}
    with Relay("--user", "u", "--password-file", password_file(), "--plaintext-auth") as relay:
        for at in "banner ehlo auth mail rcpt data body final".split():
            for do, want in (("hang", "silence"), ("close", (0, "")), ("reset", "reset")):
                relay.fault(at=at, do=do)
                got = walk(relay, at)
                assert got == want, (at, do, got)
                relay.lift()
            relay.fault(at=at, do="reply", code=451, enhanced="4.3.0", text="told to")
            assert walk(relay, at) == (451, "451 4.3.0 told to"), at
            relay.lift()
            assert relay.ledger() == [], (at, "a mail that was not taken is in the ledger")
            if at in normal:
                relay.fault(at=at, do="slow", delay_ms=300)
                start = time.monotonic()
                assert walk(relay, at)[0] == normal[at], at
                assert time.monotonic() - start >= 0.29, at
                relay.lift()
                if at == "final":
                    assert len(relay.ledger()) == 1
            relay.fault(at=at, do="garbage", count=1)
            raises((ValueError, AssertionError), walk, relay, at)
            relay.lift()
        assert len(relay.ledger()) == 1
        relay.fault(at="any", do="reply", code=421)
        assert walk(relay, "banner")[0] == 421
        relay.lift()
        assert walk(relay, "final")[0] == 250


@case
def faults_at_connect():
    with Relay() as relay:
        for do, want in (("hang", "silence"), ("close", (0, "")), ("reset", "reset")):
            relay.fault(at="connect", do=do)
            assert walk(relay, "banner") == want, do
            relay.lift()
        relay.fault(at="connect", do="garbage", count=1)
        raises(ValueError, walk, relay, "banner")


@case
def starttls_faults():
    with Relay() as relay:
        relay.fault(at="starttls", do="reply", code=454, text="TLS not available due to temporary reason", count=1)
        with relay.smtp() as smtp:
            smtp.ehlo()
            assert smtp.docmd("STARTTLS")[0] == 454
        strip = relay.fault(starttls="strip")
        with relay.smtp() as smtp:
            smtp.ehlo()
            assert not smtp.has_extn("starttls") and smtp.docmd("STARTTLS")[0] == 502
        assert relay.http("DELETE", "/fault/%d" % strip)[1] == {"lifted": 1}
        relay.fault(starttls="inject", count=1)
        with relay.raw() as raw:
            raw.ask("EHLO x")
            raw.send("STARTTLS\r\n")
            assert raw.reply()[0] == 220 and raw.reply()[0] == 250
        with relay.smtp(tls=True) as smtp:
            assert smtp.noop()[0] == 250


@case
def certificates_are_wrong_in_one_way_only():
    context = ssl.create_default_context(cafile=harness.TOP + "/ca/ca.pem")

    def code():
        plain = socket.create_connection(("127.0.0.1", relay.tls_port), timeout=10)
        try:
            context.wrap_socket(plain, server_hostname="localhost").close()
            return 0
        except ssl.SSLCertVerificationError as error:
            return error.verify_code
        finally:
            plain.close()
    with Relay() as relay:
        assert code() == 0
        for kind, want in (("expired", 10), ("wrong-name", 62), ("self-signed", 18)):
            relay.fault(certificate=kind)
            assert code() == want, kind
            relay.lift()
        assert code() == 0


@case
def refuse_closes_the_port_and_opens_it_again():
    with Relay() as relay, relay.raw() as before:
        relay.fault(at="connect", do="refuse")
        raises(ConnectionRefusedError, Raw, relay.port)
        raises(ConnectionRefusedError, Raw, relay.tls_port)
        assert before.ask("NOOP")[0] == 250  # who is in stays in
        relay.lift()
        relay.raw().__exit__()
        relay.fault(at="connect", do="refuse", for_ms=200)
        raises(ConnectionRefusedError, Raw, relay.port)

        def back():
            try:
                relay.raw().__exit__()
                return True
            except ConnectionRefusedError:
                return False
        until(back)
        relay.fault(at="connect", do="refuse", after=2)
        with relay.smtp() as smtp:
            smtp.sendmail("a@x.test", "b@x.test", message(1))
            relay.raw().__exit__()
            smtp.sendmail("a@x.test", "b@x.test", message(2))
            raises(ConnectionRefusedError, Raw, relay.port)


@case
def lost_replies_are_in_the_ledger():
    with Relay() as relay:
        relay.fault(at="final", do="lose", count=1)
        assert walk_plain(relay, 1) == "reset"
        for do, want in (("hang", "silence"), ("close", (0, "")), ("reset", "reset")):
            relay.fault(at="final", do=do, taken=True, count=1)
            assert walk_plain(relay, do) == want, do
        assert walk_plain(relay, "last")[0] == 250
        assert [(row[3], row[6]) for row in relay.ledger()] == [
            ("1@x.test", "lost"), ("hang@x.test", "lost"), ("close@x.test", "lost"), ("reset@x.test", "lost"),
            ("last@x.test", "250")]
        assert relay.status()["lost"] == 4 and relay.status()["accepted"] == 5


def walk_plain(relay, number):
    try:
        with relay.raw(timeout=0.6) as raw:
            raw.ask("EHLO x")
            return raw.mail(message(number))
    except ConnectionResetError:
        return "reset"
    except socket.timeout:
        return "silence"


@case
def final_replies_decide_what_is_taken():
    with Relay() as relay, relay.raw() as raw:
        raw.ask("EHLO x")
        for code, taken in ((250, True), (251, True), (450, False), (554, False)):
            relay.fault(at="final", do="reply", code=code, text="told", count=1)
            before = len(relay.ledger())
            assert raw.mail(message(code)) == (code, "%d told" % code)
            assert len(relay.ledger()) - before == taken, code
        assert [row[6] for row in relay.ledger()] == ["250", "251"]
        relay.fault(at="final", do="reply", code=421)
        assert raw.mail(message(1))[0] == 421 and raw.reply() == (0, "")


@case
def bdat_refused_by_a_fault_keeps_step():
    with Relay("--chunking") as relay, relay.raw() as raw:
        raw.ask("EHLO x")
        relay.fault(at="data", do="reply", code=452, count=1)
        mail = (raw.envelope() + "BDAT 6 LAST\r\nQUIT\r\n").encode()
        raw.send(mail * 3)
        assert [raw.reply()[0] for _ in range(9)] == [250, 250, 452, 250, 250, 250, 250, 250, 250]
        assert len(relay.ledger()) == 2


@case
def count_share_after_and_time():
    with Relay() as relay, relay.raw() as raw:
        raw.ask("EHLO x")

        def codes(n):
            return [raw.mail(message(i))[0] for i in range(n)]
        relay.fault(at="final", do="reply", code=451, count=2)
        assert codes(4) == [451, 451, 250, 250]
        relay.fault(at="final", do="reply", code=452, after=3)
        assert codes(5) == [250, 250, 250, 452, 452]
        relay.lift()
        relay.fault(at="final", do="reply", code=453, share=0.1)
        assert codes(100).count(453) == 10
        relay.lift()
        relay.fault(at="final", do="reply", code=450, for_ms=150)
        assert codes(1) == [450]
        until(lambda: not relay.status()["faults"])
        assert codes(1) == [250]
        first, second = relay.fault(at="final", do="reply", code=451), relay.fault(at="mail", do="slow", delay_ms=1)
        assert [f["id"] for f in relay.status()["faults"]] == [first, second]
        assert codes(1) == [451]
        assert [f["hits"] for f in relay.http("GET", "/fault")[1]] == [1, 1]


@case
def control_refuses_what_it_does_not_understand():
    with Relay() as relay:
        for body in ({}, {"at": "final"}, {"at": "final", "do": "dance"}, {"at": "moon", "do": "hang"}, {"at": "final", "do": "lose", "x": 1},
                     {"at": "mail", "do": "lose"}, {"at": "mail", "do": "reply", "code": 250}, {"at": "mail", "do": "reply"},
                     {"at": "final", "do": "reply", "code": 354}, {"at": "final", "do": "reply", "code": 451, "text": "a\r\nb"},
                     {"at": "final", "do": "slow"}, {"at": "final", "do": "hang", "share": 2}, {"at": "final", "do": "hang", "count": 0},
                     {"at": "connect", "do": "refuse", "count": 1}, {"at": "mail", "do": "refuse"}, {"certificate": "good"},
                     {"starttls": "x"}, {"starttls": "strip", "certificate": "expired"}, [], 3,
                     {"at": "final", "do": "reply", "code": 451, "text": "x" * 401}, {"at": "final", "do": "hang", "count": -1}):
            code, answer = relay.http("POST", "/fault", body)
            assert code == 400 and answer["error"], body
        assert relay.http("POST", "/fault", raw="{nonsense")[0] == 400
        assert relay.http("POST", "/fault", raw="[" * 5000)[0] == 400
        assert relay.http("POST", "/fault", raw=" " * 70000)[0] == 413
        assert relay.http("GET", "/elsewhere")[0] == 404
        assert relay.http("DELETE", "/fault/x")[0] == 400
        assert relay.http("POST", "/limits", {"rate": -1})[0] == 400
        for bytes_sent, want in ((b"nonsense\r\n\r\n", b"400"), (b"GET /" + b"x" * 9000, b"413"),
                                 (b"POST /fault HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400")):
            with socket.create_connection(("127.0.0.1", relay.control_port), timeout=10) as raw:
                raw.sendall(bytes_sent)
                assert want in raw.recv(1000).split(b"\r\n")[0], bytes_sent[:20]
        for _ in range(64):
            relay.fault(at="final", do="hang")
        assert relay.http("POST", "/fault", {"at": "final", "do": "hang"})[0] == 400
        assert relay.http("DELETE", "/fault")[1] == {"lifted": 64}


@case
def counts_windows_and_reset():
    with Relay() as relay, relay.raw() as raw:
        assert relay.ready["pid"] == relay.process.pid
        raw.ask("EHLO x")
        for number in range(30):
            raw.mail(message(number))
        relay.fault(at="rcpt", do="reply", code=550, count=1)
        raw.ask("MAIL FROM:<a@x.test>")
        assert raw.ask("RCPT TO:<b@x.test>")[0] == 550
        until(lambda: sum(relay.status("?windows=50")["windows_100ms"]) == 30)
        status = relay.status("?windows=5")
        assert (status["accepted"], status["recipients"], status["connections"], status["connections_open"]) == (30, 30, 1, 1)
        assert status["refused"] == {"550": 1} and len(status["windows_100ms"]) == 5 and status["last_second"] <= 30
        assert relay.http("POST", "/reset-counts")[0] == 200
        status = relay.status("?windows=50")
        assert status["accepted"] == 0 and status["refused"] == {} and sum(status["windows_100ms"]) == 0
        assert len(relay.ledger()) == 30  # the ledger is not a count
        with open(relay.ledger_file) as file:
            events = [line.split(" ", 2)[2].strip() for line in file if line.startswith("#")]
        assert events[0].startswith("relaysim") and events[1:] == ["fault 1 set", "counts reset"]
