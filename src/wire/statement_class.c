#include "wire/statement_class.h"

#include "wire/sql_text.h"

/* One pass over the tokens. It knows no grammar, but the two or three tokens before each one, and that is enough:
 * PostgreSQL refuses most of what is not a SELECT and begins like one, and of what it takes, what we
 * cannot tell from a harmless text is refused here.
 *
 * One statement that begins with SELECT, VALUES, TABLE or WITH can write in these ways only:
 * - INSERT, UPDATE, DELETE and MERGE in WITH; INTO; FOR UPDATE, FOR SHARE and their like. Words.
 * - A function. In most places its name stands in front of a parenthesis, but (1.5).pg_sleep and, for a function in
 *   FROM with a value of one column, x.pg_sleep are calls, too, and so is TREAT(1.5 AS pg_sleep).
 * All other words that are refused can stand in a SELECT only as names. They are refused so that a mistake
 * about where a statement ends is not enough. */

/* ---- words ---- */

#define BIT_64(number) (UINT64_C(1) << (number))

/* What a token is, as bits. Each word of a list has its list's, and some have one more. */
enum {
    /* tokens */
    NAME = BIT_64(0), /* a word or "name" */
    QUOTED = BIT_64(1),
    ATTRIBUTE = BIT_64(2), /* a name behind a dot */
    VALUE = BIT_64(3),     /* literal, number, parameter */
    OPEN = BIT_64(4),
    CLOSE = BIT_64(5),
    DOT = BIT_64(6),
    COMMA = BIT_64(7),
    SEMICOLON = BIT_64(8),
    OTHER = BIT_64(9),
    END = BIT_64(10),
    BAD = BIT_64(11),
    CALL = BIT_64(42), /* a name that calls a function that may be harmful */
    /* words */
    FUNCTION = BIT_64(12), /* in pg_catalog, and harmless */
    BRACKET = BIT_64(13),  /* a keyword that no function has as its name, and that a ( may follow */
    FORBIDDEN = BIT_64(14),     /* keywords that are more than a read */
    FORBIDDEN_TOO = BIT_64(15), /* even behind a dot */
    HARMFUL = BIT_64(16),       /* functions of one argument that are to be feared as `x.name` */
    READ = BIT_64(17),          /* what a statement may begin with */
    INTRODUCTION = BIT_64(18),  /* behind it stands a new name, which may have a list of columns */
    BEHIND_CLOSE = BIT_64(19),  /* keywords only behind a closing parenthesis */
    BEFORE_BY = BIT_64(20),
    CHARACTERS = BIT_64(21),
    /* single words that need one for the context */
    WORD_AS = BIT_64(22),
    WORD_BY = BIT_64(23),
    WORD_DISTINCT = BIT_64(24),
    WORD_FOR_KEY = BIT_64(25), /* FOR or KEY */
    WORD_GROUP = BIT_64(26),
    WORD_GROUPING = BIT_64(27),
    WORD_JOIN = BIT_64(28),
    WORD_MATERIALIZED = BIT_64(29),
    WORD_NOT = BIT_64(30),
    WORD_ON = BIT_64(31),
    WORD_PG_CATALOG = BIT_64(32),
    WORD_ROLLUP_CUBE = BIT_64(33),
    WORD_SAMPLER = BIT_64(34),
    WORD_SETS = BIT_64(35),
    WORD_SHARE = BIT_64(36),
    WORD_TABLESAMPLE = BIT_64(37),
    WORD_TIME = BIT_64(38),
    WORD_VARYING = BIT_64(39),
    WORD_ZONE = BIT_64(40),
    WORD_VALUES = BIT_64(41),
};

static const struct {
    uint64_t bits;
    const char *words;
} word_lists[] = {
    {READ, "select with values table"},
    {INTRODUCTION, "with recursive as"},
    {FORBIDDEN, "insert update delete merge into returning "
                "set reset lock copy call do execute prepare deallocate discard "
                "begin start commit rollback savepoint release abort "
                "declare move close listen unlisten notify load "
                "create alter drop truncate grant revoke vacuum analyze analyse cluster reindex "
                "refresh checkpoint "
                "comment security explain show import reassign"},
    {FORBIDDEN_TOO, "atomic"},

    /* Keywords that are reserved, or cannot be names of functions (pg_get_keywords: R and C). TREAT is none of them:
     * TREAT(x AS f) calls pg_catalog.f. */
    {BRACKET,
     "all and any array as between both case cast coalesce current_time current_timestamp dec "
     "decimal "
     "distinct else except exists extract float for from greatest group grouping having in "
     "intersect lateral "
     "leading least limit localtime localtimestamp nchar not nullif offset on only or order row "
     "select "
     "some symmetric asymmetric then to trailing trim union using values variadic when where "
     "bigint boolean integer int smallint real normalize overlay position substring char character "
     "varchar numeric bit interval time timestamp"},

    /* Functions of pg_catalog that do not write, wait, or know the session, in any form that has this name. */
    {FUNCTION,
     /* numbers */
     "abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos "
     "cosd cosh cot cotd degrees div exp factorial floor gcd lcm ln log log10 min_scale mod pi "
     "pow power radians round scale sign sin sind sinh sqrt tan tand tanh trim_scale trunc "
     "width_bucket "
     /* strings and bytes */
     "ascii bit_count bit_length btrim char_length character_length chr concat concat_ws convert "
     "convert_from convert_to decode encode format get_bit get_byte initcap is_normalized left "
     "length like like_escape lower lpad ltrim md5 normalize notlike octet_length overlay "
     "parse_ident position quote_ident quote_literal quote_nullable regexp_count regexp_instr "
     "regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array "
     "regexp_split_to_table regexp_substr repeat replace reverse right rpad rtrim set_bit "
     "set_byte sha224 sha256 sha384 sha512 split_part starts_with string_to_array "
     "string_to_table strpos substr substring to_ascii to_hex translate unistr upper "
     /* aggregates, window functions */
     "array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp "
     "cume_dist dense_rank every first_value json_agg json_object_agg jsonb_agg jsonb_object_agg "
     "lag last_value lead max min mode nth_value ntile percent_rank percentile_cont "
     "percentile_disc range_agg range_intersect_agg rank regr_avgx regr_avgy regr_count "
     "regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy row_number stddev stddev_pop "
     "stddev_samp string_agg sum var_pop var_samp variance "
     /* date and time; clock_timestamp and gen_random_uuid are volatile, but touch nothing */
     "age clock_timestamp date_bin date_part date_trunc extract isfinite justify_days "
     "justify_hours justify_interval make_date make_interval make_time make_timestamp "
     "make_timestamptz now overlaps statement_timestamp timezone to_char to_date to_number "
     "to_timestamp transaction_timestamp gen_random_uuid "
     /* json */
     "array_to_json json_array_elements json_array_elements_text json_array_length "
     "json_build_array json_build_object json_each json_each_text json_extract_path "
     "json_extract_path_text json_object json_object_keys json_populate_record "
     "json_populate_recordset json_strip_nulls json_to_record json_to_recordset json_typeof "
     "jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array "
     "jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text "
     "jsonb_insert jsonb_object jsonb_object_keys jsonb_path_exists jsonb_path_exists_tz "
     "jsonb_path_match jsonb_path_match_tz jsonb_path_query jsonb_path_query_array "
     "jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz "
     "jsonb_path_query_tz jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set "
     "jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof "
     "row_to_json to_json to_jsonb "
     /* arrays, ranges, enums, sets */
     "array_append array_cat array_dims array_fill array_length array_lower array_ndims "
     "array_position array_positions array_prepend array_remove array_replace array_to_string "
     "array_upper cardinality trim_array enum_first enum_last enum_range isempty lower_inc "
     "lower_inf multirange range_merge upper_inc upper_inf int4range int8range numrange "
     "daterange tsrange tstzrange int4multirange int8multirange nummultirange datemultirange "
     "tsmultirange tstzmultirange generate_series generate_subscripts unnest num_nonnulls "
     "num_nulls "
     /* text search */
     "array_to_tsvector json_to_tsvector jsonb_to_tsvector numnode phraseto_tsquery "
     "plainto_tsquery querytree setweight to_tsquery to_tsvector ts_delete ts_filter ts_headline "
     "ts_rank ts_rank_cd tsquery_phrase tsvector_to_array websearch_to_tsquery "
     /* networks, geometry; not names that somebody may well have a function of his own for, like area */
     "inet_merge inet_same_family set_masklen macaddr8_set7bit bound_box box circle lseg point "
     "polygon "
     /* types as functions, or with a modifier */
     "bit bool bpchar char cidr date float4 float8 int2 int4 int8 interval numeric oid regclass "
     "text time timestamp timestamptz timetz varbit varchar "
     /* about values and names */
     "current_database current_schema current_schemas format_type pg_column_size pg_size_bytes "
     "pg_size_pretty pg_typeof to_regclass to_regnamespace to_regproc to_regprocedure to_regrole "
     "to_regtype"},
    {HARMFUL, "amvalidate brin_summarize_new_values currval gin_clean_pending_list nextval "
              "plpgsql_validator setseed "
              "ts_stat loread lowrite"},

    {BEHIND_CLOSE, "over filter repeatable"},
    {BEFORE_BY, "group order partition"},
    {CHARACTERS, "bit char character nchar"},
    {WORD_AS, "as"},
    {WORD_BY, "by"},
    {WORD_DISTINCT, "distinct"},
    {WORD_FOR_KEY, "for key"},
    {WORD_GROUP, "group"},
    {WORD_GROUPING, "grouping"},
    {WORD_JOIN, "join"},
    {WORD_MATERIALIZED, "materialized"},
    {WORD_NOT, "not"},
    {WORD_ON, "on"},
    {WORD_PG_CATALOG, "pg_catalog"},
    {WORD_ROLLUP_CUBE, "rollup cube"},
    {WORD_SAMPLER, "system bernoulli"},
    {WORD_SETS, "sets"},
    {WORD_SHARE, "share"},
    {WORD_TABLESAMPLE, "tablesample"},
    {WORD_TIME, "time"},
    {WORD_VARYING, "varying"},
    {WORD_ZONE, "zone"},
    {WORD_VALUES, "values"},
};

/* A word's bytes as two numbers, with the bit of small letters set: different words are different, as long as they
 * have the same length, at most WORD_BYTES_MAX, and no byte above 0x7f. */
enum { WORD_BYTES_MAX = 32, WORDS_MAX = 640, SLOTS = 2048 };

struct word_key {
    uint64_t first, last, hash;
};

static struct word {
    uint64_t first, last;
    uint64_t bits;
    const char *text;
    size_t bytes;
} words[WORDS_MAX];

static uint16_t slots[SLOTS]; /* index into words; 0: nothing */

#define SMALL UINT64_C(0x2020202020202020)

static inline uint64_t load_8(const char *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint64_t load_4(const char *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 32;
}

/* Reads no byte beyond the word. */
static inline struct word_key word_key(const char *at, size_t bytes)
{
    struct word_key key = {.last = SMALL};

    if (bytes >= 8) {
        key.first = load_8(at);
        key.last |= load_8(at + bytes - 8);
    } else if (bytes >= 4) {
        key.first = load_4(at) | load_4(at + bytes - 4) << 32;
    } else {
        key.first = (uint8_t)at[0] | (uint64_t)(uint8_t)at[bytes / 2] << 8 |
                    (uint64_t)(uint8_t)at[bytes - 1] << 16;
    }
    key.first |= SMALL;
    key.hash =
        key.first * UINT64_C(0x9e3779b97f4a7c15) + key.last * UINT64_C(0xbf58476d1ce4e5b9) + bytes;
    key.hash ^= key.hash >> 32;
    for (size_t i = 8; i + 8 < bytes; i += 8)
        key.hash = mix(key.hash, load_8(at + i) | SMALL);
    return key;
}

static bool is_same_word(const char *text, const char *word, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if ((text[i] | 0x20) != (word[i] | 0x20))
            return false;
    return true;
}

static inline struct word *word_find(const char *text, size_t bytes, const struct word_key *key)
{
    for (size_t slot = key->hash % SLOTS; slots[slot] != 0; slot = (slot + 1) % SLOTS) {
        struct word *word = &words[slots[slot]];

        if (word->first == key->first && word->last == key->last && word->bytes == bytes &&
            (bytes <= 16 || is_same_word(text, word->text, bytes)))
            return word;
    }
    return NULL;
}

/* Before main, so that whoever calls, in whatever thread, finds it done. */
__attribute__((constructor)) static void fill_words(void)
{
    size_t count = 1; /* 0 is nothing */

    for (size_t i = 0; i < sizeof(word_lists) / sizeof(word_lists[0]); i++)
        for (const char *at = word_lists[i].words; at[0] != '\0';) {
            size_t bytes = strcspn(at, " "), slot;
            struct word_key key = word_key(at, bytes);
            struct word *word = word_find(at, bytes, &key);

            assert(bytes > 0 && bytes <= WORD_BYTES_MAX);
            if (word == NULL) {
                assert(count < WORDS_MAX);
                for (slot = key.hash % SLOTS; slots[slot] != 0;)
                    slot = (slot + 1) % SLOTS;
                slots[slot] = (uint16_t)count;
                word = &words[count++];
                *word =
                    (struct word){.first = key.first, .last = key.last, .text = at, .bytes = bytes};
            }
            word->bits |= word_lists[i].bits;
            at += bytes + (at[bytes] == ' ');
        }
}

/* ---- tokens ---- */

enum byte_kind {
    BYTE_BAD, /* as are a backslash, a vertical tab (a blank since PostgreSQL 16) ... */
    BYTE_BLANK,
    BYTE_OPERATOR, /* also brackets, colons */
    BYTE_COMMENT,  /* begins one, if the next one is right */
    BYTE_QUOTE,
    BYTE_DOUBLE_QUOTE,
    BYTE_OPEN,
    BYTE_CLOSE,
    BYTE_DOT,
    BYTE_COMMA,
    BYTE_SEMICOLON,
    /* parts of words */
    BYTE_DOLLAR,
    BYTE_DIGIT,
    BYTE_LETTER,
};

static const uint8_t byte_kinds[256] = {
    [' '] = BYTE_BLANK,          ['\t'] = BYTE_BLANK,
    ['\n'] = BYTE_BLANK,         ['\r'] = BYTE_BLANK,
    ['\f'] = BYTE_BLANK,         ['['] = BYTE_OPERATOR,
    [']'] = BYTE_OPERATOR,       [':'] = BYTE_OPERATOR,
    ['+'] = BYTE_OPERATOR,       ['*'] = BYTE_OPERATOR,
    ['%'] = BYTE_OPERATOR,       ['^'] = BYTE_OPERATOR,
    ['<'] = BYTE_OPERATOR,       ['>'] = BYTE_OPERATOR,
    ['='] = BYTE_OPERATOR,       ['~'] = BYTE_OPERATOR,
    ['!'] = BYTE_OPERATOR,       ['@'] = BYTE_OPERATOR,
    ['#'] = BYTE_OPERATOR,       ['&'] = BYTE_OPERATOR,
    ['|'] = BYTE_OPERATOR,       ['`'] = BYTE_OPERATOR,
    ['?'] = BYTE_OPERATOR,       ['-'] = BYTE_COMMENT,
    ['/'] = BYTE_COMMENT,        ['\''] = BYTE_QUOTE,
    ['"'] = BYTE_DOUBLE_QUOTE,   ['('] = BYTE_OPEN,
    [')'] = BYTE_CLOSE,          ['.'] = BYTE_DOT,
    [','] = BYTE_COMMA,          [';'] = BYTE_SEMICOLON,
    ['$'] = BYTE_DOLLAR,         ['0' ... '9'] = BYTE_DIGIT,
    ['A' ... 'Z'] = BYTE_LETTER, ['a' ... 'z'] = BYTE_LETTER,
    ['_'] = BYTE_LETTER,         [0x80 ... 0xff] = BYTE_LETTER,
};

struct tokens {
    const char *text;
    size_t bytes;
    size_t start; /* the token that was read */
    size_t at;    /* behind it */
    bool standard_conforming_strings;
};

/* BYTE_BAD behind the end: nothing goes on there. */
static inline enum byte_kind byte_kind_at(const struct tokens *tokens, size_t at)
{
    return at < tokens->bytes ? (enum byte_kind)byte_kinds[(uint8_t)tokens->text[at]] : BYTE_BAD;
}

static inline bool is_word_part(enum byte_kind kind)
{
    return kind >= BYTE_DOLLAR;
}

static inline bool byte_is(const struct tokens *tokens, size_t at, char c)
{
    return at < tokens->bytes && tokens->text[at] == c;
}

static uint64_t read_string(struct tokens *tokens, size_t at)
{
    const char *end = tokens->text + tokens->bytes, *from = tokens->text + at, *found = from;

    for (;; found += 2) {
        found = memchr(found, '\'', (size_t)(end - found));
        if (found == NULL)
            return BAD;
        if (found + 1 == end || found[1] != '\'')
            break;
    }
    if (!tokens->standard_conforming_strings && memchr(from, '\\', (size_t)(found - from)) != NULL)
        return BAD;
    tokens->at = (size_t)(found - tokens->text) + 1;
    return VALUE;
}

/* PostgreSQL joins strings with a line feed between them, and the second is read as the first one began. That
 * matters for those that are not read like ''. */
static uint64_t read_joined(struct tokens *tokens, size_t at)
{
    size_t next = sql_skip_blanks(tokens->text, tokens->bytes, at);

    if (next == SIZE_MAX || byte_is(tokens, next, '\''))
        return BAD;
    tokens->at = at;
    return VALUE;
}

/* E''. No bytes above 0x7f: some encodings have a backslash for a character that is none in Unicode, and PostgreSQL
 * looks at the string in the encoding of the database. */
static uint64_t read_escape_string(struct tokens *tokens, size_t at)
{
    for (; at < tokens->bytes; at++) {
        if ((uint8_t)tokens->text[at] > 0x7f)
            return BAD;
        if (tokens->text[at] == '\\') {
            at++;
            if (at < tokens->bytes && (uint8_t)tokens->text[at] > 0x7f)
                return BAD;
        } else if (tokens->text[at] == '\'') {
            if (!byte_is(tokens, at + 1, '\''))
                return read_joined(tokens, at + 1);
            at++;
        }
    }
    return BAD;
}

static uint64_t read_quoted(struct tokens *tokens, size_t at)
{
    const char *end = tokens->text + tokens->bytes, *found = tokens->text + at;

    for (;; found += 2) {
        found = memchr(found, '"', (size_t)(end - found));
        if (found == NULL)
            return BAD;
        if (found + 1 == end || found[1] != '"')
            break;
    }
    tokens->at = (size_t)(found - tokens->text) + 1;
    return tokens->at - tokens->start > 2 ? NAME | QUOTED : BAD;
}

/* A parameter or a string in dollar quotes. */
static uint64_t read_dollar(struct tokens *tokens, size_t at)
{
    if (byte_kind_at(tokens, at + 1) == BYTE_DIGIT) {
        for (at++; byte_kind_at(tokens, at) == BYTE_DIGIT;)
            at++;
        tokens->at = at;
        return is_word_part(byte_kind_at(tokens, at)) ? BAD : VALUE;
    }
    at = sql_dollar_string_end(tokens->text, tokens->bytes, at);
    return at == SIZE_MAX ? BAD : read_joined(tokens, at);
}

/* 1, 1.5, .5, 1., 1e5. Versions differ in where a number ends that has letters behind it, and 1INTO has been two words:
 * so nothing may follow that could belong to it. */
static uint64_t read_number(struct tokens *tokens, size_t at)
{
    while (byte_kind_at(tokens, at) == BYTE_DIGIT)
        at++;
    if (byte_is(tokens, at, '.'))
        for (at++; byte_kind_at(tokens, at) == BYTE_DIGIT;)
            at++;
    if (byte_is(tokens, at, 'e') || byte_is(tokens, at, 'E')) {
        at++;
        if (byte_is(tokens, at, '+') || byte_is(tokens, at, '-'))
            at++;
        if (byte_kind_at(tokens, at) != BYTE_DIGIT)
            return BAD;
        while (byte_kind_at(tokens, at) == BYTE_DIGIT)
            at++;
    }
    tokens->at = at;
    switch (byte_kind_at(tokens, at)) {
    case BYTE_DOT:
    case BYTE_QUOTE:
    case BYTE_DOUBLE_QUOTE:
    case BYTE_DOLLAR:
    case BYTE_DIGIT:
    case BYTE_LETTER:
        return BAD;
    default:
        return byte_is(tokens, at, '&') ? BAD : VALUE;
    }
}

/* Only E'' of the strings with a letter is understood. */
static uint64_t read_short_word(struct tokens *tokens)
{
    size_t at = tokens->at;
    char prefix = (char)(tokens->text[tokens->start] | 0x20);

    if (byte_is(tokens, at, '\'')) {
        if (prefix == 'e')
            return read_escape_string(tokens, at + 1);
        return prefix == 'b' || prefix == 'x' || prefix == 'n' ? BAD : NAME;
    }
    if (prefix == 'u' && byte_is(tokens, at, '&') &&
        (byte_is(tokens, at + 1, '\'') || byte_is(tokens, at + 1, '"')))
        return BAD;
    return NAME;
}

/* The next token; its word's bits are not looked up here. */
static inline uint64_t next_token(struct tokens *tokens)
{
    size_t at = tokens->at;
    enum byte_kind kind;

    for (;;) {
        if (at == tokens->bytes)
            return END;
        kind = byte_kind_at(tokens, at);
        if (kind == BYTE_BLANK) {
            at++;
        } else if (unlikely(kind == BYTE_COMMENT) &&
                   byte_is(tokens, at + 1, tokens->text[at] == '-' ? '-' : '*')) {
            at = sql_comment_end(tokens->text, tokens->bytes, at);
            if (at == SIZE_MAX)
                return BAD;
        } else {
            break;
        }
    }
    tokens->start = at;
    tokens->at = at + 1;
    switch (kind) {
    case BYTE_LETTER:
        for (at++; is_word_part(byte_kind_at(tokens, at));)
            at++;
        tokens->at = at;
        return unlikely(at == tokens->start + 1) ? read_short_word(tokens) : NAME;
    case BYTE_DIGIT:
        return read_number(tokens, at);
    case BYTE_DOT:
        return byte_kind_at(tokens, at + 1) == BYTE_DIGIT ? read_number(tokens, at) : DOT;
    case BYTE_QUOTE:
        return read_string(tokens, at + 1);
    case BYTE_DOUBLE_QUOTE:
        return read_quoted(tokens, at + 1);
    case BYTE_DOLLAR:
        return read_dollar(tokens, at);
    case BYTE_OPEN:
        return OPEN;
    case BYTE_CLOSE:
        return CLOSE;
    case BYTE_COMMA:
        return COMMA;
    case BYTE_SEMICOLON:
        return SEMICOLON;
    case BYTE_OPERATOR:
    case BYTE_COMMENT:
        return OTHER;
    default:
        return BAD;
    }
}

/* ---- classes ---- */

/* What is known of the tokens so far. */
struct reading {
    struct tokens tokens;
    uint64_t last, second, third; /* bits of the last ones, newest first */
    bool has_distinct_on;
    bool owes_comma; /* behind a value: not in the hash before it is known what follows */
    uint64_t hash;
};

/* Is it one of the built-in functions of one argument that write, wait, or know the session? More than those are
 * taken for one, since new versions have new ones. */
static bool is_harmful_attribute(const char *name, size_t bytes, uint64_t bits)
{
    if (bits & FUNCTION)
        return false;
    return (bits & HARMFUL) != 0 || (bytes > 3 && is_same_word(name, "pg_", 3)) ||
           (bytes > 3 && is_same_word(name, "lo_", 3)) ||
           (bytes > 5 && is_same_word(name, "txid_", 5)) ||
           (bytes > 15 && is_same_word(name, "binary_upgrade_", 15));
}

/* JOIN is one of the keywords that a function may have as its name, but that has no SELECT right behind the
 * parenthesis, nor VALUES and one more. */
static bool is_joined_select(struct tokens tokens)
{
    struct word_key key;
    struct word *word;

    if (next_token(&tokens) != NAME)
        return false;
    key = word_key(tokens.text + tokens.start, tokens.at - tokens.start);
    word = word_find(tokens.text + tokens.start, tokens.at - tokens.start, &key);
    if (word == NULL || (word->bits & READ) == 0)
        return false;
    return (word->bits & WORD_VALUES) == 0 || next_token(&tokens) == OPEN;
}

/* Is what stands before this parenthesis certainly no function but one of the table? */
static bool may_open(struct reading *reading)
{
    uint64_t name = reading->last, before = reading->second;

    if (likely((name & NAME) == 0))
        return true;
    if (name & ATTRIBUTE)
        return (name & FUNCTION) != 0 && (reading->third & WORD_PG_CATALOG) != 0;
    if (before & INTRODUCTION)
        return true; /* WITH a(b), AS a(b), CAST(a AS b(1)) */
    if (name & (FUNCTION | BRACKET)) {
        if ((name & WORD_ON) && (before & WORD_DISTINCT))
            reading->has_distinct_on = true;
        return true;
    }
    /* Not behind DISTINCT ON (a), where an expression follows a parenthesis. */
    if (name & BEHIND_CLOSE)
        return (before & CLOSE) != 0 && !reading->has_distinct_on;
    if (name & WORD_BY)
        return (before & BEFORE_BY) != 0;
    if (name & WORD_ROLLUP_CUBE)
        return (before & WORD_BY) != 0 && (reading->third & WORD_GROUP) != 0;
    if (name & WORD_SETS)
        return (before & WORD_GROUPING) != 0;
    if (name & WORD_MATERIALIZED)
        return (before & WORD_NOT) != 0 && (reading->third & WORD_AS) != 0;
    if (name & WORD_VARYING)
        return (before & CHARACTERS) != 0;
    if (name & WORD_ZONE)
        return (before & WORD_TIME) != 0;
    if (name & WORD_SAMPLER)
        return (before & WORD_TABLESAMPLE) != 0;
    if (name & WORD_JOIN)
        return is_joined_select(reading->tokens);
    return false;
}

static inline bool has_high_bytes(const char *text, size_t bytes)
{
    uint64_t all = 0;
    size_t at = 0;

    for (; at + 8 <= bytes; at += 8)
        all |= load_8(text + at);
    for (; at < bytes; at++)
        all |= (uint8_t)text[at];
    return (all & UINT64_C(0x8080808080808080)) != 0;
}

/* More bits of a name, and its hash. */
static inline uint64_t read_name(const struct reading *reading, uint64_t bits, uint64_t *hash)
{
    const char *name = reading->tokens.text + reading->tokens.start;
    size_t bytes = reading->tokens.at - reading->tokens.start;
    struct word_key key;
    const struct word *word;
    uint64_t word_bits;

    if (bits & QUOTED) {
        name++;
        bytes -= 2;
    }
    key = word_key(name, bytes);
    word = word_find(name, bytes, &key);
    word_bits = word != NULL ? word->bits : 0;
    *hash = key.hash + (bits & QUOTED);
    if (unlikely(reading->last & DOT)) {
        /* (a).b, a[1].b, $1.b; x.pg_sleep */
        if ((reading->second & NAME) == 0 || is_harmful_attribute(name, bytes, word_bits))
            bits |= CALL;
        bits |= ATTRIBUTE;
        word_bits &= FUNCTION | FORBIDDEN_TOO; /* each keyword is a name there */
    }
    return bits & QUOTED ? bits : bits | word_bits;
}

/* A list of values counts as one. */
static inline void add_to_hash(struct reading *reading, uint64_t bits, uint64_t value)
{
    if ((bits & VALUE) && reading->owes_comma) {
        reading->owes_comma = false;
        return;
    }
    if (reading->owes_comma)
        reading->hash = mix(reading->hash, COMMA);
    reading->owes_comma = (bits & COMMA) != 0 && (reading->last & VALUE) != 0;
    if (!reading->owes_comma)
        reading->hash = mix(reading->hash, value);
}

/* Does the statement end here, with nothing behind it? */
static enum statement_class class_at_end(struct reading *reading, size_t depth, uint64_t *hash)
{
    if (depth > 0)
        return STATEMENT_DOUBT;
    for (uint64_t bits; ((bits = next_token(&reading->tokens)) & END) == 0;)
        if ((bits & SEMICOLON) == 0)
            return STATEMENT_SEVERAL;
    *hash = reading->hash != 0 ? reading->hash : 1;
    return STATEMENT_SHARES;
}

enum statement_class statement_class(const char *text, size_t bytes,
                                     bool standard_conforming_strings, bool is_utf8, uint64_t *hash)
{
    struct reading reading = {
        .tokens = {.text = text,
                   .bytes = bytes,
                   .standard_conforming_strings = standard_conforming_strings},
        .hash = 1,
    };
    size_t depth = 0;
    bool has_begun = false;

    if (bytes > STATEMENT_CLASS_BYTES_MAX || memchr(text, 0, bytes) != NULL ||
        (!is_utf8 && has_high_bytes(text, bytes)))
        return STATEMENT_DOUBT;
    for (;;) {
        uint64_t bits = next_token(&reading.tokens), value = bits;

        if (bits & NAME)
            bits = read_name(&reading, bits, &value);
        else if (bits & OTHER)
            value = (uint8_t)text[reading.tokens.start];
        if (bits & BAD)
            return STATEMENT_DOUBT;
        if (unlikely(!has_begun)) {
            has_begun = (bits & READ) != 0;
            if (!has_begun && (bits & OPEN) == 0)
                return STATEMENT_NO_READ;
        }
        if (bits & (FORBIDDEN | FORBIDDEN_TOO))
            return STATEMENT_KEYWORD;
        if ((bits & WORD_SHARE) && (reading.last & WORD_FOR_KEY))
            return STATEMENT_KEYWORD;
        if ((bits & CALL) || ((bits & OPEN) && !may_open(&reading)))
            return STATEMENT_FUNCTION;
        if (bits & (SEMICOLON | END))
            return class_at_end(&reading, depth, hash);
        if ((bits & CLOSE) && depth == 0)
            return STATEMENT_DOUBT;
        depth += (bits & OPEN) != 0;
        depth -= (bits & CLOSE) != 0;

        add_to_hash(&reading, bits, value);
        reading.third = reading.second;
        reading.second = reading.last;
        reading.last = bits;
    }
}

void statement_class_text(const char *text, size_t bytes, bool standard_conforming_strings,
                          char *out, size_t room)
{
    struct tokens tokens = {
        .text = text, .bytes = bytes, .standard_conforming_strings = standard_conforming_strings};
    struct writer writer;
    size_t end = 0;

    assert(room > 0);
    writer_init(&writer, out, room - 1);
    for (;;) {
        uint64_t bits = next_token(&tokens);

        if (bits & (END | SEMICOLON | BAD))
            break;
        if (tokens.start > end && writer.bytes > 0)
            writer_put_u8(&writer, ' ');
        end = tokens.at;
        if (bits & VALUE)
            writer_put_u8(&writer, '?');
        else
            writer_put(&writer, text + tokens.start,
                       tokens.at - tokens.start < writer.bytes_max - writer.bytes
                           ? tokens.at - tokens.start
                           : writer.bytes_max - writer.bytes);
    }
    /* Not half a character, should it be cut there. */
    if (writer.bytes == writer.bytes_max)
        while (writer.bytes > 0 && (uint8_t)out[writer.bytes - 1] > 0x7f)
            writer.bytes--;
    out[writer.bytes] = '\0';
}
