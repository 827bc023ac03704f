#include "tandem/json.h"

#include "tandem/err.h"
#include "tandem/utf8.h"

int td_json_escape(struct td_buf *out, const char *text, size_t len)
{
    const unsigned char *c = (const unsigned char *)text;
    int rc = TD_OK;

    for (size_t i = 0; i < len && rc == TD_OK;) {
        size_t n = td_utf8_next(text + i, len - i, NULL);

        if (n == 0)
            rc = td_buf_adds(out, "\xef\xbf\xbd");
        else if (c[i] == '"' || c[i] == '\\')
            rc = td_buf_printf(out, "\\%c", c[i]);
        else if (c[i] < ' ' || c[i] == 0x7f)
            rc = td_buf_printf(out, "\\u%04x", c[i]);
        else
            rc = td_buf_add(out, c + i, n);
        i += n ? n : 1;
    }
    return rc;
}

int td_json_string(struct td_buf *out, const char *text, size_t len)
{
    int rc = td_buf_addc(out, '"');

    if (rc == TD_OK)
        rc = td_json_escape(out, text, len);
    return rc == TD_OK ? td_buf_addc(out, '"') : rc;
}
