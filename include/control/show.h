/* show.h - the console's tables: their columns, and rows as PostgreSQL messages.
 *
 * Columns, order and types: tests/compat/show_columns.tsv, against which a test compares them.
 * Output goes to a growing byte string. Control's thread; allocates. */
#ifndef CONTROL_SHOW_H
#define CONTROL_SHOW_H

#include "base/base.h"

enum {
    TYPE_BYTEA = 17,
    TYPE_INT8 = 20,
    TYPE_INT4 = 23,
    TYPE_TEXT = 25,
    TYPE_FLOAT8 = 701,
    TYPE_NUMERIC = 1700
};

struct output {
    uint8_t *data;
    size_t bytes, bytes_max;
    /* Of rows and their descriptions from now on. */
    uint64_t binary_columns; /* a bit for each column whose values go out in binary */
    bool has_old_columns;    /* tables end with their old_column */
};

/* Room for `bytes` more; the program ends when there is no memory (control may). */
uint8_t *output_room(struct output *output, size_t bytes);
void output_put(struct output *output, const void *data, size_t bytes);
void output_release(struct output *output);

struct show_column {
    const char *name;
    int type;
};

enum { SHOW_COLUMNS_MAX = 64 }; /* with the one that ends them */

struct show_table {
    const char *name; /* as the command names it, upper case */
    bool admin_only;
    const char *value; /* of what drivers ask for: its one row's only value; else NULL */
    struct show_column columns[SHOW_COLUMNS_MAX]; /* ends with a NULL name */
    /* What PgBouncer once showed and some program still wants (console_old_columns). */
    struct show_column old_column;
};

extern const struct show_table show_tables[];
extern const size_t show_table_count;

/* Without case; NULL: no such table. */
const struct show_table *show_find(const char *name);

unsigned show_column_count(const struct output *output, const struct show_table *table);
void show_row_description(struct output *output, const struct show_table *table);

/* A row: begin, one call for each column in order (the old one, too), end (which asserts the
 * number). Values are text; where binary is asked for they are converted here. */
struct show_row {
    struct output *output;
    const struct show_table *table;
    size_t begin;
    unsigned count;
};
void show_row_begin(struct show_row *row, struct output *output, const struct show_table *table);
void show_text(struct show_row *row, const char *text); /* NULL: null */
void show_number(struct show_row *row, int64_t number);
void show_float(struct show_row *row,
                double number); /* two digits behind the point, if it is not huge */
void show_row_end(struct show_row *row);

void show_message(struct output *output, uint8_t type, const void *body, size_t bytes);
void show_complete(struct output *output, const char *tag);
void show_ready(struct output *output);
/* ErrorResponse or NoticeResponse; sqlstate NULL: 08P01 / 00000. */
void show_error(struct output *output, const char *severity, const char *sqlstate,
                const char *message, const char *detail);

#endif
