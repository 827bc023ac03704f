/* tandem/mimeenc.h - content transfer encodings (RFC 2045 s.6.7, 6.8). Pure. */
#ifndef TD_MIMEENC_H
#define TD_MIMEENC_H

#include <stddef.h>
#include <stdint.h>

#include "tandem/buf.h"

/**
 * Quoted-printable as a stream, so that static text can be encoded once and joined with a recipient's values:
 * `column` is where the current output line stands (0..75) and is carried from call to call. Any of LF, CR, CRLF
 * in the input is a line end and becomes CRLF. Lines have at most 76 characters. A blank or tab before a line
 * end is encoded, and so is a "." or "F" of "From " at the start of a line.
 */
struct td_qp {
    unsigned column;
    unsigned char held; /* a blank, tab or CR whose fate the next byte decides; 0 = none */
};
int td_qp_add(struct td_qp *qp, struct td_buf *out, const char *text, size_t len);
/** Flush what is held. The output then stands at qp->column; no CRLF is added. */
int td_qp_end(struct td_qp *qp, struct td_buf *out);

/* All that append to a td_buf return as td_buf_add; after a failure out may hold a part. */

/** Base64 in lines of 76 characters, each ended by CRLF. */
int td_base64_lines(struct td_buf *out, const void *data, size_t len);
/** Base64 without line ends. */
int td_base64(struct td_buf *out, const void *data, size_t len);
/** Strict: alphabet and padding only. @return decoded length, or TD_ESYNTAX. out holds len / 4 * 3 bytes. */
int td_base64_decode(uint8_t *out, const char *text, size_t len);

#endif /* TD_MIMEENC_H */
