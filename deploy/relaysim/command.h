/* command.h - reading SMTP command lines (RFC 5321 s.4.1, RFC 3030, RFC 4954) and message bytes. Pure. */
#ifndef RELAYSIM_COMMAND_H
#define RELAYSIM_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/err.h"

#define COMMAND_LINE_MAX 12288 /* RFC 4954 s.4: the longest line there is, of AUTH */
#define COMMAND_PATH_MAX 320   /* octets of an address: 64 + 1 + 255 */
#define MESSAGE_ID_MAX 996     /* RFC 5322 s.2.1.1: a line of 998 less < and > */
#define MESSAGE_HEAD_MAX 65536 /* Message-ID is looked for in this much */

enum verb {
    VERB_UNKNOWN = 0,
    VERB_EHLO,
    VERB_HELO,
    VERB_STARTTLS,
    VERB_AUTH,
    VERB_MAIL,
    VERB_RCPT,
    VERB_DATA,
    VERB_BDAT,
    VERB_RSET,
    VERB_NOOP,
    VERB_VRFY,
    VERB_QUIT
};

/** Points into the bytes it was read from, valid as long as they are. */
struct slice {
    const char *data;
    size_t len;
};

/** Which command is it? `ret_args` is what follows the verb, without spaces around it. */
enum verb command_verb(struct slice line, struct slice *ret_args);

/**
 * "FROM:<path> params" (keyword "FROM:") or "TO:<path> params". Source routes are not taken.
 * @param ret_path    without <>; may be empty (the null return path); no control octet, no space outside quotes
 * @param ret_params  what follows
 * @return TD_OK or TD_ESYNTAX
 */
int command_path(struct slice args, const char *keyword, struct slice *ret_path, struct slice *ret_params);

/** SIZE=n of MAIL (RFC 1870): *ret_bytes is 0 when not given. TD_ESYNTAX for a bad number. */
int command_size(struct slice params, uint64_t *ret_bytes);

/** "<n>" or "<n> LAST". At most 2^40 octets. */
int command_bdat(struct slice args, uint64_t *ret_bytes, bool *ret_last);

/** Where a dot-stuffed body stands (RFC 5321 s.4.5.2). Zeroed = at the start. */
struct dots {
    bool begun; /* past the first octet, which follows the CRLF of DATA */
};

/**
 * Take one piece of a dot-stuffed message: up to the next stuffed dot, to the end, or all that is sure.
 * Only CRLF "." CRLF ends a message; a bare CR or LF is message text (no SMTP smuggling).
 * @param ret_piece  message octets, unstuffed; a part of `bytes`; may be empty
 * @param ret_used   octets of `bytes` done with; 0 with an empty piece = more is needed
 * @return true when the message has ended
 */
bool dots_take(struct dots *dots, struct slice bytes, struct slice *ret_piece, size_t *ret_used);

/**
 * Look for Message-ID in the first octets of a message.
 * @param ret_id    without <>; empty when there is none
 * @param ret_head  octets of the header section, set when it is complete
 * @return true when the header section is complete
 */
bool message_id_find(struct slice bytes, struct slice *ret_id, size_t *ret_head);

#endif /* RELAYSIM_COMMAND_H */
