#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "render_fixture.h"
#include "tandem/pb.h"

static const char long_text[] = "Det här är en text som är mycket längre än sextiofyra tecken, så att den blir en "
                                "hänvisning i receptet och inte kopieras.\n";

static void a_recipe_is_small_and_points_at_the_static_bytes(void **unused)
{
    struct fixture f;
    char *text = malloc(400 * sizeof(long_text));
    size_t len = 0, packed_len;
    void *packed;

    (void)unused;
    assert_non_null(text);
    for (size_t i = 0; i < 400; i++, len += sizeof(long_text) - 1)
        memcpy(text + len, long_text, sizeof(long_text));
    memcpy(text, "{{first_name}}", 14);
    fixture_init(&f, "s", text, "");
    fixture_field(&f, "first_name", "Åsa");
    assert_int_equal(fixture_render(&f, NULL), TD_OK);
    packed = td_pb_write(&f.msg->base, &packed_len);
    assert_true(f.msg->message_bytes > 40000);
    assert_true(packed_len < 1024);
    free(packed);
    free(text);
    fixture_release(&f);
}

static void ranges_merge_when_adjacent_and_are_copied_when_short(void **unused)
{
    struct recipe r;
    char blob[300];

    (void)unused;
    memset(blob, 'b', sizeof(blob));
    assert_int_equal(recipe_init(&r), TD_OK);
    recipe_start(&r, blob, sizeof(blob));
    assert_int_equal(recipe_static(&r, 0, 65), TD_OK);   /* a reference */
    assert_int_equal(recipe_static(&r, 65, 10), TD_OK);  /* adjacent: merged although short */
    assert_int_equal(recipe_static(&r, 100, 64), TD_OK); /* short: copied */
    assert_int_equal(recipe_static(&r, 164, 65), TD_OK); /* behind own bytes: a new reference */
    assert_int_equal(r.count, 3);
    assert_int_equal(r.segments[0].len, 75);
    assert_false(r.segments[1].is_static);
    assert_int_equal(r.segments[1].len, 64);
    assert_int_equal(r.segments[2].offset, 164);
    assert_int_equal(recipe_static(&r, 299, 2), TD_EBUG);
    assert_int_equal(recipe_static(&r, 301, 0), TD_EBUG);
    assert_int_equal(recipe_static(&r, 1, UINT32_MAX), TD_EBUG);
    recipe_release(&r);
}

static void the_same_recipient_gives_the_same_bytes(void **unused)
{
    struct fixture a, b;

    (void)unused;
    fixture_init(&a, "Hej {{x}}", "{{x}}", "<p>{{x}}");
    fixture_init(&b, "Hej {{x}}", "{{x}}", "<p>{{x}}");
    fixture_field(&a, "x", "ö");
    fixture_field(&b, "x", "ö");
    assert_int_equal(fixture_render(&a, NULL), TD_OK);
    assert_int_equal(fixture_render(&b, NULL), TD_OK);
    assert_string_equal(td_buf_str(&a.mail), td_buf_str(&b.mail));
    assert_memory_equal(a.msg->message_sha256.data, b.msg->message_sha256.data, 32);
    assert_memory_equal(a.msg->static_sha256.data, b.msg->static_sha256.data, 32);
    fixture_release(&a);
    fixture_release(&b);
}

static void recipients_that_cannot_be_rendered_have_a_reason(void **unused)
{
    static char big[MIME_HEADER_MAX + 2];
    static const struct {
        const char *field, *value, *reason;
    } row[] = {
        {"other", "x", "field.missing"},
        {"v", "a\x01", "field.control_character"},
        {"v", "a\x7f", "field.control_character"},
        {"v", "a\xc2\x85", "field.control_character"},
        {"v", "x\r\nBcc: y@z.se", "field.control_character"},
        {"v", "x\ty", "field.control_character"},
        {"v", "\xe2\x80\xae", "field.control_character"},
        {"v", big, "header.too_large"},
        {"name", "a\nb", "field.control_character"},
    };

    (void)unused;
    memset(big, 'x', sizeof(big) - 1);
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct fixture f;

        fixture_init(&f, "Hej {{v}}", "t", "");
        if (strcmp(row[i].field, "name") == 0) {
            f.rcpt.name = (char *)(uintptr_t)row[i].value;
            fixture_field(&f, "v", "fine");
        } else {
            fixture_field(&f, row[i].field, row[i].value);
        }
        assert_int_equal(fixture_render(&f, NULL), TD_EINVAL);
        assert_string_equal(f.reason, row[i].reason);
        f.rcpt.n_fields = 0; /* and the next recipient is not harmed */
        f.rcpt.name = (char *)(uintptr_t)"";
        fixture_field(&f, "v", "fine");
        assert_int_equal(fixture_render(&f, NULL), TD_OK);
        fixture_release(&f);
    }
}

static void a_recipe_that_would_not_fit_on_the_topic_is_too_large(void **unused)
{
    struct fixture f;
    char *value = malloc(10001), *text = malloc(100 * 5 + 1);

    (void)unused;
    assert_non_null(value);
    assert_non_null(text);
    memset(value, 'x', 10000);
    value[10000] = '\0';
    for (size_t i = 0; i < 100; i++)
        memcpy(text + 5 * i, "{{v}}", 6);
    fixture_init(&f, "s", text, "");
    fixture_field(&f, "v", value);
    assert_int_equal(fixture_render(&f, NULL), TD_ETOOBIG);
    assert_string_equal(f.reason, "message.too_large");
    fixture_release(&f);
    free(value);
    free(text);
}

static void a_recipe_that_was_changed_does_not_assemble(void **unused)
{
    struct fixture f;
    struct td_buf out = TD_BUF_INIT(1 << 20);
    struct td_err err;
    const char *blob;
    size_t len;

    (void)unused;
    fixture_init(&f, "s", long_text, "");
    assert_int_equal(fixture_render(&f, &err), TD_OK);
    blob = mime_static(f.program, &len);
    assert_int_equal(recipe_assemble(blob, len - 1, f.msg, &out, &err), TD_EINVAL);
    f.msg->message_bytes++;
    assert_int_equal(recipe_assemble(blob, len, f.msg, &out, &err), TD_EINVAL);
    f.msg->message_bytes--;
    f.msg->message_sha256.data[0] ^= 1;
    assert_int_equal(recipe_assemble(blob, len, f.msg, &out, &err), TD_EINVAL);
    f.msg->message_sha256.data[0] ^= 1;
    assert_int_equal(recipe_assemble(blob, len, f.msg, &out, &err), TD_OK);
    td_buf_release(&out);
    fixture_release(&f);
}

static void policy_comes_from_the_campaign(void **unused)
{
    struct fixture f;
    char *route[] = {(char *)(uintptr_t)"ses", (char *)(uintptr_t)"backup"};

    (void)unused;
    fixture_init(&f, "s", "t", "");
    f.campaign.route = route;
    f.campaign.n_route = 2;
    f.campaign.deadline_unix_ms = 5;
    f.campaign.not_before_unix_ms = 4;
    f.campaign.bounce_ceiling_per_10000 = 500;
    f.campaign.max_mails_per_s = 3;
    f.campaign.on_unconfirmed = TANDEM__MAIL__V1__ON_UNCONFIRMED__ON_UNCONFIRMED_RESEND;
    assert_int_equal(fixture_render(&f, NULL), TD_OK);
    recipe_set_policy(f.msg, &f.campaign);
    assert_int_equal(f.msg->n_route, 2);
    assert_string_equal(f.msg->route[1], "backup");
    assert_int_equal(f.msg->deadline_unix_ms, 5);
    assert_int_equal(f.msg->not_before_unix_ms, 4);
    assert_int_equal(f.msg->bounce_ceiling_per_10000, 500);
    assert_int_equal(f.msg->max_mails_per_s, 3);
    assert_int_equal(f.msg->on_unconfirmed, TANDEM__MAIL__V1__ON_UNCONFIRMED__ON_UNCONFIRMED_RESEND);
    assert_string_equal(f.msg->message_id, "week-48.7@news.example.se");
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recipe_is_small_and_points_at_the_static_bytes),
        cmocka_unit_test(ranges_merge_when_adjacent_and_are_copied_when_short),
        cmocka_unit_test(the_same_recipient_gives_the_same_bytes),
        cmocka_unit_test(recipients_that_cannot_be_rendered_have_a_reason),
        cmocka_unit_test(a_recipe_that_would_not_fit_on_the_topic_is_too_large),
        cmocka_unit_test(a_recipe_that_was_changed_does_not_assemble),
        cmocka_unit_test(policy_comes_from_the_campaign),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
