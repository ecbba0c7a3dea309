/* shard.h - what the shards of one pool share: counts that bear the pool's limits, who wants a
 * server, and news that one shard has learned for all.
 *
 * A pool is (database, server user). It has a `struct pool` (pool.h) on each core that serves some
 * of its clients; those are its shards. Shard k lives on core (home + k) % cores, home being a hash
 * of the names; so a shard is known by a number below SHARDS_MAX, and fits a bit of one word.
 *
 * The sets lie in a table of fixed size, made at start and mapped as needed; a set is never
 * removed. Any thread may look at any of it. Who may write what is said at each field; everything
 * is an atomic. A query that finds a free server on its own shard writes nothing here but its own
 * shard's first cache line, which nobody reads unless he is hungry. */
#ifndef POOL_SHARD_H
#define POOL_SHARD_H

#include "base/assert.h"
#include "io/mailbox.h"

#include <stdalign.h>

struct pool;

enum {
    SHARDS_MAX = 64,
    SHARD_SETS_MAX = 65536,
    SHARD_SETS_FOR_STRANGERS_MAX = 16384, /* see shard_set_find_for_stranger */
    SHARD_LINE_BYTES = 64,
    SHARD_WELCOME_BYTES = 2048, /* see pool.h */
    SHARD_ERROR_BYTES = 256,
    SHARD_PASSWORD_BYTES = 1024, /* a longer one stays with its shard */
};

/* A value that one thread publishes for all others: written seldom, read seldom, never waited for.
 * A reader that comes in the middle of a write gets nothing, and is poked when the write is done. */
struct bulletin {
    atomic_uint version; /* odd: is being written; 0: nothing yet */
};

/* `words` is an array of atomic uint64_t that holds `bytes`. False: another thread is writing. */
must_check bool bulletin_write(struct bulletin *bulletin, _Atomic uint64_t *words, const void *from,
                               size_t bytes);
/* False: nothing is there, or it is being written. `version`: of what was read. */
must_check bool bulletin_read(const struct bulletin *bulletin, const _Atomic uint64_t *words,
                              void *to, size_t bytes, unsigned *version);

/* What a server told at its login, for the clients of all shards. */
struct welcome_news {
    uint64_t generation, identity; /* of the server, see server.h */
    uint64_t made_us;              /* a newer one replaces an older one */
    uint16_t welcome_bytes, params_bytes;
    uint8_t welcome[SHARD_WELCOME_BYTES]; /* ParameterStatus messages */
    uint8_t params[SHARD_WELCOME_BYTES];  /* tracked values, each with its zero; "\xff": none */
};

/* How the last attempt to open a server ended. */
struct failure_news {
    bool has_failed, said_error;
    uint64_t retry_at_us, retry_pause_us;
    char text[SHARD_ERROR_BYTES];
    char sqlstate[8];
};

/* What a client has brought along for the server's login: see pool_learn_password. */
struct password_news {
    bool is_found;
    char password[SHARD_PASSWORD_BYTES]; /* "": none */
};

enum {
    WELCOME_WORDS = (sizeof(struct welcome_news) + 7) / 8,
    FAILURE_WORDS = (sizeof(struct failure_news) + 7) / 8,
    PASSWORD_WORDS = (sizeof(struct password_news) + 7) / 8,
};

struct shard {
    /* Written by the shard's own core only. */
    alignas(SHARD_LINE_BYTES) atomic_uint idle_count; /* a hint: may be old when it is read */
    atomic_uint
        server_count;     /* exact in the order of seq_cst; those being lent are no more in it */
    atomic_bool is_alive; /* the core has a struct pool */
    _Atomic uint64_t oldest_us; /* since when its first waiter waits; UINT64_MAX: nobody does */
    struct pool *pool;          /* the core's own; looked at by that core alone */

    /* Written by all. */
    alignas(SHARD_LINE_BYTES) atomic_int wanted; /* servers that its waiters want and nobody has
                                                    promised yet: who lends one takes one off */
    atomic_uint client_count; /* of the shard, those on their way to it included */
    /* It has clients that wait for a welcome, of servers of this pool.identity; 0: no. Who has one
     * publishes it again: the bulletin may hold that of another configuration by now. */
    _Atomic uint64_t welcome_wanted;
    atomic_bool defers;   /* has not opened a server because another shard showed an idle one */
    atomic_bool is_poked; /* `poke` is on its way */
    struct letter poke;   /* "look round": posted by whoever has set is_poked */
};

struct shard_set {
    atomic_int state; /* 0: free, 1: being written, 2: in use */
    unsigned home, core_count;
    char database[DATABASE_NAME_BYTES_MAX];
    char user[USER_NAME_BYTES_MAX];

    alignas(SHARD_LINE_BYTES) _Atomic uint64_t hungry; /* bit k: shard k wants servers */
    _Atomic uint64_t starved; /* bit k: shard k may not open one, and would like to */
    atomic_uint pool_count;   /* shards that are alive */

    alignas(SHARD_LINE_BYTES) atomic_int server_count; /* of all shards, those on their way from one
                                                          to another too: pool_size */
    atomic_int login_count;                            /* connecting or logging in */
    atomic_int ready_count;                            /* logged in */
    _Atomic uint64_t last_lifetime_us;
    atomic_uint host_turn; /* of the next connection, or with load_balance_hosts = disable of all */
    /* core.generation at the last RECONNECT or KILL that was meant for the pool: the welcome of an
     * older server counts no more. */
    _Atomic uint64_t generation;

    atomic_uint told_count;   /* clients that were closed because of the failure that goes on */
    atomic_bool asks_standby; /* whoever has an idle server may ask it whether it still is one */
    struct bulletin welcome, failure, password;
    _Atomic uint64_t welcome_words[WELCOME_WORDS];
    _Atomic uint64_t failure_words[FAILURE_WORDS];
    _Atomic uint64_t password_words[PASSWORD_WORDS];

    struct shard shards[];
};

struct shard_table {
    uint8_t *sets;
    atomic_uint made_for_strangers;
    size_t set_bytes;
    unsigned core_count, shard_count_max;
};

must_check bool shard_table_init(struct shard_table *table, unsigned core_count);
void shard_table_release(struct shard_table *table);

/* The set, made if need be. NULL: the table is full, or a name too long. */
struct shard_set *shard_set_find(struct shard_table *table, const char *database, const char *user);
/* The same for a name that somebody says who has not proved who he is: of those no more than
 * SHARD_SETS_FOR_STRANGERS_MAX are made, since none is ever given back. */
struct shard_set *shard_set_find_for_stranger(struct shard_table *table, const char *database,
                                              const char *user);

/* Over how many shards the clients of a pool are spread: min(cores, max(1, pool_size / 4)), unless
 * `wanted` (pool_shards) says otherwise. pool_size 0 is no limit. */
unsigned shard_count_of(int pool_size, int wanted, unsigned core_count);

static inline unsigned shard_core(const struct shard_set *set, unsigned index)
{
    return (set->home + index) % set->core_count;
}

/* The shard's number on a core; it may be SHARDS_MAX or more: that core cannot have one. */
static inline unsigned shard_index_on(const struct shard_set *set, unsigned core_index)
{
    return (core_index + set->core_count - set->home) % set->core_count;
}

/* The shard with the fewest clients of the first `count`, the one on `core_index` if it is as good.
 * Counts a client there. */
struct shard *shard_choose(struct shard_set *set, unsigned count, unsigned core_index);

static inline unsigned shard_index(const struct shard_set *set, const struct shard *shard)
{
    return (unsigned)(shard - set->shards);
}

/* A client less. */
static inline void shard_leave(struct shard *shard)
{
    atomic_fetch_sub_explicit(&shard->client_count, 1, memory_order_relaxed);
}

/* Is there anybody else? A pool with one shard has nothing to share. */
static inline bool shard_has_siblings(const struct shard_set *set)
{
    return atomic_load_explicit(&set->pool_count, memory_order_seq_cst) > 1;
}

/* ---- wanting and lending ---- */

/* Adds to what a shard wants. True: it wanted nothing before, so the others have to be poked. */
bool shard_want(struct shard_set *set, unsigned index, int count);
/* Takes one off: promised by who lends, or no more needed. False: nothing is wanted. */
must_check bool shard_claim(struct shard_set *set, unsigned index);

/* The hungry shard whose first waiter has waited longest, the bits of `except` left out. -1: nobody
 * is hungry. `oldest_us` may be UINT64_MAX: it is hungry for a waiter that has left. */
int shard_hungriest(const struct shard_set *set, uint64_t except, uint64_t *oldest_us);

/* Idle servers that the others show. A hint. */
unsigned shard_idle_elsewhere(const struct shard_set *set, unsigned index);

#endif
