/* Quoted-printable cut at any seam decodes to the text, in short lines; base64 reads back, and reads one form
 * only. */
#include "fuzz.h"

#include <stdbool.h>
#include <string.h>

#include "tandem/err.h"
#include "tandem/mimeenc.h"

static int hex(char c)
{
    PROMISE((c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'));
    return c <= '9' ? c - '0' : c - 'A' + 10;
}

/* Walk text and its encoding side by side. */
static void check_quoted_printable(const uint8_t *text, size_t len, const struct td_buf *out)
{
    size_t at = 0, column = 0;

    for (size_t i = 0; i < out->len;) {
        const char *c = out->data + i;
        uint8_t byte = (uint8_t)*c;

        PROMISE(column < 76 || *c == '\r');
        PROMISE(column > 0 || *c != '.');
        if (*c == '\r' || (*c == '=' && c[1] == '\r')) {
            bool soft = *c == '=';

            PROMISE(c[soft ? 2 : 1] == '\n');
            PROMISE(soft || column == 0 || (c[-1] != ' ' && c[-1] != '\t'));
            if (!soft) { /* any of LF, CR, CRLF */
                PROMISE(at < len && (text[at] == '\r' || text[at] == '\n'));
                at += text[at] == '\r' && at + 1 < len && text[at + 1] == '\n' ? 2 : 1;
            }
            i += soft ? 3 : 2;
            column = 0;
            continue;
        }
        if (*c == '=') {
            byte = (uint8_t)(hex(c[1]) * 16 + hex(c[2]));
            i += 2;
            column += 2;
        }
        i++;
        column++;
        PROMISE(at < len && text[at] == byte && byte != '\r' && byte != '\n');
        at++;
    }
    PROMISE(at == len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct td_buf out = TD_BUF_INIT(1 << 20);
    struct td_qp qp = {0, 0};
    size_t step = size ? 1 + data[0] % 97U : 1;
    uint8_t *decoded = malloc(size + 3);
    int len;

    PROMISE(decoded);
    for (size_t at = 0; at < size; at += step) {
        PROMISE(td_qp_add(&qp, &out, (const char *)data + at, step < size - at ? step : size - at) == TD_OK);
        PROMISE(qp.column <= 75);
    }
    PROMISE(td_qp_end(&qp, &out) == TD_OK);
    check_quoted_printable(data, size, &out);

    td_buf_clear(&out);
    PROMISE(td_base64(&out, data, size) == TD_OK);
    PROMISE(td_base64_decode(decoded, td_buf_str(&out), out.len) == (int)size);
    PROMISE(size == 0 || memcmp(decoded, data, size) == 0);

    len = td_base64_decode(decoded, (const char *)data, size);
    PROMISE(len >= 0 || len == TD_ESYNTAX);
    if (len >= 0) { /* one text for each value */
        td_buf_clear(&out);
        PROMISE(td_base64(&out, decoded, (size_t)len) == TD_OK);
        PROMISE(out.len == size && (size == 0 || memcmp(out.data, data, size) == 0));
    }
    free(decoded);
    td_buf_release(&out);
    return 0;
}
