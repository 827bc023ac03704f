/* reply_classify.c - the built-in rules: those of Amazon SES, then those of any relay, which are phrases, enhanced status
 * codes (RFC 3463 and its registry) and basic codes, in this order. deploy/rules/ses.yaml and generic.yaml say the same, row
 * for row; a test compares.
 *
 * Phrases come before codes because relays put account trouble under codes that elsewhere mean "no such mailbox": SES says
 * "554 Message rejected: Sending paused", and a rule by code alone would refuse the whole list. */
#include "reply_classify.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define AT(phase) REPLY_AT(phase)
#define ANY REPLY_AT_ANY
#define ENVELOPE_FROM (AT(PHASE_MAIL))
/* Where a reply can be about the one recipient: also behind DATA, as each mail has exactly one. */
#define RCPT_LIKE (AT(PHASE_RCPT) | AT(PHASE_DATA) | AT(PHASE_BODY) | AT(PHASE_FINAL))
#define ONLY_RCPT (AT(PHASE_RCPT))

/* clang-format off */
#define CONNECTION_RETRY(why)  {SCOPE_CONNECTION, ACT_RECONNECT, HEALTH_NONE, why}
#define RELAY(health, why)     {SCOPE_RELAY, ACT_OTHER_RELAY, health, why}
#define CAMPAIGN(why)          {SCOPE_CAMPAIGN, ACT_HOLD, HEALTH_NONE, why}
#define MESSAGE(why)           {SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_NONE, why}
#define REFUSE(why)            {SCOPE_RECIPIENT, ACT_REFUSE, HEALTH_OK, why}
#define RETRY(why)             {SCOPE_RECIPIENT, ACT_RETRY, HEALTH_OK, why}

/* Amazon SES developer guide, "SMTP issues" and "sending quota errors". */
static const struct reply_rule ses_rules[] = {
    /* Before SES's "554 Access denied", whose words they contain. */
    {ANY, 5, NULL, "relay access denied",                   RELAY(HEALTH_HARD, "down.relaying_denied")},
    {ANY, 5, NULL, "relaying denied",                       RELAY(HEALTH_HARD, "down.relaying_denied")},
    {ANY, 5, NULL, "not permitted to relay",                RELAY(HEALTH_HARD, "down.relaying_denied")},
    {RCPT_LIKE, 5, NULL, "recipient address rejected: access denied", REFUSE("reply.mailbox_unknown")}, /* Microsoft */
    {ANY,  0, NULL, "timeout waiting for data from client", CONNECTION_RETRY("connection.idle_closed")},
    {ANY,  0, NULL, "too many concurrent smtp connections", RELAY(HEALTH_CONNECTIONS, "overloaded.connections")},
    {ANY,  0, NULL, "maximum sending rate exceeded",        RELAY(HEALTH_SOFT, "overloaded.rate")},
    {ANY,  0, NULL, "daily message quota exceeded",         RELAY(HEALTH_EXHAUSTED, "overloaded.quota")},
    {ANY,  0, NULL, "temporary service failure",            RELAY(HEALTH_HARD, "down.service_failure")},
    {ANY,  0, NULL, "temporary authentication failure",     RELAY(HEALTH_HARD, "down.auth_service")},
    {ANY,  0, NULL, "sending paused",                       RELAY(HEALTH_PAUSED, "down.paused")},
    {ANY,  0, NULL, "sending suspended",                    RELAY(HEALTH_PAUSED, "down.paused")},
    {ANY,  0, NULL, "account is suspended",                 RELAY(HEALTH_PAUSED, "down.paused")},
    {ANY,  0, NULL, "account has been suspended",           RELAY(HEALTH_PAUSED, "down.paused")},
    {ANY,  0, NULL, "account not subscribed to ses",        RELAY(HEALTH_FATAL, "down.auth")},
    {ANY,  0, NULL, "email address is not verified",        CAMPAIGN("campaign.sender_unverified")},
    {ANY,  0, NULL, "email address not verified",           CAMPAIGN("campaign.sender_unverified")},
    {ANY,  0, NULL, "identities failed the check in region", CAMPAIGN("campaign.sender_unverified")},
    {ANY, 554, NULL, "access denied",                       RELAY(HEALTH_HARD, "down.access_denied")},
    {ANY, 552, NULL, "message is too long",                 MESSAGE("message.too_big")},
    {ENVELOPE_FROM, 553, NULL, "invalid email address",     CAMPAIGN("campaign.sender_invalid")},
    {RCPT_LIKE, 553, NULL, "address unknown",               REFUSE("reply.address_invalid")},
    {RCPT_LIKE, 553, NULL, "invalid email address",         REFUSE("reply.address_invalid")},
};

static const struct reply_rule generic_rules[] = {
    {ANY, 421, NULL, "too many connections",       RELAY(HEALTH_CONNECTIONS, "overloaded.connections")},
    {ANY, 421, NULL, "too many concurrent",        RELAY(HEALTH_CONNECTIONS, "overloaded.connections")},
    {ANY, 421, NULL, "connection limit",           RELAY(HEALTH_CONNECTIONS, "overloaded.connections")},
    {ANY, 421, NULL, "connections from your",      RELAY(HEALTH_CONNECTIONS, "overloaded.connections")},
    {ANY, 421, NULL, "idle",                       CONNECTION_RETRY("connection.idle_closed")},
    {ANY, 421, NULL, "timeout",                    CONNECTION_RETRY("connection.idle_closed")},
    {ANY, 421, NULL, "timed out",                  CONNECTION_RETRY("connection.idle_closed")},
    {ANY, 421, NULL, "too many messages",          CONNECTION_RETRY("connection.worn_out")},
    {ANY,   4, NULL, "quota exceeded for today",   RELAY(HEALTH_EXHAUSTED, "overloaded.quota")},
    {ANY,   0, NULL, "daily sending quota",        RELAY(HEALTH_EXHAUSTED, "overloaded.quota")},
    {ANY,   0, NULL, "monthly quota",              RELAY(HEALTH_EXHAUSTED, "overloaded.quota")},
    {ANY,   0, NULL, "message quota",              RELAY(HEALTH_EXHAUSTED, "overloaded.quota")},
    {ANY,   4, NULL, "sending rate",               RELAY(HEALTH_SOFT, "overloaded.rate")},
    {ANY,   4, NULL, "throttl",                    RELAY(HEALTH_SOFT, "overloaded.rate")},
    {ANY,   0, NULL, "account suspended",          RELAY(HEALTH_PAUSED, "down.paused")},
    {ANY,   0, NULL, "account disabled",           RELAY(HEALTH_PAUSED, "down.paused")},
    {ANY,   5, NULL, "authentication required",    RELAY(HEALTH_FATAL, "down.auth")},
    {ANY, 443, NULL, NULL,                         RELAY(HEALTH_EXHAUSTED, "overloaded.quota")}, /* AuthSMTP's own code */

    /* RFC 3463, 4954, 7372, 7505 and the registry (RFC 5248). The row with the longest pattern stands first. */
    {ANY, 4, "4.4.2", NULL,                    CONNECTION_RETRY("connection.broken")},
    {ANY, 0, "x.7.8", NULL,                    RELAY(HEALTH_FATAL, "down.auth")},
    {ANY, 0, "x.7.9", NULL,                    RELAY(HEALTH_FATAL, "down.auth")},
    {ANY, 0, "x.7.10", NULL,                   RELAY(HEALTH_FATAL, "down.auth")},
    {ANY, 0, "x.7.11", NULL,                   RELAY(HEALTH_FATAL, "down.auth")},
    {ANY, 0, "x.7.12", NULL,                   RELAY(HEALTH_FATAL, "down.auth")},
    {ANY, 0, "x.1.7", NULL,                    CAMPAIGN("campaign.sender_invalid")},
    {ANY, 0, "x.1.8", NULL,                    CAMPAIGN("campaign.sender_invalid")},
    {ANY, 0, "x.7.27", NULL,                   CAMPAIGN("campaign.sender_invalid")},
    {ENVELOPE_FROM, 0, "x.1.*", NULL,          CAMPAIGN("campaign.sender_invalid")}, /* no recipient was named yet */
    {RCPT_LIKE, 5, "5.1.1", NULL,              REFUSE("reply.mailbox_unknown")},
    {RCPT_LIKE, 5, "5.1.2", NULL,              REFUSE("reply.domain_unknown")},
    {RCPT_LIKE, 5, "5.1.3", NULL,              REFUSE("reply.address_invalid")},
    {RCPT_LIKE, 5, "5.1.6", NULL,              REFUSE("reply.mailbox_moved")},
    {RCPT_LIKE, 5, "5.1.9", NULL,              MESSAGE("message.not_relayable")},
    {RCPT_LIKE, 5, "5.1.10", NULL,             REFUSE("reply.domain_null_mx")},
    {RCPT_LIKE, 5, "5.1.*", NULL,              REFUSE("reply.address_refused")},
    {RCPT_LIKE, 0, "x.1.*", NULL,              RETRY("reply.address_deferred")},
    {RCPT_LIKE, 0, "x.2.2", NULL,              RETRY("reply.mailbox_full")}, /* soft even when it says 5 */
    {ANY, 0, "x.2.3", NULL,                    MESSAGE("message.too_big")},
    {RCPT_LIKE, 5, "5.2.1", NULL,              REFUSE("reply.mailbox_disabled")},
    {RCPT_LIKE, 5, "5.2.*", NULL,              REFUSE("reply.mailbox_refused")},
    {RCPT_LIKE, 0, "x.2.*", NULL,              RETRY("reply.mailbox_deferred")},
    {ENVELOPE_FROM, 0, "x.2.*", NULL,          CAMPAIGN("campaign.sender_invalid")},
    {ANY, 0, "x.3.4", NULL,                    MESSAGE("message.too_big")},
    {ONLY_RCPT, 0, "x.3.*", NULL,              RETRY("reply.system_trouble")},
    {ANY, 0, "x.3.*", NULL,                    RELAY(HEALTH_SOFT, "overloaded.system")},
    {RCPT_LIKE, 5, "5.4.4", NULL,              REFUSE("reply.domain_unroutable")},
    {RCPT_LIKE, 0, "x.4.3", NULL,              RETRY("reply.routing")},
    {RCPT_LIKE, 0, "x.4.6", NULL,              RETRY("reply.routing")},
    {RCPT_LIKE, 0, "x.4.*", NULL,              RETRY("reply.network")},
    {ANY, 0, "x.4.*", NULL,                    RELAY(HEALTH_SOFT, "overloaded.network")},
    {ANY, 0, "x.5.3", NULL,                    RELAY(HEALTH_SOFT, "overloaded.recipients")},
    {ANY, 0, "x.5.*", NULL,                    MESSAGE("message.protocol")},
    {ANY, 0, "x.6.*", NULL,                    MESSAGE("message.form")},
    {RCPT_LIKE, 5, "5.7.13", NULL,             REFUSE("reply.mailbox_disabled")},
    {RCPT_LIKE, 5, "5.7.17", NULL,             REFUSE("reply.owner_changed")},
    {RCPT_LIKE, 5, "5.7.18", NULL,             REFUSE("reply.owner_changed")},
    {ANY, 0, "x.7.28", NULL,                   {SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_SOFT, "blocked.flood"}},
    {ANY, 5, "5.7.*", NULL,                    MESSAGE("blocked.policy")},
    {ONLY_RCPT, 4, "4.7.*", NULL,              RETRY("reply.greylisted")},
    {ANY, 0, "x.7.*", NULL,                    RELAY(HEALTH_SOFT, "overloaded.policy")},

    /* Basic codes */
    {ANY, 421, NULL, NULL,                     RELAY(HEALTH_HARD, "down.closing")},
    {ANY, 530, NULL, NULL,                     RELAY(HEALTH_FATAL, "down.auth")},
    {ANY, 534, NULL, NULL,                     RELAY(HEALTH_FATAL, "down.auth")},
    {ANY, 535, NULL, NULL,                     RELAY(HEALTH_FATAL, "down.auth")},
    {ANY, 538, NULL, NULL,                     RELAY(HEALTH_FATAL, "down.auth")},
    {ONLY_RCPT, 552, NULL, "size",             MESSAGE("message.too_big")},
    {ONLY_RCPT, 552, NULL, "too large",        MESSAGE("message.too_big")},
    {ONLY_RCPT, 552, NULL, NULL,               RETRY("reply.mailbox_full")}, /* RFC 5321 s.4.5.3.1.10 */
    {ANY, 552, NULL, NULL,                     MESSAGE("message.too_big")},
    {ENVELOPE_FROM, 550, NULL, NULL,           MESSAGE("message.refused")},
    {ENVELOPE_FROM, 553, NULL, NULL,           CAMPAIGN("campaign.sender_invalid")},
    {ENVELOPE_FROM, 501, NULL, NULL,           CAMPAIGN("campaign.sender_invalid")},
    {RCPT_LIKE, 5, NULL, "spam",               MESSAGE("blocked.content")},
    {RCPT_LIKE, 5, NULL, "blacklist",          MESSAGE("blocked.reputation")},
    {RCPT_LIKE, 5, NULL, "blocklist",          MESSAGE("blocked.reputation")},
    {RCPT_LIKE, 5, NULL, "block list",         MESSAGE("blocked.reputation")},
    {RCPT_LIKE, 5, NULL, "reputation",         MESSAGE("blocked.reputation")},
    {RCPT_LIKE, 5, NULL, "blocked",            MESSAGE("blocked.policy")},
    {RCPT_LIKE, 5, NULL, "policy",             MESSAGE("blocked.policy")},
    {RCPT_LIKE, 5, NULL, "dmarc",              MESSAGE("blocked.policy")},
    {RCPT_LIKE, 5, NULL, "user unknown",       REFUSE("reply.mailbox_unknown")},
    {RCPT_LIKE, 5, NULL, "unknown user",       REFUSE("reply.mailbox_unknown")},
    {RCPT_LIKE, 5, NULL, "no such user",       REFUSE("reply.mailbox_unknown")},
    {RCPT_LIKE, 5, NULL, "recipient unknown",  REFUSE("reply.mailbox_unknown")},
    {RCPT_LIKE, 5, NULL, "does not exist",     REFUSE("reply.mailbox_unknown")},
    {RCPT_LIKE, 5, NULL, "mailbox unavailable", REFUSE("reply.mailbox_unknown")},
    {RCPT_LIKE, 5, NULL, "mailbox full",       RETRY("reply.mailbox_full")},
    {RCPT_LIKE, 5, NULL, "over quota",         RETRY("reply.mailbox_full")},
    {ONLY_RCPT, 554, NULL, NULL,               MESSAGE("message.refused")}, /* 554 alone says too little about a person */
    {ONLY_RCPT, 503, NULL, NULL,               MESSAGE("message.protocol")},
    {ONLY_RCPT, 5, NULL, NULL,                 REFUSE("reply.refused")},
    {ONLY_RCPT, 4, NULL, NULL,                 RETRY("reply.deferred")},
    {ANY, 5, NULL, NULL,                       MESSAGE("message.refused")},
    {ANY, 4, NULL, NULL,                       RELAY(HEALTH_SOFT, "overloaded.deferred")},
};
/* clang-format on */

static bool code_fits(int rule, int code)
{
    return rule == 0 || rule == code || (rule < 10 && rule == code / 100);
}

/* pattern "x.7.27", "4.7.*", "5.1.1" against "5.7.27". */
static bool enhanced_fits(const char *pattern, const char *enhanced)
{
    const char *dot;

    if (!enhanced[0] || (pattern[0] != 'x' && pattern[0] != enhanced[0]))
        return false;
    dot = strrchr(pattern, '.');
    if (dot[1] != '*')
        return strcmp(pattern + 1, enhanced + 1) == 0;
    return strncmp(pattern + 1, enhanced + 1, (size_t)(dot - pattern)) == 0;
}

static bool rule_fits(const struct reply_rule *rule, enum smtp_phase phase, const struct smtp_reply *reply)
{
    return (rule->phases & AT(phase)) && code_fits(rule->code, reply->code) &&
           (!rule->enhanced || enhanced_fits(rule->enhanced, reply->enhanced)) &&
           (!rule->phrase || strcasestr(reply->text, rule->phrase));
}

static const struct reply_class *find(const struct reply_rules *rules, enum smtp_phase phase, const struct smtp_reply *reply)
{
    for (size_t i = 0; rules && i < rules->count; i++)
        if (rule_fits(&rules->rule[i], phase, reply))
            return &rules->rule[i].class;
    return NULL;
}

static const struct reply_rules ses = {ses_rules, sizeof(ses_rules) / sizeof(ses_rules[0])};
static const struct reply_rules generic = {generic_rules, sizeof(generic_rules) / sizeof(generic_rules[0])};

const struct reply_rules *reply_rules_builtin(const char *name)
{
    return strcmp(name, "ses") == 0 ? &ses : strcmp(name, "generic") == 0 ? &generic : NULL;
}

/* Before MAIL nothing can be about a mail: whatever the words, it is the relay. */
static struct reply_class before_mail(const struct reply_class *class)
{
    static const struct reply_class refused = RELAY(HEALTH_HARD, "down.refused");

    return class && class->scope == SCOPE_RELAY ? *class : refused;
}

struct reply_class reply_classify(const struct reply_rules *own, enum smtp_phase phase, const struct smtp_reply *reply)
{
    static const struct reply_class strange = CONNECTION_RETRY("connection.out_of_step");
    const struct reply_class *class = find(own, phase, reply);

    if (!class)
        class = find(&ses, phase, reply);
    if (!class)
        class = find(&generic, phase, reply);
    if (phase == PHASE_CONNECT)
        return before_mail(class);
    return class ? *class : strange; /* 2yz and 3yz are no refusals */
}
