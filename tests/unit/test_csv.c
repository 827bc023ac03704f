/* Rows in, fields out; and where a fault is said to be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "csv.h"

struct source {
    const char *text;
    size_t len, at, step; /* step: bytes a read gives at most */
};

static ssize_t read_source(void *user, char *buf, size_t size)
{
    struct source *source = user;
    size_t n = source->len - source->at;

    if (n > size)
        n = size;
    if (n > source->step)
        n = source->step;
    memcpy(buf, source->text + source->at, n);
    source->at += n;
    return (ssize_t)n;
}

/* All rows as "a|b\n"; a failure as its text. */
static char *rows(const char *text, size_t len, size_t step)
{
    struct source source = {text, len, 0, step};
    struct csv *csv = csv_new(read_source, &source);
    char *out = calloc(1, 8192);
    struct td_err err = {TD_OK, ""};
    struct csv_row row;
    int rc;

    assert_non_null(csv);
    assert_non_null(out);
    while ((rc = csv_next(csv, &row, &err)) == 1)
        for (size_t i = 0; i < row.count; i++) {
            strncat(out, row.field[i], 8191 - strlen(out));
            strncat(out, i + 1 < row.count ? "|" : "\n", 8191 - strlen(out));
        }
    if (rc < 0) {
        strncat(out, "!", 8191 - strlen(out));
        strncat(out, err.text, 8191 - strlen(out));
    }
    csv_free(csv);
    return out;
}

static void reads(const char *text, const char *expected)
{
    /* Whatever the pieces in which the bytes arrive. */
    for (size_t step = 1; step < 8; step++) {
        char *got = rows(text, strlen(text), step);

        assert_string_equal(got, expected);
        free(got);
    }
}

static void fields_rows_and_quotes(void **unused)
{
    static const char *const row[][2] = {
        {"", ""},
        {"email\n", "email\n"},
        {"email,name\na@b.se,Anna\n", "email|name\na@b.se|Anna\n"},
        {"email,name\r\na@b.se,Anna\r\n", "email|name\na@b.se|Anna\n"},
        {"email,name\na@b.se,Anna", "email|name\na@b.se|Anna\n"},
        {"\xEF\xBB\xBF"
         "email,name\na,b\n",
         "email|name\na|b\n"},
        {"a,b\n\"x,y\",\"say \"\"hi\"\"\"\n", "a|b\nx,y|say \"hi\"\n"},
        {"a,b\n\"two\nlines\",z\n", "a|b\ntwo\nlines|z\n"},
        {"a,b\n\"two\r\nlines\",z\n", "a|b\ntwo\r\nlines|z\n"},
        {"a,b\n,\n", "a|b\n|\n"},
        {"a,b\n\"\",\"\"\n", "a|b\n|\n"},
        {"a,b\n\n\nc,d\n\n", "a|b\nc|d\n"},
        {"a\rb\n", "a\rb\n"},
        {"a,b,", "a|b|\n"},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
        reads(row[i][0], row[i][1]);
}

static void separator_is_what_the_header_has_most_of(void **unused)
{
    (void)unused;
    reads("email;name;city\na;b,c;d\n", "email|name|city\na|b,c|d\n");
    reads("email\tname\na\tb;c\n", "email|name\na|b;c\n");
    reads("\"a;b;c\",d\n1;2,3\n", "a;b;c|d\n1;2|3\n");
    reads("email\na;b\n", "email\na;b\n");
    reads("\"two,\nlines\";b;c\n1;2;3\n", "two,\nlines|b|c\n1|2|3\n");
}

static void faults_say_where(void **unused)
{
    static const char *const row[][2] = {
        {"a,b\n\"x\n", "a|b\n!line 2, column 1: this quote is never closed"},
        {"a,b\nx,y\"z\n", "a|b\n!line 2, column 4 (field 2): a quote in a field that does not begin with one"},
        {"a,b\n\"x\" ,y\n",
         "a|b\n!line 2, column 4 (field 1): text after a closing quote; a quote inside quotes is written twice"},
        {"a,b\n\"x\ny\",\"z\"q\n",
         "a|b\n!line 3, column 7 (field 2): text after a closing quote; a quote inside quotes is written twice"},
        {"a,b\n\xff,c\n", "a|b\n!line 2, column 2 (field 1): not UTF-8; save the file as UTF-8"},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
        reads(row[i][0], row[i][1]);
}

static void nul_is_refused(void **unused)
{
    char *got = rows("a,b\nx\0y,z\n", 10, 3);

    (void)unused;
    assert_string_equal(got, "a|b\n!line 2, column 2 (field 1): a NUL byte; is this a text file?");
    free(got);
}

static void endless_rows_stop_at_the_limit(void **unused)
{
    size_t len = CSV_ROW_MAX + 100;
    char *text = malloc(len), *got;

    (void)unused;
    assert_non_null(text);
    memset(text, 'x', len);
    text[0] = '"';
    got = rows(text, len, len);
    assert_non_null(strstr(got, "longer than 1048576 bytes"));
    free(got);
    memset(text, ',', len);
    got = rows(text, len, len);
    assert_non_null(strstr(got, "fewer than 1000 fields"));
    free(got);
    free(text);
}

static void lines_are_counted_over_quoted_line_ends(void **unused)
{
    static const char text[] = "a\n\"1\n2\n3\"\nb\n";
    struct source source = {text, sizeof(text) - 1, 0, 100};
    struct csv *csv = csv_new(read_source, &source);
    static const size_t lines[] = {1, 2, 5};
    struct csv_row row;

    (void)unused;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(csv_next(csv, &row, NULL), 1);
        assert_int_equal(row.line, lines[i]);
    }
    assert_int_equal(csv_next(csv, &row, NULL), 0);
    assert_int_equal(csv_next(csv, &row, NULL), 0);
    csv_free(csv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_rows_and_quotes),
        cmocka_unit_test(separator_is_what_the_header_has_most_of),
        cmocka_unit_test(faults_say_where),
        cmocka_unit_test(nul_is_refused),
        cmocka_unit_test(endless_rows_stop_at_the_limit),
        cmocka_unit_test(lines_are_counted_over_quoted_line_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
