/* reply_rules.h - classification rules from a file (deploy/rules/README.md), so that a new provider needs no code. Pure but
 * for reading the file. */
#ifndef REPLY_RULES_H
#define REPLY_RULES_H

#include <stddef.h>

#include "reply_classify.h"
#include "tandem/err.h"
#include "tandem/settings.h"

enum {
    REPLY_RULES_MAX = 1000,
    REPLY_RULES_BYTES_MAX = 256 * 1024, /* of a file */
    REPLY_PHRASE_MIN = 3,
    REPLY_PHRASE_MAX = 100,
    REPLY_REASON_MAX = 47 /* what relay health keeps */
};

/**
 * Read a file's text. A rule that could mark a recipient for what is no fault of theirs is refused: only scope recipient
 * may refuse, and only for a 5yz after MAIL; only scope relay may change a relay's health for the worse.
 * @param name  of the file, for error texts
 * @return TD_OK; TD_ECONFIG with file, line and what to do; TD_ENOMEM
 */
int reply_rules_read(const char *name, const char *text, size_t len, struct reply_rules **ret, struct td_err *reterr);
void reply_rules_free(struct reply_rules *rules); /* NULL is fine */

/**
 * The rules that relay->rules names: <rules_dir>/<name>.yaml.
 * @param ret  NULL when the relay names none
 * @return TD_OK, TD_ECONFIG or TD_ENOMEM
 */
int reply_rules_of(const struct td_settings *settings, const struct td_relay_settings *relay, struct reply_rules **ret,
                   struct td_err *reterr);

/** Words of a rule file. */
const char *reply_scope_name(enum reply_scope scope);
const char *reply_action_name(enum reply_action action);
const char *health_kind_name(enum health_kind kind);

#endif /* REPLY_RULES_H */
