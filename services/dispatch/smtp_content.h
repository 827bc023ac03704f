/* smtp_content.h - the bytes of one message on their way into DATA: proven fit first, then copied with dots
 * doubled. Pure.
 *
 * What leaves here is strictly canonical, so that no receiver, however lenient, can see an end of data or a second
 * message in it (SMTP smuggling, CVE-2023-51764 and its family). It refuses and never repairs: the composer made
 * the bytes. */
#ifndef SMTP_CONTENT_H
#define SMTP_CONTENT_H

#include <stdbool.h>
#include <stddef.h>

#include "attempt.h"

#define SMTP_LINE_MAX 998 /* octets without CRLF, RFC 5322 s.2.1.1 */

/**
 * Check all slices as one message: CR only before LF, LF only after CR, no NUL, 7-bit, lines of at most
 * SMTP_LINE_MAX, CRLF at the end. O(bytes).
 * @param ret_bytes  sum of all slices
 * @param ret_dots   lines that begin with a dot
 * @return false: must not go on a wire; outputs are unset
 */
bool smtp_content_check(const struct slice *slices, size_t count, size_t *ret_bytes, size_t *ret_dots);

/* Where the copying stands. Slices are borrowed. */
struct smtp_content_reader {
    const struct slice *slices;
    size_t count;
    size_t index;    /* current slice */
    size_t offset;   /* within it */
    bool stuff;      /* false: no line begins with a dot, so plain copies do */
    bool line_start; /* the next byte is the first of a line */
};

void smtp_content_begin(struct smtp_content_reader *reader, const struct slice *slices, size_t count, size_t dots);
/** Copy on. @return bytes written to out: room (or room - 1, at a dot) until the end is near */
size_t smtp_content_copy(struct smtp_content_reader *reader, char *out, size_t room);
bool smtp_content_at_end(const struct smtp_content_reader *reader);

#endif /* SMTP_CONTENT_H */
