/* tandem/json.h - writing JSON by hand: a string. Pure. */
#ifndef TD_JSON_H
#define TD_JSON_H

#include <stddef.h>

#include "tandem/buf.h"

/**
 * Append len bytes as the inside of a JSON string: quotes, backslashes, controls and DEL are escaped; what is not
 * UTF-8 becomes U+FFFD, a byte at a time. At most six times as long. Returns as td_buf_add; out may hold a part of
 * it then.
 */
int td_json_escape(struct td_buf *out, const char *text, size_t len);

/** The same between quotes. */
int td_json_string(struct td_buf *out, const char *text, size_t len);

#endif /* TD_JSON_H */
