#include "tandem/dead_letter.h"

#include <inttypes.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdio.h>

#include "tandem/id.h"
#include "tandem/log.h"
#include "tandem/topics.h"

int td_dead_letter(struct td_kafka_out *out, const char *service, const struct td_record *rec, const char *reason,
                   td_delivered_fn *cb, void *user, struct td_err *reterr)
{
    const char *topic = td_topics[rec->lane.topic].name;
    uint8_t hash[SHA256_DIGEST_LENGTH];
    char partition[16], offset[24], sha256[2 * sizeof(hash) + 1];
    const struct td_kafka_header headers[] = {
        {"source-topic", topic},   {"source-partition", partition},
        {"source-offset", offset}, {"service", service},
        {"reason", reason},        {"sha256", sha256},
    };
    size_t count = sizeof(headers) / sizeof(headers[0]);
    int rc;

    snprintf(partition, sizeof(partition), "%" PRId32, rec->lane.partition);
    snprintf(offset, sizeof(offset), "%" PRId64, rec->offset);
    SHA256(rec->value ? rec->value : "", rec->len, hash);
    td_hex(sha256, hash, sizeof(hash));
    rc = td_kafka_out_send(out, TD_T_DEAD_LETTERS, -1, rec->key, rec->key_len, rec->value, rec->len, headers,
                           count, cb, user, reterr);
    if (rc == TD_ETOOBIG)
        rc = td_kafka_out_send(out, TD_T_DEAD_LETTERS, -1, rec->key, rec->key_len, NULL, 0, headers, count, cb,
                               user, reterr);
    if (rc == TD_OK)
        td_log(TD_ERROR, "record.dead", "topic=%s partition=%s offset=%s reason=\"%s\" sha256=%s", topic,
               partition, offset, reason, sha256);
    return rc;
}
