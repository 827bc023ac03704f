#include "unit.h"

#include <stdbool.h>
#include <string.h>

#include "tandem/err.h"
#include "tandem/mimeenc.h"
#include "tandem/rng.h"

static int encode(struct td_buf *out, const char *text, size_t len)
{
    struct td_qp qp = {0, 0};
    int rc = td_qp_add(&qp, out, text, len);

    return rc < 0 ? rc : td_qp_end(&qp, out);
}

static void quoted_printable_of_short_texts(void **unused)
{
    static const struct {
        const char *text, *want;
    } row[] = {
        {"", ""},
        {"Hello, world", "Hello, world"},
        {"a\nb\r\nc\rd", "a\r\nb\r\nc\r\nd"},
        {"\n\n", "\r\n\r\n"},
        {"\r\r\n\r", "\r\n\r\n\r\n"},
        {"a=b", "a=3Db"},
        {"\xc3\xa5", "=C3=A5"},
        {"a \nb\t\r\n", "a=20\r\nb=09\r\n"},
        {"a  \n", "a =20\r\n"},
        {"end ", "end=20"},
        {".\n..\na.", "=2E\r\n=2E.\r\na."},
        {"From me\nFor you\n From us", "=46rom me\r\nFor you\r\n From us"},
        {"F", "=46"}, /* what follows may be "rom " */
        {"a\x7f\x01\t.", "a=7F=01\t."},
    };

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct td_buf out = TD_BUF_INIT(1000);

        assert_int_equal(encode(&out, row[i].text, strlen(row[i].text)), TD_OK);
        assert_string_equal(td_buf_str(&out), row[i].want);
        td_buf_release(&out);
    }
}

/* ---- the oracle: RFC 2045 s.6.7 read once more, with nothing of mimeenc.c ---- */

static void naive_normalise(const char *text, size_t len, struct td_buf *out)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\r' || text[i] == '\n')
            td_buf_add(out, "\r\n", 2);
        else
            td_buf_addc(out, text[i]);
        if (text[i] == '\r' && i + 1 < len && text[i + 1] == '\n')
            i++;
    }
}

static int naive_hex(char c)
{
    const char *digits = "0123456789ABCDEF", *at = strchr(digits, c);

    assert_true(c != '\0' && at != NULL);
    return (int)(at - digits);
}

static void naive_decode(const struct td_buf *in, struct td_buf *out)
{
    for (size_t i = 0; i < in->len; i++) {
        if (in->data[i] != '=') {
            td_buf_addc(out, in->data[i]);
        } else if (in->data[i + 1] == '\r') {
            assert_int_equal(in->data[i + 2], '\n');
            i += 2;
        } else {
            td_buf_addc(out, (char)(naive_hex(in->data[i + 1]) * 16 + naive_hex(in->data[i + 2])));
            i += 2;
        }
    }
}

static void check_encoded_lines(const struct td_buf *out)
{
    size_t start = 0;

    for (size_t i = 0; i <= out->len; i++) {
        unsigned char c = i < out->len ? (unsigned char)out->data[i] : '\r';

        assert_true((c >= ' ' && c <= '~') || c == '\t' || c == '\r' || c == '\n');
        if (c != '\r')
            continue;
        assert_true(i - start <= 76);
        if (i > start) {
            assert_true(out->data[i - 1] != ' ' && out->data[i - 1] != '\t');
            assert_true(out->data[start] != '.');
            assert_true(i - start < 5 || memcmp(out->data + start, "From ", 5) != 0);
        }
        if (i < out->len)
            assert_int_equal(out->data[i + 1], '\n');
        start = i += 2;
        i--;
    }
}

static void random_text_cut_at_random_seams_decodes_to_the_same(void **unused)
{
    static const char *const piece[] = {"a",   "bc",   " ",        "\t",   "\n",
                                        "\r",  "\r\n", ".",        "F",    "From ",
                                        "=",   "  ",   "\xc3\xa5", "\xff", "the quick brown fox jumps over ",
                                        "rom "};
    struct td_buf text = TD_BUF_INIT(100000), want = TD_BUF_INIT(100000), out = TD_BUF_INIT(400000),
                  got = TD_BUF_INIT(100000);
    struct td_rng rng;

    (void)unused;
    td_rng_seed(&rng, 5);
    for (unsigned round = 0; round < 3000; round++) {
        struct td_qp qp = {0, 0};
        size_t at = 0;

        td_buf_clear(&text);
        td_buf_clear(&want);
        td_buf_clear(&out);
        td_buf_clear(&got);
        for (uint64_t n = td_rng_below(&rng, 150); n > 0; n--)
            td_buf_adds(&text, piece[td_rng_below(&rng, COUNT(piece))]);
        while (at < text.len) {
            size_t now = 1 + (size_t)td_rng_below(&rng, round % 2 ? 4 : 200);

            if (now > text.len - at)
                now = text.len - at;
            assert_int_equal(td_qp_add(&qp, &out, text.data + at, now), TD_OK);
            assert_true(qp.column <= 75);
            at += now;
        }
        assert_int_equal(td_qp_end(&qp, &out), TD_OK);
        assert_int_equal(qp.held, 0);
        check_encoded_lines(&out);
        naive_normalise(text.data, text.len, &want);
        naive_decode(&out, &got);
        assert_int_equal(got.len, want.len);
        if (want.len > 0)
            assert_memory_equal(got.data, want.data, want.len);
    }
    td_buf_release(&text);
    td_buf_release(&want);
    td_buf_release(&out);
    td_buf_release(&got);
}

/* Static text is ended at a seam and the next piece goes on in the same column: blanks at the seam must survive
 * whatever comes next. */
static void pieces_ended_at_seams_join_to_the_same_text(void **unused)
{
    static const char *const pieces[] = {"Hello ", "Anna", " \t", "\r\n", "",   ".",
                                         "From",   " ",    "x",   "\n",   "\t", "\n."};
    struct td_buf out = TD_BUF_INIT(1000), got = TD_BUF_INIT(1000);
    struct td_qp qp = {0, 0};

    (void)unused;
    for (size_t i = 0; i < COUNT(pieces); i++) {
        assert_int_equal(td_qp_add(&qp, &out, pieces[i], strlen(pieces[i])), TD_OK);
        assert_int_equal(td_qp_end(&qp, &out), TD_OK);
    }
    check_encoded_lines(&out);
    naive_decode(&out, &got);
    assert_string_equal(td_buf_str(&got), "Hello Anna \t\r\n.From x\r\n\t\r\n.");
    td_buf_release(&out);
    td_buf_release(&got);
}

static void column_says_where_the_line_stands(void **unused)
{
    struct td_buf out = TD_BUF_INIT(1000);
    struct td_qp qp = {75, 0};

    (void)unused;
    assert_int_equal(td_qp_add(&qp, &out, "ab", 2), TD_OK);
    assert_string_equal(td_buf_str(&out), "=\r\nab");
    assert_int_equal(qp.column, 2);
    td_buf_clear(&out);
    qp = (struct td_qp){74, 0};
    assert_int_equal(td_qp_add(&qp, &out, "a.", 2), TD_OK); /* the dot would begin a line */
    assert_string_equal(td_buf_str(&out), "a=\r\n=2E");
    assert_int_equal(qp.column, 3);
    td_buf_release(&out);
}

static void full_buffer_is_said(void **unused)
{
    (void)unused;
    for (size_t limit = 0; limit < 16; limit++) {
        struct td_buf out = TD_BUF_INIT(limit);

        assert_int_equal(encode(&out, "a \xc3\xa5\r\n. x\t", 11), TD_ETOOBIG);
        td_buf_clear(&out);
        assert_int_equal(td_base64(&out, "0123456789ab", 13), TD_ETOOBIG);
        assert_int_equal(td_base64_lines(&out, "0123456789ab", 12), limit < 18 ? TD_ETOOBIG : TD_OK);
        td_buf_release(&out);
    }
}

static void base64_of_the_rfc(void **unused)
{
    static const char *const row[][2] = {{"", ""},
                                         {"f", "Zg=="},
                                         {"fo", "Zm8="},
                                         {"foo", "Zm9v"},
                                         {"foob", "Zm9vYg=="},
                                         {"fooba", "Zm9vYmE="},
                                         {"foobar", "Zm9vYmFy"}};

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) { /* RFC 4648 s.10 */
        struct td_buf out = TD_BUF_INIT(100);
        uint8_t bytes[16];

        assert_int_equal(td_base64(&out, row[i][0], strlen(row[i][0])), TD_OK);
        assert_string_equal(td_buf_str(&out), row[i][1]);
        assert_int_equal(td_base64_decode(bytes, row[i][1], strlen(row[i][1])), strlen(row[i][0]));
        assert_memory_equal(bytes, row[i][0], strlen(row[i][0]));
        td_buf_release(&out);
    }
}

static void base64_lines_have_76_characters_and_crlf(void **unused)
{
    uint8_t bytes[500], read[500];

    (void)unused;
    for (size_t len = 0; len < sizeof(bytes); len++) {
        struct td_buf out = TD_BUF_INIT(1000);
        char joined[1000];
        size_t chars = 0;

        bytes[len] = (uint8_t)(len * 151 + 7);
        assert_int_equal(td_base64_lines(&out, bytes, len), TD_OK);
        for (size_t i = 0; i < out.len; i++) {
            if (i % 78 < 76 && i + 2 < out.len)
                joined[chars++] = out.data[i];
            else
                assert_int_equal(out.data[i], i == out.len - 2 || i % 78 == 76 ? '\r' : '\n');
        }
        assert_int_equal(td_base64_decode(read, joined, chars), len);
        assert_memory_equal(read, bytes, len);
        td_buf_release(&out);
    }
}

static void base64_decode_takes_one_form_only(void **unused)
{
    static const char *const bad[] = {"A",        "AA",     "AAA",      "A===", "====", "AA=A", "=AAA", "AAAA=",
                                      "AA==AAAA", "Zm9v\n", "Zm9v\r\n", "Zm 9", "Zm-_", "AB==", "AAB=", "AAA\xc3"};
    uint8_t bytes[16];

    (void)unused;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(td_base64_decode(bytes, bad[i], strlen(bad[i])), TD_ESYNTAX);
    assert_int_equal(td_base64_decode(bytes, "AA\0=", 4), TD_ESYNTAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quoted_printable_of_short_texts),
        cmocka_unit_test(random_text_cut_at_random_seams_decodes_to_the_same),
        cmocka_unit_test(pieces_ended_at_seams_join_to_the_same_text),
        cmocka_unit_test(column_says_where_the_line_stands),
        cmocka_unit_test(full_buffer_is_said),
        cmocka_unit_test(base64_of_the_rfc),
        cmocka_unit_test(base64_lines_have_76_characters_and_crlf),
        cmocka_unit_test(base64_decode_takes_one_form_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
