/* Against a real redis-server that this program starts on its own port and stops. */
#include "redis_server.h"

#include "tandem/clock.h"

static struct redis_server server;
static uv_loop_t loop;

struct answer {
    bool done;
    unsigned calls;
    enum td_code code;
    enum td_reply_type type;
    long long integer;
    char text[TD_ERR_TEXT_MAX];
    size_t count;
};

static void on_answer(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct answer *answer = user;

    answer->done = true;
    answer->calls++;
    answer->code = err ? err->code : TD_OK;
    answer->type = td_reply_type(reply);
    answer->integer = td_reply_int(reply);
    answer->count = td_reply_count(reply);
    snprintf(answer->text, sizeof(answer->text), "%s", err ? err->text : td_reply_str(reply, NULL));
}

static int send_words(struct td_redis *redis, struct answer *answer, const char *const *words)
{
    struct td_arg args[16];
    size_t n = 0;

    memset(answer, 0, sizeof(*answer));
    for (; words[n]; n++)
        args[n] = TD_ARG_STR(words[n]);
    return td_redis_command(redis, args, n, on_answer, answer);
}

#define ask(redis, answer, ...)                                                                                   \
    do {                                                                                                          \
        send_words(redis, answer, (const char *const[]){__VA_ARGS__, NULL});                                      \
        assert_true(loop_until(&loop, &(answer)->done, 2000));                                                    \
    } while (0)

static struct td_redis *connect_to(const char *url, unsigned timeout_ms)
{
    struct td_redis *redis = NULL;
    struct td_err err;

    if (td_redis_new(&loop, url, NULL, timeout_ms, &redis, &err) != TD_OK)
        fail_msg("%s", err.text);
    return redis;
}

static struct td_redis *connect_up(unsigned timeout_ms)
{
    struct td_redis *redis = connect_to(server.url, timeout_ms);

    assert_true(redis_wait_up(&loop, redis, 3000));
    return redis;
}

static void close_all(struct td_redis *redis)
{
    td_redis_free(redis);
    while (uv_run(&loop, UV_RUN_NOWAIT))
        usleep(500);
    assert_int_equal(uv_loop_alive(&loop), 0);
}

static void a_command_is_answered_with_its_type(void **unused)
{
    struct td_redis *redis = connect_up(500);
    struct answer answer;

    (void)unused;
    ask(redis, &answer, "SET", "k", "v");
    assert_int_equal(answer.type, TD_REPLY_STR);
    assert_string_equal(answer.text, "OK");
    ask(redis, &answer, "GET", "k");
    assert_string_equal(answer.text, "v");
    ask(redis, &answer, "GET", "absent");
    assert_int_equal(answer.type, TD_REPLY_NIL);
    ask(redis, &answer, "INCRBY", "n", "41");
    assert_int_equal(answer.type, TD_REPLY_INT);
    assert_int_equal(answer.integer, 41);
    ask(redis, &answer, "MGET", "k", "n", "absent");
    assert_int_equal(answer.count, 3);
    ask(redis, &answer, "LPUSH", "k", "x");
    assert_int_equal(answer.code, TD_EFATAL);
    assert_string_equal(answer.text, "redis: WRONGTYPE"); /* and not the arguments */
    close_all(redis);
}

struct series {
    unsigned next;
    bool done;
};

static void on_series(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct series *series = user;

    assert_null(err);
    assert_int_equal(td_reply_int(reply), series->next + 1); /* in the order sent */
    series->done = ++series->next == 5000;
}

static void five_thousand_pipelined_commands_are_answered_in_order(void **unused)
{
    struct td_redis *redis = connect_up(2000);
    struct td_arg incr[] = {TD_ARG_STR("INCR"), TD_ARG_STR("series")};
    struct series series = {0};

    (void)unused;
    for (unsigned i = 0; i < 5000; i++)
        assert_int_equal(td_redis_command(redis, incr, 2, on_series, &series), TD_OK);
    assert_int_equal(series.next, 0); /* never inside the call */
    assert_true(loop_until(&loop, &series.done, 5000));
    close_all(redis);
}

static void arguments_may_hold_any_byte(void **unused)
{
    struct td_redis *redis = connect_up(500);
    struct td_arg set[] = {TD_ARG_STR("SET"), TD_ARG_STR("bin"), {"a\0\r\nb", 5}};
    struct answer answer = {0};

    (void)unused;
    td_redis_command(redis, set, 3, on_answer, &answer);
    assert_true(loop_until(&loop, &answer.done, 2000));
    ask(redis, &answer, "STRLEN", "bin");
    assert_int_equal(answer.integer, 5);
    close_all(redis);
}

static void a_script_runs_again_after_the_server_forgot_it(void **unused)
{
    static const struct td_script script = {"add", "return redis.call('INCRBY', KEYS[1], ARGV[1]) + 0"};
    struct td_redis *redis = connect_up(500);
    struct td_arg key[] = {TD_ARG_STR("sum")}, arg[] = {TD_ARG_STR("5")};
    struct answer answer;

    (void)unused;
    ask(redis, &answer, "DEL", "sum");
    for (int i = 1; i <= 4; i++) {
        if (i == 3)
            ask(redis, &answer, "SCRIPT", "FLUSH");
        memset(&answer, 0, sizeof(answer));
        assert_int_equal(td_redis_eval(redis, &script, key, 1, arg, 1, on_answer, &answer), TD_OK);
        assert_true(loop_until(&loop, &answer.done, 2000));
        assert_int_equal(answer.code, TD_OK);
        assert_int_equal(answer.integer, 5 * i);
        assert_int_equal(answer.calls, 1);
    }
    close_all(redis);
}

static void a_broken_script_is_named_in_the_error(void **unused)
{
    static const struct td_script script = {"broken", "return redis.call('LPUSH', KEYS[1], 1)"};
    struct td_redis *redis = connect_up(500);
    struct td_arg key[] = {TD_ARG_STR("k2")};
    struct answer answer;

    (void)unused;
    ask(redis, &answer, "SET", "k2", "v");
    memset(&answer, 0, sizeof(answer));
    td_redis_eval(redis, &script, key, 1, NULL, 0, on_answer, &answer);
    assert_true(loop_until(&loop, &answer.done, 2000));
    assert_int_equal(answer.code, TD_EFATAL);
    assert_non_null(strstr(answer.text, "script broken"));
    close_all(redis);
}

static void a_silent_server_times_out_every_command_and_the_connection(void **unused)
{
    struct td_redis *redis = connect_up(150);
    struct answer first, second;
    uint64_t from;

    (void)unused;
    kill(server.pid, SIGSTOP);
    from = td_mono_ms();
    send_words(redis, &first, (const char *const[]){"PING", NULL});
    send_words(redis, &second, (const char *const[]){"PING", NULL});
    assert_true(loop_until(&loop, &second.done, 2000));
    assert_in_range(td_mono_ms() - from, 140, 600);
    assert_int_equal(first.code, TD_ETIMEOUT);
    assert_int_equal(second.code, TD_ETIMEOUT);
    assert_false(td_redis_up(redis));
    kill(server.pid, SIGCONT);
    assert_true(redis_wait_up(&loop, redis, 5000));
    ask(redis, &first, "ECHO", "fresh"); /* and not one of the late replies */
    assert_string_equal(first.text, "fresh");
    close_all(redis);
}

struct states {
    unsigned ups, downs;
    char run_id[64];
};

static void on_state(void *user, bool up, const char *run_id)
{
    struct states *states = user;

    if (up)
        states->ups++;
    else
        states->downs++;
    snprintf(states->run_id, sizeof(states->run_id), "%s", run_id);
}

static void a_restarted_server_is_found_again_with_another_run_id(void **unused)
{
    struct td_redis *redis = connect_to(server.url, 300);
    struct states states = {0};
    struct answer answer;
    char before[64];

    (void)unused;
    td_redis_on_state(redis, on_state, &states);
    assert_true(redis_wait_up(&loop, redis, 3000));
    assert_int_equal(states.downs, 1); /* told once soon after */
    assert_int_equal(states.ups, 1);
    assert_int_equal(strlen(states.run_id), 40);
    memcpy(before, states.run_id, sizeof(before));

    redis_server_stop(&server);
    send_words(redis, &answer, (const char *const[]){"PING", NULL});
    assert_true(loop_until(&loop, &answer.done, 2000));
    assert_int_equal(answer.code, TD_EIO);
    assert_int_equal(send_words(redis, &answer, (const char *const[]){"PING", NULL}), TD_EIO);
    assert_false(answer.done); /* not inside */
    assert_true(loop_until(&loop, &answer.done, 1000));
    assert_int_equal(answer.code, TD_EIO);
    assert_int_equal(states.downs, 2);

    redis_server_start(&server, NULL);
    assert_true(redis_wait_up(&loop, redis, 5000));
    assert_int_equal(states.ups, 2);
    assert_string_not_equal(before, states.run_id);
    close_all(redis);
}

static void on_message(void *user, const char *message, size_t len)
{
    struct answer *answer = user;

    answer->done = true;
    answer->calls++;
    snprintf(answer->text, sizeof(answer->text), "%.*s", (int)len, message);
}

/* Publish until somebody hears, since a subscription has no moment of its own. */
static void publish_heard(struct td_redis *redis, struct answer *heard, const char *text)
{
    struct answer answer;

    memset(heard, 0, sizeof(*heard));
    for (int i = 0; i < 100 && !heard->done; i++) {
        ask(redis, &answer, "PUBLISH", "news", text);
        loop_until(&loop, &heard->done, 50);
    }
    assert_string_equal(heard->text, text);
}

static void a_channel_is_heard_again_after_a_restart(void **unused)
{
    struct td_redis *redis = connect_up(500);
    struct answer heard, answer;

    (void)unused;
    assert_int_equal(td_redis_subscribe(redis, "news", on_message, &heard), TD_OK);
    publish_heard(redis, &heard, "one");
    redis_server_stop(&server);
    redis_server_start(&server, NULL);
    assert_true(redis_wait_up(&loop, redis, 5000));
    publish_heard(redis, &heard, "two");
    td_redis_forget(redis, &heard);
    memset(&heard, 0, sizeof(heard));
    ask(redis, &answer, "PUBLISH", "news", "three");
    loop_for(&loop, 100);
    assert_false(heard.done);
    close_all(redis);
}

static void free_answers_what_is_pending_before_it_returns(void **unused)
{
    struct td_redis *redis = connect_up(500);
    struct answer answer[3];

    (void)unused;
    for (int i = 0; i < 3; i++)
        send_words(redis, &answer[i], (const char *const[]){"PING", NULL});
    td_redis_free(redis);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(answer[i].calls, 1);
        assert_int_equal(answer[i].code, TD_EIO);
    }
    close_all(NULL);
}

static void on_answer_free(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct td_redis **redis = user;

    (void)reply;
    (void)err;
    td_redis_free(*redis);
    *redis = NULL;
}

static void it_may_be_freed_inside_a_callback(void **unused)
{
    struct td_redis *redis = connect_up(500);
    struct td_arg ping[] = {TD_ARG_STR("PING")};
    struct answer answer;

    (void)unused;
    td_redis_command(redis, ping, 1, on_answer_free, &redis);
    send_words(redis, &answer, (const char *const[]){"PING", NULL});
    assert_true(loop_until(&loop, &answer.done, 2000));
    assert_int_equal(answer.code, TD_EIO);
    assert_null(redis);
    close_all(NULL);
}

static void forget_silences_commands_under_way(void **unused)
{
    struct td_redis *redis = connect_up(500);
    struct answer gone, kept;

    (void)unused;
    send_words(redis, &gone, (const char *const[]){"PING", NULL});
    send_words(redis, &kept, (const char *const[]){"PING", NULL});
    td_redis_forget(redis, &gone);
    assert_true(loop_until(&loop, &kept.done, 2000));
    assert_false(gone.done);
    close_all(redis);
}

static void a_server_without_memory_or_turned_replica_counts_as_away(void **unused)
{
    static const struct td_script script = {"put", "return redis.call('SET', KEYS[1], ARGV[1])"};
    struct td_redis *redis = connect_up(500);
    struct td_arg key[] = {TD_ARG_STR("o")}, arg[] = {TD_ARG_STR("1")};
    struct answer answer;

    (void)unused;
    ask(redis, &answer, "CONFIG", "SET", "maxmemory", "1");
    ask(redis, &answer, "SET", "o", "1");
    assert_int_equal(answer.code, TD_EIO);
    memset(&answer, 0, sizeof(answer));
    td_redis_eval(redis, &script, key, 1, arg, 1, on_answer, &answer);
    assert_true(loop_until(&loop, &answer.done, 2000));
    assert_int_equal(answer.code, TD_EIO);
    assert_true(td_redis_up(redis)); /* memory may be freed */
    ask(redis, &answer, "CONFIG", "SET", "maxmemory", "0");

    ask(redis, &answer, "REPLICAOF", "127.0.0.1", "1");
    ask(redis, &answer, "SET", "o", "1");
    assert_int_equal(answer.code, TD_EIO);
    assert_false(td_redis_up(redis));
    loop_for(&loop, 300);
    assert_false(td_redis_up(redis)); /* a replica is not taken */
    redis_server_stop(&server);
    redis_server_start(&server, NULL);
    assert_true(redis_wait_up(&loop, redis, 5000));
    close_all(redis);
}

static void more_pending_commands_than_the_limit_are_refused(void **unused)
{
    struct td_redis *redis = connect_up(10000);
    struct td_arg ping[] = {TD_ARG_STR("PING")};
    struct answer last = {0};
    int rc = TD_OK;
    unsigned n = 0;

    (void)unused;
    while (rc == TD_OK && n <= TD_REDIS_PENDING_MAX) {
        rc = td_redis_command(redis, ping, 1, NULL, NULL);
        n++;
    }
    assert_int_equal(rc, TD_EAGAIN);
    assert_int_equal(n, TD_REDIS_PENDING_MAX + 1);
    td_redis_command(redis, ping, 1, on_answer, &last);
    assert_true(loop_until(&loop, &last.done, 1000));
    assert_int_equal(last.code, TD_EAGAIN);
    close_all(redis);
}

static void a_password_and_a_database_are_used(void **unused)
{
    struct answer answer;
    struct td_redis *redis = connect_up(500);
    char url[96];
    static const char *const bad[] = {":wrong@", ""};

    (void)unused;
    ask(redis, &answer, "ACL", "SETUSER", "tandem", "on", ">p@ss", "~*", "+@all");
    ask(redis, &answer, "CONFIG", "SET", "requirepass", "other");
    close_all(redis);
    snprintf(url, sizeof(url), "redis://tandem:p%%40ss@127.0.0.1:%u/3", server.port);
    redis = connect_to(url, 500);
    assert_true(redis_wait_up(&loop, redis, 3000));
    ask(redis, &answer, "CLIENT", "INFO");
    assert_non_null(strstr(answer.text, " db=3 "));
    ask(redis, &answer, "ACL", "WHOAMI");
    assert_string_equal(answer.text, "tandem");
    close_all(redis);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(url, sizeof(url), "redis://%s127.0.0.1:%u", bad[i], server.port);
        redis = connect_to(url, 500);
        assert_false(redis_wait_up(&loop, redis, 300));
        close_all(redis);
    }
    redis_server_stop(&server);
    redis_server_start(&server, NULL);
}

static void a_url_that_is_not_one_is_refused_with_a_sentence(void **unused)
{
    static const char *const row[] = {"",
                                      "http://x",
                                      "redis://",
                                      "redis://h:0",
                                      "redis://h:70000",
                                      "redis://h:12x",
                                      "redis://h/x",
                                      "redis://user@h",
                                      "redis://u:%zz@h",
                                      "redis://u:%00@h",
                                      "redis://h h",
                                      "redis://[::1",
                                      "redis://[::1]x",
                                      "redis://h:1/99999",
                                      "redis://h:123456",
                                      "redis://a\nb",
                                      "redis://u:@h"};
    struct td_redis *redis = NULL;
    struct td_err err;
    char deep[1024];

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        if (td_redis_new(&loop, row[i], NULL, 100, &redis, &err) != TD_ECONFIG)
            fail_msg("%s was taken", row[i]);
        assert_non_null(strstr(err.text, "redis.url"));
    }
    memset(deep, 'a', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\0';
    memcpy(deep, "redis://", 8);
    assert_int_equal(td_redis_new(&loop, deep, NULL, 100, &redis, &err), TD_ECONFIG);
    assert_int_equal(td_redis_new(&loop, "redis://h", deep, 0, &redis, &err), TD_ECONFIG);
    assert_int_equal(td_redis_new(&loop, "redis://h", deep, 100, &redis, &err), TD_ECONFIG);
    assert_null(redis);
}

/* A server of our own that answers with what it is told. */
struct liar {
    int fd;
    unsigned port;
    pid_t pid;
};

static void liar_start(struct liar *liar, const char *words, size_t len)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);

    liar->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(liar->fd, (struct sockaddr *)&at, size), 0);
    assert_int_equal(listen(liar->fd, 8), 0);
    assert_int_equal(getsockname(liar->fd, (struct sockaddr *)&at, &size), 0);
    liar->port = ntohs(at.sin_port);
    liar->pid = fork();
    if (liar->pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (liar->pid == 0) {
        char sink[256];
        int peer = accept(liar->fd, NULL, NULL);

        if (read(peer, sink, sizeof(sink)) > 0 && write(peer, words, len) > 0)
            usleep(20000);
        close(peer);
    }
}

static void a_peer_that_talks_nonsense_never_counts_as_up(void **unused)
{
    static const char *const row[] = {"HTTP/1.1 400 Bad Request\r\n\r\n",
                                      "$5\r\nhello\r\n",
                                      "*-7\r\n",
                                      "*99999999999\r\n",
                                      "$99999999999999999999\r\n",
                                      ":1\r\n:2\r\n:3\r\n",
                                      "-LOADING x\r\n",
                                      "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"};

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct liar liar;
        struct td_redis *redis;
        char url[64];

        liar_start(&liar, row[i], strlen(row[i]));
        snprintf(url, sizeof(url), "redis://127.0.0.1:%u", liar.port);
        redis = connect_to(url, 100);
        assert_false(redis_wait_up(&loop, redis, 150));
        close_all(redis);
        kill(liar.pid, SIGKILL);
        waitpid(liar.pid, NULL, 0);
        close(liar.fd);
    }
}

/* ---- TLS ---- */

static void run_command(const char *command)
{
    if (system(command) != 0)
        fail_msg("%s", command);
}

static void tls_is_verified_by_authority_and_name(void **unused)
{
    struct redis_server tls = {0};
    char port[8], dir[64], cert[96], key[96], url[96], command[512];
    const char *options[] = {
        "--tls-port",         port, "--port", "0", "--tls-cert-file", cert, "--tls-key-file", key,
        "--tls-auth-clients", "no", NULL};
    struct td_redis *redis;
    struct answer answer;
    char big[20001];

    (void)unused;
    snprintf(dir, sizeof(dir), "%s/tandem-redis-tls-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir);
    assert_non_null(mkdtemp(dir));
    snprintf(cert, sizeof(cert), "%s/cert.pem", dir);
    snprintf(key, sizeof(key), "%s/key.pem", dir);
    snprintf(command, sizeof(command),
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s -out %s -days 2 "
             "-subj /CN=redis.test -addext subjectAltName=IP:127.0.0.1 >%s/log 2>&1",
             key, cert, dir);
    run_command(command);
    redis_server_start(&tls, NULL); /* takes a port and a directory */
    redis_server_stop(&tls);
    snprintf(port, sizeof(port), "%u", tls.port);
    redis_server_start(&tls, options);

    setenv("SSL_CERT_FILE", cert, 1);
    snprintf(url, sizeof(url), "rediss://127.0.0.1:%u", tls.port);
    redis = connect_to(url, 500);
    assert_true(redis_wait_up(&loop, redis, 3000));
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    ask(redis, &answer, "SET", "big", big); /* more than one TLS record */
    ask(redis, &answer, "STRLEN", "big");
    assert_int_equal(answer.integer, 20000);
    ask(redis, &answer, "GET", "big");
    assert_int_equal(answer.text[200], 'x');
    close_all(redis);

    snprintf(url, sizeof(url), "rediss://localhost:%u", tls.port); /* another name than the certificate's */
    redis = connect_to(url, 500);
    assert_false(redis_wait_up(&loop, redis, 500));
    close_all(redis);

    setenv("SSL_CERT_FILE", "/nonexistent", 1); /* an authority nobody trusts */
    snprintf(url, sizeof(url), "rediss://127.0.0.1:%u", tls.port);
    redis = connect_to(url, 500);
    assert_false(redis_wait_up(&loop, redis, 500));
    close_all(redis);

    snprintf(url, sizeof(url), "redis://127.0.0.1:%u", tls.port); /* plain to a TLS port */
    redis = connect_to(url, 500);
    assert_false(redis_wait_up(&loop, redis, 300));
    close_all(redis);
    unsetenv("SSL_CERT_FILE");
    redis_server_remove(&tls);
    snprintf(command, sizeof(command), "%s/log", dir);
    unlink(command);
    unlink(cert);
    unlink(key);
    rmdir(dir);
}

static int group_start(void **unused)
{
    (void)unused;
    redis_server_start(&server, NULL);
    return uv_loop_init(&loop);
}

static int group_end(void **unused)
{
    (void)unused;
    redis_server_remove(&server);
    return uv_loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_is_answered_with_its_type),
        cmocka_unit_test(five_thousand_pipelined_commands_are_answered_in_order),
        cmocka_unit_test(arguments_may_hold_any_byte),
        cmocka_unit_test(a_script_runs_again_after_the_server_forgot_it),
        cmocka_unit_test(a_broken_script_is_named_in_the_error),
        cmocka_unit_test(a_silent_server_times_out_every_command_and_the_connection),
        cmocka_unit_test(a_restarted_server_is_found_again_with_another_run_id),
        cmocka_unit_test(a_channel_is_heard_again_after_a_restart),
        cmocka_unit_test(free_answers_what_is_pending_before_it_returns),
        cmocka_unit_test(it_may_be_freed_inside_a_callback),
        cmocka_unit_test(forget_silences_commands_under_way),
        cmocka_unit_test(a_server_without_memory_or_turned_replica_counts_as_away),
        cmocka_unit_test(more_pending_commands_than_the_limit_are_refused),
        cmocka_unit_test(a_password_and_a_database_are_used),
        cmocka_unit_test(a_url_that_is_not_one_is_refused_with_a_sentence),
        cmocka_unit_test(a_peer_that_talks_nonsense_never_counts_as_up),
        cmocka_unit_test(tls_is_verified_by_authority_and_name),
    };

    return cmocka_run_group_tests(tests, group_start, group_end);
}
