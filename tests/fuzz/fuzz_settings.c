/* Settings from a hostile YAML file: up to the first NUL the file, behind it one variable. What loads must print
 * as a file that loads. */
#include <string.h>

#include "../../common/src/settings_int.h"
#include "fuzz.h"

static void check_print(const struct td_settings *settings)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return;
    td_settings_print(settings, out);
    fclose(out);
    if (!settings->keys_token && !settings->keys_address &&
        !strchr(settings->redis_url, '@')) { /* *** is no key */
        struct td_settings again;
        struct td_err err;

        PROMISE(td_settings_load_text(&again, "print", text, len, NULL, NULL, 0, &err) == TD_OK);
        td_settings_release(&again);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = memchr(data, '\0', size);
    size_t yaml_len = nul ? (size_t)(nul - data) : size, rest = size - yaml_len;
    char *variable = malloc(rest + 1 + 7);
    char *env[] = {variable, NULL};
    struct td_settings settings;
    struct td_err err;

    if (!variable)
        return 0;
    memcpy(variable, "TANDEM_", 7);
    memcpy(variable + 7, data + yaml_len + (rest > 0), rest > 0 ? rest - 1 : 0);
    variable[7 + (rest > 0 ? rest - 1 : 0)] = '\0';
    /* A secret's file would be read from this machine: not what is tried here. */
    if (!strstr(variable, "_FILE") && !memmem(data, yaml_len, "_file", 5) &&
        td_settings_load_text(&settings, "fuzz", (const char *)data, yaml_len, env, NULL, 0, &err) == TD_OK) {
        check_print(&settings);
        td_settings_release(&settings);
    }
    free(variable);
    return 0;
}
