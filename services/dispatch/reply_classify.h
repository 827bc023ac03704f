/* reply_classify.h - what a refusal is about and what to do: scope before action (DESIGN rule 4). Pure.
 * Rules are data: stage, code, enhanced status and phrase. The first that fits counts: of the relay's own file
 * (reply_rules.h), then of the built-in ones for SES, then of those for any relay. */
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

#define REPLY_AT(phase) (1u << (phase))
#define REPLY_AT_ANY (REPLY_AT(PHASE_COUNT) - 1u)

struct reply_rule {
    unsigned phases;      /* REPLY_AT of each */
    int code;             /* 454; 4 or 5: the class; 0: any */
    const char *enhanced; /* "x.2.2": any class; "4.7.*": any detail; NULL: any or none */
    const char *phrase;   /* in the text, case ignored; NULL: any */
    struct reply_class class;
};

struct reply_rules {
    const struct reply_rule *rule;
    size_t count;
};

/** "ses" or "generic"; NULL for other names. */
const struct reply_rules *reply_rules_builtin(const char *name);

/** @param own  asked before the built-in rules; NULL: none. The result's reason lives as long as they do. */
struct reply_class reply_classify(const struct reply_rules *own, enum smtp_phase phase, const struct smtp_reply *reply);

#endif /* REPLY_CLASSIFY_H */
