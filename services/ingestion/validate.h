/* validate.h - is what was submitted fit to be sent? Pure: time and settings are arguments.
 *
 * Refuses, never repairs: what is let through is what was handed in, except that addresses come out with their
 * domain in A-labels. Limits are stated in the submission's .proto and here. */
#ifndef INGESTION_VALIDATE_H
#define INGESTION_VALIDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "names.h"
#include "refusals.h"
#include "tandem/addr.h"
#include "tandem/arena.h"
#include "tandem/settings.h"

#define VALIDATE_ATTACHMENTS_MAX 50
#define VALIDATE_HEADERS_MAX 50
#define VALIDATE_FIELDS_MAX 100
#define VALIDATE_FIELD_VALUE_MAX 8192
#define VALIDATE_RECIPIENT_MAX 65536               /* bytes of one recipient's name and fields together */
#define VALIDATE_DEADLINE_MAX_MS (30 * 86400000LL) /* the ledger forgets a campaign after 30 days */

/** Fields that every recipient must have: used in a template at least once without a default. */
struct needed_fields { /* all zero: none */
    char **name;
    size_t count;
};
void needed_fields_release(struct needed_fields *needed);

/** Ids, tenant, the record's key (empty, or the campaign_id), that there is a body. */
void validate_envelope(const Submission *submission, const void *key, size_t key_len, struct refusals *refusals);

/**
 * A Campaign whose defaults have been filled in. Addresses are replaced by their checked form, a missing
 * size_bytes by the size of the content.
 * @param content  the attachments' bytes, from content_detach
 * @param arena    for what is replaced; the campaign's own
 * @param needed  filled when nothing was refused; release it
 * @return TD_OK, also when something was refused; TD_ENOMEM
 */
int validate_campaign(Campaign *campaign, const ProtobufCBinaryData *content, const struct td_settings *settings,
                      int64_t now_ms, struct td_arena *arena, struct refusals *refusals,
                      struct needed_fields *needed);

/** Only what the templates need, of a campaign that was accepted. @return TD_OK or TD_ENOMEM */
int validate_needed(const Campaign *campaign, struct needed_fields *ret);

/** Route: relays exist, none twice, each in an allowed country, each takes messages of that size. */
void validate_route(char *const *route, size_t count, const Campaign *campaign, const struct td_settings *settings,
                    const char *field, struct refusals *refusals);

struct recipient_fault {
    const char *code; /* static */
    char field[96];   /* below the recipient, such as "address" or "fields[plan]" */
    char sentence[REFUSAL_SENTENCE_MAX];
};
/**
 * @param address  the checked address, set on success
 * @return true when it can be sent to; false with the first fault
 */
bool validate_recipient(const Recipient *recipient, const struct needed_fields *needed, char address[TD_ADDR_MAX],
                        struct recipient_fault *reterr);

/** Shape of an attachment part: names a SHA-256, part < part_count, exactly 900,000 bytes unless it is the last.
 */
void validate_chunk(const AttachmentChunk *chunk, const struct td_settings *settings, struct refusals *refusals);

/** Size and range of a batch. */
void validate_batch(const RecipientBatch *batch, struct refusals *refusals);

#endif /* INGESTION_VALIDATE_H */
