/* statement_class.h - may a statement share a server with those of other clients? Decided by its text
 * alone, here and nowhere else (DESIGN section 7).
 *
 * A text shares when it is one statement that only reads: it begins with SELECT, VALUES, TABLE or WITH
 * (or a parenthesis before one of them), no keyword that writes, locks or changes the session or the
 * transaction stands anywhere outside literals and quoted names, and every function that is called is
 * in a table of built-in functions that have no side effect, do not wait, run no SQL that they are given
 * and do not depend on the session. Whatever is doubtful does not share: that costs speed, never
 * correctness. So a column named comment or close must be quoted, or stand behind a dot (t.close).
 *
 * A name calls a function if a parenthesis follows it, so each such name must be in the table, or be a
 * keyword that has one. Without a parenthesis: `(a).f`, `a[1].f` and `$1.f` do, so they do not share;
 * `x.f` does if x has no column f, and x is a function in FROM that gives single values. There the names
 * of those built-in functions are refused that would do harm (all that begin with pg_, lo_ or txid_, and
 * nextval, currval, setseed ...); all other names behind a dot are taken for columns. TREAT(a AS f) calls f
 * and does not share.
 *
 * What a text cannot show, and what may do more than it seems to:
 * - a view, a rule, a policy of row security, an operator, a cast, a domain or a type of the operator's own
 *   that calls a function with side effects; a foreign table;
 * - a function of his own that has the name of one in the table, for other types, earlier in search_path, or
 *   on a server older than PostgreSQL 15, which lacks the built-in one;
 * - a function of his own on rows of a table or on single values that is called like a column, `t.f`.
 *
 * Pure: no allocation, no I/O, any thread. Bytes belong to the caller. */
#ifndef WIRE_STATEMENT_CLASS_H
#define WIRE_STATEMENT_CLASS_H

#include "base/bytes.h"

/* What is longer is not looked at. */
enum { STATEMENT_CLASS_BYTES_MAX = 8 * 1024 };

enum statement_class {
    STATEMENT_UNKNOWN, /* was not looked at */
    STATEMENT_SHARES,
    STATEMENT_NO_READ,  /* begins with another word */
    STATEMENT_KEYWORD,  /* a word in it writes, locks, or changes the session or the transaction */
    STATEMENT_FUNCTION, /* it calls a function that is not in the table */
    STATEMENT_SEVERAL,  /* a `;` with something behind it */
    STATEMENT_DOUBT, /* too long, a literal without end, bytes of an encoding that is not known ... */
    STATEMENT_CLASSES,
};

/* `text` is that of a Query or Parse message without the closing zero. `is_utf8`: the client's encoding is known
 * to be one in which no part of a character is ASCII. `hash` gets a hash of the text with literals and
 * parameters taken out, the same for `aid = 1`, `aid = 2` and `aid = $1`; never 0; only for
 * STATEMENT_SHARES. In a list of values each one counts as the first, so IN (1, 2) is IN (1); blanks, comments,
 * a `;` at the end, and how words are written (SELECT, select) do not count. Texts that differ in more have
 * different ones, but for bad luck, which makes two classes one and harms nobody.
 *
 * 90 to 130 ns for the SELECT of pgbench -S (56 bytes), 400 for 160 bytes with many quoted names, 15 for
 * what begins with another word (gcc 12, -O2, the same text again and again). */
must_check enum statement_class statement_class(const char *text, size_t bytes,
                                                bool standard_conforming_strings, bool is_utf8,
                                                uint64_t *hash);

/* The text of its class for people to read: literals replaced by `?`, blanks and comments by one blank, cut at
 * `room` bytes with the closing zero. Only for a text that shares. */
void statement_class_text(const char *text, size_t bytes, bool standard_conforming_strings,
                          char *out, size_t room);

#endif
