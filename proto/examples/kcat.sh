#!/bin/sh
# Hand over one mail, a receipt, with nothing but tandemctl and kcat, and read the answer.
# Usage: kcat.sh BROKERS [TOPIC_PREFIX]          Debian: apt install kcat
set -eu
brokers=${1:-localhost:9092} prefix=${2:-}
here=$(dirname "$0") ctl=${TANDEMCTL:-tandemctl}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

id=receipt-$$-$(date +%s)
sed "s/receipt-4711/$id/" "$here/single_mail.json" | $ctl encode Submission >"$work/submission.bin"
# A file named on kcat's command line is one record, whatever bytes it holds; the partitioner is the one Java uses.
kcat -P -b "$brokers" -X partitioner=murmur2_random -t "${prefix}mail.submissions" -k "$id" "$work/submission.bin"

# The newest outcomes of each partition, each after its length in 4 bytes; one line of JSON a record.
for _ in $(seq 60); do
    kcat -C -b "$brokers" -t "${prefix}mail.outcomes" -o -5000 -e -q -f '%R%s' |
        $ctl decode Outcome --framed >"$work/outcomes.json"
    grep "\"campaign_id\":\"$id\"" "$work/outcomes.json" | grep '"answer"' && exit 0
    sleep 1
done
echo "no answer" >&2
exit 1
