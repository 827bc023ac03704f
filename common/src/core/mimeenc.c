#include "tandem/mimeenc.h"

#include <stdbool.h>
#include <string.h>

#include "tandem/err.h"

enum {
    LINE_CHARS = 76,
    QP_TEXT_MAX = LINE_CHARS - 1 /* leaves room for a soft break's "=" */,
    BASE64_LINE_BYTES = 57
};

/* Make room for n characters on the current line. */
static int qp_room(struct td_qp *qp, struct td_buf *out, unsigned n)
{
    if (qp->column + n <= QP_TEXT_MAX)
        return TD_OK;
    qp->column = 0;
    return td_buf_add(out, "=\r\n", 3);
}

static int qp_escape(struct td_qp *qp, struct td_buf *out, unsigned char byte)
{
    static const char digit[] = "0123456789ABCDEF";
    const char text[3] = {'=', digit[byte >> 4], digit[byte & 15]};
    int rc = qp_room(qp, out, sizeof(text));

    if (rc < 0)
        return rc;
    qp->column += (unsigned)sizeof(text);
    return td_buf_add(out, text, sizeof(text));
}

static int qp_line_end(struct td_qp *qp, struct td_buf *out)
{
    qp->column = 0;
    return td_buf_add(out, "\r\n", 2);
}

/* What is held turns out to stand before a line end, or before a seam that may be one. */
static int qp_settle_at_end(struct td_qp *qp, struct td_buf *out)
{
    unsigned char held = qp->held;

    qp->held = 0;
    if (held == '\r')
        return qp_line_end(qp, out);
    return held ? qp_escape(qp, out, held) : TD_OK;
}

/* What is held turns out to stand before a character of the same line. */
static int qp_settle_inside(struct td_qp *qp, struct td_buf *out)
{
    char held = (char)qp->held;
    int rc;

    if (held == '\0')
        return TD_OK;
    if (held == '\r')
        return qp_settle_at_end(qp, out);
    qp->held = 0;
    rc = qp_room(qp, out, 1);
    if (rc < 0)
        return rc;
    qp->column++;
    return td_buf_addc(out, held);
}

static bool qp_literal(char c)
{
    return c > ' ' && c <= '~' && c != '=';
}

/* A line that is a dot alone ends DATA, and old mail stores quote "From ". A seam may hide what follows an F. */
static bool qp_risky_at_start(const char *text, size_t len)
{
    size_t seen = len < 5 ? len : 5;

    return text[0] == '.' || memcmp(text, "From ", seen) == 0;
}

/* As many literal characters as stand here and fit on the line. @return how many, 0: escape the first; or an error
 */
static int qp_literal_run(struct td_qp *qp, struct td_buf *out, const char *text, size_t len)
{
    size_t run = 0, room;
    int rc;

    if (!qp_literal(text[0]))
        return 0;
    rc = qp_room(qp, out, 1);
    if (rc < 0)
        return rc;
    if (qp->column == 0 && qp_risky_at_start(text, len))
        return 0;
    room = QP_TEXT_MAX - qp->column;
    while (run < len && run < room && qp_literal(text[run]))
        run++;
    qp->column += (unsigned)run;
    rc = td_buf_add(out, text, run);
    return rc < 0 ? rc : (int)run;
}

int td_qp_add(struct td_qp *qp, struct td_buf *out, const char *text, size_t len)
{
    int rc = TD_OK;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (c == '\n' || c == '\r') {
            bool pair = c == '\n' && qp->held == '\r';

            rc = qp_settle_at_end(qp, out);
            if (rc == TD_OK && c == '\r')
                qp->held = '\r';
            else if (rc == TD_OK && !pair)
                rc = qp_line_end(qp, out);
        } else {
            rc = qp_settle_inside(qp, out);
            if (rc == TD_OK && (c == ' ' || c == '\t')) {
                qp->held = (unsigned char)c;
            } else if (rc == TD_OK) {
                rc = qp_literal_run(qp, out, text + i, len - i);
                if (rc > 0)
                    i += (size_t)rc - 1;
                else if (rc == 0)
                    rc = qp_escape(qp, out, (unsigned char)c);
            }
        }
        if (rc < 0)
            return rc;
    }
    return TD_OK;
}

int td_qp_end(struct td_qp *qp, struct td_buf *out)
{
    return qp_settle_at_end(qp, out);
}

static const char base64_digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Reserved by the caller. */
static void base64_put(struct td_buf *out, const uint8_t *byte, size_t len)
{
    char *at = out->data + out->len;

    for (; len >= 3; byte += 3, len -= 3) {
        *at++ = base64_digit[byte[0] >> 2];
        *at++ = base64_digit[(byte[0] & 3) << 4 | byte[1] >> 4];
        *at++ = base64_digit[(byte[1] & 15) << 2 | byte[2] >> 6];
        *at++ = base64_digit[byte[2] & 63];
    }
    if (len > 0) {
        *at++ = base64_digit[byte[0] >> 2];
        *at++ = base64_digit[(byte[0] & 3) << 4 | (len == 2 ? byte[1] >> 4 : 0)];
        *at++ = len == 2 ? base64_digit[(byte[1] & 15) << 2] : '=';
        *at++ = '=';
    }
    *at = '\0';
    out->len = (size_t)(at - out->data);
}

int td_base64(struct td_buf *out, const void *data, size_t len)
{
    int rc;

    if (len > SIZE_MAX / 2)
        return TD_ETOOBIG;
    rc = td_buf_reserve(out, (len + 2) / 3 * 4);
    if (rc == TD_OK && len > 0)
        base64_put(out, data, len);
    return rc;
}

int td_base64_lines(struct td_buf *out, const void *data, size_t len)
{
    const uint8_t *byte = data;
    int rc = TD_OK;

    if (len > SIZE_MAX / 2)
        return TD_ETOOBIG;
    rc = td_buf_reserve(out, (len + 2) / 3 * 4 + (len + BASE64_LINE_BYTES - 1) / BASE64_LINE_BYTES * 2);
    while (len > 0 && rc == TD_OK) {
        size_t now = len < BASE64_LINE_BYTES ? len : BASE64_LINE_BYTES;

        base64_put(out, byte, now);
        rc = td_buf_add(out, "\r\n", 2);
        byte += now;
        len -= now;
    }
    return rc;
}

/* @return 0..63, or -1 */
static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    return c == '/' ? 63 : -1;
}

int td_base64_decode(uint8_t *out, const char *text, size_t len)
{
    size_t padding = 0, bytes = 0;
    uint32_t bits = 0;

    if (len % 4 != 0 || len / 4 > INT32_MAX / 3)
        return TD_ESYNTAX;
    if (len > 0 && text[len - 1] == '=')
        padding = text[len - 2] == '=' ? 2 : 1;
    for (size_t i = 0; i < len; i++) {
        int value = i >= len - padding ? 0 : base64_value(text[i]);

        if (value < 0)
            return TD_ESYNTAX;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 != 3)
            continue;
        for (size_t k = 0; k < (i == len - 1 ? 3 - padding : 3); k++)
            out[bytes++] = (uint8_t)(bits >> (16 - 8 * k));
        /* Bits under the padding must be zero: one text for each value. */
        if (i == len - 1 && padding && (bits & ((1U << (8 * padding)) - 1)) != 0)
            return TD_ESYNTAX;
        bits = 0;
    }
    return (int)bytes;
}
