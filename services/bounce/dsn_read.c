#include "dsn_read.h"

#include <gmime/gmime.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct reading {
    struct dsn *dsn;
    unsigned parts, depth;
    bool over;
};

static void init_once(void)
{
    static gsize done;

    if (g_once_init_enter(&done)) {
        g_mime_init();
        g_once_init_leave(&done, 1);
    }
}

/* "5.1.1" at the start of text (after blanks), RFC 3463 s.2: class 2, 4 or 5, subject and detail of 1..3 digits. */
static bool read_status(const char *text, char out[12])
{
    const char *at = text + strspn(text, " \t");
    size_t n = 0, dots = 0, digits = 0;

    if (*at != '2' && *at != '4' && *at != '5')
        return false;
    for (; n < 11 && ((at[n] >= '0' && at[n] <= '9') || at[n] == '.'); n++) {
        if (at[n] != '.') {
            if (++digits > 3)
                return false;
        } else if (digits == 0 || (dots++ == 0 && digits != 1)) {
            return false;
        } else {
            digits = 0;
        }
    }
    if (dots != 2 || digits == 0)
        return false;
    memcpy(out, at, n);
    out[n] = '\0';
    return true;
}

/* "smtp; 550 5.1.1 text" (RFC 3464 s.2.3.6) */
static void read_diagnostic(const char *value, struct dsn *dsn)
{
    const char *at = strchr(value, ';');
    size_t n;

    at = at ? at + 1 : value;
    at += strspn(at, " \t\r\n");
    for (n = 0; at[n] && n + 1 < sizeof(dsn->diagnostic); n++)
        dsn->diagnostic[n] = (char)(at[n] == '\r' || at[n] == '\n' || at[n] == '\t' ? ' ' : at[n]);
    dsn->diagnostic[n] = '\0';
    if (at[0] >= '2' && at[0] <= '5' && strspn(at, "0123456789") == 3)
        dsn->reply_code = (at[0] - '0') * 100 + (at[1] - '0') * 10 + (at[2] - '0');
}

/* One group of fields about one recipient. Ours have one; of several the failed one counts. */
static void read_recipient(GMimeHeaderList *fields, struct dsn *dsn)
{
    GMimeHeader *action = g_mime_header_list_get_header(fields, "Action");
    GMimeHeader *status = g_mime_header_list_get_header(fields, "Status");
    GMimeHeader *diagnostic = g_mime_header_list_get_header(fields, "Diagnostic-Code");
    const char *word = action ? g_mime_header_get_value(action) : NULL;

    if (!word || dsn->kind == REPORT_FAILED)
        return;
    word += strspn(word, " \t");
    dsn->kind = strncasecmp(word, "failed", 6) == 0 ? REPORT_FAILED : REPORT_DELAYED;
    dsn->status[0] = '\0';
    if (status && g_mime_header_get_value(status))
        read_status(g_mime_header_get_value(status), dsn->status);
    if (diagnostic && g_mime_header_get_value(diagnostic))
        read_diagnostic(g_mime_header_get_value(diagnostic), dsn);
}

/* The body of message/delivery-status is groups of header fields with empty lines between: the first is about the message,
 * the others about a recipient each (RFC 3464 s.2.1). */
static void read_delivery_status(GMimePart *part, struct reading *r)
{
    GMimeDataWrapper *content = g_mime_part_get_content(part);
    GMimeStream *mem;
    GByteArray *bytes;
    const char *at, *end;

    if (!content)
        return;
    mem = g_mime_stream_mem_new();
    g_mime_data_wrapper_write_to_stream(content, mem);
    bytes = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(mem));
    at = (const char *)bytes->data;
    end = at ? at + bytes->len : at;
    for (unsigned group = 0; at && at < end && group < DSN_PARTS_MAX; group++) {
        const char *stop = NULL;
        GMimeStream *piece;
        GMimeParser *parser;
        GMimeObject *fields;

        while (at < end && (*at == '\r' || *at == '\n'))
            at++;
        for (const char *p = at; p < end; p++) {
            const char *q = p + 1;

            if (*p != '\n')
                continue;
            if (q < end && *q == '\r')
                q++;
            if (q < end && *q == '\n') {
                stop = q + 1;
                break;
            }
        }
        if (!stop)
            stop = end;
        if (at >= stop)
            break;
        piece = g_mime_stream_mem_new_with_buffer(at, (size_t)(stop - at));
        parser = g_mime_parser_new_with_stream(piece);
        fields = g_mime_parser_construct_part(parser, NULL);
        if (fields) {
            read_recipient(g_mime_object_get_header_list(fields), r->dsn);
            g_object_unref(fields);
        }
        g_object_unref(parser);
        g_object_unref(piece);
        at = stop;
    }
    g_object_unref(mem);
}

static void walk(GMimeObject *object, struct reading *r)
{
    GMimeContentType *type = g_mime_object_get_content_type(object);

    if (++r->parts > DSN_PARTS_MAX || r->depth >= DSN_DEPTH_MAX) {
        r->over = true;
        return;
    }
    if (GMIME_IS_MULTIPART(object)) {
        r->depth++;
        for (int i = 0; i < g_mime_multipart_get_count(GMIME_MULTIPART(object)) && !r->over; i++)
            walk(g_mime_multipart_get_part(GMIME_MULTIPART(object), i), r);
        r->depth--;
    } else if (GMIME_IS_PART(object) && type && g_mime_content_type_is_type(type, "message", "delivery-status")) {
        read_delivery_status(GMIME_PART(object), r);
    }
    /* A message/rfc822 part is the mail that came back: what it holds is not a report about us. */
}

int dsn_read(const void *raw, size_t len, struct dsn *ret, struct td_err *reterr)
{
    struct reading r = {.dsn = ret};
    GMimeStream *stream;
    GMimeParser *parser;
    GMimeMessage *message;
    int rc = TD_OK;

    memset(ret, 0, sizeof(*ret));
    if (len > DSN_BYTES_MAX)
        return td_fail(reterr, TD_ETOOBIG, "a report of %zu bytes", len);
    init_once();
    stream = g_mime_stream_mem_new_with_buffer(raw, len);
    parser = g_mime_parser_new_with_stream(stream);
    message = g_mime_parser_construct_message(parser, NULL);
    if (!message || !g_mime_message_get_mime_part(message)) {
        rc = td_fail(reterr, TD_ESYNTAX, "no message could be read");
    } else {
        walk(g_mime_message_get_mime_part(message), &r);
        if (r.over)
            rc = td_fail(reterr, TD_ETOOBIG, "more than %d parts or deeper than %d", DSN_PARTS_MAX, DSN_DEPTH_MAX);
    }
    if (message)
        g_object_unref(message);
    g_object_unref(parser);
    g_object_unref(stream);
    return rc;
}
