/* sql_text.h - reads the text of SQL statements as far as prepared statements need it
 * (PostgreSQL documentation: "Lexical Structure", PREPARE, EXECUTE, DEALLOCATE).
 *
 * The text is that of a Query or Parse message, without the closing zero, in any client encoding
 * whose single bytes below 0x80 are ASCII. In some of them (SJIS, BIG5, GBK, UHC, JOHAB, GB18030)
 * such a byte can also be the second half of a character, and which encoding it is nobody here
 * knows. So a text with a byte above 0x7f anywhere, be it in a comment, is SQL_OTHER and not
 * cacheable. That also leaves out the two things that depend on the server's locale and encoding:
 * how such letters are folded, and where a long name is cut.
 *
 * The reader knows tokens, not the grammar of expressions: a text that PostgreSQL refuses may still
 * be called a PREPARE or EXECUTE. What PostgreSQL accepts is called by its name or SQL_OTHER.
 *
 * Pure: no allocation, no I/O, any thread. Bytes belong to the caller. */
#ifndef WIRE_SQL_TEXT_H
#define WIRE_SQL_TEXT_H

#include "base/bytes.h"

/* NAMEDATALEN - 1: PostgreSQL cuts what is longer. */
enum { SQL_NAME_BYTES_MAX = 63 };

enum sql_prepare_kind {
    SQL_OTHER, /* also: several statements, and whatever is doubtful */
    SQL_PREPARE,
    SQL_EXECUTE, /* also inside of EXPLAIN and CREATE TABLE AS */
    SQL_DEALLOCATE,
    SQL_DEALLOCATE_ALL,
    SQL_DISCARD_ALL
};

/* Offsets count from the start of the text. */
struct sql_prepare {
    /* As PostgreSQL has it: folded, without quotes, cut. Ends in a zero and has none before. */
    char name[SQL_NAME_BYTES_MAX + 1];
    size_t name_bytes;
    /* As it stands in the text, with its quotes. Nothing need be between it and its neighbours
     * (EXECUTE"p"), so another name in its place needs quotes too. */
    size_t written_offset;
    size_t written_bytes;
    /* What follows the name: its first token up to the end of the last one, so without the `;`,
     * blanks and comments around it. Empty after DEALLOCATE and EXECUTE without more. */
    size_t rest_offset;
    size_t rest_bytes;
};

/* The part of sql_may_be_prepare for a text that begins with a blank or a comment. */
bool sql_may_be_prepare_behind_blanks(const char *text, size_t bytes);

/* The same for a text that begins with a word. */
static inline bool sql_word_may_be_prepare(const char *text, size_t bytes)
{
    if (bytes < sizeof("EXECUTE a") - 1)
        return false;
    switch (bytes_get_u32((const uint8_t *)text) | 0x20202020) {
    case 0x70726570: /* prep */
    case 0x65786563: /* exec */
    case 0x6465616c: /* deal */
    case 0x64697363: /* disc */
    case 0x6578706c: /* expl */
    case 0x63726561: /* crea */
        return true;
    default:
        return false;
    }
}

/* The cheap first look: false says that sql_prepare_read would answer SQL_OTHER. About 1 ns for a
 * text that begins with a word, and about 1 ns more for each byte of blanks and
 * comments before it. */
static inline bool sql_may_be_prepare(const char *text, size_t bytes)
{
    if (likely(bytes > 0 && (uint8_t)text[0] >= 'A'))
        return sql_word_may_be_prepare(text, bytes);
    return sql_may_be_prepare_behind_blanks(text, bytes);
}

/* What the text is, if it is exactly one statement; a closing `;` is no second one. `out` is
 * written for SQL_PREPARE, SQL_EXECUTE and SQL_DEALLOCATE, and undefined otherwise. */
must_check enum sql_prepare_kind sql_prepare_read(const char *text, size_t bytes,
                                                  bool standard_conforming_strings,
                                                  struct sql_prepare *out);

/* ---- texts of several statements ---- */

/* The part of sql_may_have_more for a text with a `;` at `at`. */
bool sql_may_have_more_behind(const char *text, size_t bytes, size_t at);

/* The cheap first look at a text that does not begin like one of the above: false says that none of the
 * statements behind the first one is anything but SQL_OTHER. */
static inline bool sql_may_have_more(const char *text, size_t bytes)
{
    const char *found = memchr(text, ';', bytes);

    return unlikely(found != NULL) && sql_may_have_more_behind(text, bytes, (size_t)(found - text));
}

/* Cuts a text at its `;`, those in strings, names, comments and parentheses (CREATE RULE) left out. Bytes above
 * 0x7f are passed over in strings, quoted names and comments, if the text is known to be UTF-8, where no
 * part of a character is ASCII; elsewhere they are in doubt, as is a body of BEGIN ATOMIC. */
struct sql_splitter {
    const char *text;
    size_t bytes;
    size_t at; /* what was not cut yet */
    bool standard_conforming_strings;
};

enum sql_split {
    SQL_SPLIT_STATEMENT,
    SQL_SPLIT_END,
    SQL_SPLIT_DOUBT, /* what was cut before may be wrong, too: nothing may be done with the text */
};

/* False: in doubt. */
must_check bool sql_split_begin(struct sql_splitter *splitter, const char *text, size_t bytes,
                                bool standard_conforming_strings, bool is_utf8);
/* The next statement that is not empty: its first token up to the end of its last one. */
must_check enum sql_split sql_split_next(struct sql_splitter *splitter, size_t *statement_offset,
                                         size_t *statement_bytes);

/* Is the first token of the statement this word (in lower case)? */
must_check bool sql_begins_with(const char *statement, size_t bytes, const char *word);

/* True if an unnamed statement with this text may be replaced by a prepared one: one SELECT,
 * INSERT, UPDATE, DELETE, VALUES, WITH, MERGE or TABLE in which nothing stands that PostgreSQL
 * evaluates when it reads it, as it does with the literals 'now' and 'some_table'::regclass. So no
 * literal with quotes or dollars at all. Whether the statement is correct is not looked at.
 * One pass: 100 bytes take 70 to 85 ns, 85 to 95 with many quoted names (gcc 12, -O2). Sixteen
 * bytes at a time made that 30 and 125, which was not worth its lines. */
must_check bool sql_is_cacheable(const char *text, size_t bytes);

/* ---- for other readers of SQL ---- */

/* Where the comment that begins at `at` ends; SIZE_MAX if it does not. */
must_check size_t sql_comment_end(const char *text, size_t bytes, size_t at);
/* The first byte from `at` on that is neither blank nor comment; SIZE_MAX if a comment is open. */
must_check size_t sql_skip_blanks(const char *text, size_t bytes, size_t at);
/* Behind the string in dollar quotes that begins at `at`; SIZE_MAX if none does, or it has no end. */
must_check size_t sql_dollar_string_end(const char *text, size_t bytes, size_t at);

#endif
