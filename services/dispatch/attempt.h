/* attempt.h - one mail, one relay: how far it came and what that proves. Pure. */
#ifndef ATTEMPT_H
#define ATTEMPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "smtp_reply.h"

enum smtp_phase { PHASE_CONNECT, PHASE_MAIL, PHASE_RCPT, PHASE_DATA, PHASE_BODY, PHASE_FINAL, PHASE_COUNT };
const char *smtp_phase_name(enum smtp_phase phase); /* "connect", "mail", "rcpt", "data", "body", "final" */

/* A piece of a message; borrowed. */
struct slice {
    const char *data;
    size_t len;
};

enum attempt_kind {
    ATTEMPT_ACCEPTED,    /* 2yz to the final dot: the relay has it */
    ATTEMPT_REPLIED,     /* 4yz or 5yz: it provably has not; classify the reply */
    ATTEMPT_NOT_TAKEN,   /* connection never came up or ended before the whole final dot was handed to the socket */
    ATTEMPT_UNCONFIRMED, /* connection ended or time ran out after the final dot: nobody knows (RFC 1047) */
    ATTEMPT_INVALID      /* the bytes must not go on a wire (bare CR or LF, NUL, line > 998, 8-bit): our own fault */
};
const char *attempt_kind_name(enum attempt_kind kind); /* "accepted", "replied", "not_taken", "unconfirmed", "invalid" */

struct attempt_result {
    enum attempt_kind kind;
    enum smtp_phase phase;
    struct smtp_reply reply; /* REPLIED, ACCEPTED; code 0 otherwise */
    uint64_t final_us;       /* ACCEPTED: from the dot to its reply */
    bool reused;             /* the connection had carried mail before: an idle close is no fault of the relay */
};

#endif /* ATTEMPT_H */
