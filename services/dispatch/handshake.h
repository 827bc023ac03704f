/* handshake.h - what the relay said while libcurl connected: the extensions offered, whether AUTH succeeded, and
 * which event a failure is. Fed with reply lines by CURLOPT_HEADERFUNCTION. */
#ifndef HANDSHAKE_H
#define HANDSHAKE_H

#include <curl/curl.h>

#include "pool.h"
#include "smtp_transaction.h"

struct handshake {
    struct smtp_reply_reader reader;
    struct smtp_reply last; /* last whole reply */
    /* Of the last EHLO: what was said before STARTTLS does not count (RFC 3207 s.4.2). */
    struct smtp_offer offer;
    unsigned replies;
    unsigned greetings;      /* 220: the banner, then the answer to STARTTLS */
    unsigned since_greeting; /* replies since the last 220 */
    bool ehlo_open;          /* within a 250 reply, behind its first line */
    bool authenticated;      /* 235 */
    bool garbage;
    void (*heard)(void *user); /* at each line; NULL: nobody asks */
    void *user;
};

void handshake_init(struct handshake *handshake);
/** One line with its line end. @return false: not SMTP, give up */
bool handshake_line(struct handshake *handshake, const char *line, size_t len);

/**
 * Judge a failure.
 * @param rules   the relay's own, NULL: none
 * @param detail  at least 96 bytes; text without personal data: a reply's codes, an error's name
 */
enum relay_event handshake_event(const struct handshake *handshake, CURL *easy, CURLcode rc,
                                 const struct td_relay_settings *relay, const struct reply_rules *rules,
                                 const char *error_text, char *detail, size_t detail_size);

#endif /* HANDSHAKE_H */
