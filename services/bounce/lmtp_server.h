/* lmtp_server.h - LMTP sessions on the loop. Loop thread only. */
#ifndef LMTP_SERVER_H
#define LMTP_SERVER_H

#include <uv.h>

#include "lmtp.h"
#include "tandem/err.h"

enum { LMTP_SESSIONS_MAX = 200 }; /* one more is told 421 */

struct lmtp_server;
struct lmtp_session;

struct lmtp_server_ops {
    bool (*recipient)(void *user, const char *address);
    /** One recipient's copy of a message: answer it, now or later, exactly once, with lmtp_session_answer. The
     * session and its dialogue stay until then, even when the client has gone. */
    void (*message)(void *user, struct lmtp_session *session, size_t recipient);
};

/** @param listen  "host:port" or "[host]:port"; ":port" is every address, port 0 takes a free one */
int lmtp_server_new(uv_loop_t *loop, const char *listen, size_t max_bytes, const struct lmtp_server_ops *ops,
                    void *user, struct lmtp_server **ret, struct td_err *reterr);
int lmtp_server_port(const struct lmtp_server *server);
/** Take no more sessions. Those that wait for an answer get it, then 421; the others get 421 now. */
void lmtp_server_stop(struct lmtp_server *server);
/** Sessions are closed; memory goes as their handles close, and when all answers have been given. NULL is fine. */
void lmtp_server_free(struct lmtp_server *server);

const struct lmtp *lmtp_session_dialogue(const struct lmtp_session *session);
const char *lmtp_session_peer(const struct lmtp_session *session);
/** taken: it is durable; else the client is told to try again. Recipients are answered in their order, however
 * these come. */
void lmtp_session_answer(struct lmtp_session *session, size_t recipient, bool taken);

#endif /* LMTP_SERVER_H */
