#include "submit_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "content.h"
#include "recipe.h"
#include "tandem/clock.h"
#include "tandem/id.h"
#include "tandem/pb.h"
#include "validate.h"

#define ROW_ARENA_BYTES (4 << 20)
#define FAULTS_SHOWN 50

struct checked {
    struct td_arena *arena; /* holds campaign */
    Campaign *campaign;     /* a copy with defaults filled in, addresses checked */
    struct needed_fields needed;
    int64_t now_ms;
};

static void checked_release(struct checked *checked)
{
    needed_fields_release(&checked->needed);
    td_arena_free(checked->arena);
}

static void print_refusals(const struct refusals *refusals)
{
    ctl_say("refused");
    for (size_t i = 0; i < refusals->kept; i++)
        fprintf(stderr, "  %s (%s): %s\n", refusals->item[i].code, refusals->item[i].field,
                refusals->item[i].sentence);
}

/* Through the wire and back, since ingestion judges what it reads and changes it while it does. */
static int check_campaign(const struct submit_options *options, const Campaign *campaign, struct checked *ret)
{
    struct refusals refusals = {.total = 0};
    ProtobufCBinaryData *content;
    ProtobufCMessage *message = NULL;
    struct td_err err;
    size_t len;
    void *packed = td_pb_write(&campaign->base, &len);
    int rc;

    *ret = (struct checked){.now_ms = td_wall_ms()};
    ret->arena = packed ? td_arena_new(16 * len + (1 << 20)) : NULL;
    rc = ret->arena ? td_pb_read(&tandem__mail__v1__campaign__descriptor, packed, len, ret->arena, &message, &err)
                    : td_fail(&err, TD_ENOMEM, "no memory for the campaign");
    free(packed);
    if (rc < 0)
        return ctl_error(&err);
    ret->campaign = (Campaign *)message;
    content = content_detach(ret->campaign, ret->arena);
    if (!content || content_defaults(ret->campaign, &options->ctl->settings, ret->now_ms, ret->arena) < 0 ||
        validate_campaign(ret->campaign, content, &options->ctl->settings, ret->now_ms, ret->arena, &refusals,
                          &ret->needed) < 0) {
        ctl_say("no memory for the campaign");
        return CTL_FAILED;
    }
    if (refusals.total == 0)
        return CTL_OK;
    print_refusals(&refusals);
    return CTL_REFUSED;
}

int submit_dry_run(struct submit_options *options, const char *id, const Tandem__Mail__V1__Campaign *campaign,
                   struct recipients *recipients)
{
    struct td_arena *arena = td_arena_new(ROW_ARENA_BYTES);
    struct checked checked = {.arena = NULL};
    struct recipient_fault fault;
    uint64_t good = 0, bad = 0;
    char address[TD_ADDR_MAX];
    struct td_err err = {TD_ENOMEM, "no memory for recipients"};
    Recipient *recipient;
    size_t line;
    int rc = arena ? recipients_rewind(recipients, &err) : TD_ENOMEM;
    int code = rc < 0 ? ctl_error(&err) : check_campaign(options, campaign, &checked);

    while (code == CTL_OK && (rc = recipients_next(recipients, arena, &recipient, &line, &err)) == 1) {
        if (validate_recipient(recipient, &checked.needed, address, &fault))
            good++;
        else if (bad++ < FAULTS_SHOWN)
            fprintf(stderr, "  line %zu: %s (%s): %s\n", line, fault.code, fault.field, fault.sentence);
        td_arena_clear(arena);
    }
    if (code == CTL_OK && rc < 0)
        code = ctl_error(&err);
    if (code == CTL_OK) {
        if (bad > FAULTS_SHOWN)
            fprintf(stderr, "  and %" PRIu64 " more\n", bad - FAULTS_SHOWN);
        if (options->ctl->json)
            printf("{\"campaign_id\":\"%s\",\"recipients\":%" PRIu64 ",\"invalid\":%" PRIu64
                   ",\"dry_run\":true}\n",
                   id, good + bad, bad);
        else
            ctl_note(options->ctl,
                     "campaign %s would be taken: %" PRIu64 " recipients, %" PRIu64 " of them invalid", id,
                     good + bad, bad);
        code = bad > 0 ? CTL_PARTLY : CTL_OK;
    }
    checked_release(&checked);
    td_arena_free(arena);
    return code;
}

/* ---- preview ---- */

static int compile(const struct submit_options *options, const char *id, const struct checked *checked,
                   struct mime_program **ret)
{
    const struct td_settings *settings = &options->ctl->settings;
    struct mime_file files[SUBMIT_FILES_MAX];
    struct mime_source source = {.campaign_id = id,
                                 .campaign = checked->campaign,
                                 .files = files,
                                 .date_unix_ms = checked->now_ms,
                                 .message_id_domain = settings->message_id_domain,
                                 .unsubscribe_https_url = settings->unsubscribe_https_url,
                                 .token_key = settings->keys_token,
                                 .token_key_len = strlen(settings->keys_token)};
    struct td_err err;

    for (size_t i = 0; i < options->file_count; i++)
        files[i] = (struct mime_file){options->file[i].data, options->file[i].len};
    return mime_compile(&source, ret, &err) < 0 ? ctl_error(&err) : CTL_OK;
}

static int chunk_recipient(const struct submit_options *options, const Recipient *from, const char *address,
                           uint32_t index, struct td_arena *arena, uint8_t hash[TD_HASH_BYTES],
                           ChunkRecipient *ret)
{
    ChunkFieldsEntry *entry = td_arena_alloc(arena, (from->n_fields + 1) * sizeof(*entry));

    tandem__internal__v1__chunk_recipient__init(ret);
    ret->fields = td_arena_alloc(arena, (from->n_fields + 1) * sizeof(*ret->fields));
    if (!entry || !ret->fields)
        return TD_ENOMEM;
    td_address_hash(options->ctl->settings.keys_address, strlen(options->ctl->settings.keys_address), address,
                    hash);
    ret->index = index;
    ret->address = (char *)address;
    ret->address_hash = (ProtobufCBinaryData){TD_HASH_BYTES, hash};
    ret->name = from->name;
    for (size_t i = 0; i < from->n_fields; i++) {
        tandem__internal__v1__chunk_recipient__fields_entry__init(&entry[i]);
        entry[i].key = from->fields[i]->key;
        entry[i].value = from->fields[i]->value;
        ret->fields[i] = &entry[i];
    }
    ret->n_fields = from->n_fields;
    return TD_OK;
}

static int write_mail(struct recipe *recipe, const struct mime_program *program, const ChunkRecipient *recipient,
                      struct td_arena *arena)
{
    Tandem__Internal__V1__OutboundMessage *message;
    struct td_buf out = TD_BUF_INIT(RECIPE_MESSAGE_MAX);
    const char *reason = "", *blob;
    size_t blob_len;
    struct td_err err;
    int rc = recipe_render(recipe, program, recipient, arena, &message, &reason);

    if (rc < 0) {
        ctl_say("recipient %" PRIu32 " cannot be rendered: %s", recipient->index, reason ? reason : "no memory");
        return CTL_FAILED;
    }
    blob = mime_static(program, &blob_len);
    rc = recipe_assemble(blob, blob_len, message, &out, &err);
    if (rc < 0) {
        td_buf_release(&out);
        return ctl_error(&err);
    }
    fwrite(out.data, 1, out.len, stdout);
    td_buf_release(&out);
    return CTL_OK;
}

int submit_preview(struct submit_options *options, const char *id, const Tandem__Mail__V1__Campaign *campaign,
                   struct recipients *recipients)
{
    struct td_arena *arena = td_arena_new(ROW_ARENA_BYTES);
    struct checked checked = {.arena = NULL};
    struct mime_program *program = NULL;
    struct recipe recipe;
    struct td_err err = {TD_ENOMEM, "no memory for recipients"};
    uint8_t hash[TD_HASH_BYTES];
    char address[TD_ADDR_MAX];
    struct recipient_fault fault;
    ChunkRecipient made;
    Recipient *recipient;
    size_t line;
    int rc = arena ? recipients_rewind(recipients, &err) : TD_ENOMEM;
    int code = rc < 0 ? ctl_error(&err) : check_campaign(options, campaign, &checked);

    if (code == CTL_OK)
        code = compile(options, id, &checked, &program);
    if (recipe_init(&recipe) < 0)
        code = CTL_FAILED;
    for (uint32_t i = 0; code == CTL_OK && i < options->preview; i++) {
        rc = recipients_next(recipients, arena, &recipient, &line, &err);
        if (rc <= 0) {
            code = rc < 0 ? ctl_error(&err) : CTL_OK;
            break;
        }
        if (!validate_recipient(recipient, &checked.needed, address, &fault))
            ctl_say("line %zu: %s (%s): %s", line, fault.code, fault.field, fault.sentence);
        else if (chunk_recipient(options, recipient, address, i, arena, hash, &made) < 0)
            code = CTL_FAILED;
        else
            code = write_mail(&recipe, program, &made, arena);
        td_arena_clear(arena);
    }
    recipe_release(&recipe);
    mime_free(program);
    checked_release(&checked);
    td_arena_free(arena);
    return code;
}
