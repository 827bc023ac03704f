/* A state for each byte. Fields of a row lie one after the other in one buffer, each ended by NUL; where they
 * begin is kept as an offset, since the buffer may move while it grows. */
#include "csv.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/buf.h"
#include "tandem/utf8.h"

enum state {
    FIELD_START = 0,
    PLAIN,      /* inside a field without quotes */
    QUOTED,     /* inside quotes */
    AFTER_QUOTE /* a quote inside quotes: the end of the field, or half of "" */
};

struct csv {
    csv_read_fn *read;
    void *user;
    char in[65536];
    size_t in_at, in_len;
    bool in_end, begun;
    char separator;

    enum state state;
    struct td_buf text;           /* of the row */
    size_t start[CSV_FIELDS_MAX]; /* offsets into text */
    const char *field[CSV_FIELDS_MAX];
    size_t count;
    size_t line, column; /* of the byte looked at, 1-based; columns are bytes */
    size_t quote_line, quote_column;
};

struct csv *csv_new(csv_read_fn *read, void *user)
{
    struct csv *csv = calloc(1, sizeof(*csv));

    if (!csv)
        return NULL;
    csv->read = read;
    csv->user = user;
    csv->line = 1;
    td_buf_init(&csv->text, CSV_ROW_MAX + CSV_FIELDS_MAX);
    return csv;
}

void csv_free(struct csv *csv)
{
    if (!csv)
        return;
    td_buf_release(&csv->text);
    free(csv);
}

static int fill(struct csv *csv, struct td_err *reterr)
{
    ssize_t got;

    if (csv->in_end)
        return TD_OK;
    memmove(csv->in, csv->in + csv->in_at, csv->in_len - csv->in_at);
    csv->in_len -= csv->in_at;
    csv->in_at = 0;
    got = csv->read(csv->user, csv->in + csv->in_len, sizeof(csv->in) - csv->in_len);
    if (got < 0)
        return td_fail(reterr, TD_EIO, "line %zu: the file could not be read further", csv->line);
    csv->in_end = got == 0;
    csv->in_len += (size_t)got;
    return TD_OK;
}

/* Which separator the first line holds most of; a line longer than our buffer is judged by its beginning.
 * @return false when the line goes on after these bytes, so that more of them could change the answer */
static bool guess_separator(const char *text, size_t len, char *ret)
{
    static const char candidates[] = ",;\t";
    size_t seen[3] = {0, 0, 0}, best = 0, i;
    bool quoted = false;

    for (i = 0; i < len && (quoted || text[i] != '\n'); i++) {
        const char *at = text[i] ? strchr(candidates, text[i]) : NULL;

        if (text[i] == '"')
            quoted = !quoted;
        else if (at && !quoted)
            seen[at - candidates]++;
    }
    for (size_t k = 1; k < 3; k++)
        if (seen[k] > seen[best])
            best = k;
    *ret = candidates[best];
    return i < len;
}

static int begin(struct csv *csv, struct td_err *reterr)
{
    static const char bom[] = "\xEF\xBB\xBF";
    int rc = TD_OK;

    csv->begun = true;
    while (rc == TD_OK && !guess_separator(csv->in, csv->in_len, &csv->separator) && !csv->in_end &&
           csv->in_len < sizeof(csv->in))
        rc = fill(csv, reterr);
    if (csv->in_len >= 3 && memcmp(csv->in, bom, 3) == 0)
        csv->in_at = 3;
    return rc;
}

static int fault(const struct csv *csv, const char *what, struct td_err *reterr)
{
    return td_fail(reterr, TD_ESYNTAX, "line %zu, column %zu (field %zu): %s", csv->line, csv->column,
                   csv->count + 1, what);
}

static int add(struct csv *csv, char c, struct td_err *reterr)
{
    int rc = csv->text.len > CSV_ROW_MAX ? TD_ETOOBIG : td_buf_addc(&csv->text, c);

    if (rc == TD_ETOOBIG)
        return td_fail(reterr, rc, "line %zu: the row is longer than %d bytes; is a quote missing further up?",
                       csv->line, CSV_ROW_MAX);
    return rc < 0 ? td_fail(reterr, rc, "no memory for a row") : TD_OK;
}

static int end_field(struct csv *csv, struct td_err *reterr)
{
    size_t start = csv->count ? csv->start[csv->count] : 0;
    int rc;

    if (!td_utf8_valid(csv->text.data ? csv->text.data + start : "", csv->text.len - start))
        return fault(csv, "not UTF-8; save the file as UTF-8", reterr);
    rc = add(csv, '\0', reterr);
    if (rc < 0)
        return rc;
    csv->count++;
    if (csv->count == CSV_FIELDS_MAX)
        return td_fail(reterr, TD_ETOOBIG, "line %zu: a row has fewer than %d fields", csv->line, CSV_FIELDS_MAX);
    csv->start[csv->count] = csv->text.len;
    csv->state = FIELD_START;
    return TD_OK;
}

/* One byte. @return 1: it ended the row; 0: go on; negative: failed */
static int step(struct csv *csv, char c, struct td_err *reterr)
{
    bool separator = c == csv->separator, eol = c == '\n';
    int rc;

    if (c == '\0')
        return fault(csv, "a NUL byte; is this a text file?", reterr);
    if (csv->state == QUOTED && c != '"')
        return add(csv, c, reterr);
    if (csv->state == QUOTED) {
        csv->state = AFTER_QUOTE;
        return 0;
    }
    if (csv->state == AFTER_QUOTE && c == '"') {
        csv->state = QUOTED;
        return add(csv, c, reterr);
    }
    if (separator || eol) {
        rc = end_field(csv, reterr);
        return rc < 0 ? rc : eol;
    }
    if (csv->state == AFTER_QUOTE)
        return fault(csv, "text after a closing quote; a quote inside quotes is written twice", reterr);
    if (c == '"' && csv->state == PLAIN)
        return fault(csv, "a quote in a field that does not begin with one", reterr);
    if (c == '"') {
        csv->state = QUOTED;
        csv->quote_line = csv->line;
        csv->quote_column = csv->column;
        return 0;
    }
    csv->state = PLAIN;
    return add(csv, c, reterr);
}

/* The next byte, CRLF outside quotes as LF. @return 1; 0 at the end; negative */
static int next_byte(struct csv *csv, char *ret, struct td_err *reterr)
{
    /* Two, so that a CR can be seen with its LF. */
    while (csv->in_len - csv->in_at < 2 && !csv->in_end) {
        int rc = fill(csv, reterr);

        if (rc < 0)
            return rc;
    }
    if (csv->in_at == csv->in_len)
        return 0;
    *ret = csv->in[csv->in_at++];
    csv->column++;
    if (*ret == '\r' && csv->state != QUOTED && csv->in_at < csv->in_len && csv->in[csv->in_at] == '\n')
        *ret = csv->in[csv->in_at++];
    return 1;
}

static int end_of_file(struct csv *csv, struct td_err *reterr)
{
    int rc;

    if (csv->state == QUOTED)
        return td_fail(reterr, TD_ESYNTAX, "line %zu, column %zu: this quote is never closed", csv->quote_line,
                       csv->quote_column);
    if (csv->count == 0 && csv->text.len == 0 && csv->state == FIELD_START)
        return 0;
    rc = end_field(csv, reterr);
    return rc < 0 ? rc : 1;
}

static bool row_empty(const struct csv *csv)
{
    return csv->count == 1 && csv->text.len == 1; /* one field that is only its NUL */
}

static int read_row(struct csv *csv, struct td_err *reterr)
{
    char c;
    int rc;

    td_buf_clear(&csv->text);
    csv->count = 0;
    csv->start[0] = 0;
    csv->state = FIELD_START;
    for (;;) {
        rc = next_byte(csv, &c, reterr);
        if (rc == 0)
            return end_of_file(csv, reterr);
        if (rc == 1)
            rc = step(csv, c, reterr);
        if (rc < 0)
            return rc;
        if (c == '\n') {
            csv->line++;
            csv->column = 0;
        }
        if (rc == 1)
            return 1;
    }
}

int csv_next(struct csv *csv, struct csv_row *ret, struct td_err *reterr)
{
    int rc = csv->begun ? TD_OK : begin(csv, reterr);

    if (rc < 0)
        return rc;
    do {
        ret->line = csv->line;
        rc = read_row(csv, reterr);
        if (rc <= 0)
            return rc;
    } while (row_empty(csv));
    for (size_t i = 0; i < csv->count; i++)
        csv->field[i] = csv->text.data + csv->start[i];
    ret->count = csv->count;
    ret->field = csv->field;
    return 1;
}
