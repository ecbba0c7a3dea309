/* statement_class.h - may a statement share a server with those of other clients? Decided by its text
 * alone, here and nowhere else (DESIGN section 7).
 *
 * A text shares when it is one statement that only reads: it begins with SELECT, VALUES, TABLE or WITH
 * (or a parenthesis before one of them), no keyword that writes, locks or changes the session or the
 * transaction stands anywhere outside literals and quoted names, and every function that is called is
 * in a table of built-in functions that have no side effect and do not wait. Whatever is doubtful does
 * not share: that costs speed, never correctness.
 *
 * What a text cannot show: a view, an operator, a cast or a rule of the operator's own that calls a
 * function with side effects, and a function of his own that has the name of a built-in one.
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
 * STATEMENT_SHARES. */
must_check enum statement_class statement_class(const char *text, size_t bytes,
                                                bool standard_conforming_strings, bool is_utf8,
                                                uint64_t *hash);

/* The text of its class for people to read: literals replaced by `?`, blanks and comments by one blank, cut at
 * `room` bytes with the closing zero. Only for a text that shares. */
void statement_class_text(const char *text, size_t bytes, bool standard_conforming_strings,
                          char *out, size_t room);

#endif
