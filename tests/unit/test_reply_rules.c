#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reply_rules.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define RULES TD_TESTS_DIR "/../deploy/rules"

static struct reply_rules *read_text(const char *text)
{
    struct reply_rules *rules = NULL;
    struct td_err err;

    if (reply_rules_read("x.yaml", text, strlen(text), &rules, &err) < 0)
        fail_msg("%s", err.text);
    return rules;
}

static struct reply_rules *load(const char *name)
{
    struct td_settings settings = {.rules_dir = (char *)(uintptr_t)RULES};
    struct td_relay_settings relay = {.name = (char *)(uintptr_t) "r", .rules = (char *)(uintptr_t)name};
    struct reply_rules *rules = NULL;
    struct td_err err;

    if (reply_rules_of(&settings, &relay, &rules, &err) < 0)
        fail_msg("%s", err.text);
    assert_non_null(rules);
    return rules;
}

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

static struct reply_class classify(const struct reply_rules *rules, enum smtp_phase phase, const char *text)
{
    struct smtp_reply reply = read_reply(text);

    return reply_classify(rules, phase, &reply);
}

static void same_text(const char *a, const char *b)
{
    if (!a || !b)
        assert_ptr_equal(a, b);
    else
        assert_string_equal(a, b);
}

static void files_say_what_is_built_in(void **unused)
{
    static const char *const names[] = {"ses", "generic"};

    (void)unused;
    for (size_t n = 0; n < LENGTH(names); n++) {
        const struct reply_rules *built_in = reply_rules_builtin(names[n]);
        struct reply_rules *file = load(names[n]);

        assert_int_equal(file->count, built_in->count);
        for (size_t i = 0; i < file->count; i++) {
            const struct reply_rule *a = &file->rule[i], *b = &built_in->rule[i];

            if (strcmp(a->class.reason, b->class.reason) != 0)
                print_message("rule %zu of %s\n", i, names[n]);
            assert_int_equal(a->phases, b->phases);
            assert_int_equal(a->code, b->code);
            same_text(a->enhanced, b->enhanced);
            same_text(a->phrase, b->phrase);
            assert_string_equal(a->class.reason, b->class.reason);
            assert_int_equal(a->class.scope, b->class.scope);
            assert_int_equal(a->class.action, b->class.action);
            assert_int_equal(a->class.health, b->class.health);
        }
        reply_rules_free(file);
    }
    assert_null(reply_rules_builtin("other"));
}

/* AuthSMTP's pages: 443 (433), 500, 502, its FAQ; and what its file leaves to the built-in rules. */
static void authsmtp_replies_have_their_class(void **unused)
{
    static const struct {
        enum smtp_phase phase;
        const char *reply;
        enum reply_scope scope;
        enum health_kind health;
        const char *reason;
    } rows[] = {
        {PHASE_MAIL, "443 Account is at / over message quota", SCOPE_RELAY, HEALTH_EXHAUSTED, "overloaded.quota"},
        {PHASE_CONNECT, "443 Account is at / over message quota", SCOPE_RELAY, HEALTH_EXHAUSTED, "overloaded.quota"},
        {PHASE_RCPT, "433 quota", SCOPE_RELAY, HEALTH_EXHAUSTED, "overloaded.quota"},
        {PHASE_FINAL, "552 Account is over data quota", SCOPE_RELAY, HEALTH_EXHAUSTED, "overloaded.quota"},
        {PHASE_MAIL, "500 Envelope from address is not authorised", SCOPE_CAMPAIGN, HEALTH_NONE, "campaign.sender_unverified"},
        {PHASE_MAIL, "500 no", SCOPE_CAMPAIGN, HEALTH_NONE, "campaign.sender_unverified"},
        {PHASE_FINAL, "502 Header from address is not authorised", SCOPE_CAMPAIGN, HEALTH_NONE, "campaign.sender_unverified"},
        {PHASE_RCPT, "550 you are not authorized to send", SCOPE_CAMPAIGN, HEALTH_NONE, "campaign.sender_unverified"},
        {PHASE_RCPT, "500 what?", SCOPE_RECIPIENT, HEALTH_OK, "reply.refused"},
        {PHASE_RCPT, "550 no such user here", SCOPE_RECIPIENT, HEALTH_OK, "reply.mailbox_unknown"},
        {PHASE_MAIL, "421 too many connections", SCOPE_RELAY, HEALTH_CONNECTIONS, "overloaded.connections"},
        {PHASE_FINAL, "454 Throttling failure: Maximum sending rate exceeded", SCOPE_RELAY, HEALTH_SOFT, "overloaded.rate"},
    };
    struct reply_rules *rules = load("authsmtp");

    (void)unused;
    for (size_t i = 0; i < LENGTH(rows); i++) {
        struct reply_class class = classify(rules, rows[i].phase, rows[i].reply);

        assert_string_equal(class.reason, rows[i].reason);
        assert_int_equal(class.scope, rows[i].scope);
        assert_int_equal(class.health, rows[i].health);
    }
    reply_rules_free(rules);
}

static void own_rules_come_before_the_built_in_ones(void **unused)
{
    struct reply_rules *rules = read_text("# comment\n"
                                          "---\n"
                                          "rules:\n"
                                          "  - code: 550\n"
                                          "    phrase: No Such User\n" /* case does not matter */
                                          "    stage: [rcpt, final]\n"
                                          "    scope: message\n"
                                          "    action: retry\n"
                                          "    reason: odd.provider\n"
                                          "  - {enhanced: 4.7.*, scope: relay, health: paused, reason: down.odd}\n"
                                          "  - {stage: connect, code: 4yz, scope: relay, health: exhausted, reason: overloaded.odd}\n"
                                          "  - {code: 5yz, phrase: gone away, scope: recipient, action: refuse, reason: reply.gone}\n");
    struct reply_class class;

    (void)unused;
    assert_int_equal(rules->count, 4);
    class = classify(rules, PHASE_RCPT, "550 5.1.1 no such user here");
    assert_string_equal(class.reason, "odd.provider");
    assert_int_equal(class.action, ACT_RETRY);
    assert_string_equal(classify(NULL, PHASE_RCPT, "550 5.1.1 no such user here").reason, "reply.mailbox_unknown");
    assert_string_equal(classify(rules, PHASE_DATA, "550 5.1.1 no such user here").reason, "reply.mailbox_unknown");
    assert_int_equal(classify(rules, PHASE_RCPT, "450 4.7.99 x").health, HEALTH_PAUSED);
    assert_int_equal(classify(rules, PHASE_RCPT, "450 4.77.9 x").health, HEALTH_OK);
    assert_int_equal(classify(rules, PHASE_CONNECT, "454 later").health, HEALTH_EXHAUSTED);
    assert_int_equal(classify(rules, PHASE_MAIL, "454 later").health, HEALTH_SOFT);
    class = classify(rules, PHASE_FINAL, "550 he has Gone Away");
    assert_string_equal(class.reason, "reply.gone");
    /* Scope recipient begins behind MAIL, and means nothing to a connection. */
    assert_string_equal(classify(rules, PHASE_MAIL, "550 he has gone away").reason, "message.refused");
    assert_string_equal(classify(rules, PHASE_CONNECT, "550 he has gone away").reason, "down.refused");
    reply_rules_free(rules);
}

static void refused_with_line_and_what_to_do(void **unused)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "begins with rules:"},
        {"rules: 1\n", "x.yaml:1: rules: takes a list; begin each rule with '- '"},
        {"rule: []\n", "x.yaml:1: begins with rules:"},
        {"rules: []\nmore: 1\n", "x.yaml:2: holds rules: and nothing else"},
        {"rules: []\n---\nrules: []\n", "x.yaml:2: a second document"},
        {"rules:\n- x\n", "x.yaml:2: a rule is a mapping of key: value"},
        {"rules:\n- {cod: 450}\n", "x.yaml:2: key: 'cod' is none of stage, code, enhanced, phrase, scope, action, health, reason"},
        {"rules:\n- code: 450\n  code: 451\n", "x.yaml:3: code: given twice"},
        {"rules:\n- {code: 250}\n", "x.yaml:2: code: '250' is no code from 400 to 599, nor 4yz or 5yz"},
        {"rules:\n- {code: 4yy}\n", "x.yaml:2: code: '4yy' is no code from 400 to 599, nor 4yz or 5yz"},
        {"rules:\n- {code: \"5\\e[1m\"}\n", "x.yaml:2: code: '5?[1m' is no code from 400 to 599, nor 4yz or 5yz"},
        {"rules:\n- {enhanced: 5.1}\n", "x.yaml:2: enhanced: '5.1' is no pattern such as 5.1.1, x.2.2 or 4.7.*"},
        {"rules:\n- {enhanced: 2.1.1}\n", "x.yaml:2: enhanced: '2.1.1' is no pattern such as 5.1.1, x.2.2 or 4.7.*"},
        {"rules:\n- {enhanced: 5.1111.1}\n", "x.yaml:2: enhanced: '5.1111.1' is no pattern such as 5.1.1, x.2.2 or 4.7.*"},
        {"rules:\n- {enhanced: 5.*.1}\n", "x.yaml:2: enhanced: '5.*.1' is no pattern such as 5.1.1, x.2.2 or 4.7.*"},
        {"rules:\n- {phrase: ab}\n", "x.yaml:2: phrase: takes 3 to 100 characters"},
        {"rules:\n- {phrase: \"f\xc3\xb6rbi\"}\n", "x.yaml:2: phrase: takes printable ASCII"},
        {"rules:\n- {phrase: [a, b]}\n", "x.yaml:2: phrase: takes one value"},
        {"rules:\n- {stage: []}\n", "x.yaml:2: stage: takes a word or a list of words"},
        {"rules:\n- {stage: [{a: b}]}\n", "x.yaml:2: stage: takes a word or a list of words"},
        {"rules:\n- {stage: quit}\n", "x.yaml:2: stage: 'quit' is none of connect, mail, rcpt, data, body, final, any"},
        {"rules:\n- {scope: me}\n", "x.yaml:2: scope: 'me' is none of connection, relay, campaign, message, recipient"},
        {"rules:\n- {reason: down}\n", "x.yaml:2: reason: takes two words such as overloaded.rate, at most 47 of a-z 0-9 _ ."},
        {"rules:\n- {reason: \"down.a b\"}\n", "x.yaml:2: reason: takes two words such as overloaded.rate, at most 47 of a-z 0-9 _ ."},
        {"rules:\n- {code: 450, scope: relay, health: busy}\n", "x.yaml:2: a rule needs a scope and a reason"},
        {"rules:\n- {stage: mail, scope: relay, health: busy, reason: a.b}\n", "x.yaml:2: a rule needs a code, an enhanced code or a phrase"},
        {"rules:\n- {code: 450, scope: relay, reason: a.b}\n",
         "x.yaml:2: scope relay needs a health: busy, failed, down, connections, exhausted or paused"},
        {"rules:\n- {code: 450, scope: recipient, reason: a.b}\n", "x.yaml:2: scope recipient needs an action: refuse or retry"},
        /* What would mark a recipient for what is no fault of theirs, or a relay for a recipient's. */
        {"rules:\n- {code: 554, scope: relay, action: refuse, health: down, reason: a.b}\n", "x.yaml:2: action: refuse does not go with scope relay"},
        {"rules:\n- {code: 554, scope: message, action: refuse, reason: a.b}\n", "x.yaml:2: action: refuse does not go with scope message"},
        {"rules:\n- {code: 554, scope: recipient, action: refuse, health: down, reason: a.b}\n", "x.yaml:2: health: down does not go with scope recipient"},
        {"rules:\n- {code: 554, scope: campaign, health: paused, reason: a.b}\n", "x.yaml:2: health: paused does not go with scope campaign"},
        {"rules:\n- {code: 450, scope: recipient, action: refuse, reason: a.b}\n", "x.yaml:2: action: refuse takes a code of 5yz; a 4yz never ends a recipient"},
        {"rules:\n- {phrase: gone, scope: recipient, action: refuse, reason: a.b}\n", "x.yaml:2: action: refuse takes a code of 5yz; a 4yz never ends a recipient"},
        {"rules:\n- {stage: mail, code: 550, scope: recipient, action: refuse, reason: a.b}\n", "x.yaml:2: stage: at mail no recipient has been named"},
        {"rules:\n- {stage: [rcpt, connect], code: 550, scope: message, reason: a.b}\n",
         "x.yaml:2: stage: before MAIL nothing can be about a mail: connect takes scope relay"},
        {"rules:\n- &a {code: 450}\n", "x.yaml:2: anchors and aliases are not supported"},
        {"rules:\n- {phrase: \"a\\0bc\"}\n", "x.yaml:2: holds a control character"},
        {"rules: [\n", "x.yaml:2: not YAML: did not find expected node content"},
    };

    (void)unused;
    for (size_t i = 0; i < LENGTH(rows); i++) {
        struct reply_rules *rules = NULL;
        struct td_err err = {TD_OK, ""};

        assert_int_equal(reply_rules_read("x.yaml", rows[i].text, strlen(rows[i].text), &rules, &err), TD_ECONFIG);
        if (!strstr(err.text, rows[i].says))
            fail_msg("row %zu: %s", i, err.text);
        assert_null(rules);
    }
}

static void too_much_is_refused(void **unused)
{
    static char text[REPLY_RULES_BYTES_MAX + 2];
    struct reply_rules *rules = NULL;
    struct td_err err;
    size_t len = (size_t)snprintf(text, sizeof(text), "rules:\n");

    (void)unused;
    for (int i = 0; i <= REPLY_RULES_MAX; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "- {code: 450, scope: connection, reason: a.b}\n");
    assert_int_equal(reply_rules_read("x.yaml", text, len, &rules, &err), TD_ECONFIG);
    assert_string_equal(err.text, "x.yaml:1002: more than 1000 rules");
    memset(text, ' ', sizeof(text));
    assert_int_equal(reply_rules_read("x.yaml", text, sizeof(text), &rules, &err), TD_ECONFIG);
    assert_string_equal(err.text, "x.yaml: longer than 262144 bytes");
}

static void a_file_that_is_not_there_is_named(void **unused)
{
    struct td_settings settings = {.rules_dir = (char *)(uintptr_t)RULES};
    struct td_relay_settings relay = {.name = (char *)(uintptr_t) "r1", .rules = (char *)(uintptr_t) "nobody"};
    struct reply_rules *rules = NULL;
    struct td_err err;

    (void)unused;
    assert_int_equal(reply_rules_of(&settings, &relay, &rules, &err), TD_ECONFIG);
    assert_non_null(strstr(err.text, "rules of relay 'r1': cannot read "));
    assert_non_null(strstr(err.text, "rules/nobody.yaml: No such file"));
    relay.rules = NULL;
    assert_int_equal(reply_rules_of(&settings, &relay, &rules, &err), TD_OK);
    assert_null(rules);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_say_what_is_built_in),
        cmocka_unit_test(authsmtp_replies_have_their_class),
        cmocka_unit_test(own_rules_come_before_the_built_in_ones),
        cmocka_unit_test(refused_with_line_and_what_to_do),
        cmocka_unit_test(too_much_is_refused),
        cmocka_unit_test(a_file_that_is_not_there_is_named),
    };

    return cmocka_run_group_tests_name("reply_rules", tests, NULL, NULL);
}
