#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sns_envelope.h"
#include "sns_vectors.h"

#define TOPIC "arn:aws:sns:eu-west-1:123456789012:ses-events"
#define PEM "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-7ff5318490ec183fbaddaa2a969abfda.pem"

static const char plain[] = ""; /* no Subject */
static const char with_subject[] = "\"Subject\":\"My Subject\",";

static int read_note(struct sns_envelope *ret, const char *subject, const char *version, const char *signature)
{
    static char body[8192];
    int len = snprintf(body, sizeof(body),
                       "{\"Type\":\"Notification\",\"MessageId\":\"22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324\",\"TopicArn\":\"" TOPIC
                       "\",%s\"Message\":\"Line one\",\"Timestamp\":\"2026-05-02T00:54:06.655Z\",\"SignatureVersion\":\"%s\","
                       "\"Signature\":\"%s\",\"SigningCertURL\":\"" PEM "\",\"UnsubscribeURL\":\"https://x/\"}",
                       subject, version, signature);

    return sns_read(body, (size_t)len, ret, NULL);
}

static int read_confirmation(struct sns_envelope *ret, const char *token)
{
    static char body[8192];
    int len = snprintf(body, sizeof(body),
                       "{\"Type\":\"SubscriptionConfirmation\",\"MessageId\":\"165545c9-2a5c-472c-8df2-7ff2be2b3b1b\","
                       "\"Token\":\"%s\",\"TopicArn\":\"" TOPIC "\",\"Message\":\"You have chosen\",\"SubscribeURL\":"
                       "\"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=x&Token=2336412f37\","
                       "\"Timestamp\":\"2026-04-26T20:45:04.751Z\",\"SignatureVersion\":\"2\",\"Signature\":\"%s\","
                       "\"SigningCertURL\":\"" PEM "\"}",
                       token, confirm_v2);

    return sns_read(body, (size_t)len, ret, NULL);
}

static EVP_PKEY *key(void)
{
    EVP_PKEY *found = sns_certificate_key(certificate, strlen(certificate), (int64_t)time(NULL));

    assert_non_null(found);
    return found;
}

static int verify(const char *subject, const char *version, const char *signature)
{
    struct sns_envelope envelope;
    EVP_PKEY *by = key();
    int rc;

    assert_int_equal(read_note(&envelope, subject, version, signature), TD_OK);
    rc = sns_verify(&envelope, by, NULL);
    sns_release(&envelope);
    EVP_PKEY_free(by);
    return rc;
}

static void signatures_of_openssl_verify(void **unused)
{
    struct sns_envelope envelope;
    EVP_PKEY *by = key();

    (void)unused;
    assert_int_equal(verify(plain, "1", note_v1), TD_OK);
    assert_int_equal(verify(plain, "2", note_v2), TD_OK);
    assert_int_equal(verify(with_subject, "1", subject_v1), TD_OK);
    assert_int_equal(read_confirmation(&envelope, "2336412f37"), TD_OK);
    assert_int_equal(sns_verify(&envelope, by, NULL), TD_OK);
    sns_release(&envelope);
    EVP_PKEY_free(by);
}

static void what_was_changed_does_not_verify(void **unused)
{
    static const char *const signature[] = {"", "AAAA", "not base64", "====", note_v2};
    struct sns_envelope envelope;
    EVP_PKEY *by = key();

    (void)unused;
    for (size_t i = 0; i < COUNT(signature); i++)
        assert_int_equal(verify(plain, "1", signature[i]), TD_EDENIED);
    assert_int_equal(verify(with_subject, "1", note_v1), TD_EDENIED);
    assert_int_equal(verify(plain, "1", subject_v1), TD_EDENIED);
    assert_int_equal(read_confirmation(&envelope, "2336412f38"), TD_OK);
    assert_int_equal(sns_verify(&envelope, by, NULL), TD_EDENIED);
    sns_release(&envelope);
    EVP_PKEY_free(by);
}

static void text_to_sign_ends_with_a_newline_and_keeps_escapes_apart(void **unused)
{
    static const char body[] =
        "{\"Type\":\"Notification\",\"MessageId\":\"m\",\"TopicArn\":\"t\",\"Message\":\"a\\n\\\"b\\\" \\u00e5\","
        "\"Timestamp\":\"0\",\"SignatureVersion\":\"1\",\"Signature\":\"s\",\"SigningCertURL\":\"u\",\"Token\":\"no\"}";
    struct td_buf text = TD_BUF_INIT(1000);
    struct sns_envelope envelope;

    (void)unused;
    assert_int_equal(sns_read(body, sizeof(body) - 1, &envelope, NULL), TD_OK);
    assert_int_equal(sns_string_to_sign(&envelope, &text), TD_OK);
    assert_string_equal(td_buf_str(&text), "Message\na\n\"b\" \xc3\xa5\nMessageId\nm\nTimestamp\n0\nTopicArn\nt\nType\nNotification\n");
    sns_release(&envelope);
    td_buf_release(&text);
}

static void what_is_no_envelope_is_refused(void **unused)
{
    static const char *const bad[] = {
        "", "null", "[]", "{}", "{\"Type\":\"Notification\"}", "{\"Type\":1}", "{", "\"x\"",
        "{\"Type\":\"Notification\",\"Type\":\"Notification\"}",
        "{\"Type\":\"Confirmation\",\"MessageId\":\"m\",\"TopicArn\":\"t\",\"Message\":\"\",\"Timestamp\":\"\","
        "\"SignatureVersion\":\"1\",\"Signature\":\"\",\"SigningCertURL\":\"\"}",
        "{\"Type\":\"Notification\",\"MessageId\":\"m\",\"TopicArn\":\"t\",\"Message\":\"\",\"Timestamp\":\"\","
        "\"SignatureVersion\":\"3\",\"Signature\":\"\",\"SigningCertURL\":\"\"}",
        "{\"Type\":\"Notification\",\"MessageId\":[\"m\"],\"TopicArn\":\"t\",\"Message\":\"\",\"Timestamp\":\"\","
        "\"SignatureVersion\":\"1\",\"Signature\":\"\",\"SigningCertURL\":\"\"}",
        "{\"Type\":\"SubscriptionConfirmation\",\"MessageId\":\"m\",\"TopicArn\":\"t\",\"Message\":\"\",\"Timestamp\":\"\","
        "\"SignatureVersion\":\"1\",\"Signature\":\"\",\"SigningCertURL\":\"\"}",
        "{\"Type\":\"Notification\",\"MessageId\":\"m\\u0000x\",\"TopicArn\":\"t\",\"Message\":\"\",\"Timestamp\":\"\","
        "\"SignatureVersion\":\"1\",\"Signature\":\"\",\"SigningCertURL\":\"\"}",
    };
    struct sns_envelope envelope;
    char *deep = malloc(SNS_BODY_MAX + 1);

    (void)unused;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(sns_read(bad[i], strlen(bad[i]), &envelope, NULL), TD_ESYNTAX);
    memset(deep, '[', SNS_BODY_MAX + 1);
    assert_int_equal(sns_read(deep, SNS_BODY_MAX, &envelope, NULL), TD_ESYNTAX);
    assert_int_equal(sns_read(deep, SNS_BODY_MAX + 1, &envelope, NULL), TD_ETOOBIG);
    assert_null(envelope.json);
    free(deep);
}

static void certificates_come_from_the_host_of_the_topic_alone(void **unused)
{
    static const char *const good[] = {PEM, "https://sns.eu-west-1.amazonaws.com/a.pem"};
    static const char *const bad[] = {
        "http://sns.eu-west-1.amazonaws.com/a.pem",          "https://sns.eu-west-2.amazonaws.com/a.pem",
        "https://sns.eu-west-1.amazonaws.com.evil.com/a.pem", "https://sns.eu-west-1.amazonaws.com@evil.com/a.pem",
        "https://sns.eu-west-1.amazonaws.com:444/a.pem",     "https://u:p@sns.eu-west-1.amazonaws.com/a.pem",
        "https://evil.com/sns.eu-west-1.amazonaws.com/a.pem", "https://sns-eu-west-1.s3.amazonaws.com/a.pem",
        "https://s3.amazonaws.com/sns/a.pem",                "https://sns.eu-west-1.amazonaws.com/a.pem?x",
        "https://sns.eu-west-1.amazonaws.com/a.pem#x",       "https://sns.eu-west-1.amazonaws.com/a.crt",
        "https://sns.eu-west-1.amazonaws.com/x/../a.pem",    "https://sns.eu-west-1.amazonaws.com/a%2e.pem",
        "https://sns.eu-west-1.amazonaws.com/.pem",          "https://sns.eu-west-1.amazonaws.com/a.pem\n",
        "https://sns.eu-west-1.amazonaws.com",               "HTTPS://sns.eu-west-1.amazonaws.com/a.pem",
        "file:///etc/a.pem",                                 "",
    };
    char host[256];

    (void)unused;
    assert_true(sns_host(TOPIC, host, sizeof(host)));
    assert_string_equal(host, "sns.eu-west-1.amazonaws.com");
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(sns_certificate_url_fit(good[i], host));
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(sns_certificate_url_fit(bad[i], host));
    assert_true(sns_certificate_url_fit("https://localhost:4443/a.pem", "localhost:4443"));
    assert_false(sns_certificate_url_fit("https://localhost:44430/a.pem", "localhost:4443"));
    assert_true(sns_host("arn:aws-cn:sns:cn-north-1:1:x", host, sizeof(host)));
    assert_string_equal(host, "sns.cn-north-1.amazonaws.com.cn");
    assert_false(sns_host("arn:aws:sns", host, sizeof(host)));
    assert_false(sns_host("arn:aws:sns::1:x", host, sizeof(host)));
}

static void a_subscription_is_confirmed_at_the_checked_host(void **unused)
{
    static const char *const bad[] = {"", "a&Action=DeleteTopic", "a b", "a#", "../x"};
    struct td_buf url = TD_BUF_INIT(4096);
    struct sns_envelope envelope;

    (void)unused;
    assert_int_equal(read_confirmation(&envelope, "2336412f37"), TD_OK);
    assert_int_equal(sns_confirm_url(&envelope, "sns.eu-west-1.amazonaws.com", &url), TD_OK);
    assert_string_equal(td_buf_str(&url), "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn="
                                          "arn%3Aaws%3Asns%3Aeu-west-1%3A123456789012%3Ases-events&Token=2336412f37");
    sns_release(&envelope);
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(read_confirmation(&envelope, bad[i]), TD_OK);
        td_buf_clear(&url);
        assert_int_equal(sns_confirm_url(&envelope, "h", &url), TD_ESYNTAX);
        sns_release(&envelope);
    }
    td_buf_release(&url);
}

static void certificates_out_of_time_or_too_weak_have_no_key(void **unused)
{
    (void)unused;
    assert_null(sns_certificate_key(certificate, strlen(certificate), 1000000000)); /* 2001 */
    assert_null(sns_certificate_key(certificate, strlen(certificate), INT64_C(8000000000)));
    assert_null(sns_certificate_key(certificate_1024, strlen(certificate_1024), (int64_t)time(NULL)));
    assert_null(sns_certificate_key("", 0, (int64_t)time(NULL)));
    assert_null(sns_certificate_key("garbage", 7, (int64_t)time(NULL)));
    assert_null(sns_certificate_key(certificate, strlen(certificate) / 2, (int64_t)time(NULL)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signatures_of_openssl_verify),
        cmocka_unit_test(what_was_changed_does_not_verify),
        cmocka_unit_test(text_to_sign_ends_with_a_newline_and_keeps_escapes_apart),
        cmocka_unit_test(what_is_no_envelope_is_refused),
        cmocka_unit_test(certificates_come_from_the_host_of_the_topic_alone),
        cmocka_unit_test(a_subscription_is_confirmed_at_the_checked_host),
        cmocka_unit_test(certificates_out_of_time_or_too_weak_have_no_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
