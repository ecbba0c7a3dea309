#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

static const char *const level_names[] = {"FATAL", "ERROR", "WARNING", "LOG", "DEBUG", "NOISE"};

static _Atomic(log_sink *) current_sink;
static atomic_int current_level = LEVEL_LOG;

const char *log_level_name(enum log_level level)
{
    return level_names[level];
}

void log_set_sink(log_sink *sink)
{
    atomic_store_explicit(&current_sink, sink, memory_order_release);
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

bool log_is_wanted(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

void log_write(enum log_level level, const char *format, ...)
{
    char text[LOG_TEXT_BYTES_MAX];
    log_sink *sink;
    va_list arguments;
    int bytes;

    if (!log_is_wanted(level))
        return;
    va_start(arguments, format);
    bytes = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (bytes < 0)
        return;
    bytes = MIN(bytes, (int)sizeof(text) - 1);
    sink = atomic_load_explicit(&current_sink, memory_order_acquire);
    if (sink != NULL)
        sink(level, text, (size_t)bytes);
    else
        fprintf(stderr, "%s %s\n", level_names[level], text);
}
