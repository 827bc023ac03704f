/* audit.h - what Tandem says became of a campaign against what the relays wrote down. Pure.
 *
 * About 8 bytes a recipient, so a million recipients are compared in 8 MB. */
#ifndef CTL_AUDIT_H
#define CTL_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/err.h"

#define AUDIT_RELAYS_MAX 64
#define AUDIT_INDEX_MAX 16777215u
#define AUDIT_RESULTS 8 /* RecipientResult 1..7; 0 = none */

struct audit; /* opaque */

struct audit_sums {
    uint32_t submitted;
    uint32_t results[AUDIT_RESULTS]; /* numbers by their outcome; [0] without one */
    size_t relay_count;
    const char
        *relay[AUDIT_RELAYS_MAX]; /* names, and how many it accepted by the outcomes; valid as long as audit */
    uint32_t by_relay[AUDIT_RELAYS_MAX];
    uint32_t lost;       /* numbers without an outcome, or ACCEPTED and in no relay's ledger */
    uint32_t duplicates; /* numbers that relays took more than once */
    uint32_t extra;      /* numbers that a relay took though their outcome is not ACCEPTED or UNCONFIRMED */
    uint32_t conflicts;  /* numbers with two different outcomes */
    bool well;           /* the four above are zero */
};

struct audit *audit_new(void);        /* NULL when out of memory */
void audit_free(struct audit *audit); /* NULL is fine */

/** An outcome from mail.outcomes. The same one again is fine. result 1..7. @return TD_OK, TD_EINVAL or TD_ENOMEM
 */
int audit_outcome(struct audit *audit, uint32_t index, unsigned result, const char *relay);

/**
 * A line of a relay's ledger: time, port, recipient, Message-ID, bytes, SHA-256, reply code or "lost"; comments
 * begin with #. Counts when its Message-ID is campaign_id.index@... and the relay took the mail (2yz or lost).
 * @param line  without its line end
 * @return TD_OK, also for lines of other campaigns; TD_ESYNTAX: not such a line; TD_ENOMEM
 */
int audit_ledger_line(struct audit *audit, const char *campaign_id, const char *line, size_t len);

/** @param with_ledger  false: no ledgers were given, so only outcomes are judged */
void audit_sum(const struct audit *audit, uint32_t submitted, bool with_ledger, struct audit_sums *ret);
/** One more than the highest number seen. */
uint32_t audit_seen(const struct audit *audit);

#endif /* CTL_AUDIT_H */
