/* smtp_transaction_int.h - the inside of a transaction, shared by smtp_transaction.c (replies) and smtp_compose.c
 * (what goes out). */
#ifndef SMTP_TRANSACTION_INT_H
#define SMTP_TRANSACTION_INT_H

#include "smtp_content.h"
#include "smtp_transaction.h"

#define CHUNK_BYTES (64 * 1024) /* content composed at once: four TLS records */
#define COMMANDS_BYTES 2048     /* room behind the content for the dot and the next envelope (< ENVELOPE_BYTES) */
#define ENVELOPE_BYTES 768      /* RSET, MAIL, RCPT and BDAT of one mail are shorter */
#define OUT_BYTES (CHUNK_BYTES + COMMANDS_BYTES)
#define PATH_MAX_OCTETS 254 /* RFC 5321 s.4.5.3.1.3, without <> */
#define ASKS_PER_MAIL 4     /* RSET, MAIL, RCPT, and DATA, final dot or BDAT */
#define ASKS_MORE 4         /* NOOP, QUIT, the final dot of the mail before */

enum ask { ASK_MAIL, ASK_RCPT, ASK_DATA, ASK_FINAL, ASK_EMPTY_DOT, ASK_RSET, ASK_NOOP, ASK_QUIT, ASK_COUNT };
enum mail_state { MS_NONE = 0, MS_QUEUED, MS_ENVELOPE, MS_BODY, MS_FINAL, MS_REFUSED, MS_COUNT };
enum mail_event { ME_START, ME_ASK, ME_GO, ME_LAST, ME_REFUSE, ME_SETTLE, ME_COUNT };

struct in_flight {
    enum mail_state state;
    /* What is asked next or waits for its reply, PHASE_MAIL .. PHASE_DATA; then PHASE_BODY. */
    enum smtp_phase phase;
    struct smtp_mail mail;
    size_t bytes;
    size_t dots;
    size_t asked;    /* commands composed: 0..3 of MAIL, RCPT, DATA */
    uint64_t serial; /* order of start */
    uint64_t dot_at; /* stream position behind the final dot or the last octet of BDAT; 0 = not composed */
    uint64_t dot_us; /* when that position was handed over */
    bool dot_is_news;
    bool reused;
    bool holds; /* BDAT: its content waits until its recipient is accepted */
};

struct pending_ask {
    enum ask what;
    struct in_flight *mail; /* NULL: RSET, NOOP, QUIT */
    uint64_t at;            /* stream position behind the command */
};

struct done_mail {
    void *user;
    struct attempt_result result;
};

struct smtp_transaction {
    struct smtp_offer offer;
    enum smtp_end end;
    size_t slots; /* mails in flight at most: the length of flight and results */
    struct in_flight *flight;
    struct pending_ask *asks; /* ring of ask_max */
    size_t ask_max, ask_first, ask_count;
    struct done_mail *results; /* ring of slots */
    size_t result_first, result_count;
    struct in_flight *body; /* whose content is being composed */
    struct smtp_content_reader content;
    bool owes_dot;     /* a 354 for a refused mail must be answered by a dot alone */
    bool owes_rset;    /* a refused mail has left a transaction open */
    bool in_doubt;     /* BDAT: the last one composed may be refused, so RSET goes before the next MAIL */
    bool awake;        /* BDAT: the relay has spoken lately, so content may go ahead of the replies */
    bool closing;      /* BDAT: 421 came and mails behind it are out; only reading goes on */
    bool news;         /* smtp_transaction_sent has something to tell */
    uint64_t heard_us; /* last reply */
    bool wants_noop;
    bool wants_quit, quit_asked;
    uint64_t mails;
    uint64_t progress;
    uint64_t composed; /* stream position behind everything composed */
    uint64_t sent;     /* and behind what was handed to the socket */
    struct smtp_reply_reader reader;
    struct smtp_buffers *buffers;
    size_t out_off, out_len;
    char *out; /* OUT_BYTES from buffers; NULL when there is nothing to write */
};

/** smtp_compose.c: nothing of it is to be written any more. */
void smtp_out_drop(struct smtp_transaction *tx);

/** Alone writes mail->state. */
void smtp_mail_step(struct in_flight *mail, enum mail_event event);
/** By BDAT? */
bool smtp_chunked(const struct smtp_transaction *tx);
/** The oldest mail in flight in one of these states (bits), or NULL. */
struct in_flight *smtp_oldest(struct smtp_transaction *tx, unsigned states);

#endif /* SMTP_TRANSACTION_INT_H */
