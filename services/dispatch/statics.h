/* statics.h - campaigns' static pieces, put together from mail.contents and kept up to a bound. Loop thread only. */
#ifndef STATICS_H
#define STATICS_H

#include <stddef.h>
#include <stdint.h>

#include "tandem/err.h"
#include "tandem/kafka.h"

#define STATIC_SHA_BYTES 32

struct statics;
struct static_blob { /* shared, read only */
    const char *data;
    size_t len;
};

int statics_new(struct td_kafka_table *contents, size_t cache_bytes, struct statics **ret, struct td_err *reterr);
/** Free the table first: it answers what is pending. */
void statics_free(struct statics *statics);

/**
 * @param cb  called once, perhaps before this returns: blob, to be given back with statics_unref; or NULL and why:
 *            TD_ENOTFOUND: it did not come within the time; TD_ESYNTAX: its bytes do not have that SHA-256
 */
void statics_get(struct statics *statics, const uint8_t sha256[STATIC_SHA_BYTES], size_t bytes,
                 void (*cb)(void *user, const struct static_blob *blob, const struct td_err *err), void *user);
void statics_unref(struct statics *statics, const struct static_blob *blob);

#endif /* STATICS_H */
