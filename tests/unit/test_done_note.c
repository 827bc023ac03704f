/* The note beside an offset: what is written reads back, and nothing else passes for one. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "done_note.h"

static struct td_watermark *begun(int64_t first, size_t count)
{
    struct td_watermark *wm = td_watermark_new(DONE_NOTE_SPAN);

    assert_non_null(wm);
    for (size_t i = 0; i < count; i++)
        assert_true(td_watermark_begin(wm, first + (int64_t)i));
    return wm;
}

static void what_is_written_reads_back(void **unused)
{
    struct td_watermark *wm = begun(1000, DONE_NOTE_SPAN);
    char text[DONE_NOTE_MAX];
    struct done_note note;

    (void)unused;
    done_note_write(text, wm);
    assert_string_equal(text, "");
    for (int64_t i = 3; i < DONE_NOTE_SPAN; i += 3)
        td_watermark_done(wm, 1000 + i);
    done_note_write(text, wm);
    assert_true(strlen(text) < 4000); /* TD_KAFKA_NOTE_MAX */
    assert_true(done_note_read(&note, text));
    for (int64_t i = -10; i < DONE_NOTE_SPAN + 10; i++)
        assert_int_equal(done_note_has(&note, 1000 + i), i > 0 && i < DONE_NOTE_SPAN && i % 3 == 0);
    td_watermark_free(wm);
}

/* The offset may have moved on since the note was written, or be that of before. */
static void base_does_not_depend_on_the_offset_beside(void **unused)
{
    struct td_watermark *wm = begun(7, 20);
    char text[DONE_NOTE_MAX];
    struct done_note note;

    (void)unused;
    td_watermark_done(wm, 7);
    td_watermark_done(wm, 12);
    done_note_write(text, wm);
    assert_string_equal(text, "8 EA==");
    assert_true(done_note_read(&note, text));
    assert_true(done_note_has(&note, 12));
    assert_false(done_note_has(&note, 8));
    td_watermark_free(wm);
}

static void anything_else_says_that_nothing_is_done(void **unused)
{
    static const char *const row[] = {"",      " ",      "8",     "8 ",   "8  EA==", "EA==",          "x EA==", "-8 EA==",
                                      "8 EA=", "8 E*==", "8\tEA==", "8 EA==\n", "1234567890123456789 EA==", "12"};
    char text[DONE_NOTE_MAX + 100];
    struct done_note note;

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        assert_false(done_note_read(&note, row[i]));
        for (int64_t k = 0; k < 100; k++)
            assert_false(done_note_has(&note, k));
    }
    memcpy(text, "0 ", 2);
    memset(text + 2, 'A', sizeof(text) - 3);
    text[sizeof(text) - 1] = '\0';
    assert_false(done_note_read(&note, text));
}

static void a_lane_that_nothing_was_read_from_has_no_note(void **unused)
{
    struct td_watermark *wm = td_watermark_new(DONE_NOTE_SPAN);
    char text[DONE_NOTE_MAX] = "x";

    (void)unused;
    done_note_write(text, wm);
    assert_string_equal(text, "");
    td_watermark_free(wm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(base_does_not_depend_on_the_offset_beside),
        cmocka_unit_test(anything_else_says_that_nothing_is_done),
        cmocka_unit_test(a_lane_that_nothing_was_read_from_has_no_note),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
