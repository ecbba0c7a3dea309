/* arena.h - memory that is given out in pieces and freed all at once.
 *
 * Serves one load of the configuration, so it is simple: when the machine has no memory left it
 * says so and stops the program (a load happens at start or on RELOAD, never in a worker).
 * Everything is wiped before it is freed, because the files hold passwords. One thread at a time.
 */
#ifndef CONFIG_ARENA_H
#define CONFIG_ARENA_H

#include "base/base.h"

struct arena;

struct arena *arena_new(void) must_check;

/* NULL is allowed. */
void arena_free(struct arena *arena);

/* Zeroed, aligned for every type; never NULL, also for 0 bytes. */
void *arena_alloc(struct arena *arena, size_t bytes) must_check;

/* NULL stays NULL. */
char *arena_copy_string(struct arena *arena, const char *text) must_check;

#endif
