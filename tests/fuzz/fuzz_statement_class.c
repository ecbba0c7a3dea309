/* fuzz_statement_class.c - texts of statements from foreign bytes (wire/statement_class.h), with both ways to read
 * '\' and every encoding. */
#include "wire/sql_text.h"
#include "wire/statement_class.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* What shares is one statement for the other reader of SQL, too. */
static void check_one_statement(const char *text, size_t bytes, bool standard, bool is_utf8)
{
    struct sql_splitter splitter;
    size_t offset, count, next_offset, next_count;

    if (!sql_split_begin(&splitter, text, bytes, standard, is_utf8))
        abort();
    switch (sql_split_next(&splitter, &offset, &count)) {
    case SQL_SPLIT_STATEMENT:
        assert(sql_split_next(&splitter, &next_offset, &next_count) == SQL_SPLIT_END);
        break;
    case SQL_SPLIT_DOUBT:
        /* It knows letters above 0x7f in quotes and comments only. */
        for (offset = 0; offset < bytes && (uint8_t)text[offset] < 0x80;)
            offset++;
        assert(offset < bytes);
        break;
    default:
        abort();
    }
}

static void check_text(const char *text, size_t bytes, bool standard)
{
    enum { ROOM_MAX = 300 };

    for (size_t room = 1; room < ROOM_MAX; room = room * 3 + 1) {
        char *out = malloc(room);
        size_t count;

        assert(out != NULL);
        memset(out, 'x', room);
        statement_class_text(text, bytes, standard, out, room);
        assert(memchr(out, 0, room) != NULL);
        count = strlen(out);
        assert(count < 2 || out[0] != ' ');
        free(out);
    }
}

/* Blanks and comments between tokens change nothing. Without quotes, dollars and comments each blank is between
 * two, and each parenthesis and comma is one. */
static void check_blanks(const char *text, size_t bytes, bool standard, bool is_utf8,
                         enum statement_class class, uint64_t hash)
{
    static const char *const blanks[] = {" ", "/* ; ' /* */ */", "--'(\n", "\t\r\n\f", "--\r/**/"};
    enum { BLANK_BYTES_MAX = 15 };
    char *copy;
    size_t count = 0;
    uint64_t other_hash = 0;
    enum statement_class other;

    for (size_t at = 0; at < bytes; at++)
        if (memchr("'\"$-/", text[at], 5) != NULL)
            return;
    copy = malloc(bytes * (1 + BLANK_BYTES_MAX) + 2 * BLANK_BYTES_MAX);
    assert(copy != NULL);
    for (size_t at = 0; at <= bytes; at++) {
        bool is_between = at == 0 || at == bytes || memchr(" \t\r\n\f(),;", text[at], 9) != NULL;
        const char *blank = blanks[(at + bytes) % 5];

        if (is_between) {
            memcpy(copy + count, blank, strlen(blank));
            count += strlen(blank);
        }
        if (at < bytes)
            copy[count++] = text[at];
    }
    if (count <= STATEMENT_CLASS_BYTES_MAX) {
        other = statement_class(copy, count, standard, is_utf8, &other_hash);
        assert(other == class);
        assert(class != STATEMENT_SHARES || other_hash == hash);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    /* A copy of exactly this size, so that a byte too far is seen. */
    char *text = malloc(bytes > 0 ? bytes : 1);

    assert(text != NULL);
    if (bytes > 0)
        memcpy(text, data, bytes);
    for (int round = 0; round < 4; round++) {
        bool standard = (round & 1) != 0, is_utf8 = (round & 2) != 0;
        uint64_t hash = 0;
        enum statement_class class = statement_class(text, bytes, standard, is_utf8, &hash);

        assert(class > STATEMENT_UNKNOWN && class < STATEMENT_CLASSES);
        check_blanks(text, bytes, standard, is_utf8, class, hash);
        if (class != STATEMENT_SHARES)
            continue;
        assert(hash != 0);
        check_one_statement(text, bytes, standard, is_utf8);
        check_text(text, bytes, standard);
    }
    free(text);
    return 0;
}
