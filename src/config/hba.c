#include "config/hba.h"

#include "base/assert.h"
#include "config/hba_line.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const struct {
    const char *name;
    enum hba_transport transport;
} transports[] = {
    {"local", HBA_LOCAL},
    {"host", HBA_HOST},
    {"hostssl", HBA_HOSTSSL},
    {"hostnossl", HBA_HOSTNOSSL},
};

static const struct {
    const char *name;
    enum auth_type method;
} methods[] = {
    {"trust", AUTH_TRUST},
    {"reject", AUTH_REJECT},
    {"md5", AUTH_MD5},
    {"password", AUTH_PLAIN},
    {"scram-sha-256", AUTH_SCRAM_SHA_256},
    {"cert", AUTH_CERT},
    {"peer", AUTH_PEER},
    {"ldap", AUTH_LDAP},
};

struct hba_reader {
    const struct hba_input *input;
    struct config_place place; /* of the rule that is being read */
    struct hba out;
    struct hba_rule *rules; /* out.rules */
    size_t rule_count_max;
    size_t name_count, list_count;
    size_t refused_count;
    bool is_broken; /* a mistake has been told: the load fails, nothing more is read */
    char reason[256];
};

/* A list of names, while it grows. */
struct names_draft {
    const char **names;
    size_t count, count_max;
    bool has_all, has_sameuser, has_replication;
};

/* ---- what goes wrong ---- */

/* Why the line is left out. Always false. */
static bool printf_like(2, 3) refuse(struct hba_reader *reader, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(reader->reason, sizeof(reader->reason), format, arguments);
    va_end(arguments);
    return false;
}

/* The load fails. Always false. */
static bool printf_like(2, 3) give_up(struct hba_reader *reader, const char *format, ...)
{
    va_list arguments;
    char text[1024];

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    config_mistake(reader->input->report, &reader->place, "%s", text);
    reader->is_broken = true;
    return false;
}

static char *copy_word(struct hba_reader *reader, const struct hba_word *word)
{
    char *copy = arena_alloc(reader->input->arena, word->bytes + 1);

    memcpy(copy, word->text, word->bytes);
    return copy;
}

/* Of a word in a message. */
static int shown(const struct hba_word *word)
{
    return (int)MIN(word->bytes, (size_t)100);
}

/* ---- names ---- */

static bool take_names(struct hba_reader *reader, struct hba_line *line, unsigned depth,
                       struct names_draft *draft);

static bool add_name(struct hba_reader *reader, const struct hba_word *word,
                     struct names_draft *draft)
{
    const char **larger;

    if (reader->name_count++ == HBA_NAMES_MAX)
        return give_up(reader, "auth_hba_file names more than %d names", HBA_NAMES_MAX);
    if (draft->count == draft->count_max) {
        draft->count_max = MAX(draft->count_max * 2, (size_t)4);
        larger = arena_alloc(reader->input->arena, draft->count_max * sizeof(*larger));
        if (draft->count > 0)
            memcpy(larger, draft->names, draft->count * sizeof(*larger));
        draft->names = larger;
    }
    draft->names[draft->count++] = copy_word(reader, word);
    return true;
}

/* Relative to the folder of the HBA file. */
static char *list_path(struct hba_reader *reader, const struct hba_word *name)
{
    const char *hba_path = reader->input->hba_path;
    const char *slash = strrchr(hba_path, '/');
    size_t folder_bytes =
        name->text[0] == '/' || slash == NULL ? 0 : (size_t)(slash + 1 - hba_path);
    char *path = arena_alloc(reader->input->arena, folder_bytes + name->bytes + 1);

    memcpy(path, hba_path, folder_bytes);
    memcpy(path + folder_bytes, name->text, name->bytes);
    return path;
}

static bool add_list(struct hba_reader *reader, const struct hba_word *word, unsigned depth,
                     struct names_draft *draft)
{
    const struct hba_input *input = reader->input;
    const struct hba_word name = {word->kind, word->text + 1, word->bytes - 1};
    struct hba_lines lines;
    struct hba_line line;
    char *path, *text;
    size_t bytes;

    if (name.bytes == 0)
        return refuse(reader, "\"@\" needs the name of a file behind it");
    if (depth == HBA_LIST_DEPTH_MAX)
        return refuse(reader, "@%.*s: files name each other (more than %d deep)", shown(&name),
                      name.text, HBA_LIST_DEPTH_MAX);
    if (reader->list_count++ == HBA_LIST_COUNT_MAX)
        return give_up(reader, "auth_hba_file reads more than %d files by @", HBA_LIST_COUNT_MAX);
    path = list_path(reader, &name);
    text = input->open(input->open_context, path, input->arena, &bytes);
    if (text == NULL)
        return give_up(reader, "could not open the file %.500s: %s", path, strerror(errno));
    hba_lines_init(&lines, text, bytes);
    while (hba_lines_next(&lines, &line))
        if (!take_names(reader, &line, depth + 1, draft))
            return false;
    return true;
}

static bool add_word(struct hba_reader *reader, const struct hba_word *word, unsigned depth,
                     struct names_draft *draft)
{
    bool is_plain = word->kind == HBA_WORD_PLAIN;

    if (!is_plain && word->kind != HBA_WORD_QUOTED)
        return refuse(reader, word->kind == HBA_WORD_BROKEN ? "a quote is open, or a NUL byte"
                                                            : "a name is missing");
    if (hba_word_is(word, "samerole") || hba_word_is(word, "samegroup") ||
        (is_plain && (word->text[0] == '+' || word->text[0] == '/')))
        return refuse(reader, "%.*s is not supported: it needs the roles of a database",
                      shown(word), word->text);
    if (is_plain && word->text[0] == '@')
        return add_list(reader, word, depth, draft);
    if (hba_word_is(word, "all"))
        draft->has_all = true;
    else if (hba_word_is(word, "sameuser"))
        draft->has_sameuser = true;
    else if (hba_word_is(word, "replication"))
        draft->has_replication = true;
    else
        return add_name(reader, word, draft);
    return true;
}

/* In the rule (depth 0): a comma list. In a file: all words of the line. */
static bool take_names(struct hba_reader *reader, struct hba_line *line, unsigned depth,
                       struct names_draft *draft)
{
    struct hba_word word;

    for (;;) {
        word = hba_line_next(line);
        if (depth > 0 && word.kind == HBA_WORD_END)
            return true;
        if (depth > 0 && word.kind == HBA_WORD_COMMA)
            continue;
        if (!add_word(reader, &word, depth, draft))
            return false;
        if (depth == 0 && !hba_line_skip_comma(line))
            return true;
    }
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool read_names(struct hba_reader *reader, struct hba_line *line, struct hba_names *names)
{
    struct names_draft draft = {0};

    if (!take_names(reader, line, 0, &draft))
        return false;
    if (draft.count > 0)
        qsort(draft.names, draft.count, sizeof(*draft.names), compare_names);
    *names = (struct hba_names){
        .names = draft.names,
        .count = draft.count,
        .has_all = draft.has_all,
        .has_sameuser = draft.has_sameuser,
        .has_replication = draft.has_replication,
    };
    return true;
}

/* ---- addresses ---- */

/* 0: it is none. */
static int parse_address(const char *text, size_t bytes, uint8_t address[16])
{
    char copy[INET6_ADDRSTRLEN];

    if (bytes >= sizeof(copy))
        return 0;
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    if (inet_pton(AF_INET, copy, address) == 1)
        return AF_INET;
    if (inet_pton(AF_INET6, copy, address) == 1)
        return AF_INET6;
    return 0;
}

static size_t address_bytes(int family)
{
    return family == AF_INET ? 4 : 16;
}

/* One to three digits. */
static bool parse_bits(const char *text, size_t bytes, unsigned bits_max, uint8_t mask[16])
{
    unsigned bits = 0;

    if (bytes == 0 || bytes > 3)
        return false;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        bits = bits * 10 + (unsigned)(text[i] - '0');
    }
    if (bits > bits_max)
        return false;
    memset(mask, 0, 16);
    for (unsigned i = 0; i < bits; i++)
        mask[i / 8] = (uint8_t)(mask[i / 8] | 0x80u >> i % 8);
    return true;
}

static bool is_masked_equal(const struct hba_address *rule, const uint8_t *address)
{
    for (size_t i = 0; i < address_bytes(rule->family); i++)
        if ((address[i] & rule->mask[i]) != rule->address[i])
            return false;
    return true;
}

static bool read_address(struct hba_reader *reader, struct hba_line *line,
                         struct hba_address *address)
{
    struct hba_word word = hba_line_next(line), mask;
    const char *slash;
    size_t bytes;
    int family;

    if (hba_word_is(&word, "all")) {
        address->is_all = true;
        return true;
    }
    if (word.kind != HBA_WORD_PLAIN)
        return refuse(reader, "the address is missing");
    slash = memchr(word.text, '/', word.bytes);
    bytes = slash != NULL ? (size_t)(slash - word.text) : word.bytes;
    family = parse_address(word.text, bytes, address->address);
    if (family == 0)
        return refuse(reader, "failed to parse address - %.*s", shown(&word), word.text);
    address->family = (uint8_t)family;
    if (slash != NULL) {
        if (!parse_bits(slash + 1, word.bytes - bytes - 1, family == AF_INET ? 32 : 128,
                        address->mask))
            return refuse(reader, "invalid mask - %.*s", shown(&word), word.text);
    } else {
        mask = hba_line_next(line);
        if (mask.kind != HBA_WORD_PLAIN ||
            parse_address(mask.text, mask.bytes, address->mask) != family)
            return refuse(reader, "failed to parse mask: %.*s", shown(&mask),
                          mask.bytes > 0 ? mask.text : "");
    }
    if (!is_masked_equal(address, address->address))
        config_say(reader->input->report, LEVEL_WARNING, &reader->place,
                   "address does not match mask: hba line %d never matches, since %.*s has bits "
                   "outside of its mask",
                   reader->place.line, shown(&word), word.text);
    return true;
}

/* ---- a rule ---- */

static bool read_method(struct hba_reader *reader, struct hba_line *line, enum auth_type *method)
{
    struct hba_word word = hba_line_next(line);

    for (size_t i = 0; i < COUNT_OF(methods); i++)
        if (hba_word_is(&word, methods[i].name)) {
            *method = methods[i].method;
            return true;
        }
    if (word.kind != HBA_WORD_PLAIN)
        return refuse(reader, "the method is missing");
    return refuse(reader, "unsupported method: %.*s", shown(&word), word.text);
}

/* map=NAME, or map="NAME"; nothing else. */
static bool read_options(struct hba_reader *reader, struct hba_line *line, struct hba_rule *rule)
{
    static const char key[] = "map=";
    struct hba_word word;
    const char *name;

    while ((word = hba_line_next(line)).kind != HBA_WORD_END) {
        if (word.kind != HBA_WORD_PLAIN || rule->map != NULL || word.bytes < strlen(key) ||
            memcmp(word.text, key, strlen(key)) != 0)
            return refuse(reader, "unsupported parameters");
        if (word.bytes > strlen(key)) {
            word.text += strlen(key);
            word.bytes -= strlen(key);
        } else {
            word = hba_line_next(line);
            if (word.kind != HBA_WORD_QUOTED)
                return refuse(reader, "map= needs a name");
        }
        name = copy_word(reader, &word);
        rule->map = ident_find(&reader->out.ident, name);
        if (rule->map == NULL)
            return refuse(reader, "there is no map \"%.100s\" in auth_ident_file", name);
    }
    return true;
}

static bool read_ldap_options(struct hba_reader *reader, struct hba_line *line,
                              struct hba_rule *rule)
{
    struct hba_word rest = hba_line_rest(line);
    char error[LDAP_OPTIONS_ERROR_BYTES];

    if (rest.kind == HBA_WORD_BROKEN)
        return refuse(reader, "a NUL byte");
    if (rest.bytes > HBA_OPTIONS_BYTES_MAX)
        return refuse(reader, "ldap options are longer than %d bytes", HBA_OPTIONS_BYTES_MAX);
    rule->options = copy_word(reader, &rest);
    rule->ldap = ldap_options_parse(rule->options, reader->input->arena, error);
    /* Without the line a later one might let in whom this one asks for a password. */
    if (rule->ldap == NULL)
        config_say(reader->input->report, LEVEL_WARNING, &reader->place,
                   "this line lets nobody in: ldap: %s", error);
    return true;
}

static bool read_rule(struct hba_reader *reader, struct hba_line *line,
                      const struct hba_word *first, struct hba_rule *rule)
{
    size_t i;

    for (i = 0; i < COUNT_OF(transports) && !hba_word_is(first, transports[i].name); i++)
        ;
    if (i == COUNT_OF(transports))
        return refuse(reader, "unknown type");
    *rule = (struct hba_rule){.line = reader->place.line, .transport = transports[i].transport};
    if (!read_names(reader, line, &rule->databases) || !read_names(reader, line, &rule->users))
        return false;
    if (rule->transport != HBA_LOCAL && !read_address(reader, line, &rule->address))
        return false;
    if (!read_method(reader, line, &rule->method))
        return false;
    return rule->method == AUTH_LDAP ? read_ldap_options(reader, line, rule)
                                     : read_options(reader, line, rule);
}

/* ---- the files ---- */

static void add_rule(struct hba_reader *reader, const struct hba_rule *rule)
{
    struct hba_rule *larger;

    if (reader->out.rule_count == HBA_RULES_MAX) {
        (void)!give_up(reader, "auth_hba_file has more than %d rules", HBA_RULES_MAX);
        return;
    }
    if (reader->out.rule_count == reader->rule_count_max) {
        reader->rule_count_max = MAX(reader->rule_count_max * 2, (size_t)16);
        larger = arena_alloc(reader->input->arena, reader->rule_count_max * sizeof(*larger));
        if (reader->out.rule_count > 0)
            memcpy(larger, reader->rules, reader->out.rule_count * sizeof(*larger));
        reader->out.rules = reader->rules = larger;
    }
    reader->rules[reader->out.rule_count++] = *rule;
}

static void read_rules(struct hba_reader *reader, char *text, size_t bytes)
{
    struct hba_lines lines;
    struct hba_line line;
    struct hba_word first;
    struct hba_rule rule;

    hba_lines_init(&lines, text, bytes);
    while (!reader->is_broken && hba_lines_next(&lines, &line)) {
        first = hba_line_next(&line);
        if (first.kind == HBA_WORD_END)
            continue;
        reader->place = (struct config_place){reader->input->hba_path, lines.line};
        if (read_rule(reader, &line, &first, &rule))
            add_rule(reader, &rule);
        else if (!reader->is_broken && reader->refused_count++ < CONFIG_MISTAKES_TOLD_MAX)
            config_say(reader->input->report, LEVEL_WARNING, &reader->place,
                       "could not parse hba config line %d: %s", lines.line, reader->reason);
    }
}

static char *open_or_say(const struct hba_input *input, const char *what, const char *path,
                         const struct config_place *place, size_t *bytes)
{
    char *text = input->open(input->open_context, path, input->arena, bytes);

    if (text == NULL)
        config_mistake(input->report, place, "could not open %s %.500s: %s", what, path,
                       strerror(errno));
    return text;
}

void hba_read(const struct hba_input *input, struct hba *out)
{
    struct hba_reader reader = {.input = input};
    size_t bytes;
    char *text;

    *out = (struct hba){0};
    if (input->ident_path != NULL && *input->ident_path != '\0') {
        text = open_or_say(input, "auth_ident_file", input->ident_path, input->ident_place, &bytes);
        if (text == NULL)
            return;
        ident_read(text, bytes, input->ident_path, input->arena, input->report, &reader.out.ident);
    }
    text = open_or_say(input, "auth_hba_file", input->hba_path, input->hba_place, &bytes);
    if (text == NULL)
        return;
    read_rules(&reader, text, bytes);
    *out = reader.out;
}

static void copy_names(struct arena *arena, struct hba_names *to, const struct hba_names *from)
{
    const char **names = arena_alloc(arena, from->count * sizeof(*names));

    for (size_t i = 0; i < from->count; i++)
        names[i] = arena_copy_string(arena, from->names[i]);
    *to = *from;
    to->names = names;
}

void hba_copy(struct arena *arena, struct hba *to, const struct hba *from)
{
    struct hba_rule *rules = arena_alloc(arena, from->rule_count * sizeof(*rules));
    char error[LDAP_OPTIONS_ERROR_BYTES];

    ident_copy(arena, &to->ident, &from->ident);
    for (size_t i = 0; i < from->rule_count; i++) {
        rules[i] = from->rules[i];
        copy_names(arena, &rules[i].databases, &from->rules[i].databases);
        copy_names(arena, &rules[i].users, &from->rules[i].users);
        if (rules[i].map != NULL)
            rules[i].map = &to->ident.maps[rules[i].map - from->ident.maps];
        rules[i].options = arena_copy_string(arena, rules[i].options);
        if (rules[i].ldap != NULL) {
            rules[i].ldap = ldap_options_parse(rules[i].options, arena, error);
            assert(rules[i].ldap != NULL); /* it was understood before */
        }
    }
    to->rules = rules;
    to->rule_count = from->rule_count;
}

/* ---- matching ---- */

static bool has_name(const struct hba_names *names, const char *name)
{
    return names->count > 0 &&
           bsearch(&name, names->names, names->count, sizeof(*names->names), compare_names) != NULL;
}

static bool is_database(const struct hba_names *names, const struct hba_question *question)
{
    if (question->replication == HBA_PHYSICAL)
        return names->has_replication;
    return names->has_all ||
           (names->has_sameuser && strcmp(question->database, question->user) == 0) ||
           has_name(names, question->database);
}

/* `replication` is swallowed here and matches nobody, as in PgBouncer. */
static bool is_user(const struct hba_names *names, const struct hba_question *question)
{
    return names->has_all ||
           (names->has_sameuser && strcmp(question->database, question->user) == 0) ||
           has_name(names, question->user);
}

static bool is_from(const struct hba_rule *rule, const struct hba_question *question)
{
    if (rule->transport == HBA_LOCAL)
        return question->family == AF_UNIX;
    if (question->family != AF_INET && question->family != AF_INET6)
        return false;
    if (rule->transport != HBA_HOST && question->has_tls != (rule->transport == HBA_HOSTSSL))
        return false;
    if (rule->address.is_all)
        return true;
    return rule->address.family == question->family &&
           is_masked_equal(&rule->address, question->address);
}

const struct hba_rule *hba_find(const struct hba *hba, const struct hba_question *question)
{
    for (size_t i = 0; i < hba->rule_count; i++) {
        const struct hba_rule *rule = &hba->rules[i];

        if (is_from(rule, question) && is_database(&rule->databases, question) &&
            is_user(&rule->users, question))
            return rule;
    }
    return NULL;
}

bool hba_allows_peer(const struct hba_rule *rule, const char *os_user, const char *user)
{
    assert(rule->method == AUTH_PEER);
    return rule->map != NULL ? ident_allows(rule->map, os_user, user) : strcmp(os_user, user) == 0;
}

bool hba_allows_certificate(const struct hba_rule *rule, ident_has_name *is_his,
                            const void *certificate, const char *user)
{
    if (rule != NULL && rule->map != NULL)
        return ident_allows_any(rule->map, is_his, certificate, user);
    return is_his(certificate, user);
}
