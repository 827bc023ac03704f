#include "tandem/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../log_line.h"
#include "tandem/clock.h"
#include "tandem/err.h"

/* Names are written once, before threads; the flags may be read from any (librdkafka logs from its own). */
static char log_service[32] = "tandem", log_instance[65] = "-";
static atomic_int log_level = TD_INFO;
static atomic_int log_json = -1; /* -1: not asked yet what stderr is */

static int json_wanted(void)
{
    int json = atomic_load(&log_json);

    if (json < 0) {
        json = !isatty(STDERR_FILENO);
        atomic_store(&log_json, json);
    }
    return json;
}

void td_log_setup(const char *service, const char *instance, enum td_level level)
{
    snprintf(log_service, sizeof(log_service), "%s", service);
    snprintf(log_instance, sizeof(log_instance), "%s", instance);
    atomic_store(&log_level, level);
}

void td_log_force_json(int on)
{
    atomic_store(&log_json, on ? 1 : -1);
}

/* One write a line, so that lines of threads do not mix; the loop is for a signal or a slow pipe. */
static void write_all(const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nobody listens: sending mail is worth more than the line */
        data += n;
        len -= (size_t)n;
    }
}

void td_log(enum td_level level, const char *event, const char *fmt, ...)
{
    struct td_log_head head = {td_wall_ms(), level, log_service, log_instance, event};
    struct td_buf line = TD_BUF_INIT(TD_LOG_LINE_MAX);
    const char *no_colour;
    char text[TD_LOG_TEXT_MAX];
    va_list args;
    int rc;

    if ((int)level < atomic_load(&log_level))
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (json_wanted()) {
        rc = td_log_line_json(&line, &head, text);
    } else {
        no_colour = getenv("NO_COLOR");
        rc = td_log_line_plain(&line, &head, text, !no_colour || !*no_colour);
    }
    if (rc == TD_OK)
        write_all(line.data, line.len);
    td_buf_release(&line);
}
