/* All of mail.outcomes, the relays' ledgers, one verdict. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "ctl.h"
#include "tandem/arena.h"
#include "tandem/clock.h"
#include "tandem/id.h"
#include "tandem/internal/v1/content.pb-c.h"
#include "tandem/kafka_follow.h"
#include "tandem/mail/v1/outcome.pb-c.h"
#include "tandem/pb.h"

#define LEDGERS_MAX 64

struct audit_input {
    struct ctl *ctl; /* first: see ctl_input */
    const char *id;
    const char *ledger[LEDGERS_MAX];
    size_t ledger_count;
};

struct reading {
    struct ctl *ctl;
    const char *id;
    struct audit *audit;
    uint32_t sealed; /* recipient_count of the campaign, 0: not sealed or not known */
    int code;
};

static const struct argp_option options[] = {
    {"ledger", 'l', "FILE", 0, "A relay's ledger, as relaysim writes it; may be given more than once", 0}, {0}};

static error_t parse_audit(int key, char *arg, struct argp_state *state)
{
    struct audit_input *input = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        ctl_input_init(state);
        return 0;
    case 'l':
        if (input->ledger_count == LEDGERS_MAX)
            argp_error(state, "at most %d ledgers", LEDGERS_MAX);
        input->ledger[input->ledger_count++] = arg;
        return 0;
    default:
        return ctl_one_campaign(key, arg, state, &input->id);
    }
}

static int read_ledger(struct audit *audit, const char *campaign_id, const char *file)
{
    FILE *in = fopen(file, "re");
    char *line = NULL;
    size_t size = 0, number = 0;
    ssize_t len;
    int code = CTL_OK;

    if (!in) {
        ctl_say("%s: %s", file, strerror(errno));
        return CTL_USAGE;
    }
    while (code == CTL_OK && (len = getline(&line, &size, in)) > 0) {
        int rc;

        number++;
        if (line[len - 1] != '\n')
            break; /* torn: its writer was killed before it answered, or writes it just now */
        rc = audit_ledger_line(audit, campaign_id, line, (size_t)len - 1);
        if (rc < 0) {
            ctl_say("%s, line %zu: %s", file, number,
                    rc == TD_ESYNTAX ? "not a line of a relay's ledger" : "no memory");
            code = rc == TD_ESYNTAX ? CTL_USAGE : CTL_FAILED;
        }
    }
    free(line);
    fclose(in);
    return code;
}

static void outcome_read(struct reading *reading, uint32_t index, const struct td_record *rec)
{
    struct td_arena *arena = td_arena_new(td_pb_budget(rec->len));
    ProtobufCMessage *message;

    if (arena &&
        td_pb_read(&tandem__mail__v1__outcome__descriptor, rec->value, rec->len, arena, &message, NULL) == TD_OK) {
        const Tandem__Mail__V1__Outcome *outcome = (const Tandem__Mail__V1__Outcome *)message;

        if (outcome->kind_case == TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT &&
            audit_outcome(reading->audit, index, (unsigned)outcome->recipient->result, outcome->recipient->relay) <
                0)
            ctl_say("an outcome of number %" PRIu32 " could not be counted", index);
    }
    td_arena_free(arena);
}

static void on_outcome(void *user, const struct td_record *rec)
{
    struct reading *reading = user;
    size_t id_len = strlen(reading->id);
    char campaign[TD_CAMPAIGN_ID_MAX + 1];
    uint32_t index;

    if (rec->key_len > id_len && memcmp(rec->key, reading->id, id_len) == 0 &&
        td_mail_key_parse(rec->key, rec->key_len, campaign, &index) && strcmp(campaign, reading->id) == 0)
        outcome_read(reading, index, rec);
}

static void on_content(void *user, const struct td_record *rec)
{
    struct reading *reading = user;
    struct td_arena *arena;
    ProtobufCMessage *message;

    if (rec->key_len != strlen(reading->id) || memcmp(rec->key, reading->id, rec->key_len) != 0 || !rec->value)
        return;
    arena = td_arena_new(td_pb_budget(rec->len));
    if (arena && td_pb_read(&tandem__internal__v1__campaign_content__descriptor, rec->value, rec->len, arena,
                            &message, NULL) == TD_OK) {
        const Tandem__Internal__V1__CampaignContent *content =
            (const Tandem__Internal__V1__CampaignContent *)message;

        reading->sealed = content->sealed ? content->recipient_count : 0;
    }
    td_arena_free(arena);
}

static void on_end(void *user)
{
    struct reading *reading = user;

    reading->code = CTL_OK;
    uv_stop(&reading->ctl->loop);
}

static void on_timeout(uv_timer_t *timer)
{
    struct reading *reading = timer->data;

    ctl_say("the topic could not be read to its end in time; --timeout gives it more");
    reading->code = CTL_UNREACHABLE;
    uv_stop(&reading->ctl->loop);
}

static int read_topic(struct reading *reading, enum td_topic_id topic,
                      void (*on_record)(void *user, const struct td_record *rec))
{
    const struct td_kafka_follow_ops ops = {on_record, on_end};
    struct td_kafka_follow *follow;
    uv_timer_t timer;
    struct td_err err;

    reading->code = CTL_FAILED;
    if (td_kafka_follow_new(&reading->ctl->loop, &reading->ctl->settings, topic, false, reading->ctl->timeout_ms,
                            &ops, reading, &follow, &err) < 0)
        return ctl_error(&err);
    uv_timer_init(&reading->ctl->loop, &timer);
    timer.data = reading;
    uv_timer_start(&timer, on_timeout, reading->ctl->timeout_ms, 0);
    ctl_run(reading->ctl);
    uv_close((uv_handle_t *)&timer, NULL);
    td_kafka_follow_free(follow);
    uv_run(&reading->ctl->loop, UV_RUN_DEFAULT); /* the timer is on this stack */
    return reading->code;
}

static const char *const result_names[AUDIT_RESULTS] = {"none",       "accepted", "refused",   "invalid",
                                                        "suppressed", "expired",  "cancelled", "unconfirmed"};

static void print_json(const struct audit_input *input, const struct audit_sums *sums)
{
    printf("{\"campaign_id\":\"%s\",\"submitted\":%" PRIu32, input->id, sums->submitted);
    for (size_t i = 1; i < AUDIT_RESULTS; i++)
        printf(",\"%s\":%" PRIu32, result_names[i], sums->results[i]);
    printf(",\"by_relay\":{");
    for (size_t i = 0, written = 0; i < sums->relay_count; i++)
        if (sums->by_relay[i])
            printf("%s\"%s\":%" PRIu32, written++ ? "," : "", sums->relay[i], sums->by_relay[i]);
    printf("},\"lost\":%" PRIu32 ",\"duplicates\":%" PRIu32 ",\"extra\":%" PRIu32 ",\"conflicts\":%" PRIu32
           ",\"ledgers\":%zu,\"well\":%s}\n",
           sums->lost, sums->duplicates, sums->extra, sums->conflicts, input->ledger_count,
           sums->well ? "true" : "false");
}

static void print_table(const struct audit_input *input, const struct audit_sums *sums)
{
    printf("campaign     %s\nsubmitted    %" PRIu32 "\n", input->id, sums->submitted);
    for (size_t i = 1; i < AUDIT_RESULTS; i++) {
        if (sums->results[i] || i == 1)
            printf("%-12s %" PRIu32 "\n", result_names[i], sums->results[i]);
        for (size_t k = 0; i == 1 && k < sums->relay_count; k++)
            if (sums->by_relay[k])
                printf("  by %-12s %" PRIu32 "\n", sums->relay[k], sums->by_relay[k]);
    }
    printf("lost         %" PRIu32 "%s\nconflicts    %" PRIu32 "\n", sums->lost,
           sums->results[0] ? "   (or on their way: they have no outcome)" : "", sums->conflicts);
    if (input->ledger_count > 0)
        printf("duplicates   %" PRIu32 "\nextra        %" PRIu32 "\n", sums->duplicates, sums->extra);
    printf("%s\n", sums->well ? "well: one outcome each, and the relays' ledgers agree" : "NOT well");
}

int ctl_campaign_audit(struct ctl *ctl, int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse_audit,
        "ID",
        "Compare what mail.outcomes says of every recipient with what relays wrote down. "
        "Exit code 0 only when nothing is lost, doubled, too many or contradictory.",
        ctl_children,
        NULL,
        NULL};
    struct audit_input input = {.ctl = ctl};
    struct reading reading = {.ctl = ctl};
    struct audit_sums sums;
    int code = ctl_parse(&argp, argc, argv, &input);

    if (code == CTL_OK && !ctl_campaign_id(input.id))
        code = CTL_USAGE;
    if (code == CTL_OK)
        code = ctl_load(ctl);
    if (code != CTL_OK)
        return code;
    reading.id = input.id;
    reading.audit = audit_new();
    if (!reading.audit)
        return CTL_FAILED;
    code = read_topic(&reading, TD_T_CONTENTS, on_content);
    if (code == CTL_OK)
        code = read_topic(&reading, TD_T_OUTCOMES, on_outcome);
    /* After the outcomes: a mail that is taken while we read is in a ledger before it has an outcome. */
    for (size_t i = 0; code == CTL_OK && i < input.ledger_count; i++)
        code = read_ledger(reading.audit, input.id, input.ledger[i]);
    if (code == CTL_OK) {
        if (!reading.sealed)
            ctl_note(ctl, "the campaign is not sealed: only the %" PRIu32 " numbers that were seen are judged",
                     audit_seen(reading.audit));
        audit_sum(reading.audit, reading.sealed ? reading.sealed : audit_seen(reading.audit),
                  input.ledger_count > 0, &sums);
        if (ctl->json)
            print_json(&input, &sums);
        else
            print_table(&input, &sums);
        code = sums.well && (reading.sealed || sums.submitted > 0) ? CTL_OK : CTL_FAILED;
    }
    audit_free(reading.audit);
    return code;
}
