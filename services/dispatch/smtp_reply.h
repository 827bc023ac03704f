/* smtp_reply.h - replies of a relay (RFC 5321 s.4.2), read from bytes in any pieces. Pure. */
#ifndef SMTP_REPLY_H
#define SMTP_REPLY_H

#include <stdbool.h>
#include <stddef.h>

#define SMTP_REPLY_TEXT_MAX 512 /* text kept of a reply; the rest is read and dropped */

struct smtp_reply {
    int code;          /* 200..599; 0 = no reply */
    char enhanced[12]; /* "5.1.1" (RFC 3463), "" when the reply has none */
    /* All lines joined by a blank, without codes; never logged: may hold an address. */
    char text[SMTP_REPLY_TEXT_MAX + 1];
};

/* Limits: a line of at most 2,048 octets (RFC 5321 s.4.5.3.1.5 says 512; relays exceed it), 100 lines a reply. */
struct smtp_reply_reader {
    char line[2048];
    size_t line_len;
    unsigned lines;
    struct smtp_reply reply; /* being built */
};

void smtp_reply_reader_init(struct smtp_reply_reader *reader);

/**
 * Feed bytes until one whole reply has been read or the bytes are used up.
 * @param ret_used  how many bytes were taken; the rest belongs to the next reply
 * @return 1: *ret is a whole reply; 0: more bytes are needed; -1: this is not SMTP (bad code, codes of one reply
 *         differ, NUL, a line too long, too many lines): end the connection
 */
int smtp_reply_feed(struct smtp_reply_reader *reader, const char *data, size_t len, size_t *ret_used,
                    struct smtp_reply *ret);

#endif /* SMTP_REPLY_H */
