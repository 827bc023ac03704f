/* dsn.h - a delivery status notification as a dot-stuffed message. Pure. */
#ifndef RELAYSIM_DSN_H
#define RELAYSIM_DSN_H

#include "command.h"

#include "tandem/buf.h"

struct dsn {
    const char *reporting_mta; /* host name */
    const char *status;        /* "5.1.1" */
    uint64_t unix_s, number;   /* number: unique in this process, for Message-ID and boundary */
    struct slice return_path;  /* who is told */
    struct slice recipients;   /* each with a NUL after it */
    struct slice head;         /* header section of the mail, CRLF */
};

/** Append the notification, dot-stuffed, with the final dot line. TD_ETOOBIG or TD_ENOMEM: out is useless. */
int dsn_compose(const struct dsn *dsn, struct td_buf *out);

#endif /* RELAYSIM_DSN_H */
