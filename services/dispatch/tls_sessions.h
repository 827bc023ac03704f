/* tls_sessions.h - the TLS sessions that a new connection to one relay may resume, so that it need not do a whole
 * handshake. Loop thread only.
 *
 * A resumed session shows no certificate: who it is was verified when the session was made. So sessions belong to
 * one relay's settings, none is resumed longer than relays[].tls_resume after the first full handshake it descends
 * from, however often it was renewed meanwhile, and any TLS failure of the relay forgets them all. Names and dates
 * of the certificate, which the session remembers, are looked at each time: names by libcurl, dates by
 * tls_session_look. */
#ifndef TLS_SESSIONS_H
#define TLS_SESSIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <curl/curl.h>

struct tls_sessions; /* of one relay */
struct tls_share;    /* those that handles begun at one time have in common */

enum tls_session { TLS_SESSION_NONE, TLS_SESSION_NEW, TLS_SESSION_RESUMED, TLS_SESSION_EXPIRED };

/** @param life_ms  0: nothing is ever resumed. @return NULL when out of memory */
struct tls_sessions *tls_sessions_new(int64_t life_ms);
/** Every share taken must have been put back. NULL is fine. */
void tls_sessions_free(struct tls_sessions *sessions);

/** What this handle finds and leaves there, from now until tls_sessions_put. Out of memory: it resumes nothing.
 * @return to be put back; may be NULL */
struct tls_share *tls_sessions_take(struct tls_sessions *sessions, CURL *easy, uint64_t now_ms);
/** After curl_easy_cleanup of that handle. NULL is fine. */
void tls_sessions_put(struct tls_sessions *sessions, struct tls_share *share);
/** None of those that are known is resumed any more, except by handshakes under way. */
void tls_sessions_forget(struct tls_sessions *sessions);

/** What a connected handle's TLS is: NONE when it is not encrypted, EXPIRED when the certificate that was verified
 * for the session has run out since. */
enum tls_session tls_session_look(CURL *easy);

/** Have a connected handle read ahead: a record is one system call, not two, and several may come at once. What
 * has been read and not asked for is not seen by poll(2): ask tls_has_more. @return for that; NULL: not encrypted,
 * or not by OpenSSL */
void *tls_read_ahead(CURL *easy);
/** Something is held already, perhaps not a whole record. NULL: false. */
bool tls_has_more(const void *tls);

#endif /* TLS_SESSIONS_H */
