/* log.h - the front end of the log: makes a line's text and hands it to the sink.
 *
 * Any thread. Never blocks: the sink that control installs copies the text into a queue that the
 * log writer's thread empties (control/log_writer.h). Before that, and in tests, lines go to
 * stderr. Levels and texts are those of PgBouncer, because people's tools match on them. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/base.h"

enum log_level {
    LEVEL_FATAL,
    LEVEL_ERROR,
    LEVEL_WARNING,
    LEVEL_LOG,
    LEVEL_DEBUG,
    LEVEL_NOISE,
};

/* Longest text of a line; the rest is cut. */
enum { LOG_TEXT_BYTES_MAX = 2048 };

typedef void log_sink(enum log_level level, const char *text, size_t text_bytes);

/* "LOG", "WARNING" ... */
const char *log_level_name(enum log_level level);

/* NULL: back to stderr. Set before threads start or from the one thread that owns the sink. */
void log_set_sink(log_sink *sink);

/* The most talkative level that is written (default LEVEL_LOG). Relaxed atomic. */
void log_set_level(enum log_level level);
bool log_is_wanted(enum log_level level);

void log_write(enum log_level level, const char *format, ...) printf_like(2, 3);

#endif
