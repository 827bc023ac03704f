/* Precedence: a phrase that is known to mean something else than its code, enhanced status, reply code with words,
 * unknown.
 *
 * The two errors do not cost the same. A dead address taken for a living one is written to once more in the next
 * campaign; a living one taken for dead gets no mail any more. So HARD needs a code or a phrase that says it of
 * the recipient. */
#include "bounce_classify.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define HARD_UNKNOWN                                                                                              \
    {                                                                                                             \
        BOUNCE_HARD, "bounce.mailbox_unknown"                                                                     \
    }

/* ---- by enhanced status (RFC 3463, RFC 5248, RFC 7372, RFC 7504, RFC 7505) ---- */

struct rule {
    int class, subject, from, to; /* x.subject.from-to; class 0 stands for 4 and 5 */
    struct bounce_verdict verdict;
};

static const struct rule rules[] = {
    {5, 1, 1, 1, HARD_UNKNOWN},
    {5, 1, 2, 2, {BOUNCE_HARD, "bounce.domain_unknown"}},
    {5, 1, 3, 3, {BOUNCE_HARD, "bounce.address_syntax"}},
    {5, 1, 6, 6, {BOUNCE_HARD, "bounce.mailbox_moved"}},
    {5, 1, 10, 10, {BOUNCE_HARD, "bounce.null_mx"}},
    {0, 1, 7, 8, {BOUNCE_CAMPAIGN, "bounce.our_sender"}},
    {4, 1, 0, 999, {BOUNCE_SOFT, "bounce.address_trouble"}},
    {5, 2, 1, 1, {BOUNCE_HARD, "bounce.mailbox_disabled"}},
    {0, 2, 2, 2, {BOUNCE_SOFT, "bounce.mailbox_full"}},
    {0, 2, 3, 3, {BOUNCE_MESSAGE, "bounce.too_large"}},
    {0, 2, 0, 999, {BOUNCE_SOFT, "bounce.mailbox_trouble"}},
    {0, 3, 4, 4, {BOUNCE_MESSAGE, "bounce.too_large"}},
    {0, 3, 0, 999, {BOUNCE_SOFT, "bounce.system_trouble"}},
    {5, 4, 4, 4, {BOUNCE_HARD, "bounce.domain_unknown"}},
    {0, 4, 0, 999, {BOUNCE_SOFT, "bounce.network"}},
    {0, 5, 3, 3, {BOUNCE_SOFT, "bounce.too_many_recipients"}},
    {0, 5, 0, 999, {BOUNCE_MESSAGE, "bounce.protocol"}},
    {0, 6, 0, 999, {BOUNCE_MESSAGE, "bounce.content_form"}},
    {5, 7, 13, 13, {BOUNCE_HARD, "bounce.mailbox_disabled"}},
    {5, 7, 17, 18, {BOUNCE_HARD, "bounce.owner_changed"}},
    {0, 7, 27, 27, {BOUNCE_CAMPAIGN, "bounce.our_sender"}},
    {4, 7, 0, 999, {BOUNCE_SOFT, "bounce.policy_later"}},
    {5, 7, 0, 999, {BOUNCE_BLOCK, "bounce.policy"}},
};

static const struct bounce_verdict *by_status(int class, int subject, int detail)
{
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        if ((rules[i].class == 0 || rules[i].class == class) && rules[i].subject == subject &&
            detail >= rules[i].from && detail <= rules[i].to)
            return &rules[i].verdict;
    return NULL;
}

/* ---- by phrase ---- */

/* What large receivers are known to say with a code that means something else. */
static const struct phrase {
    const char *status; /* only with this one, "" with any */
    const char *text, *unless;
    struct bounce_verdict verdict;
} phrases[] = {
    {"", "receiving mail at a rate", NULL, {BOUNCE_SOFT, "bounce.rate"}},                /* Google, with 5.2.1 */
    {"", "too many recipients this hour", NULL, {BOUNCE_SOFT, "bounce.rate"}},           /* GoDaddy, with 5.1.1 */
    {"", "refused due to recipient preferences", NULL, {BOUNCE_BLOCK, "bounce.policy"}}, /* Facebook, with 5.1.1 */
    {"",
     "unexpected name server reply",
     NULL,
     {BOUNCE_SOFT, "bounce.network"}}, /* Postfix, with 5.4.4: DNS is broken */
    {"", "domain is not reachable", NULL, {BOUNCE_SOFT, "bounce.network"}}, /* Outlook, with 5.5.0 */
    {"5.7.27",
     "host does not accept mail",
     "mail from",
     {BOUNCE_HARD, "bounce.null_mx"}}, /* Sendmail, of the recipient's */
    {"5.4.1", "recipient address rejected: access denied", NULL,
     HARD_UNKNOWN}, /* Exchange Online: no such mailbox */
};

static const struct bounce_verdict *by_phrase(const struct dsn *dsn)
{
    for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++)
        if ((!phrases[i].status[0] || strcmp(phrases[i].status, dsn->status) == 0) &&
            strcasestr(dsn->diagnostic, phrases[i].text) &&
            !(phrases[i].unless && strcasestr(dsn->diagnostic, phrases[i].unless)))
            return &phrases[i].verdict;
    return NULL;
}

/* ---- by words ---- */

/* No other meaning, whatever stands around them. */
static const char *const dead_words[] = {
    "user unknown",        "unknown user",     "no such user",        "user not exist",    "no such mailbox",
    "mailbox not found",   "user not found",   "recipient not found", "unknown recipient", "no mailbox here",
    "mailbox unavailable", "account disabled", "unrouteable address", "does not exist"};
/* So many receivers also say when it is their policy; then some word says that. */
static const char *const refused_words[] = {"address rejected", "recipient rejected", "invalid recipient"};
static const char *const block_words[] = {
    "spam",   "block list", "blocklist", "blacklist", "blocked",           "reputation",
    "policy", "dmarc",      "spf",       "dkim",      "not authenticated", "virus"};
static const char *const full_words[] = {"quota", "mailbox full", "mailbox is full", "over limit",
                                         "insufficient storage"};
static const char *const sender_words[] = {"sender address rejected", "sender rejected", "sender verify",
                                           "sender unknown",          "unknown sender",  "invalid sender",
                                           "domain of sender",        "sender domain",   "sender address domain"};

static bool has(const char *text, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcasestr(text, words[i]))
            return true;
    return false;
}
#define HAS(text, words) has(text, words, sizeof(words) / sizeof((words)[0]))

/* "This user doesn't have a yahoo.com account" */
static bool has_no_account(const char *text)
{
    const char *at = strcasestr(text, "doesn't have a");

    return at && strcasestr(at, " account");
}

static bool says_dead(const char *text)
{
    return (HAS(text, dead_words) || has_no_account(text)) && !HAS(text, sender_words);
}

static struct bounce_verdict by_words(int code, const char *text)
{
    bool address_code = code == 550 || code == 551 || code == 553; /* RFC 5321 s.4.2.3: about the mailbox */

    if (HAS(text, full_words))
        return (struct bounce_verdict){BOUNCE_SOFT, "bounce.mailbox_full"};
    if (code >= 500 && HAS(text, sender_words))
        return (struct bounce_verdict){BOUNCE_CAMPAIGN, "bounce.our_sender"};
    if ((address_code && says_dead(text)) || (code == 554 && has_no_account(text)))
        return (struct bounce_verdict)HARD_UNKNOWN;
    if (HAS(text, block_words))
        return (struct bounce_verdict){BOUNCE_BLOCK, "bounce.policy"};
    if (address_code && HAS(text, refused_words))
        return (struct bounce_verdict)HARD_UNKNOWN;
    if (code == 552)
        return (struct bounce_verdict){BOUNCE_MESSAGE, "bounce.too_large"};
    if (code >= 400 && code < 500)
        return (struct bounce_verdict){BOUNCE_SOFT, "bounce.gave_up"};
    return (struct bounce_verdict){BOUNCE_UNKNOWN, "bounce.unknown"};
}

/* ---- all together ---- */

const char *bounce_class_name(enum bounce_class class)
{
    static const char *const name[] = {"hard", "soft", "block", "message", "campaign", "unknown"};

    return name[class];
}

struct bounce_verdict bounce_classify(const struct dsn *dsn)
{
    const char *text = dsn->diagnostic;
    const struct bounce_verdict *found = by_phrase(dsn);
    int class = 0, subject = 0, detail = 0, code = dsn->reply_code;

    if (found)
        return *found;
    if (sscanf(dsn->status, "%1d.%3d.%3d", &class, &subject, &detail) != 3)
        return by_words(code, text);
    if (code == 0)
        code = class * 100 + 50;
    /* x.1 and x.2 with words of policy or of a full mailbox: these are what was meant, and neither kills an
     * address. */
    if (class == 5 && (subject == 1 || subject == 2) && (HAS(text, block_words) || HAS(text, full_words)) &&
        !says_dead(text))
        return by_words(code, text);
    /* x.y.0 says nothing exact: words that do come first. A policy (x.7) may not know its users, so not there. */
    if (class == 5 && detail == 0 && subject != 7 && by_words(code, text).class == BOUNCE_HARD)
        return by_words(code, text);
    found = by_status(class, subject, detail);
    return found ? *found : by_words(code, text);
}
