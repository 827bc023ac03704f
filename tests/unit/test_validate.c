/* Each row breaks one thing in a campaign or recipient that is fine, and the refusal must name it by code and
 * field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "content.h"
#include "ingestion_settings.h"
#include "split.h"
#include "tandem/pb.h"
#include "validate.h"

#define NOW 1767225600000 /* 2026-01-01 */

struct bench {
    struct td_settings settings;
    struct td_arena *arena;
    Campaign campaign;
    Mailbox from, reply_to;
    Unsubscribe unsubscribe;
    HeaderField header, *headers[1];
    Attachment attachment[2], *attachments[2];
    uint8_t sha256[32];
    ProtobufCBinaryData *content;
    struct refusals refusals;
    struct needed_fields needed;
};

static struct bench bench;

static void attach(size_t count)
{
    static char data[] = "hello";

    SHA256((unsigned char *)data, 5, bench.sha256);
    for (size_t i = 0; i < count; i++) {
        tandem__mail__v1__attachment__init(&bench.attachment[i]);
        bench.attachment[i].filename = (char *)"programme.pdf";
        bench.attachment[i].content_type = (char *)"application/pdf";
        bench.attachment[i].sha256 = (ProtobufCBinaryData){32, bench.sha256};
        bench.attachment[i].content = (ProtobufCBinaryData){5, (uint8_t *)data};
        bench.attachments[i] = &bench.attachment[i];
    }
    bench.campaign.n_attachments = count;
    bench.campaign.attachments = bench.attachments;
}

static int setup(void **unused)
{
    (void)unused;
    needed_fields_release(&bench.needed); /* of the row before */
    td_arena_free(bench.arena);
    memset(&bench, 0, sizeof(bench));
    bench.settings = ingestion_settings();
    bench.arena = td_arena_new(1 << 20);
    tandem__mail__v1__campaign__init(&bench.campaign);
    tandem__mail__v1__mailbox__init(&bench.from);
    tandem__mail__v1__mailbox__init(&bench.reply_to);
    tandem__mail__v1__unsubscribe__init(&bench.unsubscribe);
    tandem__mail__v1__header_field__init(&bench.header);
    bench.from.address = (char *)"news@Example.org";
    bench.from.name = (char *)"Nyheter från Åsa";
    bench.campaign.from = &bench.from;
    bench.campaign.subject_template = (char *)"Hej {{first_name}}";
    bench.campaign.text_template = (char *)"Hej {{first_name}}, {{plan | default: \"du\"}} {{email}}";
    bench.headers[0] = &bench.header;
    return bench.arena ? 0 : -1;
}

static int teardown(void **unused)
{
    (void)unused;
    needed_fields_release(&bench.needed);
    td_arena_free(bench.arena);
    bench.arena = NULL;
    return 0;
}

static void judge(void)
{
    bench.content = content_detach(&bench.campaign, bench.arena);
    assert_non_null(bench.content);
    assert_int_equal(content_defaults(&bench.campaign, &bench.settings, NOW, bench.arena), TD_OK);
    assert_int_equal(validate_campaign(&bench.campaign, bench.content, &bench.settings, NOW, bench.arena,
                                       &bench.refusals, &bench.needed),
                     TD_OK);
}

static void refused(const char *code, const char *field)
{
    judge();
    for (size_t i = 0; i < bench.refusals.kept; i++)
        if (strcmp(bench.refusals.item[i].code, code) == 0 && strcmp(bench.refusals.item[i].field, field) == 0)
            return;
    fail_msg("not refused as %s at %s but %zu others, the first %s at %s", code, field, bench.refusals.total,
             bench.refusals.total ? bench.refusals.item[0].code : "-",
             bench.refusals.total ? bench.refusals.item[0].field : "-");
}

static void taken(void)
{
    judge();
    if (bench.refusals.total)
        fail_msg("refused as %s at %s: %s", bench.refusals.item[0].code, bench.refusals.item[0].field,
                 bench.refusals.item[0].sentence);
}

static void a_fine_campaign_is_taken_and_its_fields_are_known(void **unused)
{
    (void)unused;
    taken();
    assert_string_equal(bench.campaign.from->address, "news@example.org");
    assert_int_equal(bench.needed.count, 1);
    assert_string_equal(bench.needed.name[0], "first_name");
    assert_int_equal(bench.campaign.n_route, 2);
    assert_int_equal(bench.campaign.deadline_unix_ms, NOW + 86400000);
}

static void addresses_and_names(void **unused)
{
    (void)unused;
    bench.from.address = (char *)"news@example.org\r\nBcc: x@example.org";
    refused("address.syntax", "campaign.from.address");
    setup(NULL);
    bench.from.name = (char *)"News\r\nBcc: x@example.org";
    refused("name.syntax", "campaign.from.name");
    setup(NULL);
    bench.reply_to.address = (char *)"nobody";
    bench.campaign.reply_to = &bench.reply_to;
    refused("address.syntax", "campaign.reply_to.address");
    setup(NULL);
    bench.campaign.from = NULL;
    refused("from.missing", "campaign.from");
}

static void templates(void **unused)
{
    (void)unused;
    bench.campaign.text_template = (char *)"";
    refused("body.missing", "campaign.html_template");
    setup(NULL);
    bench.campaign.html_template = (char *)"<p>{{{raw}}}</p>";
    refused("template.syntax", "campaign.html_template");
    setup(NULL);
    bench.campaign.subject_template = (char *)"Hej\nBcc: x";
    refused("header.value", "campaign.subject_template");
    setup(NULL);
    bench.campaign.subject_template = (char *)"";
    refused("subject.missing", "campaign.subject_template");
    setup(NULL);
    bench.campaign.text_template = (char *)"{{unsubscribe_url}}";
    refused("unsubscribe.missing", "campaign.unsubscribe.https_url");
}

static void headers_and_tags(void **unused)
{
    static const char *const languages[] = {"s", "sv_SE", "sv-", "-sv", "sv--SE", "sv-abcdefghi", "123", "sv\n"};
    static const char *const lists[] = {"news",          ".news.example", "news..example",
                                        "news.example.", "a b.c",         "a.b\r\n"};

    (void)unused;
    for (size_t i = 0; i < sizeof(languages) / sizeof(languages[0]); i++) {
        setup(NULL);
        bench.campaign.language = (char *)languages[i];
        refused("language.syntax", "campaign.language");
    }
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        setup(NULL);
        bench.campaign.list_id = (char *)lists[i];
        refused("list_id.syntax", "campaign.list_id");
    }
    setup(NULL);
    bench.campaign.language = (char *)"sv-Latn-SE";
    bench.campaign.list_id = (char *)"weekly.news.example.se";
    bench.header.name = (char *)"X-Campaign";
    bench.header.value = (char *)"spring";
    bench.campaign.n_headers = 1;
    bench.campaign.headers = bench.headers;
    taken();
    setup(NULL);
    bench.header.name = (char *)"X-SES-Message-Tags";
    bench.header.value = (char *)"a";
    bench.campaign.n_headers = 1;
    bench.campaign.headers = bench.headers;
    refused("header.name", "campaign.headers[0]");
}

static void unsubscribe_addresses(void **unused)
{
    static const char *const bad[] = {"http://x.example/",
                                      "https://",
                                      "https:///x",
                                      "https://x.example/ a",
                                      "https://x.example/>",
                                      "https://x.example/\r\n",
                                      "https://x.example/{{email}}",
                                      "https://x.example/ö"};

    (void)unused;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        setup(NULL);
        bench.unsubscribe.https_url = (char *)bad[i];
        bench.campaign.unsubscribe = &bench.unsubscribe;
        refused("unsubscribe.url", "campaign.unsubscribe.https_url");
    }
    setup(NULL);
    bench.unsubscribe.mailto = (char *)"x@example.org";
    bench.unsubscribe.one_click = true;
    bench.campaign.unsubscribe = &bench.unsubscribe;
    refused("unsubscribe.one_click", "campaign.unsubscribe.one_click");
    setup(NULL);
    bench.unsubscribe.https_url = (char *)"https://x.example/u?t={{token}}&v=1";
    bench.unsubscribe.one_click = true;
    bench.campaign.unsubscribe = &bench.unsubscribe;
    bench.campaign.text_template = (char *)"{{unsubscribe_url}} {{first_name}}";
    taken();
}

static void routes(void **unused)
{
    static char *wanted[4];

    (void)unused;
    bench.campaign.route = wanted;
    bench.campaign.n_route = 1;
    wanted[0] = (char *)"nobody";
    refused("route.unknown", "campaign.route");
    wanted[0] = (char *)"abroad"; /* is configured, and never used: its country is not allowed */
    refused("route.country", "campaign.route");
    setup(NULL);
    bench.campaign.route = wanted;
    bench.campaign.n_route = 2;
    wanted[0] = wanted[1] = (char *)"backup";
    refused("route.repeated", "campaign.route");
}

static void countries_narrow_the_default_route(void **unused)
{
    static char *only[] = {(char *)"DE"}, *none[] = {(char *)"FI"}, *bad[] = {(char *)"de"};

    (void)unused;
    bench.campaign.allowed_countries = only;
    bench.campaign.n_allowed_countries = 1;
    taken();
    assert_int_equal(bench.campaign.n_route, 1);
    assert_string_equal(bench.campaign.route[0], "backup");
    setup(NULL);
    bench.campaign.allowed_countries = none;
    bench.campaign.n_allowed_countries = 1;
    refused("route.empty", "campaign.route");
    setup(NULL);
    bench.campaign.allowed_countries = bad;
    bench.campaign.n_allowed_countries = 1;
    refused("country.syntax", "campaign.allowed_countries");
}

static void times_and_limits(void **unused)
{
    (void)unused;
    bench.campaign.deadline_unix_ms = NOW;
    refused("deadline.range", "campaign.deadline_unix_ms");
    bench.campaign.deadline_unix_ms = INT64_MAX;
    refused("deadline.range", "campaign.deadline_unix_ms");
    bench.campaign.deadline_unix_ms = INT64_MIN;
    refused("deadline.range", "campaign.deadline_unix_ms");
    bench.campaign.deadline_unix_ms = 0;
    bench.campaign.not_before_unix_ms = INT64_MAX;
    refused("not_before.range", "campaign.not_before_unix_ms");
    bench.campaign.not_before_unix_ms = -1;
    refused("not_before.range", "campaign.not_before_unix_ms");
    bench.campaign.bounce_ceiling_per_10000 = 10001;
    refused("ceiling.range", "campaign.bounce_ceiling_per_10000");
    bench.campaign.max_mails_per_s = 1000001;
    refused("rate.range", "campaign.max_mails_per_s");
    bench.campaign.on_unconfirmed = (Tandem__Mail__V1__OnUnconfirmed)9;
    refused("enum.unknown", "campaign.on_unconfirmed");
    bench.campaign.class_ = (Tandem__Mail__V1__CampaignClass)-1;
    refused("enum.unknown", "campaign.class");
}

static void the_deadline_counts_from_not_before(void **unused)
{
    (void)unused;
    bench.campaign.not_before_unix_ms = NOW + 3600000;
    taken();
    assert_int_equal(bench.campaign.deadline_unix_ms, NOW + 3600000 + 86400000);
}

static void attachments(void **unused)
{
    static const char *const names[] = {"", "../x", "a/b", "a\\b", ".bashrc", "a\r\nb"};
    static const char *const types[] = {
        "", "pdf", "/pdf", "application/", "multipart/mixed", "Message/rfc822", "text/plain; charset=x", "a/b/c"};

    (void)unused;
    attach(1);
    taken();
    assert_int_equal(bench.campaign.attachments[0]->size_bytes, 5);
    assert_int_equal(bench.campaign.attachments[0]->content.len, 0);
    assert_int_equal(bench.content[0].len, 5);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        setup(NULL);
        attach(1);
        bench.attachment[0].filename = (char *)names[i];
        refused("attachment.name", "campaign.attachments[0]");
    }
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        setup(NULL);
        attach(1);
        bench.attachment[0].content_type = (char *)types[i];
        refused("attachment.type", "campaign.attachments[0]");
    }
    setup(NULL);
    attach(1);
    bench.sha256[31] ^= 1;
    refused("attachment.sha256", "campaign.attachments[0]");
    setup(NULL);
    attach(1);
    bench.attachment[0].size_bytes = 6;
    refused("attachment.size", "campaign.attachments[0]");
    setup(NULL);
    attach(2);
    bench.attachment[0].content_id = bench.attachment[1].content_id = (char *)"logo";
    refused("attachment.content_id", "campaign.attachments[1]");
}

static void sizes_do_not_wrap(void **unused)
{
    (void)unused;
    attach(2);
    for (size_t i = 0; i < 2; i++) {
        bench.attachment[i].content.len = 0;
        bench.attachment[i].size_bytes = UINT64_MAX / 2 + 3;
    }
    refused("attachment.size", "campaign.attachments");
    setup(NULL);
    attach(1);
    bench.attachment[0].content.len = 0;
    bench.attachment[0].size_bytes = 900000; /* in base64 more than the primary takes */
    refused("message.too_large", "campaign.route");
    assert_int_equal(bench.refusals.total, 1); /* the backup takes it */
}

/* ---- recipients ---- */

static const char *recipient(const char *address, const char *name, const char *const *fields, size_t count)
{
    static char *names[] = {(char *)"first_name"};
    static struct recipient_fault fault;
    const struct needed_fields needed = {names, 1};
    FieldsEntry entry[VALIDATE_FIELDS_MAX + 1], *list[VALIDATE_FIELDS_MAX + 1];
    Recipient rcpt = TANDEM__MAIL__V1__RECIPIENT__INIT;
    char checked[TD_ADDR_MAX];

    rcpt.address = (char *)address;
    rcpt.name = (char *)name;
    for (size_t i = 0; i < count; i++) {
        tandem__mail__v1__recipient__fields_entry__init(&entry[i]);
        entry[i].key = (char *)fields[2 * i];
        entry[i].value = (char *)fields[2 * i + 1];
        list[i] = &entry[i];
    }
    rcpt.n_fields = count;
    rcpt.fields = list;
    if (validate_recipient(&rcpt, &needed, checked, &fault))
        return checked[0] ? "" : "?";
    /* What a person reads never holds what was sent in. */
    assert_null(strstr(fault.sentence, "secret"));
    assert_null(strstr(fault.field, "secret"));
    return fault.code;
}

static void recipients(void **unused)
{
    static char big[VALIDATE_FIELD_VALUE_MAX + 2];
    static const char *const fine[] = {"first_name", "Åsa\nand\tco", "b", ""};
    static const char *const missing[] = {"First_name", "x"};
    static const char *const twice[] = {"first_name", "a", "first_name", "b"};
    static const char *const named[] = {"first_name", "a", "secret name", "b"};
    const char *large[] = {"first_name", big};

    (void)unused;
    memset(big, 'x', sizeof(big) - 1);
    assert_string_equal(recipient("a@example.org", "Åsa", fine, 2), "");
    assert_string_equal(recipient("a@example.org", "", fine, 2), "");
    assert_string_equal(recipient("secret", "", fine, 2), "address.syntax");
    assert_string_equal(recipient("secret@example.org\r\nDATA", "", fine, 2), "address.syntax");
    assert_string_equal(recipient("<secret@example.org>", "", fine, 2), "address.syntax");
    assert_string_equal(recipient("a@example.org", "secret\nBcc: x", fine, 2), "name.syntax");
    assert_string_equal(recipient("a@example.org", "", missing, 1), "field.missing");
    assert_string_equal(recipient("a@example.org", "", NULL, 0), "field.missing");
    assert_string_equal(recipient("a@example.org", "", twice, 2), "field.repeated");
    assert_string_equal(recipient("a@example.org", "", named, 2), "field.name");
    assert_string_equal(recipient("a@example.org", "", large, 1), "field.value");
}

static void too_many_fields(void **unused)
{
    const char *fields[2 * (VALIDATE_FIELDS_MAX + 1)];

    (void)unused;
    for (size_t i = 0; i < 2 * (VALIDATE_FIELDS_MAX + 1); i++)
        fields[i] = "x";
    assert_string_equal(recipient("a@example.org", "", fields, VALIDATE_FIELDS_MAX + 1), "field.too_many");
}

/* ---- envelope, batches, parts ---- */

static void envelopes(void **unused)
{
    static const struct {
        const char *id, *key, *submission_id, *tenant, *code;
    } row[] = {
        {"a-1", "a-1", "", "", NULL},
        {"a-1", "", "s", "t", NULL},
        {"A", "A", "", "", "campaign_id.syntax"},
        {"a b", "", "", "", "campaign_id.syntax"},
        {"a{b}", "", "", "", "campaign_id.syntax"},
        {"a-1", "a-2", "", "", "submission.key"},
        {"a-1", "a-1x", "", "", "submission.key"},
        {"a-1", "", "x\ny", "", "submission.id"},
        {"a-1", "", "", "12345678901234567890123456789012345678901234567890123456789012345", "submission.tenant"}};

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct refusals refusals = {.total = 0};
        Submission submission = TANDEM__MAIL__V1__SUBMISSION__INIT;
        Tandem__Mail__V1__Seal seal = TANDEM__MAIL__V1__SEAL__INIT;

        submission.campaign_id = (char *)row[i].id;
        submission.submission_id = (char *)row[i].submission_id;
        submission.tenant = (char *)row[i].tenant;
        submission.body_case = TANDEM__MAIL__V1__SUBMISSION__BODY_SEAL;
        submission.seal = &seal;
        validate_envelope(&submission, row[i].key, strlen(row[i].key), &refusals);
        assert_int_equal(refusals.total, row[i].code ? 1 : 0);
        if (row[i].code)
            assert_string_equal(refusals.item[0].code, row[i].code);
    }
}

static void batches_and_parts_keep_their_limits(void **unused)
{
    static const struct {
        uint32_t first;
        size_t count;
        const char *code;
    } batches[] = {{0, 1, NULL},
                   {0, 500, NULL},
                   {0, 0, "batch.size"},
                   {0, 501, "batch.size"},
                   {SPLIT_INDEX_MAX, 1, NULL},
                   {SPLIT_INDEX_MAX, 2, "batch.range"},
                   {UINT32_MAX, 500, "batch.range"}};
    static const struct {
        uint32_t part, count;
        size_t bytes;
        const char *code;
    } parts[] = {{0, 1, 1, NULL},
                 {0, 1, 900000, NULL},
                 {0, 1, 900001, "attachment.part"},
                 {0, 1, 0, "attachment.part"},
                 {0, 2, 900000, NULL},
                 {0, 2, 899999, "attachment.part"},
                 {1, 2, 1, NULL},
                 {2, 2, 1, "attachment.part"},
                 {0, 0, 1, "attachment.part"},
                 {0, 13, 900000, "attachment.part"},
                 {UINT32_MAX, UINT32_MAX, 1, "attachment.part"}};
    static uint8_t bytes[900001];
    struct td_settings settings = ingestion_settings();

    (void)unused;
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
        struct refusals refusals = {.total = 0};
        RecipientBatch batch = TANDEM__MAIL__V1__RECIPIENT_BATCH__INIT;

        batch.first_index = batches[i].first;
        batch.n_recipients = batches[i].count;
        validate_batch(&batch, &refusals);
        assert_int_equal(refusals.total, batches[i].code ? 1 : 0);
        if (batches[i].code)
            assert_string_equal(refusals.item[0].code, batches[i].code);
    }
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        struct refusals refusals = {.total = 0};
        AttachmentChunk chunk = TANDEM__MAIL__V1__ATTACHMENT_CHUNK__INIT;

        chunk.sha256 = (ProtobufCBinaryData){32, bytes};
        chunk.part = parts[i].part;
        chunk.part_count = parts[i].count;
        chunk.content = (ProtobufCBinaryData){parts[i].bytes, bytes};
        validate_chunk(&chunk, &settings, &refusals);
        assert_int_equal(refusals.total, parts[i].code ? 1 : 0);
    }
}

static void an_answer_names_twenty_and_counts_the_rest(void **unused)
{
    struct refusals refusals = {.total = 0};
    struct answer answer = {"c1", "s1", "recipient_batch", NOW, true, 500, 25};
    struct td_arena *arena = td_arena_new(1 << 20);
    ProtobufCMessage *message;
    const Outcome *outcome;
    size_t len;
    void *packed;

    (void)unused;
    for (int i = 0; i < 25; i++)
        refuse(&refusals, "address.syntax", "f", "number %d", i);
    packed = refusals_answer(&refusals, &answer, &len);
    assert_int_equal(td_pb_read(&tandem__mail__v1__outcome__descriptor, packed, len, arena, &message, NULL),
                     TD_OK);
    outcome = (const Outcome *)message;
    assert_string_equal(outcome->campaign_id, "c1");
    assert_true(outcome->answer->accepted);
    assert_int_equal(outcome->answer->first_index, 500);
    assert_int_equal(outcome->answer->n_refusals, 20);
    assert_string_equal(outcome->answer->refusals[18]->sentence, "number 18");
    assert_string_equal(outcome->answer->refusals[19]->sentence, "number 19 (and 5 more)");
    free(packed);
    td_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_fine_campaign_is_taken_and_its_fields_are_known, setup, teardown),
        cmocka_unit_test_setup_teardown(addresses_and_names, setup, teardown),
        cmocka_unit_test_setup_teardown(templates, setup, teardown),
        cmocka_unit_test_setup_teardown(headers_and_tags, NULL, teardown),
        cmocka_unit_test_setup_teardown(unsubscribe_addresses, NULL, teardown),
        cmocka_unit_test_setup_teardown(routes, setup, teardown),
        cmocka_unit_test_setup_teardown(countries_narrow_the_default_route, setup, teardown),
        cmocka_unit_test_setup_teardown(times_and_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(the_deadline_counts_from_not_before, setup, teardown),
        cmocka_unit_test_setup_teardown(attachments, setup, teardown),
        cmocka_unit_test_setup_teardown(sizes_do_not_wrap, setup, teardown),
        cmocka_unit_test(recipients),
        cmocka_unit_test(too_many_fields),
        cmocka_unit_test(envelopes),
        cmocka_unit_test(batches_and_parts_keep_their_limits),
        cmocka_unit_test(an_answer_names_twenty_and_counts_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
