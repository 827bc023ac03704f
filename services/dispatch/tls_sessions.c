/* tls_sessions.c - libcurl keeps the sessions, in a share (CURL_LOCK_DATA_SSL_SESSION); a share is one generation.
 * What counts as age is the generation's: a session in it descends from a full handshake that was begun within it.
 */
#include "tls_sessions.h"

#include <openssl/ssl.h>
#include <stdlib.h>

struct tls_share {
    CURLSH *curl;
    size_t users;
    uint64_t born_ms;
};

struct tls_sessions {
    uint64_t life_ms;
    struct tls_share *current; /* NULL: none yet, or forgotten */
};

struct tls_sessions *tls_sessions_new(int64_t life_ms)
{
    struct tls_sessions *sessions = calloc(1, sizeof(*sessions));

    if (sessions && life_ms > 0)
        sessions->life_ms = (uint64_t)life_ms;
    return sessions;
}

static void share_free(struct tls_share *share)
{
    if (!share)
        return;
    curl_share_cleanup(share->curl);
    free(share);
}

static struct tls_share *share_new(uint64_t now_ms)
{
    struct tls_share *share = calloc(1, sizeof(*share));

    if (!share)
        return NULL;
    share->born_ms = now_ms;
    share->curl = curl_share_init();
    /* One thread: libcurl needs no locks. */
    if (!share->curl ||
        curl_share_setopt(share->curl, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) != CURLSHE_OK) {
        share_free(share);
        return NULL;
    }
    return share;
}

void tls_sessions_forget(struct tls_sessions *sessions)
{
    if (sessions->current && sessions->current->users == 0)
        share_free(sessions->current);
    sessions->current = NULL; /* else the last one that puts it back */
}

void tls_sessions_free(struct tls_sessions *sessions)
{
    if (!sessions)
        return;
    tls_sessions_forget(sessions);
    free(sessions);
}

struct tls_share *tls_sessions_take(struct tls_sessions *sessions, CURL *easy, uint64_t now_ms)
{
    if (sessions->current && now_ms - sessions->current->born_ms >= sessions->life_ms)
        tls_sessions_forget(sessions);
    if (!sessions->current && sessions->life_ms > 0)
        sessions->current = share_new(now_ms);
    if (!sessions->current || curl_easy_setopt(easy, CURLOPT_SHARE, sessions->current->curl) != CURLE_OK) {
        curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L); /* from 8.12 on a multi handle keeps sessions of its own */
        return NULL;
    }
    sessions->current->users++;
    return sessions->current;
}

void tls_sessions_put(struct tls_sessions *sessions, struct tls_share *share)
{
    if (share && --share->users == 0 && share != sessions->current)
        share_free(share);
}

static struct curl_tlssessioninfo *info_of(CURL *easy)
{
    struct curl_tlssessioninfo *info = NULL;

    if (curl_easy_getinfo(easy, CURLINFO_TLS_SSL_PTR, &info) != CURLE_OK || !info || !info->internals)
        return NULL;
    return info;
}

enum tls_session tls_session_look(CURL *easy)
{
    struct curl_tlssessioninfo *info = info_of(easy);
    X509 *certificate;
    bool resumed, over;

    if (!info)
        return TLS_SESSION_NONE;
    if (info->backend != CURLSSLBACKEND_OPENSSL)
        return TLS_SESSION_NEW; /* encrypted and verified, as libcurl was told; more it does not show */
    resumed = SSL_session_reused(info->internals) == 1;
    certificate = resumed ? SSL_get1_peer_certificate(info->internals) : NULL;
    over = resumed && (!certificate || X509_cmp_current_time(X509_get0_notAfter(certificate)) <= 0);
    X509_free(certificate);
    return over ? TLS_SESSION_EXPIRED : resumed ? TLS_SESSION_RESUMED : TLS_SESSION_NEW;
}

void *tls_read_ahead(CURL *easy)
{
    struct curl_tlssessioninfo *info = info_of(easy);

    if (!info || info->backend != CURLSSLBACKEND_OPENSSL)
        return NULL;
    SSL_set_read_ahead(info->internals, 1);
    return info->internals;
}

bool tls_has_more(const void *tls)
{
    return tls && SSL_has_pending(tls) == 1;
}
