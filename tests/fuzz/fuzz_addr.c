/* What td_addr_check lets through is plain ASCII, fits, and comes out unchanged when it is checked again. */
#include "fuzz.h"

#include <string.h>

#include "tandem/addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char out[TD_ADDR_MAX], again[TD_ADDR_MAX];
    struct td_err err = {TD_OK, ""};
    const char *domain;
    int rc = td_addr_check((const char *)data, size, out, &err);

    if (rc != TD_OK) {
        PROMISE(rc == TD_EINVAL && err.code == TD_EINVAL && err.text[0] != '\0');
        return 0;
    }
    PROMISE(strlen(out) <= TD_ADDR_MAX - 1);
    for (const char *c = out; *c; c++)
        PROMISE(*c >= ' ' && *c <= '~');
    domain = strrchr(out, '@');
    PROMISE(domain && domain > out && domain - out <= 64);
    PROMISE(strspn(domain + 1, "abcdefghijklmnopqrstuvwxyz0123456789.-") == strlen(domain + 1));
    if (out[0] != '"')
        PROMISE(!strpbrk(out, " <>()[],;:\\\"") && strchr(out, '@') == domain);
    PROMISE(td_addr_check(out, strlen(out), again, NULL) == TD_OK && strcmp(out, again) == 0);
    return 0;
}
