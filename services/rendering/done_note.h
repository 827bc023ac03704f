/* done_note.h - which chunks of a lane are done above its committed offset, as a note beside that offset. Pure.
 *
 * "<base> <base64>": bit i of the bytes (lowest first) is record base + i. Campaigns take turns, so whole campaigns
 * are done above the oldest chunk of a large one; without the note the next owner of the lane would render them
 * again. The base is in the note, so that it says the same beside any offset. */
#ifndef RENDERING_DONE_NOTE_H
#define RENDERING_DONE_NOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/watermark.h"

enum {
    DONE_NOTE_SPAN = 16384, /* records a note is about: what a lane may hold between its oldest and newest chunk */
    DONE_NOTE_MAX = 20 + 1 + (DONE_NOTE_SPAN / 8 + 2) / 3 * 4 + 1 /* bytes of the text with its NUL */
};

struct done_note {
    int64_t base;
    size_t count; /* bytes in use */
    uint8_t bits[DONE_NOTE_SPAN / 8];
};

/** What is done of the first DONE_NOTE_SPAN records; "" when nothing above the watermark is. */
void done_note_write(char out[DONE_NOTE_MAX], const struct td_watermark *wm);
/** @return false when it is not such a note (out says that nothing is done) */
bool done_note_read(struct done_note *out, const char *text);
bool done_note_has(const struct done_note *note, int64_t offset);

#endif /* RENDERING_DONE_NOTE_H */
