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

/* "5.1.1" at the start of text (after blanks), RFC 3463 s.2: class 2, 4 or 5, subject and detail of 1..3 digits.
 */
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

/* "550 5.1.1 text", "550-5.1.1 text", "550 #5.1.0 text": Exim writes Status: 5.0.0 into every report, and some
 * none; the reply that made it has more to say. */
static void status_from_diagnostic(struct dsn *dsn)
{
    const char *at = dsn->diagnostic;

    if ((dsn->status[0] && strcmp(dsn->status + 1, ".0.0") != 0) || dsn->reply_code == 0)
        return;
    at += 3 + (at[3] == '-');
    at += strspn(at, " ");
    at += *at == '#';
    if (*at - '0' == dsn->reply_code / 100)
        read_status(at, dsn->status);
}

/* One group of fields about one recipient. Ours have one; of several the first that failed counts. */
static void read_recipient(GMimeHeaderList *fields, struct dsn *dsn)
{
    GMimeHeader *action = g_mime_header_list_get_header(fields, "Action");
    GMimeHeader *status = g_mime_header_list_get_header(fields, "Status");
    GMimeHeader *diagnostic = g_mime_header_list_get_header(fields, "Diagnostic-Code");
    const char *word = action ? g_mime_header_get_value(action) : NULL;

    if (!word || dsn->kind == REPORT_FAILED)
        return;
    word += strspn(word, " \t");
    *dsn = (struct dsn){.kind = strncasecmp(word, "failed", 6) == 0 ? REPORT_FAILED : REPORT_DELAYED};
    if (status && g_mime_header_get_value(status))
        read_status(g_mime_header_get_value(status), dsn->status);
    if (diagnostic && g_mime_header_get_value(diagnostic))
        read_diagnostic(g_mime_header_get_value(diagnostic), dsn);
    status_from_diagnostic(dsn);
}

/* @return the end of the group of fields at `at`: after its empty line, or `end` */
static const char *group_end(const char *at, const char *end)
{
    for (; at < end && (at = memchr(at, '\n', (size_t)(end - at))); at++) {
        const char *next = at + 1;

        if (next < end && *next == '\r')
            next++;
        if (next < end && *next == '\n')
            return next + 1;
    }
    return end;
}

static void read_group(const char *at, size_t len, struct dsn *dsn)
{
    GMimeStream *stream = g_mime_stream_mem_new_with_buffer(at, len);
    GMimeParser *parser = g_mime_parser_new_with_stream(stream);
    GMimeObject *fields = g_mime_parser_construct_part(parser, NULL);

    if (fields) {
        read_recipient(g_mime_object_get_header_list(fields), dsn);
        g_object_unref(fields);
    }
    g_object_unref(parser);
    g_object_unref(stream);
}

/* The body of message/delivery-status is groups of header fields with empty lines between: the first is about the
 * message, the others about a recipient each (RFC 3464 s.2.1). */
static void read_delivery_status(GMimePart *part, struct dsn *dsn)
{
    GMimeDataWrapper *content = g_mime_part_get_content(part);
    GMimeStream *mem;
    GByteArray *bytes;
    const char *at, *end;

    if (!content)
        return;
    mem = g_mime_stream_mem_new();
    g_mime_data_wrapper_write_to_stream(content, mem); /* decodes base64 and the like */
    bytes = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(mem));
    at = (const char *)bytes->data;
    end = at ? at + bytes->len : at;
    for (unsigned group = 0; at && group < DSN_PARTS_MAX; group++) {
        const char *stop;

        while (at < end && (*at == '\r' || *at == '\n'))
            at++;
        if (at == end)
            break;
        stop = group_end(at, end);
        read_group(at, (size_t)(stop - at), dsn);
        at = stop;
    }
    g_object_unref(mem);
}

/* RFC 3464 s.2.1, and RFC 6533 s.4 for mail with non-ASCII addresses. */
static bool is_delivery_status(GMimeObject *object)
{
    GMimeContentType *type = g_mime_object_get_content_type(object);

    return GMIME_IS_PART(object) && type &&
           (g_mime_content_type_is_type(type, "message", "delivery-status") ||
            g_mime_content_type_is_type(type, "message", "global-delivery-status"));
}

static void walk(GMimeObject *object, struct reading *r)
{
    if (++r->parts > DSN_PARTS_MAX || r->depth >= DSN_DEPTH_MAX) {
        r->over = true;
        return;
    }
    if (GMIME_IS_MULTIPART(object)) {
        r->depth++;
        for (int i = 0; i < g_mime_multipart_get_count(GMIME_MULTIPART(object)) && !r->over; i++)
            walk(g_mime_multipart_get_part(GMIME_MULTIPART(object), i), r);
        r->depth--;
    } else if (is_delivery_status(object)) {
        read_delivery_status(GMIME_PART(object), r->dsn);
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
