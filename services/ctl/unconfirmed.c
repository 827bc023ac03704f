/* unconfirmed list, settle: mails whose outcome is UNCONFIRMED, and what was found out later; of a campaign that is named also
 * those that still wait for evidence (waiting.c). The former come from mail.outcomes, which is read twice: a report about such
 * a mail may come before its outcome, and to keep every bounce until the end would take memory without bound. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "relay_state.h"
#include "tandem/arena.h"
#include "tandem/clock.h"
#include "tandem/id.h"
#include "tandem/kafka_follow.h"
#include "tandem/mail/v1/outcome.pb-c.h"
#include "tandem/map.h"
#include "tandem/pb.h"
#include "text.h"
#include "waiting.h"

enum { INDEXES_MAX = 1000, MAILS_MAX = 1000000, FLUSH_MS = 10000 };

struct unconfirmed {
    char key[TD_MAIL_KEY_MAX], campaign_id[TD_CAMPAIGN_ID_MAX + 1];
    uint32_t index;
    int64_t at_ms;
    char relay[33], reason[48];
    char bounce_status[12]; /* of a report: the relay had it */
    bool bounced;
    Tandem__Mail__V1__RecipientResult settled; /* UNSPECIFIED: nobody has said */
};

struct reading {
    struct ctl *ctl;
    const char *campaign_id; /* NULL: all */
    bool facts;              /* the second time */
    struct td_map *map;      /* by key, into mail */
    struct unconfirmed **mail;
    size_t count, room;
    int code;
};

/* ---- reading ---- */

static int keep(struct reading *r, const struct td_record *rec, const char *campaign_id, uint32_t index,
                const Tandem__Mail__V1__Outcome *outcome)
{
    struct unconfirmed *mail;

    if (td_map_get(r->map, rec->key, rec->key_len))
        return TD_OK; /* the same record, seen twice */
    if (r->count == r->room) {
        size_t room = r->room ? r->room * 2 : 64;
        struct unconfirmed **more = r->count < MAILS_MAX ? realloc(r->mail, room * sizeof(*more)) : NULL;

        if (!more)
            return TD_ENOMEM;
        r->mail = more;
        r->room = room;
    }
    mail = calloc(1, sizeof(*mail));
    if (!mail || td_map_set(r->map, rec->key, rec->key_len, mail) < 0) {
        free(mail);
        return TD_ENOMEM;
    }
    snprintf(mail->key, sizeof(mail->key), "%.*s", (int)rec->key_len, (const char *)rec->key);
    snprintf(mail->campaign_id, sizeof(mail->campaign_id), "%s", campaign_id);
    snprintf(mail->relay, sizeof(mail->relay), "%s", outcome->recipient->relay);
    snprintf(mail->reason, sizeof(mail->reason), "%s", outcome->recipient->reason);
    mail->index = index;
    mail->at_ms = outcome->at_unix_ms;
    r->mail[r->count++] = mail;
    return TD_OK;
}

static void note(struct unconfirmed *mail, const Tandem__Mail__V1__Outcome *outcome)
{
    if (!mail)
        return;
    if (outcome->kind_case == TANDEM__MAIL__V1__OUTCOME__KIND_BOUNCE) {
        mail->bounced = true;
        snprintf(mail->bounce_status, sizeof(mail->bounce_status), "%s", outcome->bounce->enhanced_status);
    } else if (outcome->kind_case == TANDEM__MAIL__V1__OUTCOME__KIND_SETTLEMENT) {
        mail->settled = outcome->settlement->result; /* the last one said counts */
    }
}

static void on_record(void *user, const struct td_record *rec)
{
    struct reading *r = user;
    char campaign_id[TD_CAMPAIGN_ID_MAX + 1];
    const Tandem__Mail__V1__Outcome *outcome;
    struct td_arena *arena;
    ProtobufCMessage *message;
    uint32_t index;

    if (!td_mail_key_parse(rec->key, rec->key_len, campaign_id, &index) ||
        (r->campaign_id && strcmp(campaign_id, r->campaign_id) != 0) ||
        (r->facts && !td_map_get(r->map, rec->key, rec->key_len)))
        return;
    arena = td_arena_new(td_pb_budget(rec->len));
    if (arena && td_pb_read(&tandem__mail__v1__outcome__descriptor, rec->value, rec->len, arena, &message, NULL) == TD_OK) {
        outcome = (const Tandem__Mail__V1__Outcome *)message;
        if (r->facts)
            note(td_map_get(r->map, rec->key, rec->key_len), outcome);
        else if (outcome->kind_case == TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT &&
                 outcome->recipient->result == TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_UNCONFIRMED &&
                 keep(r, rec, campaign_id, index, outcome) < 0) {
            ctl_say("more than %d, or no memory: name one campaign", MAILS_MAX);
            r->code = CTL_FAILED;
            uv_stop(&r->ctl->loop);
        }
    }
    td_arena_free(arena);
}

static void on_end(void *user)
{
    struct reading *r = user;

    r->code = CTL_OK;
    uv_stop(&r->ctl->loop);
}

static void on_timeout(uv_timer_t *timer)
{
    struct reading *r = timer->data;

    ctl_say("the topic could not be read to its end in time; --timeout gives it more");
    r->code = CTL_UNREACHABLE;
    uv_stop(&r->ctl->loop);
}

static int read_topic(struct reading *r)
{
    static const struct td_kafka_follow_ops ops = {on_record, on_end};
    struct td_kafka_follow *follow;
    uv_timer_t timer;
    struct td_err err;

    r->code = CTL_FAILED;
    if (td_kafka_follow_new(&r->ctl->loop, &r->ctl->settings, TD_T_OUTCOMES, false, r->ctl->timeout_ms, &ops, r, &follow, &err) < 0)
        return ctl_error(&err);
    uv_timer_init(&r->ctl->loop, &timer);
    timer.data = r;
    uv_timer_start(&timer, on_timeout, r->ctl->timeout_ms, 0);
    ctl_run(r->ctl);
    uv_close((uv_handle_t *)&timer, NULL);
    td_kafka_follow_free(follow);
    uv_run(&r->ctl->loop, UV_RUN_DEFAULT); /* the timer is on this stack */
    return r->code;
}

static int read_all(struct reading *r)
{
    int code;

    r->map = td_map_new();
    if (!r->map)
        return CTL_FAILED;
    code = read_topic(r);
    if (code != CTL_OK || r->count == 0)
        return code;
    r->facts = true;
    return read_topic(r);
}

static void reading_release(struct reading *r)
{
    for (size_t i = 0; i < r->count; i++)
        free(r->mail[i]);
    free(r->mail);
    td_map_free(r->map);
}

/* ---- list ---- */

static const char *evidence(const struct unconfirmed *mail)
{
    if (mail->settled == TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_ACCEPTED)
        return "accepted, says an operator";
    if (mail->settled == TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_REFUSED)
        return "refused, says an operator";
    return mail->bounced ? "the relay had it: it bounced" : "none";
}

static int by_name(const void *a, const void *b)
{
    const struct unconfirmed *const *x = a, *const *y = b;
    int order = strcmp((*x)->campaign_id, (*y)->campaign_id);

    return order ? order : ((*x)->index > (*y)->index) - ((*x)->index < (*y)->index);
}

static void print_mail(const struct ctl *ctl, const struct unconfirmed *mail)
{
    char at[32];

    relay_time_words(mail->at_ms, at);
    /* Ids, relays and codes are plain by their grammar: nothing to escape. */
    if (ctl->json)
        printf("{\"campaign_id\":\"%s\",\"index\":%" PRIu32 ",\"relay\":\"%s\",\"reason\":\"%s\",\"at_unix_ms\":%" PRId64
               ",\"evidence\":\"%s\",\"bounce_status\":\"%s\"}\n",
               mail->campaign_id, mail->index, mail->relay, mail->reason, mail->at_ms, evidence(mail), mail->bounce_status);
    else
        printf("%-36s %8" PRIu32 "  %-16s %-20s %-24s %s%s%s\n", mail->campaign_id, mail->index, *mail->relay ? mail->relay : "-", at,
               mail->reason, evidence(mail), *mail->bounce_status ? " " : "", mail->bounce_status);
}

static void print_waiting(const struct ctl *ctl, const char *campaign_id, const struct waiting_mail *mail)
{
    if (ctl->json)
        printf("{\"campaign_id\":\"%s\",\"index\":%" PRIu32 ",\"relay\":\"%s\",\"waiting\":true}\n", campaign_id,
               mail->index, mail->relay);
    else
        printf("%-36s %8" PRIu32 "  %-16s no outcome yet: waits for evidence\n", campaign_id, mail->index,
               *mail->relay ? mail->relay : "-");
}

enum { KEY_RELAY = 256 };

struct unconfirmed_input {
    struct ctl *ctl; /* first: see ctl_input */
    const char *campaign_id, *words[INDEXES_MAX + 1];
    size_t word_count, words_max;
    const char *relay; /* NULL: not named */
};

static error_t parse_arguments(int key, char *arg, struct argp_state *state)
{
    struct unconfirmed_input *input = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        ctl_input_init(state);
        return 0;
    case KEY_RELAY:
        input->relay = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (!input->campaign_id)
            input->campaign_id = arg;
        else if (input->word_count < input->words_max)
            input->words[input->word_count++] = arg;
        else
            argp_error(state, "too many arguments");
        return 0;
    case ARGP_KEY_END:
        if (input->words_max && input->word_count < 2)
            argp_error(state, "which campaign, which numbers, and accepted or refused?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int prepare(struct ctl *ctl, const struct argp *argp, int argc, char **argv, struct unconfirmed_input *input)
{
    int code = ctl_parse(argp, argc, argv, input);

    if (code == CTL_OK && input->campaign_id && !ctl_campaign_id(input->campaign_id))
        code = CTL_USAGE;
    return code == CTL_OK ? ctl_load(ctl) : code;
}

int ctl_unconfirmed_list(struct ctl *ctl, int argc, char **argv)
{
    static const struct argp argp = {NULL, parse_arguments, "[CAMPAIGN]",
                                     "Mails whose outcome is UNCONFIRMED, of one campaign or of all, and what was found out later: a "
                                     "bounce proves that the relay had it, or an operator has settled it. With CAMPAIGN also its mails "
                                     "that were begun, have no outcome and wait for evidence.",
                                     ctl_children, NULL, NULL};
    struct unconfirmed_input input = {.ctl = ctl};
    struct reading r = {.ctl = ctl};
    struct waiting waiting = {NULL, 0};
    int code = prepare(ctl, &argp, argc, argv, &input);

    if (code != CTL_OK)
        return code;
    r.campaign_id = input.campaign_id;
    if (input.campaign_id)
        code = waiting_read(ctl, input.campaign_id, &waiting);
    if (code == CTL_OK)
        code = read_all(&r);
    if (code == CTL_OK) {
        for (size_t i = 0; i < waiting.count; i++)
            print_waiting(ctl, input.campaign_id, &waiting.mail[i]);
        if (r.count)
            qsort(r.mail, r.count, sizeof(*r.mail), by_name);
        for (size_t i = 0; i < r.count; i++)
            print_mail(ctl, r.mail[i]);
        ctl_note(ctl, "%zu unconfirmed, %zu waiting for evidence", r.count, waiting.count);
    }
    free(waiting.mail);
    reading_release(&r);
    return code;
}

/* ---- settle ---- */

struct sending {
    struct ctl *ctl;
    size_t waiting;
    int code;
};

static void on_delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct sending *sending = user;

    (void)offset;
    if (err)
        sending->code = ctl_error(err);
    if (--sending->waiting == 0)
        uv_stop(&sending->ctl->loop);
}

static int send_one(struct td_kafka_out *out, struct sending *sending, const struct unconfirmed *mail,
                    Tandem__Mail__V1__RecipientResult result, struct td_err *reterr)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    Tandem__Mail__V1__Settlement settlement = TANDEM__MAIL__V1__SETTLEMENT__INIT;
    size_t len;
    void *packed;
    int rc;

    settlement.result = result;
    settlement.by = (char *)(uintptr_t) "operator";
    settlement.relay = (char *)(uintptr_t)mail->relay;
    outcome.campaign_id = (char *)(uintptr_t)mail->campaign_id;
    outcome.index = mail->index;
    outcome.at_unix_ms = td_wall_ms();
    outcome.service = (char *)(uintptr_t) "tandemctl";
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_SETTLEMENT;
    outcome.settlement = &settlement;
    packed = td_pb_write(&outcome.base, &len);
    if (!packed)
        return td_fail(reterr, TD_ENOMEM, "no memory for a record");
    rc = td_kafka_out_send(out, TD_T_OUTCOMES, -1, mail->key, strlen(mail->key), packed, len, NULL, 0, on_delivered, sending, reterr);
    free(packed);
    sending->waiting += rc == TD_OK;
    return rc;
}

static int send_all(struct ctl *ctl, struct unconfirmed *const *mails, size_t count, Tandem__Mail__V1__RecipientResult result)
{
    struct sending sending = {.ctl = ctl, .code = CTL_OK};
    struct td_kafka_out *out;
    struct td_err err;

    if (td_kafka_out_new(&ctl->loop, &ctl->settings, NULL, &out, &err) < 0)
        return ctl_error(&err);
    for (size_t i = 0; i < count && sending.code == CTL_OK; i++)
        if (send_one(out, &sending, mails[i], result, &err) < 0)
            sending.code = ctl_error(&err);
    if (sending.waiting)
        ctl_run(ctl);
    td_kafka_out_free(out, FLUSH_MS);
    uv_run(&ctl->loop, UV_RUN_DEFAULT);
    return sending.code;
}

/* Those that are to be settled: UNCONFIRMED ones get a later fact, those that wait their outcome. */
struct chosen {
    struct unconfirmed *unconfirmed[INDEXES_MAX];
    struct waiting_mail waiting[INDEXES_MAX];
    size_t unconfirmed_count, waiting_count;
};

/* What dispatch knew stands. */
static void settled_by(char *relay, size_t size, const char *named)
{
    if (!*relay && named)
        snprintf(relay, size, "%s", named);
}

/* Every number that was named, or none: a slip of the keyboard settles nothing. */
static int choose(const struct reading *r, const struct waiting *waiting, const struct unconfirmed_input *input,
                  struct chosen *chosen)
{
    for (size_t i = 0; i + 1 < input->word_count; i++) {
        const struct waiting_mail *waits;
        struct unconfirmed *mail;
        char key[TD_MAIL_KEY_MAX];
        uint64_t index;

        if (!text_number(input->words[i], UINT32_MAX, &index)) {
            ctl_say("%s is no number of a recipient", input->words[i]);
            return CTL_USAGE;
        }
        mail = td_map_get(r->map, key, td_mail_key(key, input->campaign_id, (uint32_t)index));
        waits = waiting_find(waiting, (uint32_t)index);
        if (mail) {
            chosen->unconfirmed[chosen->unconfirmed_count++] = mail;
            settled_by(mail->relay, sizeof(mail->relay), input->relay);
        } else if (waits) {
            chosen->waiting[chosen->waiting_count] = *waits;
            settled_by(chosen->waiting[chosen->waiting_count++].relay, sizeof(waits->relay), input->relay);
        } else {
            ctl_say("number %s of campaign %s is not UNCONFIRMED and does not wait; nothing was settled", input->words[i],
                    input->campaign_id);
            return CTL_FAILED;
        }
    }
    return CTL_OK;
}

static bool is_relay(const struct ctl *ctl, const char *name)
{
    for (size_t i = 0; i < ctl->settings.relay_count; i++)
        if (strcmp(ctl->settings.relays[i].name, name) == 0)
            return true;
    ctl_say("%s is no relay of these settings", name);
    return false;
}

int ctl_unconfirmed_settle(struct ctl *ctl, int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"relay", KEY_RELAY, "NAME", 0, "The relay that it was, of those of which dispatch does not know", 1},
        {NULL, 0, NULL, 0, NULL, 0}};
    static const struct argp argp = {options, parse_arguments, "CAMPAIGN NUMBER... accepted|refused",
                                     "Note on mail.outcomes what became of UNCONFIRMED mails, as a relay's own log or the recipient "
                                     "says. Their outcome and all sums stay as they are; mails that still wait for evidence get their "
                                     "outcome by this. To send one again, hand it in as a campaign of its own: only you know that it "
                                     "did not arrive.",
                                     ctl_children, NULL, NULL};
    struct unconfirmed_input input = {.ctl = ctl, .words_max = INDEXES_MAX + 1};
    struct chosen chosen = {.unconfirmed_count = 0};
    struct waiting waiting = {NULL, 0};
    struct reading r = {.ctl = ctl};
    const char *as;
    bool accepted;
    int code = prepare(ctl, &argp, argc, argv, &input);

    if (code != CTL_OK)
        return code;
    if (input.relay && !is_relay(ctl, input.relay))
        return CTL_USAGE;
    as = input.words[input.word_count - 1];
    accepted = strcmp(as, "accepted") == 0;
    if (!accepted && strcmp(as, "refused") != 0) {
        ctl_say("settled as accepted or as refused; not as %s", as);
        return CTL_USAGE;
    }
    r.campaign_id = input.campaign_id;
    code = waiting_read(ctl, input.campaign_id, &waiting);
    if (code == CTL_OK)
        code = read_all(&r);
    if (code == CTL_OK)
        code = choose(&r, &waiting, &input, &chosen);
    if (code == CTL_OK && chosen.waiting_count)
        code = waiting_end(ctl, input.campaign_id, chosen.waiting, chosen.waiting_count, accepted);
    if (code == CTL_OK && chosen.unconfirmed_count)
        code = send_all(ctl, chosen.unconfirmed, chosen.unconfirmed_count,
                        accepted ? TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_ACCEPTED
                                 : TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_REFUSED);
    if (code == CTL_OK)
        ctl_note(ctl, "%zu settled as %s", input.word_count - 1, as);
    free(waiting.mail);
    reading_release(&r);
    return code;
}
