/* libyaml's events, since a schema on top of it (libcyaml) would hide their lines. Stream and document events stay
 * inside. */
#include "tandem/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct td_yaml {
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; zeroed between */
    size_t nodes, nodes_max;
    char *name;
    bool document; /* one has begun */
};

int td_yaml_fail(const struct td_yaml *yaml, size_t line, struct td_err *reterr, const char *fmt, ...)
{
    char text[TD_ERR_TEXT_MAX];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (!yaml->name)
        return td_fail(reterr, TD_ECONFIG, "%s", text);
    return td_fail(reterr, TD_ECONFIG, "%s:%zu: %s", yaml->name, line, text);
}

int td_yaml_new(const char *name, const char *text, size_t len, size_t nodes_max, struct td_yaml **ret,
                struct td_err *reterr)
{
    struct td_yaml *yaml = calloc(1, sizeof(*yaml));

    if (yaml && name)
        yaml->name = strdup(name);
    if (!yaml || (name && !yaml->name) || !yaml_parser_initialize(&yaml->parser)) {
        if (yaml)
            free(yaml->name);
        free(yaml);
        return td_fail(reterr, TD_ENOMEM, "no memory to read YAML");
    }
    yaml->nodes_max = nodes_max;
    yaml_parser_set_input_string(&yaml->parser, (const unsigned char *)text, len);
    *ret = yaml;
    return TD_OK;
}

void td_yaml_free(struct td_yaml *yaml)
{
    if (!yaml)
        return;
    yaml_event_delete(&yaml->event);
    yaml_parser_delete(&yaml->parser);
    free(yaml->name);
    free(yaml);
}

size_t td_yaml_line(const struct td_yaml *yaml)
{
    return yaml->event.start_mark.line + 1;
}

static bool has_anchor(const yaml_event_t *e)
{
    return (e->type == YAML_SCALAR_EVENT && e->data.scalar.anchor) ||
           (e->type == YAML_SEQUENCE_START_EVENT && e->data.sequence_start.anchor) ||
           (e->type == YAML_MAPPING_START_EVENT && e->data.mapping_start.anchor) || e->type == YAML_ALIAS_EVENT;
}

/* One event of libyaml, whatever it is. */
static int step(struct td_yaml *yaml, struct td_err *reterr)
{
    yaml_event_delete(&yaml->event);
    if (!yaml_parser_parse(&yaml->parser, &yaml->event)) {
        if (yaml->parser.error == YAML_MEMORY_ERROR)
            return td_fail(reterr, TD_ENOMEM, "no memory to read YAML");
        return td_yaml_fail(yaml, yaml->parser.problem_mark.line + 1, reterr, "not YAML: %s",
                            yaml->parser.problem ? yaml->parser.problem : "unreadable");
    }
    if (++yaml->nodes > yaml->nodes_max)
        return td_yaml_fail(yaml, td_yaml_line(yaml), reterr, "more than %zu nodes", yaml->nodes_max);
    if (has_anchor(&yaml->event))
        return td_yaml_fail(yaml, td_yaml_line(yaml), reterr, "anchors and aliases are not supported");
    if (yaml->event.type == YAML_SCALAR_EVENT && memchr(td_yaml_text(yaml), '\0', td_yaml_len(yaml)))
        return td_yaml_fail(yaml, td_yaml_line(yaml), reterr, "holds a control character");
    if (yaml->event.type == YAML_DOCUMENT_START_EVENT && yaml->document)
        return td_yaml_fail(yaml, td_yaml_line(yaml), reterr, "a second document");
    return TD_OK;
}

int td_yaml_next(struct td_yaml *yaml, struct td_err *reterr)
{
    for (;;) {
        int rc = step(yaml, reterr);

        if (rc < 0)
            return rc;
        if (yaml->event.type == YAML_DOCUMENT_START_EVENT)
            yaml->document = true;
        else if (yaml->event.type != YAML_STREAM_START_EVENT && yaml->event.type != YAML_DOCUMENT_END_EVENT)
            return TD_OK;
    }
}

enum td_yaml_kind td_yaml_kind(const struct td_yaml *yaml)
{
    switch ((int)yaml->event.type) {
    case YAML_SCALAR_EVENT:
        return TD_YAML_SCALAR;
    case YAML_SEQUENCE_START_EVENT:
        return TD_YAML_LIST;
    case YAML_SEQUENCE_END_EVENT:
        return TD_YAML_LIST_END;
    case YAML_MAPPING_START_EVENT:
        return TD_YAML_MAP;
    case YAML_MAPPING_END_EVENT:
        return TD_YAML_MAP_END;
    default:
        return TD_YAML_END;
    }
}

const char *td_yaml_text(const struct td_yaml *yaml)
{
    return yaml->event.type == YAML_SCALAR_EVENT ? (const char *)yaml->event.data.scalar.value : "";
}

size_t td_yaml_len(const struct td_yaml *yaml)
{
    return yaml->event.type == YAML_SCALAR_EVENT ? yaml->event.data.scalar.length : 0;
}

bool td_yaml_null(const struct td_yaml *yaml)
{
    const char *text = td_yaml_text(yaml);

    return yaml->event.type == YAML_SCALAR_EVENT && yaml->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}
