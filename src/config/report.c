#include "config/report.h"

#include <stdarg.h>
#include <stdio.h>

static void tell(struct config_report *report, enum log_level level,
                 const struct config_place *place, const char *format, va_list arguments)
{
    char what[LOG_TEXT_BYTES_MAX / 2];
    char text[LOG_TEXT_BYTES_MAX];

    if (report->report == NULL)
        return;
    vsnprintf(what, sizeof(what), format, arguments);
    if (place == NULL || place->file == NULL)
        snprintf(text, sizeof(text), "%s", what);
    else if (place->line == 0)
        snprintf(text, sizeof(text), "%s in configuration (%.900s)", what, place->file);
    else
        snprintf(text, sizeof(text), "%s in configuration (%.900s:%d)", what, place->file,
                 place->line);
    /* Names and values are quoted from a file: no escape sequences for the operator's terminal. */
    for (char *at = text; *at != '\0'; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
    report->report(report->context, level, text);
}

void config_mistake(struct config_report *report, const struct config_place *place,
                    const char *format, ...)
{
    va_list arguments;

    report->mistake_count++;
    if (report->mistake_count > CONFIG_MISTAKES_TOLD_MAX) {
        if (report->mistake_count == CONFIG_MISTAKES_TOLD_MAX + 1 && report->report != NULL)
            report->report(report->context, LEVEL_ERROR, "too many mistakes in configuration");
        return;
    }
    va_start(arguments, format);
    tell(report, LEVEL_ERROR, place, format, arguments);
    va_end(arguments);
}

void config_say(struct config_report *report, enum log_level level,
                const struct config_place *place, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    tell(report, level, place, format, arguments);
    va_end(arguments);
}
