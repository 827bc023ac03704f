/* pool_member.c - one connection of a pool: which jobs it takes, what becomes of them, when it goes. */
#include <stdlib.h>

#include "pool_int.h"
#include "tandem/clock.h"

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
    case MEMBER_STUCK:
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
    case MEMBER_STUCK: /* it holds no place */
        break;
    }
    td_metric_set(pool->connections_gauge, (double)pool->ready);
    pool_dirty(pool);
}

/* An idle connection that the relay gave up (SES: after ten seconds, or when its fleet turns over) shows only when
 * it is used again. Nothing of the mail was answered, so a fresh connection may have it, once, and nobody needs to
 * know. */
static bool deserves_fresh(const struct mail_job *job, const struct attempt_result *result, enum smtp_end end)
{
    if (job->retried || !result->reused || result->phase != PHASE_MAIL)
        return false;
    if (result->kind == ATTEMPT_REPLIED)
        return end == SMTP_END_421;
    return result->kind == ATTEMPT_NOT_TAKEN &&
           (end == SMTP_END_LOST || end == SMTP_END_CLOSED || end == SMTP_END_421 || end == SMTP_END_QUIT);
}

const char *member_end_detail(enum smtp_end end)
{
    switch (end) {
    case SMTP_END_421:
        return "421";
    case SMTP_END_GARBAGE:
        return "out of step";
    case SMTP_END_CLOSED:
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

    if (result->kind == ATTEMPT_ACCEPTED && member->state != MEMBER_STUCK)
        silence_final(&pool->silence, result->final_us);
    member->jobs--;
    if (member->state == MEMBER_STUCK)
        pool->stuck--;
    else
        pool->in_flight--;
    pool_dirty(pool);
    if (!pool->stopping && deserves_fresh(job, result, end)) {
        job->retried = true;
        pool_job_append(&pool->retrying, job);
        td_metric_add(pool->retries, 1);
        return;
    }
    if (broken && !member->told_reset && end != SMTP_END_421) {
        member->told_reset = true;
        pool_event(pool, RELAY_RESET, member_end_detail(end));
    }
    pool_job_done(pool, job, result);
}

static void member_sent(void *user, void *mail_user, uint64_t now_us)
{
    struct member *member = user;
    struct pool *pool = member->pool;

    if (pool->ops->sent)
        pool->ops->sent(pool->user, mail_user, now_us);
}

bool member_worn_out(const struct member *member)
{
    int64_t most = member->pool->relay->mails_per_connection;

    return most > 0 && connection_mails(member->conn) >= (uint64_t)most;
}

static bool member_next(void *user, struct smtp_mail *ret)
{
    struct member *member = user;
    struct pool *pool = member->pool;
    struct mail_job *job = NULL;

    if (member->state != MEMBER_READY || member_worn_out(member) || pool->ready > pool_cap(pool))
        return false;
    if (pool->retrying.count > 0 && (connection_mails(member->conn) == 0 || pool_retry_anywhere(pool)))
        job = pool_job_shift(&pool->retrying);
    /* A second mail behind one in flight waits for the first one's last reply: only when nobody else is free, or
     * will be as soon as a handshake is done. */
    else if (member->jobs == 0 || (pool->idle_count == 0 && pool->waiting.count > pool->opening))
        job = pool_job_shift(&pool->waiting);
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

void member_silent(struct member *member)
{
    struct pool *pool = member->pool;

    member->told_reset = true; /* the relay's silence is one event, not one a connection */
    if (!connection_final_out(member->conn)) {
        connection_give_up(member->conn);
        return;
    }
    pool->in_flight -= member->jobs;
    pool->stuck += member->jobs;
    member_to(member, MEMBER_STUCK);
}

void member_quit(struct member *member)
{
    idle_remove(member);
    if (member->state != MEMBER_READY && member->state != MEMBER_STUCK)
        return;
    member_to(member, MEMBER_QUITTING);
    connection_quit(member->conn);
}

static void member_idle(void *user)
{
    struct member *member = user;
    struct pool *pool = member->pool;

    if (member->state == MEMBER_STUCK)
        member_quit(member); /* it did answer, and others have taken its place */
    if (member->state != MEMBER_READY)
        return;
    if (pool->stopping || member_worn_out(member) || pool->ready > pool_cap(pool))
        member_quit(member);
    else
        idle_push(member);
    pool_dirty(pool);
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

    took_add(&pool->silence.secure, connection_secured_us(member->conn));
    member->slots = connection_slots(member->conn);
    member_to(member, MEMBER_READY);
    pool->backoff_ms = 0;
    if (connection_resumed(member->conn))
        td_metric_add(pool->resumed, 1);
    pool_event(pool, RELAY_UP, "");
}

static void member_failed(void *user, enum relay_event what, const char *detail)
{
    struct member *member = user;
    struct pool *pool = member->pool;

    member_free(member);
    /* Several handshakes of one volley fail together: one step of the back-off for all. */
    if (td_mono_ms() >= pool->backoff_until_ms)
        pool_back_off(pool);
    pool_event(pool, what, detail);
    pool_give_back_excess(pool);
    pool_dirty(pool);
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
    .sent = member_sent,
    .result = member_result,
    .idle = member_idle,
    .stale = member_stale,
    .ended = member_ended,
};

bool member_open(struct pool *pool)
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

void member_run(struct member *member)
{
    idle_remove(member);
    connection_run(member->conn);
}

void member_drop(struct member *member)
{
    struct connection *conn = member->conn;

    member_free(member);
    connection_close(conn);
}
