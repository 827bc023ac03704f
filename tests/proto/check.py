#!/usr/bin/python3
"""Golden records between two protobuf implementations: protobuf-c (ours) and Google's for Python.

Usage: check.py BUILD-DIRECTORY        needs protoc and python3-protobuf (Debian's packages)

For each record below: the committed golden file is what protobuf-c writes today; Python reads every field of it as
expected and writes the same bytes; what Python writes, plain, in a schema registry's frame, and with fields that we do
not know, Tandem's reader shows as the same JSON. Prints PASS, FAIL or SKIP a case.
"""
import base64
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"
GOLDEN = HERE / "golden"

HASH = bytes([*range(15), 255])
SHA256 = b"0123456789abcdef0123456789abcde\xff"
LARGEST_U32 = 4294967295


def b64(value):
    return base64.b64encode(value).decode()


FROM = {"address": "news@example.se", "name": "Vårnytt"}
ANNA = {"address": "anna@example.se", "name": "Anna",
        "fields": {"city": "Göteborg", "name": 'Anna "A" 🎉'}}
CAMPAIGN = {
    "from": FROM,
    "reply_to": {"address": "svar@example.se", "name": "Svar"},
    "subject_template": "Hej {{name}}",
    "html_template": "<p>Hej {{name}}</p>",
    "text_template": "Hej {{name}}\n",
    "language": "sv",
    "attachments": [{"filename": "årsbok.pdf", "content_type": "application/pdf", "content_id": "bok",
                     "sha256": b64(SHA256), "size_bytes": 5000000000, "content": b64(b"%PDF\x00\xff")}],
    "headers": [{"name": "X-Campaign", "value": "spring"}],
    "list_id": "weekly.news.example.se",
    "unsubscribe": {"mailto": "off@example.se", "https_url": "https://example.se/u/{{token}}", "one_click": True},
    "route": ["ses", "backup"],
    "allowed_countries": ["SE", "DE"],
    "on_unconfirmed": "ON_UNCONFIRMED_RESEND",
    "bounce_ceiling_per_10000": 300,
    "max_mails_per_s": 4000000000,
    "not_before_unix_ms": 1714550400000,
    "deadline_unix_ms": 1714636800001,
    "class": "CAMPAIGN_CLASS_EXPRESS",
    "expected_recipients": 1000000,
}


def submission(**body):
    return "Submission", {"campaign_id": "spring-2024", "submission_id": "s-17", "tenant": "north", **body}


def outcome(**kind):
    return "Outcome", {"campaign_id": "spring-2024", "index": 7, "at_unix_ms": -1, "service": "dispatch", **kind}


# name of the golden file: (type, every field)
RECORDS = {
    "submission_campaign": submission(campaign=CAMPAIGN),
    "submission_attachment_chunk": submission(attachment_chunk={
        "sha256": b64(SHA256), "part": 1, "part_count": 2, "content": b64(b"last\x00part")}),
    "submission_recipient_batch": submission(recipient_batch={
        "first_index": 500, "recipients": [ANNA, {"address": "bo@example.se"}]}),
    "submission_seal": submission(seal={"recipient_count": LARGEST_U32}),
    "submission_empty_seal": submission(seal={}),
    "submission_command": submission(command={
        "kind": "COMMAND_KIND_SET_ROUTE", "max_mails_per_s": 12, "route": ["ses", "backup"]}),
    "submission_single_mail": submission(single_mail={
        "campaign": {"from": FROM, "text_template": "Kvitto"}, "recipient": ANNA}),
    "campaign_content": ("CampaignContent", {
        "campaign_id": "spring-2024", "tenant": "north", "campaign": CAMPAIGN, "lanes": [0, 5, 300], "sealed": True,
        "recipient_count": 3, "state": "CAMPAIGN_STATE_PAUSED", "submitted_at_unix_ms": 1714550000000,
        "revision": 4}),
    "content_part": ("ContentPart", {
        "sha256": b64(SHA256), "part": 2, "part_count": 3, "total_bytes": 1900000, "content": b64(b"=20\r\n")}),
    "recipient_chunk": ("RecipientChunk", {
        "campaign_id": "spring-2024", "lane": 5, "recipients": [{
            "index": 7, "address": "cia@xn--mller-kva.de", "address_hash": b64(HASH), "name": "Cia",
            "fields": {"city": "Lund"}}]}),
    "outbound_message": ("OutboundMessage", {
        "campaign_id": "spring-2024", "index": 7, "recipient": "anna@example.se", "address_hash": b64(HASH),
        "message_id": "spring-2024.7@mail.example.se", "static_sha256": b64(SHA256), "static_bytes": 70128,
        "segments": [{"inline_bytes": b64(b"To: anna@example.se\r\n")},
                     {"static_offset": 70000, "static_length": 128}],
        "message_bytes": 149, "message_sha256": b64(SHA256), "not_before_unix_ms": 1714550400000,
        "deadline_unix_ms": 1714636800001, "route": ["ses", "backup"], "allowed_countries": ["SE", "DE"],
        "on_unconfirmed": "ON_UNCONFIRMED_HOLD", "class": "CAMPAIGN_CLASS_BULK", "bounce_ceiling_per_10000": 500,
        "max_mails_per_s": 14, "attempts": 2, "evidence_until_unix_ms": 1800000600000, "evidence_relay": "ses",
        "evidence_reason": "unconfirmed.reply_lost"}),
    "outcome_answer": outcome(answer={
        "submission_id": "s-17", "accepted": True, "body": "recipient_batch", "first_index": 500,
        "recipient_count": 2, "refusals": [{
            "code": "address.syntax", "field": "recipient_batch.recipients[3].address",
            "sentence": "The domain has one label only."}]}),
    "outcome_recipient": outcome(recipient={
        "result": "RECIPIENT_RESULT_REFUSED", "relay": "ses", "reply_code": 550, "enhanced_status": "5.1.1",
        "attempts": 2, "phase": "rcpt", "reason": "reply.mailbox_unknown", "address_hash": b64(HASH),
        "relay_message_id": "0102018f-000000"}),
    "outcome_bounce": outcome(bounce={
        "class": "BOUNCE_CLASS_BLOCK", "relay": "backup", "enhanced_status": "5.7.1", "reason": "bounce.policy",
        "address_hash": b64(HASH)}),
    "outcome_settlement": outcome(settlement={"result": "RECIPIENT_RESULT_ACCEPTED", "by": "operator"}),
    "outcome_complaint": outcome(complaint={"relay": "ses", "feedback_type": "abuse", "address_hash": b64(HASH)}),
    "outcome_relay": outcome(relay={
        "relay": "ses", "from_state": "closed", "to_state": "open", "epoch": 18446744073709551615,
        "reason": "down.connect", "evidence": "8 of 8 connects", "next_change_unix_ms": 1714550460000,
        "campaign_id": "spring-2024"}),
    "feedback": ("Feedback", {
        "source": "FEEDBACK_SOURCE_SES_EVENT", "received_at_unix_ms": 1714550400001,
        "envelope_recipient": "b+spring@bounces.example.se", "envelope_sender": "mailer-daemon@example.org",
        "raw": b64(b"{}\xff\x00"), "truncated": True, "peer": "198.51.100.7"}),
    "suppression": ("Suppression", {
        "address_hash": b64(HASH), "reason": "SUPPRESSION_REASON_COMPLAINT", "at_unix_ms": 1714550400002,
        "campaign_id": "spring-2024"}),
}


def load_types(directory):
    """Compile the protos for Python; short name -> class."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("tandem/*/v1/*.proto"))
    subprocess.run(["protoc", f"-I{PROTO}", f"--python_out={directory}", *sources], check=True)
    sys.path.insert(0, str(directory))
    types = {}
    for source in sources:
        module = __import__(source[: -len(".proto")].replace("/", ".") + "_pb2", fromlist=["DESCRIPTOR"])
        for name in module.DESCRIPTOR.message_types_by_name:
            types[name] = getattr(module, name)
    return types


def plain(message):
    """What td_pb_to_json promises in pb.h, done once more by Python's descriptors."""
    result = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        repeated = field.label == field.LABEL_REPEATED
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            result[field.name] = dict(value)
        elif repeated:
            result[field.name] = [plain_value(field, item) for item in value]
        elif field.message_type is None and field.containing_oneof is None:
            result[field.name] = plain_value(field, value)
        elif message.HasField(field.name):
            result[field.name] = plain_value(field, value)
    return result


def plain_value(field, value):
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    if field.type == field.TYPE_BYTES:
        return value.hex() if len(value) in (16, 32) else b64(value)
    return value


def decode(program, type_name, record):
    done = subprocess.run([program, "--decode", type_name], input=record, capture_output=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"Tandem does not read it: {done.stderr.decode().strip()}")
    return json.loads(done.stdout)


def same(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, want {want!r}")


def check(program, types, fresh, name):
    from google.protobuf import json_format

    type_name, fields = RECORDS[name]
    golden = (GOLDEN / f"{name}.bin").read_bytes()
    want = json_format.ParseDict(fields, types[type_name]())
    same("protobuf-c writes it otherwise than before", (fresh / f"{name}.bin").read_bytes(), golden)

    got = types[type_name].FromString(golden)
    same("fields", plain(got), plain(want))
    written = want.SerializeToString(deterministic=True)
    same("bytes", written, golden)

    same("JSON", decode(program, type_name, written), plain(want))
    same("JSON of a framed record", decode(program, type_name, b"\0\0\0\1\2\0" + written), plain(want))
    unknown = b"\xa2\x06\x03new" + b"\xa8\x06\x01"  # fields 100 and 101 of a later release
    same("JSON of a newer record", decode(program, type_name, written + unknown), plain(want))


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 64
    program = pathlib.Path(sys.argv[1]) / "tests/proto/td_make_golden"
    if not program.exists():
        print(f"FAIL proto.golden: {program} is not built")
        return 1
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        (work / "fresh").mkdir()
        subprocess.run([program, work / "fresh"], check=True)
        try:
            types = load_types(work)
        except (ImportError, FileNotFoundError) as missing:
            print(f"SKIP proto.golden: {missing}")
            return 0
        files = {path.stem for path in (work / "fresh").iterdir()} | {path.stem for path in GOLDEN.glob("*.bin")}
        for name in sorted(files | set(RECORDS)):
            try:
                if name not in RECORDS:
                    raise AssertionError("check.py expects no such record")
                check(program, types, work / "fresh", name)
                print(f"PASS proto.{name}")
            except (AssertionError, FileNotFoundError) as why:
                print(f"FAIL proto.{name}: {why}")
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
