#include "config/ldap_options.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char username[] = "$username";

enum { PORT_LDAP = 389, PORT_LDAPS = 636 };

/* The options while they are read. NULL: not given. */
struct draft {
    struct arena *arena;
    char *error;
    const char *server, *scheme, *prefix, *suffix, *basedn, *binddn, *bindpasswd, *searchattribute,
        *searchfilter;
    int port; /* 0: the scheme's */
    bool starttls;
    enum ldap_scope scope;
};

static bool fail(struct draft *draft, const char *text)
{
    snprintf(draft->error, LDAP_OPTIONS_ERROR_BYTES, "%s", text);
    return false;
}

static bool fail_option(struct draft *draft, const char *name, const char *text)
{
    snprintf(draft->error, LDAP_OPTIONS_ERROR_BYTES, "%.40s %s", name, text);
    return false;
}

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* ---- ldapurl ---- */

static int hex_value(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    if (byte >= 'a' && byte <= 'f')
        return byte - 'a' + 10;
    if (byte >= 'A' && byte <= 'F')
        return byte - 'A' + 10;
    return -1;
}

/* Decodes %xx in place. */
static bool percent_decode(char *text)
{
    char *out = text;

    for (; *text != '\0'; text++, out++) {
        int high, low;

        if (*text != '%') {
            *out = *text;
            continue;
        }
        high = hex_value(text[1]);
        low = high < 0 ? -1 : hex_value(text[2]);
        if (low < 0 || high * 16 + low == 0)
            return false;
        *out = (char)(high * 16 + low);
        text += 2;
    }
    *out = '\0';
    return true;
}

/* Cuts `text` at the first `byte`; what is behind it, or NULL. */
static char *cut(char *text, char byte)
{
    char *at = strchr(text, byte);

    if (at == NULL)
        return NULL;
    *at = '\0';
    return at + 1;
}

static bool parse_port(struct draft *draft, const char *name, const char *value)
{
    char *end;
    long port = strtol(value, &end, 10);

    if (*value < '0' || *value > '9' || *end != '\0' || port < 1 || port > 65535)
        return fail_option(draft, name, "has no port between 1 and 65535");
    draft->port = (int)port;
    return true;
}

static bool parse_scheme(struct draft *draft, const char *name, const char *value)
{
    if (strcasecmp(value, "ldap") == 0)
        draft->scheme = "ldap";
    else if (strcasecmp(value, "ldaps") == 0)
        draft->scheme = "ldaps";
    else
        return fail_option(draft, name, "knows the schemes ldap and ldaps only");
    return true;
}

static bool parse_url_scope(struct draft *draft, const char *name, const char *value)
{
    if (strcasecmp(value, "base") == 0)
        draft->scope = LDAP_SEARCH_BASE;
    else if (strcasecmp(value, "one") == 0 || strcasecmp(value, "onelevel") == 0)
        draft->scope = LDAP_SEARCH_ONE;
    else if (strcasecmp(value, "sub") == 0 || strcasecmp(value, "subtree") == 0)
        draft->scope = LDAP_SEARCH_SUBTREE;
    else
        return fail_option(draft, name, "has a scope that is none of base, one and sub");
    return true;
}

static bool parse_host(struct draft *draft, const char *name, char *value)
{
    char *port = *value == '[' ? strchr(value, ']') : value;

    if (port == NULL)
        return fail_option(draft, name, "has a [ without a ]");
    port = strchr(port, ':');
    if (port != NULL) {
        *port = '\0';
        if (!parse_port(draft, name, port + 1))
            return false;
    }
    if (!percent_decode(value))
        return fail_option(draft, name, "has a % without two hexadecimal digits");
    if (*value != '\0')
        draft->server = value;
    return true;
}

/* ldap[s]://host[:port]/basedn[?attribute[?scope[?filter]]] (RFC 4516). */
static bool parse_url(struct draft *draft, const char *name, char *value)
{
    char *rest = strstr(value, "://");
    char *dn, *attributes, *scope = NULL, *filter = NULL, *extensions = NULL;

    if (rest == NULL)
        return fail_option(draft, name, "is no URL");
    *rest = '\0';
    if (!parse_scheme(draft, name, value))
        return false;
    rest += 3;
    dn = cut(rest, '/');
    /* Without a slash there is only the host. */
    attributes = cut(dn != NULL ? dn : rest, '?');
    if (attributes != NULL)
        scope = cut(attributes, '?');
    if (scope != NULL)
        filter = cut(scope, '?');
    if (filter != NULL)
        extensions = cut(filter, '?');
    if (extensions != NULL && *extensions != '\0')
        return fail_option(draft, name, "has extensions, which are not supported");
    if (!parse_host(draft, name, rest))
        return false;
    if (attributes != NULL)
        (void)cut(attributes, ','); /* the first one, as PostgreSQL does */
    if ((dn != NULL && !percent_decode(dn)) ||
        (attributes != NULL && !percent_decode(attributes)) ||
        (filter != NULL && !percent_decode(filter)))
        return fail_option(draft, name, "has a % without two hexadecimal digits");
    if (dn != NULL && *dn != '\0')
        draft->basedn = dn;
    if (attributes != NULL && *attributes != '\0')
        draft->searchattribute = attributes;
    if (filter != NULL && *filter != '\0')
        draft->searchfilter = filter;
    draft->scope = LDAP_SEARCH_BASE; /* the RFC's default */
    return scope == NULL || *scope == '\0' || parse_url_scope(draft, name, scope);
}

/* ---- one option after the other ---- */

static bool parse_starttls(struct draft *draft, const char *name, const char *value)
{
    if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
        return fail_option(draft, name, "is neither 0 nor 1");
    draft->starttls = *value == '1';
    return true;
}

static bool take_option(struct draft *draft, const char *name, char *value)
{
    const struct {
        const char *name;
        const char **field;
    } texts[] = {
        {"ldapserver", &draft->server},
        {"ldapprefix", &draft->prefix},
        {"ldapsuffix", &draft->suffix},
        {"ldapbasedn", &draft->basedn},
        {"ldapbinddn", &draft->binddn},
        {"ldapbindpasswd", &draft->bindpasswd},
        {"ldapsearchattribute", &draft->searchattribute},
        {"ldapsearchfilter", &draft->searchfilter},
    };

    for (size_t index = 0; index < COUNT_OF(texts); index++)
        if (strcmp(name, texts[index].name) == 0) {
            *texts[index].field = value;
            return true;
        }
    if (strcmp(name, "ldapport") == 0)
        return parse_port(draft, name, value);
    if (strcmp(name, "ldapscheme") == 0)
        return parse_scheme(draft, name, value);
    if (strcmp(name, "ldaptls") == 0)
        return parse_starttls(draft, name, value);
    if (strcmp(name, "ldapurl") == 0)
        return parse_url(draft, name, value);
    snprintf(draft->error, LDAP_OPTIONS_ERROR_BYTES, "there is no option \"%.40s\"", name);
    return false;
}

/* Unquotes the next pair from *at to *out, where the place behind it is next. NULL: nothing is left,
 * or a quote that does not end. */
static char *next_pair(const char **at, char **out, bool *quote_is_open)
{
    bool in_quotes = false, begun = false;
    char *pair = *out;

    while (is_blank(**at) || **at == ',')
        (*at)++;
    for (; **at != '\0'; (*at)++) {
        if (!in_quotes && (is_blank(**at) || **at == ',' || **at == '#'))
            break;
        begun = true;
        if (**at != '"') {
            *(*out)++ = **at;
        } else if (in_quotes && (*at)[1] == '"') {
            *(*out)++ = '"';
            (*at)++;
        } else {
            in_quotes = !in_quotes;
        }
    }
    *(*out)++ = '\0';
    *quote_is_open = in_quotes;
    return begun && !in_quotes ? pair : NULL;
}

static bool take_options(struct draft *draft, const char *text)
{
    /* Pairs are never longer than they stand there, and there is a separator between two. */
    char *out = arena_alloc(draft->arena, strlen(text) + 2);
    char *before = NULL, *pair, *value;
    bool quote_is_open;

    while ((pair = next_pair(&text, &out, &quote_is_open)) != NULL) {
        value = cut(pair, '=');
        /* What is not meant as an option may be the rest of a password. */
        if (value == NULL || strncmp(pair, "ldap", 4) != 0) {
            snprintf(draft->error, LDAP_OPTIONS_ERROR_BYTES,
                     before == NULL ? "an option begins with \"ldap\" and has a \"=\""
                                    : "what follows %.40s is no option; a value with blanks or "
                                      "commas needs double quotes",
                     before);
            return false;
        }
        if (!take_option(draft, pair, value))
            return false;
        before = pair;
    }
    return !quote_is_open || fail(draft, "a double quote is not closed");
}

/* ---- all of them together ---- */

/* One URI for each of the servers. */
static bool make_uris(struct draft *draft, const char **out)
{
    const char *scheme = draft->scheme != NULL ? draft->scheme : "ldap";
    int port = draft->port != 0               ? draft->port
               : strcmp(scheme, "ldaps") == 0 ? PORT_LDAPS
                                              : PORT_LDAP;
    const char *at = draft->server != NULL ? draft->server : "";
    char *uris = arena_alloc(draft->arena, strlen(at) * sizeof(" ldaps://:65535") + 1);
    size_t used = 0;

    for (;;) {
        size_t bytes;

        at += strspn(at, " \t");
        bytes = strcspn(at, " \t");
        if (bytes == 0)
            break;
        if (strcspn(at, "/?#%,") < bytes || (*at != '[' && memchr(at, ':', bytes) != NULL))
            return fail(draft, "ldapserver holds names and addresses (IPv6: in brackets); the port "
                               "is ldapport's");
        used += (size_t)sprintf(uris + used, "%s%s://%.*s:%d", used > 0 ? " " : "", scheme,
                                (int)bytes, at, port);
        at += bytes;
    }
    if (used == 0)
        return fail(draft, "no server is named: ldapserver, or ldapurl with a host, is needed");
    *out = uris;
    return true;
}

/* A filter's parentheses show its shape: they stand in no value, where they would be \28 and \29. */
static bool is_balanced(const char *filter)
{
    int depth = 0;

    for (; *filter != '\0' && depth >= 0; filter++)
        depth += (*filter == '(') - (*filter == ')');
    return depth == 0;
}

static bool make_filter(struct draft *draft, const char **out)
{
    const char *attribute = draft->searchattribute;
    char *filter;
    size_t bytes;

    if (draft->searchfilter != NULL) {
        if (attribute != NULL)
            return fail(draft, "ldapsearchattribute and ldapsearchfilter cannot be used together");
        if (*draft->searchfilter == '\0' || !is_balanced(draft->searchfilter))
            return fail(draft, "ldapsearchfilter is empty, or its parentheses do not match");
        *out = draft->searchfilter;
        return true;
    }
    if (attribute == NULL)
        attribute = "uid";
    if (*attribute == '\0' || strpbrk(attribute, "()=*\\") != NULL)
        return fail(draft, "ldapsearchattribute is not the name of an attribute");
    bytes = strlen(attribute) + sizeof("(=)") + sizeof(username);
    filter = arena_alloc(draft->arena, bytes);
    snprintf(filter, bytes, "(%s=%s)", attribute, username);
    *out = filter;
    return true;
}

static bool finish(struct draft *draft, struct ldap_options *out)
{
    bool is_simple = draft->prefix != NULL || draft->suffix != NULL;
    bool is_search = draft->basedn != NULL || draft->binddn != NULL || draft->bindpasswd != NULL ||
                     draft->searchattribute != NULL || draft->searchfilter != NULL;

    if (is_simple && is_search)
        return fail(draft, "ldapprefix and ldapsuffix (simple bind) cannot be used together with "
                           "the options of a search, ldapbasedn or ldapurl with one among them");
    if (!is_simple && draft->basedn == NULL)
        return fail(draft, "one of ldapbasedn, ldapprefix and ldapsuffix is needed");
    if (draft->starttls && draft->scheme != NULL && strcmp(draft->scheme, "ldaps") == 0)
        return fail(draft, "ldaptls=1 (StartTLS) cannot be used together with ldaps");
    out->starttls = draft->starttls;
    out->is_search = is_search;
    out->prefix = draft->prefix != NULL ? draft->prefix : "";
    out->suffix = draft->suffix != NULL ? draft->suffix : "";
    out->basedn = draft->basedn;
    out->binddn = draft->binddn != NULL ? draft->binddn : "";
    out->bindpasswd = draft->bindpasswd != NULL ? draft->bindpasswd : "";
    out->scope = draft->scope;
    return make_uris(draft, &out->uris) && (!is_search || make_filter(draft, &out->searchfilter));
}

struct ldap_options *ldap_options_parse(const char *text, struct arena *arena,
                                        char error[LDAP_OPTIONS_ERROR_BYTES])
{
    struct draft draft = {.arena = arena, .error = error, .scope = LDAP_SEARCH_SUBTREE};
    struct ldap_options *options = arena_alloc(arena, sizeof(*options));

    if (strnlen(text, LDAP_OPTIONS_BYTES_MAX + 1) > LDAP_OPTIONS_BYTES_MAX) {
        snprintf(error, LDAP_OPTIONS_ERROR_BYTES, "the text is longer than %d bytes",
                 LDAP_OPTIONS_BYTES_MAX);
        return NULL;
    }
    return take_options(&draft, text) && finish(&draft, options) ? options : NULL;
}

/* ---- what is asked for one user ---- */

bool ldap_options_bind_name(const struct ldap_options *options, const char *user, char *out,
                            size_t out_bytes)
{
    int bytes = snprintf(out, out_bytes, "%s%s%s", options->prefix, user, options->suffix);

    return bytes >= 0 && (size_t)bytes < out_bytes;
}

static bool put(char **out, const char *end, char byte)
{
    if (*out + 1 >= end)
        return false;
    *(*out)++ = byte;
    return true;
}

static bool put_escaped(char **out, const char *end, const char *user)
{
    static const char digits[] = "0123456789abcdef";

    for (; *user != '\0'; user++) {
        unsigned char byte = (unsigned char)*user;

        if (strchr("*()\\", *user) == NULL && byte >= 0x20 && byte < 0x7f) {
            if (!put(out, end, *user))
                return false;
        } else if (!put(out, end, '\\') || !put(out, end, digits[byte >> 4]) ||
                   !put(out, end, digits[byte & 15])) {
            return false;
        }
    }
    return true;
}

bool ldap_options_filter(const struct ldap_options *options, const char *user, char *out,
                         size_t out_bytes)
{
    const char *at = options->searchfilter;
    const char *end = out + out_bytes;

    assert(out_bytes > 0);
    while (*at != '\0') {
        if (strncmp(at, username, sizeof(username) - 1) == 0) {
            if (!put_escaped(&out, end, user))
                return false;
            at += sizeof(username) - 1;
        } else if (!put(&out, end, *at++)) {
            return false;
        }
    }
    *out = '\0';
    return true;
}
