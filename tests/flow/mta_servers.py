"""The real Postfix and Exim as relays, with nothing of them installed: their Debian packages exclude each other, so they are
unpacked into a folder and run from there, with settings, queue, ports and mailboxes of their own.

Both listen on loopback, take mail only with STARTTLS and AUTH, deliver what is for MAIL_DOMAIN into a maildir, refuse nobody
at RCPT, bounce what is for unknown people there, and hand bounces on by LMTP to tandem-bounce.
"""

import os
import pwd
import subprocess
from pathlib import Path

from stack import Failed, Process, answers, free_port, wait_for

MAIL_DOMAIN = "readers.example.net"
UNKNOWN = "nobody-here"  # local parts that begin so bounce
ROOT_COMMAND = [] if os.geteuid() == 0 else ["sudo", "-n"]


class NotHere(Exception):
    """Cannot be run on this machine; the text says why."""


def apt(*command, **options):
    return subprocess.run(["apt-get", *command], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, **options)


def unpack(names, folder):
    """Download Debian packages, with what they need and this machine does not have, and unpack all into folder."""
    debs = folder.parent / f"{folder.name}.debs"
    debs.mkdir()
    folder.mkdir()

    def download():
        plan = apt("install", "-s", "--no-install-recommends", *names)
        steps = [line.split() for line in plan.stdout.splitlines() if line.startswith("Inst ")]
        wanted = [step[1] for step in steps if not step[2].startswith("[")]  # [version]: an older one is here and will do
        return plan if plan.returncode != 0 or not wanted else apt("download", *wanted, cwd=debs)

    done = download()
    if done.returncode != 0:  # no lists yet, or old ones
        subprocess.run([*ROOT_COMMAND, "apt-get", "-q", "update"], capture_output=True)
        done = download()
    if done.returncode != 0:
        raise NotHere(f"{' '.join(names)} could not be had: {' '.join(done.stderr.strip().splitlines()[-1:])}")
    for deb in debs.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)


def find(folder, path):
    """A file of a package: unpacked, or installed."""
    for base in (folder, Path("/")):
        if (base / path).exists():
            return base / path
    raise NotHere(f"{path} is in none of the packages")


def libraries(folder):
    """Where the loader finds what came with the packages."""
    return sorted({str(p.parent) for p in folder.glob("**/*.so*") if "sasl2" not in p.parts})


class Mta:
    """What both have in common. Runs as root (sudo), since both change users; mail is delivered by `owner`."""

    packages = ()

    def __init__(self, folder, tls, user, password, bounces, country):
        """bounces: (domain, LMTP port) where what comes back goes."""
        self.dir, self.tls, self.user, self.password, self.country = Path(folder), tls, user, password, country
        self.bounce_domain, self.lmtp_port = bounces
        self.port = free_port()
        self.name = type(self).__name__.lower()
        self.maildir = self.dir / "mailbox"
        if ROOT_COMMAND and subprocess.run([*ROOT_COMMAND, "true"], capture_output=True).returncode != 0:
            raise NotHere("needs root or sudo: it changes users")
        # Whoever reads the mailbox; root must not be the one who delivers.
        self.owner = pwd.getpwuid(os.geteuid()) if os.geteuid() else pwd.getpwnam("nobody")
        self.dir.mkdir()
        for path in (self.dir, *self.dir.parents):  # other users pass through the temp folder
            if path.owner() == pwd.getpwuid(os.geteuid()).pw_name and path.stat().st_mode & 0o777 == 0o700:
                path.chmod(0o711)
        self.files = self.dir / "files"
        unpack(self.packages, self.files)
        for sub in ("new", "cur", "tmp"):
            (self.maildir / sub).mkdir(parents=True)
        self.root("chown", "-R", f"{self.owner.pw_uid}:{self.owner.pw_gid}", self.maildir)
        self.key_for_owner()
        self.process = None
        self.pid_file = self.dir / "pid"

    def root(self, *command, **options):
        done = subprocess.run([*ROOT_COMMAND, *map(str, command)], capture_output=True, text=True, **options)
        if done.returncode != 0:
            raise Failed(f"{command[0]}: exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def key_for_owner(self):
        self.cert, self.key = self.dir / "server.pem", self.dir / "server.key"
        self.cert.write_bytes((self.tls / "server.pem").read_bytes())
        self.key.touch(mode=0o600)
        self.key.write_bytes((self.tls / "server.key").read_bytes())

    def run(self, argv, env):
        """Under sudo the environment is given by env(1), and the process is stopped by the pid that it wrote."""
        self.process = Process(self.name, [*ROOT_COMMAND, "env", *[f"{k}={v}" for k, v in env.items()], *argv], self.dir / "log")
        self.process.start()
        wait_for(self.name, 20, lambda: self.process.must_live() or answers(self.port))

    def stop(self):
        if self.process and self.process.alive():
            if self.pid_file.exists():
                self.root("kill", "-TERM", self.pid_file.read_text().split()[0])
            else:
                self.process.send(15)
            self.process.popen.wait(20)

    def entry(self):
        """As an entry of `relays`."""
        password_file = self.dir / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password + "\n")
        return {"name": self.name, "host": "localhost", "port": self.port, "tls": "starttls", "ca_file": str(self.tls / "ca.pem"),
                "user": self.user, "password_file": str(password_file), "country": self.country, "operated_by": "this machine",
                "return_path_domain": self.bounce_domain, "max_connections": 5}

    def mails(self):
        """Bytes of every mail delivered."""
        return [p.read_bytes() for p in sorted((self.maildir / "new").iterdir())]

    def log_tail(self):
        text = "\n".join(p.read_text(errors="replace") for p in self.dir.glob("*log") if p.is_file())
        return text.strip().splitlines()[-12:]


class Postfix(Mta):
    packages = ("postfix", "sasl2-bin", "libsasl2-modules", "libsasl2-modules-db")

    def write(self):
        etc, queue = self.dir / "etc", self.dir / "queue"
        etc.mkdir()
        # The mail owner must be nobody else's: an account of every Debian that runs nothing.
        owner, group = "games", "operator"
        programs = find(self.files, "usr/lib/postfix/sbin")
        (etc / "main.cf").write_text(f"""compatibility_level = 3.6
queue_directory = {queue}
data_directory = {self.dir / "data"}
daemon_directory = {programs}
command_directory = {find(self.files, "usr/sbin/postqueue").parent}
shlib_directory = {programs.parent}
mail_owner = {owner}
setgid_group = {group}
maillog_file = {self.dir / "mail.log"}
maillog_file_prefixes = {self.dir}
import_environment = MAIL_CONFIG LD_LIBRARY_PATH SASL_PATH TZ=UTC LANG=C
myhostname = mx.example.net
mydestination =
alias_maps =
local_recipient_maps =
mynetworks =
inet_interfaces = loopback-only
virtual_mailbox_domains = {MAIL_DOMAIN}
virtual_mailbox_base = {self.dir}
virtual_mailbox_maps = regexp:{etc / "mailboxes"}
virtual_minimum_uid = 100
virtual_uid_maps = static:{self.owner.pw_uid}
virtual_gid_maps = static:{self.owner.pw_gid}
relay_domains = {self.bounce_domain}
relay_transport = lmtp:inet:127.0.0.1:{self.lmtp_port}
smtpd_reject_unlisted_recipient = no
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_sasl_auth_enable = yes
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = {etc / "sasl"}
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = {self.cert}
smtpd_tls_key_file = {self.key}
smtpd_tls_auth_only = yes
smtpd_client_connection_rate_limit = 0
default_database_type = texthash
""")
        (etc / "mailboxes").write_text(f"if !/^{UNKNOWN}/\n/^/ mailbox/\nendif\n")
        one = "127.0.0.1:%d inet n - n - - smtpd" % self.port
        internal = """pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
        (etc / "master.cf").write_text(f"{one}\n{internal}")
        self.make_folders(queue, owner, group)
        self.make_password(etc / "sasl", owner)

    def make_folders(self, queue, owner, group):
        """As post-install of the package makes them."""
        for sub in ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "maildrop", "public",
                    "pid", "saved", "trace"):
            (queue / sub).mkdir(parents=True)
            if sub != "pid":
                self.root("chown", owner, queue / sub)
            self.root("chmod", "700" if sub not in ("pid", "public", "maildrop") else "755", queue / sub)
        self.root("chgrp", group, queue / "public", queue / "maildrop")
        self.root("chmod", "710", queue / "public")
        self.root("chmod", "730", queue / "maildrop")
        (self.dir / "data").mkdir()
        self.root("chown", owner, self.dir / "data")
        self.root("chown", "root", queue, queue / "pid", self.dir / "etc", self.dir / "etc/main.cf", self.dir / "etc/master.cf", self.key)

    def make_password(self, folder, owner):
        folder.mkdir()
        database = folder / "sasldb2"
        (folder / "smtpd.conf").write_text(f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {database}\nmech_list: PLAIN LOGIN\n")
        self.root("env", *[f"{k}={v}" for k, v in self.env().items()], find(self.files, "usr/sbin/saslpasswd2"), "-p", "-c", "-f", database,
                  "-u", "mx.example.net", self.user, input=self.password)
        self.root("chown", owner, database)

    def env(self):
        sasl = {str(p.parent) for p in [*self.files.glob("**/sasl2/*.so"), *Path("/usr/lib").glob("*/sasl2/*.so")]}
        postfix = find(self.files, "usr/lib/postfix")
        return {"LD_LIBRARY_PATH": ":".join([*libraries(self.files), str(postfix)]), "SASL_PATH": ":".join(sorted(sasl))}

    def start(self):
        self.write()
        self.pid_file = self.dir / "queue/pid/master.pid"
        master = find(self.files, "usr/lib/postfix/sbin/master")
        self.run([master, "-c", self.dir / "etc", "-s"], self.env())

    def stop(self):
        if self.process and self.process.alive():
            pid = self.root("cat", self.pid_file).split()[0]
            self.root("kill", "-TERM", pid)
            self.process.popen.wait(20)


class Exim(Mta):
    packages = ("exim4-daemon-light", "libnss-wrapper")

    def write(self):
        """A second port is the next hop that refuses who is unknown: of its own refusals Exim's reports say only 5.0.0."""
        self.port_of_nobody = free_port()
        uid, gid = self.owner.pw_name, self.owner.pw_gid
        (self.dir / "exim.conf").write_text(f"""
exim_user = {uid}
exim_group = {gid}
exim_path = {find(self.files, "usr/sbin/exim4")}
never_users =
primary_hostname = mx.example.net
spool_directory = {self.dir / "spool"}
log_file_path = {self.dir / "exim-%s.log"}
pid_file_path = {self.pid_file}
daemon_smtp_ports = {self.port} : {self.port_of_nobody}
local_interfaces = 127.0.0.1
host_lookup =
rfc1413_query_timeout = 0s
keep_environment = LD_LIBRARY_PATH : LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
deliver_drop_privilege
trusted_users = {uid}
tls_advertise_hosts = *
tls_certificate = {self.cert}
tls_privatekey = {self.key}
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
acl_smtp_mail = must_log_in
acl_smtp_rcpt = must_log_in
bounce_return_body = true
queue_run_max = 5
smtp_accept_max = 50
smtp_accept_queue_per_connection = 100000

begin acl
must_log_in:
  deny condition = ${{if eq{{$received_port}}{{{self.port_of_nobody}}}}}
       condition = ${{if !eq{{$local_part}}{{}}}}
       message = 550 5.1.1 Unknown user
  accept condition = ${{if eq{{$received_port}}{{{self.port_of_nobody}}}}}
  deny message = TLS and AUTH first
       !encrypted = *
  deny message = TLS and AUTH first
       !authenticated = *
  accept

begin routers
bounces:
  driver = accept
  domains = {self.bounce_domain}
  transport = tandem_bounce
readers:
  driver = accept
  domains = {MAIL_DOMAIN}
  condition = ${{if match{{$local_part}}{{^{UNKNOWN}}}{{no}}{{yes}}}}
  transport = mailbox
nobody:
  driver = manualroute
  domains = {MAIL_DOMAIN}
  route_list = * 127.0.0.1
  self = send
  transport = next_hop

begin transports
mailbox:
  driver = appendfile
  directory = {self.maildir}
  maildir_format
  delivery_date_add
  envelope_to_add
  user = {uid}
  group = {gid}
next_hop:
  driver = smtp
  allow_localhost
  port = {self.port_of_nobody}
tandem_bounce:
  driver = smtp
  protocol = lmtp
  hosts = 127.0.0.1
  allow_localhost
  port = {self.lmtp_port}
  hosts_override

begin retry
* * F,1h,5s

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{self.user}}}}}{{eq{{$auth3}}{{{self.password}}}}}}}}}
  server_set_id = $auth2
""")
        (self.dir / "spool").mkdir()
        self.root("chown", "-R", f"{self.owner.pw_uid}:{gid}", self.dir / "spool", self.key)
        self.root("chown", "root", self.dir / "exim.conf")
        self.root("chmod", "644", self.dir / "exim.conf")
        self.root("chmod", "777", self.dir)  # logs, pid

    def start(self):
        self.write()
        exim = find(self.files, "usr/sbin/exim4")
        if exim.is_relative_to(self.files):
            self.root("chmod", "u-s", exim)  # set-uid, the loader would not look into our folder
        self.run([exim, "-C", self.dir / "exim.conf", "-bdf", "-q5s"], self.env())

    def env(self):
        """Debian's Exim does not start without its account, which unpacking does not make: it is shown one that has it."""
        passwd, group = self.dir / "passwd", self.dir / "group"
        passwd.write_text(Path("/etc/passwd").read_text() + f"Debian-exim:x:{self.owner.pw_uid}:{self.owner.pw_gid}::/:/bin/false\n")
        group.write_text(Path("/etc/group").read_text() + f"Debian-exim:x:{self.owner.pw_gid}:\n")
        wrapper = next((str(p) for base in (self.files / "usr/lib", Path("/usr/lib")) for p in base.glob("*/libnss_wrapper.so")), None)
        if not wrapper:
            raise NotHere("libnss_wrapper.so is in none of the packages")
        return {"LD_LIBRARY_PATH": ":".join(libraries(self.files)), "LD_PRELOAD": wrapper, "NSS_WRAPPER_PASSWD": passwd,
                "NSS_WRAPPER_GROUP": group}
