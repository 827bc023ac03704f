/* ledger.c - names of keys and arguments for the ledger's scripts; what they do is in common/lua. */
#include "tandem/ledger.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/scripts.h"

#define KEEP_S "2592000" /* 30 days */
#define LANE_NAME_MAX 200
#define TOKEN_MAX 64
#define KEY_MAX (TD_CAMPAIGN_ID_MAX + TOKEN_MAX + 32)
#define KEYS_MAX 6
#define VIEW_KEY "td:{view}"

struct keys {
    char text[KEYS_MAX][KEY_MAX];
    struct td_arg arg[KEYS_MAX];
    size_t count;
};

/* parts: names after td:{c:X}:, ended by NULL. @return false for a campaign id that is none */
static bool keys_of(struct keys *keys, const char *campaign_id, const char *const *parts)
{
    keys->count = 0;
    if (!td_campaign_id_valid(campaign_id))
        return false;
    for (; *parts; parts++, keys->count++) {
        snprintf(keys->text[keys->count], KEY_MAX, "td:{c:%s}:%s", campaign_id, *parts);
        keys->arg[keys->count] = TD_ARG_STR(keys->text[keys->count]);
    }
    return true;
}

#define KEYS(...) ((const char *const[]){__VA_ARGS__, NULL})

struct packed {
    uint8_t byte[TD_LEDGER_BATCH * 4];
    struct td_arg arg;
};

static bool pack(struct packed *packed, const uint32_t *index, size_t count)
{
    if (count < 1 || count > TD_LEDGER_BATCH)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (index[i] > TD_LEDGER_INDEX_MAX)
            return false;
        for (unsigned b = 0; b < 4; b++)
            packed->byte[4 * i + b] = (uint8_t)(index[i] >> 8 * b);
    }
    packed->arg = (struct td_arg){packed->byte, 4 * count};
    return true;
}

/* ---- begin ---- */

struct begin {
    td_ledger_begin_cb *cb;
    void *user;
    size_t count;
    struct td_begun begun[TD_LEDGER_BATCH];
};

static enum td_verdict verdict_of(char c)
{
    return c >= '0' && c <= '3' ? (enum td_verdict)(c - '0') : TD_TRIED;
}

static bool read_begun(struct begin *begin, const struct td_reply *reply)
{
    size_t len, next = 1;
    const char *verdict = td_reply_str(td_reply_at(reply, 0), &len);

    if (len != begin->count)
        return false;
    for (size_t i = 0; i < len; i++) {
        struct td_begun *begun = &begin->begun[i];

        *begun = (struct td_begun){.verdict = verdict_of(verdict[i])};
        if (begun->verdict != TD_DONE && begun->verdict != TD_PROVEN)
            continue;
        begun->outcome = td_reply_str(td_reply_at(reply, next++), &begun->outcome_len);
        if (begun->outcome_len == 0)
            begun->outcome = NULL;
    }
    return true;
}

static void on_begun(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct begin *begin = user;
    struct td_err odd;

    if (!err && !read_begun(begin, reply)) {
        td_fail(&odd, TD_EFATAL, "redis: ledger_begin answered something else");
        err = &odd;
    }
    begin->cb(begin->user, err ? NULL : begin->begun, err ? 0 : begin->count, err);
    free(begin);
}

static bool token_valid(const char *token)
{
    size_t len = strlen(token);

    return len <= TOKEN_MAX && strspn(token, "abcdefghijklmnopqrstuvwxyz0123456789-_:") == len;
}

int td_ledger_begin_as(struct td_redis *redis, const char *campaign_id, const char *token, const uint32_t *index,
                       size_t count, td_ledger_begin_cb *cb, void *user)
{
    struct keys keys;
    struct packed packed;
    char begun[TOKEN_MAX + 8];
    struct begin *begin;
    int rc;

    if (!token_valid(token))
        return TD_EINVAL;
    snprintf(begun, sizeof(begun), "begun:%s", token);
    if (!keys_of(&keys, campaign_id, KEYS("tried", "done", "pending", begun, "evidence")) || !pack(&packed, index, count))
        return TD_EINVAL;
    begin = malloc(sizeof(*begin));
    if (!begin)
        return TD_ENOMEM;
    begin->cb = cb;
    begin->user = user;
    begin->count = count;
    rc = td_redis_eval(redis, &td_script_ledger_begin, keys.arg, keys.count,
                       (struct td_arg[]){packed.arg, TD_ARG_STR(KEEP_S), TD_ARG_STR(token)}, 3, on_begun, begin);
    if (rc == TD_ENOMEM)
        free(begin);
    return rc;
}

int td_ledger_begin(struct td_redis *redis, const char *campaign_id, const uint32_t *index, size_t count,
                    td_ledger_begin_cb *cb, void *user)
{
    return td_ledger_begin_as(redis, campaign_id, "", index, count, cb, user);
}

/* ---- end and the rest of a mail's life ---- */

int td_ledger_end(struct td_redis *redis, const char *campaign_id, const struct td_ended *ended, size_t count,
                  td_redis_cb *cb, void *user)
{
    struct keys keys;
    struct td_arg *args;
    char(*number)[11];
    int rc;

    if (count < 1 || count > TD_LEDGER_BATCH ||
        !keys_of(&keys, campaign_id, KEYS("done", "totals", "pending", "hours", "doubt", "evidence")))
        return TD_EINVAL;
    for (size_t i = 0; i < count; i++)
        if (ended[i].index > TD_LEDGER_INDEX_MAX)
            return TD_EINVAL;
    args = malloc((1 + 4 * count) * sizeof(*args));
    number = malloc(count * sizeof(*number));
    if (!args || !number) {
        rc = TD_ENOMEM;
        goto out;
    }
    args[0] = TD_ARG_STR(KEEP_S);
    for (size_t i = 0; i < count; i++) {
        snprintf(number[i], sizeof(number[i]), "%" PRIu32, ended[i].index);
        args[1 + 4 * i] = TD_ARG_STR(number[i]);
        args[2 + 4 * i] = TD_ARG_STR(ended[i].result);
        args[3 + 4 * i] = TD_ARG_STR(ended[i].relay);
        args[4 + 4 * i] = (struct td_arg){ended[i].outcome, ended[i].outcome_len};
    }
    rc = td_redis_eval(redis, &td_script_ledger_end, keys.arg, keys.count, args, 1 + 4 * count, cb, user);
out:
    free(args);
    free(number);
    return rc;
}

int td_ledger_published(struct td_redis *redis, const char *campaign_id, const uint32_t *index, size_t count,
                        td_redis_cb *cb, void *user)
{
    struct keys keys;
    struct packed packed;

    if (!keys_of(&keys, campaign_id, KEYS("pending")) || !pack(&packed, index, count))
        return TD_EINVAL;
    return td_redis_eval(redis, &td_script_ledger_published, keys.arg, keys.count, &packed.arg, 1, cb, user);
}

int td_ledger_look(struct td_redis *redis, const char *campaign_id, uint32_t index, td_redis_cb *cb, void *user)
{
    struct keys keys;
    char number[11];

    if (index > TD_LEDGER_INDEX_MAX || !keys_of(&keys, campaign_id, KEYS("done", "pending", "doubt")))
        return TD_EINVAL;
    snprintf(number, sizeof(number), "%" PRIu32, index);
    return td_redis_eval(redis, &td_script_ledger_look, keys.arg, keys.count, (struct td_arg[]){TD_ARG_STR(number)}, 1,
                         cb, user);
}

int td_ledger_doubt(struct td_redis *redis, const char *campaign_id, uint32_t index, const char *relay, td_redis_cb *cb,
                    void *user)
{
    struct keys keys;
    char number[11];

    if (index > TD_LEDGER_INDEX_MAX || !keys_of(&keys, campaign_id, KEYS("tried", "done", "pending", "doubt", "evidence")))
        return TD_EINVAL;
    snprintf(number, sizeof(number), "%" PRIu32, index);
    return td_redis_eval(redis, &td_script_ledger_doubt, keys.arg, keys.count,
                         (struct td_arg[]){TD_ARG_STR(number), TD_ARG_STR(relay), TD_ARG_STR(KEEP_S)}, 3, cb, user);
}

int td_ledger_note(struct td_redis *redis, const char *campaign_id, uint32_t index, const void *outcome, size_t outcome_len,
                   td_redis_cb *cb, void *user)
{
    struct keys keys;
    char number[11];

    if (index > TD_LEDGER_INDEX_MAX || !keys_of(&keys, campaign_id, KEYS("done", "doubt", "evidence")))
        return TD_EINVAL;
    snprintf(number, sizeof(number), "%" PRIu32, index);
    return td_redis_eval(redis, &td_script_ledger_note, keys.arg, keys.count,
                         (struct td_arg[]){TD_ARG_STR(number), {outcome, outcome_len}, TD_ARG_STR(KEEP_S)}, 3, cb, user);
}

int td_ledger_undo(struct td_redis *redis, const char *campaign_id, const uint32_t *index, size_t count,
                   td_redis_cb *cb, void *user)
{
    struct keys keys;
    struct packed packed;

    if (!keys_of(&keys, campaign_id, KEYS("tried", "done")) || !pack(&packed, index, count))
        return TD_EINVAL;
    return td_redis_eval(redis, &td_script_ledger_undo, keys.arg, keys.count,
                         (struct td_arg[]){packed.arg, TD_ARG_STR(KEEP_S)}, 2, cb, user);
}

int td_ledger_admit(struct td_redis *redis, const char *campaign_id, const uint32_t *index,
                    const uint8_t (*hash)[TD_HASH_BYTES], size_t count, td_redis_cb *cb, void *user)
{
    struct keys keys;
    struct packed packed;

    if (!keys_of(&keys, campaign_id, KEYS("seen", "addr", "totals")) || !pack(&packed, index, count))
        return TD_EINVAL;
    return td_redis_eval(redis, &td_script_ledger_admit, keys.arg, keys.count,
                         (struct td_arg[]){packed.arg, {hash, TD_HASH_BYTES * count}, TD_ARG_STR(KEEP_S)}, 3, cb,
                         user);
}

int td_ledger_seal(struct td_redis *redis, const char *campaign_id, uint32_t recipient_count, td_redis_cb *cb,
                   void *user)
{
    struct keys keys;
    char number[11];

    if (!keys_of(&keys, campaign_id, KEYS("totals")))
        return TD_EINVAL;
    snprintf(number, sizeof(number), "%" PRIu32, recipient_count);
    return td_redis_eval(redis, &td_script_ledger_seal, keys.arg, keys.count,
                         (struct td_arg[]){TD_ARG_STR(number), TD_ARG_STR(KEEP_S)}, 2, cb, user);
}

int td_ledger_bounce(struct td_redis *redis, const char *campaign_id, uint32_t index, const char *relay,
                     const char *class_name, td_redis_cb *cb, void *user)
{
    struct keys keys;
    char number[11];

    if (index > TD_LEDGER_INDEX_MAX || !keys_of(&keys, campaign_id, KEYS("bounced", "totals", "hours")))
        return TD_EINVAL;
    snprintf(number, sizeof(number), "%" PRIu32, index);
    return td_redis_eval(
        redis, &td_script_bounce_count, keys.arg, keys.count,
        (struct td_arg[]){TD_ARG_STR(number), TD_ARG_STR(class_name), TD_ARG_STR(relay), TD_ARG_STR(KEEP_S)}, 4,
        cb, user);
}

/* ---- what a relay has in an hour ---- */

#define RELAY_NAME_MAX 32

int td_relay_count(struct td_redis *redis, const char *campaign_id, const char *hour, td_redis_cb *cb, void *user)
{
    char relay[RELAY_NAME_MAX + 1], number[21], kind[2], value[21], key[2][RELAY_NAME_MAX + 48];

    if (!td_campaign_id_valid(campaign_id) ||
        sscanf(hour, "%32[a-z0-9-] %20[0-9] %1[ah] %20[0-9]", relay, number, kind, value) != 4)
        return TD_EINVAL;
    snprintf(key[0], sizeof(key[0]), "td:{r:%s}:hours", relay);
    snprintf(key[1], sizeof(key[1]), "td:{r:%s}:hour:%s", relay, number);
    return td_redis_eval(
        redis, &td_script_relay_count, (struct td_arg[]){TD_ARG_STR(key[0]), TD_ARG_STR(key[1])}, 2,
        (struct td_arg[]){TD_ARG_STR(number), TD_ARG_STR(kind), TD_ARG_STR(campaign_id), TD_ARG_STR(value)}, 4, cb,
        user);
}

/* ---- the view ---- */

int td_ledger_restore(struct td_redis *redis, const char *campaign_id, int64_t sealed, const struct td_fact *fact,
                      size_t count, td_redis_cb *cb, void *user)
{
    struct keys keys;
    struct td_arg *args;
    struct {
        char index[11], hour[24];
    } *number;
    char sealed_text[24] = "";
    int rc;

    if (count < 1 || count > TD_LEDGER_BATCH ||
        !keys_of(&keys, campaign_id, KEYS("seen", "addr", "done", "bounced", "totals", "hours")))
        return TD_EINVAL;
    for (size_t i = 0; i < count; i++)
        if (fact[i].index > TD_LEDGER_INDEX_MAX)
            return TD_EINVAL;
    args = malloc((2 + 5 * count) * sizeof(*args));
    number = malloc(count * sizeof(*number));
    if (!args || !number) {
        rc = TD_ENOMEM;
        goto out;
    }
    if (sealed >= 0)
        snprintf(sealed_text, sizeof(sealed_text), "%" PRId64, sealed);
    args[0] = TD_ARG_STR(KEEP_S);
    args[1] = TD_ARG_STR(sealed_text);
    for (size_t i = 0; i < count; i++) {
        snprintf(number[i].index, sizeof(number[i].index), "%" PRIu32, fact[i].index);
        snprintf(number[i].hour, sizeof(number[i].hour), "%" PRId64, fact[i].at_unix_ms / 3600000);
        args[2 + 5 * i] = TD_ARG_STR(number[i].index);
        args[3 + 5 * i] = TD_ARG_STR(fact[i].what);
        args[4 + 5 * i] = TD_ARG_STR(fact[i].relay);
        args[5 + 5 * i] =
            (struct td_arg){fact[i].hash ? (const void *)fact[i].hash : "", fact[i].hash ? TD_HASH_BYTES : 0};
        args[6 + 5 * i] = TD_ARG_STR(number[i].hour);
    }
    rc = td_redis_eval(redis, &td_script_ledger_restore, keys.arg, keys.count, args, 2 + 5 * count, cb, user);
out:
    free(args);
    free(number);
    return rc;
}

static int view_call(struct td_redis *redis, const char *verb, const char *owner, const char *lease_ms,
                     const char *mark, td_redis_cb *cb, void *user)
{
    return td_redis_eval(
        redis, &td_script_view, (struct td_arg[]){TD_ARG_STR(VIEW_KEY), TD_ARG_STR(VIEW_KEY ":lease")}, 2,
        (struct td_arg[]){TD_ARG_STR(verb), TD_ARG_STR(owner), TD_ARG_STR(lease_ms), TD_ARG_STR(mark)}, 4, cb,
        user);
}

int td_view_take(struct td_redis *redis, const char *owner, unsigned lease_ms, td_redis_cb *cb, void *user)
{
    char number[11];

    snprintf(number, sizeof(number), "%u", lease_ms);
    return view_call(redis, "take", owner, number, "", cb, user);
}

int td_view_publish(struct td_redis *redis, const char *owner, const char *mark, td_redis_cb *cb, void *user)
{
    return view_call(redis, "publish", owner, "", mark, cb, user);
}

/* ---- lanes ---- */

static int lane_call(struct td_redis *redis, const char *verb, const char *name, const char *owner,
                     unsigned ttl_ms, td_redis_cb *cb, void *user)
{
    char lease[LANE_NAME_MAX + 16], fence[LANE_NAME_MAX + 24], clean[LANE_NAME_MAX + 24], ttl[11];
    size_t len = strlen(name);

    if (len < 1 || len > LANE_NAME_MAX || strpbrk(name, "{}") || !owner[0])
        return TD_EINVAL;
    snprintf(lease, sizeof(lease), "td:{lane:%s}", name);
    snprintf(fence, sizeof(fence), "%s:fence", lease);
    snprintf(clean, sizeof(clean), "%s:clean", lease);
    snprintf(ttl, sizeof(ttl), "%u", ttl_ms);
    return td_redis_eval(redis, &td_script_lane,
                         (struct td_arg[]){TD_ARG_STR(lease), TD_ARG_STR(fence), TD_ARG_STR(clean)}, 3,
                         (struct td_arg[]){TD_ARG_STR(verb), TD_ARG_STR(owner), TD_ARG_STR(ttl)}, 3, cb, user);
}

int td_lane_acquire(struct td_redis *redis, const char *name, const char *owner, unsigned ttl_ms, td_redis_cb *cb,
                    void *user)
{
    return ttl_ms < 1 ? TD_EINVAL : lane_call(redis, "acquire", name, owner, ttl_ms, cb, user);
}

int td_lane_release(struct td_redis *redis, const char *name, const char *owner, bool clean, td_redis_cb *cb,
                    void *user)
{
    return lane_call(redis, "release", name, owner, clean ? 1 : 0, cb, user);
}

/* ---- suppression ---- */

static int suppression_call(struct td_redis *redis, const char *verb, const uint8_t *hash, td_redis_cb *cb,
                            void *user)
{
    char key[16];

    snprintf(key, sizeof(key), "td:{supp:%02x}", hash[0]);
    return td_redis_command(redis, (struct td_arg[]){TD_ARG_STR(verb), TD_ARG_STR(key), {hash, TD_HASH_BYTES}}, 3,
                            cb, user);
}

int td_suppression_add(struct td_redis *redis, const uint8_t hash[TD_HASH_BYTES], td_redis_cb *cb, void *user)
{
    return suppression_call(redis, "SADD", hash, cb, user);
}

int td_suppression_remove(struct td_redis *redis, const uint8_t hash[TD_HASH_BYTES], td_redis_cb *cb, void *user)
{
    return suppression_call(redis, "SREM", hash, cb, user);
}

/* One SISMEMBER a hash, pipelined; replies come in order, so a counter says which one it is. Behind them the
 * view's mark is asked for: when it is there after them it was there before them, and the sets were not those of
 * an emptied Redis. */
struct check {
    void (*cb)(void *user, const uint8_t *suppressed, size_t count, const struct td_err *err);
    void *user;
    size_t count, answered; /* answered: the mark's counts, too */
    struct td_err err;      /* the first failure; code TD_OK: none */
    uint8_t suppressed[];
};

static void check_answered(struct check *check)
{
    if (++check->answered <= check->count)
        return;
    if (check->err.code == TD_OK)
        check->cb(check->user, check->suppressed, check->count, NULL);
    else
        check->cb(check->user, NULL, 0, &check->err);
    free(check);
}

static void on_member(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct check *check = user;

    if (err && check->err.code == TD_OK)
        check->err = *err;
    check->suppressed[check->answered] = td_reply_int(reply) == 1;
    check_answered(check);
}

static void on_view(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct check *check = user;

    if (err && check->err.code == TD_OK)
        check->err = *err;
    else if (!err && td_reply_int(reply) == 0)
        td_fail(&check->err, TD_EIO, "redis: the view is not whole");
    check_answered(check);
}

/* Ask for the mark; when no callback will come the check ends as the last answer of those under way does. */
static void check_view(struct td_redis *redis, struct check *check)
{
    int rc =
        td_redis_command(redis, (struct td_arg[]){TD_ARG_STR("EXISTS"), TD_ARG_STR(VIEW_KEY)}, 2, on_view, check);

    if (rc == TD_ENOMEM) {
        td_fail(&check->err, TD_ENOMEM, "suppression check");
        check->count--;
    }
}

int td_suppression_check(struct td_redis *redis, const uint8_t (*hash)[TD_HASH_BYTES], size_t count,
                         void (*cb)(void *user, const uint8_t *suppressed, size_t count, const struct td_err *err),
                         void *user)
{
    struct check *check;
    int rc = TD_OK;

    if (count < 1)
        return TD_EINVAL;
    check = calloc(1, sizeof(*check) + count);
    if (!check)
        return TD_ENOMEM;
    check->cb = cb;
    check->user = user;
    check->count = count;
    for (size_t i = 0; i < count; i++) {
        int one = suppression_call(redis, "SISMEMBER", hash[i], on_member, check);

        if (rc == TD_OK)
            rc = one;
        if (one != TD_ENOMEM)
            continue;
        /* No callback will come for this one: ask no further, and let the answers under way end the check. */
        td_fail(&check->err, TD_ENOMEM, "suppression check");
        if (i == 0) {
            free(check);
            return TD_ENOMEM;
        }
        check->count = i - 1; /* nor the mark's */
        return TD_OK;
    }
    check_view(redis, check);
    return rc;
}
