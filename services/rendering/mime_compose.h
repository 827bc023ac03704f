/* mime_compose.h - a campaign compiled to MIME once, so that a mail is copying. Pure. Immutable once compiled.
 *
 * compile:  Campaign + files -> static blob   header fields, part headers, quoted-printable text, base64 files
 *                            -> pieces        static range | quoted-printable range | value | header of the
 * recipient render:   pieces + recipient -> recipe (recipe.h)
 *
 *   multipart/mixed          when there are attachments
 *     multipart/related      when HTML has inline images
 *       multipart/alternative  when there are both
 *         text/plain, text/html
 *     image/png ...
 *   application/pdf ...
 *
 * Seams in quoted-printable: each literal is encoded as if it began a line. When rendered, a soft break goes
 * before it only if its first line would not fit behind what stands there (76 characters, RFC 2045 s.6.7), so most
 * seams do not show. Values are encoded from the column where they land.
 *
 * Boundaries begin with "=_", which neither quoted-printable nor base64 can produce, so no content can hold one.
 */
#ifndef RENDERING_MIME_COMPOSE_H
#define RENDERING_MIME_COMPOSE_H

#include <stddef.h>
#include <stdint.h>

#include "tandem/arena.h"
#include "tandem/err.h"
#include "tandem/internal/v1/recipients.pb-c.h"
#include "tandem/mail/v1/submission.pb-c.h"

#define MIME_HEADER_MAX 2000     /* bytes of a subject or name before encoding */
#define MIME_BLOB_MAX (40 << 20) /* static bytes: a message may not be larger */

struct mime_program; /* opaque */
struct recipe;

struct mime_file {
    const void *data; /* borrowed during mime_compile */
    size_t len;
};

struct mime_source {
    const char *campaign_id;
    const Tandem__Mail__V1__Campaign *campaign; /* borrowed during mime_compile */
    const struct mime_file *files;              /* one for each of campaign->attachments, in that order */
    int64_t date_unix_ms; /* for Date: when the campaign was submitted, so that a repeat has the same bytes */
    const char *message_id_domain;
    const char
        *unsubscribe_https_url; /* the operator's, for bulk campaigns that name no way of their own; or NULL */
    const void *token_key;      /* of td_token_write; copied */
    size_t token_key_len;
};

/**
 * Compile a campaign.
 * @return TD_OK; TD_EINVAL/TD_ESYNTAX/TD_ETOOBIG: the campaign cannot be sent, reterr says why without quoting
 * content (ingestion should have refused it); TD_ENOMEM: again later
 */
int mime_compile(const struct mime_source *source, struct mime_program **ret, struct td_err *reterr);
void mime_free(struct mime_program *program); /* NULL is fine */

/** The bytes that all mails of the campaign share; valid as long as program. */
const char *mime_static(const struct mime_program *program, size_t *ret_len);
/** 32 bytes, SHA-256 of the static blob. */
const uint8_t *mime_static_sha256(const struct mime_program *program);

/**
 * SHA-256 of what the mails depend on (not route, rate, deadline and the like), so that a new revision of a
 * campaign need not be compiled again. @return TD_OK or TD_ENOMEM
 */
int mime_source_digest(const struct mime_source *source, uint8_t ret[32]);

/**
 * Append one recipient's mail to a started recipe. Errors and reasons as recipe_render, which is what to call.
 * @param arena  for what is needed meanwhile
 */
int mime_render(const struct mime_program *program, const Tandem__Internal__V1__ChunkRecipient *rcpt,
                struct td_arena *arena, struct recipe *recipe, const char **ret_reason);

/** "<campaign_id>.<index>@<domain>" without angle brackets, in the arena; NULL when out of memory. */
char *mime_message_id(const struct mime_program *program, uint32_t index, struct td_arena *arena);
const char *mime_campaign_id(const struct mime_program *program);

#endif /* RENDERING_MIME_COMPOSE_H */
