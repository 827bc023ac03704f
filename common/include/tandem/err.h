/* tandem/err.h - an error: a code to act on, whether to try again, a text to read. Pure. */
#ifndef TD_ERR_H
#define TD_ERR_H

#include <stdbool.h>

enum td_code {
    TD_OK = 0,
    TD_EINVAL = -1,    /* bad input from outside: never again with the same input */
    TD_ESYNTAX = -2,   /* bytes that do not parse: never again */
    TD_ETOOBIG = -3,   /* over a stated limit: never again */
    TD_ENOTFOUND = -4, /* no such thing (yet) */
    TD_ENOMEM = -5,    /* out of memory or budget: again later */
    TD_EAGAIN = -6,    /* a queue is full: again when it has drained */
    TD_EIO = -7,       /* a peer failed or is away: again later */
    TD_ETIMEOUT = -8,  /* a peer did not answer in time: outcome unknown */
    TD_EDENIED = -9,   /* policy or credentials: never again until someone acts */
    TD_ECONFIG = -10,  /* configuration is wrong: never again until someone acts */
    TD_EFATAL = -11,   /* this process must restart */
    TD_EBUG = -12      /* a promise inside was broken */
};

#define TD_ERR_TEXT_MAX 320

struct td_err {
    enum td_code code;
    char text[TD_ERR_TEXT_MAX]; /* one sentence, no personal data, always terminated */
};

/**
 * Fill an error. The lowest layer that knows the cause does it; nobody above overwrites it.
 * @param err  may be NULL (the text is dropped)
 * @return code, so that `return td_fail(...)` works
 */
int td_fail(struct td_err *err, enum td_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/** true when the same call may succeed later with the same input. */
bool td_code_retriable(enum td_code code);

/** "EINVAL" and so on; never NULL. */
const char *td_code_name(enum td_code code);

#endif /* TD_ERR_H */
