/* Answers are read from the end of mail.outcomes as it was before the first submission went out, without a group.
 * The submission's id carries a number of this run, so that answers to an earlier one are not taken for ours. */
#include "courier.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tandem/arena.h"
#include "tandem/clock.h"
#include "tandem/id.h"
#include "tandem/kafka.h"
#include "tandem/kafka_follow.h"
#include "tandem/pb.h"
#include "text.h"

#define TICK_MS 200
#define FLUSH_MS 2000
#define UNANSWERED_MAX 64

struct courier {
    struct ctl *ctl;
    char campaign_id[TD_CAMPAIGN_ID_MAX + 1];
    char run[40]; /* prefix of submission ids */
    struct courier_ops ops;
    void *user;
    struct td_kafka_out *out;
    struct td_kafka_follow *follow;
    uv_timer_t tick;
    uint32_t next;
    uint32_t open[UNANSWERED_MAX]; /* numbers without an answer */
    size_t open_count;
    uint64_t last_ms; /* of the last answer, or the first send after none was open */
    bool troubled;
};

static void trouble(struct courier *courier, const struct td_err *err)
{
    if (courier->troubled)
        return;
    courier->troubled = true;
    courier->ops.on_trouble(courier->user, err);
}

static void on_tick(uv_timer_t *timer)
{
    struct courier *courier = timer->data;
    struct td_err err;

    if (courier->open_count == 0 || td_mono_ms() - courier->last_ms < courier->ctl->timeout_ms)
        return;
    td_fail(&err, TD_ETIMEOUT, "no answer from ingestion for %u s: is tandem-ingestion running, and ready?",
            courier->ctl->timeout_ms / 1000);
    trouble(courier, &err);
}

static void answer_read(struct courier *courier, const Tandem__Mail__V1__Outcome *outcome)
{
    const Tandem__Mail__V1__SubmissionAnswer *answer = outcome->answer;
    size_t run_len = strlen(courier->run);
    uint64_t number;

    if (strncmp(answer->submission_id, courier->run, run_len) != 0 ||
        !text_number(answer->submission_id + run_len, UINT32_MAX, &number))
        return;
    for (size_t i = 0; i < courier->open_count; i++) {
        if (courier->open[i] != number)
            continue;
        courier->open[i] = courier->open[--courier->open_count];
        courier->last_ms = td_mono_ms();
        courier->ops.on_answer(courier->user, (uint32_t)number, answer);
        return;
    }
}

static void on_record(void *user, const struct td_record *rec)
{
    struct courier *courier = user;
    ProtobufCMessage *message;
    struct td_arena *arena;

    /* Its key is the campaign's id alone; facts about its mails have another. */
    if (courier->troubled || rec->key_len != strlen(courier->campaign_id) ||
        memcmp(rec->key, courier->campaign_id, rec->key_len) != 0)
        return;
    arena = td_arena_new(td_pb_budget(rec->len));
    if (arena &&
        td_pb_read(&tandem__mail__v1__outcome__descriptor, rec->value, rec->len, arena, &message, NULL) == TD_OK) {
        const Tandem__Mail__V1__Outcome *outcome = (const Tandem__Mail__V1__Outcome *)message;

        if (outcome->kind_case == TANDEM__MAIL__V1__OUTCOME__KIND_ANSWER)
            answer_read(courier, outcome);
    }
    td_arena_free(arena);
}

int courier_new(struct ctl *ctl, const char *campaign_id, const struct courier_ops *ops, void *user,
                struct courier **ret, struct td_err *reterr)
{
    static const struct td_kafka_follow_ops follow_ops = {on_record, NULL};
    struct courier *courier = calloc(1, sizeof(*courier));
    int rc;

    if (!courier)
        return td_fail(reterr, TD_ENOMEM, "no memory to submit");
    courier->ctl = ctl;
    courier->ops = *ops;
    courier->user = user;
    snprintf(courier->campaign_id, sizeof(courier->campaign_id), "%s", campaign_id);
    snprintf(courier->run, sizeof(courier->run), "ctl-%d-%" PRIx64 "-", (int)getpid(), (uint64_t)td_wall_ms());
    uv_timer_init(&ctl->loop, &courier->tick);
    courier->tick.data = courier;
    rc = td_kafka_follow_new(&ctl->loop, &ctl->settings, TD_T_OUTCOMES, true, ctl->timeout_ms, &follow_ops,
                             courier, &courier->follow, reterr);
    if (rc == TD_OK)
        rc = td_kafka_out_new(&ctl->loop, &ctl->settings, NULL, &courier->out, reterr);
    if (rc < 0) {
        courier_free(courier);
        return rc;
    }
    uv_timer_start(&courier->tick, on_tick, TICK_MS, TICK_MS);
    *ret = courier;
    return TD_OK;
}

static void delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct courier *courier = user;

    (void)offset;
    if (err)
        trouble(courier, err);
}

int courier_send(struct courier *courier, Tandem__Mail__V1__Submission *submission, uint32_t *ret_number,
                 struct td_err *reterr)
{
    char id[64];
    size_t len;
    void *packed;
    int rc;

    if (courier->open_count == UNANSWERED_MAX)
        return td_fail(reterr, TD_EAGAIN, "too many submissions without an answer");
    snprintf(id, sizeof(id), "%s%" PRIu32, courier->run, courier->next);
    submission->campaign_id = courier->campaign_id;
    submission->submission_id = id;
    packed = td_pb_write(&submission->base, &len);
    if (!packed)
        return td_fail(reterr, TD_ENOMEM, "no memory for a submission");
    rc = td_kafka_out_send(courier->out, TD_T_SUBMISSIONS, -1, courier->campaign_id, strlen(courier->campaign_id),
                           packed, len, NULL, 0, delivered, courier, reterr);
    free(packed);
    if (rc < 0)
        return rc;
    if (courier->open_count == 0)
        courier->last_ms = td_mono_ms();
    courier->open[courier->open_count++] = courier->next;
    *ret_number = courier->next++;
    return TD_OK;
}

size_t courier_unanswered(const struct courier *courier)
{
    return courier->open_count;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void courier_free(struct courier *courier)
{
    if (!courier)
        return;
    courier->troubled = true; /* nothing is told from here on */
    td_kafka_follow_free(courier->follow);
    td_kafka_out_free(courier->out, FLUSH_MS);
    uv_timer_stop(&courier->tick);
    uv_close((uv_handle_t *)&courier->tick, on_closed);
}

void courier_print_refusals(const Tandem__Mail__V1__SubmissionAnswer *answer)
{
    for (size_t i = 0; i < answer->n_refusals; i++)
        fprintf(stderr, "  %s%s%s%s: %s\n", answer->refusals[i]->code, *answer->refusals[i]->field ? " (" : "",
                answer->refusals[i]->field, *answer->refusals[i]->field ? ")" : "", answer->refusals[i]->sentence);
}
