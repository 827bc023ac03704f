"""The ledger after the worst, and the bounces."""
import email
import hashlib
import json
import os
import random
import resource
import signal
import smtplib
import socketserver
import subprocess
import tempfile
import threading

import harness
from harness import Raw, Relay, case, message, trusting, until


class Lmtp(socketserver.ThreadingTCPServer):
    """Takes mail over LMTP; the first replies can be scripted."""
    daemon_threads = allow_reuse_address = True

    def __init__(self, refuse_first=0):
        self.mails, self.refuse = [], refuse_first
        super().__init__(("127.0.0.1", 0), LmtpPeer)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class LmtpPeer(socketserver.StreamRequestHandler):
    def say(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self):
        self.say("220 test LMTP")
        for line in iter(self.rfile.readline, b""):
            verb = line[:4].upper()
            if verb == b"LHLO":
                self.say("250-test\r\n250 PIPELINING")
            elif verb == b"MAIL":
                sender = line
                self.say("250 ok")
            elif verb == b"RCPT":
                recipient, self.refused = line, self.server.refuse > 0
                self.server.refuse -= self.refused
                self.say("451 4.3.0 busy" if self.refused else "250 ok")
            elif verb == b"DATA" and self.refused:
                self.say("503 no recipient")
            elif verb == b"DATA":
                self.say("354 go")
                text = []
                for row in iter(self.rfile.readline, b".\r\n"):
                    text.append(row[1:] if row.startswith(b".") else row)
                self.server.mails.append((sender, recipient, b"".join(text)))
                self.say("250 taken")
            else:
                self.say("250 ok")


def bounces(message_id, percent):
    digest = hashlib.sha256(message_id.encode()).digest()
    return int.from_bytes(digest[:4], "big") % 1000000 < percent * 10000


@case
def only_matching_recipients_bounce():
    server = Lmtp()
    with Relay("--bounce-share", "100", "--bounce-to", "127.0.0.1:%d" % server.server_address[1], "--bounce-match", "@gone.") as relay, \
            relay.raw() as raw:
        raw.ask("EHLO x")
        for number, recipient in enumerate(["a@here.test", "b@gone.test", "gone.@here.test"]):
            raw.send(raw.envelope(recipient, "bounce+%d@back.test" % number) + "DATA\r\n")
            assert [raw.reply()[0] for _ in range(3)] == [250, 250, 354]
            raw.send(message(number) + ".\r\n")
            assert raw.reply()[0] == 250
        until(lambda: relay.status()["dsn_sent"] == 1)
    assert [r for _, r, _ in server.mails] == [b"RCPT TO:<bounce+1@back.test>\r\n"]
    server.shutdown()


@case
def share_of_mails_comes_back_as_dsn():
    server = Lmtp(refuse_first=1)
    percent = 20
    with Relay("--bounce-share", str(percent), "--bounce-to", "127.0.0.1:%d" % server.server_address[1]) as relay, \
            relay.raw() as raw:
        raw.ask("EHLO x")
        for number in range(200):
            raw.send(raw.envelope("r%d@x.test" % number, "bounce+%d@back.test" % number) + "DATA\r\n")
            assert [raw.reply()[0] for _ in range(3)] == [250, 250, 354]
            raw.send(message(number, ".dot\r\n").replace("Subject", "X-Token: t%d\r\n.stuffed: y\r\nSubject" % number)
                     .replace("\r\n.", "\r\n..") + ".\r\n")
            assert raw.reply()[0] == 250
        raw.send("MAIL FROM:<>\r\nRCPT TO:<a@x.test>\r\nDATA\r\n")  # a bounce never bounces
        assert [raw.reply()[0] for _ in range(3)] == [250, 250, 354]
        null_id = next("n%d" % n for n in range(1000) if bounces("n%d@x.test" % n, percent))
        raw.send(message(null_id) + ".\r\n")
        assert raw.reply()[0] == 250
        chosen = [n for n in range(200) if bounces("%d@x.test" % n, percent)]
        assert 15 < len(chosen) < 70
        until(lambda: relay.status()["dsn_sent"] == len(chosen))
        status = relay.status()
        assert status["dsn_waiting"] == 0 and status["dsn_dropped"] == 0
    assert len(server.mails) == len(chosen)
    seen = set()
    for sender, recipient, text in server.mails:
        assert sender == b"MAIL FROM:<>\r\n"
        report = email.message_from_bytes(text)
        assert report.get_content_type() == "multipart/report" and report.get_param("report-type") == "delivery-status"
        words, status, original = report.get_payload()
        assert not report.defects and words.get_content_type() == "text/plain"
        assert status.get_content_type() == "message/delivery-status"
        per_message, per_recipient = status.get_payload()
        assert per_message["Reporting-MTA"] == "dns; relaysim.invalid"
        assert (per_recipient["Action"], per_recipient["Status"]) == ("failed", "5.1.1")
        assert per_recipient["Diagnostic-Code"].startswith("smtp; 550 5.1.1 ")
        number = int(per_recipient["Final-Recipient"].split("rfc822; r")[1].split("@")[0])
        assert recipient == b"RCPT TO:<bounce+%d@back.test>\r\n" % number
        assert original.get_content_type() == "text/rfc822-headers"
        quoted = email.message_from_string(original.get_payload())
        assert (quoted["Message-ID"], quoted["X-Token"]) == ("<%d@x.test>" % number, "t%d" % number)
        assert "\n.stuffed: y" in original.get_payload().replace("\r", "")
        seen.add(number)
    assert seen == set(chosen)
    server.shutdown()


@case
def dsn_waits_for_an_lmtp_server_that_is_away():
    server = Lmtp()
    address = server.server_address
    server.shutdown()
    server.server_close()
    with Relay("--bounce-share", "100", "--bounce-to", "127.0.0.1:%d" % address[1], "--bounce-status", "4.2.2") as relay:
        with relay.smtp() as smtp:
            smtp.sendmail("a@x.test", "b@x.test", message(1))
        assert relay.status()["dsn_waiting"] == 1
        late = Lmtp.__new__(Lmtp)
        late.mails, late.refuse = [], 0
        socketserver.ThreadingTCPServer.__init__(late, address, LmtpPeer)
        threading.Thread(target=late.serve_forever, daemon=True).start()
        until(lambda: late.mails)
        assert b"Status: 4.2.2\r\n" in late.mails[0][2]
        late.shutdown()


@case
def kill_keeps_the_ledger_whole():
    with Relay() as relay:
        acknowledged, stop = [], threading.Event()

        def send(thread):
            try:
                with relay.raw() as raw:
                    raw.ask("EHLO x")
                    for number in range(100000):
                        if raw.mail(message("%d-%d" % (thread, number)))[0] != 250:
                            return
                        acknowledged.append("%d-%d@x.test" % (thread, number))
            except (OSError, ValueError, AssertionError):
                stop.set()
        threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(acknowledged) > 500)
        relay.process.kill()
        for thread in threads:
            thread.join(10)
        relay.process.wait(10)
        taken = [row[3] for row in relay.ledger()]
        assert set(acknowledged) <= set(taken), "a mail with a 250 is missing"
        assert len(set(taken)) == len(taken) and len(taken) - len(acknowledged) <= 4  # at most one in flight each
        with open(relay.ledger_file, "ab") as file:
            file.write(b"1\t2\ttorn")
    places = {"listen": relay.port, "listen_tls": relay.tls_port, "control": relay.control_port}
    with Relay(dir=relay.dir, **{k: "127.0.0.1:%d" % v for k, v in places.items()}) as again:
        assert again.port == relay.port
        with again.raw() as raw:
            raw.ask("EHLO x")
            assert raw.mail(message("after"))[0] == 250
        assert [row[3] for row in again.ledger()] == taken + ["after@x.test"]


@case
def no_reply_when_the_ledger_cannot_be_written():
    directory = tempfile.mkdtemp(dir=harness.TOP)
    ledger, ready = os.path.join(directory, "ledger"), os.path.join(directory, "ready")
    argv = [harness.PROGRAM, "--listen", "127.0.0.1:0", "--ledger", ledger, "--ready-file", ready]

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, preexec_fn=limit)
    until(lambda: os.path.exists(ready))
    acknowledged = []
    with Raw(json.load(open(ready))["port"]) as raw:
        raw.ask("EHLO x")
        try:
            while raw.mail(message(len(acknowledged)))[0] == 250:
                acknowledged.append("%d@x.test" % len(acknowledged))
        except (OSError, AssertionError):
            pass
    assert process.communicate(timeout=10)[1].startswith(b"relaysim: ledger: ") and process.returncode == 75
    with open(ledger) as file:
        whole = [line.split("\t")[3] for line in file if line.endswith("\n") and not line.startswith("#")]
    assert whole == acknowledged and len(whole) > 10
    os.symlink("/dev/full", ledger + ".full")
    argv[4] = ledger + ".full"
    assert subprocess.run(argv, stderr=subprocess.DEVNULL, timeout=10).returncode == 75


@case
def ledger_columns_cannot_be_forged():
    with Relay() as relay, relay.raw() as raw:
        raw.ask("EHLO x")
        assert raw.mail("Message-ID: <a\tb\x01c>\r\n\r\nx\r\n")[0] == 250
        assert raw.mail("Message-ID: <" + "a" * 2000 + ">\r\n\r\nx\r\n")[0] == 250
        assert raw.mail("X: 1\r\n" * 20000 + "Message-ID: <late>\r\n\r\nx\r\n")[0] == 250
        assert raw.mail("Message-ID: <end-of-header>\r\n")[0] == 250
        assert raw.mail("Subject: x\r\n\r\nMessage-ID: <body>\r\n")[0] == 250
        assert [row[3] for row in relay.ledger()] == ["a?b?c", "-", "-", "end-of-header", "-"]


@case
def ledger_equals_what_many_clients_were_told():
    """Random sizes, faults and disconnects on TLS and plaintext at once: every 250 is in the ledger, nothing else but `lost`."""
    with Relay("--chunking", "--rate", "3000", "--ledger-hash") as relay:
        relay.fault(at="final", do="reply", code=451, share=0.1)
        relay.fault(at="final", do="lose", share=0.02)
        relay.fault(at="body", do="reset", share=0.02)
        relay.fault(at="rcpt", do="reply", code=550, share=0.05)
        told, unknown, lock = {}, set(), threading.Lock()

        def client(thread):
            chance, smtp, number = random.Random(thread), None, 0
            while number < 120:
                name = "%d-%d" % (thread, number)
                text = message(name, "x.\r\n.y\r\n" * chance.choice((1, 20, 3000)))
                try:
                    if not smtp:
                        smtp = relay.smtp() if thread % 2 else smtplib.SMTP_SSL("127.0.0.1", relay.tls_port, context=trusting())
                    smtp.sendmail("a@x.test", "b@x.test", text)
                    with lock:
                        told[name + "@x.test"] = hashlib.sha256(text.encode()).hexdigest()
                except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError):
                    pass
                except (smtplib.SMTPServerDisconnected, OSError):
                    unknown.add(name + "@x.test")
                    smtp = None
                number += 1
            if smtp:
                smtp.quit()
        threads = [threading.Thread(target=client, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        rows = relay.ledger()
        taken = {row[3]: row[5] for row in rows if row[6] == "250"}
        lost = {row[3] for row in rows if row[6] == "lost"}
        assert taken == told and len(rows) == len(taken) + len(lost)
        assert lost and lost <= unknown and unknown - lost, (len(lost), len(unknown))
        assert relay.status()["accepted"] == len(rows)
