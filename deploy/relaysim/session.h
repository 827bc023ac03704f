/* session.h - one SMTP connection: bytes in, bytes out, TLS, waits and ends. What is said is in smtp.c.
 *
 *   GREETING -> COMMAND <-> AUTH            DRAIN: all is said, our side is closed, the peer's rest is read away,
 *   (HANDSHAKE before it with implicit TLS)        so that the last reply is not lost to a reset
 *   COMMAND -> STARTTLS -> HANDSHAKE -> COMMAND
 *   COMMAND -> DATA | CHUNK -> FINAL -> COMMAND
 *   HUNG: never answers again (a fault)     DEAD: closed, freed at the end of the round
 */
#ifndef RELAYSIM_SESSION_H
#define RELAYSIM_SESSION_H

#include "sim.h"

#include "tandem/buf.h"

enum session_state {
    SESSION_HANDSHAKE = 0,
    SESSION_GREETING,
    SESSION_COMMAND,
    SESSION_AUTH,
    SESSION_DATA,
    SESSION_CHUNK,
    SESSION_FINAL,
    SESSION_STARTTLS,
    SESSION_HUNG,
    SESSION_DRAIN,
    SESSION_DEAD
};

enum session_end { SESSION_STAYS = 0, SESSION_ENDS, SESSION_ENDS_RESET };

enum auth_step { AUTH_PLAIN = 0, AUTH_LOGIN_USER, AUTH_LOGIN_PASSWORD };

/** The mail transaction (RFC 5321 s.3.3). */
struct mail {
    bool open;      /* MAIL was taken */
    bool chunked;   /* its text comes by BDAT */
    bool body_seen; /* text has begun to arrive */
    bool too_big, head_done;
    struct dots dots;
    struct td_buf return_path;
    struct td_buf recipients; /* each with a NUL after it */
    uint32_t recipient_count;
    uint64_t bytes;
    uint64_t chunk_left;
    bool chunk_last, chunk_mute; /* mute: the chunk was refused already, its octets are only read away */
    struct td_buf head;          /* the start of the message until its header section is whole; kept for a DSN */
    struct td_buf text;          /* the whole message, with --store only */
    char message_id[MESSAGE_ID_MAX];
    size_t message_id_len;
    bool bounce; /* chosen to bounce */
    bool ses_events;        /* it names a configuration set */
    struct td_buf ses_tags; /* its X-SES-MESSAGE-TAGS, with --sns only */
};

struct session {
    struct watch watch;
    struct timer timer; /* end of a pause, else of idleness */
    struct sim *sim;
    struct session *prev, *next; /* sim->sessions; next also links the dead */
    struct session *next_dirty, *next_again;
    bool is_dirty, is_again;
    enum session_state state;
    enum session_end end; /* after what is in `out` has gone */
    SSL *ssl;             /* owned; NULL = plaintext */
    EVP_MD_CTX *sha;      /* owned; NULL without --ledger-hash */
    struct td_buf in;     /* read but not used up */
    struct td_buf out;    /* said but not sent */
    size_t out_sent;
    uint16_t peer_port;
    uint64_t active_ns; /* last time the peer was heard */
    bool implicit_tls;
    bool paused;       /* until the timer */
    bool fault_passed; /* the "slow" of this point is over */
    bool delay_passed; /* so is --delay of this mail */
    bool eof;          /* the peer will send no more */
    bool masked;       /* input waits that cannot be used now, so epoll is not asked for it */
    bool held;         /* input is here that could not be used for want of room in `out` */
    bool surplus;      /* came when --max-connections were there */
    bool stripped;     /* STARTTLS was hidden from it */
    bool greeted, authenticated;
    enum auth_step auth_step;
    bool auth_user_right; /* AUTH LOGIN: the name it gave is ours */
    struct mail mail;
};

/** From the listener: take the connection, which may be refused, hung or reset by limits and faults. */
void session_accept(struct listener *listener, int fd, uint16_t peer_port);
/** Let every `again` session go on, then write the ledger, then send what was said, then free the dead. */
int session_round_end(struct sim *sim, struct td_err *reterr);
void session_free_all(struct sim *sim);

/* For smtp.c. Each only changes the session; sending and closing come later in the round. */
void session_pause(struct session *session, uint64_t ms);
void session_hang(struct session *session);
void session_end(struct session *session, enum session_end end);
/** May smtp.c go on with what was read? No while paused, ending, or when the peer does not read its replies. */
bool session_ready_for_input(const struct session *session);

#endif /* RELAYSIM_SESSION_H */
