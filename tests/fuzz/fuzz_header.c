/* A value that passed td_header_value_check cannot end its field, and no line is too long. */
#include "fuzz.h"

#include <stdbool.h>
#include <string.h>

#include "tandem/header.h"

/* Printable ASCII in lines that end with CRLF, all but the first beginning with a blank. */
static void check_field(const struct td_buf *buf)
{
    const char *at = buf->data, *end;
    bool first = true;

    PROMISE(strlen(buf->data) == buf->len && buf->len >= 2);
    for (; *at; at = end + 2, first = false) {
        end = strstr(at, "\r\n");
        PROMISE(end && end - at <= 998);
        PROMISE(first || *at == ' ');
        for (const char *c = at; c < end; c++)
            PROMISE(*c >= ' ' && *c <= '~');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct td_buf buf = TD_BUF_INIT(1 << 20);
    struct td_err err = {TD_OK, ""};
    const char *value = (const char *)data;
    char *text = NULL;
    int rc = td_header_value_check(value, size, 4000, &err);

    if (rc != TD_OK) {
        PROMISE((int)err.code == rc && (rc == TD_EINVAL || rc == TD_ETOOBIG));
        goto out;
    }
    text = malloc(size + 1);
    PROMISE(text);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    (void)td_header_name_allowed(text);
    PROMISE(td_header_add_text(&buf, "Subject", value, size) == TD_OK);
    check_field(&buf);
    td_buf_clear(&buf);
    PROMISE(td_header_add_mailbox(&buf, "From", text, "a@example.se") == TD_OK);
    check_field(&buf);
    td_buf_clear(&buf);
    PROMISE(td_buf_adds(&buf, "Content-Disposition: attachment") == TD_OK);
    PROMISE(td_header_add_param(&buf, "filename", text) == TD_OK && td_buf_adds(&buf, "\r\n") == TD_OK);
    check_field(&buf);
out:
    td_buf_release(&buf);
    free(text);
    return 0;
}
