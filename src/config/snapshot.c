#include "config/snapshot.h"

#include "base/assert.h"
#include "config/database.h"
#include "config/ini.h"
#include "config/userlist.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A load first makes a draft: a struct snapshot whose strings and arrays lie in a scratch arena,
 * among the text of the files. What the program keeps is a copy of the draft, so that the snapshot
 * holds no byte that it does not need, and so that SET can make one in the same way. */

/* Where a user or an entry comes from, in the order in which later ones add to earlier ones. */
enum entry_source { FROM_SECTION, FROM_AUTH_FILE, FROM_OTHER_ENTRY };

/* Anything with a name, until it is sorted and known to be the last of its name. */
struct named {
    const char *name;
    void *config; /* struct database_config, user_config or peer_config */
    enum entry_source source;
    size_t sequence;
    struct config_place place;
};

struct named_list {
    struct named *items;
    size_t count;
    size_t count_max;
};

enum section {
    SECTION_NONE,
    SECTION_UNKNOWN,
    SECTION_SETTINGS,
    SECTION_DATABASES,
    SECTION_USERS,
    SECTION_PEERS
};

struct loader {
    struct arena *scratch;
    struct config_report report;
    config_open *open;
    void *open_context;
    struct snapshot draft;
    bool has_pgbouncer;
    enum section section;
    const char *section_name;
    struct config_place *setting_places; /* for each row of the table: where it was set */
    struct named_list databases, users, peers;
};

static struct named *named_add(struct arena *arena, struct named_list *list, const char *name,
                               void *config, enum entry_source source,
                               const struct config_place *place)
{
    struct named *larger, *item;

    if (list->count == list->count_max) {
        list->count_max = MAX(list->count_max * 2, (size_t)64);
        larger = arena_alloc(arena, list->count_max * sizeof(*larger));
        if (list->count > 0)
            memcpy(larger, list->items, list->count * sizeof(*larger));
        list->items = larger;
    }
    item = &list->items[list->count];
    *item = (struct named){
        .name = name, .config = config, .source = source, .sequence = list->count, .place = *place};
    list->count++;
    return item;
}

static int compare_named(const void *a, const void *b)
{
    const struct named *left = a, *right = b;
    int order = strcmp(left->name, right->name);

    if (order == 0)
        order = (left->source > right->source) - (left->source < right->source);
    if (order == 0)
        order = (left->sequence > right->sequence) - (left->sequence < right->sequence);
    return order;
}

static void named_sort(struct named_list *list)
{
    if (list->count > 0)
        qsort(list->items, list->count, sizeof(*list->items), compare_named);
}

/* Both are neighbours in a sorted list. */
static bool is_replaced(const struct named_list *list, size_t index)
{
    return index + 1 < list->count && list->items[index].source == list->items[index + 1].source &&
           strcmp(list->items[index].name, list->items[index + 1].name) == 0;
}

static void say_replaced(struct loader *loader, const char *what, const char *name,
                         const struct config_place *first, const struct config_place *last)
{
    config_say(&loader->report, LEVEL_WARNING, last,
               "%s \"%.100s\" is given twice, this one replaces (%.500s:%d)", what, name,
               first->file, first->line);
}

/* ---- what stands in the files ---- */

static void take_section(struct loader *loader, const struct ini_item *item)
{
    static const struct {
        const char *name;
        enum section section;
    } sections[] = {
        {"pgbouncer", SECTION_SETTINGS},  {"pgsplice", SECTION_SETTINGS},
        {"databases", SECTION_DATABASES}, {"users", SECTION_USERS},
        {"peers", SECTION_PEERS},
    };

    loader->section = SECTION_UNKNOWN;
    for (size_t index = 0; index < COUNT_OF(sections); index++)
        if (strcmp(item->name, sections[index].name) == 0) {
            loader->section = sections[index].section;
            loader->section_name = sections[index].name;
        }
    if (strcmp(item->name, "pgbouncer") == 0)
        loader->has_pgbouncer = true;
    if (loader->section == SECTION_UNKNOWN)
        config_mistake(&loader->report, &item->place, "section [%.100s] is not known", item->name);
}

static void take_setting(struct loader *loader, const struct ini_item *item)
{
    const struct setting *setting = setting_find(loader->section_name, item->name);
    struct config_place *place;

    if (setting == NULL) {
        config_mistake(&loader->report, &item->place, "[%s] has no setting \"%.100s\"",
                       loader->section_name, item->name);
        return;
    }
    place = &loader->setting_places[setting - settings_table];
    if (place->file != NULL)
        say_replaced(loader, "setting", item->name, place, &item->place);
    *place = item->place;
    if (!setting_parse(setting, item->value, &loader->draft.settings, &loader->report,
                       &item->place))
        return; /* it is counted */
}

/* Peers are sorted by number: "7" and "007" are the same one, and 7 comes before 12. */
static const char *peer_sort_name(struct arena *arena, const struct peer_config *peer)
{
    char text[16];

    snprintf(text, sizeof(text), "%05d", peer->peer_id);
    return arena_copy_string(arena, text);
}

static void take_item(void *context, const struct ini_item *item)
{
    struct loader *loader = context;
    struct arena *scratch = loader->scratch;
    struct database_config *database;
    struct user_config *user;
    struct peer_config *peer;

    if (item->kind == INI_SECTION) {
        take_section(loader, item);
        return;
    }
    switch (loader->section) {
    case SECTION_NONE:
        config_mistake(&loader->report, &item->place, "\"%.100s\" stands before any section",
                       item->name);
        break;
    case SECTION_UNKNOWN:
        break;
    case SECTION_SETTINGS:
        take_setting(loader, item);
        break;
    case SECTION_DATABASES:
        database = arena_alloc(scratch, sizeof(*database));
        database_parse(item->name, item->value, &loader->report, &item->place, database);
        named_add(scratch, &loader->databases, database->name, database, FROM_SECTION,
                  &item->place);
        break;
    case SECTION_USERS:
        user = arena_alloc(scratch, sizeof(*user));
        user_parse(item->name, item->value, &loader->report, &item->place, user);
        named_add(scratch, &loader->users, user->name, user, FROM_SECTION, &item->place);
        break;
    case SECTION_PEERS:
        peer = arena_alloc(scratch, sizeof(*peer));
        peer_parse(item->name, item->value, &loader->report, &item->place, peer);
        named_add(scratch, &loader->peers, peer_sort_name(scratch, peer), peer, FROM_SECTION,
                  &item->place);
        break;
    }
}

/* On RELOAD a file that cannot be opened must not lock everybody out: its users stay. */
static void keep_running_users(struct loader *loader, const struct snapshot *running)
{
    static const struct config_place nowhere;
    struct user_config *user;

    for (size_t index = 0; index < running->user_count; index++) {
        if (!running->users[index].is_in_auth_file)
            continue;
        user = arena_alloc(loader->scratch, sizeof(*user));
        user_config_init(user, running->users[index].name);
        user->secret = running->users[index].secret;
        user->is_in_auth_file = true;
        named_add(loader->scratch, &loader->users, user->name, user, FROM_AUTH_FILE, &nowhere);
    }
}

/* No mistake here fails the load: PgBouncer starts without its auth_file too. */
static void read_auth_file(struct loader *loader, const struct snapshot *running)
{
    const char *path = loader->draft.settings.auth_file;
    struct config_place place = {.file = path};
    struct user_config *user;
    struct userlist userlist;
    const char *name, *secret, *what = NULL;
    size_t bytes;
    char *text;

    if (path == NULL || *path == '\0')
        return;
    text = loader->open(loader->open_context, path, loader->scratch, &bytes);
    if (text == NULL) {
        config_say(&loader->report, LEVEL_ERROR, NULL, "could not open auth_file %.500s: %s", path,
                   strerror(errno));
        if (running != NULL)
            keep_running_users(loader, running);
        return;
    }
    userlist_init(&userlist, text);
    while (what == NULL) {
        switch (userlist_next(&userlist, &name, &secret)) {
        case USERLIST_OK:
            user = arena_alloc(loader->scratch, sizeof(*user));
            user_config_init(user, name);
            user->secret = secret;
            user->is_in_auth_file = true;
            place.line = userlist.line;
            named_add(loader->scratch, &loader->users, name, user, FROM_AUTH_FILE, &place);
            break;
        case USERLIST_END:
            return;
        case USERLIST_BROKEN:
            what = "broken auth file";
            break;
        case USERLIST_NAME_TOO_LONG:
            what = "username too long in auth file";
            break;
        case USERLIST_SECRET_TOO_LONG:
            what = "password too long in auth file";
            break;
        }
    }
    place.line = userlist.line;
    config_say(&loader->report, LEVEL_ERROR, &place, "%s (the rest of the file is not read)", what);
}

/* Where a setting of [pgbouncer] stands; NULL: in no file (SET). */
static const struct config_place *place_of(const struct config_place *places, const char *name)
{
    return places != NULL ? &places[setting_find("pgbouncer", name) - settings_table] : NULL;
}

/* For auth_type hba only, as in PgBouncer. */
static void read_hba(config_open *open, void *open_context, struct arena *arena,
                     struct config_report *report, const struct config_place *places,
                     struct snapshot *draft)
{
    const struct settings *settings = &draft->settings;
    struct hba_input input = {
        .open = open,
        .open_context = open_context,
        .arena = arena,
        .report = report,
        .hba_path = settings->auth_hba_file,
        .ident_path = settings->auth_ident_file,
        .hba_place = place_of(places, "auth_hba_file"),
        .ident_place = place_of(places, "auth_ident_file"),
    };

    draft->hba = (struct hba){0};
    if (settings->auth_type != AUTH_HBA)
        return;
    if (input.hba_path == NULL || *input.hba_path == '\0')
        config_mistake(report, place_of(places, "auth_type"), "auth_type hba needs auth_hba_file");
    else
        hba_read(&input, &draft->hba);
}

/* ---- from what was read to sorted arrays ---- */

static void finish_databases(struct loader *loader)
{
    struct named_list *list = &loader->databases;
    struct database_config *databases;
    size_t count = 0;

    named_sort(list);
    databases = arena_alloc(loader->scratch, list->count * sizeof(*databases));
    for (size_t index = 0; index < list->count; index++) {
        struct named *item = &list->items[index];
        struct database_config *config = item->config;

        if (is_replaced(list, index))
            say_replaced(loader, "database", item->name, &item->place, &item[1].place);
        else if (config->is_auto)
            loader->draft.auto_database = config;
        else
            databases[count++] = *config;
    }
    loader->draft.databases = databases;
    loader->draft.database_count = count;
}

static void add_other_user(struct loader *loader, const char *name)
{
    static const struct config_place nowhere;
    struct user_config *user;

    if (name == NULL || *name == '\0')
        return;
    user = arena_alloc(loader->scratch, sizeof(*user));
    user_config_init(user, name);
    named_add(loader->scratch, &loader->users, name, user, FROM_OTHER_ENTRY, &nowhere);
}

static void finish_users(struct loader *loader)
{
    const struct snapshot *draft = &loader->draft;
    struct named_list *list = &loader->users;
    struct user_config *users;
    size_t count = 0;

    for (size_t index = 0; index < draft->database_count; index++) {
        add_other_user(loader, draft->databases[index].user);
        add_other_user(loader, draft->databases[index].auth_user);
    }
    if (draft->auto_database != NULL) {
        add_other_user(loader, draft->auto_database->user);
        add_other_user(loader, draft->auto_database->auth_user);
    }
    add_other_user(loader, draft->settings.auth_user);

    named_sort(list);
    users = arena_alloc(loader->scratch, list->count * sizeof(*users));
    for (size_t index = 0; index < list->count; index++) {
        struct named *item = &list->items[index];
        const struct user_config *config = item->config;

        if (is_replaced(list, index)) {
            if (item->source == FROM_SECTION)
                say_replaced(loader, "user", item->name, &item->place, &item[1].place);
            continue;
        }
        if (count == 0 || strcmp(users[count - 1].name, item->name) != 0) {
            users[count++] = *config;
        } else if (item->source == FROM_AUTH_FILE) {
            users[count - 1].secret = config->secret;
            users[count - 1].is_in_auth_file = true;
        }
    }
    loader->draft.users = users;
    loader->draft.user_count = count;
}

static void finish_peers(struct loader *loader)
{
    struct named_list *list = &loader->peers;
    struct peer_config *peers;
    size_t count = 0;

    named_sort(list);
    peers = arena_alloc(loader->scratch, list->count * sizeof(*peers));
    for (size_t index = 0; index < list->count; index++) {
        struct named *item = &list->items[index];
        const struct peer_config *config = item->config;

        if (config->peer_id == 0)
            continue; /* a mistake that is already counted */
        if (is_replaced(list, index))
            say_replaced(loader, "peer", item->name, &item->place, &item[1].place);
        else
            peers[count++] = *config;
    }
    loader->draft.peers = peers;
    loader->draft.peer_count = count;
}

static void say_unused_settings(struct loader *loader)
{
    struct settings defaults;

    settings_set_defaults(&defaults);
    for (size_t index = 0; index < settings_count; index++) {
        const struct setting *setting = &settings_table[index];

        if (setting->unused_reason == NULL || setting->judge != NULL ||
            loader->setting_places[index].file == NULL ||
            setting_is_equal(setting, &loader->draft.settings, &defaults))
            continue;
        /* An empty text is no wish either, where the default is no text at all. */
        if (setting->default_text == NULL && setting_string(setting, &loader->draft.settings) &&
            **setting_string(setting, &loader->draft.settings) == '\0')
            continue;
        config_say(&loader->report, LEVEL_WARNING, &loader->setting_places[index],
                   "%s has no effect: %s", setting->name, setting->unused_reason);
    }
}

/* Once for all entries; the list is in the order of the file still. */
static void say_unused_entries(struct loader *loader)
{
    for (const struct entry_option *option = database_options; option->key != NULL; option++) {
        if (option->unused_reason == NULL)
            continue;
        assert(option->kind == ENTRY_STRING || option->kind == ENTRY_USER);
        for (size_t index = 0; index < loader->databases.count; index++) {
            const struct named *item = &loader->databases.items[index];
            const void *field = (const char *)item->config + option->offset;

            if (*(const char *const *)field == NULL)
                continue;
            config_say(&loader->report, LEVEL_WARNING, &item->place,
                       "%s of a database has no effect: %s", option->key, option->unused_reason);
            break;
        }
    }
    if (loader->peers.count > 0 && loader->draft.settings.peer_id == 0)
        config_say(&loader->report, LEVEL_WARNING, &loader->peers.items[0].place,
                   "[peers] has no effect without peer_id");
}

static bool has_text(const char *text)
{
    return text != NULL && *text != '\0';
}

/* No login would succeed; said at each of them, too. */
static void say_missing_options(struct loader *loader)
{
    const struct settings *settings = &loader->draft.settings;
    const struct setting *setting = setting_find("pgbouncer", "auth_type");

    if (settings->auth_type == AUTH_LDAP && !has_text(settings->auth_ldap_options))
        config_say(&loader->report, LEVEL_WARNING,
                   &loader->setting_places[setting - settings_table],
                   "auth_type ldap lets nobody in without auth_ldap_options");
}

static void keep_restart_settings(struct loader *loader, const struct snapshot *running)
{
    for (size_t index = 0; index < settings_count; index++) {
        const struct setting *setting = &settings_table[index];

        if (setting->on_reload ||
            setting_is_equal(setting, &loader->draft.settings, &running->settings))
            continue;
        config_say(&loader->report, LEVEL_WARNING, &loader->setting_places[index],
                   "%s keeps its value: only a restart changes it", setting->name);
        setting_copy(setting, &loader->draft.settings, &running->settings);
    }
}

/* ---- the copy that stays ---- */

static void copy_entry_strings(struct arena *arena, const struct entry_option *options, void *entry)
{
    for (; options->key != NULL; options++)
        if (options->kind == ENTRY_STRING || options->kind == ENTRY_USER) {
            const char **field = (const char **)(void *)((char *)entry + options->offset);

            *field = arena_copy_string(arena, *field);
        }
}

static void copy_database(struct arena *arena, struct database_config *to,
                          const struct database_config *from)
{
    *to = *from;
    to->name = arena_copy_string(arena, from->name);
    copy_entry_strings(arena, database_options, to);
}

static struct snapshot *copy_draft(const struct snapshot *draft)
{
    struct arena *arena = arena_new();
    struct snapshot *snapshot = arena_alloc(arena, sizeof(*snapshot));
    struct database_config *databases, *auto_database;
    struct user_config *users;
    struct peer_config *peers;

    snapshot->arena = arena;
    atomic_init(&snapshot->references, 1);

    snapshot->settings = draft->settings;
    for (size_t index = 0; index < settings_count; index++) {
        const char **field = setting_string(&settings_table[index], &snapshot->settings);

        if (field != NULL)
            *field = arena_copy_string(arena, *field);
    }

    if (has_text(snapshot->settings.auth_ldap_options)) {
        char error[LDAP_OPTIONS_ERROR_BYTES];

        snapshot->ldap = ldap_options_parse(snapshot->settings.auth_ldap_options, arena, error);
        assert(snapshot->ldap != NULL); /* setting_parse has tried it */
    }

    databases = arena_alloc(arena, draft->database_count * sizeof(*databases));
    for (size_t index = 0; index < draft->database_count; index++)
        copy_database(arena, &databases[index], &draft->databases[index]);
    snapshot->databases = databases;
    snapshot->database_count = draft->database_count;
    if (draft->auto_database != NULL) {
        auto_database = arena_alloc(arena, sizeof(*auto_database));
        copy_database(arena, auto_database, draft->auto_database);
        snapshot->auto_database = auto_database;
    }

    users = arena_alloc(arena, draft->user_count * sizeof(*users));
    for (size_t index = 0; index < draft->user_count; index++) {
        users[index] = draft->users[index];
        users[index].name = arena_copy_string(arena, users[index].name);
        users[index].secret = arena_copy_string(arena, users[index].secret);
        copy_entry_strings(arena, user_options, &users[index]);
    }
    snapshot->users = users;
    snapshot->user_count = draft->user_count;

    peers = arena_alloc(arena, draft->peer_count * sizeof(*peers));
    for (size_t index = 0; index < draft->peer_count; index++) {
        peers[index] = draft->peers[index];
        copy_entry_strings(arena, peer_options, &peers[index]);
    }
    snapshot->peers = peers;
    snapshot->peer_count = draft->peer_count;
    hba_copy(arena, &snapshot->hba, &draft->hba);
    return snapshot;
}

/* ---- for others ---- */

struct snapshot *snapshot_load_through(config_open *open, void *open_context, const char *path,
                                       const struct snapshot *running, log_report *report,
                                       void *context)
{
    struct loader loader = {
        .scratch = arena_new(),
        .report = {.report = report, .context = context},
        .open = open,
        .open_context = open_context,
    };
    struct ini_input input = {
        .open = open,
        .open_context = open_context,
        .arena = loader.scratch,
        .report = &loader.report,
        .handler = take_item,
        .handler_context = &loader,
    };
    struct config_place whole_file = {.file = path};
    struct snapshot *snapshot = NULL;

    settings_set_defaults(&loader.draft.settings);
    loader.draft.settings.conffile = path;
    loader.setting_places =
        arena_alloc(loader.scratch, settings_count * sizeof(*loader.setting_places));

    ini_read(&input, path);
    /* What could not be read may have held the section. */
    if (!loader.has_pgbouncer && loader.report.mistake_count == 0)
        config_mistake(&loader.report, &whole_file, "there is no section [pgbouncer]");
    read_auth_file(&loader, running);
    read_hba(open, open_context, loader.scratch, &loader.report, loader.setting_places,
             &loader.draft);
    say_unused_entries(&loader);
    say_unused_settings(&loader);
    say_missing_options(&loader);
    finish_databases(&loader);
    finish_users(&loader);
    finish_peers(&loader);
    if (running != NULL)
        keep_restart_settings(&loader, running);
    if (loader.report.mistake_count == 0)
        snapshot = copy_draft(&loader.draft);
    arena_free(loader.scratch);
    return snapshot;
}

struct snapshot *snapshot_load(const char *path, log_report *report, void *context)
{
    return snapshot_load_through(config_file_open, NULL, path, NULL, report, context);
}

struct snapshot *snapshot_reload(const struct snapshot *running, const char *path,
                                 log_report *report, void *context)
{
    return snapshot_load_through(config_file_open, NULL, path, running, report, context);
}

void snapshot_reference(struct snapshot *snapshot)
{
    unsigned before = atomic_fetch_add_explicit(&snapshot->references, 1, memory_order_relaxed);

    assert(before > 0);
}

void snapshot_release(struct snapshot *snapshot)
{
    unsigned before = atomic_fetch_sub_explicit(&snapshot->references, 1, memory_order_acq_rel);

    assert(before > 0);
    if (before > 1)
        return;
    if (snapshot->client_tls != NULL)
        snapshot->release_tls(snapshot->client_tls);
    if (snapshot->server_tls != NULL)
        snapshot->release_tls(snapshot->server_tls);
    arena_free(snapshot->arena);
}

void snapshot_set_tls(struct snapshot *snapshot, struct tls_context *client_tls,
                      struct tls_context *server_tls, void (*release)(struct tls_context *context))
{
    assert(snapshot->release_tls == NULL && release != NULL);
    snapshot->client_tls = client_tls;
    snapshot->server_tls = server_tls;
    snapshot->release_tls = release;
}

/* SET has no other place where a file's mistakes could be told. */
static void say_in_log(void *context, enum log_level level, const char *text)
{
    (void)context;
    log_write(level, "%s", text);
}

static bool is_about_hba(const struct setting *setting)
{
    return strcmp(setting->name, "auth_type") == 0 || strcmp(setting->name, "auth_hba_file") == 0 ||
           strcmp(setting->name, "auth_ident_file") == 0;
}

struct snapshot *snapshot_with_setting(const struct snapshot *base, const char *name,
                                       const char *value)
{
    struct config_report report = {.report = NULL};
    struct config_report file_report = {.report = say_in_log};
    struct arena *scratch;
    struct snapshot *snapshot = NULL;
    struct snapshot draft = {
        .settings = base->settings,
        .databases = base->databases,
        .database_count = base->database_count,
        .auto_database = base->auto_database,
        .users = base->users,
        .user_count = base->user_count,
        .peers = base->peers,
        .peer_count = base->peer_count,
        .hba = base->hba,
    };
    const struct setting *setting = setting_find("pgbouncer", name);

    if (setting == NULL)
        setting = setting_find("pgsplice", name);
    if (setting == NULL || !setting_parse(setting, value, &draft.settings, &report, NULL))
        return NULL;
    if (!setting->on_reload)
        setting_copy(setting, &draft.settings, &base->settings);
    scratch = arena_new();
    if (is_about_hba(setting))
        read_hba(config_file_open, NULL, scratch, &file_report, NULL, &draft);
    if (file_report.mistake_count == 0)
        snapshot = copy_draft(&draft);
    arena_free(scratch);
    return snapshot;
}

static int compare_database_name(const void *name, const void *database)
{
    return strcmp(name, ((const struct database_config *)database)->name);
}

const struct database_config *snapshot_find_database(const struct snapshot *snapshot,
                                                     const char *name)
{
    const struct database_config *found;

    if (strcmp(name, "pgbouncer") == 0 ||
        strnlen(name, DATABASE_NAME_BYTES_MAX) == DATABASE_NAME_BYTES_MAX)
        return NULL;
    found = bsearch(name, snapshot->databases, snapshot->database_count,
                    sizeof(*snapshot->databases), compare_database_name);
    return found != NULL ? found : snapshot->auto_database;
}

static int compare_user_name(const void *name, const void *user)
{
    return strcmp(name, ((const struct user_config *)user)->name);
}

const struct user_config *snapshot_find_user(const struct snapshot *snapshot, const char *name)
{
    return bsearch(name, snapshot->users, snapshot->user_count, sizeof(*snapshot->users),
                   compare_user_name);
}

/* ---- what applies to a pool ---- */

/* The first that is set (not negative), else the global value. */
static int first_size(int a, int b, int global)
{
    return a >= 0 ? a : b >= 0 ? b : global;
}

static uint64_t first_time(int64_t a, int64_t b, uint64_t global_us)
{
    return a >= 0 ? (uint64_t)a : b >= 0 ? (uint64_t)b : global_us;
}

/* 0 or less is no limit of its own, and no limit at all in the global value. */
static int limit_or(int own, int global)
{
    return own > 0 ? own : MAX(global, 0);
}

void snapshot_pool_settings(const struct snapshot *snapshot, const struct database_config *database,
                            const struct user_config *user, struct pool_settings *out)
{
    const struct settings *settings = &snapshot->settings;
    struct user_config nobody;

    if (user == NULL) {
        user_config_init(&nobody, "");
        user = &nobody;
    }
    *out = (struct pool_settings){
        .pool_mode = (enum pool_mode)first_size(user->pool_mode, database->pool_mode,
                                                (int)settings->pool_mode),
        .pool_size = first_size(user->pool_size, database->pool_size, settings->default_pool_size),
        .pool_shards = settings->pool_shards,
        .server_sharing = user->server_sharing != SHARING_NOT_SET       ? user->server_sharing
                          : database->server_sharing != SHARING_NOT_SET ? database->server_sharing
                                                                        : settings->server_sharing,
        .min_pool_size = first_size(-1, database->min_pool_size, settings->min_pool_size),
        .reserve_pool_size = first_size(user->reserve_pool_size, database->reserve_pool_size,
                                        settings->reserve_pool_size),
        .max_db_connections = limit_or(database->max_db_connections, settings->max_db_connections),
        .max_user_connections =
            limit_or(user->max_user_connections, settings->max_user_connections),
        .max_db_client_connections =
            limit_or(database->max_db_client_connections, settings->max_db_client_connections),
        .max_user_client_connections =
            limit_or(user->max_user_client_connections, settings->max_user_client_connections),
        .server_lifetime_us =
            first_time(-1, database->server_lifetime_us, settings->server_lifetime_us),
        .query_timeout_us = first_time(user->query_timeout_us, -1, settings->query_timeout_us),
        .query_wait_timeout_us =
            first_time(user->query_wait_timeout_us, database->query_wait_timeout_us,
                       settings->query_wait_timeout_us),
        .idle_transaction_timeout_us = first_time(user->idle_transaction_timeout_us, -1,
                                                  settings->idle_transaction_timeout_us),
        .transaction_timeout_us =
            first_time(user->transaction_timeout_us, -1, settings->transaction_timeout_us),
        .client_idle_timeout_us =
            first_time(user->client_idle_timeout_us, -1, settings->client_idle_timeout_us),
    };
    if (out->pool_size > 0)
        out->min_pool_size = MIN(out->min_pool_size, out->pool_size);
}

bool list_contains(const char *list, const char *name, bool ignore_case)
{
    static const char separators[] = ", \t\n\v\f\r";
    size_t name_bytes = strlen(name);
    size_t bytes;

    if (list == NULL || name_bytes == 0)
        return false;
    for (;;) {
        list += strspn(list, separators);
        if (*list == '\0')
            return false;
        bytes = strcspn(list, separators);
        if (bytes == name_bytes &&
            (ignore_case ? strncasecmp(list, name, bytes) : strncmp(list, name, bytes)) == 0)
            return true;
        list += bytes;
    }
}

static bool is_same(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool database_config_moved(const struct database_config *old, const struct database_config *new)
{
    return !is_same(old->dbname, new->dbname) || !is_same(old->host, new->host) ||
           old->port != new->port || !is_same(old->user, new->user) ||
           !is_same(old->connect_query, new->connect_query) ||
           !is_same(old->auth_dbname, new->auth_dbname) ||
           !is_same(old->auth_query, new->auth_query) ||
           old->load_balance_hosts != new->load_balance_hosts;
}

static uint64_t hash_text(uint64_t hash, const char *text)
{
    /* Nothing and an empty text are not the same. */
    if (text == NULL)
        return (hash ^ 0x100u) * UINT64_C(1099511628211);
    do
        hash = (hash ^ (uint8_t)*text) * UINT64_C(1099511628211);
    while (*text++ != '\0');
    return hash;
}

uint64_t database_config_identity(const struct database_config *config)
{
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */

    hash = hash_text(hash, config->dbname);
    hash = hash_text(hash, config->host);
    hash = hash_text(hash, config->user);
    hash = hash_text(hash, config->connect_query);
    hash = hash_text(hash, config->auth_dbname);
    hash = hash_text(hash, config->auth_query);
    return (hash ^ config->port ^ (uint64_t)config->load_balance_hosts << 32) *
           UINT64_C(1099511628211);
}
