/* Every file of deploy/profiles loads as it is, and says what its provider asks for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reply_rules.h"
#include "tandem/settings.h"

#define DEPLOY TD_TESTS_DIR "/../deploy"

/* TANDEM_RELAYS_<NAME>_PASSWORD, by the file's "- name:". */
static void password_variable(const char *path, char *out, size_t size)
{
    FILE *in = fopen(path, "r");
    char line[256], name[33] = "";

    assert_non_null(in);
    while (!name[0] && fgets(line, sizeof(line), in))
        sscanf(line, " - name: %32[a-z0-9-]", name);
    fclose(in);
    assert_true(name[0]);
    for (char *c = name; *c; c++)
        *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c == '-' ? '_' : *c);
    snprintf(out, size, "TANDEM_RELAYS_%s_PASSWORD", name);
}

/* The password's file is not there: its variable, which counts more, stands in. */
static int load(const char *path, const char *countries, struct td_settings *ret, struct td_err *err)
{
    const struct td_override overrides[] = {{"allowed_countries", countries}, {"rules_dir", DEPLOY "/rules"}};
    char variable[64];
    int rc;

    password_variable(path, variable, sizeof(variable));
    setenv(variable, "secret", 1);
    rc = td_settings_load(ret, path, overrides, 2, err);
    unsetenv(variable);
    return rc;
}

static void each_profile_loads(void **unused)
{
    glob_t files;

    (void)unused;
    assert_int_equal(glob(DEPLOY "/profiles/*.yaml", 0, NULL, &files), 0);
    assert_true(files.gl_pathc >= 7);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        struct td_settings settings;
        struct reply_rules *rules;
        struct td_err err;

        if (load(files.gl_pathv[i], "DE,IE,FR,SE,IT,GB", &settings, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(settings.relay_count, 1);
        assert_string_equal(settings.route.item[0], settings.relays[0].name);
        assert_non_null(settings.relays[0].operated_by);
        assert_non_null(settings.relays[0].return_path_domain);
        assert_true(settings.relays[0].max_connections <= 20);
        if (reply_rules_of(&settings, &settings.relays[0], &rules, &err) < 0)
            fail_msg("%s", err.text);
        reply_rules_free(rules);
        td_settings_release(&settings);
    }
    globfree(&files);
}

static void ses_profiles_know_their_region(void **unused)
{
    static const char *const rows[][2] = {{"eu-central-1", "DE"}, {"eu-west-1", "IE"}, {"eu-west-3", "FR"}, {"eu-north-1", "SE"}, {"eu-south-1", "IT"}};

    (void)unused;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct td_settings settings;
        struct td_err err;
        char path[512], host[64];

        snprintf(path, sizeof(path), DEPLOY "/profiles/ses-%s.yaml", rows[i][0]);
        snprintf(host, sizeof(host), "email-smtp.%s.amazonaws.com", rows[i][0]);
        if (load(path, rows[i][1], &settings, &err) < 0)
            fail_msg("%s", err.text);
        assert_string_equal(settings.relays[0].host, host);
        assert_string_equal(settings.relays[0].country, rows[i][1]);
        assert_int_equal(settings.relays[0].port, 465);
        assert_int_equal(settings.relays[0].tls, TD_TLS_IMPLICIT);
        assert_int_equal(settings.relays[0].idle_timeout_ms, 8000); /* SES: 10 s */
        assert_true(settings.relays[0].max_message_bytes <= 40000000);
        assert_true(settings.relays[0].max_mails_per_s > 0 && settings.relays[0].daily_quota > 0);
        td_settings_release(&settings);
    }
}

static void authsmtp_is_refused_where_its_country_is_not_allowed(void **unused)
{
    struct td_settings settings;
    struct td_err err;

    (void)unused;
    assert_int_equal(load(DEPLOY "/profiles/authsmtp.yaml", "DE,FR", &settings, &err), TD_ECONFIG);
    assert_non_null(strstr(err.text, "is in GB, which is not in allowed_countries"));
    assert_int_equal(load(DEPLOY "/profiles/authsmtp.yaml", "DE,GB", &settings, &err), TD_OK);
    assert_int_equal(settings.relays[0].max_connections, 5);
    assert_string_equal(settings.relays[0].rules, "authsmtp");
    td_settings_release(&settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_profile_loads),
        cmocka_unit_test(ses_profiles_know_their_region),
        cmocka_unit_test(authsmtp_is_refused_where_its_country_is_not_allowed),
    };

    return cmocka_run_group_tests_name("profiles", tests, NULL, NULL);
}
