#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "reply_classify.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

struct row {
    enum smtp_phase phase;
    const char *reply; /* as it comes over the wire */
    enum reply_scope scope;
    enum reply_action action;
    enum health_kind health;
    const char *reason;
};

/* clang-format off */
static const struct row rows[] = {
    /* Amazon SES, its own words */
    {PHASE_CONNECT, "421 Too many concurrent SMTP connections", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_CONNECTIONS, "overloaded.connections"},
    {PHASE_MAIL,  "421 Too many concurrent SMTP connections", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_CONNECTIONS, "overloaded.connections"},
    {PHASE_FINAL, "451 Temporary service failure", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_HARD, "down.service_failure"},
    {PHASE_FINAL, "454 Temporary service failure", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_HARD, "down.service_failure"},
    {PHASE_MAIL,  "451 4.4.2 Timeout waiting for data from client.", SCOPE_CONNECTION, ACT_RECONNECT, HEALTH_NONE, "connection.idle_closed"},
    {PHASE_MAIL,  "421 4.4.2 Timeout waiting for data from client.", SCOPE_CONNECTION, ACT_RECONNECT, HEALTH_NONE, "connection.idle_closed"},
    {PHASE_FINAL, "454 Throttling failure: Maximum sending rate exceeded", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_SOFT, "overloaded.rate"},
    {PHASE_FINAL, "454 Throttling failure: Daily message quota exceeded", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_EXHAUSTED, "overloaded.quota"},
    {PHASE_CONNECT, "454 Temporary authentication failure", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_HARD, "down.auth_service"},
    {PHASE_MAIL,  "530 Authentication required", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_FATAL, "down.auth"},
    {PHASE_CONNECT, "535 Authentication Credentials Invalid", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_FATAL, "down.auth"},
    {PHASE_CONNECT, "535 Account not subscribed to SES", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_FATAL, "down.auth"},
    {PHASE_FINAL, "552 Message is too long.", SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_NONE, "message.too_big"},
    {PHASE_MAIL,  "553 <news@example.com> Invalid email address", SCOPE_CAMPAIGN, ACT_HOLD, HEALTH_NONE, "campaign.sender_invalid"},
    {PHASE_RCPT,  "553 <someone@example.net> address unknown", SCOPE_RECIPIENT, ACT_REFUSE, HEALTH_OK, "reply.address_invalid"},
    {PHASE_FINAL, "554 Access denied: User is not authorized to perform ses:SendRawEmail", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_HARD, "down.access_denied"},
    {PHASE_FINAL, "554 Message rejected: Email address is not verified. The following identities failed the check in region EU-CENTRAL-1: news@example.com", SCOPE_CAMPAIGN, ACT_HOLD, HEALTH_NONE, "campaign.sender_unverified"},
    {PHASE_FINAL, "554 Message rejected: Sending paused for this account. For more information, please check the inbox", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_PAUSED, "down.paused"},
    {PHASE_MAIL,  "554 Message rejected: Sending suspended for this account.", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_PAUSED, "down.paused"},
    {PHASE_RCPT,  "554 Message rejected: Sending paused for this account.", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_PAUSED, "down.paused"},
    /* AuthSMTP's own code: temporary by its first digit, a month by its meaning */
    {PHASE_MAIL,  "443 Message quota exceeded", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_EXHAUSTED, "overloaded.quota"},
    {PHASE_RCPT,  "443 you have used your allowance", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_EXHAUSTED, "overloaded.quota"},
    /* enhanced codes */
    {PHASE_RCPT,  "550 5.1.1 User unknown", SCOPE_RECIPIENT, ACT_REFUSE, HEALTH_OK, "reply.mailbox_unknown"},
    {PHASE_FINAL, "550 5.1.1 User unknown", SCOPE_RECIPIENT, ACT_REFUSE, HEALTH_OK, "reply.mailbox_unknown"},
    {PHASE_MAIL,  "550 5.1.1 User unknown", SCOPE_CAMPAIGN, ACT_HOLD, HEALTH_NONE, "campaign.sender_invalid"},
    {PHASE_RCPT,  "556 5.1.10 null MX", SCOPE_RECIPIENT, ACT_REFUSE, HEALTH_OK, "reply.domain_null_mx"},
    {PHASE_RCPT,  "450 4.1.1 later", SCOPE_RECIPIENT, ACT_RETRY, HEALTH_OK, "reply.address_deferred"},
    {PHASE_RCPT,  "552 5.2.2 mailbox full", SCOPE_RECIPIENT, ACT_RETRY, HEALTH_OK, "reply.mailbox_full"},
    {PHASE_RCPT,  "550 5.2.1 disabled", SCOPE_RECIPIENT, ACT_REFUSE, HEALTH_OK, "reply.mailbox_disabled"},
    {PHASE_MAIL,  "552 5.3.4 message exceeds fixed limit", SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_NONE, "message.too_big"},
    {PHASE_RCPT,  "550 5.4.4 Invalid domain", SCOPE_RECIPIENT, ACT_REFUSE, HEALTH_OK, "reply.domain_unroutable"},
    {PHASE_RCPT,  "450 4.7.1 greylisted", SCOPE_RECIPIENT, ACT_RETRY, HEALTH_OK, "reply.greylisted"},
    {PHASE_MAIL,  "450 4.7.1 slow down", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_SOFT, "overloaded.policy"},
    {PHASE_FINAL, "550 5.7.1 looks like spam", SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_NONE, "blocked.policy"},
    {PHASE_FINAL, "550 5.7.26 unauthenticated", SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_NONE, "blocked.policy"},
    {PHASE_RCPT,  "550 5.7.27 sender has null MX", SCOPE_CAMPAIGN, ACT_HOLD, HEALTH_NONE, "campaign.sender_invalid"},
    {PHASE_RCPT,  "550 5.7.13 user disabled", SCOPE_RECIPIENT, ACT_REFUSE, HEALTH_OK, "reply.mailbox_disabled"},
    {PHASE_FINAL, "450 4.7.28 flood", SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_SOFT, "blocked.flood"},
    {PHASE_MAIL,  "535 5.7.8 credentials", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_FATAL, "down.auth"},
    {PHASE_RCPT,  "454 4.7.1 Relay access denied", SCOPE_RECIPIENT, ACT_RETRY, HEALTH_OK, "reply.greylisted"},
    {PHASE_RCPT,  "554 5.7.1 Relay access denied", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_HARD, "down.relaying_denied"},
    {PHASE_FINAL, "550 5.4.1 Recipient address rejected: Access denied", SCOPE_RECIPIENT, ACT_REFUSE, HEALTH_OK, "reply.mailbox_unknown"},
    /* basic codes */
    {PHASE_RCPT,  "550 no such user here", SCOPE_RECIPIENT, ACT_REFUSE, HEALTH_OK, "reply.mailbox_unknown"},
    {PHASE_RCPT,  "550 listed by a blocklist", SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_NONE, "blocked.reputation"},
    {PHASE_RCPT,  "554 no", SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_NONE, "message.refused"},
    {PHASE_RCPT,  "551 elsewhere", SCOPE_RECIPIENT, ACT_REFUSE, HEALTH_OK, "reply.refused"},
    {PHASE_RCPT,  "450 busy", SCOPE_RECIPIENT, ACT_RETRY, HEALTH_OK, "reply.deferred"},
    {PHASE_MAIL,  "451 later", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_SOFT, "overloaded.deferred"},
    {PHASE_DATA,  "451 later", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_SOFT, "overloaded.deferred"},
    {PHASE_FINAL, "451 later", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_SOFT, "overloaded.deferred"},
    {PHASE_MAIL,  "550 no", SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_NONE, "message.refused"},
    {PHASE_DATA,  "554 no", SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_NONE, "message.refused"},
    {PHASE_FINAL, "554 no", SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_NONE, "message.refused"},
    {PHASE_MAIL,  "553 bad sender", SCOPE_CAMPAIGN, ACT_HOLD, HEALTH_NONE, "campaign.sender_invalid"},
    {PHASE_FINAL, "552 too much", SCOPE_MESSAGE, ACT_OTHER_RELAY, HEALTH_NONE, "message.too_big"},
    {PHASE_MAIL,  "421 closing", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_HARD, "down.closing"},
    {PHASE_MAIL,  "421 idle timeout", SCOPE_CONNECTION, ACT_RECONNECT, HEALTH_NONE, "connection.idle_closed"},
    {PHASE_CONNECT, "554 No SMTP here", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_HARD, "down.refused"},
    {PHASE_CONNECT, "550 5.1.1 user unknown", SCOPE_RELAY, ACT_OTHER_RELAY, HEALTH_HARD, "down.refused"},
};
/* clang-format on */

static struct smtp_reply read_reply(const char *text)
{
    struct smtp_reply_reader reader;
    struct smtp_reply reply;
    char line[600];
    size_t used;
    int len = snprintf(line, sizeof(line), "%s\r\n", text);

    smtp_reply_reader_init(&reader);
    assert_int_equal(smtp_reply_feed(&reader, line, (size_t)len, &used, &reply), 1);
    return reply;
}

static void each_reply_has_its_class(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < LENGTH(rows); i++) {
        struct smtp_reply reply = read_reply(rows[i].reply);
        struct reply_class class = reply_classify(NULL, rows[i].phase, &reply);

        if (strcmp(class.reason, rows[i].reason) != 0)
            print_message("row: %s at %s\n", rows[i].reply, smtp_phase_name(rows[i].phase));
        assert_string_equal(class.reason, rows[i].reason);
        assert_int_equal(class.scope, rows[i].scope);
        assert_int_equal(class.action, rows[i].action);
        assert_int_equal(class.health, rows[i].health);
    }
}

/* RFC 3463 and its registry, x.0.0 to x.7.30, and every basic code, at every phase. */
static void every_code_has_a_class_that_keeps_the_scopes_apart(void **unused)
{
    char text[64];

    (void)unused;
    for (int code = 400; code < 600; code++)
        for (int subject = -1; subject <= 7; subject++)
            for (int detail = 0; detail <= 30; detail++)
                for (enum smtp_phase phase = PHASE_CONNECT; phase < PHASE_COUNT; phase++) {
                    struct smtp_reply reply;
                    struct reply_class class;

                    if (subject < 0)
                        snprintf(text, sizeof(text), "%d words", code);
                    else
                        snprintf(text, sizeof(text), "%d %d.%d.%d words", code, code / 100, subject, detail);
                    reply = read_reply(text);
                    class = reply_classify(NULL, phase, &reply);
                    assert_non_null(class.reason);
                    assert_non_null(strchr(class.reason, '.'));
                    if (phase == PHASE_CONNECT)
                        assert_int_equal(class.scope, SCOPE_RELAY);
                    if (phase == PHASE_MAIL) /* no recipient has been named */
                        assert_int_not_equal(class.scope, SCOPE_RECIPIENT);
                    if (class.scope == SCOPE_RECIPIENT) {
                        assert_true(class.action == ACT_REFUSE || class.action == ACT_RETRY);
                        assert_int_equal(class.health, HEALTH_OK);
                    } else {
                        assert_int_not_equal(class.action, ACT_REFUSE);
                    }
                    if (class.health >= HEALTH_HARD)
                        assert_int_equal(class.scope, SCOPE_RELAY);
                    if (code < 500 && class.scope == SCOPE_RECIPIENT) /* a 4yz never ends a recipient */
                        assert_int_equal(class.action, ACT_RETRY);
                }
}

static void account_trouble_never_ends_a_recipient(void **unused)
{
    static const char *const texts[] = {"554 Message rejected: Sending paused for this account.",
                                        "550 5.1.1 Message rejected: Sending paused for this account",
                                        "554 5.7.1 SENDING PAUSED",
                                        "553 Your account has been suspended",
                                        "550 5.7.1 daily sending quota used up"};

    (void)unused;
    for (size_t i = 0; i < LENGTH(texts); i++)
        for (enum smtp_phase phase = PHASE_MAIL; phase < PHASE_COUNT; phase++) {
            struct smtp_reply reply = read_reply(texts[i]);
            struct reply_class class = reply_classify(NULL, phase, &reply);

            assert_int_equal(class.scope, SCOPE_RELAY);
            assert_int_equal(class.action, ACT_OTHER_RELAY);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_reply_has_its_class),
        cmocka_unit_test(every_code_has_a_class_that_keeps_the_scopes_apart),
        cmocka_unit_test(account_trouble_never_ends_a_recipient),
    };

    return cmocka_run_group_tests_name("reply_classify", tests, NULL, NULL);
}
