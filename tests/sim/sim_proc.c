/* A dispatcher's life: started, killed, stopped, ended by itself; and what td_app, the log and the metrics are for
 * it. */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "flow.h"
#include "tandem/log.h"
#include "tandem/stop.h"

enum { RESERVE_MIN = 8 }; /* as in flow.c */

static struct proc *proc_of(const struct td_app *app)
{
    return &sim.proc[app->loop == &sim.proc[0].loop ? 0 : app->loop == &sim.proc[1].loop ? 1 : 2];
}

/* ---- settings ---- */

static void relay_settings(struct td_relay_settings *s, size_t i)
{
    static char name[SIM_RELAYS][8] = {"alpha", "beta"}, country[SIM_RELAYS][4] = {"DE", "SE"};
    static char set[] = "sim", domain[] = "bounces.example", host[] = "relay.example", user[] = "u";

    *s = (struct td_relay_settings){.name = name[i],
                                    .host = host,
                                    .port = 465,
                                    .user = user,
                                    .country = country[i],
                                    .return_path_domain = domain,
                                    .ses_configuration_set = sim_chance(i == 0 ? 500 : 200) ? set : NULL,
                                    .max_connections = (int64_t)sim_between(1, 8),
                                    .mails_per_connection = (int64_t)sim_between(5, 200),
                                    .idle_timeout_ms = (int64_t)sim_between(1000, 8000),
                                    .max_mails_per_s = sim_chance(300) ? (int64_t)sim_between(20, 200) : 0,
                                    .max_message_bytes = 1 << 20,
                                    .pipelining = sim_chance(500),
                                    .connect_timeout_ms = 5000,
                                    .command_timeout_ms = 8000,
                                    .data_timeout_ms = 10000,
                                    .final_timeout_ms = (int64_t)sim_between(10000, 20000)};
}

void sim_proc_init(struct proc *proc, unsigned index)
{
    static char url[] = "redis://sim", key[] = "0123456789abcdef0123456789abcdef", brokers[] = "sim",
                prefix[] = "";
    static char de[] = "DE", se[] = "SE", *countries[] = {de, se};
    struct td_settings *s = &proc->settings;

    proc->index = index;
    snprintf(proc->name, sizeof(proc->name), "d%u", index + 1);
    snprintf(proc->instance, sizeof(proc->instance), "dispatch-%u", index + 1);
    proc->skew_ms = (int64_t)sim_below(1500) - 750;
    *s = (struct td_settings){.instance = proc->instance,
                              .kafka_brokers = brokers,
                              .kafka_topic_prefix = prefix,
                              .kafka_lanes = SIM_PARTS,
                              .kafka_session_timeout_ms = (int64_t)(sim_session_us() / MS),
                              .redis_url = url,
                              .redis_timeout_ms = (int64_t)sim_between(500, 2000),
                              .keys_token = key,
                              .dispatch_window =
                                  (int64_t)(sim_chance(300) ? sim_between(5, 40) : sim_between(40, 2000)),
                              .dispatch_lane_lease_ms = sim.proc[0].settings.dispatch_lane_lease_ms,
                              .dispatch_cache_bytes = 1 << 20,
                              .dispatch_drain_ms = (int64_t)sim_between(2000, 20000),
                              .dispatch_redis_wait_ms = (int64_t)sim_between(5000, 30000),
                              .dispatch_report_ms = 250,
                              .dispatch_evidence_wait_ms = (int64_t)sim_between(5000, 90000),
                              .health_probe_ms = 1000,
                              .health_probe_max_ms = 10000,
                              .allowed_countries = {countries, 2},
                              .relay_count = SIM_RELAYS};
    if (index == 0) {
        s->dispatch_lane_lease_ms = (int64_t)sim_between(3000, 10000);
        for (size_t i = 0; i < SIM_RELAYS; i++)
            relay_settings(&s->relays[i], i);
    } else {
        memcpy(s->relays, sim.proc[0].settings.relays, sizeof(s->relays));
    }
    proc->app = (struct td_app){.loop = &proc->loop, .settings = s, .service = "dispatch"};
}

/* ---- life ---- */

static void on_start(void *arg, uint64_t tag)
{
    (void)tag;
    sim_proc_start(arg);
}

static void reset(struct proc *proc)
{
    proc->life++;
    proc->stopped_until = 0;
    proc->state = NULL;
    proc->stopping = proc->exit_wanted = proc->doomed = proc->turn_due = false;
    proc->die_at = 0;
    proc->idle_handles = 0;
    proc->hooks = NULL;
    proc->closing = NULL;
    proc->redis = NULL;
    proc->in = NULL;
    proc->out = NULL;
    proc->table = NULL;
}

void sim_proc_start(struct proc *proc)
{
    struct td_err err = {TD_OK, ""};

    if (proc->alive)
        return;
    reset(proc);
    proc->alive = true;
    proc->loop.data = proc;
    proc->restart_at = 0;
    sim.current = proc;
    sim_trace("starts");
    if (dispatch_service.start(&proc->app, &proc->state, &err) < 0)
        sim_violation("start", "%s", err.text);
    sim_proc_turn(proc);
    sim.current = NULL;
}

/* What flow.c promises: no more than fill the connections (two each with PIPELINING) and the reserve. */
static size_t most_begun(const struct proc *proc)
{
    size_t connections = 0, slots = 0;

    for (size_t i = 0; i < SIM_RELAYS; i++) {
        const struct td_relay_settings *s = &proc->settings.relays[i];

        connections += (size_t)s->max_connections;
        slots += (size_t)s->max_connections * (s->pipelining ? 2 : 1);
    }
    return slots + (connections / 2 < RESERVE_MIN ? RESERVE_MIN : connections / 2);
}

/* Mails of this process whose end may stay unknown now: begun and not ended, or ended and not written down. */
void sim_proc_doubt(struct proc *proc)
{
    const struct dispatch *d = proc->state;
    size_t begun = 0, ending = 0, in[MAIL_RETRYING + 1] = {0};

    if (!d)
        return;
    for (const struct lane *lane = lane_first(d->lanes); lane; lane = lane->next)
        for (const struct mail *mail = lane->mails; mail; mail = mail->lane_next) {
            bool is = mail->state == MAIL_BEGIN || (mail->begun && mail->state != MAIL_ENDING);

            sim.may_doubt += is;
            if (mail->in_doubt || mail->state == MAIL_RETRYING ||
                (mail->state == MAIL_DELAYED && (mail->unbegin || !td_redis_up(d->redis))))
                continue; /* really in doubt, just being cleared, or not to be cleared without Redis: not bounded
                           */
            begun += is;
            in[mail->state] += is;
            ending += mail->state == MAIL_ENDING;
        }
    sim.may_doubt += ending + outcomes_owed(d->outcomes);
    /* Questions that were lost are asked again when Redis is back, and may all be answered GO: some more for a
     * moment. */
    if (begun > 2 * most_begun(proc))
        sim_violation(
            "bound",
            "%s has begun %zu mails, at most %zu may be in doubt: %zu asked, %zu ready, %zu sending, %zu delayed",
            proc->name, begun, most_begun(proc), in[MAIL_BEGIN], in[MAIL_GO], in[MAIL_SENDING], in[MAIL_DELAYED]);
}

static void gone(struct proc *proc)
{
    sim_check_died(proc);
    proc->alive = false;
    proc->state = NULL;
    proc->life++;
    sim_memory_release(proc);
    sim_group_killed(proc);
    sim_log_killed(proc);
    sim_redis_killed(proc);
    if (proc->restart_at == 0)
        proc->restart_at = sim.now + sim_between(50 * MS, 20 * SEC);
    if (sim.calm && proc->restart_at > sim.now + SEC)
        proc->restart_at = sim.now + SEC;
    sim_at(proc->restart_at, NULL, on_start, proc, 0);
}

void sim_proc_kill(struct proc *proc, const char *why)
{
    if (!proc->alive)
        return;
    sim.current = NULL;
    sim_trace("%s is killed: %s", proc->name, why);
    sim_proc_doubt(proc);
    sim_relays_killed(proc);
    sim.kills++;
    gone(proc);
}

static void on_patience(void *arg, uint64_t tag)
{
    struct proc *proc = arg;

    (void)tag;
    sim_trace("has not drained in time");
    proc->doomed = true; /* td_app leaves without any destructor */
}

void sim_proc_stop(struct proc *proc)
{
    if (!proc->alive || proc->stopping)
        return;
    proc->stopping = true;
    sim.current = proc;
    sim_trace("is asked to stop");
    sim_proc_doubt(proc);
    sim_after((uint64_t)(proc->settings.dispatch_drain_ms + 5000) * MS, proc, on_patience, proc, 0);
    dispatch_service.stop(proc->state);
    sim_proc_turn(proc);
    sim.current = NULL;
}

/* As app.c: out of the loop, service->free, what is closing is closed, exit. */
static void leave(struct proc *proc)
{
    sim_trace("ends");
    sim.ends++;
    sim_proc_doubt(proc);
    dispatch_service.free(proc->state);
    sim_uv_close_all(proc);
    if (sim_memory_left(proc))
        sim_violation("memory", "%s leaves %zu blocks behind", proc->name, sim_memory_left(proc));
    proc->state = NULL;
    sim.current = NULL;
    sim_relays_killed(proc);
    gone(proc);
}

void sim_proc_turn(struct proc *proc)
{
    if (!proc->doomed)
        sim_uv_turn(proc);
    if (proc->doomed)
        sim_proc_kill(proc, "kill -9 in the middle");
    else if (proc->exit_wanted)
        leave(proc);
}

/* ---- td_app ---- */

void td_app_stopped(struct td_app *app)
{
    proc_of(app)->exit_wanted = true;
}

void td_app_fail(struct td_app *app, const struct td_err *err)
{
    sim_trace("fails: %s", err->text);
    proc_of(app)->exit_wanted = true;
}

void td_app_left(struct td_app *app, const char *what, size_t count)
{
    (void)app;
    if (count > 0)
        sim_trace("leaves %s=%zu", what, count);
}

/* ---- stops: of several processes here, none of which hurries ---- */

uint64_t td_stop_by(enum td_stop_stage stage)
{
    (void)stage;
    return UINT64_MAX;
}

uint64_t td_stop_sooner(uint64_t by_ms, enum td_stop_stage stage)
{
    (void)stage;
    return by_ms;
}

/* ---- log and metrics ---- */

void td_log(enum td_level level, const char *event, const char *fmt, ...)
{
    char text[600];
    va_list args;

    if (!sim.trace)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sim_trace("%s %s %s", level == TD_ERROR ? "error" : level == TD_WARN ? "warn" : "log", event, text);
}

struct td_metric *td_metric(struct td_metrics *metrics, enum td_metric_type type, const char *name,
                            const char *help, const char *labels)
{
    (void)metrics;
    (void)type;
    (void)name;
    (void)help;
    (void)labels;
    return NULL;
}

void td_metric_add(struct td_metric *metric, double value)
{
    (void)metric;
    (void)value;
}

void td_metric_set(struct td_metric *metric, double value)
{
    (void)metric;
    (void)value;
}

void td_metric_observe(struct td_metric *metric, double seconds)
{
    (void)metric;
    (void)seconds;
}
