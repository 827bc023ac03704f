/* tandem/http.h - a small HTTP server on the loop (libmicrohttpd): GET and POST, bodies up to 64 KiB or what a route
 * allows. Loop thread only. */
#ifndef TD_HTTP_H
#define TD_HTTP_H

#include <uv.h>

#include "tandem/buf.h"
#include "tandem/err.h"

struct td_http;

struct td_http_request {
    const char *method, *path;
    const char *body;
    size_t body_len;
};
struct td_http_response {
    int status;               /* 200 unless set */
    const char *content_type; /* static string; default application/json */
    struct td_buf body;       /* limit 4 MiB */
};
typedef void td_http_handler(void *user, const struct td_http_request *req, struct td_http_response *res);

/**
 * @param listen  "host:port"; port 0 takes a free one (see td_http_port)
 * @return TD_OK, TD_ECONFIG (not host:port, no such address), TD_EAGAIN (the port is taken), TD_ENOMEM or
 * TD_EFATAL
 */
int td_http_new(uv_loop_t *loop, const char *listen, struct td_http **ret, struct td_err *reterr);
/**
 * Exact path, exact method ("GET" answers HEAD too); strings are copied. An unknown path gets 404, another method
 * 405. The response is the server's: handlers fill it and free nothing.
 * @return TD_OK or TD_ENOMEM
 */
int td_http_route(struct td_http *http, const char *method, const char *path, td_http_handler *handler,
                  void *user);
/** A request that is answered later. */
struct td_http_later;
/** req is valid during the call. td_http_answer must be called exactly once, from inside or later, also after
 * td_http_free. */
typedef void td_http_later_handler(void *user, const struct td_http_request *req, struct td_http_later *later);
/** As td_http_route. @param body_max  bytes; a longer body is answered 413 */
int td_http_route_later(struct td_http *http, const char *method, const char *path, size_t body_max,
                        td_http_later_handler *handler, void *user);
/** json: the body, copied; a client that has gone meanwhile gets nothing. */
void td_http_answer(struct td_http_later *later, int status, const char *json);
int td_http_port(const struct td_http *http);
/** NULL is fine. Open requests are cut; handles close in the loop's next turn. */
void td_http_free(struct td_http *http);

/** Blocking GET for --healthcheck: status, or negative code. */
int td_http_get_status(const char *listen, const char *path, unsigned timeout_ms);

#endif /* TD_HTTP_H */
