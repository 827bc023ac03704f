/* No text makes a note say more than its bits, and what is read writes back the same. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "done_note.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct done_note note, again;
    char written[DONE_NOTE_MAX], *text = malloc(size + 1);
    struct td_watermark *wm = td_watermark_new(DONE_NOTE_SPAN);
    bool fine;

    PROMISE(text && wm);
    memcpy(text, data, size);
    text[size] = '\0';
    fine = done_note_read(&note, text);
    PROMISE(fine || note.count == 0);
    PROMISE(note.count <= sizeof(note.bits));
    PROMISE(!done_note_has(&note, note.base - 1) && !done_note_has(&note, INT64_MIN) && !done_note_has(&note, INT64_MAX));
    PROMISE(!done_note_has(&note, note.base + DONE_NOTE_SPAN));
    /* A lane whose record base - 1 is not done, so that all bits of the note lie above its watermark. */
    if (fine && note.base > 0) {
        PROMISE(td_watermark_begin(wm, note.base - 1));
        for (int64_t i = 0; i < DONE_NOTE_SPAN - 1; i++)
            PROMISE(td_watermark_begin(wm, note.base + i));
        for (int64_t i = 0; i < DONE_NOTE_SPAN - 1; i++)
            if (done_note_has(&note, note.base + i))
                td_watermark_done(wm, note.base + i);
        done_note_write(written, wm);
        done_note_read(&again, written);
        for (int64_t i = 0; i < DONE_NOTE_SPAN - 1; i++)
            PROMISE(done_note_has(&again, note.base + i) == done_note_has(&note, note.base + i));
    }
    td_watermark_free(wm);
    free(text);
    return 0;
}
