#include "pool/shard.h"

#include <string.h>
#include <sys/mman.h>

/* ---- bulletins ---- */

bool bulletin_write(struct bulletin *bulletin, _Atomic uint64_t *words, const void *from,
                    size_t bytes)
{
    const uint8_t *at = from;
    unsigned version = atomic_load_explicit(&bulletin->version, memory_order_relaxed);

    if (version % 2 == 1 ||
        !atomic_compare_exchange_strong_explicit(&bulletin->version, &version, version + 1,
                                                 memory_order_acquire, memory_order_relaxed))
        return false;
    /* Readers that see a word of the new value must see the odd version, too. */
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; bytes > 0; i++) {
        uint64_t word = 0;
        size_t count = MIN(bytes, sizeof(word));

        memcpy(&word, at, count);
        atomic_store_explicit(&words[i], word, memory_order_relaxed);
        at += count;
        bytes -= count;
    }
    atomic_store_explicit(&bulletin->version, version + 2, memory_order_seq_cst);
    return true;
}

bool bulletin_read(const struct bulletin *bulletin, const _Atomic uint64_t *words, void *to,
                   size_t bytes, unsigned *version)
{
    uint8_t *at = to;
    unsigned before = atomic_load_explicit(&bulletin->version, memory_order_acquire);

    if (before == 0 || before % 2 == 1)
        return false;
    for (size_t i = 0; bytes > 0; i++) {
        uint64_t word = atomic_load_explicit(&words[i], memory_order_relaxed);
        size_t count = MIN(bytes, sizeof(word));

        memcpy(at, &word, count);
        at += count;
        bytes -= count;
    }
    atomic_thread_fence(memory_order_acquire);
    *version = before;
    return atomic_load_explicit(&bulletin->version, memory_order_relaxed) == before;
}

/* ---- the table ---- */

bool shard_table_init(struct shard_table *table, unsigned core_count)
{
    void *sets;

    table->core_count = core_count;
    atomic_init(&table->made_for_strangers, 0);
    table->shard_count_max = MIN(core_count, (unsigned)SHARDS_MAX);
    table->set_bytes = sizeof(struct shard_set) + table->shard_count_max * sizeof(struct shard);
    sets = mmap(NULL, SHARD_SETS_MAX * table->set_bytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    table->sets = sets == MAP_FAILED ? NULL : sets;
    return table->sets != NULL;
}

void shard_table_release(struct shard_table *table)
{
    munmap(table->sets, SHARD_SETS_MAX * table->set_bytes);
    table->sets = NULL;
}

static uint32_t hash_of(const char *database, const char *user)
{
    uint32_t hash = 2166136261u;

    for (; *database != '\0'; database++)
        hash = (hash ^ (uint8_t)*database) * 16777619u;
    hash *= 16777619u;
    for (; *user != '\0'; user++)
        hash = (hash ^ (uint8_t)*user) * 16777619u;
    return hash ^ hash >> 15;
}

static void set_init(struct shard_table *table, struct shard_set *set, const char *database,
                     const char *user, uint32_t hash)
{
    /* The rest is zero, as mapped. */
    set->home = hash % table->core_count;
    set->core_count = table->core_count;
    strcpy(set->database, database);
    strcpy(set->user, user);
    for (unsigned k = 0; k < table->shard_count_max; k++)
        atomic_init(&set->shards[k].oldest_us, UINT64_MAX);
}

static bool stranger_takes(struct shard_table *table)
{
    if (atomic_fetch_add(&table->made_for_strangers, 1) < SHARD_SETS_FOR_STRANGERS_MAX)
        return true;
    atomic_fetch_sub(&table->made_for_strangers, 1);
    return false;
}

static struct shard_set *find(struct shard_table *table, const char *database, const char *user,
                              bool is_stranger)
{
    uint32_t hash = hash_of(database, user);

    if (strlen(database) >= DATABASE_NAME_BYTES_MAX || strlen(user) >= USER_NAME_BYTES_MAX)
        return NULL;
    for (unsigned probe = 0; probe < SHARD_SETS_MAX; probe++) {
        size_t place = (hash + probe) % SHARD_SETS_MAX;
        struct shard_set *set = (void *)(table->sets + place * table->set_bytes);
        int state = atomic_load_explicit(&set->state, memory_order_acquire);

        if (state == 0) {
            if (is_stranger && !stranger_takes(table))
                return NULL;
            if (atomic_compare_exchange_strong(&set->state, &state, 1)) {
                set_init(table, set, database, user, hash);
                atomic_store_explicit(&set->state, 2, memory_order_release);
                return set;
            }
            if (is_stranger) /* somebody else was faster */
                atomic_fetch_sub(&table->made_for_strangers, 1);
        }
        /* Another thread is writing this very set: a few hundred instructions. */
        while (state == 1)
            state = atomic_load_explicit(&set->state, memory_order_acquire);
        if (strcmp(set->database, database) == 0 && strcmp(set->user, user) == 0)
            return set;
    }
    return NULL;
}

struct shard_set *shard_set_find(struct shard_table *table, const char *database, const char *user)
{
    return find(table, database, user, false);
}

struct shard_set *shard_set_find_for_stranger(struct shard_table *table, const char *database,
                                              const char *user)
{
    return find(table, database, user, true);
}

unsigned shard_count_of(int pool_size, int wanted, unsigned core_count)
{
    unsigned count = core_count;

    if (wanted > 0)
        count = (unsigned)wanted;
    else if (pool_size > 0)
        count = (unsigned)MAX(1, pool_size / 4);
    return MIN(MIN(count, core_count), (unsigned)SHARDS_MAX);
}

struct shard *shard_choose(struct shard_set *set, unsigned count, unsigned core_index)
{
    unsigned own = shard_index_on(set, core_index);
    unsigned best = own < count ? own : 0;
    unsigned least = atomic_load_explicit(&set->shards[best].client_count, memory_order_relaxed);

    assert(count > 0);
    for (unsigned k = 0; k < count; k++) {
        unsigned clients = atomic_load_explicit(&set->shards[k].client_count, memory_order_relaxed);

        if (clients < least) {
            least = clients;
            best = k;
        }
    }
    atomic_fetch_add_explicit(&set->shards[best].client_count, 1, memory_order_relaxed);
    return &set->shards[best];
}

/* ---- wanting and lending ----
 *
 * Three things must not miss each other: a shard that says what it wants, one that has a server to
 * give, and the bit by which the second finds the first. All of them are seq_cst: of a write here
 * and the look that follows it there, and the other way round, at least one sees the other. */

bool shard_want(struct shard_set *set, unsigned index, int count)
{
    bool was_content = atomic_fetch_add(&set->shards[index].wanted, count) <= 0;

    if (was_content)
        atomic_fetch_or(&set->hungry, UINT64_C(1) << index);
    return was_content;
}

bool shard_claim(struct shard_set *set, unsigned index)
{
    atomic_int *wanted = &set->shards[index].wanted;
    int now = atomic_load(wanted);

    do
        if (now <= 0)
            return false;
    while (!atomic_compare_exchange_weak(wanted, &now, now - 1));
    if (now == 1) {
        atomic_fetch_and(&set->hungry, ~(UINT64_C(1) << index));
        /* Wanted again meanwhile: its bit may have come before ours was taken off. */
        if (atomic_load(wanted) > 0)
            atomic_fetch_or(&set->hungry, UINT64_C(1) << index);
    }
    return true;
}

int shard_hungriest(const struct shard_set *set, uint64_t except, uint64_t *oldest_us)
{
    uint64_t bits = atomic_load(&set->hungry) & ~except;
    int best = -1;

    for (; bits != 0; bits &= bits - 1) {
        unsigned index = (unsigned)__builtin_ctzll(bits);
        uint64_t since_us =
            atomic_load_explicit(&set->shards[index].oldest_us, memory_order_relaxed);

        if (best < 0 || since_us < *oldest_us) {
            best = (int)index;
            *oldest_us = since_us;
        }
    }
    return best;
}

unsigned shard_idle_elsewhere(const struct shard_set *set, unsigned index)
{
    unsigned shards = MIN(set->core_count, (unsigned)SHARDS_MAX);
    unsigned count = 0;

    for (unsigned k = 0; k < shards; k++)
        if (k != index)
            count += atomic_load_explicit(&set->shards[k].idle_count, memory_order_relaxed);
    return count;
}
