/* file.h - a configuration file as one piece of memory.
 *
 * Files are opened through a function that the owner passes in, so that tests and fuzzers can serve
 * them from memory. Blocks; control only. */
#ifndef CONFIG_FILE_H
#define CONFIG_FILE_H

#include "config/arena.h"

/* A larger file is a mistake (somebody named /dev/zero or a core dump). */
enum { CONFIG_FILE_BYTES_MAX = 64 * 1024 * 1024 };

/* Returns the contents in `arena`, writable and with a zero behind them, or NULL with errno set. */
typedef char *config_open(void *context, const char *path, struct arena *arena, size_t *bytes);

/* The one for real files; `context` is not used. Relative paths start at the working directory. */
char *config_file_open(void *context, const char *path, struct arena *arena,
                       size_t *bytes) must_check;

#endif
