#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "bounce_classify.h"

static struct bounce_verdict classify(const char *status, int code, const char *text)
{
    struct dsn dsn = {.kind = REPORT_FAILED, .reply_code = code};

    snprintf(dsn.status, sizeof(dsn.status), "%s", status);
    snprintf(dsn.diagnostic, sizeof(dsn.diagnostic), "%s", text);
    return bounce_classify(&dsn);
}

enum {
    H = BOUNCE_HARD,
    S = BOUNCE_SOFT,
    B = BOUNCE_BLOCK,
    M = BOUNCE_MESSAGE,
    C = BOUNCE_CAMPAIGN,
    U = BOUNCE_UNKNOWN
};

/* The registry of RFC 5248, all of it: subject, detail, class with 4, class with 5. */
static void every_registered_code_has_its_class(void **unused)
{
    static const struct {
        int subject, detail, with_4, with_5;
    } row[] = {
        {0, 0, S, U},  {1, 0, S, U},  {1, 1, S, H},  {1, 2, S, H},  {1, 3, S, H},  {1, 4, S, U},  {1, 5, S, U},
        {1, 6, S, H},  {1, 7, C, C},  {1, 8, C, C},  {1, 9, S, U},  {1, 10, S, H}, {2, 0, S, S},  {2, 1, S, H},
        {2, 2, S, S},  {2, 3, M, M},  {2, 4, S, S},  {3, 0, S, S},  {3, 1, S, S},  {3, 2, S, S},  {3, 3, S, S},
        {3, 4, M, M},  {3, 5, S, S},  {3, 6, S, S},  {4, 0, S, S},  {4, 1, S, S},  {4, 2, S, S},  {4, 3, S, S},
        {4, 4, S, H},  {4, 5, S, S},  {4, 6, S, S},  {4, 7, S, S},  {5, 0, M, M},  {5, 1, M, M},  {5, 2, M, M},
        {5, 3, S, S},  {5, 4, M, M},  {5, 5, M, M},  {5, 6, M, M},  {6, 0, M, M},  {6, 1, M, M},  {6, 2, M, M},
        {6, 3, M, M},  {6, 4, M, M},  {6, 5, M, M},  {6, 6, M, M},  {6, 7, M, M},  {6, 8, M, M},  {6, 9, M, M},
        {6, 10, M, M}, {7, 0, S, B},  {7, 1, S, B},  {7, 2, S, B},  {7, 3, S, B},  {7, 4, S, B},  {7, 5, S, B},
        {7, 6, S, B},  {7, 7, S, B},  {7, 8, S, B},  {7, 9, S, B},  {7, 10, S, B}, {7, 11, S, B}, {7, 12, S, B},
        {7, 13, S, H}, {7, 14, S, B}, {7, 15, S, B}, {7, 16, S, B}, {7, 17, S, H}, {7, 18, S, H}, {7, 19, S, B},
        {7, 20, S, B}, {7, 21, S, B}, {7, 22, S, B}, {7, 23, S, B}, {7, 24, S, B}, {7, 25, S, B}, {7, 26, S, B},
        {7, 27, C, C}, {7, 28, S, B}, {7, 29, S, B}, {7, 30, S, B},
    };

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++)
        for (int class = 4; class <= 5; class ++) {
            char status[12];
            int wanted = class == 4 ? row[i].with_4 : row[i].with_5, got;

            snprintf(status, sizeof(status), "%d.%d.%d", class, row[i].subject, row[i].detail);
            got = (int)classify(status, class * 100 + 50, "no words").class;
            if (got != wanted)
                fail_msg("%s: %s, not %s", status, bounce_class_name((enum bounce_class)got),
                         bounce_class_name((enum bounce_class)wanted));
        }
}

/* A code of tomorrow: never HARD. */
static void codes_that_are_not_registered_kill_nobody(void **unused)
{
    static const char *const status[] = {"5.1.11", "5.1.999", "5.2.9",  "5.4.99", "5.7.31",
                                         "5.8.1",  "5.9.9",   "5.99.1", "4.9.9",  "2.0.0"};

    (void)unused;
    for (size_t i = 0; i < COUNT(status); i++)
        assert_int_not_equal(classify(status[i], 0, "").class, BOUNCE_HARD);
}

static void words_decide_where_codes_do_not(void **unused)
{
    static const struct {
        const char *status;
        int code;
        const char *text;
        int class;
        const char *reason;
    } row[] = {
        /* no enhanced status */
        {"", 550, "550 User unknown", H, "bounce.mailbox_unknown"},
        {"", 550, "550 <x>... User not exist", H, "bounce.mailbox_unknown"},
        {"", 553, "553 sorry, no mailbox here by that name", H, "bounce.mailbox_unknown"},
        {"", 554, "554 User unknown", U, "bounce.unknown"},
        {"", 554, "554 delivery error: dd This user doesn't have a yahoo.com account (x) [0]", H,
         "bounce.mailbox_unknown"},
        {"", 550, "550 doesn't have a valid DKIM signature", B, "bounce.policy"},
        {"", 450, "450 User unknown", S, "bounce.gave_up"},
        {"", 421, "421 try again", S, "bounce.gave_up"},
        {"", 550, "550 blocked, see the block list", B, "bounce.policy"},
        {"", 550, "550 Recipient rejected by policy", B, "bounce.policy"},
        {"", 550, "550 Recipient address rejected", H, "bounce.mailbox_unknown"},
        {"", 550, "550 Sender address rejected: Domain does not exist", C, "bounce.our_sender"},
        {"", 550, "550 sender verify fail", C, "bounce.our_sender"},
        {"", 552, "552 too big", M, "bounce.too_large"},
        {"", 552, "552 over quota", S, "bounce.mailbox_full"},
        {"", 542, "542 Rejected", U, "bounce.unknown"},
        {"", 0, "", U, "bounce.unknown"},
        {"", 0, "user unknown", U, "bounce.unknown"},
        /* x.y.0 */
        {"5.0.0", 550, "550 no such user", H, "bounce.mailbox_unknown"},
        {"5.0.0", 0, "no such user", H, "bounce.mailbox_unknown"},
        {"5.1.0", 550, "550 #5.1.0 Address rejected.", H, "bounce.mailbox_unknown"},
        {"5.5.0", 550, "550 Requested action not taken: mailbox unavailable", H, "bounce.mailbox_unknown"},
        {"5.5.0", 550, "550 protocol error", M, "bounce.protocol"},
        {"5.7.0", 550, "550 no such user", B, "bounce.policy"},
        {"4.0.0", 450, "450 no such user", S, "bounce.gave_up"},
        /* words against codes */
        {"5.1.1", 550, "550 rejected as spam", B, "bounce.policy"},
        {"5.1.1", 550, "550 user unknown (antispam.example)", H, "bounce.mailbox_unknown"},
        {"5.1.1", 550, "550 mailbox is full", S, "bounce.mailbox_full"},
        {"5.2.1", 550, "550 The email account that you tried to reach is disabled", H, "bounce.mailbox_disabled"},
        {"5.7.1", 550, "550 user unknown", B, "bounce.policy"},
        {"4.1.1", 450, "450 user unknown", S, "bounce.address_trouble"},
        /* what some say with a code that means something else */
        {"5.2.1", 550, "550-5.2.1 The user you are trying to contact is receiving mail at a rate that", S,
         "bounce.rate"},
        {"5.1.1", 550, "550 5.1.1 <x> - 203.0.113.1 has sent to too many recipients this hour. IB607", S,
         "bounce.rate"},
        {"5.1.1", 550, "550 5.1.1 RCP-P2 Refused due to recipient preferences", B, "bounce.policy"},
        {"5.4.4", 0, "Name service error for name=x type=MX: Malformed or unexpected name server reply", S,
         "bounce.network"},
        {"5.5.0", 554, "554 could not be delivered because the domain is not reachable", S, "bounce.network"},
        {"5.7.27", 550, "550 Host does not accept mail", H, "bounce.null_mx"},
        {"5.7.27", 550, "550 Host does not accept mail from you", C, "bounce.our_sender"},
        {"5.4.1", 550, "550 5.4.1 Recipient address rejected: Access denied.", H, "bounce.mailbox_unknown"},
        {"5.4.1", 550, "550 5.4.1 no answer from host", S, "bounce.network"},
    };

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct bounce_verdict v = classify(row[i].status, row[i].code, row[i].text);

        if ((int)v.class != row[i].class || strcmp(v.reason, row[i].reason) != 0)
            fail_msg("%s %s: %s %s", row[i].status, row[i].text, bounce_class_name(v.class), v.reason);
    }
}

/* Whoever writes "blocked" or "quota" beside any code of addresses or mailboxes, and nothing of an unknown user.
 */
static void policy_and_quota_kill_nobody(void **unused)
{
    static const char *const text[] = {"550 blocked", "550 spam", "550 poor reputation", "550 over quota",
                                       "550 mailbox full"};

    (void)unused;
    for (int subject = 1; subject <= 2; subject++)
        for (int detail = 0; detail <= 10; detail++)
            for (size_t i = 0; i < COUNT(text); i++) {
                char status[12];

                snprintf(status, sizeof(status), "5.%d.%d", subject, detail);
                assert_int_not_equal(classify(status, 550, text[i]).class, BOUNCE_HARD);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_registered_code_has_its_class),
        cmocka_unit_test(codes_that_are_not_registered_kill_nobody),
        cmocka_unit_test(words_decide_where_codes_do_not),
        cmocka_unit_test(policy_and_quota_kill_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
