/* template_compile.h - text with merge tags, compiled once to a list of segments. Pure. A compiled template never
 * changes, so any thread may read it.
 *
 * Tags:
 *   {{field}}                      the recipient's value
 *   {{field | default: "text"}}    the same, or text when the value is missing or empty (also 'text'; \" \'
 * \\ inside)
 *   {{! comment }}                 nothing
 * Blanks and tabs around names are free; a tag ends on the line where it began, except for a comment. "{{" always
 * begins a tag; "}}" outside a tag and a single "{" are text. {{{field}}} (raw) and {{#..}} {{/..}} {{^..}}
 * {{>..}}
 * {{&..}} are refused, so that later versions can give them a meaning.
 * Field names: 1 to 64 of A-Z a-z 0-9 _ . - ; case counts.
 * Reserved, always known, and never taken from a recipient's fields: see template_reserved.
 *
 * A missing value without a default makes the recipient INVALID when rendered; an empty one is empty. Values and
 * defaults are escaped as the part demands (& < > " ' in HTML). What replaces a value is never read as a template
 * again. */
#ifndef RENDERING_TEMPLATE_COMPILE_H
#define RENDERING_TEMPLATE_COMPILE_H

#include <stdbool.h>
#include <stddef.h>

#define TEMPLATE_MAX_BYTES (512 * 1024)
#define TEMPLATE_MAX_TAGS 10000   /* comments count */
#define TEMPLATE_FIELD_MAX 64     /* bytes of a field name */
#define TEMPLATE_DEFAULT_MAX 1024 /* bytes of a default text */

struct template; /* opaque */

struct template_error {
    const char *code;   /* static: "template.syntax", "template.unknown_field", "template.too_large",
                           "template.encoding",   or "internal.memory", which alone may pass when tried again */
    unsigned line;      /* 1-based; lines end at LF, CRLF or CR */
    unsigned column;    /* 1-based, in characters (code points): where the tag begins, or the offending byte */
    char sentence[256]; /* one sentence for a person, with line and column and, for an unknown field, the nearest
                           known name. Never more of the template than a field name. */
};

enum template_reserved {
    TEMPLATE_FIELD = 0,      /* not reserved: one of the recipient's fields */
    TEMPLATE_EMAIL,          /* {{email}}: the recipient's address */
    TEMPLATE_NAME,           /* {{name}}: the recipient's name */
    TEMPLATE_CAMPAIGN_ID,    /* {{campaign.id}} */
    TEMPLATE_UNSUBSCRIBE_URL /* {{unsubscribe_url}}: the recipient's https link, else mailto link, else empty */
};

enum template_kind { TEMPLATE_LITERAL = 0, TEMPLATE_VALUE };

struct template_segment {
    enum template_kind kind;
    const char *text; /* LITERAL: the text, never empty. VALUE: the default, or NULL when it has none. */
    size_t len;       /* of text */
    size_t field;     /* VALUE: number of the field, for template_field */
};

/**
 * Compile. Text must be UTF-8 without NUL and controls other than tab, CR, LF.
 * @param text         need not end with NUL; it is copied
 * @param known        names that recipients may have (the reserved ones need not be among them); NULL: any name is
 * fine
 * @param known_count  0 with known not NULL: only the reserved names
 * @param ret          set only on success; free with template_free
 * @param reterr       filled only on failure; may be NULL
 * @return TD_OK, TD_ESYNTAX (syntax or encoding), TD_EINVAL (unknown field), TD_ETOOBIG, TD_ENOMEM. O(len).
 */
int template_compile(const char *text, size_t len, const char *const *known, size_t known_count,
                     struct template **ret, struct template_error *reterr);
void template_free(struct template *tpl); /* NULL is fine */

/** How many different fields it uses, in order of first use; reserved ones too. */
size_t template_field_count(const struct template *tpl);
/** Name of field i < template_field_count; valid as long as tpl. */
const char *template_field(const struct template *tpl, size_t i);
enum template_reserved template_field_reserved(const struct template *tpl, size_t i);
/** true when every use of field i has a default, so that a recipient may do without it. */
bool template_field_optional(const struct template *tpl, size_t i);

/** Segments in order; two literals never follow each other. */
size_t template_segment_count(const struct template *tpl);
/** i < template_segment_count; valid as long as tpl. */
const struct template_segment *template_segment(const struct template *tpl, size_t i);

/** Is this a name that a field may have (1..64 of A-Z a-z 0-9 _ . -)? */
bool template_field_name_valid(const char *name, size_t len);
/** What a name is reserved for; TEMPLATE_FIELD when it is not. */
enum template_reserved template_reserved_of(const char *name, size_t len);

#endif /* RENDERING_TEMPLATE_COMPILE_H */
