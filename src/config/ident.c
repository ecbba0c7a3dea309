#include "config/ident.h"

#include "config/hba_line.h"

#include <stdlib.h>
#include <string.h>

/* A line, until its map is made. */
struct draft_line {
    const char *map;
    struct ident_line line;
    size_t sequence;
};

static int compare_drafts(const void *a, const void *b)
{
    const struct draft_line *left = a, *right = b;
    int order = strcmp(left->map, right->map);

    return order != 0 ? order
                      : (left->sequence > right->sequence) - (left->sequence < right->sequence);
}

/* NULL: this word is no name. */
static const char *take_name(struct arena *arena, const struct hba_word *word)
{
    char *name;

    if (word->kind != HBA_WORD_PLAIN && word->kind != HBA_WORD_QUOTED)
        return NULL;
    name = arena_alloc(arena, word->bytes + 1);
    memcpy(name, word->text, word->bytes);
    return name;
}

/* 1: a line of a map; 0: an empty line; -1: neither. */
static int read_line(struct hba_line *line, struct arena *arena, struct draft_line *draft)
{
    struct hba_word map = hba_line_next(line);
    struct hba_word system_name = hba_line_next(line);
    struct hba_word user = hba_line_next(line);

    if (map.kind == HBA_WORD_END)
        return 0;
    draft->map = take_name(arena, &map);
    draft->line.system_name = take_name(arena, &system_name);
    draft->line.user = take_name(arena, &user);
    if (draft->map == NULL || draft->line.system_name == NULL || draft->line.user == NULL ||
        hba_line_next(line).kind != HBA_WORD_END)
        return -1;
    if (hba_word_is(&user, "all"))
        draft->line.user = NULL;
    return 1;
}

/* From sorted lines to maps. */
static void make_maps(struct arena *arena, const struct draft_line *drafts, size_t count,
                      struct ident *out)
{
    struct ident_map *maps = arena_alloc(arena, count * sizeof(*maps));
    struct ident_line *lines = arena_alloc(arena, count * sizeof(*lines));
    size_t map_count = 0;

    for (size_t index = 0; index < count; index++) {
        lines[index] = drafts[index].line;
        if (index == 0 || strcmp(drafts[index].map, drafts[index - 1].map) != 0)
            maps[map_count++] =
                (struct ident_map){.name = drafts[index].map, .lines = &lines[index]};
        maps[map_count - 1].line_count++;
    }
    *out = (struct ident){.maps = maps, .map_count = map_count};
}

void ident_read(char *text, size_t bytes, const char *path, struct arena *arena,
                struct config_report *report, struct ident *out)
{
    struct draft_line *drafts = NULL, draft = {0}, *larger;
    size_t count = 0, count_max = 0, bad_count = 0;
    struct config_place place = {.file = path};
    struct hba_lines lines;
    struct hba_line line;

    hba_lines_init(&lines, text, bytes);
    while (hba_lines_next(&lines, &line)) {
        int result = read_line(&line, arena, &draft);

        place.line = lines.line;
        if (result < 0 && bad_count++ < CONFIG_MISTAKES_TOLD_MAX)
            config_say(report, LEVEL_WARNING, &place,
                       "could not parse ident config line %d: it is not \"MAP SYSTEM-NAME USER\"",
                       lines.line);
        if (result <= 0)
            continue;
        if (count == IDENT_LINES_MAX) {
            config_mistake(report, &place, "auth_ident_file has more than %d lines",
                           IDENT_LINES_MAX);
            break;
        }
        if (count == count_max) {
            count_max = MAX(count_max * 2, (size_t)16);
            larger = arena_alloc(arena, count_max * sizeof(*larger));
            if (count > 0)
                memcpy(larger, drafts, count * sizeof(*larger));
            drafts = larger;
        }
        draft.sequence = count;
        drafts[count++] = draft;
    }
    if (count > 0)
        qsort(drafts, count, sizeof(*drafts), compare_drafts);
    make_maps(arena, drafts, count, out);
}

void ident_copy(struct arena *arena, struct ident *to, const struct ident *from)
{
    struct ident_map *maps = arena_alloc(arena, from->map_count * sizeof(*maps));

    for (size_t index = 0; index < from->map_count; index++) {
        const struct ident_map *map = &from->maps[index];
        struct ident_line *lines = arena_alloc(arena, map->line_count * sizeof(*lines));

        for (size_t i = 0; i < map->line_count; i++)
            lines[i] = (struct ident_line){
                .system_name = arena_copy_string(arena, map->lines[i].system_name),
                .user = arena_copy_string(arena, map->lines[i].user),
            };
        maps[index] = (struct ident_map){.name = arena_copy_string(arena, map->name),
                                         .lines = lines,
                                         .line_count = map->line_count};
    }
    *to = (struct ident){.maps = maps, .map_count = from->map_count};
}

static int compare_map_name(const void *name, const void *map)
{
    return strcmp(name, ((const struct ident_map *)map)->name);
}

const struct ident_map *ident_find(const struct ident *ident, const char *name)
{
    return ident->map_count == 0 ? NULL
                                 : bsearch(name, ident->maps, ident->map_count,
                                           sizeof(*ident->maps), compare_map_name);
}

bool ident_allows(const struct ident_map *map, const char *system_name, const char *user)
{
    for (size_t i = 0; i < map->line_count; i++)
        if (strcmp(map->lines[i].system_name, system_name) == 0 &&
            (map->lines[i].user == NULL || strcmp(map->lines[i].user, user) == 0))
            return true;
    return false;
}

bool ident_allows_any(const struct ident_map *map, ident_has_name *has_name, const void *somebody,
                      const char *user)
{
    for (size_t i = 0; i < map->line_count; i++) {
        const struct ident_line *line = &map->lines[i];

        if ((line->user == NULL || strcmp(line->user, user) == 0) &&
            has_name(somebody, line->system_name))
            return true;
    }
    return false;
}
