#!/usr/bin/env python3
"""Hand over a campaign with two recipients and wait for the answers. Usage: producer.py BROKERS [CAMPAIGN_ID [TOPIC_PREFIX]]
Debian: apt install python3-confluent-kafka python3-protobuf protobuf-compiler"""
import subprocess, sys, tempfile, time, uuid
from pathlib import Path
from confluent_kafka import Consumer, Producer

proto, made = Path(__file__).resolve().parents[1], tempfile.mkdtemp()
subprocess.run(["protoc", f"-I{proto}", f"--python_out={made}", *map(str, proto.glob("tandem/mail/v1/*.proto"))], check=True)
sys.path.insert(0, made)
from tandem.mail.v1.outcome_pb2 import Outcome
from tandem.mail.v1.submission_pb2 import Campaign, Mailbox, Recipient, RecipientBatch, Seal, Submission

brokers, campaign, prefix = (sys.argv[1:] + ["localhost:9092", f"example-{int(time.time())}", ""][len(sys.argv) - 1:])[:3]
sender = Campaign(subject_template="Hello {{first_name}}", text_template="Hello {{first_name}}, your number is {{number}}.\n",
                  html_template="<p>Hello <b>{{first_name}}</b>, your number is {{number}}.</p>", expected_recipients=2)
sender.__getattribute__("from").CopyFrom(Mailbox(address="news@example.org", name="Example News"))  # from is a Python word
people = [Recipient(address="anna@example.com", name="Anna", fields={"first_name": "Anna", "number": "17"}),
          Recipient(address="bo@example.com", name="Bo", fields={"first_name": "Bo", "number": "18"})]
steps = {"campaign": sender, "recipient_batch": RecipientBatch(first_index=0, recipients=people), "seal": Seal(recipient_count=2)}

answers = Consumer({"bootstrap.servers": brokers, "group.id": f"example-{uuid.uuid4()}", "auto.offset.reset": "earliest"})
answers.subscribe([prefix + "mail.outcomes"])
producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random", "enable.idempotence": True})
for name, body in steps.items():  # the key keeps them in order
    submission = Submission(campaign_id=campaign, submission_id=name, **{name: body})
    producer.produce(prefix + "mail.submissions", submission.SerializeToString(), key=campaign)
producer.flush()

waiting, deadline = set(steps), time.monotonic() + 60
while waiting and time.monotonic() < deadline:
    record = answers.poll(1)
    outcome = Outcome.FromString(record.value()) if record and not record.error() else Outcome()
    if outcome.campaign_id == campaign and outcome.WhichOneof("kind") == "answer":
        waiting.discard(outcome.answer.submission_id)
        print(outcome.answer.body, "accepted" if outcome.answer.accepted else outcome.answer.refusals)
sys.exit(f"no answer to {waiting}" if waiting else 0)
