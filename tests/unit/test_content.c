/* What changes a campaign's content and what does not; what is remembered of the topic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "campaigns.h"
#include "content.h"
#include "ingestion_settings.h"
#include "split.h"
#include "tandem/pb.h"

static void make(CampaignContent *content, Campaign *campaign, struct td_arena *arena, const char *subject)
{
    static char *lanes_route[2];
    struct td_settings settings = ingestion_settings();
    Submission submission = TANDEM__MAIL__V1__SUBMISSION__INIT;
    uint8_t sha256[32];

    tandem__mail__v1__campaign__init(campaign);
    memcpy(lanes_route, settings.route.item, sizeof(lanes_route));
    campaign->route = lanes_route;
    campaign->n_route = 2;
    campaign->subject_template = (char *)subject;
    submission.campaign_id = (char *)"c1";
    submission.tenant = (char *)"t";
    assert_int_equal(content_sha256(campaign, sha256), TD_OK);
    assert_int_equal(content_new(content, &submission, campaign, sha256, &settings, 1000, arena), TD_OK);
}

static void only_the_deadline_does_not_make_it_another_campaign(void **unused)
{
    Campaign campaign = TANDEM__MAIL__V1__CAMPAIGN__INIT;
    uint8_t first[32], second[32];

    (void)unused;
    campaign.subject_template = (char *)"a";
    assert_int_equal(content_sha256(&campaign, first), TD_OK);
    campaign.deadline_unix_ms = 99;
    assert_int_equal(content_sha256(&campaign, second), TD_OK);
    assert_memory_equal(first, second, 32);
    assert_int_equal(campaign.deadline_unix_ms, 99);
    campaign.subject_template = (char *)"b";
    assert_int_equal(content_sha256(&campaign, second), TD_OK);
    assert_memory_not_equal(first, second, 32);
}

static void a_seal_is_said_once(void **unused)
{
    struct td_arena *arena = td_arena_new(1 << 20);
    struct refusals refusals = {.total = 0};
    CampaignContent content;
    Campaign campaign;

    (void)unused;
    make(&content, &campaign, arena, "a");
    assert_int_equal(content.revision, 1);
    assert_true(content.n_lanes >= 1 && content.n_lanes <= 12);
    assert_false(content_seal(&content, 0, &refusals));
    assert_string_equal(refusals.item[0].code, "seal.range");
    assert_true(content_seal(&content, 17, &refusals));
    assert_int_equal(content.revision, 2);
    assert_false(content_seal(&content, 17, &refusals)); /* the same again */
    assert_int_equal(refusals.total, 1);
    assert_false(content_seal(&content, 18, &refusals));
    assert_string_equal(refusals.item[1].code, "seal.changed");
    assert_int_equal(content.recipient_count, 17);
    assert_int_equal(content.revision, 2);
    td_arena_free(arena);
}

static void commands_change_what_they_name_until_cancelled(void **unused)
{
    static char *other[] = {(char *)"backup"}, *nobody[] = {(char *)"nobody"};
    const struct {
        Tandem__Mail__V1__CommandKind kind;
        uint32_t rate;
        char **route;
        bool changes;
        const char *code;
    } row[] = {{1, 0, NULL, true, NULL},
               {1, 0, NULL, false, NULL},
               {2, 0, NULL, true, NULL},
               {4, 50, NULL, true, NULL},
               {4, 50, NULL, false, NULL},
               {5, 0, other, true, NULL},
               {5, 0, other, false, NULL},
               {5, 0, nobody, false, "route.unknown"},
               {5, 0, NULL, false, "route.empty"},
               {0, 0, NULL, false, "command.kind"},
               {77, 0, NULL, false, "command.kind"},
               {3, 0, NULL, true, NULL},
               {3, 0, NULL, false, NULL},
               {2, 0, NULL, false, "campaign.cancelled"},
               {1, 0, NULL, false, "campaign.cancelled"}};
    struct td_settings settings = ingestion_settings();
    struct td_arena *arena = td_arena_new(1 << 20);
    CampaignContent content;
    Campaign campaign;

    (void)unused;
    make(&content, &campaign, arena, "a");
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct refusals refusals = {.total = 0};
        Command command = TANDEM__MAIL__V1__COMMAND__INIT;
        uint32_t before = content.revision;

        command.kind = row[i].kind;
        command.max_mails_per_s = row[i].rate;
        command.route = row[i].route;
        command.n_route = row[i].route ? 1 : 0;
        assert_int_equal(content_command(&content, &command, &settings, &refusals), row[i].changes);
        assert_int_equal(content.revision, before + row[i].changes);
        assert_int_equal(refusals.total, row[i].code ? 1 : 0);
        if (row[i].code)
            assert_string_equal(refusals.item[0].code, row[i].code);
    }
    assert_int_equal(content.campaign->max_mails_per_s, 50);
    assert_string_equal(content.campaign->route[0], "backup");
    td_arena_free(arena);
}

static void note(struct campaigns *campaigns, const CampaignContent *content)
{
    size_t len;
    void *packed = td_pb_write(&content->base, &len);

    assert_int_equal(campaigns_note(campaigns, "c1", 2, packed, len), TD_OK);
    free(packed);
}

static void an_older_revision_changes_nothing(void **unused)
{
    struct td_arena *arena = td_arena_new(1 << 20);
    struct campaigns *campaigns = campaigns_new();
    struct refusals refusals = {.total = 0};
    CampaignContent content, sealed;
    Campaign campaign;
    struct known_campaign *known;

    (void)unused;
    make(&content, &campaign, arena, "a");
    sealed = content;
    assert_true(content_seal(&sealed, 3, &refusals));
    assert_null(campaigns_find(campaigns, "c1"));
    note(campaigns, &sealed);
    note(campaigns, &content);
    known = campaigns_find(campaigns, "c1");
    assert_non_null(known);
    assert_true(known->sealed);
    assert_int_equal(known->recipient_count, 3);
    assert_int_equal(known->revision, 2);
    assert_int_equal(known->lane_count, content.n_lanes);
    known->needed_known = true;
    make(&content, &campaign, arena, "another subject");
    content.revision = 3;
    note(campaigns, &content);
    assert_false(known->needed_known); /* its templates changed: look at them again */
    assert_int_equal(campaigns_note(campaigns, "c1", 2, NULL, 0), TD_OK);
    assert_null(campaigns_find(campaigns, "c1"));
    campaigns_free(campaigns);
    td_arena_free(arena);
}

static int note_part(struct campaigns *campaigns, uint8_t *sha256, uint32_t part, uint32_t count,
                     const char *bytes)
{
    ContentPart message = TANDEM__INTERNAL__V1__CONTENT_PART__INIT;

    message.sha256 = (ProtobufCBinaryData){32, sha256};
    message.part = part;
    message.part_count = count;
    message.total_bytes = 9;
    message.content = (ProtobufCBinaryData){strlen(bytes), (uint8_t *)bytes};
    return campaigns_note_part(campaigns, &message);
}

static void verified_parts_lose_trust_when_others_are_written(void **unused)
{
    struct campaigns *campaigns = campaigns_new();
    struct known_parts *parts;
    uint8_t sha256[32] = {1};
    char key[SPLIT_PART_KEY_MAX];

    (void)unused;
    assert_int_equal(note_part(campaigns, sha256, 1, 2, "b"), TD_OK);
    parts = campaigns_parts(campaigns, sha256);
    assert_int_equal(parts->seen, 1);
    assert_int_equal(note_part(campaigns, sha256, 1, 2, "b"), TD_OK);
    assert_int_equal(parts->seen, 1);
    assert_int_equal(note_part(campaigns, sha256, 0, 2, "a"), TD_OK);
    assert_int_equal(parts->seen, 2);
    parts->verified = true;
    assert_int_equal(note_part(campaigns, sha256, 0, 2, "a"), TD_OK);
    assert_true(parts->verified);
    assert_int_equal(note_part(campaigns, sha256, 0, 2, "x"), TD_OK);
    assert_false(parts->verified);
    assert_int_equal(note_part(campaigns, sha256, 2, 3, "c"), TD_OK); /* cut in another way: begin again */
    assert_int_equal(parts->seen, 1);
    assert_int_equal(note_part(campaigns, sha256, 3, 3, "c"), TD_ESYNTAX);
    assert_int_equal(note_part(campaigns, sha256, 0, 0, "c"), TD_ESYNTAX);
    assert_int_equal(note_part(campaigns, sha256, 0, UINT32_MAX, "c"),
                     TD_OK); /* passed over: nothing is allocated */
    split_part_key(key, sha256, 0);
    assert_int_equal(campaigns_note(campaigns, key, strlen(key), NULL, 0), TD_OK);
    assert_null(campaigns_parts(campaigns, sha256));
    campaigns_free(campaigns);
}

static void garbage_on_the_topic_is_told_and_passed_over(void **unused)
{
    struct campaigns *campaigns = campaigns_new();

    (void)unused;
    assert_int_equal(campaigns_note(campaigns, "c1", 2, "\xff\xff", 2), TD_ESYNTAX);
    assert_int_equal(campaigns_note(campaigns, "c1", 2, "", 0), TD_ESYNTAX);
    assert_int_equal(campaigns_note(campaigns, "part/zz/0", 9, "\xff", 1), TD_ESYNTAX);
    assert_int_equal(campaigns_note(campaigns, "part/zz/0", 9, NULL, 0), TD_ESYNTAX);
    campaigns_free(campaigns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_deadline_does_not_make_it_another_campaign),
        cmocka_unit_test(a_seal_is_said_once),
        cmocka_unit_test(commands_change_what_they_name_until_cancelled),
        cmocka_unit_test(an_older_revision_changes_nothing),
        cmocka_unit_test(verified_parts_lose_trust_when_others_are_written),
        cmocka_unit_test(garbage_on_the_topic_is_told_and_passed_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
