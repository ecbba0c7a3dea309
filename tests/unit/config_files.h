/* config_files.h - configuration files that lie in a table, and the texts that a load reported. */
#ifndef TESTS_CONFIG_FILES_H
#define TESTS_CONFIG_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct test_file {
    const char *path;
    const char *text;
};

/* Serves a table that ends with a NULL path. */
static inline char *test_open(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    for (const struct test_file *file = context; file->path != NULL; file++)
        if (strcmp(file->path, path) == 0) {
            *bytes = strlen(file->text);
            return arena_copy_string(arena, file->text);
        }
    errno = ENOENT;
    return NULL;
}

struct reported {
    char text[64 * 1024]; /* a line each: "ERROR ..." */
    size_t bytes;
};

static inline void test_report(void *context, enum log_level level, const char *text)
{
    struct reported *reported = context;

    assert_null(strchr(text, '\n'));
    if (reported->bytes + strlen(text) + 16 > sizeof(reported->text))
        return;
    reported->bytes +=
        (size_t)snprintf(reported->text + reported->bytes, sizeof(reported->text) - reported->bytes,
                         "%s %s\n", log_level_name(level), text);
}

static inline size_t count_lines(const char *text, const char *start)
{
    size_t count = 0;

    for (const char *at = text; *at != '\0'; at = strchr(at, '\n') + 1)
        count += strncmp(at, start, strlen(start)) == 0;
    return count;
}

static inline void assert_reported(const struct reported *reported, const char *part)
{
    if (strstr(reported->text, part) == NULL)
        fail_msg("\"%s\" is not in:\n%s", part, reported->text);
}

static inline struct snapshot *load_files(const struct test_file *files, struct reported *reported)
{
    reported->bytes = 0;
    reported->text[0] = '\0';
    return snapshot_load_through(test_open, (void *)(uintptr_t)files, files[0].path, NULL,
                                 test_report, reported);
}

static inline struct snapshot *load_text(const char *text, struct reported *reported)
{
    const struct test_file files[] = {{"t.ini", text}, {NULL, NULL}};

    return load_files(files, reported);
}

/* The load succeeds without a word. */
static inline struct snapshot *load_silent(const char *text)
{
    static struct reported reported;
    struct snapshot *snapshot = load_text(text, &reported);

    if (snapshot == NULL || reported.bytes != 0)
        fail_msg("not silent: %s", reported.text);
    return snapshot;
}

/* The load fails with exactly one mistake. */
static inline void assert_mistake(const char *text, const char *mistake)
{
    static struct reported reported;
    struct snapshot *snapshot = load_text(text, &reported);

    if (snapshot != NULL)
        fail_msg("taken without the mistake \"%s\": %s", mistake, text);
    assert_reported(&reported, mistake);
    if (count_lines(reported.text, "ERROR ") != 1)
        fail_msg("more than one mistake: %s", reported.text);
}

/* The load succeeds with exactly one warning. */
static inline struct snapshot *load_warned(const char *text, const char *warning)
{
    static struct reported reported;
    struct snapshot *snapshot = load_text(text, &reported);

    if (snapshot == NULL)
        fail_msg("refused: %s", reported.text);
    assert_reported(&reported, warning);
    if (count_lines(reported.text, "") != 1)
        fail_msg("more than one line: %s", reported.text);
    return snapshot;
}

#endif
