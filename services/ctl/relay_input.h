/* relay_input.h - arguments of the relay commands: a relay's name, perhaps a time or a campaign. */
#ifndef CTL_RELAY_INPUT_H
#define CTL_RELAY_INPUT_H

#include "ctl.h"

struct relay_input {
    struct ctl *ctl; /* first: see ctl_input; set by relay_parse */
    const char *name, *more;
    bool wants_name, takes_more;
    size_t index; /* of the relay in the settings */
};

/** Parse, read the settings, look the relay up. input NULL: no argument. @return CTL_OK or CTL_USAGE, said on stderr */
int relay_parse(struct ctl *ctl, int argc, char **argv, const char *args, const char *doc, struct relay_input *input);

#endif /* CTL_RELAY_INPUT_H */
