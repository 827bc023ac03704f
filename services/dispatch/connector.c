/* connector.c - libcurl's multi interface on the loop: it connects, nothing else. Its upload path is never used:
 * that one blocks the whole multi handle until the final dot is answered.
 *
 * One multi handle a relay, so that its cache of parsed CA certificates fits every handshake. Handles stay in it
 * as long as their connection lives: removing one closes its connection (a CONNECT_ONLY handle cannot find it
 * again). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connector_int.h"
#include "tandem/clock.h"

struct connector {
    uv_loop_t *loop;
    const struct td_relay_settings *relay;
    const struct reply_rules *rules;
    CURLM *multi;
    uv_timer_t timer; /* libcurl's one timer */
    uint64_t heard_us;
    char *url;
    struct smtp_buffers *buffers; /* of all its connections */
    struct tls_sessions *sessions;
};

/* A socket that libcurl watches while it connects (also the resolver's pair). */
struct watch {
    uv_poll_t poll;
    struct connector *connector;
    curl_socket_t fd;
};

uv_loop_t *connector_loop(const struct connector *connector)
{
    return connector->loop;
}

struct smtp_buffers *connector_buffers(const struct connector *connector)
{
    return connector->buffers;
}

struct tls_sessions *connector_sessions(const struct connector *connector)
{
    return connector->sessions;
}

const struct td_relay_settings *connector_relay(const struct connector *connector)
{
    return connector->relay;
}

void connector_heard(struct connector *connector, uint64_t now_us)
{
    connector->heard_us = now_us;
}

uint64_t connector_heard_us(const struct connector *connector)
{
    return connector->heard_us;
}

void connector_rules(struct connector *connector, const struct reply_rules *rules)
{
    connector->rules = rules;
}

const struct reply_rules *connector_own_rules(const struct connector *connector)
{
    return connector->rules;
}

/* After every call into the multi handle, never from inside one: handlers may remove handles. */
static void take_done(struct connector *connector)
{
    CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(connector->multi, &left))) {
        struct connection *conn = NULL;
        CURLcode rc = msg->data.result;

        if (msg->msg == CURLMSG_DONE &&
            curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&conn) == CURLE_OK && conn)
            connection_connect_done(conn, rc);
    }
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    struct connector *connector = watch->connector;
    int flags = 0, running;

    if (status < 0)
        flags = CURL_CSELECT_ERR;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    curl_multi_socket_action(connector->multi, watch->fd, flags, &running);
    take_done(connector);
}

static void on_timer(uv_timer_t *timer)
{
    struct connector *connector = timer->data;
    int running;

    curl_multi_socket_action(connector->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    take_done(connector);
}

static int timer_wanted(CURLM *multi, long timeout_ms, void *user)
{
    struct connector *connector = user;

    (void)multi;
    if (timeout_ms < 0)
        uv_timer_stop(&connector->timer);
    else
        uv_timer_start(&connector->timer, on_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

static void watch_freed(uv_handle_t *handle)
{
    free(handle->data);
}

static int socket_wanted(CURL *easy, curl_socket_t fd, int what, void *user, void *socket_user)
{
    struct connector *connector = user;
    struct watch *watch = socket_user;
    int events = 0;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        /* The handle is done with this socket, which may live on as ours: uv_close frees the number at once. */
        if (watch)
            uv_close((uv_handle_t *)&watch->poll, watch_freed);
        curl_multi_assign(connector->multi, fd, NULL);
        return 0;
    }
    if (!watch) {
        watch = calloc(1, sizeof(*watch));
        if (!watch || uv_poll_init_socket(connector->loop, &watch->poll, fd) < 0) {
            free(watch);
            return -1;
        }
        watch->poll.data = watch;
        watch->connector = connector;
        watch->fd = fd;
        curl_multi_assign(connector->multi, fd, watch);
    }
    events |= what == CURL_POLL_IN || what == CURL_POLL_INOUT ? UV_READABLE : 0;
    events |= what == CURL_POLL_OUT || what == CURL_POLL_INOUT ? UV_WRITABLE : 0;
    return uv_poll_start(&watch->poll, events, on_socket) < 0 ? -1 : 0;
}

/* smtps://host:port/helo-name: libcurl takes what it says in EHLO from the path. */
static char *url_new(const struct td_relay_settings *relay)
{
    bool literal = strchr(relay->host, ':') != NULL; /* IPv6 */
    char *helo = curl_easy_escape(NULL, relay->helo_name ? relay->helo_name : "localhost", 0);
    char *url = NULL;

    if (!helo)
        return NULL;
    if (asprintf(&url, "%s://%s%s%s:%lld/%s", relay->tls == TD_TLS_IMPLICIT ? "smtps" : "smtp", literal ? "[" : "",
                 relay->host, literal ? "]" : "", (long long)relay->port, helo) < 0)
        url = NULL;
    curl_free(helo);
    return url;
}

static void release(struct connector *connector)
{
    curl_multi_cleanup(connector->multi);
    tls_sessions_free(connector->sessions);
    smtp_buffers_free(connector->buffers);
    free(connector->url);
    free(connector);
}

static void connector_closed(uv_handle_t *handle)
{
    release(handle->data);
}

void connector_free(struct connector *connector)
{
    if (!connector)
        return;
    curl_multi_cleanup(connector->multi);
    connector->multi = NULL;
    uv_close((uv_handle_t *)&connector->timer, connector_closed);
}

int connector_new(uv_loop_t *loop, const struct td_relay_settings *relay, struct connector **ret,
                  struct td_err *reterr)
{
    struct connector *connector = calloc(1, sizeof(*connector));

    if (!connector)
        return td_fail(reterr, TD_ENOMEM, "relay %s", relay->name);
    connector->loop = loop;
    connector->relay = relay;
    connector->url = url_new(relay);
    connector->multi = curl_multi_init();
    connector->buffers = smtp_buffers_new();
    connector->sessions = tls_sessions_new(relay->tls_resume_ms);
    if (!connector->url || !connector->multi || !connector->buffers || !connector->sessions) {
        release(connector);
        return td_fail(reterr, TD_ENOMEM, "relay %s", relay->name);
    }
    uv_timer_init(loop, &connector->timer);
    connector->timer.data = connector;
    curl_multi_setopt(connector->multi, CURLMOPT_SOCKETFUNCTION, socket_wanted);
    curl_multi_setopt(connector->multi, CURLMOPT_SOCKETDATA, connector);
    curl_multi_setopt(connector->multi, CURLMOPT_TIMERFUNCTION, timer_wanted);
    curl_multi_setopt(connector->multi, CURLMOPT_TIMERDATA, connector);
    *ret = connector;
    return TD_OK;
}

static size_t header_line(char *line, size_t size, size_t count, void *user)
{
    return handshake_line(user, line, size * count) ? size * count : 0;
}

static size_t body_dropped(char *data, size_t size, size_t count, void *user)
{
    (void)data;
    (void)user;
    return size * count;
}

#define SET(option, value) failed |= curl_easy_setopt(easy, option, value) != CURLE_OK

static bool set_security(CURL *easy, const struct td_relay_settings *relay)
{
    bool failed = false;

    SET(CURLOPT_PROTOCOLS_STR, "smtp,smtps");
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_USE_SSL, (long)CURLUSESSL_ALL); /* STARTTLS or nothing: no AUTH and no mail in clear, ever */
    if (relay->ca_file)
        SET(CURLOPT_CAINFO, relay->ca_file);
    if (relay->user) {
        SET(CURLOPT_USERNAME, relay->user);
        SET(CURLOPT_PASSWORD, relay->password ? relay->password : "");
        SET(CURLOPT_SASL_IR, 1L);
    }
#ifdef TD_TEST_PLAINTEXT
    if (relay->tls == TD_TLS_STARTTLS)
        SET(CURLOPT_USE_SSL, (long)CURLUSESSL_NONE);
#endif
    return !failed;
}

CURL *connector_easy(struct connector *connector, struct handshake *handshake, char error_text[CURL_ERROR_SIZE])
{
    const struct td_relay_settings *relay = connector->relay;
    CURL *easy = curl_easy_init();
    bool failed = !easy;

    if (!easy)
        return NULL;
    SET(CURLOPT_URL, connector->url);
    SET(CURLOPT_CONNECT_ONLY, 1L);
    /* Each handle its own connection. FORBID_REUSE would close it when the connect phase is done; a CONNECT_ONLY
     * connection is never reused anyway. */
    SET(CURLOPT_FRESH_CONNECT, 1L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT,
        1L); /* giving up must not join a resolver thread that hangs in DNS: that blocks the loop */
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOPROXY, "*");
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)relay->connect_timeout_ms); /* until AUTH is answered, not only TCP */
    SET(CURLOPT_HEADERFUNCTION, header_line);
    SET(CURLOPT_HEADERDATA, handshake);
    SET(CURLOPT_WRITEFUNCTION, body_dropped);
    SET(CURLOPT_ERRORBUFFER, error_text);
    failed |= !set_security(easy, relay);
    if (failed) {
        curl_easy_cleanup(easy);
        return NULL;
    }
    return easy;
}

int connector_add(struct connector *connector, CURL *easy, struct connection *conn)
{
    if (curl_easy_setopt(easy, CURLOPT_PRIVATE, conn) != CURLE_OK)
        return TD_ENOMEM;
    return curl_multi_add_handle(connector->multi, easy) == CURLM_OK ? TD_OK : TD_ENOMEM;
}

void connector_remove(struct connector *connector, CURL *easy)
{
    curl_multi_remove_handle(connector->multi, easy);
}
