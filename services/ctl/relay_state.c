#include "relay_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CREEP_PER_S 0.02 /* as relay_report.lua lets a cut rate come back */
#define RAMP_MS 10000

void relay_state_field(struct relay_state *state, const char *name, const char *value)
{
    const struct {
        const char *name;
        char *at;
        size_t size;
    } texts[] = {{"st", state->st, sizeof(state->st)},
                 {"reason", state->reason, sizeof(state->reason)},
                 {"by", state->by, sizeof(state->by)},
                 {"evidence", state->evidence, sizeof(state->evidence)},
                 {"bounces", state->bounces, sizeof(state->bounces)}};
    const struct {
        const char *name;
        int64_t *at;
    } times[] = {{"till", &state->till_ms},
                 {"next_mail", &state->next_mail_ms},
                 {"closed_at", &state->closed_at_ms},
                 {"factor_at", &state->factor_at_ms}};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (strcmp(name, texts[i].name) == 0)
            snprintf(texts[i].at, texts[i].size, "%s", value);
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
        if (strcmp(name, times[i].name) == 0)
            *times[i].at = strtoll(value, NULL, 10);
    if (strcmp(name, "ep") == 0)
        state->epoch = strtoull(value, NULL, 10);
    else if (strcmp(name, "opens") == 0)
        state->opens = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "level") == 0)
        state->level = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "bounce_hard") == 0)
        state->bounce_hard = strtoull(value, NULL, 10);
    else if (strcmp(name, "bounce_taken") == 0)
        state->bounce_taken = strtoull(value, NULL, 10);
    else if (strcmp(name, "factor") == 0)
        state->factor = strtod(value, NULL);
    state->known = state->st[0] != '\0';
}

double relay_state_factor(const struct relay_state *state, int64_t now_ms)
{
    double factor = state->factor > 0 ? state->factor : 1;

    if (strcmp(state->st, "limited") == 0 && now_ms > state->factor_at_ms)
        factor += CREEP_PER_S * (double)(now_ms - state->factor_at_ms) / 1000;
    return factor > 1 ? 1 : factor;
}

void relay_window_add(struct relay_window *window, const char *bucket, int64_t now_ms)
{
    uint64_t v[6];
    int64_t now_s = now_ms / 1000;

    if (sscanf(bucket, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &v[0], &v[1], &v[2], &v[3], &v[4],
               &v[5]) != 6)
        return;
    if (v[0] > (uint64_t)now_s || (uint64_t)now_s - v[0] >= RELAY_WINDOW_S)
        return;
    window->accepted += v[1];
    window->failed += v[2];
    window->busy += v[3];
    window->timed += v[4];
    window->slow += v[5];
}

static const struct {
    const char *reason, *words;
} reasons[] = {
    /* Whole codes before their first words. */
    {"well.start", "nothing has gone wrong with it since it is known"},
    {"well.ramp", "it went well on trial; its share of new mail grows"},
    {"well.probing", "it is tried: probes without mail, then a few mails"},
    {"well.recovered", "its full rate goes through again"},
    {"well.", "it is well"},
    {"start.unknown", "its shared state has not been read yet"},
    {"operator.drain", "an operator has taken it out of use"},
    {"operator.pause", "an operator has taken it out of use for a time"},
    {"operator.enable", "an operator has given it back"},
    {"operator.", "an operator has decided so"},
    {"down.dns", "its name does not resolve"},
    {"down.connect", "no connection comes up: unreachable, or too slow"},
    {"down.refused", "it refuses connections, or what is sent first"},
    {"down.tls", "TLS fails: its certificate or its offer"},
    {"down.banner", "it greets with a refusal, garbage or nothing"},
    {"down.auth_service", "its service for credentials fails"},
    {"down.auth", "it refuses our credentials"},
    {"down.reset", "connections break while mails are sent"},
    {"down.paused", "our account there is paused: its support, not time, ends that"},
    {"down.access_denied", "our account may not send there"},
    {"down.relaying_denied", "it will not relay for us"},
    {"down.closing", "it says that it is going down"},
    {"down.service_failure", "it says that it fails inside"},
    {"down.", "it is down"},
    {"overloaded.rate", "it says that we send faster than it allows"},
    {"overloaded.quota", "its quota, of a day or a month, is used up"},
    {"overloaded.connections", "it says that we hold too many connections"},
    {"overloaded.latency", "it takes long to answer the end of a mail"},
    {"overloaded.sustained", "it stayed busy at the lowest rate"},
    {"overloaded.again", "it was still busy when it was tried again"},
    {"overloaded.", "it says that it is busy"},
    {"", "a rule of its own"},
};

const char *relay_reason_words(const char *reason)
{
    size_t i = 0;

    for (;; i++) {
        size_t len = strlen(reasons[i].reason);
        bool prefix = len == 0 || reasons[i].reason[len - 1] == '.';

        if (prefix ? strncmp(reason, reasons[i].reason, len) == 0 : strcmp(reason, reasons[i].reason) == 0)
            return reasons[i].words;
    }
}

void relay_time_words(int64_t unix_ms, char out[32])
{
    time_t at = (time_t)(unix_ms / 1000);
    struct tm tm;

    if (unix_ms <= 0 || !gmtime_r(&at, &tm) || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        out[0] = '\0';
}

static void at_time(char *out, size_t size, const char *what, int64_t at_ms, int64_t now_ms)
{
    char text[32];
    int64_t left_s = at_ms > now_ms ? (at_ms - now_ms + 999) / 1000 : 0;

    relay_time_words(at_ms, text);
    if (left_s == 0)
        snprintf(out, size, "%s now, as soon as a dispatcher looks", what);
    else
        snprintf(out, size, "%s in %" PRId64 " s, at %s", what, left_s, text);
}

void relay_next_words(const struct relay_state *state, int64_t now_ms, char *out, size_t size)
{
    bool operator = strcmp(state->by, "operator") == 0;

    if (strcmp(state->st, "open") == 0)
        at_time(out, size, "a probe without mail", state->till_ms, now_ms);
    else if (strcmp(state->st, "half-open") == 0)
        snprintf(out, size, "closed when its trial goes well, open again when it does not");
    else if (strcmp(state->st, "paused") == 0 && operator && state->till_ms == 0)
        snprintf(out, size, "none until `tandemctl relay enable`");
    else if (strcmp(state->st, "paused") == 0 && operator)
        at_time(out, size, "it is tried again", state->till_ms, now_ms);
    else if (strcmp(state->st, "paused") == 0 || strcmp(state->st, "exhausted") == 0)
        at_time(out, size, "one mail tries it", state->next_mail_ms, now_ms);
    else if (strcmp(state->st, "limited") == 0)
        snprintf(out, size, "its full rate in %.0f s, unless it is busy again",
                 (1 - relay_state_factor(state, now_ms)) / CREEP_PER_S);
    else if (strcmp(state->st, "closed") == 0 && now_ms - state->closed_at_ms < RAMP_MS)
        at_time(out, size, "its full share of mail", state->closed_at_ms + RAMP_MS, now_ms);
    else
        snprintf(out, size, "none");
}

const char *relay_bulk_word(const struct relay_state *state)
{
    static const char *const word[] = {"full", "warned", "quarter", "stopped"};

    return word[state->level < 3 ? state->level : 3];
}

static double percent(int64_t per_10000)
{
    return (double)per_10000 / 100;
}

void relay_bulk_words(const struct relay_state *state, const struct td_relay_settings *settings, char *out, size_t size)
{
    if (state->level == 0)
        snprintf(out, size, "goes through in full; warning above %g %%, a quarter above %g %%, none above %g %%",
                 percent(settings->bounce_warn), percent(settings->bounce_throttle), percent(settings->bounce_stop));
    else if (state->level == 1)
        snprintf(out, size, "goes through in full, but bounces are surely above %g %%; a quarter above %g %%, none above %g %%",
                 percent(settings->bounce_warn), percent(settings->bounce_throttle), percent(settings->bounce_stop));
    else
        snprintf(out, size,
                 "%s, for bounces surely above %g %%; a level less once well below it for 15 minutes, or all at once by `tandemctl "
                 "relay enable`",
                 state->level == 2 ? "gets a quarter of this relay, the rest takes the next of its route"
                                   : "does not go through here",
                 percent(state->level == 2 ? settings->bounce_throttle : settings->bounce_stop));
}
