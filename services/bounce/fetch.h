/* fetch.h - small files over HTTPS, without blocking the loop (libcurl). Loop thread only. */
#ifndef FETCH_H
#define FETCH_H

#include <stddef.h>
#include <uv.h>

#include "tandem/err.h"

struct fetch;

/** data: valid during the call, NULL on failure. err NULL: it was answered with 200. TD_EIO: it may work later. */
typedef void fetch_done(void *user, const char *data, size_t len, const struct td_err *err);

/** @param ca_file  NULL: the system's authorities. HTTP proxies are taken from the environment, as curl does. */
int fetch_new(uv_loop_t *loop, const char *ca_file, struct fetch **ret, struct td_err *reterr);
/** What is under way is told TD_EIO. NULL is fine. */
void fetch_free(struct fetch *fetch);
/**
 * GET. TLS 1.2 or later, certificate and name verified; no redirect is followed; 8 s at most.
 * @param url       https, checked by the caller; copied
 * @param max_bytes a longer answer fails
 * @return TD_OK: done is called later, exactly once; TD_ENOMEM
 */
int fetch_get(struct fetch *fetch, const char *url, size_t max_bytes, fetch_done *done, void *user);

#endif /* FETCH_H */
