#include "pool/server_statements.h"

#include "pool/client.h"
#include "pool/report.h"
#include "pool/server.h"

/* ---- the set ---- */

struct server_statements *server_statements_of(struct server *server)
{
    struct server_statements *statements = server->statements;

    if (statements != NULL)
        return statements;
    statements = slab_take(&server_core(server)->statements.server_statements);
    if (statements == NULL)
        return NULL;
    *statements = (struct server_statements){0};
    list_init(&statements->lru);
    list_init(&statements->expectations);
    server->statements = statements;
    return statements;
}

struct prepared *prepared_find(const struct server_statements *statements,
                               const struct digest *digest)
{
    struct hash_link *link = hash_table_find(&statements->table, digest->words[0]);

    for (; link != NULL; link = hash_table_find_next(link)) {
        struct prepared *prepared = OWNER_OF(link, struct prepared, link);

        if (digest_is_same(&prepared->digest, digest))
            return prepared;
    }
    return NULL;
}

void prepared_touch(struct server_statements *statements, struct prepared *prepared,
                    struct statement *statement)
{
    if (unlikely(prepared->statement == NULL && statement != NULL)) {
        prepared->statement = statement_reference(statement);
        statement->server_count++;
    }
    list_remove(&prepared->lru);
    list_push_back(&statements->lru, &prepared->lru);
}

static struct prepared *prepared_make(struct server *server, const struct digest *digest)
{
    struct core *core = server_core(server);
    struct server_statements *statements = server->statements;
    struct prepared *prepared = slab_take(&core->statements.prepared);

    if (prepared == NULL)
        return NULL;
    *prepared = (struct prepared){.digest = *digest, .state = PREPARED_UNSURE};
    list_init(&prepared->lru);
    if (!hash_table_add(&statements->table, core->loop.buffers, &prepared->link,
                        digest->words[0])) {
        slab_give(&core->statements.prepared, prepared);
        return NULL;
    }
    return prepared;
}

struct prepared *prepared_add(struct server *server, struct statement *statement)
{
    struct server_statements *statements = server->statements;
    struct prepared *prepared = prepared_find(statements, &statement->digest);

    if (prepared == NULL) {
        prepared = prepared_make(server, &statement->digest);
        if (prepared == NULL)
            return NULL;
    }
    prepared_touch(statements, prepared, statement);
    prepared->state = PREPARED_PENDING;
    prepared->batch = statements->batch;
    prepared->serial = ++statements->serial;
    prepared->shape = 0;
    return prepared;
}

struct prepared *prepared_oldest(const struct server_statements *statements)
{
    struct list *first = list_front(&statements->lru);

    return first == NULL ? NULL : OWNER_OF(first, struct prepared, lru);
}

void prepared_remove(struct server *server, struct prepared *prepared)
{
    struct core *core = server_core(server);

    hash_table_remove(&server->statements->table, &prepared->link);
    list_remove(&prepared->lru);
    if (prepared->statement != NULL) {
        prepared->statement->server_count--;
        statement_release(core, prepared->statement);
    }
    prepared->state = PREPARED_FREE;
    slab_give(&core->statements.prepared, prepared);
}

bool prepared_fill_row(const struct prepared *prepared, struct statement_row *row)
{
    if (prepared->state == PREPARED_FREE || prepared->state > PREPARED_UNSURE ||
        prepared->statement != NULL)
        return false;
    *row = (struct statement_row){.server_count = 1};
    statement_name(&prepared->digest, row->name);
    return true;
}

void server_statements_doubt(struct server *server)
{
    list_for_each(link, &server->statements->lru) OWNER_OF(link, struct prepared, lru)->state =
        PREPARED_UNSURE;
}

void prepared_doubt(struct server_statements *statements, struct prepared *prepared)
{
    prepared->state = PREPARED_UNSURE;
    list_remove(&prepared->lru);
    list_push_front(&statements->lru, &prepared->lru);
}

unsigned server_statements_count(const struct server *server)
{
    return server->statements != NULL ? server->statements->table.count : 0;
}

bool server_statements_adopt(struct server *server, const struct server *lent)
{
    if (lent->statements == NULL)
        return true;
    assert(list_is_empty(&lent->statements->expectations));
    if (server_statements_of(server) == NULL)
        return false;
    list_for_each(link, &lent->statements->lru)
    {
        const struct prepared *theirs = OWNER_OF(link, struct prepared, lru);
        struct prepared *ours = prepared_make(server, &theirs->digest);

        if (ours == NULL) {
            server_statements_release(server);
            return false;
        }
        ours->state = theirs->state;
        ours->shape = theirs->shape;
        list_push_back(&server->statements->lru, &ours->lru);
    }
    return true;
}

static void heal_release(struct server *server)
{
    struct heal *heal = &server->statements->heal;

    for (unsigned i = 0; i < heal->used_count; i++)
        statement_release(server_core(server), heal->used[i]);
    if (heal->batch != NULL)
        buffer_release(server->conn.loop->buffers, heal->batch);
    *heal = (struct heal){0};
}

void server_statements_release(struct server *server)
{
    struct server_statements *statements = server->statements;
    struct core *core = server_core(server);

    if (statements == NULL)
        return;
    assert(list_is_empty(&statements->expectations));
    while (!list_is_empty(&statements->lru))
        prepared_remove(server, prepared_oldest(statements));
    heal_release(server);
    hash_table_release(&statements->table, core->loop.buffers);
    slab_give(&core->statements.server_statements, statements);
    server->statements = NULL;
}

/* ---- the queue ---- */

static void take_back(struct server *server, struct expectation *expectation);

static bool is_description(enum expectation_kind kind)
{
    return kind == EXPECT_DESCRIBE || kind == EXPECT_SHAPE || kind == EXPECT_PORTAL;
}

struct expectation *expect(struct server *server, enum expectation_kind kind,
                           struct client_name *name)
{
    struct server_statements *statements = server->statements;
    struct expectation *expectation = slab_take(&server_core(server)->statements.expectations);

    if (expectation == NULL)
        return NULL;
    *expectation =
        (struct expectation){.batch = statements->batch, .kind = (uint8_t)kind, .name = name};
    list_init(&expectation->link);
    list_push_back(&statements->expectations, &expectation->link);
    statements->own_count += kind == EXPECT_OWN_BATCH;
    if (name != NULL && is_description(kind)) {
        name->described_count++;
    } else if (name != NULL) {
        name->unsettled_count++;
        name->batch = statements->batch;
    }
    return expectation;
}

static void expectation_free(struct server *server, struct expectation *expectation)
{
    struct core *core = server_core(server);

    list_remove(&expectation->link);
    server->statements->own_count -= expectation->kind == EXPECT_OWN_BATCH;
    if (expectation->name != NULL) {
        uint32_t *count = is_description(expectation->kind) ? &expectation->name->described_count
                                                            : &expectation->name->unsettled_count;

        assert(*count > 0);
        --*count;
        client_name_check(server->client, expectation->name);
    }
    statement_release(core, expectation->statement);
    slab_give(&core->statements.expectations, expectation);
}

static struct expectation *expectation_first(const struct server_statements *statements)
{
    struct list *first = list_front(&statements->expectations);

    return first == NULL ? NULL : OWNER_OF(first, struct expectation, link);
}

/* What the pooler prepared is there. */
static void confirm(struct server *server, const struct expectation *expectation)
{
    struct prepared *prepared = NULL;

    if (expectation->has_digest)
        prepared = prepared_find(server->statements, &expectation->digest);
    if (prepared != NULL && prepared->state == PREPARED_PENDING &&
        prepared->serial == expectation->serial)
        prepared->state = PREPARED_SURE;
}

/* Answered by ParseComplete, CloseComplete, ParameterDescription or RowDescription. */
static bool is_of_protocol(const struct expectation *expectation)
{
    return expectation->kind <= EXPECT_PORTAL;
}

enum answer server_statements_answer(struct server *server, uint8_t type)
{
    struct server_statements *statements = server->statements;
    struct expectation *expectation = NULL;
    enum answer answer = ANSWER_WRONG;
    char wanted;

    list_for_each(link, &statements->expectations)
    {
        expectation = OWNER_OF(link, struct expectation, link);
        if (is_of_protocol(expectation))
            break;
        expectation = NULL;
    }
    if (expectation == NULL)
        return ANSWER_FORWARD;
    wanted = expectation->kind == EXPECT_PARSE || expectation->kind == EXPECT_PARSE_OURS ? '1'
             : expectation->kind == EXPECT_DESCRIBE || expectation->kind == EXPECT_SHAPE ? 't'
                                                                                         : '3';
    if (type != wanted)
        return ANSWER_WRONG;
    switch (expectation->kind) {
    case EXPECT_PARSE:
    case EXPECT_PARSE_OURS:
        confirm(server, expectation);
        answer = expectation->kind == EXPECT_PARSE ? ANSWER_FORWARD : ANSWER_SWALLOW;
        break;
    case EXPECT_PARSE_FAKE:
        answer = ANSWER_AS_PARSE;
        break;
    case EXPECT_CLOSE:
        answer = ANSWER_FORWARD;
        break;
    case EXPECT_CLOSE_OURS:
    case EXPECT_EVICTION:
        answer = ANSWER_SWALLOW;
        break;
    case EXPECT_DESCRIBE:
    case EXPECT_SHAPE:
        expectation->is_described = true;
        return expectation->kind == EXPECT_DESCRIBE ? ANSWER_FORWARD : ANSWER_SWALLOW;
    default:
        return ANSWER_WRONG;
    }
    expectation_free(server, expectation);
    return answer;
}

bool expect_description(struct server *server, enum expectation_kind kind, struct client_name *name,
                        const struct statement *statement)
{
    struct expectation *expectation = expect(server, kind, name);
    const struct prepared *prepared = prepared_find(server->statements, &statement->digest);

    if (expectation == NULL)
        return false;
    expectation->digest = statement->digest;
    expectation->has_digest = true;
    expectation->is_native = kind == EXPECT_DESCRIBE && name->bytes == 0 &&
                             server->client->statements->is_unnamed_on_server;
    if (prepared != NULL)
        expectation->serial = prepared->serial;
    return true;
}

struct expectation *expected_description(const struct server_statements *statements)
{
    list_for_each(link, &statements->expectations)
    {
        struct expectation *expectation = OWNER_OF(link, struct expectation, link);

        if (is_of_protocol(expectation))
            return expectation->is_described || expectation->kind == EXPECT_PORTAL ? expectation
                                                                                   : NULL;
    }
    return NULL;
}

void expected_description_over(struct server *server, struct expectation *expectation,
                               uint64_t shape)
{
    struct client_name *name = expectation->name;
    struct prepared *prepared = NULL;

    if (expectation->has_digest)
        prepared = prepared_find(server->statements, &expectation->digest);
    /* It may have been prepared again since. */
    if (prepared != NULL && shape != 0 && !expectation->is_native &&
        prepared->serial == expectation->serial)
        prepared->shape = shape;
    /* The name may stand for something else by now. */
    if (name != NULL && name->statement != NULL &&
        (!expectation->has_digest ||
         digest_is_same(&name->statement->digest, &expectation->digest)))
        *(expectation->kind == EXPECT_PORTAL ? &name->told.portal_shape : &name->told.shape) =
            shape;
    expectation_free(server, expectation);
}

struct expectation *expected_own_batch(const struct server *server)
{
    const struct server_statements *statements = server->statements;
    struct expectation *first = statements->own_count > 0 ? expectation_first(statements) : NULL;

    while (first != NULL && first->kind != EXPECT_OWN_BATCH &&
           first->batch == statements->batch - exchange_owed(&server->exchange)) {
        /* Evictions of that very batch stand before it. */
        struct list *next = first->link.next;

        first = next == &statements->expectations ? NULL : OWNER_OF(next, struct expectation, link);
    }
    if (first == NULL || first->kind != EXPECT_OWN_BATCH ||
        first->batch != statements->batch - exchange_owed(&server->exchange))
        return NULL;
    return first;
}

void expected_own_batch_message(struct server *server, struct expectation *expectation,
                                uint8_t type)
{
    struct expectation *first = expectation_first(server->statements);

    if (type == 'E')
        expectation->has_failed = true;
    else if (type == '3' && first->kind == EXPECT_EVICTION)
        expectation_free(server, first);
}

void expected_own_batch_over(struct server *server, struct expectation *expectation)
{
    if (expectation->has_failed)
        take_back(server, expectation);
    else
        confirm(server, expectation);
    expectation_free(server, expectation);
}

void expected_tag(struct server *server, enum expectation_kind kind)
{
    list_for_each(link, &server->statements->expectations)
    {
        struct expectation *expectation = OWNER_OF(link, struct expectation, link);

        if (expectation->kind == kind) {
            confirm(server, expectation);
            expectation_free(server, expectation);
            return;
        }
    }
}

const struct expectation *expected_failure(const struct server_statements *statements)
{
    list_for_each(link, &statements->expectations)
    {
        const struct expectation *expectation = OWNER_OF(link, struct expectation, link);

        if (expectation->kind == EXPECT_FAILURE)
            return expectation;
    }
    return NULL;
}

/* It was never carried out. */
static void take_back(struct server *server, struct expectation *expectation)
{
    struct server_statements *statements = server->statements;
    struct client_name *name = expectation->name;
    struct prepared *prepared = NULL;

    if (expectation->has_digest)
        prepared = prepared_find(statements, &expectation->digest);
    switch (expectation->kind) {
    case EXPECT_PARSE:
    case EXPECT_PARSE_OURS:
    case EXPECT_SQL_PREPARE:
    case EXPECT_OWN_BATCH:
        if (prepared != NULL && prepared->serial == expectation->serial)
            prepared_doubt(statements, prepared);
        break;
    case EXPECT_EVICTION:
        if (prepared == NULL) {
            prepared = prepared_make(server, &expectation->digest);
            if (prepared != NULL)
                prepared_doubt(statements, prepared);
        }
        break;
    case EXPECT_CLOSE:
    case EXPECT_SQL_DEALLOCATE:
        if (name != NULL && name->statement == NULL &&
            (name->bytes > 0 || name->batch == expectation->batch)) {
            client_name_set(server->client, name, expectation->statement);
            name->told = expectation->told;
            expectation->statement = NULL;
            if (name->bytes == 0)
                server->client->statements->is_unnamed_on_server = expectation->was_on_server;
        }
        break;
    default:
        break;
    }
    /* The unnamed one may have been parsed again since, in a later batch. */
    if (name != NULL &&
        (expectation->kind == EXPECT_PARSE || expectation->kind == EXPECT_PARSE_FAKE ||
         expectation->kind == EXPECT_SQL_PREPARE) &&
        (name->bytes > 0 || name->batch == expectation->batch)) {
        struct client_statements *client_statements = server->client->statements;

        client_name_set(server->client, name, expectation->statement);
        if (expectation->statement != NULL) {
            name->told = expectation->told;
            client_statements->is_unnamed_on_server = true;
            client_statements->is_unnamed_in_doubt = true;
            expectation->statement = NULL;
        }
    }
}

void server_statements_settle(struct server *server, uint64_t batch)
{
    struct server_statements *statements = server->statements;
    struct list *link = statements->expectations.next;

    statements->bound = NULL;

    while (link != &statements->expectations &&
           OWNER_OF(link, struct expectation, link)->batch < batch)
        link = link->next;
    link = link->prev;
    while (link != &statements->expectations) {
        struct expectation *expectation = OWNER_OF(link, struct expectation, link);

        link = link->prev;
        take_back(server, expectation);
        expectation_free(server, expectation);
    }
}

void server_statements_end_exchange(struct server *server)
{
    struct server_statements *statements = server->statements;
    struct client_statements *client_statements = server->client->statements;

    if (statements != NULL)
        server_statements_settle(server, UINT64_MAX);
    if (client_statements != NULL) {
        client_statements->is_unnamed_on_server = false;
        client_statements->checked_serial = 0;
        if (client_statements->is_unnamed_in_doubt)
            client_name_set(server->client, &client_statements->unnamed, NULL);
        client_statements->is_unnamed_in_doubt = false;
    }
    if (statements == NULL)
        return;
    statements->deallocation = 0;
    statements->failed = 0;
    statements->portal_batch = 0;
    statements->batch = 0;
    statements->heal.state = HEAL_NONE;
    if (server->exchange.is_uncertain)
        server_statements_doubt(server);
}

void server_statements_forget(struct server *server)
{
    struct server_statements *statements = server->statements;

    list_for_each_safe(link, &statements->lru)
    {
        struct prepared *prepared = OWNER_OF(link, struct prepared, lru);

        if (prepared->state != PREPARED_PENDING)
            prepared_remove(server, prepared);
    }
    /* What was closed, or evicted, later is not there to come back; but what a later batch closes was parsed
     * later, too: while this one was known to be on its way, older names had to wait (deallocation). */
    list_for_each(link, &statements->expectations)
    {
        struct expectation *expectation = OWNER_OF(link, struct expectation, link);

        if ((expectation->kind == EXPECT_CLOSE || expectation->kind == EXPECT_SQL_DEALLOCATE) &&
            expectation->batch <= statements->batch - exchange_owed(&server->exchange)) {
            statement_release(server_core(server), expectation->statement);
            expectation->statement = NULL;
        } else if (expectation->kind == EXPECT_EVICTION) {
            expectation->has_digest = false;
        }
    }
}
