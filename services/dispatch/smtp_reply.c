/* smtp_reply.c - one line at a time into a bounded buffer; a line is judged when its LF has come. */
#include "smtp_reply.h"

#include <stdio.h>
#include <string.h>

#define LINES_MAX 100

void smtp_reply_reader_init(struct smtp_reply_reader *reader)
{
    reader->line_len = 0;
    reader->lines = 0;
    reader->reply.code = 0;
    reader->reply.enhanced[0] = '\0';
    reader->reply.text[0] = '\0';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Length of "c.sss.ddd" at the start of text when a blank or the end follows (RFC 3463 s.2, RFC 2034 s.4); 0:
 * none. */
static size_t enhanced_len(const char *text, size_t len)
{
    size_t at = 1;

    if (len < 5 || (text[0] != '2' && text[0] != '4' && text[0] != '5'))
        return 0;
    for (int part = 0; part < 2; part++) {
        size_t digits = 0;

        if (at >= len || text[at] != '.')
            return 0;
        at++;
        while (at < len && is_digit(text[at])) {
            at++;
            digits++;
        }
        if (digits < 1 || digits > 3)
            return 0;
    }
    return at == len || text[at] == ' ' || text[at] == '\t' ? at : 0;
}

/* Controls and 8-bit bytes become '?': the text travels on in records that must be clean UTF-8. */
static void text_add(struct smtp_reply *reply, const char *text, size_t len)
{
    size_t at = strlen(reply->text);

    if (at > 0 && len > 0 && at < SMTP_REPLY_TEXT_MAX)
        reply->text[at++] = ' ';
    for (size_t i = 0; i < len && at < SMTP_REPLY_TEXT_MAX; i++)
        reply->text[at++] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    reply->text[at] = '\0';
}

static void text_take(struct smtp_reply *reply, const char *text, size_t len)
{
    size_t enhanced = enhanced_len(text, len);

    if (enhanced && !reply->enhanced[0])
        snprintf(reply->enhanced, sizeof(reply->enhanced), "%.*s", (int)enhanced, text);
    /* Each line of a reply repeats the code; it is no part of the text. */
    if (enhanced && strlen(reply->enhanced) == enhanced && memcmp(reply->enhanced, text, enhanced) == 0) {
        text += enhanced;
        len -= enhanced;
    }
    while (len > 0 && (text[0] == ' ' || text[0] == '\t')) {
        text++;
        len--;
    }
    while (len > 0 && text[len - 1] == ' ')
        len--;
    text_add(reply, text, len);
}

/* @return 1: the last line of a reply; 0: more lines follow; -1: not SMTP */
static int line_take(struct smtp_reply_reader *reader)
{
    const char *line = reader->line;
    size_t len = reader->line_len;
    int code;

    if (len > 0 && line[len - 1] == '\r')
        len--;
    if (memchr(line, '\0', len) || len < 3 || line[0] < '2' || line[0] > '5' || !is_digit(line[1]) ||
        !is_digit(line[2]))
        return -1;
    if (len > 3 && line[3] != ' ' && line[3] != '-')
        return -1;
    code = (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
    if (reader->lines > 0 && code != reader->reply.code)
        return -1; /* RFC 5321 s.4.2.1: the same code on every line */
    if (++reader->lines > LINES_MAX)
        return -1;
    reader->reply.code = code;
    if (len > 4)
        text_take(&reader->reply, line + 4, len - 4);
    return len > 3 && line[3] == '-' ? 0 : 1;
}

int smtp_reply_feed(struct smtp_reply_reader *reader, const char *data, size_t len, size_t *ret_used,
                    struct smtp_reply *ret)
{
    size_t used = 0;
    int rc = 0;

    while (rc == 0 && used < len) {
        const char *lf = memchr(data + used, '\n', len - used);
        size_t piece = lf ? (size_t)(lf - (data + used)) : len - used;

        if (piece > sizeof(reader->line) - reader->line_len) {
            rc = -1;
            break;
        }
        memcpy(reader->line + reader->line_len, data + used, piece);
        reader->line_len += piece;
        used += piece + (lf ? 1 : 0);
        if (!lf)
            break;
        rc = line_take(reader);
        reader->line_len = 0;
    }
    if (rc == 1) {
        *ret = reader->reply;
        smtp_reply_reader_init(reader);
    }
    *ret_used = used;
    return rc;
}
