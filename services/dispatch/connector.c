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
#include "tandem/curl_loop.h"

struct connector {
    uv_loop_t *loop;
    const struct td_relay_settings *relay;
    const struct reply_rules *rules;
    struct td_curl_loop *curl;
    uint64_t heard_us;
    char *url;
    struct smtp_buffers *buffers; /* of all its connections */
    struct tls_sessions *sessions;
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

static void on_connected(void *owner, CURLcode result)
{
    connection_connect_done(owner, result);
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

void connector_free(struct connector *connector)
{
    if (!connector)
        return;
    td_curl_loop_free(connector->curl);
    tls_sessions_free(connector->sessions);
    smtp_buffers_free(connector->buffers);
    free(connector->url);
    free(connector);
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
    connector->curl = td_curl_loop_new(loop, on_connected);
    connector->buffers = smtp_buffers_new();
    connector->sessions = tls_sessions_new(relay->tls_resume_ms);
    if (!connector->url || !connector->curl || !connector->buffers || !connector->sessions) {
        connector_free(connector);
        return td_fail(reterr, TD_ENOMEM, "relay %s", relay->name);
    }
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
    return curl_multi_add_handle(td_curl_loop_multi(connector->curl), easy) == CURLM_OK ? TD_OK : TD_ENOMEM;
}

void connector_remove(struct connector *connector, CURL *easy)
{
    curl_multi_remove_handle(td_curl_loop_multi(connector->curl), easy);
}
