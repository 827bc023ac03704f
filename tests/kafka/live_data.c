/* Topics, committed offsets, tables. */
#include "live.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/kafka_answers.h"
#include "tandem/clock.h"

/* ---- topics ---- */

struct reports {
    int created, exists, other;
    char last[100];
};

static void on_report(void *user, const char *topic, const char *what)
{
    struct reports *reports = user;

    (void)topic;
    if (strcmp(what, "created") == 0) {
        reports->created++;
    } else if (strcmp(what, "exists") == 0) {
        reports->exists++;
    } else {
        reports->other++;
        snprintf(reports->last, sizeof(reports->last), "%s", what);
    }
}

bool case_topics_apply_twice(struct live *live)
{
    struct td_settings more = live->settings;
    struct reports first = {0}, second = {0}, third = {0};
    struct td_err err;
    int lanes = 0;

    for (int i = 0; i < TD_T_COUNT; i++)
        lanes += td_topics[i].partitions == 0;
    CHECK(td_kafka_topics_apply(&live->settings, on_report, &first, &err) == TD_OK, "%s", err.text);
    CHECK(first.created == TD_T_COUNT, "%d created, %s", first.created, first.last);
    CHECK(td_kafka_topics_apply(&live->settings, on_report, &second, &err) == TD_OK, "%s", err.text);
    CHECK(second.exists == TD_T_COUNT, "%d exist, %d created", second.exists, second.created);
    more.kafka_lanes = 6;
    CHECK(td_kafka_topics_apply(&more, on_report, &third, &err) == TD_OK, "%s", err.text);
    CHECK(third.other == lanes && strcmp(third.last, "has 4 partitions, wants 6") == 0, "%d: %s", third.other,
          third.last);
    more.kafka_replication = 3; /* more than there are brokers */
    snprintf(live->prefix, sizeof(live->prefix), "none.");
    CHECK(td_kafka_topics_apply(&more, on_report, &third, &err) < 0, "three replicas on one broker");
    return true;
}

/* ---- committed offsets ---- */

static bool ask(struct live *live, struct td_kafka_out *out, struct committed *answer)
{
    struct td_err err;

    *answer = (struct committed){0};
    CHECK(td_kafka_committed(out, "dispatch", TD_T_OUTBOUND, on_committed, answer, &err) == TD_OK, "%s", err.text);
    CHECK(live_until(live, &answer->done), "no answer");
    CHECK(answer->code == TD_OK && answer->count == LANES, "%s, %zu lanes", td_code_name(answer->code),
          answer->count);
    return true;
}

static bool watch_commits(struct live *live, struct td_kafka_out *out, struct member *member, struct tally *tally)
{
    struct td_lane one = {TD_T_OUTBOUND, 1}, two = {TD_T_OUTBOUND, 2};
    uint64_t deadline = td_mono_ms() + PATIENCE_MS;
    struct committed answer;

    CHECK(ask(live, out, &answer), "ask");
    for (int i = 0; i < LANES; i++)
        CHECK(answer.offsets[i] == -1, "a new group has committed %" PRId64, answer.offsets[i]);
    CHECK(member_join(live, member, "a", tally), "join");
    member->commit_every = 0;
    CHECK(numbers_all(live, 0, 1000) && tally_until(live, tally, 1000), "records");
    td_kafka_in_commit(member->in, one, 100);
    td_kafka_in_commit(member->in, two, 50);
    td_kafka_in_commit(member->in, two, 200);
    td_kafka_in_commit(member->in, two, 7);
    while (!td_kafka_in_committed(member->in) && td_mono_ms() < deadline)
        live_for(live, 20);
    td_kafka_in_commit(member->in, two, 150);
    live_for(live, 500);
    CHECK(ask(live, out, &answer), "ask");
    CHECK(answer.offsets[1] == 100 && answer.offsets[2] == 200 && answer.offsets[3] == -1,
          "%" PRId64 " %" PRId64 " %" PRId64, answer.offsets[1], answer.offsets[2], answer.offsets[3]);
    return true;
}

bool case_commits_are_seen_and_never_fall(struct live *live)
{
    struct tally *tally = calloc(1, sizeof(*tally));
    struct member member = {.in = NULL};
    struct td_kafka_out *out = NULL;
    bool ok = live_topics(live) && td_kafka_out_new(&live->loop, &live->settings, NULL, &out, NULL) == TD_OK &&
              watch_commits(live, out, &member, tally);

    if (member.in)
        ok = member_leave(live, &member) && ok;
    td_kafka_out_free(out, 1000);
    free(tally);
    return ok;
}

/* ---- table ---- */

static void get(struct td_kafka_table *table, const char *key, unsigned timeout_ms, struct got *got)
{
    *got = (struct got){0};
    if (td_kafka_table_get(table, key, strlen(key), timeout_ms, on_got, got) < 0)
        got->code = TD_EBUG;
}

static void on_put(void *user, int64_t offset, const struct td_err *err)
{
    int *left = user;

    (void)offset;
    *left -= !err;
}

static bool put(struct live *live, struct td_kafka_out *out, const char *key, const char *value, size_t len,
                int *left)
{
    struct td_err err;

    ++*left;
    CHECK(td_kafka_out_send(out, TD_T_CONTENTS, -1, key, strlen(key), value, len, NULL, 0, on_put, left, &err) ==
              TD_OK,
          "%s", err.text);
    return true;
}

static bool settle(struct live *live, const int *left)
{
    uint64_t deadline = td_mono_ms() + PATIENCE_MS;

    while (*left > 0 && td_mono_ms() < deadline)
        live_for(live, 10);
    CHECK(*left == 0, "%d records not written", *left);
    return true;
}

/* Values of 20 kB, far more of them than the cache holds; the first bytes tell which it is. */
static bool fill_table(struct live *live, struct td_kafka_out *out, int values)
{
    static char value[20000];
    int left = 0;

    memset(value, 'x', sizeof(value));
    for (int i = 0; i < values; i++) {
        char key[16];

        snprintf(key, sizeof(key), "k%d", i);
        CHECK(put(live, out, key, "old", 3, &left), "put");
        memcpy(value, key, strlen(key) + 1);
        CHECK(put(live, out, key, value, sizeof(value), &left), "put");
    }
    CHECK(put(live, out, "gone", "soon", 4, &left) && put(live, out, "gone", NULL, 0, &left), "put");
    return settle(live, &left);
}

static bool read_table(struct live *live, struct td_kafka_table *table, int values)
{
    static struct got got[300];
    uint64_t began = td_mono_ms();

    for (int i = 0; i < values; i++) {
        char key[16];

        snprintf(key, sizeof(key), "k%d", i);
        get(table, key, 0, &got[i]);
    }
    for (int i = 0; i < values; i++) {
        char key[16];

        snprintf(key, sizeof(key), "k%d", i);
        CHECK(live_until(live, &got[i].done), "%s: no answer", key);
        CHECK(got[i].len == 20000 && strcmp(got[i].data, key) == 0, "%s: %zu bytes, %s, %s", key, got[i].len,
              got[i].data, td_code_name(got[i].code));
        CHECK(got[i].count == 1, "%s: answered %d times", key, got[i].count);
    }
    fprintf(stderr, "  %d values in %" PRIu64 " ms\n", values, td_mono_ms() - began);
    return true;
}

static bool use_table(struct live *live, struct td_kafka_table *table, struct td_kafka_out *out,
                      const struct td_metric *reads)
{
    static struct got early, never, late, gone;
    int left = 0;

    get(table, "k7", 50000, &early); /* the topic itself is not there yet */
    get(table, "never", 500, &never);
    CHECK(live_until(live, &never.done) && never.missing && never.code == TD_ETIMEOUT, "no topic: %s",
          td_code_name(never.code));
    CHECK(!early.done && !td_kafka_table_loaded(table), "loaded without a topic");
    CHECK(live_topics(live) && fill_table(live, out, 300), "fill");
    CHECK(live_until(live, &early.done) && strcmp(early.data, "k7") == 0, "early: %s", early.data);
    get(table, "gone", 0, &gone);
    CHECK(live_until(live, &gone.done) && gone.missing && gone.code == TD_OK, "tombstone: %s", gone.data);
    CHECK(td_kafka_table_loaded(table), "not loaded");
    CHECK(read_table(live, table, 300), "read");
    CHECK(td_metric_value(reads) >= 250, "only %.0f values were read again", td_metric_value(reads));
    get(table, "late", 20000, &late);
    live_for(live, 500);
    CHECK(!late.done, "late is early");
    CHECK(put(live, out, "late", "now", 3, &left) && settle(live, &left), "put");
    CHECK(live_until(live, &late.done) && strcmp(late.data, "now") == 0, "late: %s", late.data);
    return true;
}

bool case_table_follows_a_topic(struct live *live)
{
    struct td_metrics *metrics = td_metrics_new();
    struct td_kafka_table *table = NULL, *again = NULL;
    struct td_kafka_out *out = NULL;
    bool ok = td_kafka_out_new(&live->loop, &live->settings, NULL, &out, NULL) == TD_OK &&
              td_kafka_table_new(&live->loop, &live->settings, metrics, TD_T_CONTENTS, 200000, NULL, NULL, &table,
                                 NULL) == TD_OK;

    ok = ok && use_table(live, table, out,
                         td_metric(metrics, TD_COUNTER, "tandem_kafka_table_reads_total", "",
                                   "topic=\"mail.contents\""));
    /* A second one finds all of it. */
    ok = ok && td_kafka_table_new(&live->loop, &live->settings, NULL, TD_T_CONTENTS, 64 << 20, NULL, NULL, &again,
                                  NULL) == TD_OK;
    ok = ok && read_table(live, again, 300);
    td_kafka_table_free(again);
    td_kafka_table_free(table);
    td_kafka_out_free(out, 1000);
    td_metrics_free(metrics);
    return ok;
}
