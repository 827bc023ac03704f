/* smtp_content.c - two linear passes a mail: bytes by words of eight, lines by memchr. */
#include "smtp_content.h"

#include <stdint.h>
#include <string.h>

#define ONES UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)
#define BLOCK 128 /* bytes; the sum of its counters must fit in one */

struct byte_facts {
    uint64_t bad; /* a high bit is set when any byte was NUL or 8-bit */
    size_t crs;
};

/* Byte by byte this costs more than encrypting the mail; eight at a time, in blocks of a fixed length that
 * compilers turn into vectors, it hardly shows. */
static void bytes_scan(const char *data, size_t len, struct byte_facts *facts)
{
    size_t at = 0;

    for (; at + BLOCK <= len; at += BLOCK) {
        uint64_t bad = 0, crs = 0; /* crs: eight counters */

        for (size_t k = 0; k < BLOCK; k += 8) {
            uint64_t word;

            memcpy(&word, data + at + k, 8);
            /* c - 1 borrows, and so sets the high bit, only for c = 0 (or above 0x80, which is bad itself). */
            bad |= word | (word - ONES);
            /* Bytes below 0x80 that are not CR get their high bit by adding 0x7f; what lacks it is a CR. */
            crs += (~((word ^ (ONES * '\r')) + (HIGHS - ONES)) & HIGHS) >> 7;
        }
        facts->bad |= bad;
        facts->crs += (size_t)((crs * ONES) >> 56);
    }
    for (; at < len; at++) {
        unsigned char c = (unsigned char)data[at];

        facts->bad |= c == 0 || c > 127 ? HIGHS : 0;
        facts->crs += c == '\r';
    }
}

struct line_facts {
    size_t line_len; /* of the line under way, its CR included */
    size_t lfs;
    size_t dots;
    char last; /* byte before this slice */
};

static bool lines_scan(const struct slice *slice, struct line_facts *facts)
{
    const char *at = slice->data;
    const char *end = slice->data + slice->len;

    while (at < end) {
        const char *lf = memchr(at, '\n', (size_t)(end - at));
        const char *stop = lf ? lf : end;

        facts->dots += facts->line_len == 0 && *at == '.';
        facts->line_len += (size_t)(stop - at);
        if (facts->line_len > SMTP_LINE_MAX + 1)
            return false;
        if (!lf)
            break;
        if ((lf == slice->data ? facts->last : lf[-1]) != '\r')
            return false;
        facts->lfs++;
        facts->line_len = 0;
        at = lf + 1;
    }
    if (slice->len > 0)
        facts->last = end[-1];
    return true;
}

bool smtp_content_check(const struct slice *slices, size_t count, size_t *ret_bytes, size_t *ret_dots)
{
    struct byte_facts bytes = {0, 0};
    struct line_facts lines = {0, 0, 0, '\0'};
    size_t sum = 0;

    for (size_t i = 0; i < count; i++) {
        if (slices[i].len == 0)
            continue;
        bytes_scan(slices[i].data, slices[i].len, &bytes);
        if ((bytes.bad & HIGHS) || !lines_scan(&slices[i], &lines))
            return false;
        sum += slices[i].len;
    }
    /* Every LF had its CR; as many CRs as LFs means that no CR stands alone. */
    if (lines.last != '\n' || bytes.crs != lines.lfs)
        return false;
    *ret_bytes = sum;
    *ret_dots = lines.dots;
    return true;
}

void smtp_content_begin(struct smtp_content_reader *reader, const struct slice *slices, size_t count, size_t dots)
{
    *reader =
        (struct smtp_content_reader){.slices = slices, .count = count, .stuff = dots > 0, .line_start = true};
    while (reader->index < count && slices[reader->index].len == 0)
        reader->index++;
}

bool smtp_content_at_end(const struct smtp_content_reader *reader)
{
    return reader->index == reader->count;
}

/* The next run that can be copied as it is: up to the end of the slice, or of the line when dots must be doubled.
 */
static size_t run_len(const struct smtp_content_reader *reader, const char *at, size_t left)
{
    const char *lf = reader->stuff ? memchr(at, '\n', left) : NULL;

    return lf ? (size_t)(lf - at) + 1 : left;
}

size_t smtp_content_copy(struct smtp_content_reader *reader, char *out, size_t room)
{
    size_t written = 0;

    while (written < room && !smtp_content_at_end(reader)) {
        const struct slice *slice = &reader->slices[reader->index];
        const char *at = slice->data + reader->offset;
        size_t run = run_len(reader, at, slice->len - reader->offset);

        if (reader->line_start && *at == '.' && reader->stuff) {
            if (room - written < 2)
                break;
            out[written++] = '.'; /* RFC 5321 s.4.5.2 */
        }
        if (run > room - written)
            run = room - written;
        memcpy(out + written, at, run);
        written += run;
        reader->offset += run;
        reader->line_start = at[run - 1] == '\n';
        if (reader->offset == slice->len) {
            reader->offset = 0;
            do
                reader->index++;
            while (reader->index < reader->count && reader->slices[reader->index].len == 0);
        }
    }
    return written;
}
