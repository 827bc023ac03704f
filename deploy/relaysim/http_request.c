#include "http_request.h"

#include <string.h>
#include <strings.h>

/* Up to `stop` or the end; moves on past it. */
static struct slice word(struct slice *rest, char stop)
{
    const char *end = memchr(rest->data, stop, rest->len);
    struct slice found = {rest->data, end ? (size_t)(end - rest->data) : rest->len};
    size_t skip = found.len + (end ? 1 : 0);

    rest->data += skip;
    rest->len -= skip;
    return found;
}

static int body_length(struct slice head, size_t *ret)
{
    static const char length[] = "content-length:", encoding[] = "transfer-encoding:";

    *ret = 0;
    while (head.len) {
        struct slice line = word(&head, '\n');

        if (line.len >= sizeof(encoding) - 1 && strncasecmp(line.data, encoding, sizeof(encoding) - 1) == 0)
            return TD_ESYNTAX;
        if (line.len < sizeof(length) - 1 || strncasecmp(line.data, length, sizeof(length) - 1) != 0)
            continue;
        *ret = 0;
        for (size_t i = sizeof(length) - 1; i < line.len && line.data[i] != '\r'; i++) {
            if (line.data[i] == ' ')
                continue;
            if (line.data[i] < '0' || line.data[i] > '9')
                return TD_ESYNTAX;
            *ret = *ret * 10 + (size_t)(line.data[i] - '0');
            if (*ret > HTTP_BODY_MAX)
                return TD_ETOOBIG;
        }
    }
    return TD_OK;
}

int http_request_read(struct slice bytes, struct http_request *ret)
{
    size_t look = bytes.len < HTTP_HEAD_MAX ? bytes.len : HTTP_HEAD_MAX, body_len;
    const char *end = memmem(bytes.data, look, "\r\n\r\n", 4);
    struct slice head, line;
    int rc;

    if (!end)
        return look == HTTP_HEAD_MAX ? TD_ETOOBIG : TD_EAGAIN;
    head = (struct slice){bytes.data, (size_t)(end - bytes.data)};
    line = word(&head, '\n');
    ret->method = word(&line, ' ');
    ret->query = word(&line, ' ');
    if (!ret->method.len || !ret->query.len || ret->query.data[0] != '/' || line.len < 7 ||
        memcmp(line.data, "HTTP/1.", 7) != 0)
        return TD_ESYNTAX;
    ret->path = word(&ret->query, '?');
    rc = body_length(head, &body_len);
    if (rc < 0)
        return rc;
    ret->body = (struct slice){end + 4, body_len};
    return (size_t)(bytes.data + bytes.len - (end + 4)) < body_len ? TD_EAGAIN : TD_OK;
}
