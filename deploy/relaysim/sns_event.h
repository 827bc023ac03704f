/* sns_event.h - what Amazon SES tells of a mail, in the envelope of SNS, signed. Pure: key and time are arguments. */
#ifndef RELAYSIM_SNS_EVENT_H
#define RELAYSIM_SNS_EVENT_H

#include <jansson.h>
#include <openssl/evp.h>
#include <stdint.h>

#include "command.h"
#include "tandem/buf.h"

#define SES_TAGS_MAX 1024
#define SES_ID_MAX 64

/**
 * Look for the two headers by which a mail asks SES for events.
 * @param tags  filled with the value of X-SES-MESSAGE-TAGS; its limit is SES_TAGS_MAX, a longer value is none
 * @return true when X-SES-CONFIGURATION-SET is there: without it SES publishes nothing
 */
bool sns_read_head(struct slice head, struct td_buf *tags);

/** What an event is made from; borrowed. */
struct sns_mail {
    const char *message_id; /* SES's own */
    struct slice source;    /* return path */
    const char *recipient;
    struct slice tags;      /* "name=value, name=value" */
    uint64_t unix_ms;
};

/** @param type  "Send", "Delivery", "Bounce" (permanent, with this status) or "Complaint". @return owned by the caller, NULL: no memory */
json_t *sns_event(const struct sns_mail *mail, const char *type, const char *status);

/** "2026-05-02T00:54:06.655Z" */
void sns_time(uint64_t unix_ms, char out[32]);

/** Add Timestamp, SignatureVersion, Signature to an envelope that has all other fields. version 1: SHA-1, 2: SHA-256.
 * bad: a signature of other bytes. @return TD_OK or TD_ENOMEM */
int sns_sign(json_t *envelope, EVP_PKEY *key, int version, uint64_t unix_ms, bool bad);

/** Whole answer of an HTTP server at the start of `bytes`. @return TD_OK with its status and octets; TD_EAGAIN: more
 * is needed; TD_ESYNTAX: none, or chunked; TD_ETOOBIG */
int http_answer_read(struct slice bytes, int *ret_status, size_t *ret_len);

#endif /* RELAYSIM_SNS_EVENT_H */
