#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tandem/err.h"

#define NOW_MS 5000 /* the rate "now" looks back so far */

static struct totals_relay *relay_of(struct totals *totals, const char *name)
{
    struct totals_relay *relay;

    for (size_t i = 0; i < totals->relay_count; i++)
        if (strcmp(totals->relay[i].name, name) == 0)
            return &totals->relay[i];
    if (totals->relay_count == PROGRESS_RELAYS_MAX || strlen(name) >= PROGRESS_NAME_MAX)
        return NULL;
    relay = &totals->relay[totals->relay_count++];
    memset(relay, 0, sizeof(*relay));
    snprintf(relay->name, sizeof(relay->name), "%s", name);
    return relay;
}

static void relay_field(struct totals *totals, const char *kind, size_t kind_len, const char *name, uint64_t value)
{
    struct totals_relay *relay = relay_of(totals, name);

    if (!relay)
        return;
    if (kind_len == 8 && memcmp(kind, "accepted", 8) == 0)
        relay->accepted = value;
    else if (kind_len == 7 && memcmp(kind, "refused", 7) == 0)
        relay->refused = value;
    else if (kind_len == 4 && memcmp(kind, "hard", 4) == 0)
        relay->hard = value;
    else if (kind_len == 4 && memcmp(kind, "soft", 4) == 0)
        relay->soft = value;
    else if (kind_len == 5 && memcmp(kind, "block", 5) == 0)
        relay->block = value;
}

void totals_field(struct totals *totals, const char *name, uint64_t value)
{
    const struct {
        const char *name;
        uint64_t *at;
    } fields[] = {{"submitted", &totals->submitted},    {"count", &totals->count},
                  {"accepted", &totals->accepted},      {"refused", &totals->refused},
                  {"invalid", &totals->invalid},        {"suppressed", &totals->suppressed},
                  {"expired", &totals->expired},        {"cancelled", &totals->cancelled},
                  {"unconfirmed", &totals->unconfirmed}};
    const char *colon = strchr(name, ':');

    if (colon) {
        relay_field(totals, name, (size_t)(colon - name), colon + 1, value);
        return;
    }
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (strcmp(name, fields[i].name) == 0)
            *fields[i].at = value;
}

/* From Redis, for a terminal and for JSON: without what either would obey. */
static void copy_plain(char *out, size_t size, const char *text)
{
    size_t n = 0;

    for (; *text && n + 1 < size; text++)
        out[n++] = *text >= ' ' && *text <= '~' && *text != '"' && *text != '\\' ? *text : '?';
    out[n] = '\0';
}

void totals_text(struct totals *totals, const char *name, const char *text)
{
    struct totals_relay *relay = strncmp(name, "tripped:", 8) == 0 ? relay_of(totals, name + 8) : NULL;

    if (relay)
        copy_plain(relay->left, sizeof(relay->left), *text ? text : "its bounces");
    else if (strcmp(name, "held") == 0)
        copy_plain(totals->held, sizeof(totals->held), *text ? text : "bounces");
}

int totals_why(const struct totals *totals, struct td_buf *out)
{
    int rc = TD_OK;

    for (size_t i = 0; rc == TD_OK && i < totals->relay_count; i++)
        if (*totals->relay[i].left)
            rc = td_buf_printf(out, "left %s: %s\n", totals->relay[i].name, totals->relay[i].left);
    if (rc == TD_OK && *totals->held && !totals_finished(totals))
        rc = td_buf_adds(
            out,
            strcmp(totals->held, "relays") == 0
                ? "HELD: no relay of its route takes bulk mail now, for the bounces of all campaigns (`tandemctl relay list`). "
                  "It goes on by itself when that has fallen\n"
                : "HELD: it has left every relay of its route. Look at its list; then `tandemctl relay enable RELAY "
                  "CAMPAIGN`, or cancel it\n");
    return rc;
}

uint64_t totals_done(const struct totals *totals)
{
    return totals->accepted + totals->refused + totals->invalid + totals->suppressed + totals->expired +
           totals->cancelled + totals->unconfirmed;
}

bool totals_finished(const struct totals *totals)
{
    return totals->count > 0 && totals_done(totals) >= totals->count;
}

bool totals_partly(const struct totals *totals)
{
    return totals->refused + totals->invalid + totals->expired + totals->cancelled + totals->unconfirmed > 0;
}

static int relays_json(const struct totals *totals, const char *name, size_t offset, struct td_buf *out)
{
    int rc = td_buf_printf(out, ",\"%s\":{", name);
    bool first = true;

    for (size_t i = 0; rc == TD_OK && i < totals->relay_count; i++) {
        uint64_t value;

        memcpy(&value, (const char *)&totals->relay[i] + offset, sizeof(value));
        if (value == 0)
            continue;
        /* Names of relays are a-z 0-9 - : nothing to escape. */
        rc = td_buf_printf(out, "%s\"%s\":%" PRIu64, first ? "" : ",", totals->relay[i].name, value);
        first = false;
    }
    return rc < 0 ? rc : td_buf_addc(out, '}');
}

static int left_json(const struct totals *totals, struct td_buf *out)
{
    int rc = td_buf_adds(out, ",\"left\":{");
    bool first = true;

    for (size_t i = 0; rc == TD_OK && i < totals->relay_count; i++) {
        if (!*totals->relay[i].left)
            continue;
        rc = td_buf_printf(out, "%s\"%s\":\"%s\"", first ? "" : ",", totals->relay[i].name, totals->relay[i].left);
        first = false;
    }
    return rc < 0 ? rc : td_buf_printf(out, "},\"held\":%s", *totals->held ? "true" : "false");
}

static int totals_body(const struct totals *totals, const char *campaign_id, struct td_buf *out)
{
    uint64_t done = totals_done(totals);
    int rc = td_buf_printf(out,
                           "{\"campaign_id\":\"%s\",\"submitted\":%" PRIu64 ",\"sealed\":%s,\"count\":%" PRIu64
                           ",\"done\":%" PRIu64 ",\"in_flight\":%" PRIu64 ",\"finished\":%s,\"accepted\":%" PRIu64
                           ",\"refused\":%" PRIu64 ",\"invalid\":%" PRIu64 ",\"suppressed\":%" PRIu64
                           ",\"expired\":%" PRIu64 ",\"cancelled\":%" PRIu64 ",\"unconfirmed\":%" PRIu64,
                           campaign_id, totals->submitted, totals->count ? "true" : "false", totals->count, done,
                           totals->submitted > done ? totals->submitted - done : 0,
                           totals_finished(totals) ? "true" : "false", totals->accepted, totals->refused,
                           totals->invalid, totals->suppressed, totals->expired, totals->cancelled,
                           totals->unconfirmed);

    if (rc == TD_OK)
        rc = relays_json(totals, "by_relay", offsetof(struct totals_relay, accepted), out);
    if (rc == TD_OK)
        rc = relays_json(totals, "hard_refused", offsetof(struct totals_relay, refused), out);
    if (rc == TD_OK)
        rc = relays_json(totals, "hard", offsetof(struct totals_relay, hard), out);
    if (rc == TD_OK)
        rc = relays_json(totals, "soft", offsetof(struct totals_relay, soft), out);
    if (rc == TD_OK)
        rc = relays_json(totals, "block", offsetof(struct totals_relay, block), out);
    return rc < 0 ? rc : left_json(totals, out);
}

int totals_json(const struct totals *totals, const char *campaign_id, struct td_buf *out)
{
    int rc = totals_body(totals, campaign_id, out);

    return rc < 0 ? rc : td_buf_addc(out, '}');
}

void progress_add(struct progress *progress, const struct totals *totals, uint64_t now_ms)
{
    uint64_t most = 0;

    for (size_t i = 0; i < totals->relay_count; i++) {
        const struct totals_relay *before = relay_of(&progress->last, totals->relay[i].name);
        uint64_t more = before && totals->relay[i].accepted > before->accepted
                            ? totals->relay[i].accepted - before->accepted
                            : 0;

        if (more > most) {
            most = more;
            snprintf(progress->active, sizeof(progress->active), "%s", totals->relay[i].name);
        }
    }
    if (progress->used == 0) {
        progress->first_ms = now_ms;
        progress->first_done = totals_done(totals);
    }
    progress->sample[progress->next].at_ms = now_ms;
    progress->sample[progress->next].done = totals_done(totals);
    progress->next = (progress->next + 1) % PROGRESS_SAMPLES;
    if (progress->used < PROGRESS_SAMPLES)
        progress->used++;
    progress->last = *totals;
}

static double rate(uint64_t from_ms, uint64_t from_done, uint64_t to_ms, uint64_t to_done)
{
    if (to_ms <= from_ms || to_done <= from_done)
        return 0;
    return (double)(to_done - from_done) * 1000 / (double)(to_ms - from_ms);
}

double progress_rate_now(const struct progress *progress)
{
    size_t newest = (progress->next + PROGRESS_SAMPLES - 1) % PROGRESS_SAMPLES, oldest = newest;

    for (size_t i = 1; i < progress->used; i++) {
        size_t at = (newest + PROGRESS_SAMPLES - i) % PROGRESS_SAMPLES;

        if (progress->sample[newest].at_ms - progress->sample[at].at_ms > NOW_MS)
            break;
        oldest = at;
    }
    return rate(progress->sample[oldest].at_ms, progress->sample[oldest].done, progress->sample[newest].at_ms,
                progress->sample[newest].done);
}

double progress_rate_mean(const struct progress *progress)
{
    size_t newest = (progress->next + PROGRESS_SAMPLES - 1) % PROGRESS_SAMPLES;

    return rate(progress->first_ms, progress->first_done, progress->sample[newest].at_ms,
                progress->sample[newest].done);
}

int64_t progress_eta_s(const struct progress *progress)
{
    const struct totals *totals = &progress->last;
    uint64_t count = totals->count ? totals->count : totals->submitted, done = totals_done(totals);
    double now = progress_rate_now(progress);

    if (done >= count)
        return count ? 0 : -1;
    return now > 0 ? (int64_t)((double)(count - done) / now + 0.5) : -1;
}

static int add_bar(unsigned bar, double share, struct td_buf *out)
{
    unsigned full = (unsigned)(share * bar + 0.5);
    int rc = td_buf_addc(out, '[');

    for (unsigned i = 0; rc == TD_OK && i < bar; i++)
        rc = td_buf_addc(out, i < full ? '#' : '.');
    return rc < 0 ? rc : td_buf_adds(out, "] ");
}

static int add_eta(int64_t eta, struct td_buf *out)
{
    if (eta < 0)
        return td_buf_adds(out, ", ETA unknown");
    if (eta >= 3600)
        return td_buf_printf(out, ", ETA %" PRId64 ":%02d:%02d", eta / 3600, (int)(eta / 60 % 60),
                             (int)(eta % 60));
    return td_buf_printf(out, ", ETA %d:%02d", (int)(eta / 60), (int)(eta % 60));
}

/* Only what is not zero: a line should fit. */
static int add_others(const struct totals *totals, struct td_buf *out)
{
    const struct {
        const char *name;
        uint64_t value;
    } others[] = {{"refused", totals->refused},       {"invalid", totals->invalid},
                  {"suppressed", totals->suppressed}, {"expired", totals->expired},
                  {"cancelled", totals->cancelled},   {"unconfirmed", totals->unconfirmed}};
    int rc = TD_OK;

    for (size_t i = 0; rc == TD_OK && i < sizeof(others) / sizeof(others[0]); i++)
        if (others[i].value)
            rc = td_buf_printf(out, ", %s %" PRIu64, others[i].name, others[i].value);
    return rc;
}

int progress_line(const struct progress *progress, unsigned bar, struct td_buf *out)
{
    const struct totals *totals = &progress->last;
    uint64_t count = totals->count ? totals->count : totals->submitted, done = totals_done(totals);
    double share = count ? (double)done / (double)count : 0;
    int rc;

    if (share > 1)
        share = 1;
    rc = bar ? add_bar(bar, share, out) : TD_OK;
    /* Rounded down: 100 % is said when it is so. */
    if (rc == TD_OK)
        rc = td_buf_printf(out, "%3d %%  %" PRIu64 "/%" PRIu64 "%s  %.0f/s (mean %.0f/s)", (int)(share * 100),
                           done, count, totals->count ? "" : "+", progress_rate_now(progress),
                           progress_rate_mean(progress));
    if (rc == TD_OK && !totals_finished(totals))
        rc = add_eta(progress_eta_s(progress), out);
    for (size_t i = 0; rc == TD_OK && i < totals->relay_count; i++)
        if (totals->relay[i].accepted)
            rc = td_buf_printf(
                out, ", %s%s %" PRIu64, totals->relay[i].name,
                strcmp(totals->relay[i].name, progress->active) == 0 && !totals_finished(totals) ? "*" : "",
                totals->relay[i].accepted);
    if (rc == TD_OK)
        rc = add_others(totals, out);
    if (rc == TD_OK && *totals->held && !totals_finished(totals))
        rc = td_buf_adds(out, ", HELD");
    return rc;
}

int progress_json(const struct progress *progress, const char *campaign_id, struct td_buf *out)
{
    int rc = totals_body(&progress->last, campaign_id, out);

    if (rc == TD_OK)
        rc = td_buf_printf(
            out, ",\"rate_now\":%.1f,\"rate_mean\":%.1f,\"eta_s\":%" PRId64 ",\"active_relay\":\"%s\"}",
            progress_rate_now(progress), progress_rate_mean(progress), progress_eta_s(progress), progress->active);
    return rc;
}
