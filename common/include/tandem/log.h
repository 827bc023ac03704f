/* tandem/log.h - one line per event. JSON lines on stderr; a coloured one-liner when stderr is a terminal.
 *
 * No personal data in any level: no address, name, subject, header, body, template value, token, password or
 * reply text. A recipient is its address hash. Thread-safe: one write(2) a line. */
#ifndef TD_LOG_H
#define TD_LOG_H

#include <stdarg.h>

enum td_level { TD_DEBUG = 0, TD_INFO, TD_WARN, TD_ERROR };

/* error = a person must act, warn = we coped and it costs, info = life of a message or a relay, debug = off. */

/**
 * @param event  stable code, such as "relay.open"
 * @param fmt    "key=value key2=%s ...": printf first, then split at blanks outside double quotes. A value that
 *               may hold blanks is written as msg=\"%s\", and always a string; other plain numbers are numbers in
 * JSON.
 */
void td_log(enum td_level level, const char *event, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/** Set once at start. Names are copied. level: lines below it are dropped. */
void td_log_setup(const char *service, const char *instance, enum td_level level);
/** on: JSON even on a terminal; 0: by what stderr is. */
void td_log_force_json(int on);

#endif /* TD_LOG_H */
