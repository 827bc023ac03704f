#include "handshake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "reply_classify.h"

#define REPLIES_MAX 32 /* a handshake has at most ten or so; a relay that goes on is not one */

void handshake_init(struct handshake *handshake)
{
    memset(handshake, 0, sizeof(*handshake));
    smtp_reply_reader_init(&handshake->reader);
}

static bool keyword_is(const char *line, size_t len, const char *keyword)
{
    size_t n = strlen(keyword);

    return len >= n && strncasecmp(line, keyword, n) == 0 && (len == n || line[n] == ' ' || line[n] == '=');
}

/* "250-SIZE 41943040": the number, 0 when there is none or it does not fit. */
static uint64_t size_value(const char *text, size_t len)
{
    uint64_t value = 0;

    for (size_t i = sizeof("SIZE"); i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || value > UINT64_MAX / 10 - 9)
            return 0;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    return value;
}

static void extension_take(struct smtp_offer *offer, const char *text, size_t len)
{
    if (keyword_is(text, len, "PIPELINING"))
        offer->pipelining = true;
    else if (keyword_is(text, len, "CHUNKING"))
        offer->chunking = true;
    else if (keyword_is(text, len, "SIZE")) {
        offer->size = true;
        offer->size_max = size_value(text, len);
    }
}

/* The first line of a 250 is the relay's name, the others are extensions; each 250 of a handshake answers an EHLO.
 */
static void ehlo_line(struct handshake *handshake, const char *line, size_t len)
{
    if (len < 4 || strncmp(line, "250", 3) != 0)
        return;
    if (!handshake->ehlo_open)
        handshake->offer = (struct smtp_offer){.pipelining = false};
    else
        extension_take(&handshake->offer, line + 4, len - 4);
    handshake->ehlo_open = line[3] == '-';
}

bool handshake_line(struct handshake *handshake, const char *line, size_t len)
{
    struct smtp_reply reply;
    size_t used = 0, text_len = len;
    int rc;

    while (text_len > 0 && (line[text_len - 1] == '\n' || line[text_len - 1] == '\r'))
        text_len--;
    if (handshake->heard)
        handshake->heard(handshake->user);
    ehlo_line(handshake, line, text_len);
    rc = smtp_reply_feed(&handshake->reader, line, len, &used, &reply);
    if (rc == 1) {
        handshake->last = reply;
        handshake->replies++;
        handshake->since_greeting++;
        if (reply.code == 220) {
            handshake->greetings++;
            handshake->since_greeting = 0;
        }
        handshake->authenticated |= reply.code == 235;
    }
    if (rc < 0 || handshake->replies > REPLIES_MAX)
        handshake->garbage = true;
    return !handshake->garbage;
}

static bool reached(CURL *easy, CURLINFO info)
{
    curl_off_t us = 0;

    return curl_easy_getinfo(easy, info, &us) == CURLE_OK && us > 0;
}

/* For errors that say only that something broke or took too long: where was it? */
static enum relay_event event_by_stage(const struct handshake *handshake, CURL *easy, bool implicit_tls)
{
    if (handshake->replies == 0) {
        if (!reached(easy, CURLINFO_NAMELOOKUP_TIME_T))
            return RELAY_DNS;
        if (!reached(easy, CURLINFO_CONNECT_TIME_T))
            return RELAY_CONNECT;
        if (implicit_tls && !reached(easy, CURLINFO_APPCONNECT_TIME_T))
            return RELAY_TLS;
        return RELAY_BANNER;
    }
    /* STARTTLS was answered 220 and nothing more was understood: text slipped in, or the TLS handshake broke. */
    if (!implicit_tls && handshake->greetings == 2 && handshake->since_greeting == 0)
        return RELAY_TLS;
    return RELAY_BANNER;
}

static enum relay_event event_of(const struct handshake *handshake, CURL *easy, CURLcode rc, bool implicit_tls)
{
    switch ((int)rc) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return RELAY_DNS;
    case CURLE_COULDNT_CONNECT:
        return RELAY_CONNECT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_CLIENTCERT:
    case CURLE_USE_SSL_FAILED:
        return RELAY_TLS;
    case CURLE_LOGIN_DENIED:
    case CURLE_AUTH_ERROR:
        /* "454 Temporary authentication failure" says nothing about our credentials. */
        return handshake->last.code / 100 == 4 ? RELAY_BANNER : RELAY_AUTH;
    case CURLE_OK: /* connected, but not as we demanded: see connection.c */
        return RELAY_AUTH;
    default:
        return event_by_stage(handshake, easy, implicit_tls);
    }
}

/* A refusal's words may say more than where it stood. */
static enum relay_event event_by_words(enum relay_event event, const struct reply_rules *rules,
                                       const struct smtp_reply *reply)
{
    if ((event != RELAY_BANNER && event != RELAY_AUTH) || reply->code < 400)
        return event;
    switch (reply_classify(rules, PHASE_CONNECT, reply).health) {
    case HEALTH_CONNECTIONS:
        return RELAY_TOO_MANY;
    case HEALTH_EXHAUSTED:
        return RELAY_QUOTA;
    case HEALTH_PAUSED:
        return RELAY_SUSPENDED;
    case HEALTH_NONE:
    case HEALTH_OK:
    case HEALTH_SOFT:
    case HEALTH_HARD:
    case HEALTH_FATAL:
        break;
    }
    return event;
}

enum relay_event handshake_event(const struct handshake *handshake, CURL *easy, CURLcode rc,
                                 const struct td_relay_settings *relay, const struct reply_rules *rules,
                                 const char *error_text, char *detail, size_t detail_size)
{
    const struct smtp_reply *last = &handshake->last;
    enum relay_event event = event_of(handshake, easy, rc, relay->tls == TD_TLS_IMPLICIT);
    long os_errno = 0;

    event = event_by_words(event, rules, last);
    if (event == RELAY_CONNECT && curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_errno) != CURLE_OK)
        os_errno = 0;
    if (handshake->garbage)
        snprintf(detail, detail_size, "not an SMTP reply");
    else if (last->code >= 400)
        snprintf(detail, detail_size, "%d%s%s", last->code, last->enhanced[0] ? " " : "", last->enhanced);
    else if (os_errno > 0)
        snprintf(detail, detail_size, "%s", uv_strerror(uv_translate_sys_error((int)os_errno)));
    else if (rc == CURLE_OK)
        snprintf(detail, detail_size, "AUTH is not offered");
    else if (event == RELAY_TLS && error_text[0])
        snprintf(detail, detail_size, "%s", error_text); /* libcurl's own words about the certificate */
    else
        snprintf(detail, detail_size, "%s", curl_easy_strerror(rc));
    return event;
}
