/* Plumbing only: librdkafka's mock cluster in this process. What must hold on a real broker (rebalances, loss of a
 * member, a restart) is shown by tests/kafka. */
#include "kafka_bench.h"

#include "kafka_answers.h"
#include "tandem/dead_letter.h"

/* ---- out ---- */

static void every_record_is_reported_once(void **state)
{
    struct bench *b = *state;
    struct td_kafka_header header = {"content-type", "application/protobuf"};
    struct sent sent = {.want = 101};
    struct td_kafka_out *out;
    struct td_err err;

    make_topic(b, TD_T_OUTBOUND, LANES);
    assert_int_equal(td_kafka_out_new(&b->loop, &b->settings, NULL, &out, &err), TD_OK);
    send_numbers(out, TD_T_OUTBOUND, 0, 100, &sent);
    assert_int_equal(td_kafka_out_send(out, TD_T_OUTBOUND, -1, "k", 1, NULL, 0, &header, 1, on_sent, &sent, NULL),
                     TD_OK);
    assert_int_equal(td_kafka_out_pending(out), 101);
    assert_int_equal(sent.count, 0); /* later, on the loop */
    turn_until(b, &sent.done);
    assert_int_equal(sent.failed, 0);
    assert_int_equal(td_kafka_out_pending(out), 0);
    td_kafka_out_free(out, 1000);
    assert_int_equal(sent.count, 101);
}

static void free_answers_what_nobody_took(void **state)
{
    struct bench *b = *state;
    struct sent sent = {.want = 10};
    struct td_kafka_out *out;

    make_topic(b, TD_T_OUTBOUND, LANES);
    rd_kafka_mock_broker_set_down(b->cluster, 1);
    assert_int_equal(td_kafka_out_new(&b->loop, &b->settings, NULL, &out, NULL), TD_OK);
    send_numbers(out, TD_T_OUTBOUND, 0, 10, &sent);
    td_kafka_out_free(out, 100);
    assert_int_equal(sent.count, 10);
    assert_int_equal(sent.failed, 10);
    assert_int_equal(sent.code, TD_EIO);
}

static void too_large_a_record_is_refused_at_once(void **state)
{
    struct bench *b = *state;
    struct td_kafka_out *out;
    struct td_err err;
    size_t len = 2 << 20;
    char *value = calloc(1, len);

    make_topic(b, TD_T_OUTBOUND, LANES);
    assert_int_equal(td_kafka_out_new(&b->loop, &b->settings, NULL, &out, NULL), TD_OK);
    assert_int_equal(td_kafka_out_send(out, TD_T_OUTBOUND, 0, "k", 1, value, len, NULL, 0, NULL, NULL, &err),
                     TD_ETOOBIG);
    assert_int_equal(err.code, TD_ETOOBIG);
    assert_int_equal(td_kafka_out_pending(out), 0);
    td_kafka_out_free(out, 100);
    free(value);
}

/* The first `count` records of mail.dead-letters, read by librdkafka itself, as td_record has no headers. Destroy them,
 * then the consumer returned. */
static rd_kafka_t *read_dead_letters(struct bench *b, rd_kafka_message_t **ret, int count)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_t *rk;
    char text[200];

    rd_kafka_conf_set(conf, "bootstrap.servers", b->brokers, text, sizeof(text));
    rd_kafka_conf_set(conf, "group.id", "reader", text, sizeof(text));
    rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text));
    assert_non_null(rk);
    rd_kafka_poll_set_consumer(rk);
    rd_kafka_topic_partition_list_add(list, "t.mail.dead-letters", 0)->offset = 0;
    assert_int_equal(rd_kafka_assign(rk, list), RD_KAFKA_RESP_ERR_NO_ERROR);
    for (int i = 0; i < count; i++) {
        ret[i] = rd_kafka_consumer_poll(rk, PATIENCE_MS);
        assert_non_null(ret[i]);
        assert_int_equal(ret[i]->err, RD_KAFKA_RESP_ERR_NO_ERROR);
    }
    rd_kafka_topic_partition_list_destroy(list);
    return rk;
}

static const char *header_of(const rd_kafka_message_t *msg, const char *name)
{
    rd_kafka_headers_t *headers;
    const void *value = NULL;
    size_t len;

    assert_int_equal(rd_kafka_message_headers(msg, &headers), RD_KAFKA_RESP_ERR_NO_ERROR);
    assert_int_equal(rd_kafka_header_get_last(headers, name, &value, &len), RD_KAFKA_RESP_ERR_NO_ERROR);
    return value;
}

static void a_dead_letter_is_the_record_and_why_and_too_large_a_value_is_left_out(void **state)
{
    struct bench *b = *state;
    size_t large = 2 << 20;
    char *value = calloc(1, large);
    struct td_record rec = {{TD_T_OUTBOUND, 3}, 1234, 0, "k", 1, "abc", 3};
    struct sent sent = {.want = 2};
    rd_kafka_message_t *msg[2];
    struct td_kafka_out *out;
    rd_kafka_t *reader;

    make_topic(b, TD_T_DEAD_LETTERS, 1);
    assert_int_equal(td_kafka_out_new(&b->loop, &b->settings, NULL, &out, NULL), TD_OK);
    assert_int_equal(td_dead_letter(out, "test", &rec, "no such thing", on_sent, &sent, NULL), TD_OK);
    rec.value = value;
    rec.len = large;
    assert_int_equal(td_dead_letter(out, "test", &rec, "too much of it", on_sent, &sent, NULL), TD_OK);
    turn_until(b, &sent.done);
    assert_int_equal(sent.failed, 0);
    td_kafka_out_free(out, 1000);
    free(value);

    reader = read_dead_letters(b, msg, 2);
    assert_int_equal(msg[0]->key_len, 1);
    assert_int_equal(msg[0]->len, 3);
    assert_memory_equal(msg[0]->payload, "abc", 3);
    assert_string_equal(header_of(msg[0], "source-topic"), "mail.outbound");
    assert_string_equal(header_of(msg[0], "source-partition"), "3");
    assert_string_equal(header_of(msg[0], "source-offset"), "1234");
    assert_string_equal(header_of(msg[0], "service"), "test");
    assert_string_equal(header_of(msg[0], "reason"), "no such thing");
    assert_string_equal(header_of(msg[0], "sha256"), /* FIPS 180-2, of "abc" */
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(msg[1]->len, 0);
    assert_string_equal(header_of(msg[1], "reason"), "too much of it");
    assert_string_equal(header_of(msg[1], "sha256"), /* of 2 MiB of NUL */
                        "5647f05ec18958947d32874eeb788fa396a05d0bab7c1b71f112ceb7e9b31eee");
    rd_kafka_message_destroy(msg[0]);
    rd_kafka_message_destroy(msg[1]);
    rd_kafka_destroy(reader);
}

static void a_property_that_a_promise_rests_on_is_refused(void **state)
{
    static const char *const bad[] = {"acks=1", "enable.auto.commit=true", "no.such.property=1", "novalue", "=x"};
    struct bench *b = *state;
    struct td_kafka_out *out;
    struct td_err err;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char *item = (char *)(uintptr_t)bad[i];

        b->settings.kafka_properties = (struct td_strings){&item, 1};
        assert_int_equal(td_kafka_out_new(&b->loop, &b->settings, NULL, &out, &err), TD_ECONFIG);
    }
}

/* ---- in ---- */

struct member {
    struct bench *b;
    struct td_kafka_in *in;
    int records, want, assigned, revoked;
    int64_t next[LANES], first[LANES];
    bool complete, has_lanes, revoking, closed, manual_done, fatal;
};

static void on_record(void *user, const struct td_record *rec)
{
    struct member *m = user;

    assert_true(m->has_lanes);
    assert_true(rec->lane.partition >= 0 && rec->lane.partition < LANES);
    assert_int_equal(rec->offset, m->next[rec->lane.partition]);
    assert_non_null(rec->value);
    m->next[rec->lane.partition] = rec->offset + 1;
    m->records++;
    m->complete = m->records >= m->want;
}

static void on_assigned(void *user, const struct td_lane *lanes, const int64_t *offsets, size_t count)
{
    struct member *m = user;

    for (size_t i = 0; i < count; i++) {
        m->first[lanes[i].partition] = offsets[i];
        m->next[lanes[i].partition] = offsets[i];
    }
    m->assigned += (int)count;
    m->has_lanes = true;
}

static void on_revoked(void *user, const struct td_lane *lanes, size_t count, bool lost)
{
    struct member *m = user;

    assert_false(lost);
    m->revoked += (int)count;
    m->revoking = true;
    for (size_t i = 0; i < count; i++)
        td_kafka_in_commit(m->in, lanes[i], m->next[lanes[i].partition]);
    if (!m->manual_done)
        td_kafka_in_revoke_done(m->in);
}

static void on_fatal(void *user, const struct td_err *err)
{
    struct member *m = user;

    (void)err;
    m->fatal = true;
}

static void on_closed(void *user)
{
    struct member *m = user;

    m->closed = true;
}

static const struct td_kafka_in_ops ops = {on_record, on_assigned, on_revoked, on_fatal};

static void join(struct member *m, struct bench *b, int want)
{
    enum td_topic_id topic = TD_T_OUTBOUND;
    struct td_err err;

    *m = (struct member){.b = b, .want = want};
    assert_int_equal(
        td_kafka_in_new(&b->loop, &b->settings, b->metrics, "dispatch", &topic, 1, &ops, m, &m->in, &err), TD_OK);
}

static void leave(struct member *m)
{
    td_kafka_in_stop(m->in, on_closed, m);
    turn_until(m->b, &m->closed);
    td_kafka_in_free(m->in);
}

static void fill(struct bench *b, int first, int count)
{
    struct sent sent = {.want = count};
    struct td_kafka_out *out;

    assert_int_equal(td_kafka_out_new(&b->loop, &b->settings, NULL, &out, NULL), TD_OK);
    send_numbers(out, TD_T_OUTBOUND, first, count, &sent);
    turn_until(b, &sent.done);
    td_kafka_out_free(out, 1000);
    assert_int_equal(sent.failed, 0);
}

static void records_come_in_order_and_a_restart_goes_on_where_it_was(void **state)
{
    struct bench *b = *state;
    struct member m;

    make_topic(b, TD_T_OUTBOUND, LANES);
    fill(b, 0, 2000);
    join(&m, b, 2000);
    assert_false(td_kafka_in_assigned(m.in));
    turn_until(b, &m.complete);
    assert_true(td_kafka_in_assigned(m.in));
    for (int i = 0; i < LANES; i++)
        assert_int_equal(m.first[i], 0);
    leave(&m);
    assert_int_equal(m.assigned, LANES);
    assert_int_equal(m.revoked, LANES);
    assert_int_equal(m.records, 2000);

    fill(b, 2000, 400);
    join(&m, b, 400);
    turn_until(b, &m.complete);
    for (int i = 0; i < LANES; i++)
        assert_int_equal(m.first[i], 500);
    turn_for(b, 300);
    assert_int_equal(m.records, 400);
    leave(&m);
}

static void held_and_paused_lanes_are_silent_until_wanted(void **state)
{
    struct bench *b = *state;
    struct td_lane zero = {TD_T_OUTBOUND, 0};
    struct member m;

    make_topic(b, TD_T_OUTBOUND, LANES);
    fill(b, 0, 400);
    join(&m, b, 300);
    td_kafka_in_hold(m.in, true);
    turn_until(b, &m.has_lanes);
    td_kafka_in_pause(m.in, zero);
    turn_for(b, 500);
    assert_int_equal(m.records, 0);
    td_kafka_in_hold(m.in, false);
    turn_until(b, &m.complete);
    turn_for(b, 300);
    assert_int_equal(m.records, 300);
    assert_int_equal(m.next[0], 0);
    m.want = 400;
    m.complete = false;
    td_kafka_in_resume(m.in, zero);
    turn_until(b, &m.complete);
    leave(&m);
}

static void ask(struct bench *b, struct td_kafka_out *out, struct committed *answer)
{
    *answer = (struct committed){0};
    assert_int_equal(td_kafka_committed(out, "dispatch", TD_T_OUTBOUND, on_committed, answer, NULL), TD_OK);
    turn_until(b, &answer->done);
    assert_int_equal(answer->code, TD_OK);
    assert_int_equal(answer->count, LANES);
}

/* librdkafka #5040: asked on a producer this was the end of the process. */
static void a_coordinator_that_has_moved_is_an_answer(void **state)
{
    enum { OFFSET_FETCH = 9 };
    struct bench *b = *state;
    struct committed answer = {0};
    struct td_kafka_out *out;

    make_topic(b, TD_T_OUTBOUND, LANES);
    assert_int_equal(td_kafka_out_new(&b->loop, &b->settings, NULL, &out, NULL), TD_OK);
    rd_kafka_mock_push_request_errors(b->cluster, OFFSET_FETCH, 2, RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
                                      RD_KAFKA_RESP_ERR_NOT_COORDINATOR);
    assert_int_equal(td_kafka_committed(out, "dispatch", TD_T_OUTBOUND, on_committed, &answer, NULL), TD_OK);
    turn_until(b, &answer.done);
    assert_int_not_equal(answer.code, TD_OK);
    rd_kafka_mock_clear_request_errors(b->cluster, OFFSET_FETCH);
    ask(b, out, &answer);
    td_kafka_out_free(out, 1000);
}

static void turn_until_committed(struct bench *b, struct td_kafka_in *in)
{
    for (uint64_t end = td_mono_ms() + PATIENCE_MS; !td_kafka_in_committed(in) && td_mono_ms() < end;)
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_true(td_kafka_in_committed(in));
}

static void commits_are_seen_by_others_and_never_fall(void **state)
{
    struct bench *b = *state;
    struct td_kafka_out *out;
    struct committed answer;
    struct member m;

    b->metrics = td_metrics_new();
    make_topic(b, TD_T_OUTBOUND, LANES);
    fill(b, 0, 400);
    assert_int_equal(td_kafka_out_new(&b->loop, &b->settings, NULL, &out, NULL), TD_OK);
    ask(b, out, &answer);
    for (int i = 0; i < LANES; i++)
        assert_int_equal(answer.offsets[i], -1);
    join(&m, b, 400);
    turn_until(b, &m.complete);
    td_kafka_in_commit(m.in, (struct td_lane){TD_T_OUTBOUND, 1}, 50);
    td_kafka_in_commit(m.in, (struct td_lane){TD_T_OUTBOUND, 2}, 10);
    td_kafka_in_commit(m.in, (struct td_lane){TD_T_OUTBOUND, 2}, 60);
    td_kafka_in_commit(m.in, (struct td_lane){TD_T_OUTBOUND, 2}, 20);
    assert_false(td_kafka_in_committed(m.in));
    turn_until_committed(b, m.in);
    ask(b, out, &answer);
    assert_int_equal(answer.offsets[1], 50);
    assert_int_equal(answer.offsets[2], 60);
    assert_int_equal(answer.offsets[3], -1);
    assert_string_equal(answer.notes[2], "");
    /* A note goes without a new offset, stays when one follows, and the next member gets it. */
    td_kafka_in_commit_note(m.in, (struct td_lane){TD_T_OUTBOUND, 2}, 60, "done 7");
    td_kafka_in_commit_note(m.in, (struct td_lane){TD_T_OUTBOUND, 1}, 50, "x");
    td_kafka_in_commit_note(m.in, (struct td_lane){TD_T_OUTBOUND, 1}, 50, "");
    assert_false(td_kafka_in_committed(m.in));
    turn_until_committed(b, m.in);
    td_kafka_in_commit(m.in, (struct td_lane){TD_T_OUTBOUND, 2}, 61);
    turn_until_committed(b, m.in);
    ask(b, out, &answer);
    assert_int_equal(answer.offsets[2], 61);
    assert_string_equal(answer.notes[2], "done 7");
    assert_string_equal(answer.notes[1], "");
    turn_for(b, 5500); /* lag is looked at every 5 s */
    assert_int_equal(td_metric_value(td_metric(b->metrics, TD_GAUGE, "tandem_kafka_consumer_lag_records", "",
                                               "group=\"dispatch\",topic=\"mail.outbound\"")),
                     400 - 50 - 61);
    assert_string_equal(td_kafka_in_note(m.in, (struct td_lane){TD_T_OUTBOUND, 2}), "done 7");
    leave(&m);
    td_kafka_out_free(out, 1000);
    td_metrics_free(b->metrics);
}

static void a_commit_that_failed_goes_again(void **state)
{
    struct bench *b = *state;
    struct td_kafka_out *out;
    struct committed answer;
    struct member m;
    bool settled = false;

    make_topic(b, TD_T_OUTBOUND, LANES);
    fill(b, 0, 40);
    join(&m, b, 40);
    turn_until(b, &m.complete);
    rd_kafka_mock_push_request_errors(b->cluster, 8 /* OffsetCommit */, 3, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
                                      RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
                                      RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT);
    td_kafka_in_commit(m.in, (struct td_lane){TD_T_OUTBOUND, 0}, 7);
    for (uint64_t end = td_mono_ms() + PATIENCE_MS; !settled && td_mono_ms() < end;) {
        uv_run(&b->loop, UV_RUN_ONCE);
        settled = td_kafka_in_committed(m.in);
    }
    assert_int_equal(td_kafka_out_new(&b->loop, &b->settings, NULL, &out, NULL), TD_OK);
    ask(b, out, &answer);
    assert_int_equal(answer.offsets[0], 7);
    td_kafka_out_free(out, 1000);
    leave(&m);
}

static void alive_advances_by_itself_and_stands_still_without_the_broker(void **state)
{
    struct bench *b = *state;
    struct member m;
    uint64_t before, down;

    make_topic(b, TD_T_OUTBOUND, LANES);
    join(&m, b, 1);
    turn_until(b, &m.has_lanes);
    before = td_kafka_in_alive_ms(m.in);
    turn_for(b, 4000); /* nothing is committed: the heartbeat interval is 1.5 s */
    assert_true(td_kafka_in_alive_ms(m.in) >= before + 2000);
    rd_kafka_mock_broker_set_down(b->cluster, 1);
    down = td_mono_ms();
    turn_for(b, 2000); /* with a heartbeat before and up to 2 s of reconnecting after still less than the session's 6 s */
    assert_true(td_kafka_in_alive_ms(m.in) <= down);
    rd_kafka_mock_broker_set_up(b->cluster, 1);
    turn_for(b, 5000);
    assert_true(td_kafka_in_alive_ms(m.in) > down);
    leave(&m);
}

static void revoke_may_take_its_time(void **state)
{
    struct bench *b = *state;
    struct member m;
    uint64_t begun;

    make_topic(b, TD_T_OUTBOUND, LANES);
    fill(b, 0, 40);
    join(&m, b, 40);
    m.manual_done = true;
    turn_until(b, &m.complete);
    td_kafka_in_stop(m.in, on_closed, &m);
    turn_until(b, &m.revoking);
    begun = td_mono_ms();
    turn_for(b, 1000);
    assert_false(m.closed);
    td_kafka_in_revoke_done(m.in);
    turn_until(b, &m.closed);
    assert_true(td_mono_ms() - begun < 8000);
    td_kafka_in_free(m.in);
}

static void stop_before_any_lane_closes(void **state)
{
    struct bench *b = *state;
    struct member m;

    make_topic(b, TD_T_OUTBOUND, LANES);
    join(&m, b, 1);
    leave(&m);
    assert_int_equal(m.assigned + m.revoked, 0);
}

/* The group has given lanes, but their offsets cannot be had: the service has not heard of them yet. */
static void stop_while_offsets_are_asked_for_closes(void **state)
{
    struct bench *b = *state;
    struct member m;
    uint64_t begun;

    make_topic(b, TD_T_OUTBOUND, LANES);
    for (int i = 0; i < 200; i++)
        rd_kafka_mock_push_request_errors(b->cluster, 9 /* OffsetFetch */, 1,
                                          RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED);
    join(&m, b, 1);
    turn_for(b, 6000);
    begun = td_mono_ms();
    leave(&m);
    assert_int_equal(m.assigned + m.revoked, 0);
    assert_true(td_mono_ms() - begun < 8000);
}

static void free_without_stop_leaves_nothing_behind(void **state)
{
    struct bench *b = *state;
    struct member m;

    make_topic(b, TD_T_OUTBOUND, LANES);
    fill(b, 0, 40);
    join(&m, b, 40);
    turn_until(b, &m.complete);
    td_kafka_in_free(m.in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BENCH(every_record_is_reported_once),
        ON_BENCH(free_answers_what_nobody_took),
        ON_BENCH(too_large_a_record_is_refused_at_once),
        ON_BENCH(a_dead_letter_is_the_record_and_why_and_too_large_a_value_is_left_out),
        ON_BENCH(a_property_that_a_promise_rests_on_is_refused),
        ON_BENCH(records_come_in_order_and_a_restart_goes_on_where_it_was),
        ON_BENCH(held_and_paused_lanes_are_silent_until_wanted),
        ON_BENCH(a_coordinator_that_has_moved_is_an_answer),
        ON_BENCH(commits_are_seen_by_others_and_never_fall),
        ON_BENCH(a_commit_that_failed_goes_again),
        ON_BENCH(alive_advances_by_itself_and_stands_still_without_the_broker),
        ON_BENCH(revoke_may_take_its_time),
        ON_BENCH(stop_before_any_lane_closes),
        ON_BENCH(stop_while_offsets_are_asked_for_closes),
        ON_BENCH(free_without_stop_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
