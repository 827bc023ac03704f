/* fault.h - what the relay is told to do wrong: a table of faults, read from JSON, asked at each point of a
 * session. Pure: time is an argument. */
#ifndef RELAYSIM_FAULT_H
#define RELAYSIM_FAULT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command.h"
#include "tandem/err.h"

#define FAULTS_MAX 64
#define FAULT_TEXT_MAX 400 /* with code and status within a reply line of 512 octets */

/** Where in a session a fault can act. The last three are asked for by their own kinds of fault. */
enum fault_point {
    FAULT_AT_CONNECT = 0,
    FAULT_AT_BANNER,
    FAULT_AT_EHLO,
    FAULT_AT_STARTTLS,
    FAULT_AT_AUTH,
    FAULT_AT_MAIL,
    FAULT_AT_RCPT,
    FAULT_AT_DATA,
    FAULT_AT_BODY,
    FAULT_AT_FINAL,
    FAULT_AT_OTHER,     /* RSET, NOOP, QUIT...: only "any" means it */
    FAULT_AT_HANDSHAKE, /* certificate */
    FAULT_AT_OFFER,     /* starttls: strip */
    FAULT_AT_INJECT     /* starttls: inject */
};

enum fault_act {
    FAULT_REFUSE = 0, /* close the listening sockets */
    FAULT_HANG,
    FAULT_CLOSE,
    FAULT_RESET,
    FAULT_REPLY,
    FAULT_SLOW,
    FAULT_GARBAGE,
    FAULT_LOSE,
    FAULT_CERTIFICATE,
    FAULT_STRIP,
    FAULT_INJECT
};

enum fault_certificate {
    CERTIFICATE_GOOD = 0,
    CERTIFICATE_EXPIRED,
    CERTIFICATE_WRONG_NAME,
    CERTIFICATE_SELF_SIGNED,
    CERTIFICATE_COUNT
};

struct fault {
    uint64_t id;
    uint32_t points; /* bits 1 << enum fault_point */
    enum fault_act act;
    enum fault_certificate certificate;
    int code;
    char text[FAULT_TEXT_MAX + 1]; /* "" = a default for the code */
    char enhanced[12];             /* "" = none */
    char match[65];                /* at mail and rcpt: acts only on a command that holds this; "" = on each */
    uint64_t delay_ms;
    bool taken;   /* at final, with hang, close, reset or garbage: the mail counts as taken all the same */
    bool counted; /* ends after `left` more */
    uint64_t left;
    double share, owed;   /* acts whenever owed, grown by share each time, reaches 1: exact, not random */
    uint64_t after_mails; /* asleep until this many mails have been taken since the process began */
    uint64_t until_ns;    /* 0 = for ever */
    uint64_t hits;
};

struct faults {
    struct fault fault[FAULTS_MAX];
    size_t count;
    uint32_t points; /* union of all: one test on the hot path */
    uint64_t next_id;
};

/**
 * Add what one JSON object says (see README.md).
 * @param taken_mails  taken so far, from which "after" counts
 * @param ret_id       number of the new fault
 * @return TD_OK; TD_EINVAL for an unknown key, value or combination, with the reason; TD_ETOOBIG when the table is
 * full
 */
int fault_add(struct faults *faults, json_t *object, uint64_t now_ns, uint64_t taken_mails, uint64_t *ret_id,
              struct td_err *reterr);

/** id 0 = all. Returns how many were lifted. */
size_t fault_lift(struct faults *faults, uint64_t id);

/** The first fault that acts at this point now, counted as one hit; NULL = none. Valid until the table changes. */
const struct fault *fault_strike(struct faults *faults, enum fault_point at, uint64_t now_ns,
                                 uint64_t taken_mails);
/** The same of a command with these arguments; without them, as above, a fault with `match` never acts. */
const struct fault *fault_strike_at(struct faults *faults, enum fault_point at, struct slice args, uint64_t now_ns,
                                    uint64_t taken_mails);

/** Is there a "refuse" in force? *ret_wake_ns is when that may end by itself; 0 = never. */
bool fault_refusing(struct faults *faults, uint64_t now_ns, uint64_t taken_mails, uint64_t *ret_wake_ns);

/** Faults in the table as a JSON array; the caller owns it. NULL when out of memory. */
json_t *fault_list(struct faults *faults, uint64_t now_ns, uint64_t taken_mails);

#endif /* RELAYSIM_FAULT_H */
