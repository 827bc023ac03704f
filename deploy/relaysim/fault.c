#include "fault.h"

#include <string.h>

#define BIT(point) (UINT32_C(1) << (point))

static const char *const point_names[] = {
    [FAULT_AT_CONNECT] = "connect",   [FAULT_AT_BANNER] = "banner", [FAULT_AT_EHLO] = "ehlo",
    [FAULT_AT_STARTTLS] = "starttls", [FAULT_AT_AUTH] = "auth",     [FAULT_AT_MAIL] = "mail",
    [FAULT_AT_RCPT] = "rcpt",         [FAULT_AT_DATA] = "data",     [FAULT_AT_BODY] = "body",
    [FAULT_AT_FINAL] = "final",
};
#define POINT_NAMES (sizeof(point_names) / sizeof(point_names[0]))

/* "any" is every step of a session that has begun; connect is before it and has its own acts. */
#define POINTS_ANY (BIT(FAULT_AT_HANDSHAKE) - 1 - BIT(FAULT_AT_CONNECT))

static const char *const act_names[] = {
    [FAULT_REFUSE] = "refuse", [FAULT_HANG] = "hang", [FAULT_CLOSE] = "close",     [FAULT_RESET] = "reset",
    [FAULT_REPLY] = "reply",   [FAULT_SLOW] = "slow", [FAULT_GARBAGE] = "garbage", [FAULT_LOSE] = "lose",
};
#define ACT_NAMES (sizeof(act_names) / sizeof(act_names[0]))

static const char *const certificate_names[CERTIFICATE_COUNT] = {
    [CERTIFICATE_GOOD] = "good",
    [CERTIFICATE_EXPIRED] = "expired",
    [CERTIFICATE_WRONG_NAME] = "wrong-name",
    [CERTIFICATE_SELF_SIGNED] = "self-signed",
};

static int name_index(const char *const *names, size_t count, const char *name, size_t *ret)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) {
            *ret = i;
            return TD_OK;
        }
    return TD_EINVAL;
}

static int read_uint(json_t *value, const char *key, uint64_t max, uint64_t *ret, struct td_err *reterr)
{
    json_int_t number = json_integer_value(value);

    if (!json_is_integer(value) || number < 0 || (uint64_t)number > max)
        return td_fail(reterr, TD_EINVAL, "%s: a whole number from 0 to %llu", key, (unsigned long long)max);
    *ret = (uint64_t)number;
    return TD_OK;
}

/* Text that goes out in a reply: one line, no control octet. */
static int read_text(json_t *value, const char *key, char *ret, size_t max, struct td_err *reterr)
{
    const char *text = json_string_value(value);
    size_t len = text ? strlen(text) : 0;

    if (!text || len != json_string_length(value) || len > max)
        return td_fail(reterr, TD_EINVAL, "%s: a string of at most %zu octets", key, max);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return td_fail(reterr, TD_EINVAL, "%s: control octet", key);
    memcpy(ret, text, len + 1);
    return TD_OK;
}

static int read_point(struct fault *fault, json_t *value, struct td_err *reterr)
{
    const char *name = json_string_value(value);
    size_t point;

    if (name && strcmp(name, "any") == 0) {
        fault->points = POINTS_ANY;
        return TD_OK;
    }
    if (!name || name_index(point_names, POINT_NAMES, name, &point) < 0)
        return td_fail(reterr, TD_EINVAL,
                       "at: connect, banner, ehlo, starttls, auth, mail, rcpt, data, body, final or any");
    fault->points = BIT(point);
    return TD_OK;
}

static int read_act(struct fault *fault, json_t *value, struct td_err *reterr)
{
    const char *name = json_string_value(value);
    size_t act;

    if (!name || name_index(act_names, ACT_NAMES, name, &act) < 0)
        return td_fail(reterr, TD_EINVAL, "do: refuse, hang, close, reset, reply, slow, garbage or lose");
    fault->act = (enum fault_act)act;
    return TD_OK;
}

static int read_certificate(struct fault *fault, json_t *value, struct td_err *reterr)
{
    const char *name = json_string_value(value);
    size_t kind;

    if (!name || name_index(certificate_names, CERTIFICATE_COUNT, name, &kind) < 0 || kind == CERTIFICATE_GOOD)
        return td_fail(reterr, TD_EINVAL, "certificate: expired, wrong-name or self-signed");
    fault->certificate = (enum fault_certificate)kind;
    fault->points = BIT(FAULT_AT_HANDSHAKE);
    fault->act = FAULT_CERTIFICATE;
    return TD_OK;
}

static int read_starttls(struct fault *fault, json_t *value, struct td_err *reterr)
{
    const char *name = json_string_value(value);
    bool strip = name && strcmp(name, "strip") == 0;

    if (!strip && !(name && strcmp(name, "inject") == 0))
        return td_fail(reterr, TD_EINVAL, "starttls: strip or inject");
    fault->points = BIT(strip ? FAULT_AT_OFFER : FAULT_AT_INJECT);
    fault->act = strip ? FAULT_STRIP : FAULT_INJECT;
    return TD_OK;
}

static int read_share(struct fault *fault, json_t *value, struct td_err *reterr)
{
    double share = json_number_value(value);

    if (!json_is_number(value) || !(share > 0.0 && share <= 1.0))
        return td_fail(reterr, TD_EINVAL, "share: a number above 0, at most 1");
    fault->share = share;
    return TD_OK;
}

static int read_key(struct fault *fault, const char *key, json_t *value, uint64_t now_ns, uint64_t taken_mails,
                    struct td_err *reterr)
{
    uint64_t number = 0;
    int rc;

    if (strcmp(key, "at") == 0)
        return read_point(fault, value, reterr);
    if (strcmp(key, "do") == 0)
        return read_act(fault, value, reterr);
    if (strcmp(key, "certificate") == 0)
        return read_certificate(fault, value, reterr);
    if (strcmp(key, "starttls") == 0)
        return read_starttls(fault, value, reterr);
    if (strcmp(key, "share") == 0)
        return read_share(fault, value, reterr);
    if (strcmp(key, "text") == 0)
        return read_text(value, key, fault->text, FAULT_TEXT_MAX, reterr);
    if (strcmp(key, "enhanced") == 0)
        return read_text(value, key, fault->enhanced, sizeof(fault->enhanced) - 1, reterr);
    if (strcmp(key, "match") == 0)
        return read_text(value, key, fault->match, sizeof(fault->match) - 1, reterr);
    if (strcmp(key, "delay_ms") == 0)
        return read_uint(value, key, 3600000, &fault->delay_ms, reterr);
    if (strcmp(key, "taken") == 0) {
        fault->taken = json_is_true(value);
        return json_is_boolean(value) ? TD_OK : td_fail(reterr, TD_EINVAL, "taken: true or false");
    }
    if (strcmp(key, "code") == 0) {
        rc = read_uint(value, key, 599, &number, reterr);
        fault->code = (int)number;
    } else if (strcmp(key, "count") == 0) {
        rc = read_uint(value, key, UINT32_MAX, &fault->left, reterr);
        fault->counted = true;
    } else if (strcmp(key, "after") == 0) {
        rc = read_uint(value, key, UINT32_MAX, &number, reterr);
        fault->after_mails = taken_mails + number;
    } else if (strcmp(key, "for_ms") == 0) {
        rc = read_uint(value, key, 86400000, &number, reterr);
        fault->until_ns = now_ns + number * 1000000u;
    } else {
        rc = td_fail(reterr, TD_EINVAL, "unknown key \"%.40s\"", key);
    }
    return rc;
}

/* What does not go together is refused, as a fault that never acts would make a test pass for nothing. */
static int check(struct fault *fault, struct td_err *reterr)
{
    bool only_final = fault->points == BIT(FAULT_AT_FINAL), only_connect = fault->points == BIT(FAULT_AT_CONNECT);

    if (!fault->points)
        return td_fail(reterr, TD_EINVAL, "needs at and do, or certificate, or starttls");
    if (fault->counted && fault->left == 0)
        return td_fail(reterr, TD_EINVAL, "count: at least 1");
    if (fault->act == FAULT_REFUSE && (!only_connect || fault->counted || fault->share < 1.0))
        return td_fail(reterr, TD_EINVAL,
                       "refuse goes with connect, and not with count or share: nobody is seen to come");
    if (*fault->match && (fault->points & ~(BIT(FAULT_AT_MAIL) | BIT(FAULT_AT_RCPT))))
        return td_fail(reterr, TD_EINVAL, "match goes with mail and rcpt");
    if (fault->act == FAULT_LOSE && !only_final)
        return td_fail(reterr, TD_EINVAL, "lose goes with final");
    if (fault->act == FAULT_REPLY && only_connect)
        return td_fail(reterr, TD_EINVAL, "reply goes with banner, not connect");
    if (fault->act == FAULT_REPLY && fault->code < (only_final ? 200 : 400))
        return td_fail(reterr, TD_EINVAL, "reply needs a code of 400 to 599 (at final also 2yz)");
    if (fault->act == FAULT_REPLY && fault->code >= 300 && fault->code < 400)
        return td_fail(reterr, TD_EINVAL, "reply: 3yz never ends a mail");
    if (fault->act == FAULT_SLOW && fault->delay_ms == 0)
        return td_fail(reterr, TD_EINVAL, "slow needs delay_ms");
    if (fault->taken && (!only_final || fault->act == FAULT_REPLY || fault->act == FAULT_SLOW))
        return td_fail(reterr, TD_EINVAL, "taken goes with final and hang, close, reset or garbage");
    return TD_OK;
}

static void gather_points(struct faults *faults)
{
    faults->points = 0;
    for (size_t i = 0; i < faults->count; i++)
        faults->points |= faults->fault[i].points;
}

int fault_add(struct faults *faults, json_t *object, uint64_t now_ns, uint64_t taken_mails, uint64_t *ret_id,
              struct td_err *reterr)
{
    struct fault fault = {.share = 1.0};
    bool has_do = json_object_get(object, "do") != NULL;
    const char *key;
    json_t *value;
    int rc;

    if (!json_is_object(object))
        return td_fail(reterr, TD_EINVAL, "a fault is a JSON object");
    if (has_do != (json_object_get(object, "at") != NULL) ||
        has_do + (json_object_get(object, "certificate") != NULL) +
                (json_object_get(object, "starttls") != NULL) !=
            1)
        return td_fail(reterr, TD_EINVAL, "needs at and do, or certificate, or starttls");
    json_object_foreach(object, key, value)
    {
        rc = read_key(&fault, key, value, now_ns, taken_mails, reterr);
        if (rc < 0)
            return rc;
    }
    rc = check(&fault, reterr);
    if (rc < 0)
        return rc;
    if (faults->count == FAULTS_MAX)
        return td_fail(reterr, TD_ETOOBIG, "%d faults are in force already", FAULTS_MAX);
    fault.id = *ret_id = ++faults->next_id;
    faults->fault[faults->count++] = fault;
    gather_points(faults);
    return TD_OK;
}

static void remove_at(struct faults *faults, size_t i)
{
    faults->count--;
    memmove(&faults->fault[i], &faults->fault[i + 1], (faults->count - i) * sizeof(faults->fault[0]));
}

size_t fault_lift(struct faults *faults, uint64_t id)
{
    size_t before = faults->count;

    for (size_t i = faults->count; i > 0; i--)
        if (id == 0 || faults->fault[i - 1].id == id)
            remove_at(faults, i - 1);
    gather_points(faults);
    return before - faults->count;
}

/* Those whose time or number is up leave the table. */
static void expire(struct faults *faults, uint64_t now_ns)
{
    for (size_t i = faults->count; i > 0; i--) {
        const struct fault *fault = &faults->fault[i - 1];

        if ((fault->until_ns && fault->until_ns <= now_ns) || (fault->counted && fault->left == 0))
            remove_at(faults, i - 1);
    }
    gather_points(faults);
}

const struct fault *fault_strike(struct faults *faults, enum fault_point at, uint64_t now_ns, uint64_t taken_mails)
{
    return fault_strike_at(faults, at, (struct slice){"", 0}, now_ns, taken_mails);
}

const struct fault *fault_strike_at(struct faults *faults, enum fault_point at, struct slice args, uint64_t now_ns,
                                    uint64_t taken_mails)
{
    if (!(faults->points & BIT(at)))
        return NULL;
    expire(faults, now_ns);
    for (size_t i = 0; i < faults->count; i++) {
        struct fault *fault = &faults->fault[i];

        if (!(fault->points & BIT(at)) || taken_mails < fault->after_mails || fault->act == FAULT_REFUSE)
            continue;
        if (*fault->match && !memmem(args.data, args.len, fault->match, strlen(fault->match)))
            continue;
        fault->owed += fault->share;
        if (fault->owed < 1.0 - 1e-9) /* ten times 0.1 is a little less than 1 */
            continue;
        fault->owed -= 1.0;
        fault->hits++;
        if (fault->counted)
            fault->left--;
        return fault;
    }
    return NULL;
}

bool fault_refusing(struct faults *faults, uint64_t now_ns, uint64_t taken_mails, uint64_t *ret_wake_ns)
{
    bool refusing = false;

    *ret_wake_ns = 0;
    if (!(faults->points & BIT(FAULT_AT_CONNECT)))
        return false;
    expire(faults, now_ns);
    for (size_t i = 0; i < faults->count; i++) {
        const struct fault *fault = &faults->fault[i];

        if (fault->act != FAULT_REFUSE || taken_mails < fault->after_mails)
            continue;
        refusing = true;
        if (fault->until_ns && (!*ret_wake_ns || fault->until_ns < *ret_wake_ns))
            *ret_wake_ns = fault->until_ns;
    }
    return refusing;
}

static json_t *describe(const struct fault *fault, uint64_t now_ns, uint64_t taken_mails)
{
    json_t *object = json_pack("{s:I,s:I}", "id", (json_int_t)fault->id, "hits", (json_int_t)fault->hits);
    size_t point = 0;

    while (point < POINT_NAMES && !(fault->points & BIT(point)))
        point++;
    if (fault->act == FAULT_CERTIFICATE)
        json_object_set_new(object, "certificate", json_string(certificate_names[fault->certificate]));
    else if (fault->act == FAULT_STRIP || fault->act == FAULT_INJECT)
        json_object_set_new(object, "starttls", json_string(fault->act == FAULT_STRIP ? "strip" : "inject"));
    else {
        json_object_set_new(object, "at", json_string(fault->points == POINTS_ANY ? "any" : point_names[point]));
        json_object_set_new(object, "do", json_string(act_names[fault->act]));
    }
    if (fault->code)
        json_object_set_new(object, "code", json_integer(fault->code));
    if (fault->delay_ms)
        json_object_set_new(object, "delay_ms", json_integer((json_int_t)fault->delay_ms));
    if (*fault->match)
        json_object_set_new(object, "match", json_string(fault->match));
    if (fault->share < 1.0)
        json_object_set_new(object, "share", json_real(fault->share));
    if (fault->counted)
        json_object_set_new(object, "left", json_integer((json_int_t)fault->left));
    if (fault->after_mails > taken_mails)
        json_object_set_new(object, "begins_after", json_integer((json_int_t)(fault->after_mails - taken_mails)));
    if (fault->until_ns)
        json_object_set_new(object, "left_ms", json_integer((json_int_t)((fault->until_ns - now_ns) / 1000000u)));
    return object;
}

json_t *fault_list(struct faults *faults, uint64_t now_ns, uint64_t taken_mails)
{
    json_t *array = json_array();

    expire(faults, now_ns);
    for (size_t i = 0; i < faults->count; i++)
        json_array_append_new(array, describe(&faults->fault[i], now_ns, taken_mails));
    return array;
}
