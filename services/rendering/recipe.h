/* recipe.h - one mail as a recipe: its own bytes, and ranges of the campaign's static blob. Pure.
 *
 * A recipe is about 1 KiB however large the mail is; whoever has the blob puts the mail together by copying. The
 * same struct is used again for mail after mail, so rendering allocates next to nothing. Not thread-safe. */
#ifndef RENDERING_RECIPE_H
#define RENDERING_RECIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mime_compose.h"
#include "tandem/arena.h"
#include "tandem/buf.h"
#include "tandem/err.h"
#include "tandem/internal/v1/outbound.pb-c.h"
#include "tandem/internal/v1/recipients.pb-c.h"

#define RECIPE_INLINE_MAX 64  /* a static range of at most so many bytes is copied: a reference costs as much */
#define RECIPE_OWN_MAX 900000 /* bytes of one recipient's own, so that the record fits on the topic */
#define RECIPE_MESSAGE_MAX (40 << 20) /* bytes of a whole message: SES's limit */

struct recipe_segment {
    bool is_static;
    uint32_t offset; /* in the blob, or in own */
    uint32_t len;
};

struct recipe {
    const char *blob; /* borrowed, of the campaign being rendered */
    size_t blob_len;
    struct td_buf own; /* the recipient's own bytes, one after the other; what is appended here is in the mail */
    struct td_buf scratch; /* a value on its way, for mime_render */
    size_t open;           /* where in own the segment begins that is still being written */
    struct recipe_segment *segments;
    size_t count, cap;
    void *digest; /* EVP_MD_CTX, kept from mail to mail */
};

/** @return TD_OK or TD_ENOMEM */
int recipe_init(struct recipe *recipe);
void recipe_release(struct recipe *recipe); /* zeroed or initialised */

/** Forget the last mail; blob is borrowed until the next start. */
void recipe_start(struct recipe *recipe, const char *blob, size_t blob_len);
/** Append a range of the blob: merged with the range before it when adjacent, copied when short.
 * @return TD_OK, TD_EBUG (outside the blob), TD_ETOOBIG, TD_ENOMEM */
int recipe_static(struct recipe *recipe, uint32_t offset, uint32_t len);

/**
 * Render one recipient.
 * @param arena       holds the message; `own` bytes are borrowed from recipe until its next use, the recipient's
 *                    strings from rcpt and the SHA-256 of the blob from program
 * @param ret         set on success; campaign-wide policy is added by recipe_set_policy
 * @param ret_reason  set with TD_EINVAL and TD_ETOOBIG to why this recipient is INVALID, static:
 *                    "field.missing" (no value and no default), "field.control_character" (a control other than
 * tab and line end in a value; also a line end, tab or bidirectional override in a header's value),
 *                    "header.too_large" (subject or name), "message.too_large"
 * @return TD_OK, TD_EINVAL, TD_ETOOBIG, or TD_ENOMEM (again later). Deterministic: the same program and recipient
 *         give the same bytes, so a repeat after a crash is the same mail.
 */
int recipe_render(struct recipe *recipe, const struct mime_program *program,
                  const Tandem__Internal__V1__ChunkRecipient *rcpt, struct td_arena *arena,
                  Tandem__Internal__V1__OutboundMessage **ret, const char **ret_reason);

/** Copy what the campaign says about sending: route, countries, deadline, class and so on. Borrows from campaign.
 */
void recipe_set_policy(Tandem__Internal__V1__OutboundMessage *msg, const Tandem__Mail__V1__Campaign *campaign);

/**
 * The other way: put the message together and check its size and SHA-256.
 * @return TD_OK, TD_EINVAL (a range outside the blob, or size or SHA-256 differ), TD_ETOOBIG (limit of out),
 * TD_ENOMEM
 */
int recipe_assemble(const char *blob, size_t blob_len, const Tandem__Internal__V1__OutboundMessage *msg,
                    struct td_buf *out, struct td_err *reterr);

#endif /* RENDERING_RECIPE_H */
