/* render_fixture.h - a campaign and a recipient to render, for tests of rendering_core. Included once a program. */
#ifndef TESTS_RENDER_FIXTURE_H
#define TESTS_RENDER_FIXTURE_H

#include <stdlib.h>
#include <string.h>

#include "mime_compose.h"
#include "recipe.h"
#include "tandem/arena.h"

#define FIXTURE_KEY "0123456789abcdef0123456789abcdef"

struct fixture {
    Tandem__Mail__V1__Campaign campaign;
    Tandem__Mail__V1__Mailbox from, reply_to;
    Tandem__Mail__V1__Unsubscribe unsubscribe;
    Tandem__Internal__V1__ChunkRecipient rcpt;
    Tandem__Internal__V1__ChunkRecipient__FieldsEntry field[16], *fields[16];
    struct mime_source source;
    struct recipe recipe;
    struct td_arena *arena;
    struct mime_program *program;
    Tandem__Internal__V1__OutboundMessage *msg; /* of the last render */
    struct td_buf mail;                         /* put together again */
    const char *reason;
};

static inline void fixture_field(struct fixture *f, const char *name, const char *value)
{
    size_t i = f->rcpt.n_fields++;

    tandem__internal__v1__chunk_recipient__fields_entry__init(&f->field[i]);
    f->field[i].key = (char *)(uintptr_t)name;
    f->field[i].value = (char *)(uintptr_t)value;
    f->fields[i] = &f->field[i];
}

static inline void fixture_init(struct fixture *f, const char *subject, const char *text, const char *html)
{
    *f = (struct fixture){.mail = TD_BUF_INIT(RECIPE_MESSAGE_MAX)};
    tandem__mail__v1__campaign__init(&f->campaign);
    tandem__mail__v1__mailbox__init(&f->from);
    tandem__mail__v1__mailbox__init(&f->reply_to);
    tandem__mail__v1__unsubscribe__init(&f->unsubscribe);
    tandem__internal__v1__chunk_recipient__init(&f->rcpt);
    f->from.address = (char *)(uintptr_t)"nyheter@news.example.se";
    f->from.name = (char *)(uintptr_t)"Nyhetsbrevet";
    f->campaign.from = &f->from;
    f->campaign.subject_template = (char *)(uintptr_t)subject;
    f->campaign.text_template = (char *)(uintptr_t)text;
    f->campaign.html_template = (char *)(uintptr_t)html;
    f->rcpt.index = 7;
    f->rcpt.address = (char *)(uintptr_t)"eva@example.org";
    f->rcpt.name = (char *)(uintptr_t)"Eva";
    f->rcpt.fields = f->fields;
    f->source = (struct mime_source){.campaign_id = "week-48",
                                     .campaign = &f->campaign,
                                     .date_unix_ms = 1764000000000,
                                     .message_id_domain = "news.example.se",
                                     .token_key = FIXTURE_KEY,
                                     .token_key_len = strlen(FIXTURE_KEY)};
    f->arena = td_arena_new((size_t)64 << 20);
    recipe_init(&f->recipe);
}

/* Compile (once) and render; the whole mail is in f->mail afterwards. */
static inline int fixture_render(struct fixture *f, struct td_err *err)
{
    size_t len;
    const char *blob;
    int rc = f->program ? TD_OK : mime_compile(&f->source, &f->program, err);

    f->reason = NULL;
    if (rc < 0)
        return rc;
    td_arena_clear(f->arena);
    rc = recipe_render(&f->recipe, f->program, &f->rcpt, f->arena, &f->msg, &f->reason);
    if (rc < 0)
        return rc;
    blob = mime_static(f->program, &len);
    return recipe_assemble(blob, len, f->msg, &f->mail, err);
}

static inline void fixture_release(struct fixture *f)
{
    mime_free(f->program);
    recipe_release(&f->recipe);
    td_arena_free(f->arena);
    td_buf_release(&f->mail);
}

#endif /* TESTS_RENDER_FIXTURE_H */
