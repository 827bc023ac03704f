#include "tandem/err.h"

#include <stdarg.h>
#include <stdio.h>

int td_fail(struct td_err *err, enum td_code code, const char *fmt, ...)
{
    va_list args;

    if (err) {
        err->code = code;
        va_start(args, fmt);
        vsnprintf(err->text, sizeof(err->text), fmt, args);
        va_end(args);
    }
    return code;
}

bool td_code_retriable(enum td_code code)
{
    return code == TD_ENOMEM || code == TD_EAGAIN || code == TD_EIO || code == TD_ETIMEOUT || code == TD_ENOTFOUND;
}

const char *td_code_name(enum td_code code)
{
    switch (code) {
    case TD_OK:
        return "OK";
    case TD_EINVAL:
        return "EINVAL";
    case TD_ESYNTAX:
        return "ESYNTAX";
    case TD_ETOOBIG:
        return "ETOOBIG";
    case TD_ENOTFOUND:
        return "ENOTFOUND";
    case TD_ENOMEM:
        return "ENOMEM";
    case TD_EAGAIN:
        return "EAGAIN";
    case TD_EIO:
        return "EIO";
    case TD_ETIMEOUT:
        return "ETIMEOUT";
    case TD_EDENIED:
        return "EDENIED";
    case TD_ECONFIG:
        return "ECONFIG";
    case TD_EFATAL:
        return "EFATAL";
    case TD_EBUG:
        return "EBUG";
    }
    return "?";
}
