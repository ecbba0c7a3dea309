/* fuzz_hba.c - HBA and ident files, and the lists that they name, from foreign bytes; and who matches.
 *
 * The input's first byte says who asks. Behind it stand the files, each up to a byte 1: the HBA file,
 * the ident file, and lists, which `@0`, `@1` ... name. NUL bytes stay in them. */
#include "config/hba.h"
#include "config/hba_line.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct input {
    const uint8_t *data;
    size_t bytes;
};

/* "h/hba", "h/ident", "h/0" and so on. */
static char *open_part(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    const struct input *input = context;
    const uint8_t *at = input->data, *end = input->data + input->bytes, *part_end;
    int part;
    char *copy;

    if (strcmp(path, "h/hba") == 0)
        part = 0;
    else if (strcmp(path, "h/ident") == 0)
        part = 1;
    else if (strncmp(path, "h/", 2) == 0 && path[2] >= '0' && path[2] <= '5' && path[3] == '\0')
        part = 2 + path[2] - '0';
    else {
        errno = ENOENT;
        return NULL;
    }
    for (;; part--) {
        part_end = at < end ? memchr(at, 1, (size_t)(end - at)) : NULL;
        if (part_end == NULL)
            part_end = end;
        if (part == 0)
            break;
        at = part_end < end ? part_end + 1 : end;
    }
    *bytes = (size_t)(part_end - at);
    copy = arena_alloc(arena, *bytes + 1);
    if (*bytes > 0)
        memcpy(copy, at, *bytes);
    return copy;
}

static void check_report(void *context, enum log_level level, const char *text)
{
    (void)context;
    assert(level == LEVEL_ERROR || level == LEVEL_WARNING);
    assert(strlen(text) < LOG_TEXT_BYTES_MAX);
    assert(strpbrk(text, "\n\r\033") == NULL);
}

static void check_names(const struct hba_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        assert(i == 0 || strcmp(names->names[i - 1], names->names[i]) <= 0);
}

static void check_hba(const struct hba *hba)
{
    int line = 0;

    assert(hba->rule_count <= HBA_RULES_MAX);
    for (size_t i = 0; i < hba->rule_count; i++) {
        const struct hba_rule *rule = &hba->rules[i];

        assert(rule->line > line);
        line = rule->line;
        check_names(&rule->databases);
        check_names(&rule->users);
        assert(rule->transport == HBA_LOCAL || rule->address.is_all ||
               rule->address.family == AF_INET || rule->address.family == AF_INET6);
        assert((rule->method == AUTH_LDAP) == (rule->options != NULL));
        assert(rule->options == NULL || strlen(rule->options) <= HBA_OPTIONS_BYTES_MAX);
        assert(rule->ldap == NULL || (rule->options != NULL && rule->ldap->uris[0] != '\0'));
        assert(rule->map == NULL || ident_find(&hba->ident, rule->map->name) == rule->map);
        if (rule->method == AUTH_PEER)
            (void)hba_allows_peer(rule, "root", "app");
    }
    for (size_t i = 0; i < hba->ident.map_count; i++) {
        assert(hba->ident.maps[i].line_count > 0);
        assert(i == 0 || strcmp(hba->ident.maps[i - 1].name, hba->ident.maps[i].name) < 0);
    }
}

static const struct hba_rule *ask(const struct hba *hba, unsigned who)
{
    static const int families[] = {AF_UNIX, AF_INET, AF_INET6, 0};
    static const uint8_t addresses[][16] = {{127, 0, 0, 1}, {10, 1, 2, 3}, {0}, {[15] = 1}};
    static const char *const names[] = {"app", "all", "replication", ""};
    const struct hba_question question = {
        .database = names[who & 3],
        .user = names[who >> 2 & 3],
        .family = families[who >> 4 & 3],
        .address = addresses[who >> 6 & 3],
        .has_tls = who >> 7 & 1,
        .replication = (enum hba_replication)(who % 3),
    };

    return hba_find(hba, &question);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct input input = {.data = data + 1, .bytes = bytes - 1};
    struct config_report report = {.report = check_report};
    struct arena *arena, *kept;
    struct hba_input hba_input = {.open = open_part,
                                  .open_context = &input,
                                  .report = &report,
                                  .hba_path = "h/hba",
                                  .ident_path = "h/ident"};
    const struct hba_rule *before, *after;
    struct hba hba, copy;

    if (bytes == 0)
        return 0;
    arena = arena_new();
    kept = arena_new();
    hba_input.arena = arena;
    hba_read(&hba_input, &hba);
    check_hba(&hba);
    before = ask(&hba, data[0]);
    hba_copy(kept, &copy, &hba);
    after = ask(&copy, data[0]);
    assert((before == NULL) == (after == NULL));
    assert(before == NULL || before->line == after->line);
    arena_free(arena); /* nothing of the copy lies in it */
    check_hba(&copy);
    (void)ask(&copy, data[0] + 1u);
    arena_free(kept);
    return 0;
}
