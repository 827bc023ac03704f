#!/usr/bin/env python3
"""Reads the mails that td_render_sample wrote with Python's email package, which shares no code with Tandem, and compares
each with what it must hold: nothing lost, nothing added, no defect; CRLF only, 7-bit, no long line.

usage: check.py BUILD-DIRECTORY"""
import email
import email.header
import email.policy
import email.utils
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
POLICY = email.policy.default.clone(raise_on_defect=True)
ONE_CLICK = "List-Unsubscribe=One-Click"


class Wrong(Exception):
    pass


def need(holds, why):
    if not holds:
        raise Wrong(why)


def same(what, got, wanted):
    if got != wanted:
        raise Wrong(f"{what}: {got!r} instead of {wanted!r}"[:600])


def lines_of(text):
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_wire(raw):
    """What SMTP and RFC 5322 ask of the bytes, before any parser repairs them."""
    need(raw.endswith(b"\r\n"), "does not end with CRLF")
    need(not re.search(rb"[^\r]\n|\r[^\n]|\r\Z|\A\n", raw), "a bare CR or LF")
    need(not re.search(rb"[\x00\x80-\xff]", raw), "not 7-bit")
    for line in raw.split(b"\r\n"):
        need(len(line) <= 998, "a line over 998")
        need(line != b".", "a line that is a dot")
    for line in raw.split(b"\r\n"):
        # A word that cannot be folded (a URL, a long media type) may stand out, in header fields only.
        unfoldable = re.fullmatch(rb"([A-Za-z-]+:)? [^ ]+", line)
        need(len(line) <= 78 or unfoldable, f"line of {len(line)}")


def text_of(part):
    same("charset", part.get_content_charset(), "utf-8")
    same("encoding", part["content-transfer-encoding"], "quoted-printable")
    return lines_of(part.get_payload(decode=True).decode("utf-8"))


def check_text(what, part, wanted, alone):
    got, wanted = text_of(part), lines_of(wanted)
    # A mail that is one text ends with a line end, which its template need not have.
    if alone and not wanted.endswith("\n") and got == wanted + "\n":
        return
    same(what, got, wanted)


def check_files(parts, wanted):
    same("files", len(parts), len(wanted))
    # Inline images stand with the HTML, before the attachments.
    wanted = [f for f in wanted if f["inline"]] + [f for f in wanted if not f["inline"]]
    for part, file in zip(parts, wanted):
        same("filename", part.get_filename(), file["filename"])
        same("type", part.get_content_type(), file["type"])
        same("disposition", part.get_content_disposition(), "inline" if file["inline"] else "attachment")
        same("content id", part["content-id"], f"<{file['content_id']}>" if "content_id" in file else None)
        data = part.get_payload(decode=True)
        same("sha256 of " + file["filename"], hashlib.sha256(data).hexdigest(), file["sha256"])


def wanted_shape(case):
    """The multiparts, outermost first."""
    inline = any(f["inline"] for f in case["files"])
    attached = any(not f["inline"] for f in case["files"])
    return [name for name, there in (("mixed", attached), ("related", inline),
                                     ("alternative", "text" in case and "html" in case)) if there]


def check_mailbox(msg, field, name, address):
    (box,) = msg[field].addresses
    same(field, box.addr_spec, address)
    raw = dict(msg.raw_items())[field]
    if box.display_name == name:
        return
    # The new parser folds blanks inside a phrase into one, even those inside encoded words, and keeps the one between two
    # encoded words, which RFC 2047 s.6.2 says to drop. The older functions of the same package do neither.
    phrase = email.utils.parseaddr(raw)[0]
    same(field, str(email.header.make_header(email.header.decode_header(phrase))), name)


def check_header(msg, case):
    same("subject", msg["subject"], case["subject"])
    check_mailbox(msg, "From", case["from_name"], "nyheter@news.example.se")
    check_mailbox(msg, "To", case["to_name"], case["to"])
    same("message-id", msg["message-id"], "<week-48.7@news.example.se>")
    same("date", msg["date"].datetime.isoformat(), "2025-11-24T16:00:00+00:00")
    same("list-id", msg["list-id"], "<nyheter.news.example.se>")
    same("language", msg["content-language"], "sv")
    same("one-click", msg["list-unsubscribe-post"], ONE_CLICK)
    links = re.fullmatch(r"<mailto:av@news\.example\.se\?subject=unsubscribe-u%2B([a-z0-9._-]+)>,\s+"
                         r"<https://u\.news\.example\.se/u/u%2B([a-z0-9._-]+)>", msg["list-unsubscribe"])
    need(links and links[1] == links[2] and links[1].startswith("week-48.7."), f"list-unsubscribe: {msg['list-unsubscribe']}")
    if "header_name" in case:
        same("extra header", msg[case["header_name"]], case["header_value"])
    names = [name.lower() for name in msg.keys()]
    same("fields given twice", sorted({n for n in names if names.count(n) > 1}), [])
    return f"https://u.news.example.se/u/u%2B{links[2]}"


def check(raw, case):
    check_wire(raw)
    msg = email.message_from_bytes(raw, policy=POLICY)
    parts = list(msg.walk())
    for part in parts:
        same("defects", part.defects, [])
        for name, value in part.items():
            same(f"defects of {name}", list(getattr(value, "defects", ())), [])
    url = check_header(msg, case)
    same("structure", [p.get_content_subtype() for p in parts if p.is_multipart()], wanted_shape(case))
    leaves = [p for p in parts if not p.is_multipart()]
    for kind, subtype in (("text", "plain"), ("html", "html")):
        if kind in case:
            part = leaves.pop(0)
            same("type", part.get_content_type(), f"text/{subtype}")
            check_text(kind, part, case[kind].replace("@unsubscribe@", url), part is msg)
    check_files(leaves, case["files"])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program = next(pathlib.Path(sys.argv[1]).rglob("td_render_sample"), None)
    if not program:
        sys.exit("FAIL render: td_render_sample is not built")
    passed = failed = 0
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([program, out, ROOT / "deploy/sample"], check=True)
        for line in (pathlib.Path(out) / "expected.jsonl").read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            try:
                check((pathlib.Path(out) / (case["name"] + ".eml")).read_bytes(), case)
                passed += 1
                print("PASS render." + case["name"])
            except Exception as why:  # the parser raises what it finds: each is a failure of that mail
                failed += 1
                print(f"FAIL render.{case['name']}: {type(why).__name__} {why}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
