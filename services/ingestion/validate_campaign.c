/* What is common to all recipients. Each check looks at one part and adds its own refusals, so that one answer
 * names everything that is wrong. */
#include "validate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "tandem/header.h"
#include "template_compile.h"

#define NAME_MAX_BYTES 200
#define HEADER_VALUE_MAX 900 /* leaves room for its name in a line of 998 (RFC 5322 s.2.1.1) */
#define SUBJECT_MAX_BYTES 4000
#define LANGUAGE_MAX_BYTES 35
#define LIST_ID_MAX_BYTES 255 /* RFC 2919 s.2 */
#define URL_MAX_BYTES 2000
#define CONTENT_ID_MAX_BYTES 100
#define MEDIA_TYPE_MAX_BYTES 127
#define RATE_MAX 1000000

static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
static const char alnum[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/* RFC 5322 s.3.2.3 atext; RFC 2045 s.5.1 token is as wide but for / = ? ` { | }, which media types do not use. */
static const char atext[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~";
static const char media[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&-^_.+"; /* RFC 6838 */

static bool only(const char *text, size_t len, const char *set)
{
    return len > 0 && strspn(text, set) >= len;
}

/* atoms joined by dots, at least `least` of them */
static bool dot_atom(const char *text, size_t len, size_t least)
{
    size_t atoms = 0;

    for (const char *at = text, *end = text + len;; atoms++) {
        const char *dot = memchr(at, '.', (size_t)(end - at));
        size_t n = (size_t)((dot ? dot : end) - at);

        if (!only(at, n, atext))
            return false;
        if (!dot)
            return atoms + 1 >= least;
        at = dot + 1;
    }
}

static int check_address(char **address, const char *field, struct td_arena *arena, struct refusals *refusals)
{
    char checked[TD_ADDR_MAX];
    struct td_err err;

    if (td_addr_check(*address, strlen(*address), checked, &err) < 0) {
        refuse(refusals, "address.syntax", field, "%s", err.text);
        return TD_OK;
    }
    *address = td_arena_strdup(arena, checked);
    return *address ? TD_OK : TD_ENOMEM;
}

static int check_mailbox(Mailbox *mailbox, const char *path, struct td_arena *arena, struct refusals *refusals)
{
    char field[64];
    struct td_err err;

    snprintf(field, sizeof(field), "%s.name", path);
    if (td_header_value_check(mailbox->name, strlen(mailbox->name), NAME_MAX_BYTES, &err) < 0)
        refuse(refusals, "name.syntax", field, "%s", err.text);
    snprintf(field, sizeof(field), "%s.address", path);
    return check_address(&mailbox->address, field, arena, refusals);
}

static int need_field(struct needed_fields *needed, const char *name)
{
    char **grown, *copy;

    for (size_t i = 0; i < needed->count; i++)
        if (strcmp(needed->name[i], name) == 0)
            return TD_OK;
    grown = realloc(needed->name, (needed->count + 1) * sizeof(*grown));
    if (!grown)
        return TD_ENOMEM;
    needed->name = grown;
    copy = strdup(name);
    if (!copy)
        return TD_ENOMEM;
    needed->name[needed->count++] = copy;
    return TD_OK;
}

/* refusals NULL: the template was accepted before and only its fields are wanted. */
static int check_template(const char *text, const char *field, struct refusals *refusals,
                          struct needed_fields *needed, bool *ret_unsubscribes)
{
    struct template *tpl = NULL;
    struct template_error err;
    int rc = template_compile(text, strlen(text), NULL, 0, &tpl, &err);

    if (rc == TD_ENOMEM)
        return rc;
    if (rc < 0) {
        if (refusals)
            refuse(refusals, err.code, field, "%s", err.sentence);
        return TD_OK;
    }
    for (size_t i = 0; rc == TD_OK && i < template_field_count(tpl); i++) {
        enum template_reserved reserved = template_field_reserved(tpl, i);

        if (reserved == TEMPLATE_UNSUBSCRIBE_URL && !template_field_optional(tpl, i))
            *ret_unsubscribes = true;
        if (reserved == TEMPLATE_FIELD && !template_field_optional(tpl, i))
            rc = need_field(needed, template_field(tpl, i));
    }
    template_free(tpl);
    return rc;
}

static int check_templates(const Campaign *campaign, struct refusals *refusals, struct needed_fields *needed,
                           bool *ret_unsubscribes)
{
    int rc = check_template(campaign->subject_template, "campaign.subject_template", refusals, needed,
                            ret_unsubscribes);

    if (rc == TD_OK && *campaign->html_template)
        rc = check_template(campaign->html_template, "campaign.html_template", refusals, needed, ret_unsubscribes);
    if (rc == TD_OK && *campaign->text_template)
        rc = check_template(campaign->text_template, "campaign.text_template", refusals, needed, ret_unsubscribes);
    return rc;
}

int validate_needed(const Campaign *campaign, struct needed_fields *ret)
{
    struct needed_fields needed = {NULL, 0};
    bool unsubscribes = false;
    int rc = check_templates(campaign, NULL, &needed, &unsubscribes);

    if (rc < 0)
        needed_fields_release(&needed);
    *ret = needed;
    return rc;
}

static int check_text(Campaign *campaign, struct refusals *refusals, struct needed_fields *needed)
{
    bool unsubscribes = false;
    struct td_err err;
    int rc;

    if (!*campaign->subject_template)
        refuse(refusals, "subject.missing", "campaign.subject_template", "A campaign needs a subject.");
    else if (td_header_value_check(campaign->subject_template, strlen(campaign->subject_template),
                                   SUBJECT_MAX_BYTES, &err) < 0)
        refuse(refusals, "header.value", "campaign.subject_template", "%s", err.text);
    if (!*campaign->html_template && !*campaign->text_template)
        refuse(refusals, "body.missing", "campaign.html_template", "A campaign needs an HTML or a text template.");
    rc = check_templates(campaign, refusals, needed, &unsubscribes);
    if (rc == TD_OK && unsubscribes && (!campaign->unsubscribe || !*campaign->unsubscribe->https_url))
        refuse(refusals, "unsubscribe.missing", "campaign.unsubscribe.https_url",
               "A template uses {{unsubscribe_url}} and the campaign has no https_url.");
    return rc;
}

/* BCP 47 by its shape: subtags of 1 to 8 letters or digits, the first of 2 to 8 letters. */
static void check_language(const char *language, struct refusals *refusals)
{
    size_t len = strlen(language), first = strcspn(language, "-");
    bool ok = len <= LANGUAGE_MAX_BYTES && first >= 2 && first <= 8 && only(language, first, letters);

    if (len == 0)
        return;
    for (size_t at = first; ok && at < len;) {
        size_t n = strcspn(language + at + 1, "-");

        ok = n >= 1 && n <= 8 && only(language + at + 1, n, alnum);
        at += n + 1;
    }
    if (!ok)
        refuse(refusals, "language.syntax", "campaign.language",
               "A language is a BCP 47 tag such as sv or en-GB.");
}

static void check_headers(const Campaign *campaign, struct refusals *refusals)
{
    char field[64];
    struct td_err err;

    if (campaign->n_headers > VALIDATE_HEADERS_MAX)
        refuse(refusals, "header.too_many", "campaign.headers", "A campaign has at most %d headers of its own.",
               VALIDATE_HEADERS_MAX);
    for (size_t i = 0; i < campaign->n_headers && i < VALIDATE_HEADERS_MAX; i++) {
        const HeaderField *header = campaign->headers[i];

        snprintf(field, sizeof(field), "campaign.headers[%zu]", i);
        if (!td_header_name_allowed(header->name))
            refuse(refusals, "header.name", field,
                   "Only X- fields (not X-SES-, X-Tandem-), Organization, Keywords and Comments can be set.");
        if (td_header_value_check(header->value, strlen(header->value), HEADER_VALUE_MAX, &err) < 0)
            refuse(refusals, "header.value", field, "%s", err.text);
    }
}

static void check_list_id(const char *list_id, struct refusals *refusals)
{
    size_t len = strlen(list_id);

    if (len > 0 && (len > LIST_ID_MAX_BYTES || !dot_atom(list_id, len, 2)))
        refuse(refusals, "list_id.syntax", "campaign.list_id", "A list id has labels joined by dots (RFC 2919).");
}

/* A URI goes into a header in angle brackets: visible ASCII without those. The only tag is {{token}}. */
static bool url_fine(const char *url)
{
    static const char token[] = "{{token}}";
    size_t len = strlen(url);

    if (len > URL_MAX_BYTES || strncmp(url, "https://", 8) != 0 || !only(url + 8, 1, alnum))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (strncmp(url + i, token, sizeof(token) - 1) == 0)
            i += sizeof(token) - 2;
        else if (url[i] <= 0x20 || url[i] >= 0x7f || strchr("<>\"\\^`{|}", url[i]))
            return false;
    }
    return true;
}

static int check_unsubscribe(Unsubscribe *unsubscribe, struct td_arena *arena, struct refusals *refusals)
{
    if (*unsubscribe->https_url && !url_fine(unsubscribe->https_url))
        refuse(refusals, "unsubscribe.url", "campaign.unsubscribe.https_url",
               "An https URI of at most %d visible ASCII characters; its only tag is {{token}}.", URL_MAX_BYTES);
    if (unsubscribe->one_click && !*unsubscribe->https_url)
        refuse(refusals, "unsubscribe.one_click", "campaign.unsubscribe.one_click",
               "One click needs an https_url (RFC 8058).");
    return *unsubscribe->mailto
               ? check_address(&unsubscribe->mailto, "campaign.unsubscribe.mailto", arena, refusals)
               : TD_OK;
}

static bool media_type_fine(const char *type)
{
    const char *slash = strchr(type, '/');

    if (!slash || !only(type, (size_t)(slash - type), media) || !only(slash + 1, strlen(slash + 1), media))
        return false;
    /* Both would need a structure of their own inside the message. */
    return strlen(type) <= MEDIA_TYPE_MAX_BYTES && strncasecmp(type, "multipart/", 10) != 0 &&
           strncasecmp(type, "message/", 8) != 0;
}

static void check_attachment_names(const Campaign *campaign, size_t i, const char *path, struct refusals *refusals)
{
    const Attachment *attachment = campaign->attachments[i];
    size_t id_len = strlen(attachment->content_id);
    struct td_err err;

    if (!*attachment->filename || strpbrk(attachment->filename, "/\\") || attachment->filename[0] == '.')
        refuse(refusals, "attachment.name", path,
               "A file name is not empty, has no / or \\ and does not begin with a dot.");
    else if (td_header_value_check(attachment->filename, strlen(attachment->filename), NAME_MAX_BYTES, &err) < 0)
        refuse(refusals, "attachment.name", path, "%s", err.text);
    if (!media_type_fine(attachment->content_type))
        refuse(refusals, "attachment.type", path,
               "A media type such as application/pdf, without parameters; not multipart or message.");
    if (id_len == 0)
        return;
    if (id_len > CONTENT_ID_MAX_BYTES ||
        !only(attachment->content_id, id_len,
              "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.@+"))
        refuse(refusals, "attachment.content_id", path, "A content id has 1 to %d of A-Z a-z 0-9 - _ . @ +.",
               CONTENT_ID_MAX_BYTES);
    for (size_t k = 0; k < i; k++)
        if (strcmp(campaign->attachments[k]->content_id, attachment->content_id) == 0)
            refuse(refusals, "attachment.content_id", path, "Two attachments have this content id.");
}

static void check_attachment_bytes(Attachment *attachment, const ProtobufCBinaryData *content, const char *path,
                                   struct refusals *refusals)
{
    uint8_t sha256[32];

    if (attachment->sha256.len != sizeof(sha256)) {
        refuse(refusals, "attachment.sha256", path, "A SHA-256 has 32 bytes.");
    } else if (content->len > 0) {
        SHA256(content->data, content->len, sha256);
        if (memcmp(sha256, attachment->sha256.data, sizeof(sha256)) != 0)
            refuse(refusals, "attachment.sha256", path, "The content has another SHA-256.");
    }
    if (content->len > 0 && attachment->size_bytes == 0)
        attachment->size_bytes = content->len;
    if (attachment->size_bytes == 0 || (content->len > 0 && content->len != attachment->size_bytes))
        refuse(refusals, "attachment.size", path, "size_bytes is not the size of the content.");
}

static void check_attachments(Campaign *campaign, const ProtobufCBinaryData *content,
                              const struct td_settings *settings, struct refusals *refusals)
{
    uint64_t most = (uint64_t)settings->ingestion_max_attachment_bytes, total = 0;
    char path[64];

    if (campaign->n_attachments > VALIDATE_ATTACHMENTS_MAX) {
        refuse(refusals, "attachment.too_many", "campaign.attachments", "A campaign has at most %d attachments.",
               VALIDATE_ATTACHMENTS_MAX);
        return;
    }
    for (size_t i = 0; i < campaign->n_attachments; i++) {
        snprintf(path, sizeof(path), "campaign.attachments[%zu]", i);
        check_attachment_names(campaign, i, path, refusals);
        check_attachment_bytes(campaign->attachments[i], &content[i], path, refusals);
        /* Each on its own first: sizes are 64-bit numbers from outside, and their sum must not wrap. */
        total =
            campaign->attachments[i]->size_bytes > most ? most + 1 : total + campaign->attachments[i]->size_bytes;
        if (total > most)
            break;
    }
    if (total > most)
        refuse(refusals, "attachment.size", "campaign.attachments",
               "All attachments together have at most %" PRIu64 " bytes.", most);
}

/* What the mail will need at least: base64 makes 76 characters and CRLF of 57 bytes. */
static uint64_t least_message_bytes(const Campaign *campaign)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < campaign->n_attachments; i++) {
        if (campaign->attachments[i]->size_bytes > (uint64_t)1 << 40)
            return UINT64_MAX;
        bytes += campaign->attachments[i]->size_bytes;
    }
    return bytes * 137 / 100 + strlen(campaign->html_template) + strlen(campaign->text_template);
}

void validate_route(char *const *route, size_t count, const Campaign *campaign, const struct td_settings *settings,
                    const char *field, struct refusals *refusals)
{
    uint64_t bytes = least_message_bytes(campaign);

    if (count == 0 || count > TD_RELAYS_MAX) {
        refuse(refusals, "route.empty", field, "No relay of the route can be used: 1 to %d are needed.",
               TD_RELAYS_MAX);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const struct td_relay_settings *relay = td_settings_relay(settings, route[i]);
        size_t k = 0;

        while (k < i && strcmp(route[k], route[i]) != 0)
            k++;
        if (!relay) {
            refuse(refusals, "route.unknown", field, "Relay number %zu of the route is not configured.", i + 1);
            continue;
        }
        if (k < i)
            refuse(refusals, "route.repeated", field, "Relay %s is in the route twice.", relay->name);
        if (!td_relay_allowed(settings, relay, (const char *const *)campaign->allowed_countries,
                              campaign->n_allowed_countries))
            refuse(refusals, "route.country", field, "Relay %s is not in an allowed country.", relay->name);
        if (relay->max_message_bytes > 0 && bytes > (uint64_t)relay->max_message_bytes)
            refuse(refusals, "message.too_large", field,
                   "A mail of this campaign has at least %" PRIu64 " bytes; relay %s takes %" PRId64 ".", bytes,
                   relay->name, relay->max_message_bytes);
    }
}

static void check_countries(const Campaign *campaign, struct refusals *refusals)
{
    for (size_t i = 0; i < campaign->n_allowed_countries; i++) {
        const char *country = campaign->allowed_countries[i];

        if (strlen(country) != 2 || strspn(country, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 2)
            refuse(refusals, "country.syntax", "campaign.allowed_countries",
                   "A country is two capital letters (ISO 3166-1 alpha-2).");
    }
}

static void check_policy(const Campaign *campaign, struct refusals *refusals)
{
    if ((unsigned)campaign->on_unconfirmed > TANDEM__MAIL__V1__ON_UNCONFIRMED__ON_UNCONFIRMED_RESEND)
        refuse(refusals, "enum.unknown", "campaign.on_unconfirmed", "This version knows HOLD and RESEND.");
    if ((unsigned)campaign->class_ > TANDEM__MAIL__V1__CAMPAIGN_CLASS__CAMPAIGN_CLASS_EXPRESS)
        refuse(refusals, "enum.unknown", "campaign.class", "This version knows BULK and EXPRESS.");
    if (campaign->bounce_ceiling_per_10000 > 10000)
        refuse(refusals, "ceiling.range", "campaign.bounce_ceiling_per_10000", "At most 10,000 (all of them).");
    if (campaign->max_mails_per_s > RATE_MAX)
        refuse(refusals, "rate.range", "campaign.max_mails_per_s", "At most %d mails per second.", RATE_MAX);
}

static void check_times(const Campaign *campaign, int64_t now_ms, struct refusals *refusals)
{
    int64_t last = now_ms + VALIDATE_DEADLINE_MAX_MS;

    if (campaign->not_before_unix_ms < 0 || campaign->not_before_unix_ms > last)
        refuse(refusals, "not_before.range", "campaign.not_before_unix_ms",
               "Not before 1970 nor after 30 days from now.");
    else if (campaign->deadline_unix_ms <= now_ms || campaign->deadline_unix_ms > last)
        refuse(refusals, "deadline.range", "campaign.deadline_unix_ms",
               "The deadline is within 30 days from now.");
    else if (campaign->deadline_unix_ms <= campaign->not_before_unix_ms)
        refuse(refusals, "deadline.range", "campaign.deadline_unix_ms", "The deadline comes after not_before.");
}

int validate_campaign(Campaign *campaign, const ProtobufCBinaryData *content, const struct td_settings *settings,
                      int64_t now_ms, struct td_arena *arena, struct refusals *refusals,
                      struct needed_fields *needed)
{
    struct needed_fields found = {NULL, 0};
    size_t before = refusals->total;
    int rc = TD_OK;

    if (!campaign->from)
        refuse(refusals, "from.missing", "campaign.from", "A campaign needs a From address.");
    else
        rc = check_mailbox(campaign->from, "campaign.from", arena, refusals);
    if (rc == TD_OK && campaign->reply_to)
        rc = check_mailbox(campaign->reply_to, "campaign.reply_to", arena, refusals);
    if (rc == TD_OK && campaign->unsubscribe)
        rc = check_unsubscribe(campaign->unsubscribe, arena, refusals);
    if (rc == TD_OK)
        rc = check_text(campaign, refusals, &found);
    check_language(campaign->language, refusals);
    check_headers(campaign, refusals);
    check_list_id(campaign->list_id, refusals);
    check_attachments(campaign, content, settings, refusals);
    check_countries(campaign, refusals);
    validate_route(campaign->route, campaign->n_route, campaign, settings, "campaign.route", refusals);
    check_policy(campaign, refusals);
    check_times(campaign, now_ms, refusals);
    if (rc == TD_OK && refusals->total == before) {
        *needed = found;
        found = (struct needed_fields){NULL, 0};
    }
    needed_fields_release(&found);
    return rc;
}
