/* A session that comes from another core, to a configuration that is no longer the one it logged in under. */
#include "unit.h"

#include "pool/client.h"
#include "pool/handover.h"
#include "pool/login.h"

#include <sys/socket.h>
#include <unistd.h>

static struct core core;
static struct buffer_pool buffers;
static struct usage_table usage;
static struct shard_table shards;
static struct param_names param_names;
static struct letter *posted;
static char storage[256];
static const char *database_line;

static void post_core(struct core *from, unsigned index, struct letter *letter)
{
    (void)from;
    assert_int_equal(index, 0);
    posted = letter;
}

static void post_control(struct core *from, struct letter *letter)
{
    (void)from;
    (void)letter;
}

static bool post_job(struct core *from, struct job *job)
{
    (void)from;
    (void)job;
    return false;
}

static void give_random(struct core *from, void *out, size_t bytes)
{
    (void)from;
    memset(out, 1, bytes);
}

static const struct core_ports ports = {.post_core = post_core,
                                        .post_control = post_control,
                                        .post_job = post_job,
                                        .random = give_random};

static char *open_config(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    char text[256];

    (void)context;
    (void)path;
    snprintf(text, sizeof(text), "[databases]\n%s\n[pgbouncer]\nauth_type = any\n", database_line);
    *bytes = strlen(text);
    return arena_copy_string(arena, text);
}

static void no_log(enum log_level level, const char *text, size_t bytes)
{
    (void)level;
    (void)text;
    (void)bytes;
}

static struct snapshot *make_snapshot(const char *line)
{
    struct snapshot *snapshot;

    database_line = line;
    snapshot = snapshot_load_through(open_config, NULL, "pgsplice.ini", NULL, NULL, NULL);
    assert_non_null(snapshot);
    return snapshot;
}

static int set_up(void **state)
{
    static const uint8_t mock_key[32] = {1};
    char error[RING_ERROR_BYTES];
    struct ring_options ring_options = {
        .entries = 64, .completion_entries = 64, .buffers = &buffers};
    struct core_options options;

    (void)state;
    log_set_sink(no_log);
    assert_true(buffer_pool_init(&buffers, 4096, 16));
    assert_true(usage_table_init(&usage));
    assert_true(shard_table_init(&shards, 2));
    param_names_init(&param_names, NULL, storage, sizeof(storage));
    options = (struct core_options){
        .index = 1,
        .count = 2,
        .client_count_max = 20,
        .ring = ring_create(&ring_options, error),
        .buffers = &buffers,
        .usage = &usage,
        .shards = &shards,
        .param_names = &param_names,
        .mock_key = mock_key,
        .snapshot = make_snapshot("shop = host=127.0.0.1 port=1"),
        .ports = &ports,
        .now_us = 1,
    };
    assert_non_null(options.ring);
    assert_true(core_init(&core, &options));
    return 0;
}

/* What the other core has counted, and left behind. */
static void comes(struct handover *handover, bool is_anybody, int fd)
{
    struct shard_set *set = shard_set_find(&shards, "shop", "postgres");

    *handover = (struct handover){
        .kind = HANDOVER_CLIENT, .fd = fd, .id = 1, .to_core = 1, .is_anybody = is_anybody};
    handover->peer.family = AF_UNIX;
    strcpy(handover->database, "shop");
    strcpy(handover->user, "postgres");
    handover->shard = &set->shards[shard_index_on(set, 1)];
    atomic_fetch_add(&handover->shard->client_count, 1);
    assert_true(usage_take(&usage.client_count, 0));
    assert_true(usage_take(&usage_find(&usage, USAGE_USER, "postgres")->client_count, 0));
    assert_true(usage_take(&usage_find(&usage, USAGE_DATABASE, "shop")->client_count, 0));
    handover_open(&handover->letter, &core);
    assert_ptr_equal(posted, &handover->letter);
}

static void test_who_has_proved_nothing_is_not_taken_at_his_word(void **state)
{
    struct handover handover;
    char text[512];
    ssize_t bytes;
    int fds[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    comes(&handover, true, fds[0]);
    for (int turn = 0; turn < 20; turn++) {
        (void)ring_turn(core.loop.ring, 0);
        core_end_turn(&core);
    }
    bytes = recv(fds[1], text, sizeof(text), MSG_DONTWAIT);
    assert_true(bytes > 0);
    assert_int_equal(text[0], 'E');
    assert_non_null(memmem(text, (size_t)bytes, "bouncer config error", 20));
    /* All that it counted in is given back. */
    assert_int_equal(usage_count(&usage.client_count), 0);
    assert_int_equal(usage_count(&usage_find(&usage, USAGE_USER, "postgres")->client_count), 0);
    assert_int_equal(usage_count(&usage_find(&usage, USAGE_DATABASE, "shop")->client_count), 0);
    assert_int_equal(atomic_load(&handover.shard->client_count), 0);
    assert_true(list_is_empty(&core.pool_list));
    close(fds[1]);
}

static void test_who_has_is(void **state)
{
    struct handover handover;
    int fds[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    comes(&handover, false, fds[0]);
    assert_false(list_is_empty(&core.pool_list));
    assert_string_equal(OWNER_OF(list_front(&core.pool_list), struct pool, link)->user_name,
                        "postgres");
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_has_proved_nothing_is_not_taken_at_his_word),
        cmocka_unit_test(test_who_has_is),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
