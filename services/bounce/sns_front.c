/* post -> envelope read -> topic listed -> certificate's URL fits -> certificate (cache, or fetched) -> signature
 *      -> notification: mail.feedback -> 200
 *      -> subscription: confirmed at the host that was checked -> 200
 *
 * What comes first is cheap and needs nothing from outside; a post that fails there fetches nothing. */
#include "sns_front.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fetch.h"
#include "sns_envelope.h"
#include "tandem/clock.h"
#include "tandem/http.h"
#include "tandem/log.h"
#include "tandem/pb.h"
#include "tandem/stages.h"

#include "tandem/internal/v1/feedback.pb-c.h"

enum {
    KEYS_MAX = 8,             /* certificates kept: one or two a region */
    KEY_MS = 24 * 3600 * 1000,
    NO_KEY_MS = 5000,         /* after a fetch that failed, the next is made no sooner */
    FETCHING_MAX = 64,        /* posts that wait for certificates; more: 503 */
    ANSWER_MS = 10000,        /* SNS gives up after 15 s: then 503, and it comes again */
    TICK_MS = 500
};

enum what { TAKEN, UNREADABLE, NOT_LISTED, BAD_CERTIFICATE_URL, BAD_SIGNATURE, AWAY, WHATS };

static const struct {
    const char *name, *json;
    int status;
} whats[WHATS] = {
    [TAKEN] = {"taken", "{}\n", 200},
    [UNREADABLE] = {"unreadable", "{\"error\":\"not an envelope of SNS\"}\n", 400},
    [NOT_LISTED] = {"topic", "{\"error\":\"topic not listed\"}\n", 403},
    [BAD_CERTIFICATE_URL] = {"certificate_url", "{\"error\":\"certificate from elsewhere\"}\n", 403},
    [BAD_SIGNATURE] = {"signature", "{\"error\":\"signature does not verify\"}\n", 403},
    [AWAY] = {"away", "{\"error\":\"not now\"}\n", 503},
};

/* A post, from its arrival until nothing calls back for it any more. */
struct post {
    struct post *prev, *next;
    struct sns_front *front;
    struct td_http_later *later; /* NULL: answered */
    struct sns_envelope envelope;
    size_t len;
    char *body; /* as it came */
    uint64_t until_ms;
    bool waits; /* for a certificate; nobody else calls back for it */
};

struct key {
    char url[SNS_URL_MAX];
    EVP_PKEY *key; /* NULL: not there (yet) */
    bool fetching;
    uint64_t until_ms, used_ms;
    struct sns_front *front;
};

struct sns_front {
    const struct td_settings *settings;
    struct td_kafka_out *out;
    struct td_http *http;
    struct fetch *fetch;
    uv_timer_t *timer;
    void (*on_fatal)(void *user, const struct td_err *err);
    void *user;
    struct post *posts;
    size_t waiting;
    struct key key[KEYS_MAX];
    bool stopping;
    uint64_t told_ms; /* when a refusal was logged last */
    struct td_metric *answered[WHATS];
};

/* ---- the end of a post ---- */

static void answer(struct post *p, enum what what)
{
    if (!p->later)
        return;
    td_metric_add(p->front->answered[what], 1);
    td_http_answer(p->later, whats[what].status, whats[what].json);
    p->later = NULL;
}

static void post_free(struct post *p)
{
    answer(p, AWAY);
    if (p->prev)
        p->prev->next = p->next;
    else
        p->front->posts = p->next;
    if (p->next)
        p->next->prev = p->prev;
    p->front->waiting -= p->waits;
    sns_release(&p->envelope);
    free(p->body);
    free(p);
}

/* Anybody may post: a line a second is enough, the metric counts them all. */
static void tell_refusal(struct sns_front *f, enum what what)
{
    uint64_t now_ms = td_mono_ms();

    if (f->told_ms && now_ms - f->told_ms < 1000)
        return;
    f->told_ms = now_ms;
    td_log(TD_WARN, "sns.refused", "why=%s status=%d", whats[what].name, whats[what].status);
}

static void end(struct post *p, enum what what)
{
    if (what != TAKEN && what != AWAY)
        tell_refusal(p->front, what);
    answer(p, what);
    post_free(p);
}

/* ---- a post that was verified ---- */

static void on_written(void *user, int64_t offset, const struct td_err *err)
{
    struct post *p = user;
    struct sns_front *f = p->front;

    (void)offset;
    if (err)
        td_log(TD_WARN, "sns.not_taken", "code=%s why=\"%s\"", td_code_name(err->code), err->text);
    if (err && err->code == TD_EFATAL)
        f->on_fatal(f->user, err);
    end(p, err ? AWAY : TAKEN);
}

static void write_down(struct post *p)
{
    Tandem__Internal__V1__Feedback msg = TANDEM__INTERNAL__V1__FEEDBACK__INIT;
    struct sns_front *f = p->front;
    struct td_err err = {TD_ENOMEM, "no memory for an event"};
    const char *key = p->envelope.message_id;
    int rc = TD_ENOMEM;
    void *packed;
    size_t len;

    msg.source = TANDEM__INTERNAL__V1__FEEDBACK_SOURCE__FEEDBACK_SOURCE_SES_EVENT;
    msg.received_at_unix_ms = td_wall_ms();
    msg.raw = (ProtobufCBinaryData){p->len, (uint8_t *)p->body};
    packed = td_pb_write(&msg.base, &len);
    if (packed)
        rc = td_kafka_out_send(f->out, TD_T_FEEDBACK, -1, key, strlen(key), packed, len, NULL, 0, on_written, p, &err);
    free(packed);
    if (rc < 0)
        on_written(p, -1, &err);
}

static void on_confirmed(void *user, const char *data, size_t len, const struct td_err *err)
{
    struct post *p = user;

    (void)data;
    (void)len;
    td_log(err ? TD_WARN : TD_INFO, err ? "sns.not_confirmed" : "sns.confirmed", "topic=%s why=\"%s\"",
           p->envelope.topic, err ? err->text : "");
    end(p, err ? AWAY : TAKEN);
}

/* The operator has listed the topic: that is the consent that a confirmation asks for. */
static void confirm(struct post *p, const char *host)
{
    struct td_buf url = TD_BUF_INIT(2 * SNS_URL_MAX);
    int rc = sns_confirm_url(&p->envelope, host, &url);

    if (rc == TD_ESYNTAX || rc == TD_ETOOBIG)
        end(p, UNREADABLE);
    else if (rc < 0 || fetch_get(p->front->fetch, td_buf_str(&url), SNS_PEM_MAX, on_confirmed, p) < 0)
        end(p, AWAY);
    td_buf_release(&url);
}

/* @return false when the topic's own host does not fit */
static bool host_of(const struct sns_front *f, const char *topic, char *out, size_t size)
{
    if (!f->settings->bounce_sns_host)
        return sns_host(topic, out, size);
    snprintf(out, size, "%s", f->settings->bounce_sns_host);
    return true;
}

static void verify(struct post *p, EVP_PKEY *key)
{
    struct td_err err;
    char host[256];
    enum td_stage before = td_stage(TD_STAGE_VALIDATE);
    int rc = sns_verify(&p->envelope, key, &err);

    td_stage(before);
    if (rc == TD_ENOMEM || p->front->stopping) {
        end(p, AWAY);
    } else if (rc < 0 || !host_of(p->front, p->envelope.topic, host, sizeof(host))) {
        end(p, BAD_SIGNATURE);
    } else if (p->envelope.type == SNS_NOTIFICATION) {
        write_down(p);
    } else if (p->envelope.type == SNS_SUBSCRIPTION) {
        confirm(p, host);
    } else {
        td_log(TD_ERROR, "sns.unsubscribed", "topic=%s msg=\"no event of it comes any more\"", p->envelope.topic);
        end(p, TAKEN);
    }
}

/* ---- certificates ---- */

static void key_forget(struct key *key)
{
    EVP_PKEY_free(key->key);
    key->key = NULL;
    key->url[0] = '\0';
}

static void wait_over(struct post *p, EVP_PKEY *key)
{
    p->waits = false;
    p->front->waiting--;
    if (key)
        verify(p, key);
    else
        end(p, AWAY);
}

static void on_certificate(void *user, const char *data, size_t len, const struct td_err *err)
{
    struct key *key = user;
    struct sns_front *f = key->front;
    struct post *next;

    key->fetching = false;
    if (!err)
        key->key = sns_certificate_key(data, len, td_wall_ms() / 1000);
    if (!key->key)
        td_log(TD_WARN, "sns.no_certificate", "why=\"%s\"", err ? err->text : "not a certificate in force of an RSA key");
    key->until_ms = td_mono_ms() + (key->key ? KEY_MS : NO_KEY_MS);
    for (struct post *p = f->posts; p; p = next) {
        next = p->next;
        if (p->waits && strcmp(p->envelope.certificate_url, key->url) == 0)
            wait_over(p, key->key);
    }
}

/* The entry of this URL: the one that is there, or a new one in place of the one unused for longest. NULL: all are
 * being fetched. */
static struct key *key_of(struct sns_front *f, const char *url, uint64_t now_ms)
{
    struct key *oldest = NULL;

    for (struct key *key = f->key; key < f->key + KEYS_MAX; key++) {
        if (key->url[0] && !key->fetching && now_ms >= key->until_ms)
            key_forget(key);
        if (strcmp(key->url, url) == 0)
            return key;
        if (!key->fetching && (!oldest || key->used_ms < oldest->used_ms || !key->url[0]))
            oldest = key;
    }
    if (oldest) {
        key_forget(oldest);
        memcpy(oldest->url, url, strlen(url) + 1); /* checked to fit */
        oldest->until_ms = 0;
    }
    return oldest;
}

static void find_key(struct post *p)
{
    struct sns_front *f = p->front;
    uint64_t now_ms = td_mono_ms();
    struct key *key = key_of(f, p->envelope.certificate_url, now_ms);

    if (key)
        key->used_ms = now_ms;
    if (key && key->key) {
        verify(p, key->key);
        return;
    }
    /* until_ms with no key: it could not be fetched a moment ago. */
    if (!key || f->waiting >= FETCHING_MAX || (!key->fetching && key->until_ms > now_ms)) {
        end(p, AWAY);
        return;
    }
    if (!key->fetching && fetch_get(f->fetch, key->url, SNS_PEM_MAX, on_certificate, key) < 0) {
        end(p, AWAY);
        return;
    }
    key->fetching = true;
    p->waits = true;
    f->waiting++;
}

/* ---- a post comes ---- */

static bool listed(const struct td_settings *s, const char *topic)
{
    for (size_t i = 0; i < s->bounce_sns_topics.count; i++)
        if (strcmp(s->bounce_sns_topics.item[i], topic) == 0)
            return true;
    return false;
}

static enum what look(const struct sns_front *f, const struct sns_envelope *e)
{
    char host[256];

    if (strlen(e->message_id) > 100)
        return UNREADABLE;
    if (!listed(f->settings, e->topic))
        return NOT_LISTED;
    if (f->settings->bounce_sns_sha256_only && e->version != 2)
        return BAD_SIGNATURE;
    if (strlen(e->certificate_url) >= SNS_URL_MAX || !host_of(f, e->topic, host, sizeof(host)) ||
        !sns_certificate_url_fit(e->certificate_url, host))
        return BAD_CERTIFICATE_URL;
    return TAKEN;
}

static void on_post(void *user, const struct td_http_request *req, struct td_http_later *later)
{
    struct sns_front *f = user;
    struct post *p = f->stopping ? NULL : calloc(1, sizeof(*p));
    enum what what = UNREADABLE;

    if (p)
        p->body = malloc(req->body_len + 1);
    if (!p || !p->body) {
        td_metric_add(f->answered[AWAY], 1);
        td_http_answer(later, whats[AWAY].status, whats[AWAY].json);
        free(p);
        return;
    }
    memcpy(p->body, req->body, req->body_len);
    p->len = req->body_len;
    p->front = f;
    p->later = later;
    p->until_ms = td_mono_ms() + ANSWER_MS;
    p->next = f->posts;
    if (p->next)
        p->next->prev = p;
    f->posts = p;
    if (sns_read(p->body, p->len, &p->envelope, NULL) == TD_OK)
        what = look(f, &p->envelope);
    if (what == TAKEN)
        find_key(p);
    else
        end(p, what);
}

static void on_timer(uv_timer_t *timer)
{
    struct sns_front *f = timer->data;
    uint64_t now_ms = td_mono_ms();

    for (struct post *p = f->posts; p; p = p->next)
        if (now_ms >= p->until_ms)
            answer(p, AWAY); /* it stays until who has it calls back; taken then, it is taken twice: no harm */
}

/* ---- life ---- */

int sns_front_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
                  struct td_kafka_out *out, void (*on_fatal)(void *user, const struct td_err *err), void *user,
                  struct sns_front **ret, struct td_err *reterr)
{
    struct sns_front *f = calloc(1, sizeof(*f));
    char labels[48];
    int rc;

    if (f)
        f->timer = malloc(sizeof(*f->timer));
    if (!f || !f->timer) {
        free(f);
        return td_fail(reterr, TD_ENOMEM, "sns");
    }
    f->settings = settings;
    f->out = out;
    f->on_fatal = on_fatal;
    f->user = user;
    for (size_t i = 0; i < KEYS_MAX; i++)
        f->key[i].front = f;
    for (size_t i = 0; i < WHATS; i++) {
        snprintf(labels, sizeof(labels), "answer=\"%s\"", whats[i].name);
        f->answered[i] = td_metric(metrics, TD_COUNTER, "tandem_bounce_sns_posts_total", "Posts of SNS by answer.", labels);
    }
    uv_timer_init(loop, f->timer);
    f->timer->data = f;
    uv_timer_start(f->timer, on_timer, TICK_MS, TICK_MS);
    rc = fetch_new(loop, settings->bounce_sns_ca_file, &f->fetch, reterr);
    if (rc == TD_OK)
        rc = td_http_new(loop, settings->bounce_sns_listen, &f->http, reterr);
    if (rc == TD_OK && td_http_route_later(f->http, "POST", "/sns", SNS_BODY_MAX, on_post, f) < 0)
        rc = td_fail(reterr, TD_ENOMEM, "sns");
    if (rc < 0) {
        sns_front_free(f);
        return rc;
    }
    *ret = f;
    return TD_OK;
}

void sns_front_stop(struct sns_front *front)
{
    if (front)
        front->stopping = true;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

void sns_front_free(struct sns_front *f)
{
    struct post *next;

    if (!f)
        return;
    f->stopping = true;
    fetch_free(f->fetch); /* ends what waits for it */
    for (struct post *p = f->posts; p; p = next) {
        next = p->next;
        post_free(p);
    }
    td_http_free(f->http);
    for (size_t i = 0; i < KEYS_MAX; i++)
        EVP_PKEY_free(f->key[i].key);
    uv_close((uv_handle_t *)f->timer, on_timer_closed);
    free(f);
}
