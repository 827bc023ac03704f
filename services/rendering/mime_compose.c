/* Compiling: header, then body parts in depth-first order, each step appending to the blob. A value or a
 * recipient's header field closes the static range written so far and adds a piece. The first failure sticks in
 * `rc`. */
#include "mime_int.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "list_headers.h"
#include "grow.h"
#include "tandem/addr.h"
#include "tandem/header.h"
#include "tandem/mimeenc.h"

struct compose {
    struct mime_program *program;
    const struct mime_source *source;
    const Tandem__Mail__V1__Campaign *campaign;
    struct td_buf *blob;
    size_t mark; /* where the static range begins that is still open */
    int rc;
    struct td_err *err;
    char boundary[24]; /* hash of the campaign, in hex */
    bool at_line_start;
};

static void fail(struct compose *c, enum td_code code, const char *sentence)
{
    if (c->rc == TD_OK)
        c->rc = td_fail(c->err, code, "%s", sentence);
}

/* What a td_buf or td_header call returned. */
static void done(struct compose *c, int rc)
{
    if (rc < 0)
        fail(c, (enum td_code)rc,
             rc == TD_ETOOBIG ? "the mail would be over 40 MB" : "a static part was not written");
}

static void put(struct compose *c, const char *text)
{
    if (c->rc == TD_OK)
        done(c, td_buf_adds(c->blob, text));
}

static void add_piece(struct compose *c, struct mime_piece piece)
{
    struct mime_program *p = c->program;
    struct mime_piece *pieces;

    if (c->rc < 0)
        return;
    pieces = grow(p->pieces, &p->piece_cap, p->piece_count, sizeof(*pieces));
    if (!pieces) {
        fail(c, TD_ENOMEM, "out of memory");
        return;
    }
    p->pieces = pieces;
    p->pieces[p->piece_count++] = piece;
}

static void close_static(struct compose *c)
{
    if (c->blob->len > c->mark)
        add_piece(c, (struct mime_piece){.kind = MIME_STATIC,
                                         .offset = (uint32_t)c->mark,
                                         .len = (uint32_t)(c->blob->len - c->mark)});
    c->mark = c->blob->len;
}

static void put_own(struct compose *c, enum mime_kind kind)
{
    close_static(c);
    add_piece(c, (struct mime_piece){.kind = kind});
}

/* ---- slots ---- */

size_t mime_slot_find(const struct mime_program *program, const char *name)
{
    size_t low = 0, high = program->slot_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(program->slots[middle].name, name);

        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return SIZE_MAX;
}

static void add_slots(struct compose *c, const struct template *tpl)
{
    struct mime_program *p = c->program;

    for (size_t i = 0; tpl && i < template_field_count(tpl); i++) {
        struct mime_slot *slots = grow(p->slots, &p->slot_cap, p->slot_count, sizeof(*slots));

        if (!slots) {
            fail(c, TD_ENOMEM, "out of memory");
            return;
        }
        p->slots = slots;
        p->slots[p->slot_count++] = (struct mime_slot){template_field(tpl, i), template_field_reserved(tpl, i)};
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct mime_slot *)a)->name, ((const struct mime_slot *)b)->name);
}

/* Fields of all three templates, each once, ascending. */
static void collect_slots(struct compose *c)
{
    struct mime_program *p = c->program;
    size_t kept = 0;

    add_slots(c, p->subject);
    add_slots(c, p->text);
    add_slots(c, p->html);
    if (c->rc < 0 || p->slot_count == 0)
        return;
    qsort(p->slots, p->slot_count, sizeof(*p->slots), by_name);
    for (size_t i = 0; i < p->slot_count; i++)
        if (i == 0 || strcmp(p->slots[i].name, p->slots[kept - 1].name) != 0)
            p->slots[kept++] = p->slots[i];
    p->slot_count = kept;
}

/* ---- header ---- */

static void put_date(struct compose *c)
{
    static const char day[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char month[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t at = (time_t)(c->source->date_unix_ms / 1000);
    struct tm tm;

    if (c->source->date_unix_ms < 0 || !gmtime_r(&at, &tm) || tm.tm_year > 9999 - 1900) {
        fail(c, TD_EINVAL, "the time of submission is not a date");
        return;
    }
    /* RFC 5322 s.3.3. strftime would follow the locale. */
    if (c->rc == TD_OK)
        done(c, td_buf_printf(c->blob, "Date: %s, %02d %s %04d %02d:%02d:%02d +0000\r\n", day[tm.tm_wday],
                              tm.tm_mday, month[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec));
}

static void put_mailbox(struct compose *c, const char *name, const Tandem__Mail__V1__Mailbox *box)
{
    char address[TD_ADDR_MAX];

    if (c->rc < 0)
        return;
    c->rc = td_addr_check(box->address, strlen(box->address), address, c->err);
    if (c->rc == TD_OK)
        c->rc = td_header_value_check(box->name, strlen(box->name), MIME_HEADER_MAX, c->err);
    if (c->rc == TD_OK)
        done(c, td_header_add_mailbox(c->blob, name, box->name, address));
}

static void put_text_field(struct compose *c, const char *name, const char *value)
{
    if (c->rc == TD_OK)
        c->rc = td_header_value_check(value, strlen(value), MIME_HEADER_MAX, c->err);
    if (c->rc == TD_OK)
        done(c, td_header_add_text(c->blob, name, value, strlen(value)));
}

/* Without values it is the same for all; with values the whole field is the recipient's, since how it is cut into
 * encoded words depends on all of it. */
static void put_subject(struct compose *c)
{
    const struct template *tpl = c->program->subject;
    char *text;

    if (template_field_count(tpl) > 0) {
        put_own(c, MIME_SUBJECT);
        return;
    }
    if (template_segment_count(tpl) == 0) {
        put_text_field(c, "Subject", "");
        return;
    }
    text = strndup(template_segment(tpl, 0)->text, template_segment(tpl, 0)->len);
    if (!text)
        fail(c, TD_ENOMEM, "out of memory");
    else
        put_text_field(c, "Subject", text);
    free(text);
}

static void put_language(struct compose *c)
{
    const char *language = c->campaign->language;

    if (!*language)
        return;
    if (strlen(language) > 35 ||
        strspn(language, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != strlen(language)) {
        fail(c, TD_EINVAL, "the language is not a BCP 47 tag");
        return;
    }
    put(c, "Content-Language: ");
    put(c, language);
    put(c, "\r\n");
}

static void put_extra_fields(struct compose *c)
{
    for (size_t i = 0; i < c->campaign->n_headers && c->rc == TD_OK; i++) {
        const Tandem__Mail__V1__HeaderField *field = c->campaign->headers[i];

        if (!td_header_name_allowed(field->name))
            fail(c, TD_EINVAL, "an extra header field has a name that a campaign may not set");
        put_text_field(c, field->name, field->value);
    }
}

static void put_list_fields(struct compose *c)
{
    const struct mime_program *p = c->program;
    const Tandem__Mail__V1__Unsubscribe *own = c->campaign->unsubscribe;
    bool own_url = own && *own->https_url;

    if (*c->campaign->list_id) {
        if (!list_id_valid(c->campaign->list_id))
            fail(c, TD_EINVAL, "the list id is not a domain name");
        put(c, "List-Id: <");
        put(c, c->campaign->list_id);
        put(c, ">\r\n");
    }
    if (!*p->unsubscribe_mailto && !*p->unsubscribe_url)
        return;
    put_own(c, MIME_UNSUBSCRIBE);
    /* The operator's URL is answered by our own front, which takes one-click requests. */
    if (*p->unsubscribe_url && (!own_url || own->one_click))
        put(c, "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n");
}

static void put_header(struct compose *c)
{
    put_date(c);
    if (!c->campaign->from)
        fail(c, TD_EINVAL, "the campaign has no From");
    else
        put_mailbox(c, "From", c->campaign->from);
    put_own(c, MIME_TO);
    if (c->campaign->reply_to && *c->campaign->reply_to->address)
        put_mailbox(c, "Reply-To", c->campaign->reply_to);
    put_subject(c);
    put_own(c, MIME_MESSAGE_ID);
    put(c, "MIME-Version: 1.0\r\n");
    put_list_fields(c);
    put_language(c);
    put_extra_fields(c);
}

/* ---- body ---- */

static void put_boundary(struct compose *c, int level, const char *after)
{
    if (!c->at_line_start)
        put(c, "\r\n");
    c->at_line_start = true;
    if (c->rc == TD_OK)
        done(c, td_buf_printf(c->blob, "--=_td_%s_%d%s\r\n", c->boundary, level, after));
}

static void open_multipart(struct compose *c, int level, const char *subtype)
{
    if (c->rc == TD_OK)
        done(c, td_buf_printf(c->blob, "Content-Type: multipart/%s;\r\n boundary=\"=_td_%s_%d\"\r\n\r\n", subtype,
                              c->boundary, level));
    c->at_line_start = true;
    put_boundary(c, level, "");
}

static void put_literal(struct compose *c, const char *text, size_t len)
{
    struct mime_piece piece = {.kind = MIME_QP};
    struct td_qp qp = {0};
    const char *first_end;

    close_static(c);
    if (c->rc < 0)
        return;
    done(c, td_qp_add(&qp, c->blob, text, len));
    if (c->rc == TD_OK)
        done(c, td_qp_end(&qp, c->blob));
    if (c->rc < 0)
        return;
    piece.offset = (uint32_t)c->mark;
    piece.len = (uint32_t)(c->blob->len - c->mark);
    first_end = memmem(c->blob->data + c->mark, piece.len, "\r\n", 2);
    piece.breaks = first_end != NULL;
    piece.first_line = first_end ? (unsigned)(first_end - (c->blob->data + c->mark)) : piece.len;
    piece.end_column = qp.column;
    add_piece(c, piece);
    c->mark = c->blob->len;
}

/* Does the text surely end with a line end, whatever the recipient's values are? */
static bool ends_line(const struct template *tpl)
{
    size_t count = template_segment_count(tpl);
    const struct template_segment *last = count ? template_segment(tpl, count - 1) : NULL;

    return last && last->kind == TEMPLATE_LITERAL &&
           (last->text[last->len - 1] == '\n' || last->text[last->len - 1] == '\r');
}

static void put_body(struct compose *c, const struct template *tpl, const char *subtype, enum mime_kind value_kind)
{
    put(c, "Content-Type: text/");
    put(c, subtype);
    put(c, "; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n");
    for (size_t i = 0; i < template_segment_count(tpl); i++) {
        const struct template_segment *segment = template_segment(tpl, i);

        if (segment->kind == TEMPLATE_LITERAL) {
            put_literal(c, segment->text, segment->len);
            continue;
        }
        close_static(c);
        add_piece(c, (struct mime_piece){.kind = value_kind,
                                         .slot = mime_slot_find(c->program, template_field(tpl, segment->field)),
                                         .fallback = segment->text,
                                         .fallback_len = segment->len});
    }
    c->at_line_start = false;
}

static bool is_inline(const struct compose *c, size_t i)
{
    return c->program->html && *c->campaign->attachments[i]->content_id;
}

static bool any_file(const struct compose *c, bool inline_ones)
{
    for (size_t i = 0; i < c->campaign->n_attachments; i++)
        if (is_inline(c, i) == inline_ones)
            return true;
    return false;
}

/* token "/" token (RFC 2045 s.5.1), no parameters: what a media type may be here. */
static bool media_type_valid(const char *type)
{
    static const char token[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`{|}~";
    size_t main_len = strspn(type, token);
    size_t sub_len = type[main_len] == '/' ? strspn(type + main_len + 1, token) : 0;

    return main_len > 0 && sub_len > 0 && type[main_len + 1 + sub_len] == '\0' && main_len + sub_len < 128 &&
           strncasecmp(type, "multipart/", 10) != 0 && strncasecmp(type, "message/", 8) != 0;
}

static bool content_id_valid(const char *id)
{
    size_t len = strlen(id);

    for (size_t i = 0; i < len; i++)
        if ((unsigned char)id[i] <= 0x20 || (unsigned char)id[i] >= 0x7F || strchr("<>\"\\()", id[i]))
            return false;
    return len > 0 && len <= 200;
}

static void put_file(struct compose *c, size_t i)
{
    const Tandem__Mail__V1__Attachment *file = c->campaign->attachments[i];

    if (!media_type_valid(file->content_type)) {
        fail(c, TD_EINVAL, "an attachment's content type is not a media type that can be attached");
        return;
    }
    if (*file->content_id && !content_id_valid(file->content_id)) {
        fail(c, TD_EINVAL, "an inline image's content id has a character that is not allowed");
        return;
    }
    if (c->rc == TD_OK)
        c->rc = td_header_value_check(file->filename, strlen(file->filename), MIME_HEADER_MAX, c->err);
    put(c, "Content-Type: ");
    put(c, file->content_type);
    put(c, "\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: ");
    put(c, is_inline(c, i) ? "inline" : "attachment");
    if (c->rc == TD_OK && *file->filename)
        done(c, td_header_add_param(c->blob, "filename", file->filename));
    if (*file->content_id) {
        put(c, "\r\nContent-ID: <");
        put(c, file->content_id);
        put(c, ">");
    }
    put(c, "\r\n\r\n");
    if (c->rc == TD_OK)
        done(c, td_base64_lines(c->blob, c->source->files[i].data, c->source->files[i].len));
    c->at_line_start = true;
}

static void put_files(struct compose *c, int level, bool inline_ones)
{
    for (size_t i = 0; i < c->campaign->n_attachments; i++) {
        if (is_inline(c, i) != inline_ones)
            continue;
        put_boundary(c, level, "");
        put_file(c, i);
    }
    put_boundary(c, level, "--");
}

enum { LEVEL_MIXED = 1, LEVEL_RELATED, LEVEL_ALTERNATIVE };

static void put_texts(struct compose *c)
{
    const struct mime_program *p = c->program;
    bool both = p->text && p->html;

    if (both)
        open_multipart(c, LEVEL_ALTERNATIVE, "alternative");
    if (p->text)
        put_body(c, p->text, "plain", MIME_TEXT);
    if (both)
        put_boundary(c, LEVEL_ALTERNATIVE, "");
    if (p->html)
        put_body(c, p->html, "html", MIME_HTML);
    if (both)
        put_boundary(c, LEVEL_ALTERNATIVE, "--");
}

static void put_parts(struct compose *c)
{
    const struct mime_program *p = c->program;
    bool mixed = any_file(c, false), related = any_file(c, true);

    if (mixed)
        open_multipart(c, LEVEL_MIXED, "mixed");
    /* RFC 2387 wants the root's type. */
    if (related)
        open_multipart(c, LEVEL_RELATED,
                       p->text ? "related; type=\"multipart/alternative\"" : "related; type=\"text/html\"");
    put_texts(c);
    if (related)
        put_files(c, LEVEL_RELATED, true);
    if (mixed)
        put_files(c, LEVEL_MIXED, false);
    /* A mail that is one text must end with a line end, too: SMTP has no other way to end it. */
    if (!c->at_line_start && !ends_line(p->text ? p->text : p->html))
        put(c, "\r\n");
    close_static(c);
}

/* ---- compile ---- */

static void compile_template(struct compose *c, const char *text, const char *what, struct template **ret)
{
    struct template_error err;
    int rc = c->rc < 0 ? c->rc : template_compile(text, strlen(text), NULL, 0, ret, &err);

    if (rc < 0 && c->rc == TD_OK)
        c->rc = td_fail(c->err, (enum td_code)rc, "%s: %s", what, err.sentence);
}

static void compile_templates(struct compose *c)
{
    const Tandem__Mail__V1__Campaign *campaign = c->campaign;
    struct mime_program *p = c->program;

    compile_template(c, campaign->subject_template, "subject_template", &p->subject);
    if (*campaign->text_template)
        compile_template(c, campaign->text_template, "text_template", &p->text);
    if (*campaign->html_template)
        compile_template(c, campaign->html_template, "html_template", &p->html);
    if (!*campaign->text_template && !*campaign->html_template)
        fail(c, TD_EINVAL, "the campaign has neither text nor HTML");
    if (c->rc < 0)
        return;
    collect_slots(c);
    p->subject_slots = calloc(template_field_count(p->subject) + 1, sizeof(*p->subject_slots));
    if (!p->subject_slots) {
        fail(c, TD_ENOMEM, "out of memory");
        return;
    }
    for (size_t i = 0; i < template_field_count(p->subject); i++)
        p->subject_slots[i] = mime_slot_find(p, template_field(p->subject, i));
}

/* Which way out the mails name: the campaign's own; for a bulk campaign without one the operator's. */
static void choose_unsubscribe(struct compose *c)
{
    const Tandem__Mail__V1__Unsubscribe *own = c->campaign->unsubscribe;
    const char *mailto = own ? own->mailto : "", *url = own ? own->https_url : "";
    char address[TD_ADDR_MAX] = "";

    if (!*mailto && !*url && c->source->unsubscribe_https_url &&
        c->campaign->class_ != TANDEM__MAIL__V1__CAMPAIGN_CLASS__CAMPAIGN_CLASS_EXPRESS)
        url = c->source->unsubscribe_https_url;
    if (*mailto && c->rc == TD_OK)
        c->rc = td_addr_check(mailto, strlen(mailto), address, c->err);
    if (*url && c->rc == TD_OK)
        c->rc = list_url_check(url, c->err);
    c->program->unsubscribe_mailto = strdup(address);
    c->program->unsubscribe_url = strdup(url);
}

static int copy_names(struct compose *c)
{
    const struct mime_source *source = c->source;
    struct mime_program *p = c->program;

    if (!td_campaign_id_valid(source->campaign_id))
        return td_fail(c->err, TD_EINVAL, "the campaign id is not valid");
    snprintf(p->campaign_id, sizeof(p->campaign_id), "%s", source->campaign_id);
    p->message_id_domain = strdup(source->message_id_domain);
    p->token_key = malloc(source->token_key_len + 1);
    choose_unsubscribe(c);
    if (!p->message_id_domain || !p->token_key || !p->unsubscribe_mailto || !p->unsubscribe_url)
        return td_fail(c->err, TD_ENOMEM, "out of memory");
    memcpy(p->token_key, source->token_key, source->token_key_len);
    p->token_key_len = source->token_key_len;
    return c->rc;
}

/* 20 hex digits that differ from campaign to campaign. */
static void make_boundary(struct compose *c)
{
    uint8_t hash[32];

    if (EVP_Digest(c->program->campaign_id, strlen(c->program->campaign_id), hash, NULL, EVP_sha256(), NULL) != 1)
        fail(c, TD_ENOMEM, "SHA-256 failed");
    else
        td_hex(c->boundary, hash, 10);
}

int mime_compile(const struct mime_source *source, struct mime_program **ret, struct td_err *reterr)
{
    struct mime_program *program = calloc(1, sizeof(*program));
    struct compose c = {.program = program, .source = source, .campaign = source->campaign, .err = reterr};

    if (!program)
        return td_fail(reterr, TD_ENOMEM, "out of memory");
    td_buf_init(&program->blob, MIME_BLOB_MAX);
    c.blob = &program->blob;
    c.rc = copy_names(&c);
    if (c.rc == TD_OK)
        make_boundary(&c);
    compile_templates(&c);
    if (c.rc == TD_OK)
        put_header(&c);
    if (c.rc == TD_OK)
        put_parts(&c);
    if (c.rc == TD_OK &&
        EVP_Digest(program->blob.data, program->blob.len, program->blob_sha256, NULL, EVP_sha256(), NULL) != 1)
        fail(&c, TD_ENOMEM, "SHA-256 failed");
    if (c.rc < 0) {
        mime_free(program);
        return c.rc;
    }
    *ret = program;
    return TD_OK;
}
