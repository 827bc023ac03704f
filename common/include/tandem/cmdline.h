/* tandem/cmdline.h - where a program's settings come from: --config and --set, the same for every program. Not
 * thread-safe. */
#ifndef TD_CMDLINE_H
#define TD_CMDLINE_H

#include <stddef.h>

#include "tandem/err.h"
#include "tandem/settings.h"

#define TD_CMDLINE_SETS_MAX 64
#define TD_CMDLINE_FILE "/etc/tandem/tandem.yaml"
/* Help texts of the two options, for argp. */
#define TD_CMDLINE_CONFIG_HELP "Settings (default $TANDEM_CONFIG, else " TD_CMDLINE_FILE " when it exists)"
#define TD_CMDLINE_SET_HELP "One setting, before all other sources"

struct td_cmdline {                              /* {0} at first */
    const char *config;                          /* of --config, borrowed; NULL: not given */
    struct td_override set[TD_CMDLINE_SETS_MAX]; /* values borrowed from argv */
    char *path[TD_CMDLINE_SETS_MAX];             /* owned, what set[].path points to */
    size_t set_count;
};

/** Take the argument of one --set. @return TD_OK, TD_EINVAL (not PATH=VALUE, or one too many) or TD_ENOMEM */
int td_cmdline_set(struct td_cmdline *cmdline, const char *arg, struct td_err *reterr);

/** td_settings_load with what the command line, $TANDEM_CONFIG and the usual place say. Returns and `ret` as
 * there. */
int td_cmdline_load(const struct td_cmdline *cmdline, struct td_settings *ret, struct td_err *reterr);

void td_cmdline_release(struct td_cmdline *cmdline);

#endif /* TD_CMDLINE_H */
