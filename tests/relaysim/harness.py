"""What the cases share: a relay in a directory of its own, a raw socket, a reader of the ledger."""
import http.client
import json
import os
import signal
import smtplib
import socket
import ssl
import subprocess
import tempfile
import time

MAKE_CA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "relaysim", "make-ca")
PROGRAM = ""  # set by run.py
TOP = ""      # a directory for everything, set by run.py
CASES = []


def case(function):
    CASES.append(function)
    return function


class Relay:
    """One relaysim in a directory of its own."""

    def __init__(self, *options, tls=True, dir=None, listen="127.0.0.1:0", listen_tls="127.0.0.1:0", control="127.0.0.1:0"):
        self.dir = dir or tempfile.mkdtemp(dir=TOP)
        self.ledger_file = os.path.join(self.dir, "ledger")
        ready = os.path.join(self.dir, "ready")
        if os.path.exists(ready):
            os.unlink(ready)
        argv = [PROGRAM, "--listen", listen, "--control", control, "--ledger", self.ledger_file, "--ready-file", ready]
        if tls:
            argv += ["--listen-tls", listen_tls, "--cert", TOP + "/ca/server.pem", "--key", TOP + "/ca/server.key",
                     "--ca", TOP + "/ca/ca.pem", "--ca-key", TOP + "/ca/ca.key"]
        self.process = subprocess.Popen(argv + list(options), stderr=subprocess.PIPE)
        until(lambda: os.path.exists(ready) or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise AssertionError("relaysim ended: " + self.process.stderr.read().decode())
        with open(ready) as file:
            self.ready = json.load(file)
        self.port, self.tls_port, self.control_port = (self.ready[k] for k in ("port", "tls_port", "control_port"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        errors = self.process.communicate(timeout=10)[1].decode()
        if self.process.returncode not in (0, -signal.SIGKILL) or "Sanitizer" in errors or "runtime error" in errors:
            raise AssertionError("relaysim ended with %s: %s" % (self.process.returncode, errors))

    def http(self, method, path, body=None, raw=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.control_port, timeout=10)
        connection.request(method, path, raw if raw is not None else json.dumps(body) if body is not None else None)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        return reply.status, json.loads(text)

    def status(self, query=""):
        return self.http("GET", "/status" + query)[1]

    def fault(self, **fault):
        code, answer = self.http("POST", "/fault", fault)
        assert code == 200, answer
        return answer["id"]

    def lift(self):
        assert self.http("DELETE", "/fault")[0] == 200

    def ledger(self):
        return read_ledger(self.ledger_file)

    def smtp(self, tls=False):
        smtp = smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test", timeout=10)
        if tls:
            smtp.starttls(context=trusting())
        return smtp

    def raw(self, timeout=10):
        return Raw(self.port, timeout)


class Raw:
    """A socket with line reading, for what smtplib would not send."""

    def __init__(self, port, timeout=10, greet=True):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        self.greeting = self.reply() if greet else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def reply(self):
        """(code, text of all lines); (0, '') when the connection has ended"""
        lines = []
        while True:
            line = self.file.readline()
            if not line:
                return 0, ""
            lines.append(line.decode("latin-1").rstrip("\r\n"))
            if line[3:4] != b"-":
                return int(line[:3]), "\n".join(lines)

    def ask(self, line):
        self.send(line + "\r\n")
        return self.reply()

    def envelope(self, recipient="to@x.test", sender="from@x.test"):
        return "MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\n" % (sender, recipient)

    def mail(self, text, recipient="to@x.test"):
        """EHLO must be done. The reply to the final dot."""
        self.send(self.envelope(recipient) + "DATA\r\n")
        codes = [self.reply()[0] for _ in range(3)]
        assert codes == [250, 250, 354], codes
        self.send(stuff(text) + b".\r\n")
        return self.reply()


def stuff(text):
    text = text if isinstance(text, bytes) else text.encode()
    return (b"." if text.startswith(b".") else b"") + text.replace(b"\r\n.", b"\r\n..")


def message(number, body="hello\r\n"):
    return "Message-ID: <%s@x.test>\r\nSubject: x\r\n\r\n%s" % (number, body)


def read_ledger(file):
    rows = []
    with open(file, "rb") as lines:
        for line in lines:
            assert line.endswith(b"\n"), "torn line %r" % line
            if line.startswith(b"#"):
                continue
            columns = line.decode().rstrip("\n").split("\t")
            assert len(columns) == 7, columns
            rows.append(columns)
    return rows


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited %d s in vain" % seconds)
        time.sleep(0.005)


def trusting():
    context = ssl.create_default_context(cafile=TOP + "/ca/ca.pem")
    context.check_hostname = False  # its chain is still verified; names have a case of their own
    return context


def password_file():
    name = os.path.join(TOP, "password")
    with open(name, "w") as file:
        file.write("s3cret\n")
    return name


def raises(kind, function, *args):
    try:
        function(*args)
    except kind as error:
        return error
    raise AssertionError("no %s" % (kind,))
