/* ident.h - reads an auth_ident_file: which name outside (an OS user, a certificate's name) may be
 * which user.
 *
 * A line: MAP SYSTEM-NAME USER. Words as in hba_line.h; USER may be the keyword `all`. No regular
 * expressions, no groups. A line that cannot be read is a warning and left out. Several lines of one
 * map add up.
 *
 * Reading allocates in the given arena (control). The result is immutable: any thread. */
#ifndef CONFIG_IDENT_H
#define CONFIG_IDENT_H

#include "config/arena.h"
#include "config/report.h"

enum { IDENT_LINES_MAX = 10000 };

struct ident_line {
    const char *system_name;
    const char *user; /* NULL: all */
};

struct ident_map {
    const char *name;
    const struct ident_line *lines;
    size_t line_count;
};

struct ident {
    const struct ident_map *maps; /* sorted by name */
    size_t map_count;
};

/* Too many lines are a mistake in `report`. `text` is written into. */
void ident_read(char *text, size_t bytes, const char *path, struct arena *arena,
                struct config_report *report, struct ident *out);
void ident_copy(struct arena *arena, struct ident *to, const struct ident *from);

/* NULL: there is no such map. */
const struct ident_map *ident_find(const struct ident *ident, const char *name);

/* Who is `system_name` outside may log in as `user`. Names are compared byte for byte. */
bool ident_allows(const struct ident_map *map, const char *system_name, const char *user);
/* The same for somebody with several names outside: `has_name` says whether one is his. */
typedef bool ident_has_name(const void *somebody, const char *system_name);
bool ident_allows_any(const struct ident_map *map, ident_has_name *has_name, const void *somebody,
                      const char *user);

#endif
