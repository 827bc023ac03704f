/* log_line.h - a log event as one line of text. Pure. Never leaves common/ (and its tests). */
#ifndef TD_LOG_LINE_H
#define TD_LOG_LINE_H

#include <stdbool.h>
#include <stdint.h>

#include "tandem/buf.h"
#include "tandem/log.h"

enum {
    TD_LOG_TEXT_MAX = 4096,  /* of "key=value ..."; longer is cut */
    TD_LOG_LINE_MAX = 32768, /* six times that (\u00XX) and the head */
};

struct td_log_head {
    int64_t wall_ms;
    enum td_level level;
    const char *service, *instance, *event;
};

/**
 * {"ts":"2026-01-31T12:00:00.123Z","level":"info","service":..,"instance":..,"event":..,"key":value,...}\n
 * An unquoted value that is a plain JSON number of at most 15 digits stays one; all else is a string. Words
 * without = are gathered in "text". A key that the head has already gets a _ behind it. What is not UTF-8 becomes
 * U+FFFD.
 */
int td_log_line_json(struct td_buf *out, const struct td_log_head *head, const char *text);

/** "12:00:00.123 INFO  event key=value\n"; controls as '?', so that nothing reaches the terminal's parser. */
int td_log_line_plain(struct td_buf *out, const struct td_log_head *head, const char *text, bool coloured);

/** "debug" and so on; back: -1 when unknown. */
const char *td_level_name(enum td_level level);
int td_level_parse(const char *name);

#endif /* TD_LOG_LINE_H */
