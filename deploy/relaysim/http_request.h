/* http_request.h - reading one HTTP/1.1 request of the control port. Pure. */
#ifndef RELAYSIM_HTTP_REQUEST_H
#define RELAYSIM_HTTP_REQUEST_H

#include <stddef.h>

#include "command.h"

#define HTTP_HEAD_MAX 8192
#define HTTP_BODY_MAX 65536

struct http_request {
    struct slice method, path, query; /* point into the bytes read */
    struct slice body;
};

/**
 * @return TD_OK: whole; TD_EAGAIN: more octets are needed; TD_ESYNTAX: not HTTP, or chunked; TD_ETOOBIG: over a
 * limit
 */
int http_request_read(struct slice bytes, struct http_request *ret);

#endif /* RELAYSIM_HTTP_REQUEST_H */
