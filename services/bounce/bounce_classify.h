/* bounce_classify.h - is the address dead? From a report's status and diagnostic (features of RFC 3463, RFC 5248).
 * Pure. */
#ifndef BOUNCE_CLASSIFY_H
#define BOUNCE_CLASSIFY_H

#include "dsn_read.h"

enum bounce_class { BOUNCE_HARD, BOUNCE_SOFT, BOUNCE_BLOCK, BOUNCE_MESSAGE, BOUNCE_CAMPAIGN, BOUNCE_UNKNOWN };

struct bounce_verdict {
    enum bounce_class class;
    const char *reason; /* stable code, such as "bounce.mailbox_unknown" */
};

const char *
    bounce_class_name(enum bounce_class class); /* "hard", "soft", "block", "message", "campaign", "unknown" */

/** Only a FAILED report has a verdict; anything that is not surely about a dead address is never HARD. */
struct bounce_verdict bounce_classify(const struct dsn *dsn);

#endif /* BOUNCE_CLASSIFY_H */
