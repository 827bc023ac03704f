#include "unit.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ses_event.h"
#include "sns_envelope.h"

#define MAIL                                                                                                      \
    "\"mail\":{\"timestamp\":\"2026-05-02T00:54:06.655Z\",\"source\":\"b+spring.1.abcdefghijklmnop@bounce.x.eu\"," \
    "\"messageId\":\"0102018f-aa\",\"destination\":[\"anna@example.se\"],"                                        \
    "\"tags\":{\"ses:configuration-set\":[\"news\"],\"tandem\":[\"spring-1-abcdefghijklmnop\"]}}"

static int read_message(const char *message, struct ses_event *ret)
{
    json_t *envelope = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s}", "Type", "Notification", "MessageId", "m", "TopicArn", "t",
                                 "Message", message, "Timestamp", "0", "SignatureVersion", "1", "Signature", "s",
                                 "SigningCertURL", "u");
    char *raw = json_dumps(envelope, 0);
    int rc = ses_event_read(raw, strlen(raw), ret, NULL);

    free(raw);
    json_decref(envelope);
    return rc;
}

static struct ses_event event(const char *message)
{
    struct ses_event ret;

    assert_int_equal(read_message(message, &ret), TD_OK);
    return ret;
}

static void both_names_of_the_type_are_read(void **unused)
{
    static const struct {
        const char *message;
        enum ses_kind kind;
    } row[] = {
        {"{\"eventType\":\"Send\"," MAIL ",\"send\":{}}", SES_SEND},
        {"{\"eventType\":\"Delivery\"," MAIL "}", SES_DELIVERY},
        {"{\"notificationType\":\"Delivery\"," MAIL "}", SES_DELIVERY},
        {"{\"eventType\":\"DeliveryDelay\"," MAIL "}", SES_DELAY},
        {"{\"eventType\":\"Reject\"," MAIL ",\"reject\":{\"reason\":\"Bad content\"}}", SES_REJECT},
        {"{\"eventType\":\"Open\"," MAIL "}", SES_OTHER},
        {"{\"eventType\":\"Rendering Failure\"," MAIL "}", SES_OTHER},
        {"{\"eventType\":\"\"," MAIL "}", SES_OTHER},
        {"{\"eventType\":7," MAIL "}", SES_OTHER},
        {"{}", SES_OTHER},
    };

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct ses_event e = event(row[i].message);

        assert_int_equal(e.kind, row[i].kind);
        if (e.kind == SES_REJECT)
            assert_int_equal(ses_event_effect(&e).verdict.class, BOUNCE_BLOCK);
        else
            assert_false(ses_event_effect(&e).bounced);
    }
}

static void tag_source_and_id_are_kept(void **unused)
{
    struct ses_event e = event("{\"eventType\":\"Send\"," MAIL "}");

    (void)unused;
    assert_string_equal(e.tag, "spring-1-abcdefghijklmnop");
    assert_string_equal(e.source, "b+spring.1.abcdefghijklmnop@bounce.x.eu");
    assert_string_equal(e.message_id, "0102018f-aa");
}

struct effect_row {
    const char *type, *sub_type, *status, *diagnostic;
    enum bounce_class class;
    const char *reason;
    bool suppress;
};

static void bounces_mean_what_the_table_says(void **unused)
{
    static const struct effect_row row[] = {
        {"Permanent", "General", "5.1.1", "smtp; 550 5.1.1 user unknown", BOUNCE_HARD, "bounce.mailbox_unknown", true},
        {"Permanent", "NoEmail", "", "", BOUNCE_HARD, "bounce.permanent", true},
        {"Permanent", "Suppressed", "5.1.1", "", BOUNCE_HARD, "bounce.mailbox_unknown", true},
        {"Permanent", "OnAccountSuppressionList", "5.1.1", "", BOUNCE_BLOCK, "bounce.relay_suppressed", true},
        {"Permanent", "SomethingNew", "5.7.1", "", BOUNCE_HARD, "bounce.permanent", true},
        {"Transient", "General", "4.4.7", "", BOUNCE_SOFT, "bounce.transient", false},
        {"Transient", "General", "5.4.4", "", BOUNCE_HARD, "bounce.domain_unknown", true},
        {"Transient", "MailboxFull", "5.2.2", "", BOUNCE_SOFT, "bounce.mailbox_full", false},
        {"Transient", "MessageTooLarge", "", "", BOUNCE_MESSAGE, "bounce.too_large", false},
        {"Transient", "ContentRejected", "5.7.1", "", BOUNCE_BLOCK, "bounce.content", false},
        {"Transient", "AttachmentRejected", "", "", BOUNCE_BLOCK, "bounce.content", false},
        {"Undetermined", "Undetermined", "5.1.1", "", BOUNCE_SOFT, "bounce.undetermined", false},
        {"", "", "", "", BOUNCE_SOFT, "bounce.undetermined", false},
    };

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        char message[2000];
        struct ses_effect effect;
        struct ses_event e;

        snprintf(message, sizeof(message),
                 "{\"eventType\":\"Bounce\"," MAIL ",\"bounce\":{\"bounceType\":\"%s\",\"bounceSubType\":\"%s\","
                 "\"bouncedRecipients\":[{\"emailAddress\":\"anna@example.se\",\"status\":\"%s\",\"diagnosticCode\":\"%s\"}]}}",
                 row[i].type, row[i].sub_type, row[i].status, row[i].diagnostic);
        e = event(message);
        effect = ses_event_effect(&e);
        assert_true(effect.bounced);
        assert_false(effect.complained);
        assert_int_equal(effect.verdict.class, row[i].class);
        assert_string_equal(effect.verdict.reason, row[i].reason);
        assert_int_equal(effect.suppress, row[i].suppress);
        assert_string_equal(e.dsn.status, row[i].status);
    }
}

static void complaints_suppress_unless_they_are_none(void **unused)
{
    static const struct {
        const char *complaint;
        bool complained, suppress;
    } row[] = {
        {"{\"complaintFeedbackType\":\"abuse\",\"complaintSubType\":null}", true, true},
        {"{\"complaintFeedbackType\":null}", true, true},
        {"{}", true, true},
        {"null", true, true},
        {"{\"complaintFeedbackType\":\"not-spam\"}", false, false},
        {"{\"complaintFeedbackType\":\"auth-failure\"}", false, false},
        {"{\"complaintSubType\":\"OnAccountSuppressionList\"}", false, true},
    };

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        char message[2000];
        struct ses_effect effect;
        struct ses_event e;

        snprintf(message, sizeof(message), "{\"notificationType\":\"Complaint\"," MAIL ",\"complaint\":%s}", row[i].complaint);
        e = event(message);
        effect = ses_event_effect(&e);
        assert_false(effect.bounced);
        assert_int_equal(effect.complained, row[i].complained);
        assert_int_equal(effect.suppress, row[i].suppress);
    }
}

static void hostile_values_read_as_none(void **unused)
{
    static const char *const no_event[] = {"", "Successfully validated SNS topic", "[]", "null", "{\"eventType\":", "7"};
    char message[4000];
    struct ses_event e;
    char *longer = malloc(2000);

    (void)unused;
    for (size_t i = 0; i < COUNT(no_event); i++)
        assert_int_equal(read_message(no_event[i], &e), TD_ENOTFOUND);
    memset(longer, 'a', 1999);
    longer[1999] = '\0';
    snprintf(message, sizeof(message),
             "{\"eventType\":\"Bounce\",\"mail\":{\"source\":\"%.500s\",\"messageId\":\"x y@z\",\"tags\":{\"tandem\":\"no list\"}},"
             "\"bounce\":{\"bounceType\":[],\"bouncedRecipients\":[{\"status\":\"5.1.1\\n\",\"diagnosticCode\":\"smtp; %.1000s\"}]}}",
             longer, longer);
    e = event(message);
    assert_string_equal(e.tag, "");
    assert_string_equal(e.source, "");
    assert_string_equal(e.message_id, "");
    assert_string_equal(e.dsn.status, "");
    assert_int_equal(strlen(e.dsn.diagnostic), sizeof(e.dsn.diagnostic) - 1);
    e = event("{\"eventType\":\"Bounce\",\"mail\":[],\"bounce\":[{}]}");
    assert_int_equal(ses_event_effect(&e).verdict.class, BOUNCE_SOFT);
    assert_int_equal(ses_event_read("{}", 2, &e, NULL), TD_ESYNTAX);
    free(longer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_names_of_the_type_are_read),
        cmocka_unit_test(tag_source_and_id_are_kept),
        cmocka_unit_test(bounces_mean_what_the_table_says),
        cmocka_unit_test(complaints_suppress_unless_they_are_none),
        cmocka_unit_test(hostile_values_read_as_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
