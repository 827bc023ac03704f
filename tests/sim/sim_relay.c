/* Relays and the connections to them: what connection.h promises, without sockets. A relay writes its ledger when
 * the whole final dot has reached it, before it answers; the answer may never arrive.
 *
 *   start --round trips--> the dot reaches the relay: taken or refused --half a round trip--> result
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connection.h"
#include "mail.h"
#include "tandem/clock.h"

enum { FLIGHT = SMTP_PIPELINED_MAX };

struct connector {
    struct proc *proc;
    const struct td_relay_settings *settings;
    size_t relay;
};

struct flight {
    struct flight *next; /* all of this relay */
    struct connection *conn;
    struct smtp_mail mail;
    struct campaign_world *campaign;
    uint32_t index;
    unsigned life;
    bool reused;
    bool over;     /* its result is known here, or nobody is left to know */
    bool left;     /* nobody is left: what is in the socket goes on */
    bool at_relay; /* the dot has reached it */
    bool taken;
    uint64_t dot_us, deadline;
    struct attempt_result result;
};

struct connection {
    struct connection *next; /* all of this relay */
    struct connector *connector;
    const struct connection_ops *ops;
    void *user;
    unsigned life;
    bool up, closed, quitting, running, pipelining, was_idle;
    enum smtp_end end;
    struct flight *flight[FLIGHT];
    size_t flights;
    uint64_t mails, rtt, idle_since, turn;
};

static struct {
    enum relay_mode mode;
    unsigned loses; /* final replies of 1000 */
    struct connection *connections;
} relays[SIM_RELAYS];

static const char *name_of(size_t relay)
{
    return sim.proc[0].settings.relays[relay].name;
}

static bool here(const struct connection *conn)
{
    return !conn->closed && conn->life == conn->connector->proc->life && conn->connector->proc->alive;
}

/* ---- replies ---- */

static struct smtp_reply reply(int code, const char *enhanced, const char *text)
{
    struct smtp_reply r = {.code = code};

    snprintf(r.enhanced, sizeof(r.enhanced), "%s", enhanced);
    snprintf(r.text, sizeof(r.text), "%s", text);
    return r;
}

/* What the relay says to this mail now. */
static struct attempt_result verdict(struct flight *f, size_t relay)
{
    struct recipient *r = &f->campaign->rcpt[f->index];
    struct attempt_result result = {.kind = ATTEMPT_REPLIED, .phase = PHASE_RCPT, .reused = f->reused};

    switch (relays[relay].mode) {
    case MODE_BUSY:
        if (sim_chance(700)) {
            result.phase = PHASE_MAIL;
            result.reply = reply(454, "4.7.0", "Throttling failure: Maximum sending rate exceeded.");
            return result;
        }
        break;
    case MODE_FAILING:
        if (sim_chance(800)) {
            result.phase = sim_chance(500) ? PHASE_FINAL : PHASE_DATA;
            result.reply = reply(451, "4.3.0", "Temporary service failure");
            return result;
        }
        break;
    case MODE_PAUSED:
        result.phase = PHASE_FINAL;
        result.reply = reply(554, "5.7.0", "Message rejected: Sending paused for this account.");
        return result;
    case MODE_WELL:
    case MODE_REFUSING:
    case MODE_SLOW:
    case MODE_TARPIT:
    case MODE_AUTH:
    case MODE_COUNT:
        break;
    }
    switch ((enum refusal)r->refusal[relay]) {
    case REFUSAL_HARD:
        result.reply = reply(550, "5.1.1", "no such mailbox");
        return result;
    case REFUSAL_SOFT_FIRST:
        if (r->deferrals > 0) {
            r->deferrals--;
            result.reply = reply(450, "4.2.1", "mailbox is busy");
            return result;
        }
        break;
    case REFUSAL_MESSAGE:
        result.phase = PHASE_FINAL;
        result.reply = reply(554, "5.6.0", "not this message");
        return result;
    case REFUSAL_FICKLE: /* says this now and that a moment later */
        if (sim_chance(600)) {
            result.reply =
                sim_chance(500) ? reply(550, "5.1.1", "no such mailbox") : reply(450, "4.2.1", "mailbox is busy");
            return result;
        }
        break;
    case REFUSAL_NONE:
        break;
    }
    result.kind = ATTEMPT_ACCEPTED;
    result.phase = PHASE_FINAL;
    result.reply = reply(250, "2.0.0", "Ok: queued as Q1");
    return result;
}

/* ---- results ---- */

static void run(struct connection *conn);

static void flight_remove(struct connection *conn, const struct flight *f)
{
    for (size_t i = 0; i < conn->flights; i++)
        if (conn->flight[i] == f) {
            memmove(&conn->flight[i], &conn->flight[i + 1], (conn->flights - i - 1) * sizeof(conn->flight[0]));
            conn->flights--;
            return;
        }
}

static void settle(struct flight *f, const struct attempt_result *result)
{
    struct connection *conn = f->conn;

    f->over = true;
    flight_remove(conn, f);
    if (result->kind == ATTEMPT_UNCONFIRMED) {
        f->campaign->rcpt[f->index].unconfirmed++;
        sim.lost_replies++;
    }
    sim_trace("  %s/%u at %s: %s in %s, %d", f->campaign->id, f->index, name_of(conn->connector->relay),
              attempt_kind_name(result->kind), smtp_phase_name(result->phase), result->reply.code);
    conn->ops->result(conn->user, f->mail.user, result);
}

/* Everything in flight gets its result by how far it came, then the connection is gone. */
static void break_up(struct connection *conn, enum smtp_end why)
{
    conn->end = why;
    while (conn->flights > 0) {
        struct flight *f = conn->flight[0];
        struct attempt_result result = {.reused = f->reused};

        /* Its dot may have been handed to the socket a moment ago. */
        if (f->at_relay || (sim.now + conn->rtt / 2 >= f->dot_us && sim_chance(500))) {
            result.kind = ATTEMPT_UNCONFIRMED;
            result.phase = PHASE_FINAL;
        } else {
            result.kind = ATTEMPT_NOT_TAKEN;
            result.phase = (enum smtp_phase)sim_between(PHASE_MAIL, PHASE_BODY);
        }
        settle(f, &result);
    }
    conn->closed = true;
    conn->ops->ended(conn->user, why);
}

static void on_result(void *arg, uint64_t tag)
{
    struct flight *f = arg;

    (void)tag;
    if (f->over || !here(f->conn))
        return;
    settle(f, &f->result);
    if (!f->conn->closed)
        run(f->conn);
}

static void on_sent(void *arg, uint64_t tag)
{
    struct flight *f = arg;

    (void)tag;
    if (!f->over && here(f->conn))
        f->conn->ops->sent(f->conn->user, f->mail.user, sim.now);
}

static void on_final_timeout(void *arg, uint64_t tag)
{
    struct flight *f = arg;

    (void)tag;
    if (!f->over && here(f->conn))
        break_up(f->conn, SMTP_END_TIMEOUT);
}

/* The message as it was put together must be what was rendered for this recipient. */
static void check_bytes(const struct flight *f)
{
    static const char asks[] = "X-SES-CONFIGURATION-SET: sim\r\nX-SES-MESSAGE-TAGS: tandem=";
    bool tells = f->conn->connector->settings->ses_configuration_set != NULL;
    const struct slice *own = &f->mail.slices[1];
    char want[64];
    size_t bytes = 0, len = (size_t)snprintf(want, sizeof(want), "X-Sim: %s/%u\r\n", f->campaign->id, f->index);

    for (size_t i = 0; i < f->mail.slice_count; i++)
        bytes += f->mail.slices[i].len;
    /* The first slice is for the relay, which takes it out. */
    if (f->mail.slice_count != 3 || (f->mail.slices[0].len > 0) != tells ||
        (tells && memcmp(f->mail.slices[0].data, asks, sizeof(asks) - 1) != 0) || own[0].len != len ||
        memcmp(own[0].data, want, len) != 0 || own[1].len != f->campaign->blob_len ||
        memcmp(own[1].data, f->campaign->blob, f->campaign->blob_len) != 0)
        sim_violation("bytes", "%s/%u: other bytes than rendered (%zu)", f->campaign->id, f->index, bytes);
}

static void on_dot(void *arg, uint64_t tag)
{
    struct flight *f = arg;
    struct connection *conn = f->conn;
    size_t relay = conn->connector->relay;
    struct recipient *r = &f->campaign->rcpt[f->index];
    uint64_t answer_us = conn->rtt / 2;
    bool alive = f->life == conn->connector->proc->life && conn->connector->proc->alive;

    (void)tag;
    if (f->over && !f->left)
        return;
    if (conn->connector->proc->stopped_until > sim.now && alive && sim_chance(500)) {
        sim_at(conn->connector->proc->stopped_until, NULL, on_dot, f, 0); /* the rest was not yet in the socket */
        return;
    }
    if (f->left && sim_chance(500))
        return; /* its sender died before all of it was in the socket */
    if (alive)
        check_bytes(f);
    f->at_relay = true;
    f->result = verdict(f, relay);
    f->result.final_us = 2 * answer_us;
    if (f->result.kind == ATTEMPT_ACCEPTED) {
        f->taken = true;
        r->taken[relay]++;
        sim.taken_at = sim.now;
        sim_trace("  relay %s takes %s/%u (%u)", name_of(relay), f->campaign->id, f->index, r->taken[relay]);
        sim_evidence(f->campaign, f->index, relay);
    }
    if (relays[relay].mode == MODE_SLOW)
        answer_us += sim_between(200 * MS, 2000 * MS);
    if (relays[relay].mode == MODE_TARPIT)
        answer_us += sim_between(5 * SEC, 25 * SEC);
    f->result.final_us = answer_us;
    if (f->result.phase == PHASE_FINAL && sim_below(1000) < relays[relay].loses) {
        sim_trace("  relay %s loses its final reply to %s/%u", name_of(relay), f->campaign->id, f->index);
        answer_us = UINT64_MAX;
    }
    if (!alive)
        return;
    if (answer_us != UINT64_MAX)
        sim_after(answer_us, conn->connector->proc, on_result, f, 0);
    else if (sim_chance(500))
        sim_after(conn->rtt, conn->connector->proc, on_final_timeout, f, 0); /* reset instead of a reply */
    sim_after((uint64_t)conn->connector->settings->final_timeout_ms * MS, conn->connector->proc, on_final_timeout,
              f, 0);
}

/* ---- starting mails ---- */

static void start(struct connection *conn, const struct smtp_mail *mail)
{
    struct flight *f = sim_alloc(sizeof(*f));
    const struct mail *under_test = ((const struct mail_job *)mail->user)->user;
    const char *at = strchr(mail->recipient, '.');

    f->conn = conn;
    f->mail = *mail;
    f->life = conn->life;
    f->reused = conn->mails++ > 0;
    /* "r<index>.<campaign>@example" */
    f->index = (uint32_t)strtoul(mail->recipient + 1, NULL, 10);
    f->campaign = sim_campaign(at + 1, strcspn(at + 1, "@"));
    if (strcmp(under_test->msg->campaign_id, f->campaign->id) != 0 || under_test->msg->index != f->index)
        sim_violation("bytes", "%s/%u goes out as %s", f->campaign->id, f->index, under_test->key);
    f->dot_us = sim.now + conn->rtt * (conn->pipelining ? 1 : 3) + conn->rtt / 2;
    conn->flight[conn->flights++] = f;
    sim_trace("  %s/%u starts at %s", f->campaign->id, f->index, name_of(conn->connector->relay));
    sim_at(f->dot_us - conn->rtt / 2, conn->connector->proc, on_sent, f, 0);
    if (sim_effect())
        sim_at(f->dot_us, NULL, on_dot, f, 0);
}

static void on_idle(void *arg, uint64_t turn)
{
    struct connection *conn = arg;

    if (here(conn) && conn->up && conn->turn == turn && conn->flights == 0 && conn->end == SMTP_OPEN &&
        !conn->quitting)
        conn->ops->stale(conn->user);
}

static void on_bye(void *arg, uint64_t tag)
{
    struct connection *conn = arg;

    (void)tag;
    if (here(conn))
        break_up(conn, SMTP_END_QUIT);
}

static void run(struct connection *conn)
{
    struct smtp_mail mail;
    size_t most = conn->pipelining ? FLIGHT : 1;

    if (conn->running || conn->closed)
        return;
    conn->running = true;
    while (!conn->quitting && conn->flights < most && conn->ops->next(conn->user, &mail))
        start(conn, &mail);
    conn->running = false;
    if (conn->flights > 0) {
        conn->was_idle = false;
        return;
    }
    if (conn->quitting) {
        sim_after(conn->rtt, conn->connector->proc, on_bye, conn, 0);
        return;
    }
    if (conn->was_idle)
        return;
    conn->was_idle = true;
    sim_after((uint64_t)conn->connector->settings->idle_timeout_ms * MS, conn->connector->proc, on_idle, conn,
              ++conn->turn);
    conn->ops->idle(conn->user);
}

/* ---- coming up ---- */

static void on_up(void *arg, uint64_t tag)
{
    struct connection *conn = arg;
    enum relay_mode mode = relays[conn->connector->relay].mode;

    (void)tag;
    if (!here(conn) || conn->up)
        return;
    if (mode == MODE_REFUSING || mode == MODE_AUTH) {
        conn->closed = true;
        conn->ops->failed(conn->user, mode == MODE_AUTH ? RELAY_AUTH : RELAY_CONNECT,
                          sim_chance(500) ? "Connection refused" : "simulated");
        return;
    }
    conn->up = true;
    conn->ops->up(conn->user);
    run(conn);
}

int connector_new(uv_loop_t *loop, const struct td_relay_settings *settings, struct connector **ret,
                  struct td_err *reterr)
{
    struct connector *c = sim_alloc(sizeof(*c));

    (void)reterr;
    c->proc = loop->data;
    c->settings = settings;
    c->relay = (size_t)(settings - c->proc->settings.relays);
    *ret = c;
    return TD_OK;
}

void connector_rules(struct connector *connector, const struct reply_rules *rules)
{
    (void)connector;
    (void)rules; /* it judges no handshakes: its relays' failures are events already */
}

uint64_t connector_heard_us(const struct connector *connector)
{
    (void)connector;
    return td_mono_us(); /* its relays lose replies and refuse, they do not hang all at once */
}

enum connection_stage connection_stage(const struct connection *conn)
{
    return conn->up ? CONNECTION_GREETED : CONNECTION_REACHING;
}

void connection_set_apart(struct connection *conn)
{
    (void)conn;
}

uint64_t connection_secured_us(const struct connection *conn)
{
    return 2 * conn->rtt;
}

void connector_free(struct connector *connector)
{
    (void)connector;
}

int connection_open(struct connector *connector, const struct connection_ops *ops, void *user,
                    struct connection **ret, struct td_err *reterr)
{
    struct connection *conn = sim_alloc(sizeof(*conn));

    (void)reterr;
    conn->connector = connector;
    conn->ops = ops;
    conn->user = user;
    conn->life = connector->proc->life;
    conn->rtt = sim_between(2 * MS, 60 * MS);
    conn->pipelining = connector->settings->pipelining;
    conn->next = relays[connector->relay].connections;
    relays[connector->relay].connections = conn;
    sim_after(relays[connector->relay].mode == MODE_SLOW ? 20 * conn->rtt : 3 * conn->rtt, connector->proc, on_up,
              conn, 0);
    *ret = conn;
    return TD_OK;
}

void connection_run(struct connection *conn)
{
    conn->was_idle = false;
    run(conn);
}

void connection_quit(struct connection *conn)
{
    conn->quitting = true;
    run(conn);
}

static void on_noop(void *arg, uint64_t tag)
{
    struct connection *conn = arg;

    (void)tag;
    if (!here(conn))
        return;
    conn->was_idle = false;
    run(conn);
}

void connection_noop(struct connection *conn)
{
    conn->was_idle = true; /* busy until the answer */
    sim_after(conn->rtt, conn->connector->proc, on_noop, conn, 0);
}

void connection_give_up(struct connection *conn)
{
    (void)conn;
    abort(); /* of a silent relay only */
}

bool connection_final_out(const struct connection *conn)
{
    (void)conn;
    return true;
}

void connection_close(struct connection *conn)
{
    conn->closed = true;
    for (size_t i = 0; i < conn->flights; i++)
        conn->flight[i]->over = conn->flight[i]->left = true;
}

enum smtp_end connection_end(const struct connection *conn)
{
    return conn->end;
}

size_t connection_slots(const struct connection *conn)
{
    return conn->pipelining ? FLIGHT : 1;
}

bool connection_resumed(const struct connection *conn)
{
    (void)conn;
    return false; /* its relays have no TLS */
}

uint64_t connection_mails(const struct connection *conn)
{
    return conn->mails;
}

/* ---- faults ---- */

void sim_relay_mode(size_t relay, enum relay_mode mode)
{
    relays[relay].mode = mode;
}

static void on_reset(void *arg, uint64_t tag)
{
    struct connection *conn = arg;

    (void)tag;
    if (!here(conn))
        return;
    if (conn->up) {
        break_up(conn, SMTP_END_LOST);
    } else {
        conn->closed = true;
        conn->ops->failed(conn->user, RELAY_CONNECT, "reset");
    }
}

void sim_relay_reset(size_t relay)
{
    struct connection **at = &relays[relay].connections, *conn;

    while ((conn = *at)) {
        if (!here(conn)) {
            *at = conn->next;
            continue;
        }
        sim_after(sim_below(5 * MS), conn->connector->proc, on_reset, conn, 0);
        at = &conn->next;
    }
}

void sim_relay_loses(size_t relay, unsigned per_1000)
{
    relays[relay].loses = per_1000;
}

/* Nobody is left to hear the results; some of the mails arrive all the same (on_dot). */
void sim_relays_killed(struct proc *proc)
{
    for (size_t i = 0; i < SIM_RELAYS; i++)
        for (struct connection *conn = relays[i].connections; conn; conn = conn->next) {
            if (conn->connector->proc != proc || conn->life != proc->life)
                continue;
            for (size_t k = 0; k < conn->flights; k++) {
                struct recipient *r = &conn->flight[k]->campaign->rcpt[conn->flight[k]->index];

                conn->flight[k]->over = conn->flight[k]->left = true;
                r->killed++;
                sim.may_doubt++;
            }
        }
}

void sim_relays_reset(void)
{
    memset(relays, 0, sizeof(relays));
}
