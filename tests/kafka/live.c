#include "live.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"

bool live_failed(struct live *live, const char *cond, const char *fmt, ...)
{
    char text[300];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (!live->why[0])
        snprintf(live->why, sizeof(live->why), "%s (%s)", text, cond);
    return false;
}

bool live_until(struct live *live, const bool *done)
{
    uint64_t end = td_mono_ms() + PATIENCE_MS;

    while (!*(const volatile bool *)done && td_mono_ms() < end)
        uv_run(&live->loop, UV_RUN_ONCE);
    return *done;
}

void live_for(struct live *live, uint64_t ms)
{
    uint64_t end = td_mono_ms() + ms;

    while (td_mono_ms() < end)
        uv_run(&live->loop, UV_RUN_ONCE);
}

struct td_settings live_settings(const struct live *live, const char *instance)
{
    return (struct td_settings){
        .instance = (char *)(uintptr_t)instance,
        .kafka_brokers = (char *)(uintptr_t)live->brokers,
        .kafka_topic_prefix = (char *)(uintptr_t)live->prefix,
        .kafka_lanes = LANES,
        .kafka_replication = 1,
        .kafka_session_timeout_ms = SESSION_MS,
    };
}

static void ignore_report(void *user, const char *topic, const char *what)
{
    (void)user;
    (void)topic;
    (void)what;
}

bool live_topics(struct live *live)
{
    struct td_err err;

    CHECK(td_kafka_topics_apply(&live->settings, ignore_report, NULL, &err) == TD_OK, "topics: %s", err.text);
    return true;
}

/* ---- the broker ---- */

struct outage {
    uv_process_t process;
    bool *back;
};

static void on_outage_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_outage_end(uv_process_t *process, int64_t status, int signal)
{
    struct outage *outage = process->data;

    *outage->back = status == 0 && signal == 0;
    uv_close((uv_handle_t *)process, on_outage_closed);
}

bool live_broker_outage(struct live *live, const char *how, bool *back)
{
    struct outage *outage = calloc(1, sizeof(*outage));
    char script[] = "\"$1\" \"$2\" --dir \"$3\" && sleep 5 && \"$1\" start --dir \"$3\" >/dev/null";
    char *args[] = {(char *)(uintptr_t) "sh",
                    (char *)(uintptr_t) "-c",
                    script,
                    (char *)(uintptr_t) "sh",
                    (char *)(uintptr_t)live->run,
                    (char *)(uintptr_t)how,
                    (char *)(uintptr_t)live->dir,
                    NULL};
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE}, {.flags = UV_IGNORE}, {.flags = UV_INHERIT_FD, .data.fd = 2}};
    uv_process_options_t options = {
        .file = "/bin/sh", .args = args, .exit_cb = on_outage_end, .stdio = stdio, .stdio_count = 3};

    *back = false;
    outage->back = back;
    outage->process.data = outage;
    CHECK(uv_spawn(&live->loop, &outage->process, &options) == 0, "cannot run %s", live->run);
    return true;
}

/* ---- numbers ---- */

static void on_delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct numbers *numbers = user;

    (void)offset;
    if (err) {
        numbers->failed++;
        fprintf(stderr, "record not written: %s %s\n", td_code_name(err->code), err->text);
    } else {
        numbers->acked++;
    }
    numbers->done = numbers->acked + numbers->failed == numbers->end && numbers->next == numbers->end;
}

bool numbers_begin(struct live *live, struct numbers *numbers, int first, int end)
{
    struct td_err err;

    /* acked counts from `first`, so that it ends at `end` */
    *numbers = (struct numbers){.live = live, .next = first, .end = end, .acked = first};
    CHECK(td_kafka_out_new(&live->loop, &live->settings, NULL, &numbers->out, &err) == TD_OK, "%s", err.text);
    return true;
}

bool numbers_pump(struct live *live, struct numbers *numbers)
{
    while (numbers->next < numbers->end) {
        char text[16];
        struct td_err err;
        size_t len = (size_t)snprintf(text, sizeof(text), "%d", numbers->next);
        int rc = td_kafka_out_send(numbers->out, TD_T_OUTBOUND, numbers->next % LANES, text, len, text, len, NULL,
                                   0, on_delivered, numbers, &err);

        if (rc == TD_EAGAIN)
            break; /* the queue is full: the loop first */
        CHECK(rc == TD_OK, "record %d: %s", numbers->next, err.text);
        numbers->next++;
    }
    return true;
}

void numbers_end(struct numbers *numbers)
{
    td_kafka_out_free(numbers->out, 10000);
}

bool numbers_all(struct live *live, int first, int end)
{
    struct numbers numbers;
    uint64_t deadline = td_mono_ms() + PATIENCE_MS;
    bool ok = numbers_begin(live, &numbers, first, end);

    while (ok && !numbers.done && td_mono_ms() < deadline) {
        ok = numbers_pump(live, &numbers);
        uv_run(&live->loop, UV_RUN_ONCE);
    }
    numbers_end(&numbers);
    CHECK(ok && numbers.acked == end && numbers.failed == 0, "%d of %d written, %d failed", numbers.acked, end,
          numbers.failed);
    return true;
}

/* ---- member ---- */

static void on_record(void *user, const struct td_record *rec)
{
    struct member *member = user;
    int lane = rec->lane.partition, number = 0;

    for (size_t i = 0; i < rec->len; i++)
        number = number * 10 + (((const char *)rec->value)[i] - '0');
    /* In order, without a hole, and only while the lane is ours. */
    if (!member->owns[lane] || rec->offset != member->next[lane] || number >= RECORDS_MAX ||
        number % LANES != lane)
        member->unowned++;
    if (number < RECORDS_MAX)
        member->tally->seen[number]++;
    member->tally->records++;
    member->next[lane] = rec->offset + 1;
    if (member->commit_every > 0 && member->next[lane] % member->commit_every == 0) {
        td_kafka_in_commit(member->in, rec->lane, member->next[lane]);
        member->tally->committed[lane] = member->next[lane];
    }
}

static void on_assigned(void *user, const struct td_lane *lanes, const int64_t *offsets, size_t count)
{
    struct member *member = user;

    for (size_t i = 0; i < count; i++) {
        member->owns[lanes[i].partition] = true;
        member->next[lanes[i].partition] = member->start[lanes[i].partition] = offsets[i];
    }
    member->lanes = (int)count;
    member->assignments++;
}

void member_commit_all(struct member *member)
{
    for (int i = 0; i < LANES; i++)
        if (member->owns[i]) {
            td_kafka_in_commit(member->in, (struct td_lane){TD_T_OUTBOUND, i}, member->next[i]);
            member->tally->committed[i] = member->next[i];
        }
}

static void on_revoked(void *user, const struct td_lane *lanes, size_t count, bool lost)
{
    struct member *member = user;

    (void)lanes;
    if ((int)count != member->lanes)
        member->unowned++; /* all lanes, always */
    member->revocations++;
    member->lost += lost;
    member->revoking = true;
    if (member->manual)
        return;
    member_commit_all(member);
    memset(member->owns, 0, sizeof(member->owns));
    member->lanes = 0;
    td_kafka_in_revoke_done(member->in);
}

static void on_fatal(void *user, const struct td_err *err)
{
    struct member *member = user;

    (void)err;
    member->fatal = true;
}

static void on_closed(void *user)
{
    struct member *member = user;

    member->closed = true;
}

bool member_join(struct live *live, struct member *member, const char *instance, struct tally *tally)
{
    static const struct td_kafka_in_ops ops = {on_record, on_assigned, on_revoked, on_fatal};
    enum td_topic_id topic = TD_T_OUTBOUND;
    struct td_err err;

    *member = (struct member){.live = live, .tally = tally, .commit_every = 100};
    member->settings = live_settings(live, instance);
    CHECK(td_kafka_in_new(&live->loop, &member->settings, NULL, "dispatch", &topic, 1, &ops, member, &member->in,
                          &err) == TD_OK,
          "%s", err.text);
    return true;
}

bool member_leave(struct live *live, struct member *member)
{
    bool closed;

    td_kafka_in_stop(member->in, on_closed, member);
    closed = live_until(live, &member->closed);
    td_kafka_in_free(member->in);
    CHECK(closed, "member did not close");
    CHECK(member->unowned == 0, "%d records or calls out of order", member->unowned);
    return true;
}

/* ---- tally ---- */

static int distinct(const struct tally *tally, int end)
{
    int count = 0;

    for (int i = 0; i < end; i++)
        count += *(const volatile uint8_t *)&tally->seen[i] != 0;
    return count;
}

bool tally_until(struct live *live, const struct tally *tally, int end)
{
    uint64_t deadline = td_mono_ms() + PATIENCE_MS;

    while (distinct(tally, end) < end && td_mono_ms() < deadline)
        live_for(live, 20);
    CHECK(distinct(tally, end) == end, "%d of %d records read", distinct(tally, end), end);
    return true;
}

bool tally_check(struct live *live, const struct tally *tally, int end, bool once)
{
    int lost = 0, repeated = 0;

    for (int i = 0; i < end; i++) {
        lost += tally->seen[i] == 0;
        repeated += tally->seen[i] > 1;
    }
    fprintf(stderr, "  %d records, %d lost, %d read again\n", end, lost, repeated);
    CHECK(lost == 0, "%d of %d records lost", lost, end);
    CHECK(!once || repeated == 0, "%d of %d records read twice", repeated, end);
    return true;
}
