/* Any bytes as a template: it compiles or is refused with a place inside the text; what compiles renders to a mail
 * that assembles, has CRLF line ends only, no NUL, 7-bit lines of at most 998 characters. The first byte chooses
 * whether names are checked. */
#include "fuzz.h"

#include <string.h>

#include "../unit/render_fixture.h"
#include "template_compile.h"

static void check_wire(const struct td_buf *mail)
{
    size_t line = 0;

    for (size_t i = 0; i < mail->len; i++) {
        unsigned char c = (unsigned char)mail->data[i];

        PROMISE(c < 0x80 && c != 0 && (c != '\r' || (i + 1 < mail->len && mail->data[i + 1] == '\n')));
        if (c == '\n') {
            PROMISE(i > 0 && mail->data[i - 1] == '\r' && line <= 999);
            line = 0;
        } else {
            line++;
        }
    }
    PROMISE(mail->len >= 2 && memcmp(mail->data + mail->len - 2, "\r\n", 2) == 0);
}

static void render(const char *text, const struct template *tpl)
{
    struct fixture f;
    int rc;

    fixture_init(&f, "Hej {{name}}", text, *text ? text : "-");
    for (size_t i = 0; i < template_field_count(tpl) && f.rcpt.n_fields < 15; i++)
        if (template_field_reserved(tpl, i) == TEMPLATE_FIELD)
            fixture_field(&f, template_field(tpl, i), i % 2 ? "<å \r>." : " ");
    rc = fixture_render(&f, NULL);
    PROMISE(rc == TD_OK || rc == TD_ETOOBIG || (rc == TD_EINVAL && f.reason));
    if (rc == TD_OK)
        check_wire(&f.mail);
    fixture_release(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const known[] = {"first_name", "a", ""};
    struct template_error err = {0};
    struct template *tpl = NULL;
    char *text;

    if (size == 0)
        return 0;
    if (template_compile((const char *)data + 1, size - 1, data[0] % 2 ? known : NULL, 3, &tpl, &err) != TD_OK) {
        PROMISE(err.code && err.line >= 1 && err.column >= 1 && err.line <= size && err.column <= size &&
              err.sentence[0]);
        return 0;
    }
    for (size_t i = 0; i < template_segment_count(tpl); i++)
        PROMISE(template_segment(tpl, i)->kind == TEMPLATE_VALUE || template_segment(tpl, i)->len > 0);
    text = malloc(size);
    if (text) {
        memcpy(text, data + 1, size - 1);
        text[size - 1] = '\0';
        render(text, tpl);
    }
    free(text);
    template_free(tpl);
    return 0;
}
