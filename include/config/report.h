/* report.h - where the mistakes of a load are told, each with its file and line.
 *
 * A load goes on after a mistake as far as that makes sense, so that one run names all of them; the
 * count decides at the end. Texts never hold a value out of a connect string or the auth_file,
 * because those may be secrets. Any thread that owns the struct. */
#ifndef CONFIG_REPORT_H
#define CONFIG_REPORT_H

#include "base/log.h"

/* The owner's function: one call, one line of text without a newline. */
typedef void log_report(void *context, enum log_level level, const char *text);

/* After so many mistakes the rest is counted but not told. */
enum { CONFIG_MISTAKES_TOLD_MAX = 1000 };

struct config_place {
    const char *file; /* NULL: not from a file */
    int line;         /* from 1; 0: the file as a whole */
};

struct config_report {
    log_report *report; /* NULL: nobody listens, count only */
    void *context;
    size_t mistake_count;
};

/* All of them add " in configuration (FILE:LINE)". `place` may be NULL. */

/* The load fails (ERROR). */
void config_mistake(struct config_report *report, const struct config_place *place,
                    const char *format, ...) printf_like(3, 4);

/* The load goes on (any level). */
void config_say(struct config_report *report, enum log_level level,
                const struct config_place *place, const char *format, ...) printf_like(4, 5);

#endif
