/* tandem/curl_loop.h - libcurl's multi interface on the loop. Library td_curl, apart from td_io, so that only programs that
 * connect link libcurl. Loop thread only. */
#ifndef TD_CURL_LOOP_H
#define TD_CURL_LOOP_H

#include <curl/curl.h>
#include <uv.h>

struct td_curl_loop;

/**
 * @param done  an easy handle is through (CURLMSG_DONE); owner is its CURLOPT_PRIVATE. Never from inside a callback of libcurl, so
 *              that it may remove handles, and add them.
 * @return NULL when out of memory
 */
struct td_curl_loop *td_curl_loop_new(uv_loop_t *loop, void (*done)(void *owner, CURLcode result));
/** To add and remove easy handles; borrowed. */
CURLM *td_curl_loop_multi(const struct td_curl_loop *curl);
/** All handles must have been removed, or be CONNECT_ONLY and cleaned up. Memory goes once the loop has closed its handles.
 * Not from inside a callback of libcurl. NULL is fine. */
void td_curl_loop_free(struct td_curl_loop *curl);

#endif /* TD_CURL_LOOP_H */
