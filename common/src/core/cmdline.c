#include "tandem/cmdline.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int td_cmdline_set(struct td_cmdline *cmdline, const char *arg, struct td_err *reterr)
{
    const char *equal = strchr(arg, '=');
    size_t i = cmdline->set_count;

    if (!equal || equal == arg || i == TD_CMDLINE_SETS_MAX)
        return td_fail(reterr, TD_EINVAL, "--set takes PATH=VALUE, at most %d times", TD_CMDLINE_SETS_MAX);
    cmdline->path[i] = strndup(arg, (size_t)(equal - arg));
    if (!cmdline->path[i])
        return td_fail(reterr, TD_ENOMEM, "no memory for options");
    cmdline->set[i] = (struct td_override){cmdline->path[i], equal + 1};
    cmdline->set_count++;
    return TD_OK;
}

int td_cmdline_load(const struct td_cmdline *cmdline, struct td_settings *ret, struct td_err *reterr)
{
    const char *file = cmdline->config ? cmdline->config : getenv("TANDEM_CONFIG");

    if (!file || !*file)
        file = access(TD_CMDLINE_FILE, F_OK) == 0 ? TD_CMDLINE_FILE : NULL;
    return td_settings_load(ret, file, cmdline->set, cmdline->set_count, reterr);
}

void td_cmdline_release(struct td_cmdline *cmdline)
{
    for (size_t i = 0; i < cmdline->set_count; i++)
        free(cmdline->path[i]);
    cmdline->set_count = 0;
}
