/* ini.h - reads PgBouncer's ini grammar: sections, keys, values, %include.
 *
 * The grammar, which no option of inih reaches (tests/unit/test_ini.c has every case):
 *   - white space before a line and behind a value is dropped; lines have no limit and no
 * continuation; a NUL byte ends the file;
 *   - `;` or `#` as the first visible byte of a line makes it a comment, and nowhere else;
 *   - `[name]`, taken literally; what follows the `]` is read as the next line;
 *   - `key = value`: a key is bytes of A-Za-z0-9_.-* or anything between single quotes; the value
 * is the rest of the line, quotes included;
 *   - `%include FILE` wherever a line may stand, relative to the working directory; the section
 * that is open at the end of the included file stays open.
 *
 * A syntax error ends its file and reading goes on in the file that included it, so that one load
 * names as many mistakes as it can. What sections and keys mean is the handler's business. */
#ifndef CONFIG_INI_H
#define CONFIG_INI_H

#include "config/file.h"
#include "config/report.h"

enum {
    INI_INCLUDE_DEPTH_MAX = 10,
    INI_INCLUDE_COUNT_MAX = 1000, /* of one load: files that include each other twice grow fast */
};

enum ini_item_kind { INI_SECTION, INI_ENTRY };

/* Strings live in the arena of the input. */
struct ini_item {
    enum ini_item_kind kind;
    const char *name; /* of the section, or the key (may be empty) */
    char *value;      /* of an entry, may be empty; the handler may write in it */
    struct config_place place;
};

typedef void ini_item_handler(void *context, const struct ini_item *item);

struct ini_input {
    config_open *open;
    void *open_context;
    struct arena *arena;
    struct config_report *report;
    ini_item_handler *handler;
    void *handler_context;
};

/* Calls the handler for each section and entry of `path` and its includes, in order. Mistakes are
 * in the report of `input`. */
void ini_read(const struct ini_input *input, const char *path);

#endif
