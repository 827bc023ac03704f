#include "done_note.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tandem/buf.h"
#include "tandem/err.h"
#include "tandem/mimeenc.h"

void done_note_write(char out[DONE_NOTE_MAX], const struct td_watermark *wm)
{
    uint8_t bits[DONE_NOTE_SPAN / 8] = {0};
    int64_t base = td_watermark_next(wm);
    size_t spread = base < 0 ? 0 : td_watermark_spread(wm), used = 0;
    struct td_buf text;

    *out = '\0';
    for (size_t i = 0; i < spread && i < DONE_NOTE_SPAN; i++) {
        if (!td_watermark_is_done(wm, base + (int64_t)i))
            continue;
        bits[i / 8] |= (uint8_t)(1u << (i % 8));
        used = i / 8 + 1;
    }
    if (used == 0)
        return;
    td_buf_init(&text, DONE_NOTE_MAX);
    if (td_base64(&text, bits, used) == TD_OK)
        snprintf(out, DONE_NOTE_MAX, "%" PRId64 " %s", base, td_buf_str(&text));
    td_buf_release(&text); /* out of memory: no note, and some work twice after a crash */
}

/* Up to 18 digits, so that a base and a bit's number never overflow. @return what follows the blank, or NULL */
static const char *read_base(const char *text, int64_t *ret)
{
    int64_t base = 0;
    size_t digits = 0;

    for (; *text >= '0' && *text <= '9' && digits < 19; text++, digits++)
        base = base * 10 + (*text - '0');
    if (digits == 0 || digits > 18 || *text != ' ')
        return NULL;
    *ret = base;
    return text + 1;
}

bool done_note_read(struct done_note *out, const char *text)
{
    uint8_t bytes[(sizeof(out->bits) + 2) / 3 * 3];
    const char *code;
    size_t len;
    int count;

    *out = (struct done_note){.base = 0};
    code = read_base(text, &out->base);
    len = code ? strlen(code) : 0;
    if (len == 0 || len > (sizeof(out->bits) + 2) / 3 * 4)
        return false;
    count = td_base64_decode(bytes, code, len);
    if (count <= 0 || (size_t)count > sizeof(out->bits))
        return false;
    memcpy(out->bits, bytes, (size_t)count);
    out->count = (size_t)count;
    return true;
}

bool done_note_has(const struct done_note *note, int64_t offset)
{
    uint64_t i = (uint64_t)offset - (uint64_t)note->base;

    return offset >= note->base && i / 8 < note->count && (note->bits[i / 8] >> (i % 8) & 1);
}
