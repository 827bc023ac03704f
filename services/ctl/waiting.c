#include "waiting.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay_ask.h"
#include "tandem/clock.h"
#include "tandem/kafka.h"
#include "tandem/ledger.h"
#include "tandem/pb.h"

#include "tandem/mail/v1/outcome.pb-c.h"

enum { WAITING_MS = 2000, FLUSH_MS = 10000 };

/* ---- looking ---- */

enum { TRIED, DONE, MAPS };

struct look {
    struct relay_ask ask; /* first */
    const char *campaign_id;
    unsigned char *map[MAPS];
    size_t len[MAPS];
    int at; /* which map comes next; after MAPS once more from the start, a moment later */
    bool again;
    uint64_t not_before_ms;
    struct waiting *found;
};

static void fail_memory(struct relay_ask *ask)
{
    relay_ask_end(ask, ctl_error(&(struct td_err){TD_ENOMEM, "no memory for a campaign's bits"}));
}

static bool bit(const struct look *look, int map, uint32_t index)
{
    return index / 8 < look->len[map] && (look->map[map][index / 8] >> (7 - index % 8) & 1);
}

static bool open_mail(const struct look *look, uint32_t index)
{
    return bit(look, TRIED, index) && !bit(look, DONE, index);
}

/* The first time all that are open, then those of them that still are. */
static bool gather(struct look *look)
{
    struct waiting *found = look->found;
    size_t kept = 0, room = 0;

    if (look->again) {
        for (size_t i = 0; i < found->count; i++)
            if (open_mail(look, found->index[i]))
                found->index[kept++] = found->index[i];
        found->count = kept;
        return true;
    }
    for (uint32_t i = 0; i / 8 < look->len[TRIED]; i++) {
        if (!open_mail(look, i))
            continue;
        if (found->count == room) {
            uint32_t *more = realloc(found->index, (room = room ? room * 2 : 64) * sizeof(*more));

            if (!more)
                return false;
            found->index = more;
        }
        found->index[found->count++] = i;
    }
    return true;
}

static void maps_clear(struct look *look)
{
    for (int i = 0; i < MAPS; i++) {
        free(look->map[i]);
        look->map[i] = NULL;
        look->len[i] = 0;
    }
    look->at = 0;
}

static void on_map(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct look *look = user;
    const char *bits;

    if (!relay_answered(&look->ask, err))
        return;
    bits = td_reply_str(reply, &look->len[look->at]);
    look->map[look->at] = malloc(look->len[look->at] + 1);
    if (!look->map[look->at]) {
        look->len[look->at] = 0;
        fail_memory(&look->ask);
        return;
    }
    memcpy(look->map[look->at], bits, look->len[look->at]);
    if (++look->at < MAPS)
        return;
    if (!gather(look)) {
        fail_memory(&look->ask);
    } else if (look->again || look->found->count == 0) {
        relay_ask_end(&look->ask, CTL_OK);
    } else {
        look->again = true;
        look->not_before_ms = td_mono_ms() + WAITING_MS;
        maps_clear(look);
    }
}

static void look_step(struct relay_ask *ask)
{
    static const char *const name[] = {[TRIED] = "tried", [DONE] = "done"};
    struct look *look = (struct look *)ask;
    char key[TD_CAMPAIGN_ID_MAX + 24];

    if (td_mono_ms() < look->not_before_ms)
        return;
    snprintf(key, sizeof(key), "td:{c:%s}:%s", look->campaign_id, name[look->at]);
    relay_asked(ask, td_redis_command(ask->redis, (struct td_arg[]){TD_ARG_STR("GET"), TD_ARG_STR(key)}, 2, on_map, look));
}

int waiting_read(struct ctl *ctl, const char *campaign_id, struct waiting *ret)
{
    struct look look = {.ask = {.ctl = ctl, .step = look_step}, .campaign_id = campaign_id, .found = ret};
    int code;

    *ret = (struct waiting){NULL, 0};
    code = relay_ask_run(&look.ask);
    maps_clear(&look);
    return code;
}

/* ---- ending: the ledger first, then mail.outcomes. Should this program die in between, dispatch finds the outcome in
 * the ledger when the mail comes round, and publishes it. ---- */

struct packed {
    void *data; /* NULL: somebody was faster */
    size_t len;
};

struct ending {
    struct relay_ask ask; /* first */
    const char *campaign_id;
    const uint32_t *index;
    size_t count, at; /* at: which goes to the ledger next */
    bool accepted;
    struct packed *packed;
    size_t on_their_way;
    int64_t now_ms;
    int code;
};

static void *outcome_of(const struct ending *e, size_t *ret_len)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    Tandem__Mail__V1__RecipientOutcome rcpt = TANDEM__MAIL__V1__RECIPIENT_OUTCOME__INIT;

    rcpt.result = e->accepted ? TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_ACCEPTED
                              : TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_REFUSED;
    rcpt.reason = (char *)(uintptr_t) "evidence.operator";
    rcpt.attempts = 1;
    outcome.campaign_id = (char *)(uintptr_t)e->campaign_id;
    outcome.index = e->index[e->at];
    outcome.at_unix_ms = e->now_ms;
    outcome.service = (char *)(uintptr_t) "tandemctl";
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT;
    outcome.recipient = &rcpt;
    return td_pb_write(&outcome.base, ret_len);
}

static void end_step(struct relay_ask *ask);

static void on_ended(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct ending *e = user;

    if (!relay_answered(&e->ask, err))
        return;
    if (td_reply_count(reply) > TD_ENDED_OTHERS) {
        ctl_say("number %u has got its outcome meanwhile", (unsigned)e->index[e->at]);
        free(e->packed[e->at].data);
        e->packed[e->at].data = NULL;
    }
    e->at++;
    end_step(&e->ask);
}

static void end_step(struct relay_ask *ask)
{
    struct ending *e = (struct ending *)ask;
    struct td_ended ended = {.result = e->accepted ? "accepted" : "refused", .relay = ""};
    struct packed *packed = &e->packed[e->at];

    if (e->at == e->count) {
        relay_ask_end(ask, CTL_OK);
        return;
    }
    if (!packed->data) /* a question without an answer is asked again, with the same outcome */
        packed->data = outcome_of(e, &packed->len);
    if (!packed->data) {
        fail_memory(ask);
        return;
    }
    ended.index = e->index[e->at];
    ended.outcome = packed->data;
    ended.outcome_len = packed->len;
    relay_asked(ask, td_ledger_end(ask->redis, e->campaign_id, &ended, 1, on_ended, e));
}

static void on_delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct ending *e = user;

    (void)offset;
    if (err)
        e->code = ctl_error(err);
    if (--e->on_their_way == 0)
        uv_stop(&e->ask.ctl->loop);
}

static int publish(struct ending *e)
{
    struct ctl *ctl = e->ask.ctl;
    struct td_kafka_out *out;
    struct td_err err;

    e->code = CTL_OK;
    if (td_kafka_out_new(&ctl->loop, &ctl->settings, NULL, &out, &err) < 0)
        return ctl_error(&err);
    for (size_t i = 0; i < e->at; i++) {
        char key[TD_MAIL_KEY_MAX];
        size_t key_len = td_mail_key(key, e->campaign_id, e->index[i]);

        if (!e->packed[i].data)
            continue;
        if (td_kafka_out_send(out, TD_T_OUTCOMES, -1, key, key_len, e->packed[i].data, e->packed[i].len, NULL, 0, on_delivered,
                              e, &err) < 0)
            e->code = ctl_error(&err);
        else
            e->on_their_way++;
    }
    if (e->on_their_way)
        ctl_run(ctl);
    td_kafka_out_free(out, FLUSH_MS);
    uv_run(&ctl->loop, UV_RUN_DEFAULT);
    return e->code;
}

int waiting_end(struct ctl *ctl, const char *campaign_id, const uint32_t *index, size_t count, bool accepted)
{
    struct ending e = {.ask = {.ctl = ctl, .step = end_step},
                       .campaign_id = campaign_id,
                       .index = index,
                       .count = count,
                       .accepted = accepted,
                       .now_ms = td_wall_ms()};
    int code, published;

    e.packed = calloc(count + 1, sizeof(*e.packed));
    if (!e.packed)
        return ctl_error(&(struct td_err){TD_ENOMEM, "no memory for outcomes"});
    code = relay_ask_run(&e.ask);
    published = publish(&e); /* what the ledger has, also when the rest failed */
    for (size_t i = 0; i < count; i++)
        free(e.packed[i].data);
    free(e.packed);
    return code != CTL_OK ? code : published;
}
