#include "crypto/tls_ciphers.h"

#include "base/assert.h"

#include <stdio.h>
#include <strings.h>

/* What a suite is made of, and what a word of a list asks for. */
enum {
    KEY_ECDHE = BIT(0),
    KEY_DHE = BIT(1),
    KEY_RSA = BIT(2),
    KEY_ANY = KEY_ECDHE | KEY_DHE | KEY_RSA,
    AUTH_RSA = BIT(3),
    AUTH_ECDSA = BIT(4),
    AUTH_ANY = AUTH_RSA | AUTH_ECDSA,
    GCM_128 = BIT(5),
    GCM_256 = BIT(6),
    CCM_128 = BIT(7),
    CBC_128 = BIT(8),
    CBC_256 = BIT(9),
    CHACHA = BIT(10),
    CIPHER_AES_128 = GCM_128 | CCM_128 | CBC_128,
    CIPHER_AES_256 = GCM_256 | CBC_256,
    CIPHER_AES = CIPHER_AES_128 | CIPHER_AES_256,
    CIPHER_CBC = CBC_128 | CBC_256,
    CIPHER_ANY = CIPHER_AES | CHACHA,
    MAC_AEAD = BIT(11),
    MAC_SHA1 = BIT(12),
    MAC_SHA256 = BIT(13),
    MAC_SHA384 = BIT(14),
    MAC_ANY = MAC_AEAD | MAC_SHA1 | MAC_SHA256 | MAC_SHA384,
    SINCE_SSL_3 = BIT(15), /* the version that brought the suite */
    SINCE_TLS_1_0 = BIT(16),
    SINCE_TLS_1_2 = BIT(17),
    SINCE_ANY = SINCE_SSL_3 | SINCE_TLS_1_0 | SINCE_TLS_1_2,
};

struct suite {
    const char *name, *standard_name;
    unsigned is;
};

#define GCM(bits) (GCM_##bits | MAC_AEAD | SINCE_TLS_1_2)
#define CHACHA20 (CHACHA | MAC_AEAD | SINCE_TLS_1_2)
#define CBC(bits, sha) (CBC_##bits | MAC_SHA##sha | SINCE_TLS_1_2)
#define OLD_CBC(bits, since) (CBC_##bits | MAC_SHA1 | SINCE_##since)
#define ECDHE_ECDSA (KEY_ECDHE | AUTH_ECDSA)
#define ECDHE_RSA (KEY_ECDHE | AUTH_RSA)
#define DHE_RSA (KEY_DHE | AUTH_RSA)
#define RSA_RSA (KEY_RSA | AUTH_RSA)

/* In OpenSSL's order, which is where each list begins. The last six have no forward secrecy. */
/* clang-format off */
static const struct suite suites[] = {
    {"ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",       ECDHE_ECDSA | GCM(256)},
    {"ECDHE-RSA-AES256-GCM-SHA384",   "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",         ECDHE_RSA | GCM(256)},
    {"DHE-RSA-AES256-GCM-SHA384",     "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384",           DHE_RSA | GCM(256)},
    {"ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", ECDHE_ECDSA | CHACHA20},
    {"ECDHE-RSA-CHACHA20-POLY1305",   "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",   ECDHE_RSA | CHACHA20},
    {"DHE-RSA-CHACHA20-POLY1305",     "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256",     DHE_RSA | CHACHA20},
    {"ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",       ECDHE_ECDSA | GCM(128)},
    {"ECDHE-RSA-AES128-GCM-SHA256",   "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",         ECDHE_RSA | GCM(128)},
    {"DHE-RSA-AES128-GCM-SHA256",     "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",           DHE_RSA | GCM(128)},
    {"ECDHE-ECDSA-AES128-CCM",        "TLS_ECDHE_ECDSA_WITH_AES_128_CCM",              ECDHE_ECDSA | CCM_128 | MAC_AEAD | SINCE_TLS_1_2},
    {"ECDHE-ECDSA-AES256-SHA384",     "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384",       ECDHE_ECDSA | CBC(256, 384)},
    {"ECDHE-RSA-AES256-SHA384",       "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384",         ECDHE_RSA | CBC(256, 384)},
    {"DHE-RSA-AES256-SHA256",         "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256",           DHE_RSA | CBC(256, 256)},
    {"ECDHE-ECDSA-AES128-SHA256",     "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",       ECDHE_ECDSA | CBC(128, 256)},
    {"ECDHE-RSA-AES128-SHA256",       "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",         ECDHE_RSA | CBC(128, 256)},
    {"DHE-RSA-AES128-SHA256",         "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256",           DHE_RSA | CBC(128, 256)},
    {"ECDHE-ECDSA-AES256-SHA",        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",          ECDHE_ECDSA | OLD_CBC(256, TLS_1_0)},
    {"ECDHE-RSA-AES256-SHA",          "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",            ECDHE_RSA | OLD_CBC(256, TLS_1_0)},
    {"DHE-RSA-AES256-SHA",            "TLS_DHE_RSA_WITH_AES_256_CBC_SHA",              DHE_RSA | OLD_CBC(256, SSL_3)},
    {"ECDHE-ECDSA-AES128-SHA",        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",          ECDHE_ECDSA | OLD_CBC(128, TLS_1_0)},
    {"ECDHE-RSA-AES128-SHA",          "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",            ECDHE_RSA | OLD_CBC(128, TLS_1_0)},
    {"DHE-RSA-AES128-SHA",            "TLS_DHE_RSA_WITH_AES_128_CBC_SHA",              DHE_RSA | OLD_CBC(128, SSL_3)},
    {"AES256-GCM-SHA384",             "TLS_RSA_WITH_AES_256_GCM_SHA384",               RSA_RSA | GCM(256)},
    {"AES128-GCM-SHA256",             "TLS_RSA_WITH_AES_128_GCM_SHA256",               RSA_RSA | GCM(128)},
    {"AES256-SHA256",                 "TLS_RSA_WITH_AES_256_CBC_SHA256",               RSA_RSA | CBC(256, 256)},
    {"AES128-SHA256",                 "TLS_RSA_WITH_AES_128_CBC_SHA256",               RSA_RSA | CBC(128, 256)},
    {"AES256-SHA",                    "TLS_RSA_WITH_AES_256_CBC_SHA",                  RSA_RSA | OLD_CBC(256, SSL_3)},
    {"AES128-SHA",                    "TLS_RSA_WITH_AES_128_CBC_SHA",                  RSA_RSA | OLD_CBC(128, SSL_3)},
};
/* clang-format on */

enum { SUITES = COUNT_OF(suites) };

/* What each word says about a dimension; a dimension that it does not name may be anything. Words without
 * any suite of ours are known, so that nobody is told that they are not: what they ask for is not had. */
static const struct word {
    const char *name;
    unsigned is;
} words[] = {
    {"ALL", CIPHER_ANY},
    {"HIGH", CIPHER_ANY},
    {"FIPS", CIPHER_AES & ~CCM_128},
    {"COMPLEMENTOFDEFAULT", CCM_128},
    {"kECDHE", KEY_ECDHE},
    {"kEECDH", KEY_ECDHE},
    {"ECDHE", KEY_ECDHE},
    {"EECDH", KEY_ECDHE},
    {"ECDH", KEY_ECDHE},
    {"kDHE", KEY_DHE},
    {"kEDH", KEY_DHE},
    {"DHE", KEY_DHE},
    {"EDH", KEY_DHE},
    {"DH", KEY_DHE},
    {"kRSA", KEY_RSA},
    {"RSA", KEY_RSA | AUTH_RSA},
    {"aRSA", AUTH_RSA},
    {"aECDSA", AUTH_ECDSA},
    {"ECDSA", AUTH_ECDSA},
    {"AES", CIPHER_AES},
    {"AES128", CIPHER_AES_128},
    {"AES256", CIPHER_AES_256},
    {"AESGCM", GCM_128 | GCM_256},
    {"AESCCM", CCM_128},
    {"CHACHA20", CHACHA},
    {"CBC", CIPHER_CBC},
    {"SHA1", MAC_SHA1},
    {"SHA", MAC_SHA1},
    {"SHA256", MAC_SHA256},
    {"SHA384", MAC_SHA384},
    {"SSLv3", SINCE_SSL_3},
    {"TLSv1", SINCE_TLS_1_0},
    {"TLSv1.0", SINCE_TLS_1_0},
    {"TLSv1.2", SINCE_TLS_1_2},
};

static const char *const words_without_suites[] = {
    "MEDIUM",
    "LOW",
    "EXP",
    "EXPORT",
    "EXPORT40",
    "EXPORT56",
    "aNULL",
    "eNULL",
    "NULL",
    "ADH",
    "AECDH",
    "DSS",
    "aDSS",
    "kDH",
    "kDHr",
    "kDHd",
    "aDH",
    "kECDH",
    "kECDHr",
    "kECDHe",
    "aECDH",
    "PSK",
    "kPSK",
    "aPSK",
    "kDHEPSK",
    "kECDHEPSK",
    "kRSAPSK",
    "SRP",
    "kSRP",
    "aSRP",
    "3DES",
    "DES",
    "RC4",
    "RC2",
    "IDEA",
    "SEED",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "ARIAGCM",
    "AESCCM8",
    "MD5",
    "KRB5",
    "SSLv2",
    "kGOST",
    "kGOST18",
    "aGOST",
    "aGOST01",
    "aGOST12",
    "GOST89",
    "GOST94",
    "GOST89MAC",
    "GOST12",
    "GOST89MAC12",
    "GOST2012256",
    "COMPLEMENTOFALL",
};

static const char *const suites_13[] = {
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
};

/* Our own orders, in the same language. */
static const char default_list[] = "ECDHE+AESGCM+AES128:ECDHE+AESGCM:ECDHE+CHACHA20:"
                                   "DHE+AESGCM+AES128:DHE+AESGCM:DHE+CHACHA20:ECDHE+CBC:DHE+CBC";
static const char default_list_slow_aes[] =
    "ECDHE+CHACHA20:ECDHE+AESGCM+AES128:ECDHE+AESGCM:"
    "DHE+CHACHA20:DHE+AESGCM+AES128:DHE+AESGCM:ECDHE+CBC:DHE+CBC";
static const char default_list_13[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
static const char default_list_13_slow_aes[] =
    "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";
/* What OpenSSL's DEFAULT is made of. */
static const char openssl_default[] = "ALL:!COMPLEMENTOFDEFAULT";

/* ---- words ---- */

/* A word of a list: not zero-terminated. */
struct token {
    const char *text;
    size_t bytes;
};

static bool token_is(struct token token, const char *name)
{
    return strlen(name) == token.bytes && memcmp(name, token.text, token.bytes) == 0;
}

static void name_unknown(struct tls_cipher_list *out, struct token token)
{
    size_t used = strlen(out->unknown);
    const char *between = used == 0 ? "" : ", ";
    bool is_printable = true;

    for (size_t i = 0; i < token.bytes; i++)
        is_printable = is_printable && token.text[i] > ' ' && token.text[i] < 0x7f;
    if (!is_printable)
        token = (struct token){"(not printable)", strlen("(not printable)")};
    if (used + strlen(between) + token.bytes + sizeof(", ...") > sizeof(out->unknown)) {
        if (used < 3 || strcmp(out->unknown + used - 3, "...") != 0)
            snprintf(out->unknown + used, sizeof(out->unknown) - used, "%s...", between);
        return;
    }
    snprintf(out->unknown + used, sizeof(out->unknown) - used, "%s%.*s", between, (int)token.bytes,
             token.text);
}

static bool is_between(char byte)
{
    return byte == ':' || byte == ',' || byte == ';' || byte == ' ' || byte == '\t';
}

static bool is_of_word(char byte)
{
    return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
           (byte >= '0' && byte <= '9') || byte == '-' || byte == '.' || byte == '_' || byte == '=';
}

/* ---- the list of suites, as the words leave it ---- */

/* Removed suites are no longer in `order`; those that are not chosen lie in it, too, because their order
 * is the one in which they will come. */
struct choice {
    uint8_t order[SUITES];
    bool is_chosen[SUITES];
    size_t count;
};

/* What one word (or A+B) asks for. */
struct wish {
    bool wanted[SUITES];
};

enum rule { RULE_ADD, RULE_MOVE, RULE_REMOVE, RULE_KILL };

/* OpenSSL takes an empty dimension for any. */
static bool has_all(unsigned suite, unsigned asked)
{
    static const unsigned dimensions[] = {KEY_ANY, AUTH_ANY, CIPHER_ANY, MAC_ANY, SINCE_ANY};

    for (size_t i = 0; i < COUNT_OF(dimensions); i++)
        if ((asked & dimensions[i]) != 0 && (asked & suite & dimensions[i]) == 0)
            return false;
    return true;
}

enum word_kind { WORD_GOOD, WORD_EMPTY, WORD_UNKNOWN };

/* Takes away from `wish` what the word does not stand for. */
static enum word_kind narrow(struct wish *wish, struct token token)
{
    for (size_t w = 0; w < COUNT_OF(words); w++) {
        if (!token_is(token, words[w].name))
            continue;
        for (size_t i = 0; i < SUITES; i++)
            wish->wanted[i] = wish->wanted[i] && has_all(suites[i].is, words[w].is);
        return WORD_GOOD;
    }
    for (size_t s = 0; s < SUITES; s++) {
        if (!token_is(token, suites[s].name) && !token_is(token, suites[s].standard_name))
            continue;
        for (size_t i = 0; i < SUITES; i++)
            wish->wanted[i] = wish->wanted[i] && i == s;
        return WORD_GOOD;
    }
    memset(wish->wanted, 0, sizeof(wish->wanted));
    for (size_t w = 0; w < COUNT_OF(words_without_suites); w++)
        if (token_is(token, words_without_suites[w]))
            return WORD_EMPTY;
    return WORD_UNKNOWN;
}

/* What is added or moved goes to the end; what is removed goes to the front, in its order, so that it
 * comes first among its like when it is added again. All as OpenSSL does it. */
static void apply(struct choice *choice, enum rule rule, const struct wish *wish)
{
    uint8_t moved[SUITES], rest[SUITES];
    size_t moved_count = 0, rest_count = 0;

    for (size_t i = 0; i < choice->count; i++) {
        uint8_t suite = choice->order[i];

        if (wish->wanted[suite] &&
            (rule == RULE_KILL || choice->is_chosen[suite] != (rule == RULE_ADD))) {
            moved[moved_count++] = suite;
            choice->is_chosen[suite] = rule == RULE_ADD || rule == RULE_MOVE;
        } else {
            rest[rest_count++] = suite;
        }
    }
    choice->count = rest_count + (rule == RULE_KILL ? 0 : moved_count);
    if (rule == RULE_REMOVE) {
        memcpy(choice->order, moved, moved_count);
        memcpy(choice->order + moved_count, rest, rest_count);
        return;
    }
    memcpy(choice->order, rest, rest_count);
    if (rule != RULE_KILL)
        memcpy(choice->order + rest_count, moved, moved_count);
}

static unsigned strength_of(unsigned suite)
{
    return (suite & CIPHER_AES_128) != 0 ? 128 : 256;
}

static void sort_by_strength(struct choice *choice)
{
    for (unsigned bits = 256; bits >= 128; bits -= 128) {
        struct wish wish;

        for (size_t i = 0; i < SUITES; i++)
            wish.wanted[i] = strength_of(suites[i].is) == bits;
        apply(choice, RULE_MOVE, &wish);
    }
}

/* Level 3 asks for forward secrecy, 4 for 192 bits (and so for a better hash than SHA-1), 5 for 256.
 * Below, each suite of ours will do. */
static bool is_of_level(unsigned suite, int level)
{
    if (level >= 3 && (suite & KEY_RSA) != 0)
        return false;
    return level < 4 || (strength_of(suite) == 256 && (suite & MAC_SHA1) == 0);
}

/* One part of a list, with its mark; returns what follows it. */
static const char *take_part(const char *part, enum rule rule, struct choice *choice,
                             struct tls_cipher_list *out)
{
    const char *at = rule == RULE_ADD ? part : part + 1;
    struct wish wish;

    memset(wish.wanted, true, sizeof(wish.wanted));
    for (;;) {
        struct token token = {.text = at};

        while (is_of_word(*at))
            at++;
        token.bytes = (size_t)(at - token.text);
        if (token.bytes == 0) {
            /* Nothing where a word has to be: skipped up to the next. */
            while (*at != '\0' && !is_between(*at))
                at++;
            name_unknown(out, (struct token){part, (size_t)(at - part)});
            return at;
        }
        if (narrow(&wish, token) == WORD_UNKNOWN &&
            (rule == RULE_ADD || memchr(token.text, '-', token.bytes) == NULL))
            name_unknown(out, token);
        if (*at != '+')
            break;
        at++;
    }
    apply(choice, rule, &wish);
    return at;
}

/* @STRENGTH, @SECLEVEL=n. */
static const char *take_order(const char *at, struct choice *choice, int *level,
                              struct tls_cipher_list *out)
{
    struct token token = {.text = at};

    while (is_of_word(*at))
        at++;
    token.bytes = (size_t)(at - token.text);
    if (token_is(token, "STRENGTH"))
        sort_by_strength(choice);
    else if (token.bytes == strlen("SECLEVEL=0") &&
             memcmp(token.text, "SECLEVEL=", strlen("SECLEVEL=")) == 0 &&
             token.text[token.bytes - 1] >= '0' && token.text[token.bytes - 1] <= '5')
        *level = token.text[token.bytes - 1] - '0';
    else
        name_unknown(out, (struct token){token.text - 1, token.bytes + 1});
    return at;
}

static void take_list(const char *at, struct choice *choice, int *level,
                      struct tls_cipher_list *out)
{
    while (*at != '\0') {
        if (is_between(*at))
            at++;
        else if (*at == '@')
            at = take_order(at + 1, choice, level, out);
        else if (*at == '!')
            at = take_part(at, RULE_KILL, choice, out);
        else if (*at == '-')
            at = take_part(at, RULE_REMOVE, choice, out);
        else if (*at == '+')
            at = take_part(at, RULE_MOVE, choice, out);
        else
            at = take_part(at, RULE_ADD, choice, out);
    }
}

static void put_suite(struct tls_cipher_list *out, const char *name)
{
    size_t used = strlen(out->suites);
    int bytes = snprintf(out->suites + used, sizeof(out->suites) - used, "%s%s",
                         used == 0 ? "" : ":", name);

    assert(bytes > 0 && used + (size_t)bytes < sizeof(out->suites));
}

static bool is_possible(unsigned suite, unsigned flags)
{
    return !((flags & TLS_CIPHERS_WITHOUT_ECDHE) != 0 && (suite & KEY_ECDHE) != 0) &&
           !((flags & TLS_CIPHERS_WITHOUT_DHE) != 0 && (suite & KEY_DHE) != 0);
}

static bool is_our_default(const char *list)
{
    static const char *const names[] = {"", "default", "secure", "normal", "fast"};

    for (size_t i = 0; list != NULL && i < COUNT_OF(names); i++)
        if (strcasecmp(names[i], list) == 0)
            return true;
    return list == NULL;
}

bool tls_ciphers_translate(const char *list, unsigned flags, struct tls_cipher_list *out)
{
    struct choice choice = {.count = 0};
    bool aes_is_fast = (flags & TLS_CIPHERS_FAST_AES) != 0;
    int level = 0;

    *out = (struct tls_cipher_list){0};
    for (int turn = aes_is_fast ? 1 : 0; turn < 2; turn++)
        for (uint8_t i = 0; i < SUITES; i++)
            if (aes_is_fast || has_all(suites[i].is, KEY_ECDHE | CHACHA) == (turn == 0))
                choice.order[choice.count++] = i;
    assert(choice.count == SUITES);

    if (is_our_default(list))
        list = aes_is_fast ? default_list : default_list_slow_aes;
    else if (strcasecmp(list, "all") == 0)
        list = "ALL";
    if (strncmp(list, "DEFAULT", strlen("DEFAULT")) == 0) {
        take_list(openssl_default, &choice, &level, out);
        list += strlen("DEFAULT");
    }
    take_list(list, &choice, &level, out);
    for (size_t i = 0; i < choice.count; i++) {
        const struct suite *suite = &suites[choice.order[i]];

        if (choice.is_chosen[choice.order[i]] && is_of_level(suite->is, level) &&
            is_possible(suite->is, flags))
            put_suite(out, suite->name);
    }
    return out->suites[0] != '\0';
}

bool tls_ciphers_translate_13(const char *list, unsigned flags, struct tls_cipher_list *out)
{
    bool is_taken[COUNT_OF(suites_13)] = {false};

    *out = (struct tls_cipher_list){0};
    if (list == NULL || *list == '\0')
        list = (flags & TLS_CIPHERS_FAST_AES) != 0 ? default_list_13 : default_list_13_slow_aes;
    while (*list != '\0') {
        struct token token = {.text = list};
        bool is_known = false;

        if (is_between(*list)) {
            list++;
            continue;
        }
        while (*list != '\0' && !is_between(*list))
            list++;
        token.bytes = (size_t)(list - token.text);
        for (size_t i = 0; i < COUNT_OF(suites_13); i++) {
            if (!token_is(token, suites_13[i]))
                continue;
            is_known = true;
            if (!is_taken[i])
                put_suite(out, suites_13[i]);
            is_taken[i] = true;
        }
        if (!is_known)
            name_unknown(out, token);
    }
    return out->suites[0] != '\0';
}

/* ---- versions and groups ---- */

/* The next of a list with ',' or ':' between, blanks around it left out; false: there is none. An empty
 * one is one, too. */
static bool next_item(const char **list, struct token *item)
{
    const char *at = *list;

    if (at == NULL)
        return false;
    item->text = at;
    item->bytes = strcspn(at, ",:");
    at += item->bytes;
    *list = *at == '\0' ? NULL : at + 1;
    while (item->bytes > 0 && (*item->text == ' ' || *item->text == '\t'))
        item->text++, item->bytes--;
    while (item->bytes > 0 &&
           (item->text[item->bytes - 1] == ' ' || item->text[item->bytes - 1] == '\t'))
        item->bytes--;
    return true;
}

static bool is_ignoring_case(struct token token, const char *name)
{
    return strlen(name) == token.bytes && strncasecmp(name, token.text, token.bytes) == 0;
}

bool tls_protocols_parse(const char *list, unsigned *protocols)
{
    enum {
        SECURE = TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3,
        ALL = TLS_PROTOCOL_1_0 | TLS_PROTOCOL_1_1 | SECURE
    };
    static const struct {
        const char *name;
        unsigned protocols;
    } names[] = {
        {"tlsv1.0", TLS_PROTOCOL_1_0},
        {"tlsv1.1", TLS_PROTOCOL_1_1},
        {"tlsv1.2", TLS_PROTOCOL_1_2},
        {"tlsv1.3", TLS_PROTOCOL_1_3},
        {"tlsv1", ALL},
        {"all", ALL},
        {"legacy", ALL},
        {"secure", SECURE},
        {"default", SECURE},
    };
    struct token item;
    unsigned found = 0;
    bool is_first = true;

    while (next_item(&list, &item)) {
        bool is_removed = item.bytes > 0 && item.text[0] == '!';
        unsigned meant = 0;

        if (is_removed)
            item.text++, item.bytes--;
        for (size_t i = 0; i < COUNT_OF(names); i++)
            if (is_ignoring_case(item, names[i].name))
                meant = names[i].protocols;
        if (meant == 0)
            return false;
        if (is_first && is_removed)
            found = ALL;
        found = is_removed ? found & ~meant : found | meant;
        is_first = false;
    }
    *protocols = found;
    return found != 0;
}

enum tls_groups_result tls_groups_parse(const char *list, char groups[TLS_GROUPS_BYTES])
{
    static const struct {
        const char *name, *group;
    } names[] = {
        {"X25519", "X25519"},   {"P-256", "P-256"},     {"prime256v1", "P-256"},
        {"secp256r1", "P-256"}, {"P-384", "P-384"},     {"secp384r1", "P-384"},
        {"P-521", "P-521"},     {"secp521r1", "P-521"},
    };
    struct token item;

    groups[0] = '\0';
    if (list == NULL || *list == '\0' || strcasecmp(list, "auto") == 0)
        return TLS_GROUPS_GOOD;
    if (strcasecmp(list, "none") == 0)
        return TLS_GROUPS_NONE;
    while (next_item(&list, &item)) {
        const char *group = NULL;
        size_t used = strlen(groups);

        for (size_t i = 0; i < COUNT_OF(names); i++)
            if (is_ignoring_case(item, names[i].name))
                group = names[i].group;
        if (group == NULL)
            return TLS_GROUPS_BAD;
        if (strstr(groups, group) != NULL)
            continue;
        snprintf(groups + used, TLS_GROUPS_BYTES - used, "%s%s", used == 0 ? "" : ":", group);
    }
    return TLS_GROUPS_GOOD;
}
