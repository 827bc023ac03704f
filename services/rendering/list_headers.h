/* list_headers.h - List-Id (RFC 2919) and List-Unsubscribe (RFC 2369, RFC 8058). Pure. */
#ifndef RENDERING_LIST_HEADERS_H
#define RENDERING_LIST_HEADERS_H

#include <stdbool.h>

#include "tandem/buf.h"
#include "tandem/err.h"

#define LIST_URL_MAX 800 /* bytes, so that the line stays under 998 with the token in it */

/** Letters, digits, - _ . as "weekly.news.example.se", at most 200 bytes, with at least one dot. */
bool list_id_valid(const char *list_id);

/** https, printable ASCII that needs no quoting in <>, at most LIST_URL_MAX; {{token}} may stand anywhere after
 * "https://". */
int list_url_check(const char *url, struct td_err *reterr);

/** Append the URL with every {{token}} replaced. "+" in the token is written %2B: form decoders read it as a
 * blank. */
int list_url_add(struct td_buf *buf, const char *url, const char *token);
/** Append "mailto:address?subject=unsubscribe-token", percent-encoded (RFC 6068). */
int list_mailto_add(struct td_buf *buf, const char *address, const char *token);

/** Append the whole List-Unsubscribe field; mailto or url may be "", not both. */
int list_unsubscribe_add(struct td_buf *buf, const char *mailto, const char *url, const char *token);

#endif /* RENDERING_LIST_HEADERS_H */
