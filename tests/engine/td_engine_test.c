/* td_engine_test.c - the pool against a TLS relay that misbehaves: what each failure proves, and that the next mail goes through.
 * Rows are data: where, what, and what must be known afterwards. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <curl/curl.h>
#include <uv.h>

#include "pool.h"
#include "scripted_relay.h"
#include "tandem/clock.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define JOBS_MAX 600
#define PATIENCE_MS 20000
#define SHORT_MS 300 /* the timeouts under test */

static const char *ca_file;

struct job {
    struct mail_job mail;
    struct slice slices[2];
    int sent;
    bool done;
    int order; /* of all things heard: events and results */
    struct attempt_result result;
};

struct bench {
    uv_loop_t loop;
    uv_timer_t patience;
    bool out_of_patience;
    struct scripted_relay *relay;
    struct td_relay_settings settings;
    struct pool *pool;
    struct job *jobs;
    size_t job_count;
    size_t done_count;
    int order;
    int events[RELAY_EVENT_COUNT];
    int event_order[RELAY_EVENT_COUNT]; /* of the last one */
    char detail[160];
    int rooms;
    bool stopped;
    int probed; /* event + 1 */
    void (*on_done)(struct bench *bench, struct job *job);
};

static void heard_done(void *user, struct mail_job *mail, const struct attempt_result *result)
{
    struct bench *bench = user;
    struct job *job = mail->user;

    assert_false(job->done); /* exactly once */
    if (result->kind == ATTEMPT_ACCEPTED || result->kind == ATTEMPT_UNCONFIRMED)
        assert_true(job->sent > 0);
    job->done = true;
    job->result = *result;
    job->order = ++bench->order;
    bench->done_count++;
    if (bench->on_done)
        bench->on_done(bench, job);
}

static void heard_sent(void *user, struct mail_job *mail, uint64_t now_us)
{
    struct job *job = mail->user;

    (void)user;
    assert_false(job->done);
    assert_true(++job->sent <= 2);
    assert_in_range(now_us, 1, td_mono_us());
}

static void heard_event(void *user, struct pool *pool, enum relay_event event, const char *detail)
{
    struct bench *bench = user;

    (void)pool;
    bench->events[event]++;
    bench->event_order[event] = ++bench->order;
    if (event != RELAY_UP)
        snprintf(bench->detail, sizeof(bench->detail), "%s", detail);
}

static void heard_room(void *user, struct pool *pool)
{
    struct bench *bench = user;

    assert_true(pool_room(pool) > 0);
    bench->rooms++;
}

static const struct pool_ops ops = {heard_done, heard_sent, heard_event, heard_room};

static void patience_ends(uv_timer_t *timer)
{
    ((struct bench *)timer->data)->out_of_patience = true;
}

static void bench_open(struct bench *bench, const struct script *script)
{
    int port;

    memset(bench, 0, sizeof(*bench));
    bench->jobs = calloc(JOBS_MAX, sizeof(*bench->jobs));
    uv_loop_init(&bench->loop);
    uv_timer_init(&bench->loop, &bench->patience);
    bench->patience.data = bench;
    bench->relay = scripted_relay_start(script, &port);
    bench->settings = (struct td_relay_settings){
        .name = (char *)"primary",
        .host = (char *)"127.0.0.1",
        .port = port,
        .tls = script->starttls ? TD_TLS_STARTTLS : TD_TLS_IMPLICIT,
        .ca_file = (char *)ca_file,
        .user = (char *)"user",
        .password = (char *)"secret",
        .helo_name = (char *)"sender.example",
        .max_connections = 4,
        .mails_per_connection = 1000,
        .idle_timeout_ms = 60000,
        .pipelining = true,
        .bdat_window = 8,
        .connect_timeout_ms = 5000,
        .command_timeout_ms = 5000,
        .data_timeout_ms = 5000,
        .final_timeout_ms = 5000,
    };
}

static void bench_pool(struct bench *bench)
{
    assert_int_equal(pool_new(&bench->loop, &bench->settings, NULL, &ops, bench, &bench->pool, NULL), TD_OK);
}

static void heard_stopped(void *user)
{
    ((struct bench *)user)->stopped = true;
}

static bool run_until(struct bench *bench, bool (*enough)(struct bench *bench))
{
    bench->out_of_patience = false;
    uv_timer_start(&bench->patience, patience_ends, PATIENCE_MS, 0);
    while (!enough(bench) && !bench->out_of_patience)
        uv_run(&bench->loop, UV_RUN_ONCE);
    uv_timer_stop(&bench->patience);
    return enough(bench);
}

static bool all_done(struct bench *bench)
{
    return bench->done_count == bench->job_count;
}

static bool has_room(struct bench *bench)
{
    return pool_room(bench->pool) > 0;
}

static bool is_stopped(struct bench *bench)
{
    return bench->stopped;
}

static bool is_probed(struct bench *bench)
{
    return bench->probed != 0;
}

static bool no_connections(struct bench *bench)
{
    return pool_connections(bench->pool) == 0;
}

static void bench_close(struct bench *bench)
{
    if (bench->pool) {
        pool_stop(bench->pool, heard_stopped, bench);
        assert_true(run_until(bench, is_stopped));
        pool_free(bench->pool);
    }
    uv_close((uv_handle_t *)&bench->patience, NULL);
    assert_int_equal(uv_run(&bench->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&bench->loop), 0); /* no handle is left behind */
    scripted_relay_stop(bench->relay);
    free(bench->jobs);
}

static const char head[] = "From: a@example.com\r\nSubject: hello\r\n\r\n";
static const char body[] = ".dot first\r\n\r\n..two dots\r\nplain\r\n.\r\nlast\r\n";

static struct job *job_new(struct bench *bench, const char *text)
{
    struct job *job = &bench->jobs[bench->job_count++];

    assert_true(bench->job_count <= JOBS_MAX);
    job->slices[0] = (struct slice){head, sizeof(head) - 1};
    job->slices[1] = (struct slice){text, strlen(text)};
    job->mail = (struct mail_job){.reverse_path = "b+1@bounce.example.com",
                                  .recipient = "someone@example.net",
                                  .slices = job->slices,
                                  .slice_count = 2,
                                  .bytes = job->slices[0].len + job->slices[1].len,
                                  .user = job};
    return job;
}

static struct job *job_send(struct bench *bench)
{
    struct job *job = job_new(bench, body);

    assert_int_equal(pool_send(bench->pool, &job->mail), TD_OK);
    assert_false(job->done); /* never from inside pool_send */
    return job;
}

static unsigned sum_of(const char *text)
{
    unsigned sum = 0;

    for (; *text; text++)
        sum += *text != '\r' && *text != '\n' ? (unsigned char)*text : 0;
    return sum;
}

/* ---- faults ---- */

struct row {
    struct script script;
    enum attempt_kind kind;
    enum smtp_phase phase;
    int code;
    enum relay_event event; /* expected once; RELAY_UP: no bad event */
};

/* clang-format off */
static const struct row rows[] = {
    /* where, what -> what is proven */
    {{"banner 421 too many", AT_BANNER, DO_REPLY_END, .text = "421 Too many concurrent SMTP connections"}, ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_TOO_MANY},
    {{"banner 421",          AT_BANNER, DO_REPLY_END, .text = "421 4.3.2 Service not available"}, ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"banner 554",          AT_BANNER, DO_REPLY_END, .text = "554 No SMTP here"},   ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"banner quota",        AT_BANNER, DO_REPLY_END, .text = "554 Daily message quota exceeded"}, ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_QUOTA},
    {{"banner reset",        AT_BANNER, DO_RESET},                                   ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"banner close",        AT_BANNER, DO_CLOSE},                                   ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"banner hang",         AT_BANNER, DO_HANG},                                    ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"banner garbage",      AT_BANNER, DO_GARBAGE},                                 ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"banner byte by byte", AT_BANNER, DO_BYTEWISE},                                ATTEMPT_ACCEPTED,  PHASE_FINAL, 250, RELAY_UP},
    {{"ehlo 421",            AT_EHLO,   DO_REPLY_END, .text = "421 4.3.2 closing"},  ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"ehlo reset",          AT_EHLO,   DO_RESET},                                   ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"ehlo hang",           AT_EHLO,   DO_HANG},                                    ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"ehlo garbage",        AT_EHLO,   DO_GARBAGE},                                 ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"ehlo byte by byte",   AT_EHLO,   DO_BYTEWISE},                                ATTEMPT_ACCEPTED,  PHASE_FINAL, 250, RELAY_UP},
    {{"auth 535",            AT_AUTH,   DO_REPLY, .text = "535 5.7.8 Authentication Credentials Invalid"}, ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_AUTH},
    {{"auth 535 suspended",  AT_AUTH,   DO_REPLY, .text = "535 Account is suspended"}, ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_SUSPENDED},
    {{"auth 454",            AT_AUTH,   DO_REPLY, .text = "454 Temporary authentication failure"}, ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"auth reset",          AT_AUTH,   DO_RESET},                                   ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"auth hang",           AT_AUTH,   DO_HANG},                                    ATTEMPT_NOT_TAKEN, PHASE_CONNECT, 0, RELAY_BANNER},
    {{"auth byte by byte",   AT_AUTH,   DO_BYTEWISE},                                ATTEMPT_ACCEPTED,  PHASE_FINAL, 250, RELAY_UP},

    {{"mail 454",            AT_MAIL, DO_REPLY, .text = "454 Throttling failure: Maximum sending rate exceeded"}, ATTEMPT_REPLIED, PHASE_MAIL, 454, RELAY_UP},
    {{"mail 553",            AT_MAIL, DO_REPLY, .text = "553 5.1.7 bad sender"},     ATTEMPT_REPLIED,   PHASE_MAIL, 553, RELAY_UP},
    {{"mail 421",            AT_MAIL, DO_REPLY_END, .text = "421 4.3.2 closing"},    ATTEMPT_REPLIED,   PHASE_MAIL, 421, RELAY_UP},
    {{"mail 354",            AT_MAIL, DO_REPLY, .text = "354 what"},                 ATTEMPT_NOT_TAKEN, PHASE_MAIL, 0, RELAY_RESET},
    {{"mail reset",          AT_MAIL, DO_RESET},                                     ATTEMPT_NOT_TAKEN, PHASE_MAIL, 0, RELAY_RESET},
    {{"mail close",          AT_MAIL, DO_CLOSE},                                     ATTEMPT_NOT_TAKEN, PHASE_MAIL, 0, RELAY_RESET},
    {{"mail hang",           AT_MAIL, DO_HANG},                                      ATTEMPT_NOT_TAKEN, PHASE_MAIL, 0, RELAY_RESET},
    {{"mail garbage",        AT_MAIL, DO_GARBAGE},                                   ATTEMPT_NOT_TAKEN, PHASE_MAIL, 0, RELAY_RESET},
    {{"mail byte by byte",   AT_MAIL, DO_BYTEWISE},                                  ATTEMPT_ACCEPTED,  PHASE_FINAL, 250, RELAY_UP},

    {{"rcpt 450",            AT_RCPT, DO_REPLY, .text = "450 4.2.1 try later"},      ATTEMPT_REPLIED,   PHASE_RCPT, 450, RELAY_UP},
    {{"rcpt 550",            AT_RCPT, DO_REPLY, .text = "550-5.1.1 no such\r\n550 5.1.1 user"}, ATTEMPT_REPLIED, PHASE_RCPT, 550, RELAY_UP},
    {{"rcpt 550, then 354",  AT_RCPT, DO_REPLY, .text = "550 5.1.1 user unknown", .data_says_354 = true}, ATTEMPT_REPLIED, PHASE_RCPT, 550, RELAY_UP},
    {{"rcpt 421",            AT_RCPT, DO_REPLY_END, .text = "421 4.3.2 closing"},    ATTEMPT_REPLIED,   PHASE_RCPT, 421, RELAY_UP},
    {{"rcpt reset",          AT_RCPT, DO_RESET},                                     ATTEMPT_NOT_TAKEN, PHASE_RCPT, 0, RELAY_RESET},
    {{"rcpt close",          AT_RCPT, DO_CLOSE},                                     ATTEMPT_NOT_TAKEN, PHASE_RCPT, 0, RELAY_RESET},
    {{"rcpt hang",           AT_RCPT, DO_HANG},                                      ATTEMPT_NOT_TAKEN, PHASE_RCPT, 0, RELAY_RESET},
    {{"rcpt garbage",        AT_RCPT, DO_GARBAGE},                                   ATTEMPT_NOT_TAKEN, PHASE_RCPT, 0, RELAY_RESET},
    {{"rcpt byte by byte",   AT_RCPT, DO_BYTEWISE},                                  ATTEMPT_ACCEPTED,  PHASE_FINAL, 250, RELAY_UP},

    {{"data 451",            AT_DATA, DO_REPLY, .text = "451 4.3.0 not now"},        ATTEMPT_REPLIED,   PHASE_DATA, 451, RELAY_UP},
    {{"data 554",            AT_DATA, DO_REPLY, .text = "554 5.7.1 no"},             ATTEMPT_REPLIED,   PHASE_DATA, 554, RELAY_UP},
    {{"data 250",            AT_DATA, DO_REPLY, .text = "250 what"},                 ATTEMPT_NOT_TAKEN, PHASE_DATA, 0, RELAY_RESET},
    {{"data 421",            AT_DATA, DO_REPLY_END, .text = "421 4.3.2 closing"},    ATTEMPT_REPLIED,   PHASE_DATA, 421, RELAY_UP},
    {{"data reset",          AT_DATA, DO_RESET},                                     ATTEMPT_NOT_TAKEN, PHASE_DATA, 0, RELAY_RESET},
    {{"data hang",           AT_DATA, DO_HANG},                                      ATTEMPT_NOT_TAKEN, PHASE_DATA, 0, RELAY_RESET},
    {{"data garbage",        AT_DATA, DO_GARBAGE},                                   ATTEMPT_NOT_TAKEN, PHASE_DATA, 0, RELAY_RESET},
    {{"data byte by byte",   AT_DATA, DO_BYTEWISE},                                  ATTEMPT_ACCEPTED,  PHASE_FINAL, 250, RELAY_UP},

    /* A small mail is handed over whole, dot and all, before the relay can break in. */
    {{"body reset",          AT_BODY, DO_RESET},                                     ATTEMPT_UNCONFIRMED, PHASE_FINAL, 0, RELAY_RESET},
    {{"body close",          AT_BODY, DO_CLOSE},                                     ATTEMPT_UNCONFIRMED, PHASE_FINAL, 0, RELAY_RESET},

    {{"final 451",           AT_FINAL, DO_REPLY, .text = "451 Temporary service failure"}, ATTEMPT_REPLIED, PHASE_FINAL, 451, RELAY_UP},
    {{"final 554 paused",    AT_FINAL, DO_REPLY, .text = "554 Message rejected: Sending paused for this account."}, ATTEMPT_REPLIED, PHASE_FINAL, 554, RELAY_UP},
    {{"final 354",           AT_FINAL, DO_REPLY, .text = "354 what"},                ATTEMPT_UNCONFIRMED, PHASE_FINAL, 0, RELAY_RESET},
    {{"final 421",           AT_FINAL, DO_REPLY_END, .text = "421 4.3.2 closing"},   ATTEMPT_REPLIED,   PHASE_FINAL, 421, RELAY_UP},
    {{"final reset",         AT_FINAL, DO_RESET},                                    ATTEMPT_UNCONFIRMED, PHASE_FINAL, 0, RELAY_RESET},
    {{"final close",         AT_FINAL, DO_CLOSE},                                    ATTEMPT_UNCONFIRMED, PHASE_FINAL, 0, RELAY_RESET},
    {{"final hang",          AT_FINAL, DO_HANG},                                     ATTEMPT_UNCONFIRMED, PHASE_FINAL, 0, RELAY_RESET},
    {{"final garbage",       AT_FINAL, DO_GARBAGE},                                  ATTEMPT_UNCONFIRMED, PHASE_FINAL, 0, RELAY_RESET},
    {{"final byte by byte",  AT_FINAL, DO_BYTEWISE},                                 ATTEMPT_ACCEPTED,  PHASE_FINAL, 250, RELAY_UP},
};
/* clang-format on */

static int bad_events(const struct bench *bench)
{
    int sum = 0;

    for (int i = 0; i < RELAY_EVENT_COUNT; i++)
        sum += i == RELAY_UP ? 0 : bench->events[i];
    return sum;
}

enum mode { PIPELINED, LOCK_STEP, CHUNKED, MODE_COUNT };

static void script_mode(struct script *script, enum mode mode)
{
    script->no_pipelining = mode == LOCK_STEP;
    script->chunking = mode == CHUNKED;
}

static void check_row(const struct row *row, enum mode mode)
{
    struct script script = row->script;
    struct bench bench;
    struct job *first, *second;

    if (mode == CHUNKED && (script.place == AT_DATA || script.data_says_354))
        return; /* it is not asked */
    print_message("  %s%s\n", script.name, mode == LOCK_STEP ? ", lock step" : mode == CHUNKED ? ", BDAT" : "");
    script_mode(&script, mode);
    bench_open(&bench, &script);
    bench.settings.max_connections = 1;
    if (script.fault == DO_HANG) {
        bench.settings.connect_timeout_ms = bench.settings.command_timeout_ms = SHORT_MS;
        bench.settings.data_timeout_ms = bench.settings.final_timeout_ms = SHORT_MS;
    }
    bench_pool(&bench);
    first = job_send(&bench);
    assert_true(run_until(&bench, all_done));
    assert_string_equal(attempt_kind_name(first->result.kind), attempt_kind_name(row->kind));
    assert_string_equal(smtp_phase_name(first->result.phase), smtp_phase_name(row->phase));
    assert_int_equal(first->result.reply.code, row->code);
    if (row->event == RELAY_UP) {
        assert_int_equal(bad_events(&bench), 0);
    } else {
        assert_int_equal(bench.events[row->event], 1);
        assert_int_equal(bad_events(&bench), 1);
        assert_true(bench.event_order[row->event] < first->order); /* the fact before what follows from it */
    }

    /* The next mail through the same pool goes through. */
    assert_true(run_until(&bench, has_room));
    second = job_send(&bench);
    assert_true(run_until(&bench, all_done));
    assert_string_equal(attempt_kind_name(second->result.kind), "accepted");
    assert_int_equal(scripted_relay_seen(bench.relay).last_bytes, strlen(head) + strlen(body));
    assert_int_equal(scripted_relay_seen(bench.relay).last_sum, sum_of(head) + sum_of(body));
    assert_int_equal(scripted_relay_seen(bench.relay).mails, row->kind == ATTEMPT_ACCEPTED ? 2 : 1);
    if (script.data_says_354 && mode == PIPELINED)
        assert_int_equal(scripted_relay_seen(bench.relay).empty_dots, 1);
    assert_int_equal(scripted_relay_seen(bench.relay).chunks > 0, mode == CHUNKED);
    bench_close(&bench);
}

static void a_fault_proves_what_it_proves_and_the_next_mail_goes_through(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < LENGTH(rows); i++)
        for (int mode = 0; mode < MODE_COUNT; mode++)
            check_row(&rows[i], (enum mode)mode);
}

static void a_refusal_keeps_the_connection(void **unused)
{
    static const struct script refusals[] = {
        {"mail", AT_MAIL, DO_REPLY, .text = "553 5.1.7 bad sender"},
        {"rcpt", AT_RCPT, DO_REPLY, .text = "550 5.1.1 user unknown"},
        {"rcpt, then 354", AT_RCPT, DO_REPLY, .text = "550 5.1.1 user unknown", .data_says_354 = true},
        {"data", AT_DATA, DO_REPLY, .text = "554 5.7.1 no"},
        {"final", AT_FINAL, DO_REPLY, .text = "554 5.7.1 no"},
    };

    (void)unused;
    for (size_t i = 0; i < MODE_COUNT * LENGTH(refusals); i++) {
        struct script script = refusals[i / MODE_COUNT];
        struct bench bench;

        script_mode(&script, (enum mode)(i % MODE_COUNT));
        bench_open(&bench, &script);
        bench_pool(&bench);
        job_send(&bench);
        assert_true(run_until(&bench, all_done));
        job_send(&bench);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(bench.jobs[1].result.kind, ATTEMPT_ACCEPTED);
        assert_true(bench.jobs[1].result.reused);
        assert_int_equal(scripted_relay_seen(bench.relay).connections, 1);
        assert_int_equal(scripted_relay_seen(bench.relay).data_without_reading, 0);
        bench_close(&bench);
    }
}

/* ---- TLS ---- */

static void without_verified_tls_nothing_is_sent_not_even_auth(void **unused)
{
    static const struct script scripts[] = {
        {"wrong name", .certificate = CERT_WRONG_NAME},
        {"unknown CA", .certificate = CERT_UNKNOWN_CA},
        {"expired", .certificate = CERT_EXPIRED},
        {"STARTTLS, wrong name", .starttls = true, .certificate = CERT_WRONG_NAME},
        {"STARTTLS, unknown CA", .starttls = true, .certificate = CERT_UNKNOWN_CA},
        {"STARTTLS, expired", .starttls = true, .certificate = CERT_EXPIRED},
        {"STARTTLS stripped", .starttls = true, .no_starttls_offered = true},
        {"plaintext slipped in behind STARTTLS", .starttls = true, .inject_after_starttls = true},
    };

    (void)unused;
    for (size_t i = 0; i < LENGTH(scripts); i++) {
        struct bench bench;
        struct seen seen;

        print_message("  %s\n", scripts[i].name);
        bench_open(&bench, &scripts[i]);
        bench.settings.connect_timeout_ms = 2000;
        bench_pool(&bench);
        job_send(&bench);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(bench.jobs[0].result.kind, ATTEMPT_NOT_TAKEN);
        assert_int_equal(bench.jobs[0].result.phase, PHASE_CONNECT);
        assert_int_equal(bench.events[RELAY_TLS], 1);
        assert_int_equal(bad_events(&bench), 1);
        seen = scripted_relay_seen(bench.relay);
        assert_int_equal(seen.auths, 0);
        assert_int_equal(seen.plaintext_bad, 0);
        assert_int_equal(seen.mails, 0);
        bench_close(&bench);
    }
}

static void starttls_carries_mail_and_counts_the_second_ehlo(void **unused)
{
    struct script script = {"starttls", .starttls = true, .size = "5000"};
    struct bench bench;

    (void)unused;
    bench_open(&bench, &script);
    bench_pool(&bench);
    job_send(&bench);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(bench.jobs[0].result.kind, ATTEMPT_ACCEPTED);
    assert_int_equal(scripted_relay_seen(bench.relay).plaintext_bad, 0);
    assert_int_equal(scripted_relay_seen(bench.relay).auths, 1);
    bench_close(&bench);
}

/* One mail a connection, one after another. @return what became of the n-th */
static enum attempt_kind mail_over_a_connection_of_its_own(struct bench *bench)
{
    struct job *job;

    assert_true(run_until(bench, has_room)); /* after a failure: when the back-off is over */
    job = job_send(bench);
    assert_true(run_until(bench, all_done));
    assert_true(run_until(bench, no_connections)); /* QUIT has been said: its tickets have been read */
    return job->result.kind;
}

static void bench_resuming(struct bench *bench, const struct script *script, int64_t resume_ms)
{
    bench_open(bench, script);
    bench->settings.max_connections = 1;
    bench->settings.mails_per_connection = 1;
    bench->settings.tls_resume_ms = resume_ms;
    bench_pool(bench);
}

static double resumed_metric(struct td_metrics *metrics)
{
    return td_metric_value(td_metric(metrics, TD_COUNTER, "tandem_dispatch_tls_resumed_total", "", "relay=\"primary\""));
}

static void sessions_are_resumed(void **unused)
{
    static const struct {
        struct script script;
        int64_t resume_ms;
        bool resumes;
        bool perhaps; /* libcurl before 8.12 looks for the session under "smtp" and keeps it under "smtps" */
    } wires[] = {
        {{"implicit TLS"}, 60000, true, false},
        {{"implicit TLS 1.2", .tls12 = true}, 60000, true, false},
        {{"STARTTLS"}, 60000, true, true},
        {{"STARTTLS, TLS 1.2", .tls12 = true}, 60000, true, false},
        {{"off"}, 0, false, false},
    };

    (void)unused;
    for (size_t i = 0; i < LENGTH(wires); i++) {
        struct script script = wires[i].script;
        struct td_metrics *metrics = td_metrics_new();
        struct bench bench;
        struct seen seen;

        script.starttls = strncmp(script.name, "START", 5) == 0;
        bench_open(&bench, &script);
        bench.settings.max_connections = bench.settings.mails_per_connection = 1;
        bench.settings.tls_resume_ms = wires[i].resume_ms;
        assert_int_equal(pool_new(&bench.loop, &bench.settings, metrics, &ops, &bench, &bench.pool, NULL), TD_OK);
        for (int n = 0; n < 5; n++)
            assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_ACCEPTED);
        seen = scripted_relay_seen(bench.relay);
        print_message("  %s: %d of %d resumed\n", script.name, seen.resumed, seen.handshakes);
        assert_int_equal(seen.handshakes, 5);
        assert_int_equal(seen.auths, 5);
        if (!wires[i].perhaps)
            assert_int_equal(seen.resumed, wires[i].resumes ? 4 : 0);
        assert_int_equal((int)resumed_metric(metrics), seen.resumed); /* both sides agree */
        bench_close(&bench);
        td_metrics_free(metrics);
    }
}

/* The relay gets another certificate and keeps the keys of its tickets: resumption would go on for ever. */
static void a_session_is_not_resumed_longer_than_the_settings_say(void **unused)
{
    struct script script = {"replaced", .certificate = CERT_WRONG_NAME, .certificate_from = 2};
    struct bench bench;
    uint64_t began = td_mono_ms(), at, last = 0;

    (void)unused;
    bench_resuming(&bench, &script, 1000);
    assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_ACCEPTED);
    while ((at = td_mono_ms()) < began + 5000 && mail_over_a_connection_of_its_own(&bench) == ATTEMPT_ACCEPTED)
        last = at; /* each with a ticket of the one before */
    assert_true(scripted_relay_seen(bench.relay).resumed >= 1);
    assert_in_range(last, began, began + 1500);
    assert_int_equal(bench.events[RELAY_TLS], 1);
    assert_int_equal(scripted_relay_seen(bench.relay).mails, scripted_relay_seen(bench.relay).auths);
    for (int i = 0; i < 2; i++) /* and not again */
        assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_NOT_TAKEN);
    assert_int_equal(bench.events[RELAY_TLS], 3);
    bench_close(&bench);
}

static void a_tls_failure_forgets_every_session(void **unused)
{
    struct script script = {"bad once", .certificate = CERT_UNKNOWN_CA, .certificate_from = 3, .certificate_until = 3};
    struct bench bench;

    (void)unused;
    bench_resuming(&bench, &script, 60000);
    assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_ACCEPTED);
    assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_ACCEPTED);
    assert_int_equal(scripted_relay_seen(bench.relay).resumed, 1);
    assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_NOT_TAKEN);
    assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_ACCEPTED);
    assert_int_equal(scripted_relay_seen(bench.relay).resumed, 1); /* the relay still knew them: we did not offer them */
    assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_ACCEPTED);
    assert_int_equal(scripted_relay_seen(bench.relay).resumed, 2);
    bench_close(&bench);
}

static void a_certificate_that_has_run_out_ends_its_sessions(void **unused)
{
    struct script script = {"soon expired", .certificate = CERT_SOON_EXPIRED};
    struct bench bench;

    (void)unused;
    bench_resuming(&bench, &script, 60000);
    assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_ACCEPTED);
    assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_ACCEPTED);
    assert_int_equal(scripted_relay_seen(bench.relay).resumed, 1);
    sleep(CERT_SOON_S + 1);
    assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_NOT_TAKEN);
    assert_int_equal(bench.events[RELAY_TLS], 1);
    assert_int_equal(scripted_relay_seen(bench.relay).mails, 2);
    bench_close(&bench);
}

/* Two pools, as two entries of relays are: what one has verified says nothing to the other, even at one address. */
static void relays_share_no_sessions(void **unused)
{
    struct script script = {"two names", .certificate_from = 1};
    struct bench bench;
    struct pool *first;

    (void)unused;
    bench_resuming(&bench, &script, 60000);
    assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_ACCEPTED);
    first = bench.pool;
    bench_pool(&bench);
    assert_int_equal(mail_over_a_connection_of_its_own(&bench), ATTEMPT_ACCEPTED);
    assert_int_equal(scripted_relay_seen(bench.relay).resumed, 0);
    pool_stop(first, heard_stopped, &bench);
    assert_true(run_until(&bench, is_stopped));
    pool_free(first);
    bench.stopped = false;
    bench_close(&bench);
}

static void a_relay_that_offers_no_auth_gets_no_mail(void **unused)
{
    struct script script = {"no auth", .no_auth_offered = true};
    struct bench bench;

    (void)unused;
    bench_open(&bench, &script);
    bench_pool(&bench);
    job_send(&bench);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(bench.jobs[0].result.kind, ATTEMPT_NOT_TAKEN);
    assert_int_equal(bench.events[RELAY_AUTH], 1);
    bench_close(&bench);
}

static void nothing_listening_is_refused_and_nobody_is_not_resolved(void **unused)
{
    struct script script = {"gone"};
    struct bench bench;

    (void)unused;
    bench_open(&bench, &script);
    scripted_relay_die(bench.relay);
    bench_pool(&bench);
    job_send(&bench);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(bench.events[RELAY_CONNECT], 1);
    assert_string_equal(bench.detail, "connection refused");
    bench_close(&bench);

    bench_open(&bench, &script);
    bench.settings.host = (char *)"relay.invalid";
    bench_pool(&bench);
    job_send(&bench);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(bench.events[RELAY_DNS], 1);
    bench_close(&bench);
}

/* ---- what a message may be ---- */

static void bytes_unfit_for_the_wire_never_reach_it(void **unused)
{
    static const char *const texts[] = {"bare\nLF\r\n", "bare\rCR\r\n", "8bit \xc3\xa4\r\n", "no line end", "CR at the end\r",
                                        "a\n.\r\nMAIL FROM:<x@example.org>\r\n"};
    struct script script = {"invalid"};
    struct bench bench;

    (void)unused;
    bench_open(&bench, &script);
    bench_pool(&bench);
    for (size_t i = 0; i < LENGTH(texts); i++) {
        struct job *job = job_new(&bench, texts[i]);

        assert_int_equal(pool_send(bench.pool, &job->mail), TD_OK);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(job->result.kind, ATTEMPT_INVALID);
    }
    for (int i = 0; i < 2; i++) {
        struct job *job = job_new(&bench, body);

        *(i ? &job->mail.recipient : &job->mail.reverse_path) = "a@example.com>\r\nRCPT TO:<victim@example.org";
        assert_int_equal(pool_send(bench.pool, &job->mail), TD_OK);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(job->result.kind, ATTEMPT_INVALID);
    }
    job_send(&bench);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(bench.jobs[bench.job_count - 1].result.kind, ATTEMPT_ACCEPTED);
    assert_int_equal(scripted_relay_seen(bench.relay).connections, 1); /* untouched by all of them */
    bench_close(&bench);
}

/* SMTP smuggling (CVE-2023-51764 to -51766): between two line ends of any kind a dot, behind it another mail's commands. The
 * relay is as lenient as those were: to it a line ends with LF alone. Each is one mail, as it was sent, or none. */
static void no_content_becomes_a_second_mail(void **unused)
{
    static const char *const ends[] = {"\r\n", "\n", "\r", "\r\r\n", "\n\r", "\n\n", "\x85", "\xe2\x80\xa8", "", NULL /* a NUL */};
    static const char evil[] = "MAIL FROM:<a@example.com>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nevil\r\n.\r\nQUIT\r\n";

    (void)unused;
    for (int mode = 0; mode < MODE_COUNT; mode++) {
        struct script script = {"smuggling"};
        struct bench bench;
        int accepted = 0;

        script_mode(&script, (enum mode)mode);
        bench_open(&bench, &script);
        bench.settings.max_connections = 1;
        bench_pool(&bench);
        for (size_t i = 0; i < LENGTH(ends) * LENGTH(ends); i++) {
            const char *before = ends[i / LENGTH(ends)], *behind = ends[i % LENGTH(ends)];
            bool canonical = before && behind && (!*before || strcmp(before, "\r\n") == 0) && (!*behind || strcmp(behind, "\r\n") == 0);
            char text[400];
            int len = snprintf(text, sizeof(text), "before%s.%s%s", before ? before : "@", behind ? behind : "@", evil);
            struct job *job;

            for (int at = 0; at < len; at++)
                text[at] = text[at] == '@' && ((!before && at == 6) || (!behind && strncmp(text + at + 1, "MAIL", 4) == 0)) ? '\0' : text[at];
            job = job_new(&bench, "");
            job->slices[1] = (struct slice){text, (size_t)len};
            job->mail.bytes = job->slices[0].len + (size_t)len;
            assert_int_equal(pool_send(bench.pool, &job->mail), TD_OK);
            assert_true(run_until(&bench, all_done));
            assert_int_equal(job->result.kind, canonical ? ATTEMPT_ACCEPTED : ATTEMPT_INVALID);
            accepted += canonical;
            assert_int_equal(scripted_relay_seen(bench.relay).mails, accepted);
            if (canonical) {
                assert_int_equal(scripted_relay_seen(bench.relay).last_bytes, job->mail.bytes);
                assert_int_equal(scripted_relay_seen(bench.relay).last_sum, sum_of(head) + sum_of(text));
            }
        }
        assert_int_equal(accepted, 4);
        assert_int_equal(scripted_relay_seen(bench.relay).connections, 1);
        assert_int_equal(scripted_relay_seen(bench.relay).quits, 0);
        bench_close(&bench);
    }
}

static void larger_than_offered_is_refused_without_asking(void **unused)
{
    struct script script = {"size", .size = "100"};
    struct bench bench;
    char *text = calloc(1, 301);

    (void)unused;
    memset(text, 'x', 298);
    memcpy(text + 298, "\r\n", 3);
    bench_open(&bench, &script);
    bench_pool(&bench);
    assert_int_equal(pool_send(bench.pool, &job_new(&bench, text)->mail), TD_OK);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(bench.jobs[0].result.kind, ATTEMPT_REPLIED);
    assert_int_equal(bench.jobs[0].result.reply.code, 552);
    assert_string_equal(bench.jobs[0].result.reply.enhanced, "5.3.4");
    assert_int_equal(scripted_relay_seen(bench.relay).rsets, 0);
    bench_close(&bench);
    free(text);
}

static void a_large_message_arrives_whole(void **unused)
{
    struct script script = {"large"}, chunking = {"large, BDAT", .chunking = true};
    struct bench bench;
    size_t lines = 60000;
    char *text = malloc(lines * 77 + 1), *at = text;

    (void)unused;
    for (size_t i = 0; i < lines; i++) {
        int n = i % 7 == 0 ? sprintf(at, ".line %zu begins with a dot\r\n", i) : sprintf(at, "line %zu %060d\r\n", i, 7);

        at += n;
    }
    for (int i = 0; i < 2; i++) {
        bench_open(&bench, i ? &chunking : &script);
        bench_pool(&bench);
        assert_int_equal(pool_send(bench.pool, &job_new(&bench, text)->mail), TD_OK);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(bench.jobs[0].result.kind, ATTEMPT_ACCEPTED);
        assert_int_equal(scripted_relay_seen(bench.relay).last_bytes, strlen(head) + strlen(text));
        assert_int_equal(scripted_relay_seen(bench.relay).last_sum, sum_of(head) + sum_of(text));
        bench_close(&bench);
    }
    free(text);
}

/* A large mail that the relay stops reading: the dot never got out, so it is not taken, and no dot is sent on closing. */
static void a_stall_in_a_large_message_proves_that_it_was_not_taken(void **unused)
{
    static const enum fault faults[] = {DO_RESET, DO_CLOSE};
    size_t bytes = 40u * 1000 * 1000;
    char *text = malloc(bytes + 1);

    (void)unused;
    memset(text, 'x', bytes);
    for (size_t i = 0; i + 2 <= bytes; i += 100)
        memcpy(text + i, "\r\n", 2);
    memcpy(text + bytes - 2, "\r\n", 3);
    for (size_t i = 0; i < LENGTH(faults); i++) {
        struct script script = {"stall", AT_BODY, faults[i]};
        struct bench bench;

        bench_open(&bench, &script);
        bench_pool(&bench);
        assert_int_equal(pool_send(bench.pool, &job_new(&bench, text)->mail), TD_OK);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(bench.jobs[0].result.kind, ATTEMPT_NOT_TAKEN);
        assert_int_equal(bench.jobs[0].result.phase, PHASE_BODY);
        assert_int_equal(scripted_relay_seen(bench.relay).mails, 0);
        bench_close(&bench);
    }
    free(text);
}

static void a_refusal_in_mid_content_is_a_reply(void **unused)
{
    struct script script = {"early", AT_BODY, DO_REPLY_END, .text = "552 5.3.4 too much"};
    struct bench bench;
    size_t bytes = 40u * 1000 * 1000;
    char *text = malloc(bytes + 1);

    (void)unused;
    memset(text, 'x', bytes);
    for (size_t i = 0; i + 2 <= bytes; i += 100)
        memcpy(text + i, "\r\n", 2);
    memcpy(text + bytes - 2, "\r\n", 3);
    bench_open(&bench, &script);
    bench_pool(&bench);
    assert_int_equal(pool_send(bench.pool, &job_new(&bench, text)->mail), TD_OK);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(bench.jobs[0].result.kind, ATTEMPT_REPLIED);
    assert_int_equal(bench.jobs[0].result.phase, PHASE_BODY);
    assert_int_equal(bench.jobs[0].result.reply.code, 552);
    bench_close(&bench);
    free(text);
}

/* ---- a window of BDAT ---- */

/* One mail wakes the connection; then six go out at once, and the relay misbehaves when it has taken two. The first of the
 * six is taken, the second meets the fault. */
struct window_row {
    struct script script;
    enum attempt_kind second, behind;
    int connections; /* for all seven, and one more after */
    enum relay_event event;
};

/* clang-format off */
static const struct window_row window_rows[] = {
    {{"mail 454",         AT_MAIL,  DO_REPLY, .text = "454 Throttling failure: Maximum sending rate exceeded"}, ATTEMPT_REPLIED, ATTEMPT_ACCEPTED, 1, RELAY_UP},
    {{"mail 421",         AT_MAIL,  DO_REPLY_END, .text = "421 4.7.0 enough mails on this connection"}, ATTEMPT_ACCEPTED, ATTEMPT_ACCEPTED, 2, RELAY_UP},
    {{"mail 354",         AT_MAIL,  DO_REPLY, .text = "354 what"},              ATTEMPT_UNCONFIRMED, ATTEMPT_UNCONFIRMED, 2, RELAY_RESET},
    {{"mail reset",       AT_MAIL,  DO_RESET},                                  ATTEMPT_UNCONFIRMED, ATTEMPT_UNCONFIRMED, 2, RELAY_RESET},
    {{"mail hang",        AT_MAIL,  DO_HANG},                                   ATTEMPT_UNCONFIRMED, ATTEMPT_UNCONFIRMED, 2, RELAY_RESET},
    {{"rcpt 550",         AT_RCPT,  DO_REPLY, .text = "550 5.1.1 no such user"}, ATTEMPT_REPLIED, ATTEMPT_ACCEPTED, 1, RELAY_UP},
    {{"rcpt 421",         AT_RCPT,  DO_REPLY_END, .text = "421 4.3.2 closing"}, ATTEMPT_REPLIED, ATTEMPT_ACCEPTED, 2, RELAY_UP},
    {{"rcpt garbage",     AT_RCPT,  DO_GARBAGE},                                ATTEMPT_UNCONFIRMED, ATTEMPT_UNCONFIRMED, 2, RELAY_RESET},
    {{"body close",       AT_BODY,  DO_CLOSE, },                                  ATTEMPT_UNCONFIRMED, ATTEMPT_UNCONFIRMED, 2, RELAY_RESET},
    {{"final 554",        AT_FINAL, DO_REPLY, .text = "554 5.7.1 not this one"}, ATTEMPT_REPLIED, ATTEMPT_ACCEPTED, 1, RELAY_UP},
    {{"final 421",        AT_FINAL, DO_REPLY_END, .text = "421 4.3.2 closing"}, ATTEMPT_REPLIED, ATTEMPT_ACCEPTED, 2, RELAY_UP},
    {{"final reset",      AT_FINAL, DO_RESET},                                  ATTEMPT_UNCONFIRMED, ATTEMPT_UNCONFIRMED, 2, RELAY_RESET},
    {{"final close",      AT_FINAL, DO_CLOSE},                                  ATTEMPT_UNCONFIRMED, ATTEMPT_UNCONFIRMED, 2, RELAY_RESET},
    {{"final hang",       AT_FINAL, DO_HANG},                                   ATTEMPT_UNCONFIRMED, ATTEMPT_UNCONFIRMED, 2, RELAY_RESET},
    {{"final byte by byte", AT_FINAL, DO_BYTEWISE},                             ATTEMPT_ACCEPTED, ATTEMPT_ACCEPTED, 1, RELAY_UP},
};
/* clang-format on */

static void a_fault_within_a_window_touches_only_what_it_must(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < LENGTH(window_rows); i++) {
        const struct window_row *row = &window_rows[i];
        struct script script = row->script;
        struct bench bench;

        print_message("  %s\n", script.name);
        script.chunking = true;
        script.after_mails = 2;
        bench_open(&bench, &script);
        bench.settings.max_connections = 1;
        if (script.fault == DO_HANG)
            bench.settings.command_timeout_ms = bench.settings.final_timeout_ms = SHORT_MS;
        bench_pool(&bench);
        job_send(&bench);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(pool_room(bench.pool), 8);
        for (int k = 0; k < 6; k++)
            job_send(&bench);
        assert_true(run_until(&bench, all_done));
        for (size_t k = 0; k < 7; k++)
            assert_string_equal(attempt_kind_name(bench.jobs[k].result.kind),
                                attempt_kind_name(k < 2 ? ATTEMPT_ACCEPTED : k == 2 ? row->second : row->behind));
        assert_int_equal(bad_events(&bench), row->event != RELAY_UP);
        assert_int_equal(bench.events[row->event] > 0, 1);
        assert_true(run_until(&bench, has_room));
        job_send(&bench);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(bench.jobs[7].result.kind, ATTEMPT_ACCEPTED);
        assert_int_equal(scripted_relay_seen(bench.relay).connections, row->connections);
        bench_close(&bench);
    }
}

static void a_window_is_as_wide_as_the_settings_say(void **unused)
{
    struct script script = {"window", .chunking = true};
    struct bench bench;

    (void)unused;
    for (int64_t window = 1; window <= 64; window *= 4) {
        bench_open(&bench, &script);
        bench.settings.max_connections = 1;
        bench.settings.bdat_window = window;
        bench_pool(&bench);
        assert_int_equal(pool_room(bench.pool), 1); /* no more before the relay has said what it offers */
        job_send(&bench);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(pool_room(bench.pool), window);
        bench_close(&bench);
    }
}

/* ---- the pool ---- */

static void refill(struct bench *bench, struct job *job)
{
    (void)job;
    while (bench->job_count < 500 && pool_room(bench->pool) > 0)
        job_send(bench);
}

static void many_mails_each_have_one_result_and_refusals_cost_no_connection(void **unused)
{
    (void)unused;
    for (int mode = 0; mode < MODE_COUNT; mode++) {
        struct script script = {"many", .refuse_every = 20};
        struct bench bench;
        size_t accepted = 0, refused = 0;

        script_mode(&script, (enum mode)mode);
        bench_open(&bench, &script);
        bench_pool(&bench);
        bench.on_done = refill;
        refill(&bench, NULL);
        assert_true(run_until(&bench, all_done));
        for (size_t i = 0; i < bench.job_count; i++) {
            accepted += bench.jobs[i].result.kind == ATTEMPT_ACCEPTED;
            refused += bench.jobs[i].result.kind == ATTEMPT_REPLIED && bench.jobs[i].result.phase == PHASE_RCPT;
        }
        assert_int_equal(bench.job_count, 500);
        assert_int_equal(refused, 25);
        assert_int_equal(accepted, 475);
        assert_int_equal(scripted_relay_seen(bench.relay).mails, 475);
        assert_in_range(scripted_relay_seen(bench.relay).connections, 1, 4);
        assert_int_equal(pool_busy(bench.pool), 0);
        bench_close(&bench);
        assert_int_equal(bad_events(&bench), 0);
    }
}

static void a_connection_is_quit_after_its_share_of_mails(void **unused)
{
    struct script script = {"worn"};
    struct bench bench;

    (void)unused;
    bench_open(&bench, &script);
    bench.settings.mails_per_connection = 3;
    bench.settings.max_connections = 1;
    bench_pool(&bench);
    for (int i = 0; i < 7; i++) {
        assert_true(run_until(&bench, has_room));
        job_send(&bench);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(bench.jobs[i].result.kind, ATTEMPT_ACCEPTED);
    }
    assert_int_equal(scripted_relay_seen(bench.relay).connections, 3);
    assert_in_range(scripted_relay_seen(bench.relay).quits, 2, 2);
    bench_close(&bench);
}

/* libcurl prunes what it takes for idle connections once a second when it makes a new one: ours must not look idle to it. */
static void new_connections_leave_old_ones_alone(void **unused)
{
    struct script script = {"old and new"};
    struct bench bench;

    (void)unused;
    bench_open(&bench, &script);
    bench.settings.max_connections = 8;
    bench_pool(&bench);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i <= round * 2; i++)
            job_send(&bench);
        assert_true(run_until(&bench, all_done));
        for (uint64_t until = td_mono_ms() + 1100; td_mono_ms() < until;)
            uv_run(&bench.loop, UV_RUN_NOWAIT);
    }
    for (size_t i = 0; i < bench.job_count; i++)
        assert_int_equal(bench.jobs[i].result.kind, ATTEMPT_ACCEPTED);
    assert_int_equal(bad_events(&bench), 0);
    assert_int_equal(pool_connections(bench.pool), scripted_relay_seen(bench.relay).connections); /* none was replaced */
    bench_close(&bench);
}

static void run_for(struct bench *bench, uint64_t ms)
{
    for (uint64_t until = td_mono_ms() + ms; td_mono_ms() < until; usleep(500))
        uv_run(&bench->loop, UV_RUN_NOWAIT);
}

static bool few_connections(struct bench *bench)
{
    return pool_connections(bench->pool) <= 2;
}

/* As many as mails are under way at once, that is rate times reply time: few for a trickle, more in a burst, few again. */
static void connections_follow_need(void **unused)
{
    struct script script = {"need"};
    struct bench bench;

    (void)unused;
    bench_open(&bench, &script);
    bench.settings.max_connections = 20;
    bench.settings.idle_timeout_ms = 600;
    bench_pool(&bench);
    for (int i = 0; i < 40; i++) {
        job_send(&bench);
        assert_true(run_until(&bench, all_done));
    }
    assert_int_equal(scripted_relay_seen(bench.relay).connections, 1); /* the last used is used next */
    for (int i = 0; i < 4; i++)
        while (pool_room(bench.pool) > 0)
            job_send(&bench);
    assert_true(run_until(&bench, all_done));
    assert_in_range(scripted_relay_seen(bench.relay).most_at_once, 9, 20); /* one, and at least a volley of 8 */
    for (int i = 0; i < 60; i++) {
        job_send(&bench);
        assert_true(run_until(&bench, all_done));
        run_for(&bench, 20);
    }
    assert_true(run_until(&bench, few_connections)); /* the others were not used for idle_timeout */
    assert_true(pool_connections(bench.pool) >= 1);
    assert_int_equal(bad_events(&bench), 0);
    bench_close(&bench);
}

static void an_idle_connection_is_quit_in_time(void **unused)
{
    struct script script = {"idle"};
    struct bench bench;

    (void)unused;
    bench_open(&bench, &script);
    bench.settings.idle_timeout_ms = 200;
    bench_pool(&bench);
    job_send(&bench);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(pool_connections(bench.pool), 1);
    assert_true(run_until(&bench, no_connections));
    bench_close(&bench);
    assert_int_equal(bad_events(&bench), 0);
}

/* The relay hangs up an idle connection: noticed in silence, or, when the next mail is faster, retried in silence. */
static void an_idle_close_costs_no_mail_and_no_event(void **unused)
{
    static const struct script scripts[] = {
        {"closed", AT_IDLE, DO_CLOSE},
        {"reset", AT_IDLE, DO_RESET},
        {"421", AT_IDLE, DO_REPLY_END, .text = "421 4.4.2 idle too long"},
    };

    (void)unused;
    for (size_t i = 0; i < MODE_COUNT * LENGTH(scripts); i++) {
        struct script script = scripts[i / MODE_COUNT];
        struct bench bench;

        script_mode(&script, (enum mode)(i % MODE_COUNT));
        bench_open(&bench, &script);
        bench_pool(&bench);
        job_send(&bench);
        assert_true(run_until(&bench, all_done));
        if (script.chunking)
            usleep(60000); /* idle is what was silent for longer than 50 ms; before, content goes ahead of replies */
        job_send(&bench);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(bench.jobs[0].result.kind, ATTEMPT_ACCEPTED);
        assert_int_equal(bench.jobs[1].result.kind, ATTEMPT_ACCEPTED);
        assert_int_equal(bad_events(&bench), 0);
        assert_int_equal(scripted_relay_seen(bench.relay).connections, 2);
        bench_close(&bench);
    }
}

static void second_job_at_once(struct bench *bench, struct job *job)
{
    (void)job;
    if (bench->job_count == 1)
        job_send(bench);
}

/* SES's words to the first command on a connection that it has given up. The script's first reply to MAIL is right. */
static void a_stale_connection_is_retried_once_on_a_fresh_one(void **unused)
{
    static const struct script scripts[] = {
        {"closed", AT_IDLE, DO_CLOSE},
        {"451 4.4.2", AT_IDLE, DO_REPLY_END, .text = "451 4.4.2 Timeout waiting for data from client."},
    };

    (void)unused;
    for (size_t i = 0; i < LENGTH(scripts); i++) {
        struct bench bench;

        bench_open(&bench, &scripts[i]);
        bench_pool(&bench);
        bench.on_done = second_job_at_once; /* sent before the loop can see the close */
        job_send(&bench);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(bench.job_count, 2);
        assert_int_equal(bench.jobs[1].result.kind, ATTEMPT_ACCEPTED);
        assert_int_equal(bad_events(&bench), 0);
        assert_int_equal(scripted_relay_seen(bench.relay).connections, 2);
        assert_int_equal(scripted_relay_seen(bench.relay).mails, 2);
        bench_close(&bench);
    }
}

static void too_many_connections_are_reported_and_a_limit_is_kept(void **unused)
{
    struct script script = {"crowd", .max_connections = 2};
    struct bench bench;

    (void)unused;
    bench_open(&bench, &script);
    bench.settings.max_connections = 6;
    bench_pool(&bench);
    while (pool_room(bench.pool) > 0)
        job_send(&bench);
    assert_true(run_until(&bench, all_done));
    assert_true(bench.events[RELAY_TOO_MANY] >= 1);
    for (size_t i = 0; i < bench.job_count; i++)
        assert_true(bench.jobs[i].result.kind == ATTEMPT_ACCEPTED || bench.jobs[i].result.phase == PHASE_CONNECT);
    bench_close(&bench);

    script.max_connections = 0;
    bench_open(&bench, &script);
    bench.settings.max_connections = 6;
    bench_pool(&bench);
    pool_limit(bench.pool, 2);
    bench.on_done = refill;
    refill(&bench, NULL);
    assert_true(run_until(&bench, all_done));
    assert_in_range(scripted_relay_seen(bench.relay).most_at_once, 1, 2);
    bench_close(&bench);
}

static void a_relay_that_dies_breaks_each_transaction_once(void **unused)
{
    struct script script = {"dies", AT_FINAL, DO_HANG, .times = 4};
    struct bench bench;

    (void)unused;
    bench_open(&bench, &script);
    bench_pool(&bench);
    for (int i = 0; i < 4; i++)
        job_send(&bench);
    while (scripted_relay_seen(bench.relay).last_bytes == 0 || pool_connections(bench.pool) < 4)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    for (uint64_t until = td_mono_ms() + 200; td_mono_ms() < until;)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    scripted_relay_die(bench.relay);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(bench.events[RELAY_RESET], 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(bench.jobs[i].result.kind, ATTEMPT_UNCONFIRMED);
    bench_close(&bench);
}

static void jobs_that_wait_are_given_back(void **unused)
{
    struct script script = {"slow", AT_BANNER, DO_HANG, .times = 9};
    struct bench bench;

    (void)unused;
    bench_open(&bench, &script);
    bench_pool(&bench);
    job_send(&bench);
    job_send(&bench);
    for (uint64_t until = td_mono_ms() + 100; td_mono_ms() < until;)
        uv_run(&bench.loop, UV_RUN_NOWAIT);
    pool_give_back(bench.pool);
    assert_int_equal(bench.done_count, 0);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(bench.jobs[0].result.kind, ATTEMPT_NOT_TAKEN);
    assert_int_equal(bench.jobs[0].result.phase, PHASE_CONNECT);
    bench_close(&bench); /* with handshakes still hanging */
}

static void a_pool_can_be_freed_in_the_middle_of_everything(void **unused)
{
    static const struct script scripts[] = {{"banner", AT_BANNER, DO_HANG, .times = 9},
                                            {"mail", AT_MAIL, DO_HANG, .times = 9},
                                            {"final", AT_FINAL, DO_HANG, .times = 9}};

    (void)unused;
    for (size_t i = 0; i < LENGTH(scripts); i++) {
        struct bench bench;

        bench_open(&bench, &scripts[i]);
        bench_pool(&bench);
        while (pool_room(bench.pool) > 0)
            job_send(&bench);
        for (uint64_t until = td_mono_ms() + 100; td_mono_ms() < until;)
            uv_run(&bench.loop, UV_RUN_NOWAIT);
        pool_free(bench.pool);
        bench.pool = NULL;
        bench_close(&bench);
        assert_int_equal(bench.done_count, 0);
    }
}

static void room_falls_and_rises(void **unused)
{
    struct script script = {"room"};
    struct bench bench;
    struct job *more;

    (void)unused;
    bench_open(&bench, &script);
    bench.settings.max_connections = 2;
    bench_pool(&bench);
    assert_int_equal(pool_room(bench.pool), 2);
    job_send(&bench);
    job_send(&bench);
    assert_int_equal(pool_room(bench.pool), 0);
    more = job_new(&bench, body);
    assert_int_equal(pool_send(bench.pool, &more->mail), TD_EAGAIN);
    bench.job_count--;
    assert_true(run_until(&bench, all_done));
    assert_true(run_until(&bench, has_room));
    uv_run(&bench.loop, UV_RUN_NOWAIT);
    assert_true(bench.rooms >= 1);
    bench_close(&bench);
}

static bool is_silent(struct bench *bench)
{
    return bench->events[RELAY_SILENT] > 0;
}

/* One mail goes through, so that it is known how long a reply takes; then so many connections hang at this place. */
static void hang(struct bench *bench, const struct script *script, int mails)
{
    bench_open(bench, script);
    bench->settings.max_connections = 6;
    bench_pool(bench);
    job_send(bench);
    assert_true(run_until(bench, all_done));
    for (int i = 0; i < mails; i++)
        job_send(bench);
}

static void a_silent_relay_gives_back_what_it_cannot_have(void **unused)
{
    (void)unused;
    for (int mails = 1; mails <= 4; mails++) {
        struct script script = {"silent", AT_MAIL, DO_HANG, .times = mails, .after_mails = 1, .frozen_from = mails + 1};
        struct bench bench;
        uint64_t began_ms;

        hang(&bench, &script, mails);
        began_ms = td_mono_ms();
        assert_true(run_until(&bench, all_done));
        assert_in_range(td_mono_ms() - began_ms, 500, 2500); /* not the 5 s of a command's timeout */
        assert_int_equal(bench.events[RELAY_SILENT], 1);
        assert_int_equal(bench.events[RELAY_RESET], 0);
        for (size_t i = 1; i < bench.job_count; i++)
            assert_int_equal(bench.jobs[i].result.kind, ATTEMPT_NOT_TAKEN);
        bench_close(&bench);
    }
}

static bool is_heard_again(struct bench *bench)
{
    return pool_silent_ms(bench->pool) == 0;
}

static void a_silent_relay_gets_nothing_until_it_is_heard_again(void **unused)
{
    struct script script = {"thaws", AT_MAIL, DO_HANG, .times = 1, .after_mails = 1, .frozen_from = 2};
    struct bench bench;
    struct job *more;

    (void)unused;
    hang(&bench, &script, 1);
    assert_true(run_until(&bench, is_silent));
    run_for(&bench, 700);
    assert_true(pool_silent_ms(bench.pool) >= 700);
    more = job_new(&bench, body);
    assert_int_equal(pool_send(bench.pool, &more->mail), TD_EAGAIN);
    bench.job_count--;
    scripted_relay_thaw(bench.relay);
    assert_true(run_until(&bench, is_heard_again));
    job_send(&bench);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(bench.jobs[2].result.kind, ATTEMPT_ACCEPTED);
    assert_int_equal(bench.events[RELAY_SILENT], 1);
    bench_close(&bench);
}

static void a_slow_relay_is_not_silent_however_few_wait(void **unused)
{
    (void)unused;
    for (int mails = 1; mails <= 4; mails += 3) {
        struct script script = {"slow", .after_mails = 1, .slow_final_ms = 3000};
        struct bench bench;

        hang(&bench, &script, mails);
        assert_true(run_until(&bench, all_done));
        assert_int_equal(bench.events[RELAY_SILENT] + bench.events[RELAY_RESET], 0);
        for (size_t i = 0; i < bench.job_count; i++)
            assert_int_equal(bench.jobs[i].result.kind, ATTEMPT_ACCEPTED);
        assert_in_range(scripted_relay_seen(bench.relay).noops, 1, 4); /* it was asked, not all the time */
        bench_close(&bench);
    }
}

static void connections_that_are_gone_are_given_up_when_the_relay_is_well(void **unused)
{
    struct script script = {"forgotten", AT_MAIL, DO_HANG, .times = 4, .after_mails = 1};
    struct bench bench;
    uint64_t began_ms;

    (void)unused;
    hang(&bench, &script, 4);
    began_ms = td_mono_ms();
    assert_true(run_until(&bench, all_done));
    assert_in_range(td_mono_ms() - began_ms, 1200, 3500);
    assert_int_equal(bench.events[RELAY_SILENT], 0);
    assert_int_equal(bench.events[RELAY_RESET], 1);
    for (size_t i = 1; i < bench.job_count; i++)
        assert_int_equal(bench.jobs[i].result.kind, ATTEMPT_NOT_TAKEN);
    job_send(&bench);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(bench.jobs[5].result.kind, ATTEMPT_ACCEPTED);
    bench_close(&bench);
}

static void mails_with_a_silent_relay_wait_on_and_hold_no_place(void **unused)
{
    struct script script = {"stuck", AT_FINAL, DO_HANG, .times = 4, .after_mails = 1, .frozen_from = 5};
    struct bench bench;

    (void)unused;
    hang(&bench, &script, 4);
    assert_true(run_until(&bench, is_silent));
    assert_int_equal(bench.done_count, 1); /* they may have been taken: nobody else gets them */
    scripted_relay_thaw(bench.relay);
    assert_true(run_until(&bench, has_room));
    assert_int_equal(pool_room(bench.pool), 6);
    assert_int_equal(pool_busy(bench.pool), 4);
    job_send(&bench); /* well again: a new connection has it */
    assert_true(run_until(&bench, all_done));
    for (size_t i = 1; i < 5; i++)
        assert_int_equal(bench.jobs[i].result.kind, ATTEMPT_UNCONFIRMED); /* after final_timeout */
    assert_int_equal(bench.jobs[5].result.kind, ATTEMPT_ACCEPTED);
    assert_true(bench.jobs[5].order < bench.jobs[1].order);
    bench_close(&bench);
}

static void two_slow_mails_do_not_make_a_relay_silent(void **unused)
{
    struct script script = {"slow", AT_FINAL, DO_HANG, .times = 2, .after_mails = 1};
    struct bench bench;

    (void)unused;
    hang(&bench, &script, 2);
    assert_true(run_until(&bench, all_done));
    assert_int_equal(bench.events[RELAY_SILENT], 0);
    bench_close(&bench);
}

static void heard_probe(void *user, enum relay_event event, const char *detail)
{
    struct bench *bench = user;

    (void)detail;
    bench->probed = (int)event + 1;
}

static void a_probe_goes_all_the_way_without_mail(void **unused)
{
    static const struct {
        struct script script;
        enum relay_event event;
    } probes[] = {
        {{"well"}, RELAY_UP},
        {{"auth", AT_AUTH, DO_REPLY, .text = "535 5.7.8 no"}, RELAY_AUTH},
        {{"tls", .certificate = CERT_EXPIRED}, RELAY_TLS},
    };

    (void)unused;
    for (size_t i = 0; i < LENGTH(probes); i++) {
        struct bench bench;

        bench_open(&bench, &probes[i].script);
        bench_pool(&bench);
        assert_int_equal(pool_probe(bench.pool, heard_probe, &bench), TD_OK);
        assert_int_equal(pool_probe(bench.pool, heard_probe, &bench), TD_EAGAIN);
        assert_true(run_until(&bench, is_probed));
        assert_int_equal(bench.probed - 1, probes[i].event);
        if (probes[i].event == RELAY_UP) {
            assert_int_equal(scripted_relay_seen(bench.relay).noops, 1);
            assert_int_equal(scripted_relay_seen(bench.relay).quits, 1);
        }
        bench_close(&bench);
        assert_int_equal(bad_events(&bench), 0); /* a probe has its own answer */
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starttls_carries_mail_and_counts_the_second_ehlo),
        cmocka_unit_test(a_fault_proves_what_it_proves_and_the_next_mail_goes_through),
        cmocka_unit_test(a_refusal_keeps_the_connection),
        cmocka_unit_test(without_verified_tls_nothing_is_sent_not_even_auth),
        cmocka_unit_test(sessions_are_resumed),
        cmocka_unit_test(a_session_is_not_resumed_longer_than_the_settings_say),
        cmocka_unit_test(a_tls_failure_forgets_every_session),
        cmocka_unit_test(a_certificate_that_has_run_out_ends_its_sessions),
        cmocka_unit_test(relays_share_no_sessions),
        cmocka_unit_test(a_relay_that_offers_no_auth_gets_no_mail),
        cmocka_unit_test(nothing_listening_is_refused_and_nobody_is_not_resolved),
        cmocka_unit_test(bytes_unfit_for_the_wire_never_reach_it),
        cmocka_unit_test(no_content_becomes_a_second_mail),
        cmocka_unit_test(larger_than_offered_is_refused_without_asking),
        cmocka_unit_test(a_large_message_arrives_whole),
        cmocka_unit_test(a_stall_in_a_large_message_proves_that_it_was_not_taken),
        cmocka_unit_test(a_refusal_in_mid_content_is_a_reply),
        cmocka_unit_test(many_mails_each_have_one_result_and_refusals_cost_no_connection),
        cmocka_unit_test(a_fault_within_a_window_touches_only_what_it_must),
        cmocka_unit_test(a_window_is_as_wide_as_the_settings_say),
        cmocka_unit_test(a_connection_is_quit_after_its_share_of_mails),
        cmocka_unit_test(new_connections_leave_old_ones_alone),
        cmocka_unit_test(connections_follow_need),
        cmocka_unit_test(an_idle_connection_is_quit_in_time),
        cmocka_unit_test(an_idle_close_costs_no_mail_and_no_event),
        cmocka_unit_test(a_stale_connection_is_retried_once_on_a_fresh_one),
        cmocka_unit_test(too_many_connections_are_reported_and_a_limit_is_kept),
        cmocka_unit_test(a_relay_that_dies_breaks_each_transaction_once),
        cmocka_unit_test(jobs_that_wait_are_given_back),
        cmocka_unit_test(a_pool_can_be_freed_in_the_middle_of_everything),
        cmocka_unit_test(a_silent_relay_gives_back_what_it_cannot_have),
        cmocka_unit_test(a_silent_relay_gets_nothing_until_it_is_heard_again),
        cmocka_unit_test(a_slow_relay_is_not_silent_however_few_wait),
        cmocka_unit_test(connections_that_are_gone_are_given_up_when_the_relay_is_well),
        cmocka_unit_test(mails_with_a_silent_relay_wait_on_and_hold_no_place),
        cmocka_unit_test(two_slow_mails_do_not_make_a_relay_silent),
        cmocka_unit_test(room_falls_and_rises),
        cmocka_unit_test(a_probe_goes_all_the_way_without_mail),
    };
    int rc;

    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    ca_file = scripted_tls_new();
    if (argc > 1)
        cmocka_set_test_filter(argv[1]); /* "a_probe*" */
    rc = cmocka_run_group_tests_name("engine", tests, NULL, NULL);
    scripted_tls_free();
    curl_global_cleanup();
    return rc;
}
