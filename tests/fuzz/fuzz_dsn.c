/* Any bytes as a mail that came back: it is read or refused within its limits, what is read is terminated and has
 * the form promised, and only a FAILED report can be about a dead address. */
#include "fuzz.h"

#include <string.h>

#include "bounce_classify.h"

static void check_status(const char *status)
{
    size_t n = strspn(status, "0123456789.");
    unsigned dots = 0;

    for (const char *at = status; *at; at++)
        dots += *at == '.';
    PROMISE(status[n] == '\0' && (n == 0 || (dots == 2 && strchr("245", status[0]) && status[n - 1] != '.')));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dsn dsn;
    struct bounce_verdict verdict;
    int rc = dsn_read(data, size, &dsn, NULL);

    PROMISE(rc == TD_OK || rc == TD_ETOOBIG || rc == TD_ESYNTAX);
    PROMISE(memchr(dsn.status, '\0', sizeof(dsn.status)) && memchr(dsn.diagnostic, '\0', sizeof(dsn.diagnostic)));
    check_status(dsn.status);
    PROMISE(dsn.reply_code == 0 || (dsn.reply_code >= 200 && dsn.reply_code <= 599));
    PROMISE(!strpbrk(dsn.diagnostic, "\r\n"));
    verdict = bounce_classify(&dsn);
    PROMISE(verdict.reason && strncmp(verdict.reason, "bounce.", 7) == 0 && bounce_class_name(verdict.class)[0]);
    return 0;
}
