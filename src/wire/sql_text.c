#include "wire/sql_text.h"

enum token_kind {
    TOKEN_END,
    TOKEN_BAD, /* nothing that we are sure of */
    TOKEN_WORD,
    TOKEN_QUOTED, /* "identifier" */
    TOKEN_STRING,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_SEMICOLON,
    TOKEN_OTHER /* numbers, parameters, U&"identifier", single characters of operators */
};

/* How a string is read. PostgreSQL joins two strings with a line feed between them, and the second
 * is then read as the first one began. That matters only if the two are not read alike. */
enum string_kind {
    STRING_BARE,    /* '' and N'' */
    STRING_ESCAPES, /* E'' */
    STRING_BITS,    /* B'' and X'' */
    STRING_UNICODE  /* U&'' */
};

struct scanner {
    const char *text;
    size_t bytes;
    size_t at; /* behind the token */
    bool standard_conforming_strings;
    enum token_kind kind;
    enum string_kind string_kind; /* of a TOKEN_STRING */
    size_t token_offset;
    size_t last_end; /* of the token before the one that stands here */
};

static bool is_blank(char c)
{
    /* A vertical tab is one since PostgreSQL 16, so it is doubtful. */
    return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_word_part(char c)
{
    return is_word_start(c) || is_digit(c) || c == '$';
}

static char fold(char c)
{
    if (c >= 'A' && c <= 'Z')
        c = (char)((unsigned)c | 0x20);
    return c;
}

/* The byte at `at`, and zero behind the end: no token has one. */
static char byte_at(const struct scanner *scanner, size_t at)
{
    if (at < scanner->bytes)
        return scanner->text[at];
    return '\0';
}

size_t sql_comment_end(const char *text, size_t bytes, size_t at)
{
    size_t depth = 0;

    if (text[at] == '-') {
        while (at < bytes && text[at] != '\n' && text[at] != '\r')
            at++;
        return at;
    }
    while (at + 1 < bytes) {
        if (text[at] == '/' && text[at + 1] == '*') {
            depth++;
            at += 2;
        } else if (text[at] == '*' && text[at + 1] == '/') {
            at += 2;
            if (--depth == 0)
                return at;
        } else {
            at++;
        }
    }
    return SIZE_MAX;
}

static bool is_comment(const char *text, size_t bytes, size_t at)
{
    return at + 1 < bytes &&
           ((text[at] == '-' && text[at + 1] == '-') || (text[at] == '/' && text[at + 1] == '*'));
}

size_t sql_skip_blanks(const char *text, size_t bytes, size_t at)
{
    while (at < bytes) {
        if (is_blank(text[at])) {
            at++;
        } else if (is_comment(text, bytes, at)) {
            at = sql_comment_end(text, bytes, at);
            if (at == SIZE_MAX)
                return SIZE_MAX;
        } else {
            break;
        }
    }
    return at;
}

bool sql_may_be_prepare_behind_blanks(const char *text, size_t bytes)
{
    size_t at = sql_skip_blanks(text, bytes, 0);

    return at < bytes && sql_word_may_be_prepare(text + at, bytes - at);
}

/* ---- tokens ---- */

static enum token_kind read_quoted(struct scanner *scanner, size_t at, enum token_kind kind)
{
    for (at++; at < scanner->bytes; at++)
        if (scanner->text[at] == '"') {
            if (byte_at(scanner, at + 1) != '"') {
                scanner->at = at + 1;
                return kind;
            }
            at++;
        }
    return TOKEN_BAD;
}

static enum token_kind read_string(struct scanner *scanner, size_t at, enum string_kind string_kind)
{
    bool escapes = string_kind == STRING_ESCAPES ||
                   (string_kind == STRING_BARE && !scanner->standard_conforming_strings);

    if (string_kind == STRING_UNICODE && !scanner->standard_conforming_strings)
        return TOKEN_BAD;
    for (at++; at < scanner->bytes; at++) {
        char c = scanner->text[at];

        if (c == '\\' && string_kind == STRING_BITS)
            return TOKEN_BAD;
        if (c == '\\' && escapes) {
            at++;
        } else if (c == '\'') {
            if (byte_at(scanner, at + 1) != '\'') {
                scanner->at = at + 1;
                scanner->string_kind = string_kind;
                return TOKEN_STRING;
            }
            at++;
        }
    }
    return TOKEN_BAD;
}

size_t sql_dollar_string_end(const char *text, size_t bytes, size_t at)
{
    size_t start = at++, delimiter_bytes;

    if (at < bytes && is_digit(text[at]))
        return SIZE_MAX;
    while (at < bytes && (is_word_start(text[at]) || is_digit(text[at])))
        at++;
    if (at == bytes || text[at] != '$')
        return SIZE_MAX;
    delimiter_bytes = ++at - start;
    for (; at + delimiter_bytes <= bytes; at++)
        if (memcmp(text + at, text + start, delimiter_bytes) == 0)
            return at + delimiter_bytes;
    return SIZE_MAX;
}

/* A parameter or a string in dollar quotes. */
static enum token_kind read_dollar(struct scanner *scanner, size_t start)
{
    size_t at = start + 1;

    if (is_digit(byte_at(scanner, at))) {
        while (is_digit(byte_at(scanner, at)))
            at++;
        scanner->at = at;
        return is_word_start(byte_at(scanner, at)) ? TOKEN_BAD : TOKEN_OTHER;
    }
    at = sql_dollar_string_end(scanner->text, scanner->bytes, start);
    if (at == SIZE_MAX)
        return TOKEN_BAD;
    scanner->at = at;
    scanner->string_kind = STRING_UNICODE; /* nothing is joined to it */
    return TOKEN_STRING;
}

/* Versions differ in where a number ends that has letters behind it (1e, 0x1f, 1_000, 1a). That
 * matters only if a string or a dollar follows: are the letters its prefix, a word of their own? */
static enum token_kind read_number(struct scanner *scanner, size_t at)
{
    bool has_letters = false;

    while (is_digit(byte_at(scanner, at)) || is_word_start(byte_at(scanner, at)) ||
           byte_at(scanner, at) == '.') {
        has_letters |= is_word_start(byte_at(scanner, at));
        at++;
    }
    scanner->at = at;
    switch (byte_at(scanner, at)) {
    case '\'':
    case '"':
    case '$':
    case '&':
        return has_letters ? TOKEN_BAD : TOKEN_OTHER;
    default:
        return TOKEN_OTHER;
    }
}

static enum token_kind read_word(struct scanner *scanner, size_t at)
{
    size_t start = at;

    while (is_word_part(byte_at(scanner, at)))
        at++;
    if (at == start + 1) {
        char prefix = fold(scanner->text[start]), next = byte_at(scanner, at);

        if (prefix == 'u' && next == '&' && byte_at(scanner, at + 1) == '\'')
            return read_string(scanner, at + 1, STRING_UNICODE);
        if (prefix == 'u' && next == '&' && byte_at(scanner, at + 1) == '"')
            return read_quoted(scanner, at + 1, TOKEN_OTHER);
        if (prefix == 'e' && next == '\'')
            return read_string(scanner, at, STRING_ESCAPES);
        if ((prefix == 'b' || prefix == 'x') && next == '\'')
            return read_string(scanner, at, STRING_BITS);
        if (prefix == 'n' && next == '\'')
            return read_string(scanner, at, STRING_BARE);
    }
    scanner->at = at;
    return TOKEN_WORD;
}

static enum token_kind read_token(struct scanner *scanner, size_t at)
{
    static const char symbols[] = ",[].:+-*/%^<>=~!@#&|`?";
    char c = scanner->text[at];

    scanner->at = at + 1;
    if (is_word_start(c))
        return read_word(scanner, at);
    if (is_digit(c) || (c == '.' && is_digit(byte_at(scanner, at + 1))))
        return read_number(scanner, at);
    switch (c) {
    case '"':
        return read_quoted(scanner, at, TOKEN_QUOTED);
    case '\'':
        return read_string(scanner, at, STRING_BARE);
    case '$':
        return read_dollar(scanner, at);
    case '(':
        return TOKEN_OPEN;
    case ')':
        return TOKEN_CLOSE;
    case ';':
        return TOKEN_SEMICOLON;
    default:
        return memchr(symbols, c, sizeof(symbols) - 1) != NULL ? TOKEN_OTHER : TOKEN_BAD;
    }
}

static void next_token(struct scanner *scanner)
{
    size_t at = sql_skip_blanks(scanner->text, scanner->bytes, scanner->at);
    bool joins = scanner->kind == TOKEN_STRING && scanner->string_kind != STRING_BARE;

    scanner->last_end = scanner->at;
    scanner->token_offset = at;
    if (at == scanner->bytes)
        scanner->kind = TOKEN_END;
    else if (at == SIZE_MAX || (joins && scanner->text[at] == '\''))
        scanner->kind = TOKEN_BAD;
    else
        scanner->kind = read_token(scanner, at);
}

/* ---- statements ---- */

static bool bytes_are_word(const char *bytes, const char *word, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fold(bytes[i]) != word[i])
            return false;
    return true;
}

static bool is_word(const struct scanner *scanner, const char *word)
{
    size_t count = strlen(word);

    return scanner->kind == TOKEN_WORD && scanner->at - scanner->token_offset == count &&
           bytes_are_word(scanner->text + scanner->token_offset, word, count);
}

/* True if the first word is that of a statement that can be planned. */
static bool begins_with_verb(const char *text, size_t bytes)
{
    static const char verbs[][sizeof("select")] = {"select", "insert", "update", "delete",
                                                   "values", "with",   "merge",  "table"};

    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        size_t count = strlen(verbs[i]);

        if (bytes >= count && bytes_are_word(text, verbs[i], count))
            return bytes == count || !is_word_part(text[count]);
    }
    return false;
}

/* Walks over the word if it stands here. */
static bool take_word(struct scanner *scanner, const char *word)
{
    if (!is_word(scanner, word))
        return false;
    next_token(scanner);
    return true;
}

/* Walks over what stands in parentheses. */
static bool take_parentheses(struct scanner *scanner)
{
    size_t depth = 1;

    for (next_token(scanner);; next_token(scanner))
        switch (scanner->kind) {
        case TOKEN_OPEN:
            depth++;
            break;
        case TOKEN_CLOSE:
            if (--depth > 0)
                break;
            next_token(scanner);
            return true;
        case TOKEN_END:
        case TOKEN_BAD:
        case TOKEN_SEMICOLON:
            return false;
        default:
            break;
        }
}

/* The list behind a name may be missing, but not empty. */
static bool take_list_if_any(struct scanner *scanner)
{
    struct scanner before = *scanner;

    if (scanner->kind != TOKEN_OPEN)
        return true;
    next_token(scanner);
    if (scanner->kind == TOKEN_CLOSE)
        return false;
    *scanner = before;
    return take_parentheses(scanner);
}

static bool take_name(struct scanner *scanner, struct sql_prepare *out)
{
    size_t count = 0;

    if (scanner->kind != TOKEN_WORD && scanner->kind != TOKEN_QUOTED)
        return false;
    out->written_offset = scanner->token_offset;
    out->written_bytes = scanner->at - scanner->token_offset;
    if (scanner->kind == TOKEN_QUOTED) {
        for (size_t at = scanner->token_offset + 1; at < scanner->at - 1; at++) {
            at += scanner->text[at] == '"';
            if (count < SQL_NAME_BYTES_MAX)
                out->name[count++] = scanner->text[at];
        }
    } else {
        for (size_t at = scanner->token_offset; at < scanner->at; at++)
            if (count < SQL_NAME_BYTES_MAX)
                out->name[count++] = fold(scanner->text[at]);
    }
    out->name[count] = '\0';
    out->name_bytes = count;
    next_token(scanner);
    out->rest_offset = scanner->token_offset;
    out->rest_bytes = 0;
    return count > 0;
}

/* True if nothing but semicolons follows. */
static bool at_end(struct scanner *scanner)
{
    while (scanner->kind == TOKEN_SEMICOLON)
        next_token(scanner);
    return scanner->kind == TOKEN_END;
}

/* As at_end, and what lies between the name and here is what follows it. */
static bool at_end_of_rest(struct scanner *scanner, struct sql_prepare *out)
{
    if (scanner->last_end > out->rest_offset)
        out->rest_bytes = scanner->last_end - out->rest_offset;
    else
        out->rest_offset = out->written_offset + out->written_bytes;
    return at_end(scanner);
}

/* PREPARE name [ (type, ...) ] AS statement */
static bool read_prepare(struct scanner *scanner, struct sql_prepare *out)
{
    if (!take_name(scanner, out) || !take_list_if_any(scanner) || !take_word(scanner, "as"))
        return false;
    if (scanner->kind != TOKEN_OPEN &&
        (scanner->kind != TOKEN_WORD || !begins_with_verb(scanner->text + scanner->token_offset,
                                                          scanner->bytes - scanner->token_offset)))
        return false;
    for (;;)
        switch (scanner->kind) {
        case TOKEN_OPEN:
            if (!take_parentheses(scanner))
                return false;
            break;
        case TOKEN_CLOSE:
        case TOKEN_BAD:
            return false;
        case TOKEN_END:
        case TOKEN_SEMICOLON:
            return at_end_of_rest(scanner, out);
        default:
            next_token(scanner);
        }
}

/* name [ (parameters) ] [ WITH [ NO ] DATA ] */
static bool read_execute(struct scanner *scanner, bool creates_table, struct sql_prepare *out)
{
    if (!take_name(scanner, out) || !take_list_if_any(scanner))
        return false;
    if (creates_table && take_word(scanner, "with")) {
        (void)take_word(scanner, "no");
        if (!take_word(scanner, "data"))
            return false;
    }
    return at_end_of_rest(scanner, out);
}

/* [ LOCAL | GLOBAL ] [ TEMP | TEMPORARY | UNLOGGED ] TABLE ... AS EXECUTE name ... */
static bool read_create(struct scanner *scanner, struct sql_prepare *out)
{
    bool behind_dot = false;

    if (take_word(scanner, "local") || take_word(scanner, "global")) {
        if (!take_word(scanner, "temp") && !take_word(scanner, "temporary"))
            return false;
    } else if (!take_word(scanner, "temp") && !take_word(scanner, "temporary")) {
        (void)take_word(scanner, "unlogged");
    }
    if (!take_word(scanner, "table") || is_word(scanner, "as"))
        return false;
    /* Behind a dot each keyword is a name. */
    while (behind_dot || !is_word(scanner, "as"))
        switch (scanner->kind) {
        case TOKEN_OPEN:
            behind_dot = false;
            if (!take_parentheses(scanner))
                return false;
            break;
        case TOKEN_CLOSE:
        case TOKEN_BAD:
        case TOKEN_END:
        case TOKEN_SEMICOLON:
            return false;
        default:
            behind_dot = scanner->text[scanner->token_offset] == '.';
            next_token(scanner);
        }
    next_token(scanner);
    return take_word(scanner, "execute") && read_execute(scanner, true, out);
}

/* [ ANALYZE ] [ VERBOSE ] or (options), then EXECUTE or CREATE TABLE AS EXECUTE */
static bool read_explain(struct scanner *scanner, struct sql_prepare *out)
{
    if (scanner->kind == TOKEN_OPEN) {
        if (!take_parentheses(scanner))
            return false;
    } else {
        if (!take_word(scanner, "analyze"))
            (void)take_word(scanner, "analyse");
        (void)take_word(scanner, "verbose");
    }
    if (take_word(scanner, "execute"))
        return read_execute(scanner, false, out);
    return take_word(scanner, "create") && read_create(scanner, out);
}

/* [ PREPARE ] { name | ALL }; `prepare` is a name too, if it is the last word. */
static enum sql_prepare_kind read_deallocate(struct scanner *scanner, struct sql_prepare *out)
{
    struct scanner before = *scanner;

    if (take_word(scanner, "prepare") &&
        (scanner->kind == TOKEN_END || scanner->kind == TOKEN_SEMICOLON))
        *scanner = before;
    if (take_word(scanner, "all"))
        return at_end(scanner) ? SQL_DEALLOCATE_ALL : SQL_OTHER;
    return take_name(scanner, out) && at_end_of_rest(scanner, out) && out->rest_bytes == 0
               ? SQL_DEALLOCATE
               : SQL_OTHER;
}

/* A zero is as bad as a byte above 0x7f. No early end, so that the compiler takes many at once. */
static bool has_byte_not_ascii(const char *text, size_t bytes)
{
    bool found = false;

    for (size_t i = 0; i < bytes; i++)
        found |= (uint8_t)(text[i] - 1) >= 0x7f;
    return found;
}

enum sql_prepare_kind sql_prepare_read(const char *text, size_t bytes,
                                       bool standard_conforming_strings, struct sql_prepare *out)
{
    struct scanner scanner = {
        .text = text, .bytes = bytes, .standard_conforming_strings = standard_conforming_strings};

    if (!sql_may_be_prepare(text, bytes) || has_byte_not_ascii(text, bytes))
        return SQL_OTHER;
    next_token(&scanner);
    if (take_word(&scanner, "prepare"))
        return read_prepare(&scanner, out) ? SQL_PREPARE : SQL_OTHER;
    if (take_word(&scanner, "execute"))
        return read_execute(&scanner, false, out) ? SQL_EXECUTE : SQL_OTHER;
    if (take_word(&scanner, "explain"))
        return read_explain(&scanner, out) ? SQL_EXECUTE : SQL_OTHER;
    if (take_word(&scanner, "create"))
        return read_create(&scanner, out) ? SQL_EXECUTE : SQL_OTHER;
    if (take_word(&scanner, "deallocate"))
        return read_deallocate(&scanner, out);
    if (take_word(&scanner, "discard") && take_word(&scanner, "all") && at_end(&scanner))
        return SQL_DISCARD_ALL;
    return SQL_OTHER;
}

/* ---- texts of several statements ---- */

bool sql_may_have_more_behind(const char *text, size_t bytes, size_t at)
{
    const char *found = text + at;

    do {
        at = (size_t)(found - text) + 1;
        while (at < bytes && is_blank(text[at]))
            at++;
        if (at == bytes)
            return false;
        /* What is behind a comment is for the splitter, which reads each one once. */
        if (is_comment(text, bytes, at) || sql_word_may_be_prepare(text + at, bytes - at))
            return true;
        found = memchr(text + at, ';', bytes - at);
    } while (found != NULL);
    return false;
}

bool sql_split_begin(struct sql_splitter *splitter, const char *text, size_t bytes,
                     bool standard_conforming_strings, bool is_utf8)
{
    *splitter = (struct sql_splitter){
        .text = text,
        .bytes = bytes,
        .standard_conforming_strings = standard_conforming_strings,
    };
    if (!has_byte_not_ascii(text, bytes))
        return true;
    return is_utf8 && memchr(text, 0, bytes) == NULL;
}

enum sql_split sql_split_next(struct sql_splitter *splitter, size_t *statement_offset,
                              size_t *statement_bytes)
{
    struct scanner scanner = {
        .text = splitter->text,
        .bytes = splitter->bytes,
        .at = splitter->at,
        .standard_conforming_strings = splitter->standard_conforming_strings,
    };
    size_t depth = 0;

    do {
        next_token(&scanner);
    } while (scanner.kind == TOKEN_SEMICOLON);
    if (scanner.kind == TOKEN_END)
        return SQL_SPLIT_END;
    *statement_offset = scanner.token_offset;
    for (;; next_token(&scanner))
        switch (scanner.kind) {
        case TOKEN_OPEN:
            depth++;
            break;
        case TOKEN_CLOSE:
            if (depth-- == 0)
                return SQL_SPLIT_DOUBT;
            break;
        case TOKEN_BAD:
            return SQL_SPLIT_DOUBT;
        case TOKEN_WORD:
            if (is_word(&scanner, "atomic"))
                return SQL_SPLIT_DOUBT;
            break;
        case TOKEN_END:
        case TOKEN_SEMICOLON:
            if (depth > 0 && scanner.kind == TOKEN_END)
                return SQL_SPLIT_DOUBT;
            if (depth > 0)
                break;
            *statement_bytes = scanner.last_end - *statement_offset;
            splitter->at = scanner.at;
            if (scanner.kind == TOKEN_END)
                splitter->at = splitter->bytes;
            return SQL_SPLIT_STATEMENT;
        default:
            break;
        }
}

bool sql_begins_with(const char *statement, size_t bytes, const char *word)
{
    size_t count = strlen(word);

    return bytes >= count && bytes_are_word(statement, word, count) &&
           (bytes == count || !is_word_part(statement[count]));
}

/* ---- what may be cached ---- */

/* Two sets of bytes as bits, so that nothing has to be in the cache: those that cannot begin a
 * literal, a comment, a quoted name or another statement. */
#define BYTE_BIT(c) (UINT64_C(1) << ((c)&63))

static bool is_ordinary(uint8_t c)
{
    const uint64_t below_64 = (UINT64_MAX << 33 & ~BYTE_BIT('"') & ~BYTE_BIT('$') & ~BYTE_BIT('&') &
                               ~BYTE_BIT('\'') & ~BYTE_BIT('-') & ~BYTE_BIT('/') & ~BYTE_BIT(';')) |
                              BYTE_BIT(' ') | BYTE_BIT('\t') | BYTE_BIT('\n') | BYTE_BIT('\r') |
                              BYTE_BIT('\f');
    const uint64_t from_64 = UINT64_MAX & ~BYTE_BIT('\\') & ~BYTE_BIT(0x7f);

    return c < 128 && ((c < 64 ? below_64 : from_64) >> (c & 63) & 1) != 0;
}

bool sql_is_cacheable(const char *text, size_t bytes)
{
    size_t at = sql_skip_blanks(text, bytes, 0), end;

    if (at >= bytes || !begins_with_verb(text + at, bytes - at) || has_byte_not_ascii(text, at))
        return false;
    /* Behind the first letter there is always a byte before the one looked at. */
    for (at++; at < bytes; at++) {
        if (likely(is_ordinary((uint8_t)text[at])))
            continue;
        switch (text[at]) {
        case '"':
            for (end = at + 1; end < bytes && text[end] != '"';)
                end++;
            if (end == bytes || has_byte_not_ascii(text + at, end - at))
                return false;
            at = end;
            break;
        case '-':
        case '/':
            if (!is_comment(text, bytes, at))
                break;
            end = sql_comment_end(text, bytes, at);
            if (end == SIZE_MAX || has_byte_not_ascii(text + at, end - at))
                return false;
            at = end - 1;
            break;
        case '$':
            if (at + 1 == bytes || !is_digit(text[at + 1]))
                return false;
            break;
        case '&':
            if (fold(text[at - 1]) == 'u')
                return false;
            break;
        case ';':
            return sql_skip_blanks(text, bytes, at + 1) == bytes &&
                   !has_byte_not_ascii(text + at, bytes - at);
        default:
            return false;
        }
    }
    return true;
}
