#include "pool/lending.h"

#include "pool/client.h"
#include "pool/host.h"

static void poke_open(struct letter *letter, void *context);

static uint64_t own_bit(const struct pool *pool)
{
    return UINT64_C(1) << pool->shard_index;
}

static unsigned shards_max(const struct pool *pool)
{
    return MIN(pool->core->count, (unsigned)SHARDS_MAX);
}

static void poke(struct pool *pool, unsigned index)
{
    struct shard *shard = &pool->set->shards[index];

    /* Who sets the flag posts the letter; it is opened after whatever was written before. */
    if (!atomic_load(&shard->is_alive) || atomic_exchange(&shard->is_poked, true))
        return;
    shard->poke.open = poke_open;
    pool->core->ports->post_core(pool->core, shard_core(pool->set, index), &shard->poke);
}

void lending_poke_all(struct pool *pool)
{
    if (pool->core->count == 1 || !shard_has_siblings(pool->set))
        return;
    for (unsigned k = 0; k < shards_max(pool); k++)
        if (k != pool->shard_index)
            poke(pool, k);
}

/* All that have servers, whether they show idle ones or not: one that becomes idle at this moment
 * might not be shown yet, while its core has not seen that we are hungry. */
static void poke_owners(struct pool *pool)
{
    for (unsigned k = 0; k < shards_max(pool); k++)
        if (k != pool->shard_index && atomic_load(&pool->set->shards[k].server_count) > 0)
            poke(pool, k);
}

/* ---- life ---- */

void lending_open(struct pool *pool)
{
    struct shard *shard = pool->shard;

    shard->pool = pool;
    atomic_store(&shard->is_alive, true);
    /* The first one has told nobody what it wants. */
    if (atomic_fetch_add(&pool->set->pool_count, 1) > 0)
        lending_poke_all(pool);
}

void lending_close(struct pool *pool)
{
    struct shard *shard = pool->shard;

    assert(pool->asked_count == 0);
    assert(pool->waiting_count == 0);
    atomic_fetch_and(&pool->set->starved, ~own_bit(pool));
    atomic_store(&shard->is_alive, false);
    atomic_store(&shard->welcome_wanted, 0);
    atomic_store(&shard->oldest_us, UINT64_MAX);
    shard->pool = NULL;
    if (atomic_fetch_sub(&pool->set->pool_count, 1) == 1) {
        /* The last one: whoever comes next starts from nothing. */
        struct welcome_news no_welcome = {0};
        struct failure_news no_failure = {0};
        struct password_news no_password = {0};

        (void)!bulletin_write(&pool->set->welcome, pool->set->welcome_words, &no_welcome,
                              sizeof(no_welcome));
        (void)!bulletin_write(&pool->set->failure, pool->set->failure_words, &no_failure,
                              sizeof(no_failure));
        (void)!bulletin_write(&pool->set->password, pool->set->password_words, &no_password,
                              sizeof(no_password));
    }
}

/* ---- the shard that wants ---- */

void lending_update(struct pool *pool)
{
    struct shard_set *set = pool->set;
    const struct list *first = list_front(&pool->waiting_clients);
    unsigned need = 0;

    if (pool->core->count == 1 || (pool->asked_count == 0 && !shard_has_siblings(set)))
        return;
    atomic_store_explicit(&pool->shard->oldest_us,
                          first != NULL ? OWNER_OF(first, struct client, link)->wait_since_us
                                        : UINT64_MAX,
                          memory_order_relaxed);
    if (!pool_is_stopped(pool) && !pool->is_retired && pool->waiting_count > pool->tested_count)
        need = pool->waiting_count - pool->tested_count;
    else if (pool->sharing.wants_server && !pool_is_stopped(pool) && !pool->is_retired)
        need = 1;
    while (pool->asked_count > need && shard_claim(set, pool->shard_index))
        pool->asked_count--;
    if (pool->asked_count < need) {
        int more = (int)(need - pool->asked_count);

        pool->asked_count = need;
        if (shard_want(set, pool->shard_index, more))
            poke_owners(pool);
    }
}

unsigned lending_expected(const struct pool *pool)
{
    int wanted = atomic_load(&pool->shard->wanted);

    /* Who has claimed takes it off first; so this is never too few. */
    return wanted >= (int)pool->asked_count ? 0 : pool->asked_count - (unsigned)MAX(wanted, 0);
}

unsigned lending_deferred(struct pool *pool)
{
    unsigned count;

    if (pool->core->count == 1)
        return 0;
    count = shard_idle_elsewhere(pool->set, pool->shard_index);
    if (count > 0) {
        atomic_store(&pool->shard->defers, true);
        poke_owners(pool);
    }
    return count;
}

void lending_permission_freed(struct pool *pool)
{
    uint64_t bits;

    if (pool->core->count == 1)
        return;
    bits = atomic_load(&pool->set->starved) & ~own_bit(pool);
    for (; bits != 0; bits &= bits - 1)
        poke(pool, (unsigned)__builtin_ctzll(bits));
}

/* ---- the shard that has ---- */

void lending_serve(struct pool *pool)
{
    struct shard_set *set = pool->set;
    uint64_t excluded = own_bit(pool);

    if (pool->core->count == 1 || pool_is_stopped(pool) || pool->is_retired)
        return;
    while (pool->waiting_count <= pool->tested_count && !list_is_empty(&pool->idle_servers)) {
        uint64_t oldest_us;
        int index = shard_hungriest(set, excluded, &oldest_us);

        if (index < 0)
            return;
        if (!shard_claim(set, (unsigned)index)) {
            excluded |= UINT64_C(1) << index; /* somebody else was faster */
            continue;
        }
        server_lend(OWNER_OF(list_front(&pool->idle_servers), struct server, link),
                    (unsigned)index);
    }
}

bool lending_gives_way(struct pool *pool, struct server *server, const struct client *first)
{
    uint64_t now_us = pool->core->loop.now_us;
    uint64_t oldest_us;
    int index;

    if (pool->core->count == 1 || now_us - pool->compared_us < LENDING_COMPARE_US)
        return false;
    index = shard_hungriest(pool->set, own_bit(pool), &oldest_us);
    if (index < 0)
        return false;
    pool->compared_us = now_us;
    if (oldest_us == UINT64_MAX || oldest_us + LENDING_PASS_OVER_US >= first->wait_since_us ||
        !shard_claim(pool->set, (unsigned)index))
        return false;
    server_lend(server, (unsigned)index);
    return true;
}

bool lending_is_overdue(const struct pool *pool)
{
    uint64_t oldest_us;

    return unlikely(pool->core->count > 1 &&
                    (atomic_load_explicit(&pool->set->hungry, memory_order_relaxed) &
                     ~own_bit(pool)) != 0) &&
           shard_hungriest(pool->set, own_bit(pool), &oldest_us) >= 0 && oldest_us != UINT64_MAX &&
           oldest_us + LENDING_PASS_OVER_US < pool->core->loop.now_us;
}

void lending_failed(struct pool *pool, unsigned index)
{
    (void)!shard_want(pool->set, index, 1);
    poke(pool, index);
    poke_owners(pool);
    /* Another one may have come free here while it was on its way (simulation, seed 9230). Not while somebody
     * walks over the servers. */
    if (!pool->is_launching)
        lending_serve(pool);
}

static void poke_open(struct letter *letter, void *context)
{
    struct shard *shard = OWNER_OF(letter, struct shard, poke);
    struct pool *pool = shard->pool;
    uint64_t hungry;

    (void)context;
    /* First of all: what is written from now on needs another letter. */
    atomic_store(&shard->is_poked, false);
    if (pool == NULL)
        return;
    pool_read_news(pool);
    pool_repeat_welcome(pool);
    pool_answer_standby(pool);
    lending_serve(pool);
    /* Who has put off opening a server because of one of ours, and did not get it, opens one now.
     */
    hungry = atomic_load(&pool->set->hungry) & ~own_bit(pool);
    for (; hungry != 0; hungry &= hungry - 1) {
        unsigned index = (unsigned)__builtin_ctzll(hungry);

        if (atomic_load(&pool->set->shards[index].wanted) > 0 &&
            atomic_exchange(&pool->set->shards[index].defers, false))
            poke(pool, index);
    }
    pool_launch_now(pool);
}

/* ---- on the way ---- */

static void loan_returned(struct letter *letter, void *context)
{
    struct server *server = OWNER_OF(letter, struct server, loan);

    (void)context;
    server_lent_returned(server);
}

/* On the borrower's core. */
static void loan_open(struct letter *letter, void *context)
{
    struct server *lent = OWNER_OF(letter, struct server, loan);
    struct core *core = context;
    struct shard_set *set = lent->pool->set; /* never removed; the pool itself is the lender's */
    struct pool *pool = set->shards[lent->lend_to].pool;
    unsigned lender = lent->lent_by;
    uint64_t lender_generation = lent->lender_generation, lender_answer = lent->lender_answer;
    struct server *server = pool != NULL ? server_adopt(pool, lent) : NULL;

    if (pool != NULL && pool->asked_count > 0)
        pool->asked_count--;
    if (server == NULL) {
        /* The pool has gone meanwhile, or there is no memory: one server less. */
        tls_destroy(lent->loan_tls);
        ring_close(core->loop.ring, lent->loan_fd);
        usage_give(&lent->pool->database_usage->server_count);
        usage_give(&lent->pool->user_usage->server_count);
        usage_give(&set->server_count);
        usage_give(&set->ready_count);
    }
    letter->open = loan_returned;
    core->ports->post_core(core, lender, letter);
    if (server != NULL)
        server_arrived(server, lender_generation, lender_answer);
    else if (pool != NULL)
        pool_server_gone(pool);
}

void lending_post(struct pool *pool, struct server *server)
{
    pool->lent_total++;
    server->lent_by = pool->core->index;
    server->lender_generation = pool->core->generation;
    server->lender_answer = host_answer_number(pool);
    server->loan.open = loan_open;
    pool->core->ports->post_core(pool->core, shard_core(pool->set, server->lend_to), &server->loan);
}
