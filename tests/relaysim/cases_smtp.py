"""Options, TLS, AUTH, PIPELINING, BDAT, limits."""
import hashlib
import os
import select
import smtplib
import socket
import ssl
import subprocess
import tempfile
import time

import harness
from harness import Relay, case, message, password_file, raises, stuff, trusting, until


@case
def help_version_and_usage():
    assert b"--ledger" in subprocess.run([harness.PROGRAM, "--help"], stdout=subprocess.PIPE, check=True).stdout
    assert b"tandem-relaysim" in subprocess.run([harness.PROGRAM, "--version"], stdout=subprocess.PIPE, check=True).stdout
    for argv, code in ([], 64), (["--listen", "127.0.0.1:0", "--rate", "x"], 64), (["--listen", "nonsense"], 78), \
            (["--listen", "127.0.0.1:0", "--cert", "/nonexistent", "--key", "/nonexistent"], 78):
        got = subprocess.run([harness.PROGRAM] + argv, stderr=subprocess.DEVNULL, timeout=10).returncode
        assert got == code, (argv, got)


@case
def make_ca_changes_nothing_the_second_time():
    directory = tempfile.mkdtemp(dir=harness.TOP)

    def made(*names):
        subprocess.run([harness.MAKE_CA, directory, *names], check=True)
        return {n: open(os.path.join(directory, n)).read() for n in ("ca.pem", "server.pem", "server.key")}
    first = made("a.test")
    assert made("a.test") == first
    second = made("a.test", "b.test")
    assert second["ca.pem"] == first["ca.pem"] and second["server.pem"] != first["server.pem"]
    subprocess.run(["openssl", "verify", "-CAfile", directory + "/ca.pem", "-verify_hostname", "b.test",
                    directory + "/server.pem"], check=True, stdout=subprocess.DEVNULL)


@case
def ehlo_offers_what_the_options_say():
    def lines(*options, tls=True):
        with Relay(*options, tls=tls) as relay, relay.raw() as raw:
            return raw.ask("EHLO client.test")[1].split("\n")
    assert lines() == ["250-relaysim.invalid", "250-PIPELINING", "250-SIZE 41943040", "250-8BITMIME", "250-STARTTLS",
                       "250 ENHANCEDSTATUSCODES"]
    assert lines("--name", "a.test", "--no-pipelining", "--no-starttls", "--chunking", "--size", "1000") == [
        "250-a.test", "250-SIZE 1000", "250-8BITMIME", "250-CHUNKING", "250 ENHANCEDSTATUSCODES"]
    assert "250-STARTTLS" not in lines(tls=False)
    auth = ("--user", "u", "--password-file", password_file())
    assert "250-AUTH PLAIN LOGIN" not in lines(*auth)
    assert "250-AUTH PLAIN LOGIN" in lines(*auth, "--plaintext-auth")
    assert lines(*auth, "--profile", "ses", "--plaintext-auth", "--no-starttls") == [
        "250-relaysim.invalid", "250-8BITMIME", "250-AUTH PLAIN LOGIN", "250 Ok"]


@case
def starttls_and_auth():
    with Relay("--user", "u", "--password-file", password_file()) as relay:
        with relay.raw() as raw:
            raw.ask("EHLO x")
            assert raw.ask("MAIL FROM:<a@x.test>")[0] == 530
            assert raw.ask("AUTH PLAIN AHUAczNjcmV0")[0] == 538
        with relay.smtp(tls=True) as smtp:
            smtp.ehlo()
            assert smtp.mail("a@x.test")[0] == 530
            assert raises(smtplib.SMTPAuthenticationError, smtp.login, "u", "wrong").smtp_code == 535
            assert raises(smtplib.SMTPAuthenticationError, smtp.login, "other", "s3cret").smtp_code == 535
            smtp.user, smtp.password = "u", "s3cret"
            assert smtp.auth("LOGIN", smtp.auth_login)[0] == 235
            assert smtp.sendmail("a@x.test", ["b@x.test"], message(1)) == {}
        with relay.smtp(tls=True) as smtp:
            smtp.ehlo()
            smtp.user, smtp.password = "u", "s3cret"
            assert smtp.auth("PLAIN", smtp.auth_plain)[0] == 235
            assert smtp.sendmail("a@x.test", ["b@x.test"], message(2)) == {}
        for bad in "AUTH PLAIN !!!!", "AUTH PLAIN AAA", "AUTH PLAIN =", "AUTH PLAIN " + "AAAA" * 1000, "AUTH CRAM-MD5":
            with relay.smtp(tls=True) as smtp:
                smtp.ehlo()
                assert smtp.docmd(bad)[0] in (501, 504, 535), bad
        assert [row[3] for row in relay.ledger()] == ["1@x.test", "2@x.test"]


@case
def implicit_tls_resumes_sessions():
    with Relay() as relay:
        context, session = trusting(), None
        for number in range(2):
            plain = socket.create_connection(("127.0.0.1", relay.tls_port), timeout=10)
            secure = context.wrap_socket(plain, session=session)
            assert secure.version() in ("TLSv1.2", "TLSv1.3")
            file = secure.makefile("rb")
            assert file.readline().startswith(b"220 ")
            secure.sendall(b"EHLO x\r\n")
            assert b"STARTTLS" not in b"".join(iter_reply(file))
            secure.sendall(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
            assert [file.readline()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
            secure.sendall(message(number).encode() + b".\r\n")
            assert file.readline().startswith(b"250 ")
            session = secure.session
            file.close()
            secure.close()
        until(lambda: relay.status()["tls_resumed"] == 1)
        assert len(relay.ledger()) == 2


def iter_reply(file):
    while True:
        line = file.readline()
        yield line
        if line[3:4] != b"-":
            return


@case
def old_tls_is_refused():
    with Relay() as relay:
        context = trusting()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        plain = socket.create_connection(("127.0.0.1", relay.tls_port), timeout=10)
        raises((ssl.SSLError, OSError), context.wrap_socket, plain)
        plain.close()


@case
def big_mail_over_tls_arrives_whole():
    text = message("big", "".join("%075d\r\n" % i for i in range(60000)))  # 4.6 MB, many records
    with Relay("--ledger-hash") as relay:
        smtp = smtplib.SMTP_SSL("127.0.0.1", relay.tls_port, context=trusting(), timeout=30)
        smtp.sendmail("a@x.test", "b@x.test", text)
        smtp.quit()
        row = relay.ledger()[0]
        assert row[4:6] == [str(len(text)), hashlib.sha256(text.encode()).hexdigest()]


@case
def pipelined_mails():
    with Relay() as relay, relay.raw() as raw:
        raw.ask("EHLO x")
        raw.send(raw.envelope("r0@x.test") + "DATA\r\n")
        for number in range(500):
            assert [raw.reply()[0] for _ in range(3)] == [250, 250, 354]
            raw.send(message(number) + ".\r\n" + raw.envelope("r%d@x.test" % (number + 1)) + "DATA\r\n")
            assert raw.reply()[0] == 250
        assert [(row[2], row[3]) for row in relay.ledger()] == [("r%d@x.test" % n, "%d@x.test" % n) for n in range(500)]


@case
def every_split_of_a_message_gives_the_same_bytes():
    texts = [".\r\n", "..\r\n", ".\r\n.\r\n", "a\r\n.b\r\n..\r\n\r\n.\r\n", "Message-Id:\r\n <f@x>\r\n\r\nx\r\n.\r\n", "\r\n",
             "a\n.\nb\r\n", "a\n.\r\nb\r\n", "a\r\n.\nb\r\n", "a\r.\rb\r\n", "a\r\r\n.\r\n", "\n.\r\nx\r\n", ".\rx\r\n"]
    with Relay("--ledger-hash", "--store", harness.TOP) as relay, relay.raw() as raw:
        raw.ask("EHLO x")
        expected = []
        for text in texts:
            wire = stuff(text) + b".\r\n"
            for split in range(1, len(wire)):
                raw.send(raw.envelope() + "DATA\r\n")
                assert [raw.reply()[0] for _ in range(3)] == [250, 250, 354]
                raw.send(wire[:split])
                if split % 3 == 0:
                    relay.status()  # lets the relay read the first part alone
                raw.send(wire[split:])
                code, line = raw.reply()
                assert code == 250, (text, split, line)
                expected.append([str(len(text)), hashlib.sha256(text.encode()).hexdigest(), "250"])
        assert [row[4:] for row in relay.ledger()] == expected
        assert sum(row[3] == "f@x" for row in relay.ledger()) == len(stuff(texts[4])) + 2
        files = sorted(f for f in os.listdir(harness.TOP) if f.endswith(".eml"))
        assert [hashlib.sha256(open(os.path.join(harness.TOP, f), "rb").read()).hexdigest() for f in files] == [e[1] for e in expected]


@case
def empty_message_is_taken():
    with Relay("--ledger-hash") as relay, relay.raw() as raw:
        raw.ask("EHLO x")
        assert raw.mail("")[0] == 250
        assert relay.ledger()[0][3:6] == ["-", "0", hashlib.sha256(b"").hexdigest()]


@case
def bdat_in_chunks_and_windows():
    with Relay("--chunking", "--ledger-hash") as relay, relay.raw() as raw:
        raw.ask("EHLO x")
        text = message("c1", "a\r\n.\r\nb\r\n").encode()
        raw.send(raw.envelope().encode() + b"BDAT 20\r\n" + text[:20] + b"BDAT %d\r\n" % (len(text) - 20) + text[20:] +
                 b"BDAT 0 LAST\r\n")
        assert [raw.reply()[0] for _ in range(5)] == [250] * 5
        window = b"".join(raw.envelope("w%d@x.test" % n).encode() + b"BDAT %d LAST\r\n" % len(text) + text for n in range(40))
        raw.send(window)
        assert [raw.reply()[0] for _ in range(120)] == [250] * 120
        raw.send("BDAT 6 LAST\r\nQUIT\r\nRSET\r\n")  # no transaction: the six octets are no command
        assert [raw.reply()[0], raw.reply()[0]] == [503, 250]
        raw.send(raw.envelope() + "BDAT 2\r\nab" + "DATA\r\n")
        assert [raw.reply()[0] for _ in range(4)] == [250, 250, 250, 503]
        rows = relay.ledger()
        assert len(rows) == 41 and {row[5] for row in rows} == {hashlib.sha256(text).hexdigest()}
        assert {row[3] for row in rows} == {"c1@x.test"}
    with Relay() as relay, relay.raw() as raw:
        raw.ask("EHLO x")
        assert raw.ask("BDAT 3 LAST")[0] == 502


@case
def size_is_enforced():
    with Relay("--size", "1000") as relay, relay.raw() as raw:
        raw.ask("EHLO x")
        assert raw.ask("MAIL FROM:<a@x.test> SIZE=1001")[0] == 552
        assert raw.mail(message(1, "x" * 1000 + "\r\n"))[0] == 552
        assert raw.mail(message(2))[0] == 250
        assert [row[3] for row in relay.ledger()] == ["2@x.test"]
        assert relay.status()["refused"] == {"552": 2}


@case
def commands_out_of_order_and_hostile_lines():
    with Relay() as relay:
        with relay.raw() as raw:
            for line, code in (("MAIL FROM:<a@x.test>", 503), ("EHLO x", 250), ("RCPT TO:<a@x.test>", 503), ("DATA", 503),
                               ("MAIL FROM:a@x.test", 501), ("MAIL FROM:<a b@x.test>", 501), ("MAIL FROM:<a\tb@x.test>", 501),
                               ("MAIL FROM:<>", 250), ("MAIL FROM:<>", 503), ("DATA", 554), ("RCPT TO:<>", 501),
                               ("RCPT TO:<" + "a" * 400 + "@x.test>", 501), ('RCPT TO:<"a >b"@x.test>', 250), ("NOPE", 500),
                               ("HELO x", 250), ("RCPT TO:<a@x.test>", 503), ("MAIL FROM:<a@x> SIZE=99x", 501)):
                assert raw.ask(line)[0] == code, line
            raw.send("NOOP\n")
            assert raw.reply()[0] == 500
            raw.send("X" * 20000)
            assert raw.reply()[0] == 500 and raw.reply() == (0, "")
        with relay.raw() as raw:
            raw.send("NOOP\r\n" * 60000)  # replies pile up: the relay must wait for us, and then go on
            assert all(raw.reply()[0] == 250 for _ in range(60000))
        assert relay.ledger() == []


@case
def replies_that_pile_up_over_tls_stall_nothing():
    with Relay() as relay:
        plain = socket.create_connection(("127.0.0.1", relay.tls_port), timeout=10)
        with trusting().wrap_socket(plain) as secure:  # one thread: Python's SSL sockets do not stand two
            secure.setblocking(False)
            left, got, lines, end = memoryview(b"NOOP\r\n" * 300000), bytearray(), 0, time.monotonic() + 60
            while lines < 300001:
                assert time.monotonic() < end, "stalled with %d octets unsent" % len(left)
                try:
                    while left:  # as long as the relay takes them: it stops when its replies are not read
                        left = left[secure.send(left[:16384]):]
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    pass
                try:
                    data = secure.recv(1 << 20)
                    assert data, "closed"
                    got += data
                    lines += data.count(b"\n")
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    select.select([secure], [secure] if left else [], [], 1)
            assert got.startswith(b"220 ") and all(line.startswith(b"250 ") for line in got.splitlines()[1:])


@case
def rate_holds_in_any_second():
    with Relay("--rate", "40") as relay:
        with relay.raw() as raw:
            raw.ask("EHLO x")
            end, number, texts = time.monotonic() + 2.6, 0, set()
            while time.monotonic() < end:
                code, line = raw.mail(message(number))
                assert code in (250, 454)
                if code == 454:
                    texts.add(line)
                number += 1
                time.sleep(0.002)
        assert texts == {"454 Throttling failure: Maximum sending rate exceeded."}
        times = [int(row[0]) for row in relay.ledger()]
        assert 110 <= len(times) <= 120, len(times)
        assert all(b - a >= 1000000 for a, b in zip(times, times[40:])), "more than 40 within a second"
        assert relay.status()["accepted"] == len(times)


@case
def quota_of_a_day_counts_recipients():
    with Relay("--daily", "3") as relay, relay.smtp() as smtp:
        smtp.sendmail("a@x.test", ["b@x.test", "c@x.test"], message(1))
        error = raises(smtplib.SMTPDataError, smtp.sendmail, "a@x.test", ["b@x.test", "c@x.test"], message(2))
        assert error.smtp_code == 454 and error.smtp_error == b"Throttling failure: Daily message quota exceeded."
        smtp.sendmail("a@x.test", ["d@x.test"], message(3))
        assert [(row[2], row[3]) for row in relay.ledger()] == [("b@x.test", "1@x.test"), ("c@x.test", "1@x.test"),
                                                                ("d@x.test", "3@x.test")]
        assert relay.http("POST", "/limits", {"daily": 0})[0] == 200
        smtp.sendmail("a@x.test", ["e@x.test"], message(4))


@case
def too_many_connections():
    with Relay("--max-connections", "2") as relay:
        with relay.raw(), relay.raw():
            with relay.raw() as third:
                assert third.greeting[0] == 421 and "Too many concurrent SMTP connections" in third.greeting[1]
                assert third.reply() == (0, "")
        until(lambda: relay.status()["connections_open"] == 0)
        with relay.raw() as again:
            assert again.greeting[0] == 220


@case
def delay_holds_one_connection_only():
    with Relay("--delay", "400") as relay, relay.raw() as slow, relay.raw() as other:
        slow.ask("EHLO x")
        other.ask("EHLO x")
        slow.send(slow.envelope() + "DATA\r\n")
        assert [slow.reply()[0] for _ in range(3)] == [250, 250, 354]
        start = time.monotonic()
        slow.send(message(1) + ".\r\nNOOP\r\n")
        assert other.ask("NOOP")[0] == 250 and time.monotonic() - start < 0.3
        assert relay.ledger() == []
        assert slow.reply()[0] == 250 and 0.39 < time.monotonic() - start < 2
        assert slow.reply()[0] == 250  # the NOOP that had waited
        assert len(relay.ledger()) == 1


@case
def silent_connection_is_closed():
    with Relay("--idle", "150", "--profile", "ses") as relay, relay.raw() as raw:
        assert raw.reply() == (451, "451 4.4.2 Timeout waiting for data from client") and raw.reply() == (0, "")
    with Relay("--idle", "150") as relay, relay.raw() as raw:
        assert raw.reply()[0] == 421 and raw.reply() == (0, "")


@case
def ses_replies():
    with Relay("--profile", "ses") as relay, relay.raw() as raw:
        raw.ask("EHLO x")
        assert raw.ask("MAIL FROM:<a@x.test>")[1] == "250 Ok" and raw.ask("RCPT TO:<b@x.test>")[1] == "250 Ok"
        assert raw.ask("DATA")[1] == "354 End data with <CR><LF>.<CR><LF>"
        raw.send(message(1) + ".\r\n")
        word = raw.reply()[1].split(" ")
        assert word[:2] == ["250", "Ok"] and len(word) == 3 and len(word[2]) == 60
        raw.send("NOOP\r\nNOOP\r\n")
        assert raw.reply()[0] == raw.reply()[0] == 250
        assert relay.status()["unoffered_pipelining"] == 1


@case
def starttls_drops_what_came_before_it():
    with Relay() as relay, relay.raw() as raw:
        raw.ask("EHLO x")
        raw.send("STARTTLS\r\nMAIL FROM:<evil@x.test>\r\n")
        assert raw.reply()[0] == 220
        secure = trusting().wrap_socket(raw.socket)
        secure.sendall(b"EHLO x\r\nRCPT TO:<b@x.test>\r\n")
        file = secure.makefile("rb")
        assert list(iter_reply(file))[-1].startswith(b"250 ")
        assert file.readline().startswith(b"503")
        file.close()
        secure.close()
