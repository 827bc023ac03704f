/* refusals.h - why a submission, or parts of it, were refused, and the answer made of it. Pure.
 *
 * At most REFUSALS_MAX go into one answer; the last sentence then says how many more there were, so that a batch
 * of 500 bad addresses gets an answer of a known size. */
#ifndef INGESTION_REFUSALS_H
#define INGESTION_REFUSALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "names.h"

#define REFUSALS_MAX 20
#define REFUSAL_FIELD_MAX 160
#define REFUSAL_SENTENCE_MAX 320

struct refusal {
    const char *code; /* static: listed in README.md and proto/README.md */
    char field[REFUSAL_FIELD_MAX];
    char sentence[REFUSAL_SENTENCE_MAX];
};

struct refusals { /* all zero: none */
    struct refusal item[REFUSALS_MAX];
    size_t kept, total;
};

/** field: path of the field, "" for the whole submission. The sentence never quotes an address or a value. */
void refuse(struct refusals *refusals, const char *code, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/** What an answer says beside the refusals. Strings are borrowed. */
struct answer {
    const char *campaign_id, *submission_id, *body;
    int64_t at_ms;
    bool accepted;
    uint32_t first_index, recipient_count; /* of a recipient_batch */
};

/** Pack Outcome{answer}; malloc'd, the caller frees. NULL when out of memory. */
void *refusals_answer(const struct refusals *refusals, const struct answer *answer, size_t *ret_len);

/** Pack Outcome{recipient} of a recipient that ends here. hash may be NULL. malloc'd; NULL when out of memory. */
void *refusals_recipient(const char *campaign_id, uint32_t index, int64_t at_ms,
                         Tandem__Mail__V1__RecipientResult result, const char *reason, const uint8_t *hash,
                         size_t *ret_len);

#endif /* INGESTION_REFUSALS_H */
