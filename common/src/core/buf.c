#include "tandem/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/err.h"

void td_buf_init(struct td_buf *buf, size_t limit_bytes)
{
    *buf = (struct td_buf)TD_BUF_INIT(limit_bytes);
}

void td_buf_release(struct td_buf *buf)
{
    free(buf->data);
    td_buf_init(buf, buf->limit);
}

void td_buf_clear(struct td_buf *buf)
{
    buf->len = 0;
    if (buf->data)
        buf->data[0] = '\0';
}

int td_buf_reserve(struct td_buf *buf, size_t extra)
{
    size_t want, cap;
    char *data;

    if (extra > buf->limit - buf->len)
        return TD_ETOOBIG;
    want = buf->len + extra;
    if (buf->data && want <= buf->cap)
        return TD_OK;
    cap = buf->cap < 128 ? 128 : buf->cap * 2;
    if (cap < want)
        cap = want;
    if (cap > buf->limit)
        cap = buf->limit;
    data = realloc(buf->data, cap + 1);
    if (!data)
        return TD_ENOMEM;
    if (!buf->data)
        data[0] = '\0';
    buf->data = data;
    buf->cap = cap;
    return TD_OK;
}

int td_buf_add(struct td_buf *buf, const void *data, size_t len)
{
    int rc = td_buf_reserve(buf, len);

    if (rc < 0)
        return rc;
    if (len)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
    return TD_OK;
}

int td_buf_addc(struct td_buf *buf, char c)
{
    return td_buf_add(buf, &c, 1);
}

int td_buf_adds(struct td_buf *buf, const char *str)
{
    return td_buf_add(buf, str, strlen(str));
}

int td_buf_printf(struct td_buf *buf, const char *fmt, ...)
{
    va_list args, again;
    int len, rc;

    va_start(args, fmt);
    va_copy(again, args);
    len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    rc = len < 0 ? TD_EBUG : td_buf_reserve(buf, (size_t)len);
    if (rc == TD_OK) {
        vsnprintf(buf->data + buf->len, (size_t)len + 1, fmt, again);
        buf->len += (size_t)len;
    }
    va_end(again);
    return rc;
}

void td_buf_consume(struct td_buf *buf, size_t n)
{
    if (n == 0)
        return;
    buf->len -= n;
    memmove(buf->data, buf->data + n, buf->len);
    buf->data[buf->len] = '\0';
}

const char *td_buf_str(const struct td_buf *buf)
{
    return buf->data ? buf->data : "";
}

char *td_buf_take(struct td_buf *buf, size_t *ret_len)
{
    char *data = buf->data;

    if (ret_len)
        *ret_len = buf->len;
    td_buf_init(buf, buf->limit);
    return data;
}
