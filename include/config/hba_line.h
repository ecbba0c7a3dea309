/* hba_line.h - cuts the text of an HBA or ident file into lines, and lines into words.
 *
 * Words are separated by blanks or commas. `"..."` is a quoted word (`""` is one quote in it), which
 * is never a keyword; a plain word ends where a quote begins. `#` begins a comment, also behind the
 * letters of a plain word. A line has no continuation. A NUL byte or an open quote breaks its line.
 *
 * Pure: no allocation; quoted words are unquoted in place, in the caller's memory, so a line can be
 * read once. */
#ifndef CONFIG_HBA_LINE_H
#define CONFIG_HBA_LINE_H

#include "base/base.h"

struct hba_lines {
    char *at, *end;
    int line; /* number of the line that hba_lines_next gave last */
};

/* What is left of a line. */
struct hba_line {
    char *at, *end;
};

enum hba_word_kind {
    HBA_WORD_END, /* of the line */
    HBA_WORD_COMMA,
    HBA_WORD_PLAIN,
    HBA_WORD_QUOTED, /* may be empty */
    HBA_WORD_BROKEN,
};

/* Not zero-terminated. */
struct hba_word {
    enum hba_word_kind kind;
    const char *text;
    size_t bytes;
};

void hba_lines_init(struct hba_lines *lines, char *text, size_t bytes);
/* False: there is no further line. Empty lines and comments are lines, too. */
must_check bool hba_lines_next(struct hba_lines *lines, struct hba_line *line);

struct hba_word hba_line_next(struct hba_line *line);
/* True: the next word was a comma, and is behind us. */
must_check bool hba_line_skip_comma(struct hba_line *line);
/* What is left, as it stands in the file, without the blanks around it. */
struct hba_word hba_line_rest(struct hba_line *line);

/* A plain word that says exactly this. */
bool hba_word_is(const struct hba_word *word, const char *keyword);

#endif
