/* Running the pieces for one recipient. Values are looked up once, checked once, then copied. */
#include <stdio.h>
#include <string.h>

#include "list_headers.h"
#include "mime_int.h"
#include "recipe.h"
#include "tandem/header.h"
#include "tandem/mimeenc.h"
#include "tandem/token.h"

enum { QP_LINE = 76 };

struct value {
    const char *text; /* NULL: the recipient has no such field */
    size_t len;
};

struct render {
    const struct mime_program *program;
    const Tandem__Internal__V1__ChunkRecipient *rcpt;
    struct recipe *recipe;
    struct value *values; /* by slot */
    struct td_qp qp;      /* where the output stands in a text part */
    char token[TD_TOKEN_LOCAL_MAX];
    const char *reason;
};

static int invalid(struct render *r, const char *reason)
{
    r->reason = reason;
    return TD_EINVAL;
}

/* C0 but tab, CR, LF; DEL; C1. Input is UTF-8 (td_pb_read). Such characters are never in text that people wrote:
 * they are broken data or an attack, and dropping them would send something nobody asked for. */
static bool has_control(const char *text, size_t len)
{
    const unsigned char *at = (const unsigned char *)text;

    for (size_t i = 0; i < len; i++) {
        unsigned char c = at[i];

        if ((c < 0x20 && c != '\t' && c != '\r' && c != '\n') || c == 0x7F ||
            (c == 0xC2 && i + 1 < len && at[i + 1] < 0xA0))
            return true;
    }
    return false;
}

static int reserved_value(struct render *r, enum template_reserved reserved, struct td_arena *arena,
                          struct value *ret)
{
    const struct mime_program *p = r->program;
    struct td_buf *url = &r->recipe->scratch;
    int rc = TD_OK;

    switch (reserved) {
    case TEMPLATE_EMAIL:
        ret->text = r->rcpt->address;
        break;
    case TEMPLATE_NAME:
        ret->text = r->rcpt->name;
        break;
    case TEMPLATE_CAMPAIGN_ID:
        ret->text = p->campaign_id;
        break;
    case TEMPLATE_UNSUBSCRIBE_URL:
        td_buf_clear(url);
        if (*p->unsubscribe_url)
            rc = list_url_add(url, p->unsubscribe_url, r->token);
        else if (*p->unsubscribe_mailto)
            rc = list_mailto_add(url, p->unsubscribe_mailto, r->token);
        ret->text = rc == TD_OK ? td_arena_strndup(arena, td_buf_str(url), url->len) : "";
        if (!ret->text)
            rc = TD_ENOMEM;
        break;
    case TEMPLATE_FIELD:
        rc = TD_EBUG;
        break;
    }
    ret->len = rc == TD_OK ? strlen(ret->text) : 0;
    return rc;
}

static int find_values(struct render *r, struct td_arena *arena)
{
    const struct mime_program *p = r->program;

    r->values = td_arena_zalloc(arena, (p->slot_count + 1) * sizeof(*r->values));
    if (!r->values)
        return TD_ENOMEM;
    for (size_t i = 0; i < r->rcpt->n_fields; i++) {
        size_t slot = mime_slot_find(p, r->rcpt->fields[i]->key);

        if (slot != SIZE_MAX)
            r->values[slot] = (struct value){r->rcpt->fields[i]->value, strlen(r->rcpt->fields[i]->value)};
    }
    for (size_t i = 0; i < p->slot_count; i++) {
        int rc = p->slots[i].reserved == TEMPLATE_FIELD
                     ? TD_OK
                     : reserved_value(r, p->slots[i].reserved, arena, &r->values[i]);

        if (rc < 0)
            return rc;
        if (r->values[i].text && has_control(r->values[i].text, r->values[i].len))
            return invalid(r, "field.control_character");
    }
    return TD_OK;
}

/* The value of a slot, or the default when it is missing or empty. */
static int value_or_default(struct render *r, size_t slot, const char *fallback, size_t fallback_len,
                            struct value *ret)
{
    *ret = r->values[slot];
    if (ret->len == 0 && fallback)
        *ret = (struct value){fallback, fallback_len};
    return ret->text ? TD_OK : invalid(r, "field.missing");
}

static int add_qp(struct render *r, const char *text, size_t len)
{
    int rc = td_qp_add(&r->qp, &r->recipe->own, text, len);

    return rc < 0 ? rc : td_qp_end(&r->qp, &r->recipe->own);
}

static int escape_html(struct td_buf *out, const char *text, size_t len)
{
    size_t from = 0;
    int rc = TD_OK;

    td_buf_clear(out);
    for (size_t i = 0; i < len && rc == TD_OK; i++) {
        const char *entity = text[i] == '&'    ? "&amp;"
                             : text[i] == '<'  ? "&lt;"
                             : text[i] == '>'  ? "&gt;"
                             : text[i] == '"'  ? "&quot;"
                             : text[i] == '\'' ? "&#39;"
                                               : NULL;

        if (!entity)
            continue;
        rc = td_buf_add(out, text + from, i - from);
        if (rc == TD_OK)
            rc = td_buf_adds(out, entity);
        from = i + 1;
    }
    return rc < 0 ? rc : td_buf_add(out, text + from, len - from);
}

static int add_value(struct render *r, const struct mime_piece *piece)
{
    struct value value = {NULL, 0};
    int rc = value_or_default(r, piece->slot, piece->fallback, piece->fallback_len, &value);

    if (rc < 0)
        return rc;
    if (piece->kind == MIME_TEXT)
        return add_qp(r, value.text, value.len);
    rc = escape_html(&r->recipe->scratch, value.text, value.len);
    return rc < 0 ? rc : add_qp(r, td_buf_str(&r->recipe->scratch), r->recipe->scratch.len);
}

/* A literal was encoded as if it began a line; break softly when its first line does not fit here. When it holds
 * no line end, what follows may need one more column for its own soft break. */
static int add_literal(struct render *r, const struct mime_piece *piece)
{
    unsigned room = piece->breaks ? QP_LINE : QP_LINE - 1;
    int rc = TD_OK;

    if (r->qp.column + piece->first_line > room) {
        rc = td_buf_adds(&r->recipe->own, "=\r\n");
        r->qp.column = 0;
    }
    r->qp.column = piece->breaks ? piece->end_column : r->qp.column + piece->first_line;
    return rc < 0 ? rc : recipe_static(r->recipe, piece->offset, piece->len);
}

static int header_problem(struct render *r, int rc)
{
    return rc == TD_ETOOBIG ? invalid(r, "header.too_large") : invalid(r, "field.control_character");
}

static int add_to(struct render *r)
{
    const char *name = r->rcpt->name;
    int rc = td_header_value_check(name, strlen(name), MIME_HEADER_MAX, NULL);

    if (rc < 0)
        return header_problem(r, rc);
    return td_header_add_mailbox(&r->recipe->own, "To", name, r->rcpt->address);
}

static int add_subject(struct render *r)
{
    const struct template *tpl = r->program->subject;
    struct td_buf *text = &r->recipe->scratch;
    int rc = TD_OK;

    td_buf_clear(text);
    for (size_t i = 0; i < template_segment_count(tpl) && rc == TD_OK; i++) {
        const struct template_segment *segment = template_segment(tpl, i);
        struct value value = {segment->text, segment->len};

        if (segment->kind == TEMPLATE_VALUE)
            rc = value_or_default(r, r->program->subject_slots[segment->field], segment->text, segment->len,
                                  &value);
        if (rc == TD_OK)
            rc = td_buf_add(text, value.text, value.len);
    }
    if (rc < 0)
        return rc;
    rc = td_header_value_check(td_buf_str(text), text->len, MIME_HEADER_MAX, NULL);
    if (rc < 0)
        return header_problem(r, rc);
    return td_header_add_text(&r->recipe->own, "Subject", td_buf_str(text), text->len);
}

static int run_piece(struct render *r, const struct mime_piece *piece)
{
    const struct mime_program *p = r->program;

    switch (piece->kind) {
    case MIME_STATIC:
        r->qp.column = 0; /* a part's header ends with an empty line; after a part the column does not matter */
        return recipe_static(r->recipe, piece->offset, piece->len);
    case MIME_QP:
        return add_literal(r, piece);
    case MIME_HTML:
    case MIME_TEXT:
        return add_value(r, piece);
    case MIME_TO:
        return add_to(r);
    case MIME_SUBJECT:
        return add_subject(r);
    case MIME_MESSAGE_ID:
        return td_buf_printf(&r->recipe->own, "Message-ID: <%s.%u@%s>\r\n", p->campaign_id, r->rcpt->index,
                             p->message_id_domain);
    case MIME_UNSUBSCRIBE:
        return list_unsubscribe_add(&r->recipe->own, p->unsubscribe_mailto, p->unsubscribe_url, r->token);
    }
    return TD_EBUG;
}

int mime_render(const struct mime_program *program, const Tandem__Internal__V1__ChunkRecipient *rcpt,
                struct td_arena *arena, struct recipe *recipe, const char **ret_reason)
{
    struct render r = {.program = program, .rcpt = rcpt, .recipe = recipe};
    int rc = TD_OK;

    if (td_token_write(r.token, TD_TOKEN_UNSUBSCRIBE, program->token_key, program->token_key_len,
                       program->campaign_id, rcpt->index, "") == 0)
        return TD_EBUG;
    rc = find_values(&r, arena);
    for (size_t i = 0; i < program->piece_count && rc == TD_OK; i++)
        rc = run_piece(&r, &program->pieces[i]);
    if (rc == TD_ETOOBIG)
        r.reason = "message.too_large";
    if (rc == TD_EINVAL || rc == TD_ETOOBIG)
        *ret_reason = r.reason;
    return rc;
}

char *mime_message_id(const struct mime_program *program, uint32_t index, struct td_arena *arena)
{
    size_t size = strlen(program->campaign_id) + strlen(program->message_id_domain) + 13; /* . 4294967295 @ NUL */
    char *id = td_arena_alloc(arena, size);

    if (id)
        snprintf(id, size, "%s.%u@%s", program->campaign_id, index, program->message_id_domain);
    return id;
}
