/* Events wait in two queues, each in the order in which they are due: those that are new (after delay_ms), and those
 * that were answered 5xx or not at all (RETRY_NS later, as SNS would). A few connections post them. */
#include "sns.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "sns_event.h"

#define POSTERS 4
#define EVENTS_MAX 200000 /* more are dropped and counted */
#define TRIES_MAX 3600    /* an hour, as SNS */
#define RETRY_NS UINT64_C(1000000000)
#define ANSWER_NS (15 * UINT64_C(1000000000)) /* what SNS waits for */
#define MS_NS UINT64_C(1000000)

struct event {
    struct event *next;
    uint64_t due_ns;
    uint32_t tries;
    json_t *envelope; /* not signed yet; owned */
    char *body;       /* signed; owned; NULL before its first post */
};

struct queue {
    struct event *first, **last;
};

/* IDLE, not connected -> CONNECTING -> BUSY -> IDLE, connected (kept for the next) */
enum poster_state { POSTER_IDLE = 0, POSTER_CONNECTING, POSTER_BUSY };

struct poster {
    struct watch watch;
    struct timer timer; /* it takes too long */
    struct sns *sns;
    enum poster_state state;
    struct event *event;
    struct td_buf in, out;
};

struct sns {
    struct sim *sim;
    struct sns_https *https;
    EVP_PKEY *key;
    char *pem, token[65], certificate_url[256], path[256], host[256];
    struct sockaddr_storage address;
    unsigned address_len;
    struct timer timer; /* the next event is due */
    struct queue fresh, again;
    size_t waiting;
    uint64_t number;
    bool asked, confirmed;
    struct poster poster[POSTERS];

    /* what POST /sns sets */
    bool bad_signature, twice, mute, complain;
    char *topic, *other_certificate_url; /* NULL: the right ones */
    uint64_t delay_ms;

    uint64_t dropped, broken, answered[600];
};

static void go_on(struct sns *sns);

/* ---- queues ---- */

static void push(struct queue *queue, struct event *event)
{
    event->next = NULL;
    *queue->last = event;
    queue->last = &event->next;
}

static struct event *pop_due(struct queue *queue, uint64_t now_ns)
{
    struct event *event = queue->first;

    if (!event || event->due_ns > now_ns)
        return NULL;
    queue->first = event->next;
    if (!queue->first)
        queue->last = &queue->first;
    return event;
}

static void event_free(struct event *event)
{
    json_decref(event->envelope);
    free(event->body);
    free(event);
}

static void queue_clear(struct queue *queue)
{
    struct event *event;

    while ((event = pop_due(queue, UINT64_MAX)))
        event_free(event);
}

/* An event is done with, or goes to be posted again. */
static void event_done(struct sns *sns, struct event *event, int status)
{
    bool again = (status == 0 || status >= 500) && ++event->tries < TRIES_MAX;

    if (status == 0)
        sns->broken++;
    else
        sns->answered[status]++;
    if (again) {
        event->due_ns = sns->sim->loop.now_ns + RETRY_NS;
        push(&sns->again, event);
        return;
    }
    sns->waiting--;
    event_free(event);
}

/* ---- making events ---- */

/* message is stolen. */
static json_t *envelope_new(struct sns *sns, const char *type, json_t *message)
{
    char id[40], *text = json_is_string(message) ? strdup(json_string_value(message)) : json_dumps(message, JSON_COMPACT);
    json_t *envelope = NULL;

    snprintf(id, sizeof(id), "%08" PRIx32 "-0000-4000-8000-%012" PRIx64, (uint32_t)sns->sim->unix_offset_ns,
             ++sns->number & UINT64_C(0xffffffffffff));
    if (text)
        envelope = json_pack("{s:s,s:s,s:s,s:s,s:s}", "Type", type, "MessageId", id, "TopicArn",
                             sns->topic ? sns->topic : sns->sim->options.sns_topic, "Message", text, "SigningCertURL",
                             sns->other_certificate_url ? sns->other_certificate_url : sns->certificate_url);
    json_decref(message);
    free(text);
    return envelope;
}

/* envelope is stolen; NULL: no memory, or text that is no UTF-8. */
static void event_add(struct sns *sns, json_t *envelope)
{
    struct event *event = envelope && sns->waiting < EVENTS_MAX ? calloc(1, sizeof(*event)) : NULL;

    if (!event) {
        json_decref(envelope);
        sns->dropped++;
        return;
    }
    event->envelope = envelope;
    event->due_ns = sns->sim->loop.now_ns + sns->delay_ms * MS_NS;
    push(&sns->fresh, event);
    sns->waiting++;
}

void sns_add(struct sns *sns, const struct mail *mail, const char *message_id, bool bounced, uint64_t unix_ms)
{
    struct sns_mail about = {.message_id = message_id,
                             .source = {mail->return_path.data, mail->return_path.len},
                             .recipient = mail->recipients.data,
                             .tags = {mail->ses_tags.data, mail->ses_tags.len},
                             .unix_ms = unix_ms};
    const char *const types[] = {"Send", bounced ? "Bounce" : "Delivery", "Complaint"};
    size_t count = sns->complain && !bounced ? 3 : 2;

    if (sns->mute || !mail->ses_events)
        return;
    for (size_t i = 0; i < count; i++) {
        json_t *envelope = envelope_new(sns, "Notification", sns_event(&about, types[i], sns->sim->options.bounce_status));

        if (envelope && sns->twice)
            event_add(sns, json_incref(envelope));
        event_add(sns, envelope);
    }
    go_on(sns);
}

/* SNS asks first whether its posts are wanted; until that is confirmed at our HTTPS port no event is posted. */
static void ask_to_confirm(struct sns *sns)
{
    json_t *envelope = envelope_new(sns, "SubscriptionConfirmation", json_string("You have chosen to subscribe to the topic."));
    char url[512];

    snprintf(url, sizeof(url), "https://%s/?Action=ConfirmSubscription&TopicArn=%s&Token=%s", sns->sim->options.sns_listen,
             sns->sim->options.sns_topic, sns->token);
    if (envelope) {
        json_object_set_new(envelope, "Token", json_string(sns->token));
        json_object_set_new(envelope, "SubscribeURL", json_string(url));
    }
    event_add(sns, envelope);
}

static void on_confirmed(void *user)
{
    struct sns *sns = user;

    sns->confirmed = true;
    go_on(sns);
}

/* ---- posting ---- */

static void poster_close(struct poster *poster)
{
    struct loop *loop = &poster->sns->sim->loop;

    loop_timer_stop(loop, &poster->timer);
    loop_close(loop, &poster->watch);
    td_buf_clear(&poster->in);
    td_buf_clear(&poster->out);
    poster->state = POSTER_IDLE;
}

static void poster_broken(struct poster *poster)
{
    struct event *event = poster->event;

    poster->event = NULL;
    poster_close(poster);
    if (event)
        event_done(poster->sns, event, 0);
    go_on(poster->sns);
}

static bool compose(struct sns *sns, struct event *event, struct td_buf *out)
{
    uint64_t unix_ms = sim_unix_us(sns->sim, sns->sim->loop.now_ns) / 1000;
    const char *type = json_string_value(json_object_get(event->envelope, "Type"));

    if (!event->body &&
        sns_sign(event->envelope, sns->key, sns->sim->options.sns_sha256 ? 2 : 1, unix_ms, sns->bad_signature) == TD_OK)
        event->body = json_dumps(event->envelope, JSON_COMPACT);
    return event->body &&
           td_buf_printf(out,
                         "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: text/plain; charset=UTF-8\r\n"
                         "x-amz-sns-message-type: %s\r\nUser-Agent: Amazon Simple Notification Service Agent\r\n"
                         "Content-Length: %zu\r\n\r\n",
                         sns->path, sns->host, type, strlen(event->body)) == TD_OK &&
           td_buf_adds(out, event->body) == TD_OK;
}

static void flush(struct poster *poster)
{
    while (poster->out.len) {
        ssize_t sent = send(poster->watch.fd, poster->out.data, poster->out.len, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0) {
            poster_broken(poster);
            return;
        }
        td_buf_consume(&poster->out, (size_t)sent);
    }
    if (loop_watch(&poster->sns->sim->loop, &poster->watch, poster->out.len ? EPOLLIN | EPOLLOUT : EPOLLIN) < 0)
        poster_broken(poster);
}

static void poster_start(struct poster *poster, struct event *event)
{
    struct sns *sns = poster->sns;
    struct loop *loop = &sns->sim->loop;
    bool connected = poster->watch.fd >= 0;

    poster->event = event;
    if (!connected)
        poster->watch.fd = socket(sns->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    poster->state = connected ? POSTER_BUSY : POSTER_CONNECTING;
    if (poster->watch.fd < 0 || !compose(sns, event, &poster->out) ||
        (!connected && connect(poster->watch.fd, (const struct sockaddr *)&sns->address, sns->address_len) < 0 &&
         errno != EINPROGRESS) ||
        loop_watch(loop, &poster->watch, EPOLLOUT) < 0 || loop_timer(loop, &poster->timer, loop->now_ns + ANSWER_NS) < 0) {
        poster->event = NULL;
        poster_close(poster);
        event_done(sns, event, 0);
    }
}

/* Give idle posters what is due. Before the subscription is confirmed only the question for that is. */
static void go_on(struct sns *sns)
{
    uint64_t now_ns = sns->sim->loop.now_ns, next = 0;

    for (struct poster *p = sns->poster; p < sns->poster + POSTERS; p++) {
        struct event *event = NULL;

        if (p->state != POSTER_IDLE)
            continue;
        event = pop_due(&sns->again, now_ns);
        if (!event && (sns->confirmed || !sns->asked))
            event = pop_due(&sns->fresh, now_ns);
        if (!event)
            break;
        sns->asked = true; /* the first event of all is the question */
        poster_start(p, event);
    }
    if (sns->again.first)
        next = sns->again.first->due_ns;
    if (sns->fresh.first && (next == 0 || sns->fresh.first->due_ns < next))
        next = sns->fresh.first->due_ns;
    if (next > now_ns) /* else a poster that becomes idle looks again */
        loop_timer(&sns->sim->loop, &sns->timer, next);
}

static void answered(struct poster *poster)
{
    struct event *event = poster->event;
    int status = 0, rc;
    size_t len = 0;

    rc = http_answer_read((struct slice){poster->in.data, poster->in.len}, &status, &len);
    if (rc == TD_EAGAIN)
        return;
    if (rc < 0 || status >= 600) {
        poster_broken(poster);
        return;
    }
    td_buf_consume(&poster->in, len);
    poster->event = NULL;
    poster->state = POSTER_IDLE;
    loop_timer_stop(&poster->sns->sim->loop, &poster->timer);
    event_done(poster->sns, event, status);
    go_on(poster->sns);
}

static void on_ready(struct watch *watch, uint32_t events)
{
    struct poster *poster = (struct poster *)watch;
    char data[4096];
    ssize_t got;

    if (poster->state == POSTER_CONNECTING)
        poster->state = POSTER_BUSY;
    if (events & EPOLLOUT && poster->out.len)
        flush(poster);
    if (poster->watch.fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    got = recv(watch->fd, data, sizeof(data), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0 || poster->state == POSTER_IDLE || td_buf_add(&poster->in, data, (size_t)got) < 0)
        poster_broken(poster); /* also an idle connection that the server has closed */
    else
        answered(poster);
}

static void on_poster_timer(struct timer *timer)
{
    poster_broken((struct poster *)((char *)timer - offsetof(struct poster, timer)));
}

static void on_timer(struct timer *timer)
{
    go_on((struct sns *)((char *)timer - offsetof(struct sns, timer)));
}

/* ---- control ---- */

int sns_set(struct sns *sns, json_t *object, struct td_err *reterr)
{
    const char *signature = "good", *topic = NULL, *certificate_url = NULL;
    json_int_t delay_ms = 0;
    int twice = 0, mute = 0, complain = 0;

    if (json_unpack(object, "{s?s,s?s,s?s,s?I,s?b,s?b,s?b!}", "signature", &signature, "topic", &topic, "certificate_url",
                    &certificate_url, "delay_ms", &delay_ms, "twice", &twice, "mute", &mute, "complain", &complain) < 0 ||
        delay_ms < 0 || delay_ms > 3600000 || (strcmp(signature, "good") != 0 && strcmp(signature, "bad") != 0))
        return td_fail(reterr, TD_EINVAL,
                       "{\"signature\": good or bad, \"topic\", \"certificate_url\", \"delay_ms\": 0..3600000, \"twice\", \"mute\", \"complain\"}");
    free(sns->topic);
    free(sns->other_certificate_url);
    sns->topic = topic ? strdup(topic) : NULL;
    sns->other_certificate_url = certificate_url ? strdup(certificate_url) : NULL;
    sns->bad_signature = strcmp(signature, "bad") == 0;
    sns->twice = twice;
    sns->mute = mute;
    sns->complain = complain;
    sns->delay_ms = (uint64_t)delay_ms;
    return TD_OK;
}

json_t *sns_status(const struct sns *sns)
{
    json_t *answers = json_object();
    char code[8];

    for (int i = 100; i < 600; i++)
        if (sns->answered[i]) {
            snprintf(code, sizeof(code), "%d", i);
            json_object_set_new(answers, code, json_integer((json_int_t)sns->answered[i]));
        }
    return json_pack("{s:b,s:I,s:I,s:I,s:o}", "confirmed", (int)sns->confirmed, "waiting", (json_int_t)sns->waiting, "dropped",
                     (json_int_t)sns->dropped, "broken", (json_int_t)sns->broken, "answers", answers);
}

/* ---- life ---- */

static int make_key(struct sns *sns, struct td_err *reterr)
{
    BIO *bio = BIO_new(BIO_s_mem());
    unsigned char random[32];
    X509 *certificate = NULL;
    char *pem = NULL;
    long len = 0;

    sns->key = EVP_RSA_gen(2048);
    if (sns->key)
        certificate = tls_sign_certificate(&sns->sim->tls, "sns.amazonaws.com", sns->key);
    if (bio && certificate && PEM_write_bio_X509(bio, certificate) == 1)
        len = BIO_get_mem_data(bio, &pem);
    if (len > 0)
        sns->pem = strndup(pem, (size_t)len);
    X509_free(certificate);
    BIO_free(bio);
    if (!sns->pem || RAND_bytes(random, sizeof(random)) != 1)
        return td_fail(reterr, TD_EFATAL, "sns: no key");
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(sns->token + 2 * i, 3, "%02x", random[i]);
    return TD_OK;
}

/* http://HOST:PORT/path */
static int read_url(struct sns *sns, const char *url, struct td_err *reterr)
{
    const char *slash;

    if (strncmp(url, "http://", 7) != 0)
        return td_fail(reterr, TD_ECONFIG, "--sns: http://HOST:PORT/PATH");
    url += 7;
    slash = strchr(url, '/');
    if (!slash || strlen(slash) >= sizeof(sns->path) || (size_t)(slash - url) >= sizeof(sns->host) || strpbrk(url, " \r\n"))
        return td_fail(reterr, TD_ECONFIG, "--sns: http://HOST:PORT/PATH");
    memcpy(sns->path, slash, strlen(slash) + 1);
    memcpy(sns->host, url, (size_t)(slash - url));
    sns->host[slash - url] = '\0';
    return address_parse(sns->host, &sns->address, &sns->address_len, reterr);
}

struct sns *sns_new(struct sim *sim, struct td_err *reterr)
{
    struct sns *sns = calloc(1, sizeof(*sns));
    const char *colon = strrchr(sim->options.sns_listen, ':');

    if (!sns) {
        td_fail(reterr, TD_ENOMEM, "sns");
        return NULL;
    }
    sns->sim = sim;
    sns->fresh.last = &sns->fresh.first;
    sns->again.last = &sns->again.first;
    sns->timer.fire = on_timer;
    for (struct poster *p = sns->poster; p < sns->poster + POSTERS; p++) {
        p->watch = (struct watch){.fd = -1, .ready = on_ready};
        p->timer.fire = on_poster_timer;
        p->sns = sns;
        td_buf_init(&p->in, 65536);
        td_buf_init(&p->out, 1u << 20);
    }
    if (read_url(sns, sim->options.sns_url, reterr) == TD_OK && make_key(sns, reterr) == TD_OK)
        sns->https = sns_https_new(sim, sns->pem, sns->token, on_confirmed, sns, reterr);
    if (!sns->https) {
        sns_free(sns);
        return NULL;
    }
    snprintf(sns->certificate_url, sizeof(sns->certificate_url), "https://%.*s:%u/SimpleNotificationService-relaysim.pem",
             (int)(colon - sim->options.sns_listen), sim->options.sns_listen, sns_https_port(sns->https));
    ask_to_confirm(sns);
    go_on(sns);
    return sns;
}

void sns_free(struct sns *sns)
{
    if (!sns)
        return;
    for (struct poster *p = sns->poster; p < sns->poster + POSTERS; p++) {
        if (p->event)
            event_free(p->event);
        p->event = NULL;
        poster_close(p);
        td_buf_release(&p->in);
        td_buf_release(&p->out);
    }
    loop_timer_stop(&sns->sim->loop, &sns->timer);
    queue_clear(&sns->fresh);
    queue_clear(&sns->again);
    sns_https_free(sns->https);
    EVP_PKEY_free(sns->key);
    free(sns->pem);
    free(sns->topic);
    free(sns->other_certificate_url);
    free(sns);
}
