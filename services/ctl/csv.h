/* csv.h - a recipients file as a stream of rows (RFC 4180). Pure: bytes come from a function.
 *
 * UTF-8 with or without a byte order mark; lines end with LF or CRLF; fields may be quoted, "" inside is a quote,
 * and a quoted field may hold line ends. The separator is the one of , ; and tab that the first line holds most of
 * outside quotes. Rows that are empty are passed over. Own and not libcsv, which does not tell where a fault is.
 */
#ifndef CTL_CSV_H
#define CTL_CSV_H

#include <stddef.h>
#include <sys/types.h>

#include "tandem/err.h"

#define CSV_ROW_MAX (1 << 20) /* bytes of a row */
#define CSV_FIELDS_MAX 1000

struct csv; /* opaque */

struct csv_row {              /* valid until the next csv_next */
    size_t line;              /* 1-based, where the row begins */
    size_t count;             /* >= 1 */
    const char *const *field; /* NUL-terminated; holds no NUL */
};

/** @return bytes put into buf, 0 at the end, negative when reading failed */
typedef ssize_t csv_read_fn(void *user, char *buf, size_t size);

/** @return NULL when out of memory */
struct csv *csv_new(csv_read_fn *read, void *user);
void csv_free(struct csv *csv); /* NULL is fine */

/**
 * The next row; the first is the header.
 * @return 1 with a row; 0 at the end; TD_ESYNTAX (line and column are in the text, which quotes nothing of the
 * file), TD_ETOOBIG, TD_EIO, TD_ENOMEM. After a failure only csv_free.
 */
int csv_next(struct csv *csv, struct csv_row *ret, struct td_err *reterr);

#endif /* CTL_CSV_H */
