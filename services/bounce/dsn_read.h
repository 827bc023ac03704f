/* dsn_read.h - what a report says, from its bytes (GMime). Pure: no clock, no network.
 *
 * Reads RFC 3464 delivery reports in RFC 6522 containers. The addresses in them are not trusted and not kept: the
 * signed return path says which mail a report is about. */
#ifndef DSN_READ_H
#define DSN_READ_H

#include <stddef.h>

#include "tandem/err.h"

enum report_kind {
    REPORT_NONE,    /* no report: an auto-reply (RFC 3834), a note, spam */
    REPORT_DELAYED, /* Action: delayed, or delivered, relayed, expanded: nobody bounced */
    REPORT_FAILED   /* Action: failed */
};

struct dsn {
    enum report_kind kind;
    char status[12];      /* RFC 3463, "5.1.1"; "" when the report has none */
    int reply_code;       /* of Diagnostic-Code: smtp; 550; 0 when there is none */
    char diagnostic[512]; /* its text, for classification only: may hold an address, never log or store it */
};

enum { DSN_BYTES_MAX = 1024 * 1024, DSN_DEPTH_MAX = 8, DSN_PARTS_MAX = 64 };

/**
 * @return TD_OK with ret filled (kind REPORT_NONE when it is mail but no report); TD_ETOOBIG over DSN_BYTES_MAX,
 * parts or depth; TD_ESYNTAX when GMime makes no message of it
 */
int dsn_read(const void *raw, size_t len, struct dsn *ret, struct td_err *reterr);

#endif /* DSN_READ_H */
