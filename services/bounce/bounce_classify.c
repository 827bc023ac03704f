/* Precedence: enhanced status, then reply code with words, then unknown. A rule's class digit 0 stands for 4 and 5. */
#include "bounce_classify.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct rule {
    int class, subject, from, to; /* x.subject.from-to */
    struct bounce_verdict verdict;
};

static const struct rule rules[] = {
    {5, 1, 1, 1, {BOUNCE_HARD, "bounce.mailbox_unknown"}},
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

static const char *const dead_words[] = {"user unknown", "unknown user", "no such user", "no such mailbox", "mailbox not found",
                                         "does not exist", "recipient rejected", "recipient not found", "unknown recipient",
                                         "invalid recipient", "no mailbox here", "unrouteable address", "account disabled",
                                         "mailbox unavailable", "address rejected: user"};
static const char *const block_words[] = {"spam", "block list", "blocklist", "blacklist", "blocked", "reputation", "policy",
                                          "dmarc", "spf", "dkim", "not authenticated", "virus"};
static const char *const full_words[] = {"quota", "mailbox full", "mailbox is full", "over limit", "insufficient storage"};

static bool has(const char *text, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcasestr(text, words[i]))
            return true;
    return false;
}
#define HAS(text, words) has(text, words, sizeof(words) / sizeof((words)[0]))

const char *bounce_class_name(enum bounce_class class)
{
    static const char *const name[] = {"hard", "soft", "block", "message", "campaign", "unknown"};

    return name[class];
}

static struct bounce_verdict by_words(int code, const char *text)
{
    if (HAS(text, full_words))
        return (struct bounce_verdict){BOUNCE_SOFT, "bounce.mailbox_full"};
    if ((code == 550 || code == 551 || code == 553) && HAS(text, dead_words))
        return (struct bounce_verdict){BOUNCE_HARD, "bounce.mailbox_unknown"};
    if (HAS(text, block_words))
        return (struct bounce_verdict){BOUNCE_BLOCK, "bounce.policy"};
    if (code == 552)
        return (struct bounce_verdict){BOUNCE_MESSAGE, "bounce.too_large"};
    if (code >= 400 && code < 500)
        return (struct bounce_verdict){BOUNCE_SOFT, "bounce.gave_up"};
    return (struct bounce_verdict){BOUNCE_UNKNOWN, "bounce.unknown"};
}

struct bounce_verdict bounce_classify(const struct dsn *dsn)
{
    const char *text = dsn->diagnostic;
    int class = 0, subject = -1, detail = -1;

    if (sscanf(dsn->status, "%1d.%3d.%3d", &class, &subject, &detail) == 3 && (subject != 0 || detail != 0)) {
        /* Relays put "spam" under addressing or mailbox codes; a block never kills an address. */
        if (class == 5 && subject <= 2 && HAS(text, block_words) && !HAS(text, dead_words))
            return (struct bounce_verdict){BOUNCE_BLOCK, "bounce.policy"};
        for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
            if ((rules[i].class == 0 || rules[i].class == class) && rules[i].subject == subject && detail >= rules[i].from &&
                detail <= rules[i].to)
                return rules[i].verdict;
    }
    return by_words(dsn->reply_code ? dsn->reply_code : class * 100 + 50, text);
}
