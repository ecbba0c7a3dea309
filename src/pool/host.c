#include "pool/host.h"

#include "pool/pool.h"
#include "pool/replication.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* ---- the list of an entry ---- */

static const char *hosts_of(const struct pool *pool)
{
    const char *directory = pool->core->snapshot->settings.unix_socket_dir;
    const char *hosts = pool->database->host;

    if (hosts != NULL && hosts[strspn(hosts, ",")] != '\0')
        return hosts;
    return directory != NULL && directory[0] != '\0' ? directory : "/tmp";
}

static unsigned count_hosts(const char *hosts)
{
    unsigned count = 0;

    for (hosts += strspn(hosts, ","); *hosts != '\0'; hosts += strspn(hosts, ",")) {
        count++;
        hosts += strcspn(hosts, ",");
    }
    return count;
}

/* False: it is too long to be a name or a path. */
static bool host_of_turn(const char *hosts, unsigned turn, char host[HOST_NAME_BYTES_MAX])
{
    size_t bytes;

    hosts += strspn(hosts, ",");
    for (unsigned index = turn % count_hosts(hosts); index > 0; index--) {
        hosts += strcspn(hosts, ",");
        hosts += strspn(hosts, ",");
    }
    bytes = strcspn(hosts, ",");
    if (bytes >= HOST_NAME_BYTES_MAX)
        return false;
    memcpy(host, hosts, bytes);
    host[bytes] = '\0';
    return true;
}

/* ---- literal addresses ---- */

enum literal { LITERAL, LITERAL_BAD, LITERAL_NOT };

static enum literal literal_address(const char *host, uint16_t port,
                                    struct sockaddr_storage *address)
{
    if (address_from_text(host, port, address))
        return LITERAL;
    return host[0] == '/' || host[0] == '@' ? LITERAL_BAD : LITERAL_NOT;
}

void host_socket_address(const struct host_address *from, uint16_t port,
                         struct sockaddr_storage *to)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;

    memset(to, 0, sizeof(*to));
    if (from->family == AF_INET) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        memcpy(&v4->sin_addr, from->bytes, sizeof(v4->sin_addr));
    } else {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        v6->sin6_scope_id = from->scope_id;
        memcpy(&v6->sin6_addr, from->bytes, sizeof(v6->sin6_addr));
    }
}

/* ---- names ---- */

static struct host_name **bucket_of(const struct core *core, const char *name)
{
    uint32_t hash = 2166136261u;

    for (; *name != '\0'; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    return (struct host_name **)&core->name_buckets[(hash ^ hash >> 15) % HOST_NAME_BUCKETS];
}

static struct host_name *name_find(const struct core *core, const char *name)
{
    struct host_name *found = *bucket_of(core, name);

    while (found != NULL && strcmp(found->resolution.name, name) != 0)
        found = found->bucket_next;
    return found;
}

/* The one that nobody has asked for longest makes room. False: all of them are being looked up. */
static bool forget_oldest(struct core *core)
{
    struct host_name *oldest = NULL;
    struct host_name **link;

    for (uint32_t index = 0; index < core->names.touched_count; index++) {
        struct host_name *name = slab_at(&core->names, index);

        if (!name->in_flight && (oldest == NULL || name->used_us < oldest->used_us))
            oldest = name;
    }
    if (oldest == NULL)
        return false;
    link = bucket_of(core, oldest->resolution.name);
    while (*link != oldest)
        link = &(*link)->bucket_next;
    *link = oldest->bucket_next;
    slab_give(&core->names, oldest);
    return true;
}

static struct host_name *name_find_or_make(struct core *core, const char *name)
{
    struct host_name *made = name_find(core, name);
    struct host_name **bucket = bucket_of(core, name);

    if (made != NULL)
        return made;
    /* All slots are in use when none is free: forget_oldest looks at no free one. */
    if (core->names.used_count == core->names.count_max && !forget_oldest(core))
        return NULL;
    made = slab_take(&core->names);
    if (made == NULL)
        return NULL;
    memset(made, 0, sizeof(*made));
    list_init(&made->waiters);
    snprintf(made->resolution.name, sizeof(made->resolution.name), "%s", name);
    made->used_us = core->loop.now_us;
    made->turn = core->index; /* the cores do not all begin with the same address */
    made->bucket_next = *bucket;
    *bucket = made;
    return made;
}

static bool has_exactly(const struct pool *pool, const char *name)
{
    return pool->database->host != NULL && strcmp(pool->database->host, name) == 0;
}

/* The addresses of a name are these from now on. The servers of others end; nothing is opened yet. */
static void learn(struct core *core, struct host_name *name, const struct host_answer *answer)
{
    size_t bytes = answer->address_count * sizeof(answer->addresses[0]);

    /* In the turn in which it comes it holds in any case: a time to live of 0 is one use. */
    name->until_us = MAX(answer->until_us, core->loop.now_us);
    name->has_failed = answer->address_count == 0;
    if (!name->has_failed)
        name->number = answer->number;
    if (name->has_failed || (name->address_count == answer->address_count &&
                             memcmp(name->addresses, answer->addresses, bytes) == 0))
        return;
    memcpy(name->addresses, answer->addresses, bytes);
    name->address_count = answer->address_count;
    list_for_each_safe(link, &core->pool_list)
    {
        struct pool *pool = OWNER_OF(link, struct pool, link);

        if (has_exactly(pool, name->resolution.name))
            pool_retire_moved(pool);
    }
}

/* What has ended is to be replaced, where somebody wants it. */
static void launch_all(struct core *core, const char *name)
{
    list_for_each_safe(link, &core->pool_list)
    {
        struct pool *pool = OWNER_OF(link, struct pool, link);

        if (has_exactly(pool, name))
            pool_launch(pool);
    }
}

void host_changed(struct core *core, const struct host_news *news)
{
    struct host_name *name = name_find_or_make(core, news->name);

    if (name == NULL)
        return;
    learn(core, name, &news->answer);
    launch_all(core, news->name);
}

void host_forget_answers(struct core *core)
{
    for (unsigned i = 0; i < HOST_NAME_BUCKETS; i++)
        for (struct host_name *name = core->name_buckets[i]; name != NULL; name = name->bucket_next)
            name->until_us = 0;
}

void resolution_returned(struct letter *letter, void *context)
{
    struct resolution *resolution = OWNER_OF(letter, struct resolution, letter);
    struct host_name *name = OWNER_OF(resolution, struct host_name, resolution);
    struct core *core = context;
    struct list waiting;

    name->in_flight = false;
    learn(core, name, &resolution->answer);
    /* Who is launched may ask again, and even make this name give way to another one. */
    list_init(&waiting);
    list_append_all(&waiting, &name->waiters);
    while (!list_is_empty(&waiting)) {
        struct host_waiter *waiter = OWNER_OF(list_front(&waiting), struct host_waiter, link);

        list_remove(&waiter->link);
        waiter->known(waiter);
    }
}

static void ask(struct core *core, struct host_name *name, struct host_waiter *waiter)
{
    struct resolution *resolution = &name->resolution;

    list_remove(&waiter->link);
    list_push_back(&name->waiters, &waiter->link);
    if (name->in_flight)
        return;
    name->in_flight = true;
    resolution->core_index = core->index;
    resolution->letter.open = core->ports->resolver_open;
    core->ports->post_control(core, &resolution->letter);
}

enum host_state host_look_up(struct core *core, const char *name, struct host_waiter *waiter,
                             const struct host_name **found)
{
    struct host_name *known = name_find_or_make(core, name);

    *found = known;
    if (known == NULL)
        return HOST_UNKNOWN;
    known->used_us = core->loop.now_us;
    if (known->until_us < core->loop.now_us) {
        ask(core, known, waiter);
        return HOST_ASKED;
    }
    return known->has_failed ? HOST_UNKNOWN : HOST_KNOWN;
}

/* ---- whose turn it is ---- */

static void choose(struct pool *pool)
{
    atomic_uint *turn = &pool->set->host_turn;

    if (pool->has_turn)
        return;
    pool->has_turn = true;
    if (pool->unreachable_count > 0)
        pool->turn++; /* the next one after that which failed */
    else if (pool->database->load_balance_hosts == LOAD_BALANCE_DISABLE)
        pool->turn = atomic_load_explicit(turn, memory_order_relaxed);
    else
        pool->turn = atomic_fetch_add_explicit(turn, 1, memory_order_relaxed);
}

static unsigned turn_for(const struct pool *pool, uint64_t begin, unsigned tries)
{
    /* With `disable` it has moved on already, with the failure. */
    return pool->database->load_balance_hosts == LOAD_BALANCE_DISABLE
               ? atomic_load_explicit(&pool->set->host_turn, memory_order_relaxed)
               : (unsigned)begin + tries;
}

void host_choose_for(struct pool *pool, uint64_t begin, unsigned tries)
{
    pool->has_turn = pool->has_address_turn = true;
    pool->address_turn = (unsigned)begin + tries / count_hosts(hosts_of(pool));
    pool->turn = turn_for(pool, begin, tries);
}

bool host_is_known_for(const struct pool *pool, uint64_t begin, unsigned tries)
{
    struct sockaddr_storage address;
    char host[HOST_NAME_BYTES_MAX];
    const struct host_name *name;

    if (!host_of_turn(hosts_of(pool), turn_for(pool, begin, tries), host) ||
        literal_address(host, pool->database->port, &address) != LITERAL_NOT)
        return true;
    name = name_find(pool->core, host);
    return name != NULL && name->until_us >= pool->core->loop.now_us;
}

void host_of_server(const struct pool *pool, unsigned turn, char host[HOST_NAME_BYTES_MAX])
{
    if (!host_of_turn(hosts_of(pool), turn, host))
        host[0] = '\0';
}

void host_failed(struct pool *pool, unsigned turn)
{
    if (pool->database->load_balance_hosts == LOAD_BALANCE_DISABLE)
        (void)atomic_compare_exchange_strong(&pool->set->host_turn, &turn, turn + 1);
}

/* NULL: it may be used. */
static const char *look_at(struct pool *pool, bool *must_wait)
{
    struct sockaddr_storage address;
    char host[HOST_NAME_BYTES_MAX];
    const struct host_name *name;

    *must_wait = false;
    if (!host_of_turn(hosts_of(pool), pool->turn, host))
        return "server DNS lookup failed";
    switch (literal_address(host, pool->database->port, &address)) {
    case LITERAL:
        return NULL;
    case LITERAL_BAD:
        return "unix socket path too long";
    case LITERAL_NOT:
        break;
    }
    switch (host_look_up(pool->core, host, &pool->name_waiter, &name)) {
    case HOST_KNOWN:
        return NULL;
    case HOST_ASKED:
        *must_wait = true;
        return NULL;
    default:
        return "server DNS lookup failed";
    }
}

bool host_prepare(struct pool *pool)
{
    for (;;) {
        bool must_wait;
        const char *error;

        choose(pool);
        error = look_at(pool, &must_wait);
        if (error == NULL)
            return !must_wait;
        pool->has_turn = pool->has_address_turn = false;
        host_failed(pool, pool->turn);
        pool_server_failed(pool, error, NULL, false);
        if (pool->unreachable_count > 0)
            continue;
        replication_fail_waiters(pool, error);
        return false;
    }
}

unsigned host_take(struct pool *pool, struct sockaddr_storage *address)
{
    char host[HOST_NAME_BYTES_MAX];
    bool is_right = host_of_turn(hosts_of(pool), pool->turn, host);

    assert(pool->has_turn);
    assert(is_right);
    pool->has_turn = false;
    if (literal_address(host, pool->database->port, address) == LITERAL_NOT) {
        struct host_name *name = name_find(pool->core, host);
        unsigned index;

        assert(name != NULL);
        assert(name->address_count > 0);
        index = pool->has_address_turn ? pool->address_turn : name->turn++;
        host_socket_address(&name->addresses[index % name->address_count], pool->database->port,
                            address);
    }
    pool->has_address_turn = false;
    return pool->turn;
}

/* What is known of one host of the list; NULL: it is no name, or nothing is known. */
static const struct host_name *known_name(const struct pool *pool, unsigned index)
{
    struct sockaddr_storage address;
    char host[HOST_NAME_BYTES_MAX];

    if (!host_of_turn(hosts_of(pool), index, host) ||
        literal_address(host, pool->database->port, &address) != LITERAL_NOT)
        return NULL;
    return name_find(pool->core, host);
}

unsigned host_attempts(const struct pool *pool)
{
    unsigned count = count_hosts(hosts_of(pool));
    unsigned most = 1;

    /* Once round the list for each address of the name that has most. */
    for (unsigned i = 0; i < count; i++) {
        const struct host_name *name = known_name(pool, i);

        if (name != NULL && !name->has_failed)
            most = MAX(most, name->address_count);
    }
    return count * most;
}

uint64_t host_unknown_until_us(const struct pool *pool)
{
    unsigned count = count_hosts(hosts_of(pool));
    uint64_t until_us = UINT64_MAX;

    for (unsigned i = 0; i < count; i++) {
        const struct host_name *name = known_name(pool, i);

        if (name == NULL || !name->has_failed)
            return 0;
        until_us = MIN(until_us, name->until_us);
    }
    return until_us;
}

bool host_is_current(const struct pool *pool, const struct sockaddr_storage *address)
{
    const char *host = pool->database->host;
    const struct host_name *name = host != NULL ? name_find(pool->core, host) : NULL;

    if (name == NULL || name->address_count == 0 || address->ss_family == AF_UNIX)
        return true;
    for (unsigned i = 0; i < name->address_count; i++) {
        struct sockaddr_storage known;

        host_socket_address(&name->addresses[i], pool->database->port, &known);
        if (memcmp(&known, address, sizeof(known)) == 0)
            return true;
    }
    return false;
}

uint64_t host_answer_number(const struct pool *pool)
{
    const char *host = pool->database->host;
    const struct host_name *name = host != NULL ? name_find(pool->core, host) : NULL;

    return name != NULL ? name->number : 0;
}
