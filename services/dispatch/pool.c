/* pool.c - which connection takes which mail, and when to open or to quit one.
 *
 * Jobs wait in `waiting`; a connection that has room pulls (member_next), so a job is tied to a connection only
 * when its envelope is written. Idle connections are a stack: the last used is used next, so the warm ones stay
 * warm and the rest go stale and quit. Whatever a caller changes is acted on by pump, from the loop and never from
 * inside the caller: it runs before and after the loop polls when something is dirty. */
#include "pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool_int.h"
#include "tandem/clock.h"
#include "tandem/stages.h"

const char *relay_event_name(enum relay_event event)
{
    static const char *const name[RELAY_EVENT_COUNT] = {"up",    "dns",    "connect",  "tls",   "banner",   "auth",
                                                        "reset", "silent", "too_many", "quota", "suspended"};

    return (unsigned)event < RELAY_EVENT_COUNT ? name[event] : "?";
}

/* ---- lists ---- */

void pool_job_append(struct job_list *list, struct mail_job *job)
{
    job->next = NULL;
    if (list->last)
        list->last->next = job;
    else
        list->first = job;
    list->last = job;
    list->count++;
}

struct mail_job *pool_job_shift(struct job_list *list)
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

    while ((job = pool_job_shift(from)))
        pool_job_append(to, job);
}

/* ---- counts ---- */

static void stay_awake(uv_idle_t *idle)
{
    (void)idle;
}

void pool_dirty(struct pool *pool)
{
    if (pool->dirty)
        return;
    pool->dirty = true;
    uv_idle_start(&pool->awake, stay_awake);
}

size_t pool_cap(const struct pool *pool)
{
    size_t most = (size_t)(pool->relay->max_connections > 0 ? pool->relay->max_connections : 1);

    return pool->limit < most ? pool->limit : most;
}

static size_t members_count(const struct pool *pool)
{
    return pool->opening + pool->ready + pool->quitting;
}

size_t pool_may_open(const struct pool *pool)
{
    size_t members = members_count(pool);

    if (pool->stopping || pool->silent_since_ms > 0 || td_mono_ms() < pool->backoff_until_ms)
        return 0;
    return members < pool_cap(pool) ? pool_cap(pool) - members : 0;
}

bool pool_retry_anywhere(const struct pool *pool)
{
    return pool->retrying.count > 0 && pool->opening == 0 && pool_may_open(pool) == 0;
}

size_t pool_room(const struct pool *pool)
{
    size_t places = pool->slots + pool->opening + pool_may_open(pool);
    size_t used = pool->in_flight + pool->waiting.count + pool->retrying.count;

    return pool->stopping || used >= places ? 0 : places - used;
}

/* As member_next gives places: behind a mail in flight only when no handshake is under way, and never on a connection that is
 * worn out or has replies to read before its next mail. Asked for each mail, so the members are looked at only when counts
 * leave it open. */
bool pool_takes_now(const struct pool *pool)
{
    size_t used = pool->waiting.count + pool->retrying.count, places = 0;

    if (pool->stopping)
        return false;
    if (pool->idle_count > used)
        return true;
    if (pool->opening > 0 || pool->slots <= pool->in_flight + used)
        return false;
    for (const struct member *member = pool->members; member && places <= used; member = member->next)
        if (member->in_idle)
            places += member->slots;
        else if (member->state == MEMBER_READY && member->jobs > 0 && !member_worn_out(member))
            places += member->slots - member->jobs;
    return places > used;
}

void pool_warm(struct pool *pool, size_t connections)
{
    pool->warm = connections;
    pool_dirty(pool);
}

size_t pool_busy(const struct pool *pool)
{
    return pool->in_flight + pool->stuck + pool->waiting.count + pool->retrying.count + pool->returned.count;
}

size_t pool_connections(const struct pool *pool)
{
    return pool->ready;
}

void pool_rules(struct pool *pool, const struct reply_rules *rules)
{
    connector_rules(pool->connector, rules);
}

const struct td_relay_settings *pool_relay(const struct pool *pool)
{
    return pool->relay;
}

void pool_job_done(struct pool *pool, struct mail_job *job, const struct attempt_result *result)
{
    td_metric_add(pool->attempts[result->kind], 1);
    if (result->kind == ATTEMPT_ACCEPTED)
        td_metric_observe(pool->final_seconds, (double)result->final_us / 1e6);
    pool->ops->done(pool->user, job, result);
}

void pool_event(struct pool *pool, enum relay_event what, const char *detail)
{
    td_metric_add(pool->handshakes[what], 1);
    pool->ops->event(pool->user, pool, what, detail);
}

/* Who waits goes back when no connection is left that could come to serve it; some of them when fewer are. */
void pool_give_back_excess(struct pool *pool)
{
    size_t served = pool->opening + pool->ready + pool_may_open(pool);

    if (served == 0) {
        jobs_move(&pool->returned, &pool->retrying);
        jobs_move(&pool->returned, &pool->waiting);
        return;
    }
    while (pool->waiting.count > pool->opening + pool->slots + pool_may_open(pool))
        pool_job_append(&pool->returned, pool_job_shift(&pool->waiting));
}

void pool_back_off(struct pool *pool)
{
    pool->backoff_ms = pool->backoff_ms == 0 ? BACKOFF_FIRST_MS : pool->backoff_ms * 2;
    if (pool->backoff_ms > BACKOFF_MAX_MS)
        pool->backoff_ms = BACKOFF_MAX_MS;
    pool->backoff_until_ms = td_mono_ms() + pool->backoff_ms;
}

/* ---- acting on changes ---- */

/* Connections whose mail is done but which are not yet in step again (a refusal leaves replies to read, and a
 * RSET): they are free in a moment, sooner than a handshake. */
static size_t settling(const struct pool *pool)
{
    size_t count = 0;

    for (const struct member *member = pool->members; member; member = member->next)
        count +=
            member->state == MEMBER_READY && member->jobs == 0 && !member->in_idle && !member_worn_out(member);
    return count;
}

static void open_more(struct pool *pool)
{
    size_t free_soon = pool->waiting.count > 0 ? settling(pool) : 0;
    size_t wanted = pool->retrying.count + (pool->waiting.count > free_soon ? pool->waiting.count - free_soon : 0);

    if (wanted < pool->warm)
        wanted = pool->warm;
    pool->warm = 0;
    while (pool->opening < HANDSHAKES_MAX && pool->opening < wanted && pool_may_open(pool) > 0) {
        if (!member_open(pool)) {
            pool_back_off(pool); /* out of memory: later */
            pool_give_back_excess(pool);
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
    while ((job = pool_job_shift(&list)))
        pool_job_done(pool, job, &result);
}

static void retire(struct pool *pool)
{
    while (pool->idle && (pool->stopping || pool->ready > pool_cap(pool)))
        member_quit(pool->idle);
    if (!pool->stopping)
        return;
    for (struct member *member = pool->members, *next; member; member = next) {
        next = member->next;
        if (member->state == MEMBER_OPENING)
            member_drop(member);
    }
}

static void on_pool_timer(uv_timer_t *timer)
{
    pool_dirty(timer->data);
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
    enum td_stage before = td_stage(TD_STAGE_TURN);
    size_t room;

    pool->dirty = false;
    uv_idle_stop(&pool->awake);
    rise_limit(pool, now_ms);
    give_returned(pool);
    for (size_t n = pool->idle_count;
         n > 0 && pool->idle && (pool->waiting.count > 0 || pool_retry_anywhere(pool)); n--)
        member_run(pool->idle);
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
    td_stage(before);
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
    pool_job_append(&pool->waiting, job);
    pool->had_room = pool_room(pool) > 0;
    pool_dirty(pool);
    return TD_OK;
}

void pool_limit(struct pool *pool, size_t max_connections)
{
    pool->limit = max_connections > 0 ? max_connections : 1;
    pool->limit_rise_ms = pool->limit < (size_t)pool->relay->max_connections ? td_mono_ms() + LIMIT_RISE_MS : 0;
    pool_dirty(pool);
}

void pool_give_back(struct pool *pool)
{
    jobs_move(&pool->returned, &pool->retrying);
    jobs_move(&pool->returned, &pool->waiting);
    pool_dirty(pool);
}

void pool_stop(struct pool *pool, void (*cb)(void *user), void *user)
{
    pool->stopping = true;
    pool->stopped = cb;
    pool->stopped_user = user;
    pool_probe_drop(pool);
    pool_give_back(pool);
}

/* ---- life ---- */

static struct td_metric *metric(struct td_metrics *metrics, enum td_metric_type type, const char *name,
                                const char *help, const char *relay, const char *label, const char *value)
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

    pool->connections_gauge = metric(metrics, TD_GAUGE, "tandem_dispatch_connections",
                                     "Established SMTP connections", relay, NULL, NULL);
    pool->final_seconds = metric(metrics, TD_HISTOGRAM, "tandem_dispatch_final_reply_seconds",
                                 "From the final dot to its reply, accepted mails", relay, NULL, NULL);
    pool->retries =
        metric(metrics, TD_COUNTER, "tandem_dispatch_stale_connections_total",
               "Mails given a fresh connection because an idle one had been closed", relay, NULL, NULL);
    pool->resumed = metric(metrics, TD_COUNTER, "tandem_dispatch_tls_resumed_total",
                           "Connections whose TLS session was resumed instead of made anew", relay, NULL, NULL);
    for (int i = 0; i < RELAY_EVENT_COUNT; i++)
        pool->handshakes[i] =
            metric(metrics, TD_COUNTER, "tandem_dispatch_connection_events_total", "What became of connections",
                   relay, "event", relay_event_name((enum relay_event)i));
    for (int i = 0; i <= ATTEMPT_INVALID; i++)
        pool->attempts[i] = metric(metrics, TD_COUNTER, "tandem_dispatch_attempts_total", "Attempts by result",
                                   relay, "result", attempt_kind_name((enum attempt_kind)i));
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
    pool->handles = 5;
    pool_silence_start(pool);
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
    while (pool->members)
        member_drop(pool->members);
    if (pool->probe.conn)
        connection_close(pool->probe.conn);
    connector_free(pool->connector);
    uv_close((uv_handle_t *)&pool->prepare, pool_handle_closed);
    uv_close((uv_handle_t *)&pool->check, pool_handle_closed);
    uv_close((uv_handle_t *)&pool->awake, pool_handle_closed);
    uv_close((uv_handle_t *)&pool->timer, pool_handle_closed);
    uv_close((uv_handle_t *)&pool->silence_timer, pool_handle_closed);
}
