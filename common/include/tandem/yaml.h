/* tandem/yaml.h - a YAML file as a row of events, each with its line (libyaml). Pure. For our own settings and
 * rules: one document; anchors and aliases are refused, since with them a few lines could stand for millions and a
 * value would no longer have one line. */
#ifndef TD_YAML_H
#define TD_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include "tandem/err.h"

enum td_yaml_kind {
    TD_YAML_SCALAR,
    TD_YAML_LIST,
    TD_YAML_LIST_END,
    TD_YAML_MAP,
    TD_YAML_MAP_END,
    TD_YAML_END /* of the file, also of an empty one */
};

struct td_yaml; /* opaque */

/**
 * @param name       of the file, for error texts; copied. NULL: texts name neither file nor line
 * @param text       borrowed for its life
 * @param nodes_max  events it will read, so that the file's size bounds the work
 * @return TD_OK or TD_ENOMEM
 */
int td_yaml_new(const char *name, const char *text, size_t len, size_t nodes_max, struct td_yaml **ret,
                struct td_err *reterr);
void td_yaml_free(struct td_yaml *yaml); /* NULL is fine */

/**
 * Step to the next event. Before the first call there is none.
 * @return TD_OK; TD_ECONFIG (no YAML, an anchor, NUL in a scalar, too many nodes, a second document), text with
 * file and line; TD_ENOMEM
 */
int td_yaml_next(struct td_yaml *yaml, struct td_err *reterr);
enum td_yaml_kind td_yaml_kind(const struct td_yaml *yaml);
/** Of a SCALAR: without NUL inside, valid until the next step. "" for all else. */
const char *td_yaml_text(const struct td_yaml *yaml);
size_t td_yaml_len(const struct td_yaml *yaml);
/** Nothing, ~ or null, unquoted: leaves a default as it is. */
bool td_yaml_null(const struct td_yaml *yaml);
size_t td_yaml_line(const struct td_yaml *yaml); /* 1-based */

/** "rules.yaml:12: " + text as TD_ECONFIG. */
int td_yaml_fail(const struct td_yaml *yaml, size_t line, struct td_err *reterr, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif /* TD_YAML_H */
