#include "unit.h"

#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/internal/v1/outbound.pb-c.h"
#include "tandem/mail/v1/outcome.pb-c.h"
#include "tandem/mail/v1/submission.pb-c.h"
#include "tandem/pb.h"

#define SUBMISSION (&tandem__mail__v1__submission__descriptor)

static int read_into(struct td_arena *arena, const void *data, size_t len, Tandem__Mail__V1__Submission **ret,
                     struct td_err *reterr)
{
    ProtobufCMessage *msg = NULL;
    int rc = td_pb_read(SUBMISSION, data, len, arena, &msg, reterr);

    *ret = (Tandem__Mail__V1__Submission *)msg;
    return rc;
}

/* Read and forget: for what only has to be refused. */
static int try_read(const void *data, size_t len)
{
    struct td_arena *arena = td_arena_new(td_pb_budget(len));
    Tandem__Mail__V1__Submission *submission;
    int rc = read_into(arena, data, len, &submission, NULL);

    td_arena_free(arena);
    return rc;
}

/* A submission with two recipients, one with two fields; *ret_len bytes that the caller frees. */
static uint8_t *sample(size_t *ret_len)
{
    Tandem__Mail__V1__Recipient__FieldsEntry city = TANDEM__MAIL__V1__RECIPIENT__FIELDS_ENTRY__INIT, plan = city;
    Tandem__Mail__V1__Recipient__FieldsEntry *fields[] = {&city, &plan};
    Tandem__Mail__V1__Recipient a = TANDEM__MAIL__V1__RECIPIENT__INIT, b = a;
    Tandem__Mail__V1__Recipient *recipients[] = {&a, &b};
    Tandem__Mail__V1__RecipientBatch batch = TANDEM__MAIL__V1__RECIPIENT_BATCH__INIT;
    Tandem__Mail__V1__Submission submission = TANDEM__MAIL__V1__SUBMISSION__INIT;

    city.key = (char *)"city";
    city.value = (char *)"G\xc3\xb6teborg";
    plan.key = (char *)"plan";
    plan.value = (char *)"a \"b\" \\ \x01";
    a.address = (char *)"a@example.se";
    a.fields = fields;
    a.n_fields = 2;
    b.address = (char *)"b@example.se";
    batch.first_index = 500;
    batch.recipients = recipients;
    batch.n_recipients = 2;
    submission.campaign_id = (char *)"spring";
    submission.body_case = TANDEM__MAIL__V1__SUBMISSION__BODY_RECIPIENT_BATCH;
    submission.recipient_batch = &batch;
    return td_pb_write(&submission.base, ret_len);
}

static void check_sample(const Tandem__Mail__V1__Submission *submission)
{
    const Tandem__Mail__V1__RecipientBatch *batch = submission->recipient_batch;

    assert_string_equal(submission->campaign_id, "spring");
    assert_int_equal(submission->body_case, TANDEM__MAIL__V1__SUBMISSION__BODY_RECIPIENT_BATCH);
    assert_int_equal(batch->first_index, 500);
    assert_int_equal(batch->n_recipients, 2);
    assert_string_equal(batch->recipients[0]->fields[0]->value, "G\xc3\xb6teborg");
    assert_string_equal(batch->recipients[1]->address, "b@example.se");
}

static void what_was_written_reads_back(void **unused)
{
    Tandem__Mail__V1__Submission *submission;
    struct td_arena *arena = td_arena_new(100000);
    size_t len;
    uint8_t *bytes = sample(&len);

    (void)unused;
    assert_int_equal(read_into(arena, bytes, len, &submission, NULL), TD_OK);
    check_sample(submission);
    td_arena_free(arena);
    free(bytes);
}

static void schema_registry_frame_is_skipped(void **unused)
{
    static const struct {
        const char *bytes;
        size_t len;
        int rc;
    } frame[] = {
        {"\0\0\0\0\7\0", 6, TD_OK},                                     /* [0] in short */
        {"\0\0\0\0\7\2\0", 7, TD_OK},                                   /* [0] */
        {"\0\xff\xff\xff\xff\6\2\4\xac\2", 10, TD_OK},                  /* [1, 2, 150] */
        {"\0\0\0\0\7", 5, TD_ESYNTAX},                                  /* no index */
        {"\0\0\0\0\7\1", 6, TD_ESYNTAX},                                /* -1 indexes */
        {"\0\0\0\0\7\xfe\xff\xff\xff\x0f", 10, TD_ESYNTAX},             /* two milliard indexes */
        {"\0\0\0\0\7\x80\x80\x80\x80\x80\x80\x80\x01", 13, TD_ESYNTAX}, /* a count that never ends */
    };
    size_t len;
    uint8_t *bytes = sample(&len);

    (void)unused;
    for (size_t i = 0; i < COUNT(frame); i++) {
        Tandem__Mail__V1__Submission *submission;
        struct td_arena *arena = td_arena_new(100000);
        uint8_t *framed = malloc(frame[i].len + len);

        memcpy(framed, frame[i].bytes, frame[i].len);
        memcpy(framed + frame[i].len, bytes, len);
        assert_int_equal(read_into(arena, framed, frame[i].len + len, &submission, NULL), frame[i].rc);
        if (frame[i].rc == TD_OK)
            check_sample(submission);
        /* Nothing after the frame is an empty message; a cut frame is none. */
        assert_int_equal(try_read(framed, frame[i].len), frame[i].rc);
        assert_int_equal(try_read(framed, 4), TD_ESYNTAX);
        free(framed);
        td_arena_free(arena);
    }
    free(bytes);
}

static void text_with_nul_or_broken_utf8_is_refused_at_any_depth(void **unused)
{
    size_t len;
    uint8_t *bytes = sample(&len);
    static const char *const text[] = {"spring", "a@example.se", "b@example.se", "city", "plan"};

    (void)unused;
    for (size_t i = 0; i < COUNT(text); i++) {
        uint8_t *at = memmem(bytes, len, text[i], strlen(text[i]));
        uint8_t kept = at[2];

        at[2] = '\0'; /* protobuf-c alone would hand out the text cut here */
        assert_int_equal(try_read(bytes, len), TD_ESYNTAX);
        at[2] = 0xff;
        assert_int_equal(try_read(bytes, len), TD_ESYNTAX);
        at[2] = kept;
        assert_int_equal(try_read(bytes, len), TD_OK);
    }
    free(bytes);
}

static void malformed_bytes_are_refused(void **unused)
{
    static const struct {
        const char *bytes;
        size_t len;
    } row[] = {
        {"\x0a", 1}, /* a tag alone */
        {"\x0a\x05"
         "ab",
         4},                                 /* shorter than it says */
        {"\x0a\xff\xff\xff\xff\x0f", 6},     /* 4 GiB */
        {"\x0a\xff\xff\xff\xff\xff\x7f", 7}, /* a length that never ends */
        {"\x08\x01", 2},                     /* campaign_id as a number */
        {"\x0d\1\2\3\4", 5},                 /* campaign_id as 32 bits */
        {"\x6a\x02\x08", 3},                 /* seal cut off */
        {"\x6a\x01\x08", 3},                 /* seal with a tag alone */
        {"\x6a\x03\x0a\x01"
         "a",
         5},                                                              /* recipient_count as bytes */
        {"\x6a\x0c\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 14}, /* a number of 11 bytes */
        {"\x0b\x0c", 2},                                                  /* a group */
        {"\x0f", 1},                                                      /* wire type 7 */
        {"\x02\x00", 2},                                                  /* field 0 */
        {"\xff\xff\xff\xff\x7f", 5},                                      /* a field number over 29 bits */
        {"\xaa\x06\x7f", 3},                                              /* unknown, and shorter than it says */
        {"{\"campaign_id\":\"a\"}", 19},                                  /* JSON */
        {"<?xml version=\"1.0\"?>", 21},
    };

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        if (try_read(row[i].bytes, row[i].len) != TD_ESYNTAX)
            fail_msg("row %zu", i);
    }
}

static void an_empty_value_is_an_empty_message(void **unused)
{
    (void)unused;
    assert_int_equal(try_read("", 0), TD_OK);
    assert_int_equal(try_read(NULL, 0), TD_OK);
}

static void unknown_fields_are_dropped_everywhere(void **unused)
{
    /* campaign_id "a"; field 100 = 1; seal{recipient_count 3; field 100 "zz"} */
    static const char bytes[] = "\x0a\x01"
                                "a"
                                "\xa0\x06\x01"
                                "\x6a\x07\x08\x03\xa2\x06\x02zz";
    struct td_arena *arena = td_arena_new(100000);
    Tandem__Mail__V1__Submission *submission;
    size_t len;
    uint8_t *written;

    (void)unused;
    assert_int_equal(read_into(arena, bytes, sizeof(bytes) - 1, &submission, NULL), TD_OK);
    assert_int_equal(submission->base.n_unknown_fields, 0);
    assert_int_equal(submission->seal->base.n_unknown_fields, 0);
    assert_int_equal(submission->seal->recipient_count, 3);
    written = td_pb_write(&submission->base, &len);
    assert_int_equal(len, 7);
    assert_memory_equal(written,
                        "\x0a\x01"
                        "a"
                        "\x6a\x02\x08\x03",
                        7);
    free(written);
    td_arena_free(arena);
}

static void last_case_of_a_oneof_wins_but_no_message_comes_twice(void **unused)
{
    /* seal{7}, command{kind 1}, command{max_mails_per_s 9} */
    static const char bytes[] = "\x6a\x02\x08\x07"
                                "\x72\x02\x08\x01"
                                "\x72\x02\x10\x09";
    struct td_arena *arena = td_arena_new(100000);
    Tandem__Mail__V1__Submission *submission;

    (void)unused;
    assert_int_equal(read_into(arena, bytes, 8, &submission, NULL), TD_OK);
    assert_int_equal(submission->body_case, TANDEM__MAIL__V1__SUBMISSION__BODY_COMMAND);
    assert_int_equal(submission->command->kind, TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_PAUSE);
    assert_int_equal(try_read(bytes, 12), TD_ESYNTAX);
    td_arena_free(arena);
}

static void element_limit_counts_messages_repeated_and_packed_values_and_unknown_fields(void **unused)
{
    enum { EACH = 3, OVER = TD_PB_MAX_ELEMENTS + 10 };
    /* "a submission of n pieces": an empty Recipient; an unknown field */
    static const char *const piece[] = {"\x12\x00", "\xa0\x06\x01"};
    uint8_t *bytes = malloc(16 + (size_t)OVER * EACH);

    (void)unused;
    for (size_t p = 0; p < COUNT(piece); p++) {
        size_t each = p == 0 ? 2 : 3, body = each * OVER, at = 0;

        bytes[at++] = 0x62; /* recipient_batch */
        for (size_t rest = body; at < 4; rest >>= 7, at++)
            bytes[at] = (uint8_t)((rest & 0x7f) | (at < 3 ? 0x80 : 0));
        for (size_t i = 0; i < OVER; i++, at += each)
            memcpy(bytes + at, piece[p], each);
        assert_int_equal(try_read(bytes, at), TD_ETOOBIG);
    }
    free(bytes);
}

static void a_budget_too_small_is_said_and_breaks_nothing(void **unused)
{
    size_t len;
    uint8_t *bytes = sample(&len);
    bool read = false;

    (void)unused;
    for (size_t budget = 0; !read; budget += 16) { /* the n-th allocation fails, for n = 1, 2, ... */
        struct td_arena *arena = td_arena_new(budget);
        Tandem__Mail__V1__Submission *submission;
        int rc = read_into(arena, bytes, len, &submission, NULL);

        assert_true(rc == TD_OK || rc == TD_ETOOBIG);
        read = rc == TD_OK;
        assert_true(budget < 100000);
        td_arena_free(arena);
    }
    free(bytes);
}

static void stated_budget_suffices_for_a_full_batch(void **unused)
{
    enum { RECIPIENTS = 500 };
    Tandem__Mail__V1__Recipient one = TANDEM__MAIL__V1__RECIPIENT__INIT, *all[RECIPIENTS];
    Tandem__Mail__V1__RecipientBatch batch = TANDEM__MAIL__V1__RECIPIENT_BATCH__INIT;
    Tandem__Mail__V1__Submission submission = TANDEM__MAIL__V1__SUBMISSION__INIT;
    size_t len;
    uint8_t *bytes;

    (void)unused;
    one.address = (char *)"a@b.se"; /* the shorter, the more memory a byte */
    for (size_t i = 0; i < RECIPIENTS; i++)
        all[i] = &one;
    batch.recipients = all;
    batch.n_recipients = RECIPIENTS;
    submission.body_case = TANDEM__MAIL__V1__SUBMISSION__BODY_RECIPIENT_BATCH;
    submission.recipient_batch = &batch;
    bytes = td_pb_write(&submission.base, &len);
    assert_int_equal(try_read(bytes, len), TD_OK);
    free(bytes);
}

static void json_is_for_people_and_parsers(void **unused)
{
    Tandem__Mail__V1__Submission *submission;
    struct td_arena *arena = td_arena_new(100000);
    size_t len;
    uint8_t *bytes = sample(&len);
    char *json;

    (void)unused;
    assert_int_equal(read_into(arena, bytes, len, &submission, NULL), TD_OK);
    json = td_pb_to_json(&submission->base);
    assert_string_equal(
        json,
        "{\"campaign_id\":\"spring\",\"submission_id\":\"\",\"tenant\":\"\",\"recipient_batch\":{\"first_index\":"
        "500,\"recipients\":[{\"address\":\"a@example.se\",\"name\":\"\",\"fields\":{\"city\":\"G\xc3\xb6teborg\","
        "\"plan\":\"a \\\"b\\\" \\\\ \\u0001\"}},{\"address\":\"b@example.se\",\"name\":\"\",\"fields\":{}}]}}");
    free(json);
    td_arena_free(arena);
    free(bytes);
}

static void json_names_enums_and_shows_hashes_in_hex(void **unused)
{
    Tandem__Mail__V1__RecipientOutcome recipient = TANDEM__MAIL__V1__RECIPIENT_OUTCOME__INIT;
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    uint8_t hash[16] = {0xab, 1};
    char *json;

    (void)unused;
    recipient.result = TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_ACCEPTED;
    recipient.address_hash = (ProtobufCBinaryData){sizeof(hash), hash};
    outcome.at_unix_ms = -9007199254740993;
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT;
    outcome.recipient = &recipient;
    json = td_pb_to_json(&outcome.base);
    assert_non_null(strstr(json, "\"at_unix_ms\":-9007199254740993"));
    assert_non_null(strstr(json, "\"index\":0"));
    assert_non_null(strstr(json, "\"result\":\"RECIPIENT_RESULT_ACCEPTED\""));
    assert_non_null(strstr(json, "\"address_hash\":\"ab010000000000000000000000000000\""));
    assert_null(strstr(json, "bounce"));
    free(json);
    recipient.result = (Tandem__Mail__V1__RecipientResult)99; /* of a newer release */
    recipient.address_hash.len = 3;
    json = td_pb_to_json(&outcome.base);
    assert_non_null(strstr(json, "\"result\":99"));
    assert_non_null(strstr(json, "\"address_hash\":\"qwEA\""));
    free(json);
}

/* The .proto files are the list: a message added there must be found by name. */
static void every_message_of_the_protos_is_found_by_name(void **unused)
{
    glob_t found;
    unsigned messages = 0;

    (void)unused;
    assert_int_equal(glob(TD_TESTS_DIR "/../proto/tandem/*/v1/*.proto", 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        FILE *file = fopen(found.gl_pathv[i], "r");
        char line[1000], name[100];

        assert_non_null(file);
        while (fgets(line, sizeof(line), file)) {
            if (sscanf(line, "message %99[A-Za-z0-9]", name) != 1)
                continue;
            messages++;
            if (!td_pb_type(name) || strcmp(td_pb_type(name)->short_name, name) != 0)
                fail_msg("%s is not found", name);
        }
        fclose(file);
    }
    globfree(&found);
    assert_true(messages > 20);
    assert_null(td_pb_type("Nothing"));
    assert_null(td_pb_type(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_reads_back),
        cmocka_unit_test(schema_registry_frame_is_skipped),
        cmocka_unit_test(text_with_nul_or_broken_utf8_is_refused_at_any_depth),
        cmocka_unit_test(malformed_bytes_are_refused),
        cmocka_unit_test(an_empty_value_is_an_empty_message),
        cmocka_unit_test(unknown_fields_are_dropped_everywhere),
        cmocka_unit_test(last_case_of_a_oneof_wins_but_no_message_comes_twice),
        cmocka_unit_test(element_limit_counts_messages_repeated_and_packed_values_and_unknown_fields),
        cmocka_unit_test(a_budget_too_small_is_said_and_breaks_nothing),
        cmocka_unit_test(stated_budget_suffices_for_a_full_batch),
        cmocka_unit_test(json_is_for_people_and_parsers),
        cmocka_unit_test(json_names_enums_and_shows_hashes_in_hex),
        cmocka_unit_test(every_message_of_the_protos_is_found_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
