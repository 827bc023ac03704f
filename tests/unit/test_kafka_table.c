/* The index by itself, and the table on the mock cluster. Compaction needs a real broker: tests/kafka. */
#include "kafka_bench.h"
#include "kafka_answers.h"

#include "../../common/src/io/kafka_int.h"
#include "tandem/rng.h"

/* ---- the index ---- */

static struct td_table_value *value_of(size_t len)
{
    struct td_table_value *value = calloc(1, sizeof(*value) + len);

    value->len = len;
    value->refs = 1;
    return value;
}

static void index_behaves_like_an_array(void **unused)
{
    enum { KEYS = 500 };
    static int64_t there[KEYS]; /* offset + 1; 0: absent */
    struct kafka_index *index = kafka_index_new(4000);
    struct td_rng rng;
    size_t count = 0;

    (void)unused;
    td_rng_seed(&rng, 7);
    for (int64_t round = 1; round < 60000; round++) {
        size_t k = (size_t)td_rng_below(&rng, KEYS);
        uint64_t what = td_rng_below(&rng, 3);
        struct kafka_item *item;
        char key[16];
        size_t len = (size_t)snprintf(key, sizeof(key), "key-%zu", k);

        if (what == 0) {
            kafka_index_remove(index, key, len);
            count -= there[k] != 0;
            there[k] = 0;
        } else {
            struct td_table_value *value = value_of(20 + k % 50);

            item = kafka_index_put(index, key, len, (uint16_t)(k % 7), round);
            assert_non_null(item);
            assert_null(kafka_index_cached(index, item)); /* a new place has a new value */
            if (what == 1)
                kafka_index_cache(index, item, value);
            td_table_value_unref(value);
            count += there[k] == 0;
            there[k] = round + 1;
        }
        item = kafka_index_find(index, key, len);
        assert_int_equal(item != NULL, there[k] != 0);
        if (item)
            assert_int_equal(item->offset + 1, there[k]);
        assert_int_equal(kafka_index_count(index), count);
        assert_true(kafka_index_cached_bytes(index) <= 4000);
    }
    kafka_index_free(index);
}

static void the_value_used_longest_ago_leaves_first(void **unused)
{
    struct kafka_index *index = kafka_index_new(1000);
    struct td_table_value *value = value_of(250), *huge = value_of(2000);
    struct kafka_item *item[4];
    static const char *const key[] = {"a", "b", "c", "d"};

    (void)unused;
    for (size_t i = 0; i < 3; i++) {
        item[i] = kafka_index_put(index, key[i], 1, 0, (int64_t)i);
        kafka_index_cache(index, item[i], value);
    }
    assert_ptr_equal(kafka_index_cached(index, item[0]), value); /* used: b is the oldest now */
    item[3] = kafka_index_put(index, key[3], 1, 0, 3);
    kafka_index_cache(index, item[3], value);
    assert_non_null(kafka_index_cached(index, item[0]));
    assert_null(kafka_index_cached(index, item[1]));
    assert_non_null(kafka_index_cached(index, item[2]));
    kafka_index_cache(index, item[2], huge); /* over the limit by itself: not kept, and nobody else thrown out */
    assert_null(kafka_index_cached(index, item[2]));
    assert_non_null(kafka_index_cached(index, item[0]));
    kafka_index_free(index);
    assert_int_equal(value->refs, 1);
    td_table_value_unref(value);
    td_table_value_unref(huge);
}

static void a_million_keys_are_found(void **unused)
{
    struct kafka_index *index = kafka_index_new(0);

    (void)unused;
    for (uint64_t i = 0; i < 1000000; i++) {
        uint64_t key[2] = {i * 0x9e3779b97f4a7c15u, i};

        assert_non_null(kafka_index_put(index, key, sizeof(key), (uint16_t)(i % 3), (int64_t)i));
    }
    assert_int_equal(kafka_index_count(index), 1000000);
    for (uint64_t i = 0; i < 1000000; i += 997) {
        uint64_t key[2] = {i * 0x9e3779b97f4a7c15u, i};

        assert_int_equal(kafka_index_find(index, key, sizeof(key))->offset, i);
    }
    kafka_index_free(index);
}

static void a_key_over_the_limit_is_refused(void **unused)
{
    struct kafka_index *index = kafka_index_new(0);
    static const char key[KAFKA_KEY_MAX + 1];

    (void)unused;
    assert_non_null(kafka_index_put(index, key, KAFKA_KEY_MAX, 0, 1));
    assert_null(kafka_index_put(index, key, KAFKA_KEY_MAX + 1, 0, 2));
    assert_non_null(kafka_index_put(index, key, 0, 0, 3));
    assert_int_equal(kafka_index_count(index), 2);
    kafka_index_free(index);
}

/* ---- the table ---- */

static void put(struct bench *b, struct td_kafka_out *out, const char *key, const char *value)
{
    struct sent sent = {.want = 1};

    assert_int_equal(td_kafka_out_send(out, TD_T_CONTENTS, -1, key, strlen(key), value, value ? strlen(value) : 0,
                                       NULL, 0, on_sent, &sent, NULL),
                     TD_OK);
    turn_until(b, &sent.done);
    assert_int_equal(sent.failed, 0);
}

static void get(struct td_kafka_table *table, const char *key, unsigned timeout_ms, struct got *got)
{
    *got = (struct got){0};
    assert_int_equal(td_kafka_table_get(table, key, strlen(key), timeout_ms, on_got, got), TD_OK);
}

static int changes;

static void on_change(void *user, const void *key, size_t key_len, const void *value, size_t len)
{
    (void)user;
    (void)key;
    (void)key_len;
    (void)value;
    (void)len;
    changes++;
}

static void the_latest_value_wins_and_a_tombstone_removes(void **state)
{
    struct bench *b = *state;
    struct td_kafka_table *table;
    struct td_kafka_out *out;
    struct got one, two, three;

    changes = 0;
    make_topic(b, TD_T_CONTENTS, 3);
    assert_int_equal(td_kafka_out_new(&b->loop, &b->settings, NULL, &out, NULL), TD_OK);
    put(b, out, "one", "old");
    put(b, out, "two", "two");
    put(b, out, "one", "new");
    put(b, out, "three", "gone soon");
    put(b, out, "three", NULL);
    assert_int_equal(
        td_kafka_table_new(&b->loop, &b->settings, NULL, TD_T_CONTENTS, 1 << 20, on_change, NULL, &table, NULL),
        TD_OK);
    assert_false(td_kafka_table_loaded(table));
    get(table, "one", 0, &one); /* before anything is loaded: waits */
    get(table, "two", 20000, &two);
    get(table, "three", 0, &three);
    assert_int_equal(one.count + two.count + three.count, 0);
    turn_until(b, &one.done);
    turn_until(b, &two.done);
    turn_until(b, &three.done);
    assert_string_equal(one.data, "new");
    assert_string_equal(two.data, "two");
    assert_true(three.missing);
    assert_int_equal(three.code, TD_OK);
    assert_true(td_kafka_table_loaded(table));
    assert_int_equal(changes, 5);
    get(table, "one", 0, &one);
    assert_true(one.done); /* from the cache: at once */
    put(b, out, "two", NULL);
    while (changes < 6)
        turn_for(b, 20);
    get(table, "two", 0, &two);
    turn_until(b, &two.done);
    assert_true(two.missing);
    td_kafka_table_free(table);
    td_kafka_out_free(out, 1000);
}

static void an_evicted_value_is_read_again(void **state)
{
    enum { VALUES = 40 };
    static struct got got[VALUES];
    struct bench *b = *state;
    struct td_metrics *metrics = td_metrics_new();
    struct td_kafka_table *table;
    struct td_kafka_out *out;
    char key[16], value[64];

    make_topic(b, TD_T_CONTENTS, 3);
    assert_int_equal(td_kafka_out_new(&b->loop, &b->settings, NULL, &out, NULL), TD_OK);
    for (int i = 0; i < VALUES; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        snprintf(value, sizeof(value), "value number %d, not kept for long", i);
        put(b, out, key, value);
    }
    assert_int_equal(
        td_kafka_table_new(&b->loop, &b->settings, metrics, TD_T_CONTENTS, 500, NULL, NULL, &table, NULL), TD_OK);
    for (int i = 0; i < VALUES; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        get(table, key, 0, &got[i]);
    }
    for (int i = 0; i < VALUES; i++) {
        turn_until(b, &got[i].done);
        snprintf(value, sizeof(value), "value number %d, not kept for long", i);
        assert_string_equal(got[i].data, value);
        assert_int_equal(got[i].count, 1);
    }
    assert_true(td_metric_value(td_metric(metrics, TD_COUNTER, "tandem_kafka_table_reads_total", "",
                                          "topic=\"mail.contents\"")) >= VALUES - 10);
    td_kafka_table_free(table);
    td_kafka_out_free(out, 1000);
    td_metrics_free(metrics);
}

static void a_get_waits_for_a_key_and_a_topic_that_come_later(void **state)
{
    struct bench *b = *state;
    struct td_kafka_table *table;
    struct td_kafka_out *out;
    static struct got late, never, same;

    /* The mock makes every topic it is asked for, so "not there" has to be its answer. */
    make_topic(b, TD_T_CONTENTS, 3);
    rd_kafka_mock_topic_set_error(b->cluster, "t.mail.contents", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    assert_int_equal(
        td_kafka_table_new(&b->loop, &b->settings, NULL, TD_T_CONTENTS, 1 << 20, NULL, NULL, &table, NULL), TD_OK);
    get(table, "late", 25000, &late);
    get(table, "late", 25000, &same);
    get(table, "never", 300, &never);
    turn_until(b, &never.done);
    assert_true(never.missing);
    assert_int_equal(never.code, TD_ETIMEOUT); /* the topic is not there, so nobody knows */
    rd_kafka_mock_topic_set_error(b->cluster, "t.mail.contents", RD_KAFKA_RESP_ERR_NO_ERROR);
    assert_int_equal(td_kafka_out_new(&b->loop, &b->settings, NULL, &out, NULL), TD_OK);
    for (uint64_t end = td_mono_ms() + PATIENCE_MS; !td_kafka_table_loaded(table) && td_mono_ms() < end;)
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_false(late.done);
    get(table, "never", 300, &never);
    turn_until(b, &never.done);
    assert_true(never.missing);
    assert_int_equal(never.code, TD_OK); /* now it is known not to be there */
    put(b, out, "late", "but here");
    turn_until(b, &late.done);
    turn_until(b, &same.done);
    assert_string_equal(late.data, "but here");
    assert_string_equal(same.data, "but here");
    td_kafka_table_free(table);
    td_kafka_out_free(out, 1000);
}

static void free_answers_what_still_waits(void **state)
{
    struct bench *b = *state;
    struct td_kafka_table *table;
    struct got got;

    assert_int_equal(
        td_kafka_table_new(&b->loop, &b->settings, NULL, TD_T_CONTENTS, 1 << 20, NULL, NULL, &table, NULL), TD_OK);
    turn_for(b, 50); /* its question for the partitions is on its way */
    get(table, "k", 10000, &got);
    td_kafka_table_free(table);
    assert_int_equal(got.count, 1);
    assert_int_equal(got.code, TD_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(index_behaves_like_an_array),
        cmocka_unit_test(the_value_used_longest_ago_leaves_first),
        cmocka_unit_test(a_million_keys_are_found),
        cmocka_unit_test(a_key_over_the_limit_is_refused),
        ON_BENCH(the_latest_value_wins_and_a_tombstone_removes),
        ON_BENCH(an_evicted_value_is_read_again),
        ON_BENCH(a_get_waits_for_a_key_and_a_topic_that_come_later),
        ON_BENCH(free_answers_what_still_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
