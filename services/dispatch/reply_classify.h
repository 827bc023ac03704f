/* reply_classify.h - what a refusal is about and what to do: scope before action (DESIGN rule 4). Pure.
 * Rules are data: stage, code, enhanced status and phrase; built-in tables for SES and for any relay. */
#ifndef REPLY_CLASSIFY_H
#define REPLY_CLASSIFY_H

#include "attempt.h"

enum reply_scope { SCOPE_CONNECTION, SCOPE_RELAY, SCOPE_CAMPAIGN, SCOPE_MESSAGE, SCOPE_RECIPIENT };

enum reply_action {
    ACT_REFUSE,      /* the recipient ends REFUSED */
    ACT_RETRY,       /* the recipient goes to a retry topic */
    ACT_OTHER_RELAY, /* this mail may take another relay of its route at once; none left: retry */
    ACT_RECONNECT,   /* same relay, fresh connection, at once, no penalty */
    ACT_HOLD         /* campaign scope: our sender is wrong; refuse here, try another relay, raise an alarm */
};

/* What the relay's health is told. */
enum health_kind {
    HEALTH_NONE,        /* nothing */
    HEALTH_OK,          /* it took a mail or answered about one recipient */
    HEALTH_SOFT,        /* it is busy: slow down (454 rate, 451) */
    HEALTH_HARD,        /* it failed: counts toward down */
    HEALTH_FATAL,       /* it is down for sure: open at once */
    HEALTH_CONNECTIONS, /* too many connections: fewer */
    HEALTH_EXHAUSTED,   /* daily or monthly quota is used up */
    HEALTH_PAUSED       /* account paused or closed: only an operator or a probe with mail helps */
};

struct reply_class {
    enum reply_scope scope;
    enum reply_action action;
    enum health_kind health;
    const char *reason; /* stable code such as "reply.mailbox_unknown", "overloaded.rate", "down.paused" */
};

struct reply_class reply_classify(enum smtp_phase phase, const struct smtp_reply *reply);

#endif /* REPLY_CLASSIFY_H */
