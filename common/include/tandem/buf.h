/* tandem/buf.h - bytes that grow up to a stated maximum. Pure. Not thread-safe. */
#ifndef TD_BUF_H
#define TD_BUF_H

#include <stddef.h>
#include <stdint.h>

struct td_buf {
    char *data;   /* owned; NULL while empty; always followed by a NUL that does not count */
    size_t len;   /* bytes in use */
    size_t cap;   /* bytes allocated, without the NUL */
    size_t limit; /* len never grows past this */
};

#define TD_BUF_INIT(limit_bytes)                                                                                  \
    {                                                                                                             \
        NULL, 0, 0, (limit_bytes)                                                                                 \
    }

void td_buf_init(struct td_buf *buf, size_t limit_bytes);
void td_buf_release(struct td_buf *buf); /* frees; usable again with the same limit */
void td_buf_clear(struct td_buf *buf);   /* len = 0, keeps the memory */

/* All return TD_OK, TD_ETOOBIG (limit reached; buf is unchanged) or TD_ENOMEM (unchanged). */
int td_buf_reserve(struct td_buf *buf, size_t extra);
int td_buf_add(struct td_buf *buf, const void *data, size_t len);
int td_buf_addc(struct td_buf *buf, char c);
int td_buf_adds(struct td_buf *buf, const char *str);
int td_buf_printf(struct td_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** Drop the first n bytes (n <= len). */
void td_buf_consume(struct td_buf *buf, size_t n);

/** The bytes as a C string; "" when empty. Valid until the next change. */
const char *td_buf_str(const struct td_buf *buf);

/** Hand the memory to the caller (frees with free()); buf is empty afterwards. NULL when empty. */
char *td_buf_take(struct td_buf *buf, size_t *ret_len);

#endif /* TD_BUF_H */
