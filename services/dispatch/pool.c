/* pool.c - which connection takes which mail, and when to open or to quit one.
 *
 * Jobs wait in `waiting`; a connection that has room pulls (member_next), so a job is tied to a connection only when its
 * envelope is written. Idle connections are a stack: the last used is used next, so the warm ones stay warm and the rest
 * go stale and quit. Whatever a caller changes is acted on by pump, from the loop and never from inside the caller:
 * it runs before and after the loop polls when something is dirty. */
#include "pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connection.h"
#include "tandem/clock.h"

#define HANDSHAKES_MAX 8
#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 5000
#define LIMIT_RISE_MS (60 * 1000)

enum member_state { MEMBER_GONE = 0, MEMBER_OPENING, MEMBER_READY, MEMBER_QUITTING };

struct member {
    struct pool *pool;
    struct connection *conn;
    enum member_state state;
    size_t slots; /* mails at once */
    size_t jobs;
    bool in_idle;
    bool told_reset;
    struct member *prev, *next;           /* all members */
    struct member *idle_prev, *idle_next; /* idle stack */
};

struct job_list {
    struct mail_job *first, *last;
    size_t count;
};

struct probe {
    struct connection *conn; /* NULL: none under way */
    void (*cb)(void *user, enum relay_event event, const char *detail);
    void *user;
    enum { PROBE_CONNECTING, PROBE_NOOP, PROBE_QUIT } stage;
};

struct pool {
    uv_loop_t *loop;
    const struct td_relay_settings *relay;
    const struct pool_ops *ops;
    void *user;
    struct connector *connector;
    struct member *members;
    struct member *idle; /* top of the stack */
    size_t opening, ready, quitting, idle_count;
    size_t slots; /* of all ready members */
    size_t in_flight;
    struct job_list waiting;  /* for any connection */
    struct job_list retrying; /* for a fresh connection */
    struct job_list returned; /* to be given back as not taken */
    size_t limit;             /* now; rises again up to relay->max_connections */
    uint64_t limit_rise_ms;   /* 0 = at the top */
    uint64_t backoff_ms, backoff_until_ms;
    bool dirty;
    bool had_room;
    bool stopping;
    void (*stopped)(void *user);
    void *stopped_user;
    struct probe probe;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t awake; /* runs while dirty: the loop must not sleep on it */
    uv_timer_t timer;
    int handles;
    struct td_metric *connections_gauge;
    struct td_metric *handshakes[RELAY_EVENT_COUNT];
    struct td_metric *attempts[ATTEMPT_INVALID + 1];
    struct td_metric *final_seconds;
    struct td_metric *retries;
};

const char *relay_event_name(enum relay_event event)
{
    static const char *const name[RELAY_EVENT_COUNT] = {"up",     "dns",  "connect", "tls",
                                                        "banner", "auth", "reset",   "too_many"};

    return (unsigned)event < RELAY_EVENT_COUNT ? name[event] : "?";
}

/* ---- lists ---- */

static void job_append(struct job_list *list, struct mail_job *job)
{
    job->next = NULL;
    if (list->last)
        list->last->next = job;
    else
        list->first = job;
    list->last = job;
    list->count++;
}

static struct mail_job *job_shift(struct job_list *list)
{
    struct mail_job *job = list->first;

    if (!job)
        return NULL;
    list->first = job->next;
    if (!list->first)
        list->last = NULL;
    list->count--;
    job->next = NULL;
    return job;
}

static void jobs_move(struct job_list *to, struct job_list *from)
{
    struct mail_job *job;

    while ((job = job_shift(from)))
        job_append(to, job);
}

static void idle_push(struct member *member)
{
    struct pool *pool = member->pool;

    if (member->in_idle)
        return;
    member->in_idle = true;
    member->idle_prev = NULL;
    member->idle_next = pool->idle;
    if (pool->idle)
        pool->idle->idle_prev = member;
    pool->idle = member;
    pool->idle_count++;
}

static void idle_remove(struct member *member)
{
    struct pool *pool = member->pool;

    if (!member->in_idle)
        return;
    member->in_idle = false;
    if (member->idle_next)
        member->idle_next->idle_prev = member->idle_prev;
    if (member->idle_prev)
        member->idle_prev->idle_next = member->idle_next;
    else
        pool->idle = member->idle_next;
    pool->idle_count--;
}

/* ---- counts ---- */

static void stay_awake(uv_idle_t *idle)
{
    (void)idle;
}

static void dirty(struct pool *pool)
{
    if (pool->dirty)
        return;
    pool->dirty = true;
    uv_idle_start(&pool->awake, stay_awake);
}

static size_t cap(const struct pool *pool)
{
    size_t most = (size_t)(pool->relay->max_connections > 0 ? pool->relay->max_connections : 1);

    return pool->limit < most ? pool->limit : most;
}

static size_t members_count(const struct pool *pool)
{
    return pool->opening + pool->ready + pool->quitting;
}

/* Alone writes member->state; the counts follow from it. */
static void member_to(struct member *member, enum member_state state)
{
    struct pool *pool = member->pool;

    switch (member->state) {
    case MEMBER_GONE:
        break;
    case MEMBER_OPENING:
        pool->opening--;
        break;
    case MEMBER_READY:
        pool->ready--;
        pool->slots -= member->slots;
        break;
    case MEMBER_QUITTING:
        pool->quitting--;
        break;
    }
    member->state = state;
    switch (state) {
    case MEMBER_GONE:
        break;
    case MEMBER_OPENING:
        pool->opening++;
        break;
    case MEMBER_READY:
        pool->ready++;
        pool->slots += member->slots;
        break;
    case MEMBER_QUITTING:
        pool->quitting++;
        break;
    }
    td_metric_set(pool->connections_gauge, (double)pool->ready);
    dirty(pool);
}

static size_t may_open(const struct pool *pool)
{
    size_t members = members_count(pool);

    if (pool->stopping || td_mono_ms() < pool->backoff_until_ms)
        return 0;
    return members < cap(pool) ? cap(pool) - members : 0;
}

size_t pool_room(const struct pool *pool)
{
    size_t places = pool->slots + pool->opening + may_open(pool);
    size_t used = pool->in_flight + pool->waiting.count + pool->retrying.count;

    return pool->stopping || used >= places ? 0 : places - used;
}

size_t pool_busy(const struct pool *pool)
{
    return pool->in_flight + pool->waiting.count + pool->retrying.count + pool->returned.count;
}

size_t pool_connections(const struct pool *pool)
{
    return pool->ready;
}

const struct td_relay_settings *pool_relay(const struct pool *pool)
{
    return pool->relay;
}

/* ---- results ---- */

static void job_done(struct pool *pool, struct mail_job *job, const struct attempt_result *result)
{
    td_metric_add(pool->attempts[result->kind], 1);
    if (result->kind == ATTEMPT_ACCEPTED)
        td_metric_observe(pool->final_seconds, (double)result->final_us / 1e6);
    pool->ops->done(pool->user, job, result);
}

static void event(struct pool *pool, enum relay_event what, const char *detail)
{
    td_metric_add(pool->handshakes[what], 1);
    pool->ops->event(pool->user, pool, what, detail);
}

/* An idle connection that the relay gave up (SES: after ten seconds, or when its fleet turns over) shows only when it is
 * used again. Nothing of the mail was answered, so a fresh connection may have it, once, and nobody needs to know. */
static bool deserves_fresh(const struct mail_job *job, const struct attempt_result *result, enum smtp_end end)
{
    if (job->retried || !result->reused || result->phase != PHASE_MAIL)
        return false;
    if (result->kind == ATTEMPT_REPLIED)
        return end == SMTP_END_421;
    return result->kind == ATTEMPT_NOT_TAKEN && (end == SMTP_END_LOST || end == SMTP_END_421 || end == SMTP_END_QUIT);
}

static const char *end_detail(enum smtp_end end)
{
    switch (end) {
    case SMTP_END_421:
        return "421";
    case SMTP_END_GARBAGE:
        return "out of step";
    case SMTP_END_LOST:
        return "connection lost";
    case SMTP_END_TIMEOUT:
        return "timeout";
    case SMTP_OPEN:
    case SMTP_END_QUIT:
        break;
    }
    return "closed";
}

static void member_result(void *user, void *mail_user, const struct attempt_result *result)
{
    struct member *member = user;
    struct pool *pool = member->pool;
    struct mail_job *job = mail_user;
    enum smtp_end end = connection_end(member->conn);
    bool broken = result->kind == ATTEMPT_NOT_TAKEN || result->kind == ATTEMPT_UNCONFIRMED;

    member->jobs--;
    pool->in_flight--;
    dirty(pool);
    if (!pool->stopping && deserves_fresh(job, result, end)) {
        job->retried = true;
        job_append(&pool->retrying, job);
        td_metric_add(pool->retries, 1);
        return;
    }
    if (broken && !member->told_reset && end != SMTP_END_421) {
        member->told_reset = true;
        event(pool, RELAY_RESET, end_detail(end));
    }
    job_done(pool, job, result);
}

/* ---- one connection ---- */

static bool worn_out(const struct member *member)
{
    int64_t most = member->pool->relay->mails_per_connection;

    return most > 0 && connection_mails(member->conn) >= (uint64_t)most;
}

static bool member_next(void *user, struct smtp_mail *ret)
{
    struct member *member = user;
    struct pool *pool = member->pool;
    struct mail_job *job = NULL;

    if (member->state != MEMBER_READY || worn_out(member) || pool->ready > cap(pool))
        return false;
    if (pool->retrying.count > 0 && connection_mails(member->conn) == 0)
        job = job_shift(&pool->retrying);
    /* A second mail behind one in flight waits for the first one's last reply: only when nobody else is free, or will
     * be as soon as a handshake is done. */
    else if (member->jobs == 0 || (pool->idle_count == 0 && pool->waiting.count > pool->opening))
        job = job_shift(&pool->waiting);
    if (!job)
        return false;
    idle_remove(member);
    member->jobs++;
    pool->in_flight++;
    *ret = (struct smtp_mail){.reverse_path = job->reverse_path,
                              .recipient = job->recipient,
                              .slices = job->slices,
                              .slice_count = job->slice_count,
                              .user = job};
    return true;
}

static void member_quit(struct member *member)
{
    idle_remove(member);
    if (member->state != MEMBER_READY)
        return;
    member_to(member, MEMBER_QUITTING);
    connection_quit(member->conn);
}

static void member_idle(void *user)
{
    struct member *member = user;
    struct pool *pool = member->pool;

    if (member->state != MEMBER_READY)
        return;
    if (pool->stopping || worn_out(member) || pool->ready > cap(pool))
        member_quit(member);
    else
        idle_push(member);
    dirty(pool);
}

static void member_stale(void *user)
{
    member_quit(user);
}

static void member_free(struct member *member)
{
    struct pool *pool = member->pool;

    idle_remove(member);
    member_to(member, MEMBER_GONE);
    if (member->prev)
        member->prev->next = member->next;
    else
        pool->members = member->next;
    if (member->next)
        member->next->prev = member->prev;
    free(member);
}

static void member_up(void *user)
{
    struct member *member = user;
    struct pool *pool = member->pool;

    member->slots = connection_pipelining(member->conn) ? SMTP_IN_FLIGHT_MAX : 1;
    member_to(member, MEMBER_READY);
    pool->backoff_ms = 0;
    event(pool, RELAY_UP, "");
}

/* Who waits goes back when no connection is left that could come to serve it; some of them when fewer are. */
static void give_back_excess(struct pool *pool)
{
    size_t served = pool->opening + pool->ready + may_open(pool);

    if (served == 0) {
        jobs_move(&pool->returned, &pool->retrying);
        jobs_move(&pool->returned, &pool->waiting);
        return;
    }
    while (pool->waiting.count > pool->opening + pool->slots + may_open(pool))
        job_append(&pool->returned, job_shift(&pool->waiting));
}

static void back_off(struct pool *pool)
{
    pool->backoff_ms = pool->backoff_ms == 0 ? BACKOFF_FIRST_MS : pool->backoff_ms * 2;
    if (pool->backoff_ms > BACKOFF_MAX_MS)
        pool->backoff_ms = BACKOFF_MAX_MS;
    pool->backoff_until_ms = td_mono_ms() + pool->backoff_ms;
}

static void member_failed(void *user, enum relay_event what, const char *detail)
{
    struct member *member = user;
    struct pool *pool = member->pool;

    member_free(member);
    /* Several handshakes of one volley fail together: one step of the back-off for all. */
    if (td_mono_ms() >= pool->backoff_until_ms)
        back_off(pool);
    event(pool, what, detail);
    give_back_excess(pool);
    dirty(pool);
}

static void member_ended(void *user, enum smtp_end why)
{
    (void)why;
    member_free(user);
}

static const struct connection_ops member_ops = {
    .up = member_up,
    .failed = member_failed,
    .next = member_next,
    .result = member_result,
    .idle = member_idle,
    .stale = member_stale,
    .ended = member_ended,
};

static bool member_open(struct pool *pool)
{
    struct member *member = calloc(1, sizeof(*member));

    if (!member)
        return false;
    member->pool = pool;
    if (connection_open(pool->connector, &member_ops, member, &member->conn, NULL) < 0) {
        free(member);
        return false;
    }
    member_to(member, MEMBER_OPENING);
    member->next = pool->members;
    if (pool->members)
        pool->members->prev = member;
    pool->members = member;
    return true;
}

/* ---- acting on changes ---- */

/* Connections whose mail is done but which are not yet in step again (a refusal leaves replies to read, and a RSET): they
 * are free in a moment, sooner than a handshake. */
static size_t settling(const struct pool *pool)
{
    size_t count = 0;

    for (const struct member *member = pool->members; member; member = member->next)
        count += member->state == MEMBER_READY && member->jobs == 0 && !member->in_idle && !worn_out(member);
    return count;
}

static void open_more(struct pool *pool)
{
    size_t free_soon = pool->waiting.count > 0 ? settling(pool) : 0;
    size_t wanted = pool->retrying.count + (pool->waiting.count > free_soon ? pool->waiting.count - free_soon : 0);

    while (pool->opening < HANDSHAKES_MAX && pool->opening < wanted && may_open(pool) > 0) {
        if (!member_open(pool)) {
            back_off(pool); /* out of memory: later */
            give_back_excess(pool);
            return;
        }
    }
}

static void give_returned(struct pool *pool)
{
    struct attempt_result result;
    struct job_list list = pool->returned;
    struct mail_job *job;

    memset(&result, 0, sizeof(result));
    result.kind = ATTEMPT_NOT_TAKEN;
    result.phase = PHASE_CONNECT;
    memset(&pool->returned, 0, sizeof(pool->returned));
    while ((job = job_shift(&list)))
        job_done(pool, job, &result);
}

static void retire(struct pool *pool)
{
    while (pool->idle && (pool->stopping || pool->ready > cap(pool)))
        member_quit(pool->idle);
    if (!pool->stopping)
        return;
    for (struct member *member = pool->members, *next; member; member = next) {
        next = member->next;
        if (member->state == MEMBER_OPENING) {
            struct connection *conn = member->conn;

            member_free(member);
            connection_close(conn);
        }
    }
}

static void on_pool_timer(uv_timer_t *timer)
{
    dirty(timer->data);
}

static void rise_limit(struct pool *pool, uint64_t now_ms)
{
    if (pool->limit_rise_ms == 0 || now_ms < pool->limit_rise_ms)
        return;
    pool->limit++;
    pool->limit_rise_ms = pool->limit < (size_t)pool->relay->max_connections ? now_ms + LIMIT_RISE_MS : 0;
}

static void set_timer(struct pool *pool, uint64_t now_ms)
{
    uint64_t due = pool->limit_rise_ms;

    if (pool->backoff_until_ms > now_ms && (due == 0 || pool->backoff_until_ms < due))
        due = pool->backoff_until_ms;
    if (due == 0) {
        uv_timer_stop(&pool->timer);
        return;
    }
    uv_update_time(pool->loop);
    uv_timer_start(&pool->timer, on_pool_timer, due > now_ms ? due - now_ms : 0, 0);
}

static void pump(struct pool *pool)
{
    uint64_t now_ms = td_mono_ms();
    size_t room;

    pool->dirty = false;
    uv_idle_stop(&pool->awake);
    rise_limit(pool, now_ms);
    give_returned(pool);
    while (pool->idle && pool->waiting.count > 0) {
        struct member *member = pool->idle;

        idle_remove(member);
        connection_run(member->conn);
    }
    open_more(pool);
    retire(pool);
    set_timer(pool, now_ms);
    room = pool_room(pool);
    if (room > 0 && !pool->had_room) {
        pool->had_room = true;
        pool->ops->room(pool->user, pool);
    }
    pool->had_room = pool_room(pool) > 0;
    if (pool->stopping && pool->stopped && !pool->members && pool_busy(pool) == 0 && !pool->probe.conn) {
        void (*stopped)(void *) = pool->stopped;

        pool->stopped = NULL;
        stopped(pool->stopped_user);
    }
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct pool *pool = prepare->data;

    if (pool->dirty)
        pump(pool);
}

static void on_check(uv_check_t *check)
{
    struct pool *pool = check->data;

    if (pool->dirty)
        pump(pool);
}

/* ---- the caller's side ---- */

int pool_send(struct pool *pool, struct mail_job *job)
{
    if (pool_room(pool) == 0)
        return TD_EAGAIN;
    job->retried = false;
    job_append(&pool->waiting, job);
    pool->had_room = pool_room(pool) > 0;
    dirty(pool);
    return TD_OK;
}

void pool_limit(struct pool *pool, size_t max_connections)
{
    pool->limit = max_connections > 0 ? max_connections : 1;
    pool->limit_rise_ms = pool->limit < (size_t)pool->relay->max_connections ? td_mono_ms() + LIMIT_RISE_MS : 0;
    dirty(pool);
}

void pool_give_back(struct pool *pool)
{
    jobs_move(&pool->returned, &pool->retrying);
    jobs_move(&pool->returned, &pool->waiting);
    dirty(pool);
}

void pool_stop(struct pool *pool, void (*cb)(void *user), void *user)
{
    pool->stopping = true;
    pool->stopped = cb;
    pool->stopped_user = user;
    pool_give_back(pool);
}

/* ---- probe ---- */

static void probe_over(struct pool *pool, enum relay_event what, const char *detail)
{
    pool->probe.conn = NULL;
    dirty(pool);
    pool->probe.cb(pool->probe.user, what, detail);
}

static void probe_up(void *user)
{
    struct pool *pool = user;

    pool->probe.stage = PROBE_NOOP;
    connection_noop(pool->probe.conn);
}

static void probe_failed(void *user, enum relay_event what, const char *detail)
{
    probe_over(user, what, detail);
}

static bool probe_next(void *user, struct smtp_mail *ret)
{
    (void)user;
    (void)ret;
    return false;
}

static void probe_result(void *user, void *mail_user, const struct attempt_result *result)
{
    (void)user;
    (void)mail_user;
    (void)result;
}

static void probe_idle(void *user)
{
    struct pool *pool = user;

    pool->probe.stage = PROBE_QUIT;
    connection_quit(pool->probe.conn);
}

static void probe_ended(void *user, enum smtp_end why)
{
    struct pool *pool = user;

    if (pool->probe.stage == PROBE_QUIT)
        probe_over(pool, RELAY_UP, "");
    else
        probe_over(pool, RELAY_BANNER, end_detail(why));
}

static const struct connection_ops probe_ops = {
    .up = probe_up,
    .failed = probe_failed,
    .next = probe_next,
    .result = probe_result,
    .idle = probe_idle,
    .stale = probe_idle,
    .ended = probe_ended,
};

int pool_probe(struct pool *pool, void (*cb)(void *user, enum relay_event event, const char *detail), void *user)
{
    if (pool->probe.conn || pool->stopping)
        return TD_EAGAIN;
    pool->probe.cb = cb;
    pool->probe.user = user;
    pool->probe.stage = PROBE_CONNECTING;
    return connection_open(pool->connector, &probe_ops, pool, &pool->probe.conn, NULL);
}

/* ---- life ---- */

static struct td_metric *metric(struct td_metrics *metrics, enum td_metric_type type, const char *name, const char *help,
                                const char *relay, const char *label, const char *value)
{
    char labels[128];

    if (!metrics)
        return NULL;
    if (label)
        snprintf(labels, sizeof(labels), "relay=\"%s\",%s=\"%s\"", relay, label, value);
    else
        snprintf(labels, sizeof(labels), "relay=\"%s\"", relay);
    return td_metric(metrics, type, name, help, labels);
}

static void metrics_make(struct pool *pool, struct td_metrics *metrics)
{
    const char *relay = pool->relay->name;

    pool->connections_gauge = metric(metrics, TD_GAUGE, "tandem_dispatch_connections", "Established SMTP connections",
                                     relay, NULL, NULL);
    pool->final_seconds = metric(metrics, TD_HISTOGRAM, "tandem_dispatch_final_reply_seconds",
                                 "From the final dot to its reply, accepted mails", relay, NULL, NULL);
    pool->retries = metric(metrics, TD_COUNTER, "tandem_dispatch_stale_connections_total",
                           "Mails given a fresh connection because an idle one had been closed", relay, NULL, NULL);
    for (int i = 0; i < RELAY_EVENT_COUNT; i++)
        pool->handshakes[i] = metric(metrics, TD_COUNTER, "tandem_dispatch_connection_events_total",
                                     "What became of connections", relay, "event", relay_event_name((enum relay_event)i));
    for (int i = 0; i <= ATTEMPT_INVALID; i++)
        pool->attempts[i] = metric(metrics, TD_COUNTER, "tandem_dispatch_attempts_total", "Attempts by result", relay,
                                   "result", attempt_kind_name((enum attempt_kind)i));
}

int pool_new(uv_loop_t *loop, const struct td_relay_settings *relay, struct td_metrics *metrics,
             const struct pool_ops *ops, void *user, struct pool **ret, struct td_err *reterr)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    int rc;

    if (!pool)
        return td_fail(reterr, TD_ENOMEM, "relay %s", relay->name);
    rc = connector_new(loop, relay, &pool->connector, reterr);
    if (rc < 0) {
        free(pool);
        return rc;
    }
    pool->loop = loop;
    pool->relay = relay;
    pool->ops = ops;
    pool->user = user;
    pool->limit = (size_t)(relay->max_connections > 0 ? relay->max_connections : 1);
    pool->had_room = true; /* room from the start: nothing has risen */
    metrics_make(pool, metrics);
    uv_prepare_init(loop, &pool->prepare);
    uv_check_init(loop, &pool->check);
    uv_idle_init(loop, &pool->awake);
    uv_timer_init(loop, &pool->timer);
    pool->prepare.data = pool->check.data = pool->awake.data = pool->timer.data = pool;
    pool->handles = 4;
    uv_prepare_start(&pool->prepare, on_prepare);
    uv_check_start(&pool->check, on_check);
    *ret = pool;
    return TD_OK;
}

static void pool_handle_closed(uv_handle_t *handle)
{
    struct pool *pool = handle->data;

    if (--pool->handles == 0)
        free(pool);
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pool->dirty = true; /* what closing changes is of no interest any more */
    while (pool->members) {
        struct connection *conn = pool->members->conn;

        member_free(pool->members);
        connection_close(conn);
    }
    if (pool->probe.conn)
        connection_close(pool->probe.conn);
    connector_free(pool->connector);
    uv_close((uv_handle_t *)&pool->prepare, pool_handle_closed);
    uv_close((uv_handle_t *)&pool->check, pool_handle_closed);
    uv_close((uv_handle_t *)&pool->awake, pool_handle_closed);
    uv_close((uv_handle_t *)&pool->timer, pool_handle_closed);
}
