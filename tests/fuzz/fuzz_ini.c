/* fuzz_ini.c - a whole load of the configuration from foreign bytes.
 *
 * The input is the main file; each NUL byte ends a file, so what follows is the first included file
 * (named "1"), the next one ("2"), and so on. auth_file finds them too. Nothing is read from disk.
 */
#include "config/database.h"
#include "config/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

struct input {
    const uint8_t *data;
    size_t bytes;
};

static char *open_part(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    const struct input *input = context;
    const uint8_t *at = input->data, *end = input->data + input->bytes, *part_end;
    char *copy;

    if (strlen(path) > 1 || *path < '0' || *path > '9') {
        errno = ENOENT;
        return NULL;
    }
    for (int part = *path - '0';; part--) {
        part_end = at < end ? memchr(at, 0, (size_t)(end - at)) : NULL;
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
    assert(level <= LEVEL_LOG);
    assert(strlen(text) < LOG_TEXT_BYTES_MAX);
    assert(strpbrk(text, "\n\r\033") == NULL);
}

static void check_snapshot(const struct snapshot *snapshot)
{
    struct pool_settings pool;
    char text[64];

    for (size_t index = 0; index < settings_count; index++)
        (void)setting_format(&settings_table[index], &snapshot->settings, text);
    for (size_t index = 0; index < snapshot->database_count; index++) {
        const struct database_config *database = &snapshot->databases[index];

        assert(strlen(database->name) < DATABASE_NAME_BYTES_MAX);
        assert(database->port > 0);
        assert(snapshot_find_database(snapshot, database->name) == database);
        assert(!database_config_moved(database, database));
        snapshot_pool_settings(snapshot, database,
                               snapshot->user_count > 0 ? snapshot->users : NULL, &pool);
        assert(pool.pool_size >= 0 && pool.min_pool_size >= 0);
    }
    for (size_t index = 0; index < snapshot->user_count; index++)
        assert(snapshot_find_user(snapshot, snapshot->users[index].name) ==
               &snapshot->users[index]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct input input = {.data = data, .bytes = bytes};
    struct snapshot *snapshot =
        snapshot_load_through(open_part, &input, "0", NULL, check_report, NULL);
    struct snapshot *next;

    if (snapshot == NULL)
        return 0;
    check_snapshot(snapshot);
    next = snapshot_load_through(open_part, &input, "0", snapshot, check_report, NULL);
    assert(next != NULL);
    snapshot_release(next);
    snapshot_release(snapshot);
    return 0;
}
