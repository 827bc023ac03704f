/* bounce: what comes back. The front takes reports over LMTP and events of SES over SNS, and writes them to
 * mail.feedback before it answers, so that a crash loses none; the back (settle.c) reads them from there and decides.
 * Two or more processes share both: any of them may take a report, and the group gives each its partitions of
 * mail.feedback. */
#include "service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lmtp_server.h"
#include "settle.h"
#include "sns_front.h"
#include "tandem/clock.h"
#include "tandem/log.h"
#include "tandem/pb.h"
#include "tandem/stages.h"
#include "tandem/token.h"
#include "tandem/watermark.h"

#include "tandem/internal/v1/feedback.pb-c.h"

enum {
    BUSY_MAX = 500, /* reports under way: intake stops here and goes on at BUSY_LOW */
    BUSY_LOW = 250,
    LANES_MAX = 256,
    SPAN = 1 << 16, /* a lane is paused when so much has been read past its oldest open report */
    FLUSH_MS = 5000,
};

struct bounce {
    struct td_app *app;
    const struct td_settings *settings;
    struct td_redis *redis;
    struct td_kafka_out *out;
    struct td_kafka_in *in;
    struct lmtp_server *server;
    struct sns_front *sns; /* NULL: not asked for */
    struct settle *settle;
    struct td_watermark *lane[LANES_MAX]; /* of mail.feedback, by partition; NULL: not ours */
    bool failed;
    struct td_metric *taken, *cut, *refused;
};

/* ---- front ---- */

static bool ours(const struct bounce *b, const char *address)
{
    const char *at = strrchr(address, '@');

    if (!at)
        return false;
    if (b->settings->bounce_domain)
        return strcasecmp(at + 1, b->settings->bounce_domain) == 0;
    for (size_t i = 0; i < b->settings->relay_count; i++)
        if (b->settings->relays[i].return_path_domain &&
            strcasecmp(at + 1, b->settings->relays[i].return_path_domain) == 0)
            return true;
    return false;
}

/* A forged or foreign address is refused at RCPT: nothing of it is read. */
static bool on_recipient(void *user, const char *address)
{
    struct bounce *b = user;
    const char *relays[TD_RELAYS_MAX];
    struct td_token token;
    const char *key = b->settings->keys_token;
    bool good;

    for (size_t i = 0; i < b->settings->relay_count; i++)
        relays[i] = b->settings->relays[i].name;
    good = ours(b, address) && td_token_read(address, strlen(address), TD_TOKEN_BOUNCE, key, strlen(key), relays,
                                             b->settings->relay_count, &token, NULL) == TD_OK;
    if (!good)
        td_metric_add(b->refused, 1);
    return good;
}

struct taking {
    struct bounce *b;
    struct lmtp_session *session;
    size_t recipient;
};

/* The first reason is enough: the process is on its way out. */
static void fail(struct bounce *b, const struct td_err *err)
{
    if (!b->failed)
        td_app_fail(b->app, err);
    b->failed = true;
}

static void on_written(void *user, int64_t offset, const struct td_err *err)
{
    struct taking *t = user;

    (void)offset;
    if (err)
        td_log(TD_WARN, "report.not_taken", "code=%s why=\"%s\"", td_code_name(err->code), err->text);
    else
        td_metric_add(t->b->taken, 1);
    lmtp_session_answer(t->session, t->recipient, !err);
    if (err && err->code == TD_EFATAL)
        fail(t->b, err);
    free(t);
}

static void on_message(void *user, struct lmtp_session *session, size_t recipient)
{
    struct bounce *b = user;
    const struct lmtp *dialogue = lmtp_session_dialogue(session);
    Tandem__Internal__V1__Feedback msg = TANDEM__INTERNAL__V1__FEEDBACK__INIT;
    struct taking *t = malloc(sizeof(*t));
    struct td_err err = {TD_ENOMEM, "no memory for a report"};
    void *packed;
    size_t len;
    int rc = TD_ENOMEM;

    msg.source = TANDEM__INTERNAL__V1__FEEDBACK_SOURCE__FEEDBACK_SOURCE_MAIL;
    msg.received_at_unix_ms = td_wall_ms();
    msg.envelope_recipient = (char *)(uintptr_t)lmtp_recipient(dialogue, recipient);
    msg.envelope_sender = (char *)(uintptr_t)lmtp_sender(dialogue);
    msg.raw = (ProtobufCBinaryData){lmtp_content(dialogue)->len, (uint8_t *)lmtp_content(dialogue)->data};
    msg.truncated = lmtp_cut(dialogue);
    msg.peer = (char *)(uintptr_t)lmtp_session_peer(session);
    packed = td_pb_write(&msg.base, &len);
    if (t && packed) {
        *t = (struct taking){b, session, recipient};
        rc = td_kafka_out_send(b->out, TD_T_FEEDBACK, -1, msg.envelope_recipient, strlen(msg.envelope_recipient),
                               packed, len, NULL, 0, on_written, t, &err);
    }
    free(packed);
    if (rc == TD_OK) {
        td_metric_add(b->cut, msg.truncated);
        return;
    }
    td_log(TD_WARN, "report.not_taken", "code=%s why=\"%s\"", td_code_name(err.code), err.text);
    lmtp_session_answer(session, recipient, false);
    if (rc == TD_EFATAL)
        fail(b, &err);
    free(t);
}

/* ---- back ---- */

static struct td_watermark *lane_of(struct bounce *b, struct td_lane id)
{
    return id.partition >= 0 && id.partition < LANES_MAX ? b->lane[id.partition] : NULL;
}

static void lanes_free(struct bounce *b)
{
    for (size_t i = 0; i < LANES_MAX; i++) {
        td_watermark_free(b->lane[i]);
        b->lane[i] = NULL;
    }
}

static void on_record(void *user, const struct td_record *rec)
{
    struct bounce *b = user;
    struct td_watermark *lane = lane_of(b, rec->lane);
    enum td_stage before;

    if (!lane || !td_watermark_begin(lane, rec->offset))
        return;
    before = td_stage(TD_STAGE_TAKE);
    settle_record(b->settle, rec);
    td_stage(before);
    if (settle_busy(b->settle) >= BUSY_MAX)
        td_kafka_in_hold(b->in, true);
    if (!td_watermark_room(lane))
        td_kafka_in_pause(b->in, rec->lane);
}

static void on_settled(void *user, struct td_lane id, int64_t offset)
{
    struct bounce *b = user;
    struct td_watermark *lane = lane_of(b, id);

    if (!lane)
        return;
    td_watermark_done(lane, offset);
    td_kafka_in_commit(b->in, id, td_watermark_next(lane));
    if (td_watermark_room(lane))
        td_kafka_in_resume(b->in, id);
    if (settle_busy(b->settle) <= BUSY_LOW)
        td_kafka_in_hold(b->in, false);
}

static void on_settle_fatal(void *user, const struct td_err *err)
{
    fail(user, err);
}

static void on_assigned(void *user, const struct td_lane *lanes, const int64_t *offsets, size_t count)
{
    struct bounce *b = user;

    (void)offsets;
    for (size_t i = 0; i < count; i++) {
        int32_t partition = lanes[i].partition;

        if (partition >= LANES_MAX) {
            fail(b, &(struct td_err){TD_ECONFIG, "mail.feedback has more than 256 partitions"});
            return;
        }
        b->lane[partition] = td_watermark_new(SPAN);
        if (!b->lane[partition]) {
            fail(b, &(struct td_err){TD_ENOMEM, "no memory for a lane"});
            return;
        }
    }
}

static void on_drained(void *user)
{
    struct bounce *b = user;

    lanes_free(b);
    td_kafka_in_hold(b->in, false);
    td_kafka_in_revoke_done(b->in);
}

static void on_revoked(void *user, const struct td_lane *lanes, size_t count, bool lost)
{
    struct bounce *b = user;

    (void)lanes;
    (void)count;
    if (lost) /* somebody else has them already */
        settle_forget(b->settle);
    settle_drain(b->settle, on_drained);
}

static void on_fatal(void *user, const struct td_err *err)
{
    fail(user, err);
}

/* ---- life ---- */

static void bounce_free(void *state)
{
    struct bounce *b = state;

    if (!b)
        return;
    lanes_free(b); /* what still gets done below is committed by nobody */
    td_app_left(b->app, "offsets_uncommitted", td_kafka_in_free(b->in));
    td_redis_free(b->redis);
    td_app_left(b->app, "records_unsent", td_kafka_out_free(b->out, FLUSH_MS)); /* LMTP clients get their answers */
    lmtp_server_free(b->server);
    sns_front_free(b->sns);
    settle_free(b->settle);
    free(b);
}

static int bounce_open(struct bounce *b, struct td_err *reterr)
{
    static const struct td_kafka_in_ops in_ops = {on_record, on_assigned, on_revoked, on_fatal};
    static const struct lmtp_server_ops server_ops = {on_recipient, on_message};
    static const struct settle_ops settle_ops = {on_settled, on_settle_fatal};
    static const enum td_topic_id topics[] = {TD_T_FEEDBACK};
    const struct td_settings *s = b->settings;
    uv_loop_t *loop = b->app->loop;
    int rc;

    rc = td_redis_new(loop, s->redis_url, s->redis_password, (unsigned)s->redis_timeout_ms, &b->redis, reterr);
    if (rc == TD_OK) {
        td_redis_need_view(b->redis);
        rc = td_kafka_out_new(loop, s, b->app->metrics, &b->out, reterr);
    }
    if (rc == TD_OK)
        rc = settle_new(loop, s, b->app->metrics, b->redis, b->out, &settle_ops, b, &b->settle, reterr);
    if (rc == TD_OK)
        rc = lmtp_server_new(loop, s->bounce_lmtp_listen, (size_t)s->bounce_max_message_bytes, &server_ops, b,
                             &b->server, reterr);
    if (rc == TD_OK && s->bounce_sns_listen)
        rc = sns_front_new(loop, s, b->app->metrics, b->out, on_fatal, b, &b->sns, reterr);
    if (rc == TD_OK)
        rc = td_kafka_in_new(loop, s, b->app->metrics, "bounce", topics, 1, &in_ops, b, &b->in, reterr);
    return rc;
}

static int bounce_start(struct td_app *app, void **ret_state, struct td_err *reterr)
{
    const struct td_settings *s = app->settings;
    struct bounce *b;
    int rc;

    if (!s->keys_token || strlen(s->keys_token) < TD_KEY_BYTES_MIN)
        return td_fail(reterr, TD_ECONFIG, "keys.token is needed: at least %d bytes, the same for all services",
                       TD_KEY_BYTES_MIN);
    b = calloc(1, sizeof(*b));
    if (!b)
        return td_fail(reterr, TD_ENOMEM, "bounce");
    b->app = app;
    b->settings = s;
    b->taken = td_metric(app->metrics, TD_COUNTER, "tandem_bounce_reports_total", "Mails taken over LMTP.", "");
    b->cut = td_metric(app->metrics, TD_COUNTER, "tandem_bounce_reports_cut_total",
                       "Of those, mails longer than bounce.max_message.", "");
    b->refused = td_metric(app->metrics, TD_COUNTER, "tandem_bounce_refused_total",
                           "LMTP recipients that are no return path of ours.", "");
    rc = bounce_open(b, reterr);
    if (rc < 0) {
        bounce_free(b);
        return rc;
    }
    *ret_state = b;
    return TD_OK;
}

static void on_in_stopped(void *user)
{
    struct bounce *b = user;

    td_app_stopped(b->app);
}

static void bounce_stop(void *state)
{
    struct bounce *b = state;

    lmtp_server_stop(b->server);
    sns_front_stop(b->sns);
    td_kafka_in_stop(b->in, on_in_stopped, b);
}

static bool bounce_ready(void *state, char *why, size_t size)
{
    const struct bounce *b = state;

    if (!td_kafka_in_assigned(b->in)) {
        snprintf(why, size, "not a member of the group yet");
        return false;
    }
    return true;
}

const struct td_service bounce_service = {
    .name = "bounce",
    .summary = "take what comes back: delivery reports over LMTP, events of SES over SNS",
    .start = bounce_start,
    .stop = bounce_stop,
    .ready = bounce_ready,
    .free = bounce_free,
};
