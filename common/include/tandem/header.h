/* tandem/header.h - header fields (RFC 5322 s.2.2) that cannot carry anything else than they say. Pure. */
#ifndef TD_HEADER_H
#define TD_HEADER_H

#include <stdbool.h>
#include <stddef.h>

#include "tandem/buf.h"
#include "tandem/err.h"

/**
 * A value that may go into a header: UTF-8, no CR, LF, NUL, C0/C1 control (tab is refused too) and no
 * bidirectional override (U+202A-202E, U+2066-2069), at most max_bytes.
 * @return TD_OK or TD_EINVAL / TD_ETOOBIG with a sentence that does not quote the value
 */
int td_header_value_check(const char *value, size_t len, size_t max_bytes, struct td_err *reterr);

/** May a campaign set this field itself? X-... (not X-SES-, not X-Tandem-), Organization, Keywords, Comments. */
bool td_header_name_allowed(const char *name);

/* The three td_header_add_... return as td_buf_add; after a failure out may hold a part of the field. */

/**
 * Append "Name: value CRLF" for unstructured text: as it is when printable ASCII, else as RFC 2047 encoded words
 * (UTF-8, Q or B whichever is shorter, each <= 75 characters, split between characters), folded at 76.
 * value must have passed td_header_value_check.
 */
int td_header_add_text(struct td_buf *buf, const char *name, const char *value, size_t len);

/** Append "Name: phrase <address> CRLF"; an empty phrase gives "Name: address". address has passed td_addr_check.
 */
int td_header_add_mailbox(struct td_buf *buf, const char *name, const char *phrase, const char *address);

/** Append one parameter of RFC 2045/2231: `; name="value"`, or `; name*=UTF-8''...` (with continuations) when
 * needed. */
int td_header_add_param(struct td_buf *buf, const char *name, const char *value);

#endif /* TD_HEADER_H */
