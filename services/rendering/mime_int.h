/* mime_int.h - what mime_compose.c makes and mime_render.c reads. */
#ifndef RENDERING_MIME_INT_H
#define RENDERING_MIME_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mime_compose.h"
#include "tandem/buf.h"
#include "tandem/id.h"
#include "template_compile.h"

enum mime_kind {
    MIME_STATIC = 0, /* a range of the blob that begins and ends at a line's start */
    MIME_QP,         /* a range of the blob: a literal in quoted-printable */
    MIME_HTML,       /* a value, escaped for HTML, then quoted-printable */
    MIME_TEXT,       /* a value, quoted-printable */
    MIME_TO,         /* whole header fields of the recipient */
    MIME_SUBJECT,
    MIME_MESSAGE_ID,
    MIME_UNSUBSCRIBE
};

struct mime_piece {
    enum mime_kind kind;
    uint32_t offset, len; /* STATIC, QP */
    /* QP: characters of its first line, encoded as if from column 0, a soft break's "=" included, CRLF not; where
     * it ends; and whether it holds a line end. Without one it ends where it begins plus first_line. */
    unsigned first_line, end_column;
    bool breaks;
    /* HTML, TEXT: which value, and the default (borrowed from the template; NULL: none). */
    size_t slot;
    const char *fallback;
    size_t fallback_len;
};

struct mime_slot {    /* a field that some template uses */
    const char *name; /* borrowed from the template */
    enum template_reserved reserved;
};

struct mime_program {
    char campaign_id[TD_CAMPAIGN_ID_MAX + 1];
    char *message_id_domain;
    char *unsubscribe_mailto, *unsubscribe_url; /* "" when there is none */
    void *token_key;
    size_t token_key_len;

    struct template *subject, *text, *html; /* text or html may be NULL */
    struct mime_slot *slots;                /* ascending by name */
    size_t slot_count, slot_cap;
    size_t *subject_slots; /* of the subject's fields, in its numbering */

    struct td_buf blob;
    uint8_t blob_sha256[32];
    struct mime_piece *pieces;
    size_t piece_count, piece_cap;
};

/** Number of the slot of this name; SIZE_MAX when no template uses it. */
size_t mime_slot_find(const struct mime_program *program, const char *name);

#endif /* RENDERING_MIME_INT_H */
