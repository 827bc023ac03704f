/* A rule file:
 *
 *   rules:
 *     - {stage: rcpt, code: 5yz, enhanced: x.2.2, phrase: over quota, scope: recipient, action: retry, reason: reply.full}
 *
 * Each rule is read into a draft of its words, then made into a reply_rule and checked as a whole, so that what follows
 * from the scope (action, health, stages) need not be written. */
#include "reply_rules.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/arena.h"
#include "tandem/yaml.h"

enum { NODES_MAX = REPLY_RULES_MAX * 32, ARENA_BYTES = 4 * REPLY_RULES_BYTES_MAX, ENHANCED_MAX = 11 };

#define AFTER_MAIL (REPLY_AT(PHASE_RCPT) | REPLY_AT(PHASE_DATA) | REPLY_AT(PHASE_BODY) | REPLY_AT(PHASE_FINAL))

static const char *const scope_words[] = {"connection", "relay", "campaign", "message", "recipient", NULL};
static const char *const action_words[] = {"refuse", "retry", "other_relay", "reconnect", "hold", NULL};
static const char *const health_words[] = {"none", "ok", "busy", "failed", "down", "connections", "exhausted", "paused", NULL};
static const char *const stage_words[] = {"connect", "mail", "rcpt", "data", "body", "final", "any", NULL};

const char *reply_scope_name(enum reply_scope scope)
{
    return scope_words[scope];
}

const char *reply_action_name(enum reply_action action)
{
    return action_words[action];
}

const char *health_kind_name(enum health_kind kind)
{
    return health_words[kind];
}

/* What a scope allows; the first action, and health, stand in when a rule names none. */
#define A(action) (1u << (action))
static const struct {
    enum reply_action action;
    unsigned actions;
    enum health_kind health;
    unsigned healths;
} allowed[] = {
    [SCOPE_CONNECTION] = {ACT_RECONNECT, A(ACT_RECONNECT), HEALTH_NONE, A(HEALTH_NONE)},
    [SCOPE_RELAY] = {ACT_OTHER_RELAY, A(ACT_OTHER_RELAY), HEALTH_HARD,
                     A(HEALTH_SOFT) | A(HEALTH_HARD) | A(HEALTH_FATAL) | A(HEALTH_CONNECTIONS) | A(HEALTH_EXHAUSTED) |
                         A(HEALTH_PAUSED)},
    [SCOPE_CAMPAIGN] = {ACT_HOLD, A(ACT_HOLD), HEALTH_NONE, A(HEALTH_NONE)},
    [SCOPE_MESSAGE] = {ACT_OTHER_RELAY, A(ACT_OTHER_RELAY) | A(ACT_RETRY), HEALTH_NONE, A(HEALTH_NONE) | A(HEALTH_SOFT)},
    [SCOPE_RECIPIENT] = {ACT_REFUSE, A(ACT_REFUSE) | A(ACT_RETRY), HEALTH_OK, A(HEALTH_OK)},
};

/* One rule's words as they stand in the file. */
struct draft {
    size_t line;
    unsigned phases; /* 0: not given */
    int code, scope, action, health; /* -1: not given */
    const char *enhanced, *phrase, *reason;
    unsigned seen; /* keys */
};

/* The result: freeing the arena frees it all, also this. */
struct loaded {
    struct reply_rules rules; /* first: what callers hold */
    struct td_arena *arena;
    struct reply_rule *rule;
};

struct reader {
    struct td_yaml *yaml;
    struct td_err *err;
    struct loaded *loaded;
};

#define FAIL(r, line, ...) td_yaml_fail((r)->yaml, (line), (r)->err, __VA_ARGS__)

static int no_memory(const struct reader *r)
{
    return td_fail(r->err, TD_ENOMEM, "no memory for rules");
}

/* For error texts: a word of the file, cut and without what a terminal would obey. */
static const char *shown(const struct reader *r, char out[48])
{
    const char *text = td_yaml_text(r->yaml);
    size_t i = 0;

    for (; text[i] && i < 40; i++)
        out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    out[i] = '\0';
    return out;
}

/* ---- values of the keys ---- */

static int read_word(struct reader *r, const char *key, const char *const *words, int *ret)
{
    char list[120] = "", clip[48];
    size_t len = 0;

    for (int i = 0; words[i]; i++) {
        if (strcmp(td_yaml_text(r->yaml), words[i]) == 0) {
            *ret = i;
            return TD_OK;
        }
        len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s", i ? ", " : "", words[i]);
    }
    return FAIL(r, td_yaml_line(r->yaml), "%s: '%s' is none of %s", key, shown(r, clip), list);
}

static int read_stage(struct reader *r, struct draft *draft)
{
    int stage = 0, rc = read_word(r, "stage", stage_words, &stage);

    if (rc == TD_OK)
        draft->phases |= stage == PHASE_COUNT ? REPLY_AT_ANY : REPLY_AT(stage);
    return rc;
}

static int read_stages(struct reader *r, struct draft *draft)
{
    int rc;

    if (td_yaml_kind(r->yaml) != TD_YAML_LIST)
        return read_stage(r, draft);
    while ((rc = td_yaml_next(r->yaml, r->err)) == TD_OK && td_yaml_kind(r->yaml) == TD_YAML_SCALAR) {
        rc = read_stage(r, draft);
        if (rc < 0)
            return rc;
    }
    if (rc == TD_OK && (td_yaml_kind(r->yaml) != TD_YAML_LIST_END || draft->phases == 0))
        rc = FAIL(r, td_yaml_line(r->yaml), "stage: takes a word or a list of words");
    return rc;
}

/* "454"; "4yz" and "5yz": the class. */
static int read_code(struct reader *r, struct draft *draft)
{
    const char *text = td_yaml_text(r->yaml);
    char clip[48];

    if ((text[0] == '4' || text[0] == '5') && strlen(text) == 3) {
        if (text[1] >= '0' && text[1] <= '9' && text[2] >= '0' && text[2] <= '9') {
            draft->code = (text[0] - '0') * 100 + (text[1] - '0') * 10 + text[2] - '0';
            return TD_OK;
        }
        if (strcmp(text + 1, "yz") == 0) {
            draft->code = text[0] - '0';
            return TD_OK;
        }
    }
    return FAIL(r, td_yaml_line(r->yaml), "code: '%s' is no code from 400 to 599, nor 4yz or 5yz", shown(r, clip));
}

static size_t digits(const char *text)
{
    return strspn(text, "0123456789");
}

static int read_enhanced(struct reader *r, struct draft *draft)
{
    const char *text = td_yaml_text(r->yaml), *detail;
    char clip[48];
    bool good = (text[0] == 'x' || text[0] == '4' || text[0] == '5') && text[1] == '.' && strlen(text) <= ENHANCED_MAX;
    size_t n = good ? digits(text + 2) : 0;

    good = n >= 1 && n <= 3 && text[2 + n] == '.';
    if (good) {
        detail = text + 3 + n;
        n = digits(detail);
        good = strcmp(detail, "*") == 0 || (n >= 1 && n <= 3 && !detail[n]);
    }
    if (!good)
        return FAIL(r, td_yaml_line(r->yaml), "enhanced: '%s' is no pattern such as 5.1.1, x.2.2 or 4.7.*", shown(r, clip));
    draft->enhanced = td_arena_strdup(r->loaded->arena, text);
    return draft->enhanced ? TD_OK : no_memory(r);
}

static int read_phrase(struct reader *r, struct draft *draft)
{
    const char *text = td_yaml_text(r->yaml);
    size_t len = td_yaml_len(r->yaml);

    if (len < REPLY_PHRASE_MIN || len > REPLY_PHRASE_MAX)
        return FAIL(r, td_yaml_line(r->yaml), "phrase: takes %d to %d characters", REPLY_PHRASE_MIN, REPLY_PHRASE_MAX);
    for (size_t i = 0; i < len; i++)
        if (text[i] < ' ' || text[i] > '~')
            return FAIL(r, td_yaml_line(r->yaml), "phrase: takes printable ASCII");
    draft->phrase = td_arena_strdup(r->loaded->arena, text);
    return draft->phrase ? TD_OK : no_memory(r);
}

/* It goes into metrics' neighbours, events and logs, where people search for it: "overloaded.rate". */
static int read_reason(struct reader *r, struct draft *draft)
{
    const char *text = td_yaml_text(r->yaml), *dot = strchr(text, '.');
    size_t len = td_yaml_len(r->yaml);

    if (len > REPLY_REASON_MAX || strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_.") != len || !dot || dot == text || !dot[1])
        return FAIL(r, td_yaml_line(r->yaml), "reason: takes two words such as overloaded.rate, at most %d of a-z 0-9 _ .",
                    REPLY_REASON_MAX);
    draft->reason = td_arena_strdup(r->loaded->arena, text);
    return draft->reason ? TD_OK : no_memory(r);
}

/* ---- a rule as a whole ---- */

static int check_scope(struct reader *r, const struct draft *draft, const struct reply_rule *rule)
{
    const struct reply_class *class = &rule->class;

    if (!(allowed[class->scope].actions & A(class->action)))
        return FAIL(r, draft->line, "action: %s does not go with scope %s", action_words[class->action], scope_words[class->scope]);
    if (!(allowed[class->scope].healths & A(class->health)))
        return FAIL(r, draft->line, "health: %s does not go with scope %s", health_words[class->health], scope_words[class->scope]);
    if ((draft->phases & ~REPLY_AT_ANY) == 0 && draft->phases != REPLY_AT_ANY) { /* stages that were named one by one */
        if ((draft->phases & REPLY_AT(PHASE_CONNECT)) && class->scope != SCOPE_RELAY)
            return FAIL(r, draft->line, "stage: before MAIL nothing can be about a mail: connect takes scope relay");
        if ((draft->phases & REPLY_AT(PHASE_MAIL)) && class->scope == SCOPE_RECIPIENT)
            return FAIL(r, draft->line, "stage: at mail no recipient has been named");
    }
    if (class->action == ACT_REFUSE && rule->code != 5 && rule->code < 500)
        return FAIL(r, draft->line, "action: refuse takes a code of 5yz; a 4yz never ends a recipient");
    return TD_OK;
}

static int add_rule(struct reader *r, const struct draft *draft)
{
    struct reply_rules *rules = &r->loaded->rules;
    struct reply_rule *rule = &r->loaded->rule[rules->count];
    int rc;

    if (draft->scope < 0 || !draft->reason)
        return FAIL(r, draft->line, "a rule needs a scope and a reason");
    if (draft->code < 0 && !draft->enhanced && !draft->phrase)
        return FAIL(r, draft->line, "a rule needs a code, an enhanced code or a phrase");
    if (draft->health < 0 && draft->scope == SCOPE_RELAY)
        return FAIL(r, draft->line, "scope relay needs a health: busy, failed, down, connections, exhausted or paused");
    if (draft->action < 0 && draft->scope == SCOPE_RECIPIENT)
        return FAIL(r, draft->line, "scope recipient needs an action: refuse or retry");
    rule->phases = draft->phases ? draft->phases : REPLY_AT_ANY;
    rule->code = draft->code < 0 ? 0 : draft->code;
    rule->enhanced = draft->enhanced;
    rule->phrase = draft->phrase;
    rule->class.scope = (enum reply_scope)draft->scope;
    rule->class.action = draft->action < 0 ? allowed[draft->scope].action : (enum reply_action)draft->action;
    rule->class.health = draft->health < 0 ? allowed[draft->scope].health : (enum health_kind)draft->health;
    rule->class.reason = draft->reason;
    rc = check_scope(r, draft, rule);
    if (rc < 0)
        return rc;
    if (rule->class.scope == SCOPE_RECIPIENT)
        rule->phases &= AFTER_MAIL;
    rules->count++;
    return TD_OK;
}

/* ---- the file's shape ---- */

static const char *const key_words[] = {"stage", "code", "enhanced", "phrase", "scope", "action", "health", "reason", NULL};

static int read_value(struct reader *r, int key, struct draft *draft)
{
    if (key != 0 && td_yaml_kind(r->yaml) != TD_YAML_SCALAR)
        return FAIL(r, td_yaml_line(r->yaml), "%s: takes one value", key_words[key]);
    switch (key) {
    case 0:
        return read_stages(r, draft);
    case 1:
        return read_code(r, draft);
    case 2:
        return read_enhanced(r, draft);
    case 3:
        return read_phrase(r, draft);
    case 4:
        return read_word(r, "scope", scope_words, &draft->scope);
    case 5:
        return read_word(r, "action", action_words, &draft->action);
    case 6:
        return read_word(r, "health", health_words, &draft->health);
    default:
        return read_reason(r, draft);
    }
}

static int read_rule(struct reader *r)
{
    struct draft draft = {.line = td_yaml_line(r->yaml), .code = -1, .scope = -1, .action = -1, .health = -1};
    int rc, key = 0;

    if (td_yaml_kind(r->yaml) != TD_YAML_MAP)
        return FAIL(r, draft.line, "a rule is a mapping of key: value");
    if (r->loaded->rules.count == REPLY_RULES_MAX)
        return FAIL(r, draft.line, "more than %d rules", REPLY_RULES_MAX);
    while ((rc = td_yaml_next(r->yaml, r->err)) == TD_OK && td_yaml_kind(r->yaml) != TD_YAML_MAP_END) {
        if (td_yaml_kind(r->yaml) != TD_YAML_SCALAR)
            return FAIL(r, td_yaml_line(r->yaml), "a key must be a word");
        rc = read_word(r, "key", key_words, &key);
        if (rc == TD_OK && (draft.seen & (1u << key)))
            rc = FAIL(r, td_yaml_line(r->yaml), "%s: given twice", key_words[key]);
        if (rc == TD_OK)
            rc = td_yaml_next(r->yaml, r->err);
        if (rc == TD_OK)
            rc = read_value(r, key, &draft);
        if (rc < 0)
            return rc;
        draft.seen |= 1u << key;
    }
    return rc < 0 ? rc : add_rule(r, &draft);
}

static int read_top(struct reader *r)
{
    int rc = td_yaml_next(r->yaml, r->err);

    if (rc < 0)
        return rc;
    if (td_yaml_kind(r->yaml) != TD_YAML_MAP)
        return FAIL(r, td_yaml_line(r->yaml), "begins with rules:");
    rc = td_yaml_next(r->yaml, r->err);
    if (rc == TD_OK && strcmp(td_yaml_text(r->yaml), "rules") != 0)
        rc = FAIL(r, td_yaml_line(r->yaml), "begins with rules:");
    if (rc == TD_OK)
        rc = td_yaml_next(r->yaml, r->err);
    if (rc == TD_OK && td_yaml_kind(r->yaml) != TD_YAML_LIST)
        rc = FAIL(r, td_yaml_line(r->yaml), "rules: takes a list; begin each rule with '- '");
    while (rc == TD_OK && (rc = td_yaml_next(r->yaml, r->err)) == TD_OK && td_yaml_kind(r->yaml) != TD_YAML_LIST_END)
        rc = read_rule(r);
    if (rc == TD_OK)
        rc = td_yaml_next(r->yaml, r->err);
    if (rc == TD_OK && td_yaml_kind(r->yaml) != TD_YAML_MAP_END)
        rc = FAIL(r, td_yaml_line(r->yaml), "holds rules: and nothing else");
    return rc < 0 ? rc : td_yaml_next(r->yaml, r->err); /* its end: a second document is refused */
}

static struct loaded *loaded_new(void)
{
    struct td_arena *arena = td_arena_new(ARENA_BYTES);
    struct loaded *loaded = arena ? td_arena_zalloc(arena, sizeof(*loaded)) : NULL;

    if (loaded) {
        loaded->arena = arena;
        loaded->rule = td_arena_zalloc(arena, REPLY_RULES_MAX * sizeof(*loaded->rule));
        loaded->rules.rule = loaded->rule;
    }
    if (!loaded || !loaded->rule) {
        td_arena_free(arena);
        return NULL;
    }
    return loaded;
}

void reply_rules_free(struct reply_rules *rules)
{
    if (rules)
        td_arena_free(((struct loaded *)(void *)rules)->arena);
}

int reply_rules_read(const char *name, const char *text, size_t len, struct reply_rules **ret, struct td_err *reterr)
{
    struct reader r = {.err = reterr};
    int rc;

    if (len > REPLY_RULES_BYTES_MAX)
        return td_fail(reterr, TD_ECONFIG, "%s: longer than %d bytes", name, REPLY_RULES_BYTES_MAX);
    r.loaded = loaded_new();
    if (!r.loaded)
        return no_memory(&r);
    rc = td_yaml_new(name, text, len, NODES_MAX, &r.yaml, reterr);
    if (rc == TD_OK)
        rc = read_top(&r);
    td_yaml_free(r.yaml);
    if (rc < 0) {
        reply_rules_free(&r.loaded->rules);
        return rc;
    }
    *ret = &r.loaded->rules;
    return TD_OK;
}

int reply_rules_of(const struct td_settings *settings, const struct td_relay_settings *relay, struct reply_rules **ret,
                   struct td_err *reterr)
{
    char path[PATH_MAX], *text = NULL;
    FILE *in = NULL;
    size_t len = 0;
    int rc = TD_OK;

    *ret = NULL;
    if (!relay->rules)
        return TD_OK;
    snprintf(path, sizeof(path), "%s/%s.yaml", settings->rules_dir ? settings->rules_dir : TD_RULES_DIR, relay->rules);
    in = fopen(path, "rbe");
    text = malloc(REPLY_RULES_BYTES_MAX + 1);
    if (in && text)
        len = fread(text, 1, REPLY_RULES_BYTES_MAX + 1, in);
    if (!in || ferror(in))
        rc = td_fail(reterr, TD_ECONFIG, "rules of relay '%s': cannot read %.120s: %s", relay->name, path, strerror(errno));
    else if (!text)
        rc = td_fail(reterr, TD_ENOMEM, "no memory for rules");
    else
        rc = reply_rules_read(path, text, len, ret, reterr);
    if (in)
        fclose(in);
    free(text);
    return rc;
}
