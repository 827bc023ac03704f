/* Any bytes as a recipients file: rows whose fields are UTF-8 and within the limits, or a failure with its place.
 * The pieces in which the bytes arrive change nothing: the same file is read twice, in pieces of different sizes.
 */
#include <string.h>
#include <sys/types.h>

#include "csv.h"
#include "fuzz.h"
#include "tandem/utf8.h"

struct source {
    const uint8_t *data;
    size_t size, step;
};

static ssize_t read_source(void *user, char *buf, size_t size)
{
    struct source *source = user;
    size_t n = source->size < source->step ? source->size : source->step;

    if (n > size)
        n = size;
    if (n > 0)
        memcpy(buf, source->data, n);
    source->data += n;
    source->size -= n;
    return (ssize_t)n;
}

/* FNV-1a of all that was read, and of how it ended. */
static uint64_t read_all(const uint8_t *data, size_t size, size_t step)
{
    struct source source = {data, size, step};
    struct csv *csv = csv_new(read_source, &source);
    uint64_t sum = 14695981039346656037u;
    struct csv_row row;
    struct td_err err = {TD_OK, ""};
    size_t line = 0;
    int rc;

    PROMISE(csv);
    while ((rc = csv_next(csv, &row, &err)) == 1) {
        PROMISE(row.count >= 1 && row.count < CSV_FIELDS_MAX && row.line > line && row.line <= size + 1);
        line = row.line;
        for (size_t i = 0; i < row.count; i++) {
            size_t len = strlen(row.field[i]);

            PROMISE(len <= CSV_ROW_MAX && td_utf8_valid(row.field[i], len));
            for (size_t k = 0; k <= len; k++) /* with its NUL, so that a|bc and ab|c differ */
                sum = (sum ^ (uint8_t)row.field[i][k]) * 1099511628211u;
        }
        sum = (sum ^ row.count) * 1099511628211u;
    }
    PROMISE(rc == 0 || (err.code == rc && err.text[0]));
    csv_free(csv);
    return sum ^ (uint64_t)(unsigned)rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    PROMISE(read_all(data, size, 65536) == read_all(data, size, 1 + size % 7));
    return 0;
}
