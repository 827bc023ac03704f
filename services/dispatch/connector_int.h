/* connector_int.h - what connector.c and connection.c share and nobody else sees. */
#ifndef CONNECTOR_INT_H
#define CONNECTOR_INT_H

#include <curl/curl.h>

#include "connection.h"
#include "handshake.h"
#include "tls_sessions.h"

/** connector.c: an easy handle set up for this relay, not yet started. @return NULL when out of memory */
CURL *connector_easy(struct connector *connector, struct handshake *handshake, char error_text[CURL_ERROR_SIZE]);
/** Start it: connect_done is called for it once, from the loop. */
int connector_add(struct connector *connector, CURL *easy, struct connection *conn);
void connector_remove(struct connector *connector, CURL *easy);
uv_loop_t *connector_loop(const struct connector *connector);
struct smtp_buffers *connector_buffers(const struct connector *connector);
struct tls_sessions *connector_sessions(const struct connector *connector);
const struct td_relay_settings *connector_relay(const struct connector *connector);
/** Something came from the relay, on any connection: see connector_heard_us. */
void connector_heard(struct connector *connector, uint64_t now_us);
const struct reply_rules *connector_own_rules(const struct connector *connector);

/** connection.c: libcurl is done connecting. Not inside a libcurl callback. */
void connection_connect_done(struct connection *conn, CURLcode rc);

#endif /* CONNECTOR_INT_H */
