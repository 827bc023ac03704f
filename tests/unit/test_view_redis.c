/* The view and its mark, in a real redis-server: what its absence stops, how it is restored, who may say that it
 * is whole. */
#include "redis_group.h"

#include "tandem/ledger.h"

/* `redis` is as the link of the one who rebuilds: it does not need the view. */

struct answer {
    bool done;
    enum td_code code;
    long long number;
};

static void on_answer(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct answer *answer = user;

    answer->done = true;
    answer->code = err ? err->code : TD_OK;
    answer->number = td_reply_int(td_reply_type(reply) == TD_REPLY_ARRAY ? td_reply_at(reply, 0) : reply);
}

static struct answer shared;

static struct answer answer_of(int rc)
{
    struct answer answer;

    assert_true(td_redis_answers(rc));
    assert_true(loop_until(&loop, &shared.done, 5000));
    answer = shared;
    shared.done = false;
    return answer;
}

static long long number_of(int rc)
{
    struct answer answer = answer_of(rc);

    assert_int_equal(answer.code, TD_OK);
    return answer.number;
}

static long long ask(const char *const *words)
{
    struct td_arg args[8];
    size_t n = 0;

    for (; words[n]; n++)
        args[n] = TD_ARG_STR(words[n]);
    return number_of(td_redis_command(redis, args, n, on_answer, &shared));
}
#define ASK(...) ask((const char *const[]){__VA_ARGS__, NULL})
#define TOTAL(campaign, field) ASK("HGET", "td:{c:" campaign "}:totals", field)

static const uint8_t hash_a[TD_HASH_BYTES] = {0xa1, 2, 3}, hash_b[TD_HASH_BYTES] = {0xb1};

static const struct td_fact facts[] = {
    {0, "", "", hash_a, 0},
    {1, "", "", hash_a, 0},
    {2, "", "", hash_a, 0},
    {3, "", "", hash_b, 0},
    {0, "accepted", "ses", hash_a, 0},
    {1, "accepted", "own", hash_a, 0},
    {2, "refused", "ses", NULL, 0},
    {8, "refused", "", NULL, 0},
    {9, "suppressed", "", hash_b, 0},
    {0, "soft", "ses", hash_a, 0},
    {0, "hard", "ses", hash_a, 0},
    {1, "block", "own", NULL, 0},
};
#define FACTS (sizeof(facts) / sizeof(facts[0]))

static long long restore(const char *campaign, int64_t sealed)
{
    return number_of(td_ledger_restore(redis, campaign, sealed, facts, FACTS, on_answer, &shared));
}

static void check_totals(void)
{
    assert_int_equal(TOTAL("x", "submitted"), 6); /* 0 to 3, and 8 and 9, of which only the outcomes are left */
    assert_int_equal(TOTAL("x", "accepted"), 2);
    assert_int_equal(TOTAL("x", "accepted:ses"), 1);
    assert_int_equal(TOTAL("x", "accepted:own"), 1);
    assert_int_equal(TOTAL("x", "refused"), 2);
    assert_int_equal(TOTAL("x", "refused:ses"), 1);
    assert_int_equal(TOTAL("x", "suppressed"), 1);
    assert_int_equal(TOTAL("x", "hard:ses"), 1);
    assert_int_equal(TOTAL("x", "soft:ses"), 0); /* hard took its place */
    assert_int_equal(TOTAL("x", "block:own"), 1);
    assert_int_equal(TOTAL("x", "count"), 12);
}

static void what_topics_say_is_restored_once_however_often_it_is_read(void **unused)
{
    (void)unused;
    ASK("FLUSHALL");
    assert_true(restore("x", 12) > 0);
    check_totals();
    assert_int_equal(restore("x", -1), 0);
    check_totals();
    assert_int_equal(ASK("GETBIT", "td:{c:x}:done", "0"), 1);
    assert_int_equal(ASK("GETBIT", "td:{c:x}:done", "3"), 0);
    assert_int_equal(ASK("GETBIT", "td:{c:x}:seen", "9"), 1);
    assert_int_equal(ASK("STRLEN", "td:{c:x}:addr"), 160);
    assert_in_range(ASK("TTL", "td:{c:x}:totals"), 2591990, 2592000);
}

static void on_begun(void *user, const struct td_begun *begun, size_t count, const struct td_err *err)
{
    struct answer *answer = user;

    answer->done = true;
    answer->code = err ? err->code : TD_OK;
    answer->number = count ? (long long)begun[0].verdict : -1;
}

static void what_the_living_write_meanwhile_counts_once(void **unused)
{
    const struct td_ended late = {0, "accepted", "ses", "packed", 6};
    const uint32_t admitted = 3, done = 1, open = 3;

    (void)unused;
    ASK("FLUSHALL");
    ASK("SET", "td:{view}", "5 test");
    number_of(td_ledger_end(redis, "x", &late, 1, on_answer, &shared));
    number_of(td_ledger_admit(redis, "x", &admitted, &hash_b, 1, on_answer, &shared));
    assert_true(restore("x", 12) > 0);
    check_totals();
    assert_int_equal(number_of(td_ledger_begin(redis, "x", &done, 1, on_begun, &shared)), TD_DONE);
    assert_int_equal(number_of(td_ledger_begin(redis, "x", &open, 1, on_begun, &shared)), TD_GO);
}

static void without_the_mark_the_ledger_answers_nothing(void **unused)
{
    const struct td_ended ended = {0, "accepted", "ses", "packed", 6};
    const uint32_t index = 0;

    (void)unused;
    ASK("FLUSHALL");
#define REFUSED(call)                                                                                             \
    do {                                                                                                          \
        assert_int_equal(answer_of(call).code, TD_EIO);                                                           \
        assert_true(redis_wait_up(&loop, redis, 3000)); /* it drops the link */                                   \
    } while (0)
    REFUSED(td_ledger_begin(redis, "x", &index, 1, on_begun, &shared));
    REFUSED(td_ledger_end(redis, "x", &ended, 1, on_answer, &shared));
    REFUSED(td_ledger_admit(redis, "x", &index, &hash_a, 1, on_answer, &shared));
    REFUSED(td_ledger_seal(redis, "x", 5, on_answer, &shared));
    REFUSED(td_ledger_doubt(redis, "x", 0, "ses", on_answer, &shared));
    REFUSED(td_ledger_note(redis, "x", 0, "o", 1, on_answer, &shared));
    REFUSED(td_ledger_bounce(redis, "x", 0, "ses", "hard", on_answer, &shared));
    REFUSED(td_lane_acquire(redis, "out-1", "me", 1000, on_answer, &shared));
#undef REFUSED
    assert_int_equal(ASK("DBSIZE"), 0);
}

static void on_checked(void *user, const uint8_t *suppressed, size_t count, const struct td_err *err)
{
    struct answer *answer = user;

    answer->done = true;
    answer->code = err ? err->code : TD_OK;
    answer->number = count ? suppressed[0] : -1;
}

static void an_emptied_suppression_list_is_not_believed(void **unused)
{
    (void)unused;
    ASK("FLUSHALL");
    number_of(td_suppression_add(redis, hash_a, on_answer, &shared));
    assert_int_equal(answer_of(td_suppression_check(redis, &hash_a, 1, on_checked, &shared)).code, TD_EIO);
    ASK("SET", "td:{view}", "5 test");
    assert_int_equal(number_of(td_suppression_check(redis, &hash_a, 1, on_checked, &shared)), 1);
    assert_int_equal(number_of(td_suppression_check(redis, &hash_b, 1, on_checked, &shared)), 0);
}

static void one_builds_and_only_under_its_lease_it_says_that_the_view_is_whole(void **unused)
{
    (void)unused;
    ASK("FLUSHALL");
    assert_int_equal(number_of(td_view_take(redis, "a", 5000, on_answer, &shared)), 3);
    assert_int_equal(number_of(td_view_take(redis, "a", 5000, on_answer, &shared)), 1);
    assert_int_equal(number_of(td_view_take(redis, "b", 5000, on_answer, &shared)), 0);
    ASK("FLUSHALL");
    assert_int_equal(number_of(td_view_publish(redis, "a", "1 a", on_answer, &shared)),
                     0); /* what was read is lost again */
    assert_int_equal(ASK("EXISTS", "td:{view}"), 0);
    assert_int_equal(number_of(td_view_take(redis, "b", 5000, on_answer, &shared)), 3);
    assert_int_equal(number_of(td_view_publish(redis, "b", "7 b", on_answer, &shared)), 1);
    assert_int_equal(number_of(td_view_take(redis, "a", 5000, on_answer, &shared)), 2);
    assert_int_equal(ASK("TTL", "td:{view}"), -1);
}

static bool is_down(const struct td_redis *client, unsigned ms)
{
    uint64_t end = td_mono_ms() + ms;

    while (td_redis_up(client) && td_mono_ms() < end)
        loop_for(&loop, 5);
    return !td_redis_up(client);
}

static void a_redis_without_its_view_is_away(void **unused)
{
    struct td_redis *needs;
    struct td_err err;

    (void)unused;
    ASK("FLUSHALL");
    assert_int_equal(td_redis_new(&loop, server.url, NULL, 2000, &needs, &err), TD_OK);
    td_redis_need_view(needs);
    assert_false(redis_wait_up(&loop, needs, 600));
    ASK("SET", "td:{view}", "1700000000000 x1");
    assert_true(redis_wait_up(&loop, needs, 1000));
    assert_int_equal(td_redis_view_ms(needs), 1700000000000);
    ASK("FLUSHALL"); /* cuts no connection, and nobody asks the ledger */
    assert_true(is_down(needs, 2000));
    ASK("SET", "td:{view}", "1700000000001 x2");
    assert_true(redis_wait_up(&loop, needs, 1000));
    ASK("SET", "td:{view}", "1700000000001 x3"); /* lost and built anew between two looks */
    assert_true(is_down(needs, 2000));
    assert_true(redis_wait_up(&loop, needs, 1000));
    td_redis_free(needs);
}

static void fifty_thousand_outcomes_are_restored_in_a_second(void **unused)
{
    static struct td_fact batch[TD_LEDGER_BATCH];
    uint64_t begun = td_mono_ms();

    (void)unused;
    ASK("FLUSHALL");
    for (uint32_t from = 0; from < 50000; from += TD_LEDGER_BATCH) {
        for (uint32_t i = 0; i < TD_LEDGER_BATCH; i++)
            batch[i] = (struct td_fact){from + i, "accepted", "ses", hash_a, td_wall_ms()};
        number_of(td_ledger_restore(redis, "large", -1, batch, TD_LEDGER_BATCH, on_answer, &shared));
    }
    begun = td_mono_ms() - begun;
    print_message("50,000 outcomes in %llu ms\n", (unsigned long long)begun);
    assert_int_equal(TOTAL("large", "submitted"), 50000);
    assert_int_equal(TOTAL("large", "accepted:ses"), 50000);
    assert_true(begun < 2500); /* 20,000 a second, sanitizers and neighbours included */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_topics_say_is_restored_once_however_often_it_is_read),
        cmocka_unit_test(what_the_living_write_meanwhile_counts_once),
        cmocka_unit_test(without_the_mark_the_ledger_answers_nothing),
        cmocka_unit_test(an_emptied_suppression_list_is_not_believed),
        cmocka_unit_test(one_builds_and_only_under_its_lease_it_says_that_the_view_is_whole),
        cmocka_unit_test(a_redis_without_its_view_is_away),
        cmocka_unit_test(fifty_thousand_outcomes_are_restored_in_a_second),
    };

    return cmocka_run_group_tests(tests, redis_group_start, redis_group_end);
}
