#include "pool/client_statements.h"

#include "pool/client.h"

static uint64_t name_hash(const struct core *core, const void *text, size_t bytes)
{
    return siphash_of(&core->statements.key, text, bytes).words[0];
}

static size_t name_bytes(size_t bytes)
{
    return MIN(bytes, (size_t)STATEMENT_CLIENT_NAME_MAX);
}

struct client_statements *client_statements_of(struct client *client)
{
    struct client_statements *statements = client->statements;

    if (likely(statements != NULL))
        return statements;
    statements = slab_take(&client_core(client)->statements.client_statements);
    if (statements == NULL)
        return NULL;
    *statements = (struct client_statements){0};
    client->statements = statements;
    return statements;
}

static void name_free(struct core *core, struct client_name *name)
{
    slab_give(name->bytes <= STATEMENT_SHORT_NAME_MAX ? &core->statements.short_names
                                                      : &core->statements.long_names,
              name);
}

void client_statements_release(struct client *client)
{
    struct client_statements *statements = client->statements;
    struct core *core = client_core(client);

    if (statements == NULL)
        return;
    hash_table_for_each(link, &statements->names)
    {
        struct client_name *name = OWNER_OF(link, struct client_name, link);

        assert(name->unsettled_count == 0);
        assert(name->described_count == 0);
        client_name_set(client, name, NULL);
        name_free(core, name);
    }
    client_name_set(client, &statements->unnamed, NULL);
    hash_table_release(&statements->names, core->loop.buffers);
    span_queue_clear(&statements->partial, &core->loop);
    slab_give(&core->statements.client_statements, statements);
    client->statements = NULL;
}

struct client_name *client_name_find(struct client *client, const void *text, size_t bytes)
{
    struct client_statements *statements = client->statements;
    struct hash_link *link;

    if (statements == NULL)
        return NULL;
    if (bytes == 0)
        return &statements->unnamed;
    if (statements->names.count == 0)
        return NULL;
    bytes = name_bytes(bytes);
    link = hash_table_find(&statements->names, name_hash(client_core(client), text, bytes));
    for (; link != NULL; link = hash_table_find_next(link)) {
        struct client_name *name = OWNER_OF(link, struct client_name, link);

        if (name->bytes == bytes && memcmp(name->text, text, bytes) == 0)
            return name;
    }
    return NULL;
}

struct client_name *client_name_make(struct client *client, const void *text, size_t bytes)
{
    struct client_statements *statements = client_statements_of(client);
    struct core *core = client_core(client);
    struct client_name *name;

    if (statements == NULL)
        return NULL;
    name = client_name_find(client, text, bytes);
    if (name != NULL || statements->names.count >= CLIENT_NAMES_MAX)
        return name;
    bytes = name_bytes(bytes);
    name = slab_take(bytes <= STATEMENT_SHORT_NAME_MAX ? &core->statements.short_names
                                                       : &core->statements.long_names);
    if (name == NULL)
        return NULL;
    *name = (struct client_name){.bytes = (uint8_t)bytes};
    memcpy(name->text, text, bytes);
    if (!hash_table_add(&statements->names, core->loop.buffers, &name->link,
                        name_hash(core, text, bytes))) {
        name_free(core, name);
        return NULL;
    }
    return name;
}

void client_name_set(struct client *client, struct client_name *name, struct statement *statement)
{
    struct statement *before = name->statement;

    if (statement != NULL)
        statement->client_count++;
    name->statement = statement;
    name->told = (struct told){0};
    if (before != NULL) {
        before->client_count--;
        statement_release(client_core(client), before);
    }
}

void client_name_check(struct client *client, struct client_name *name)
{
    if (name->statement != NULL || name->unsettled_count > 0 || name->described_count > 0 ||
        name->bytes == 0)
        return;
    hash_table_remove(&client->statements->names, &name->link);
    name_free(client_core(client), name);
}

void client_statements_forget(struct client *client)
{
    struct client_statements *statements = client->statements;

    if (statements == NULL)
        return;
    hash_table_for_each(link, &statements->names)
    {
        struct client_name *name = OWNER_OF(link, struct client_name, link);

        if (name->unsettled_count == 0) {
            client_name_set(client, name, NULL);
            client_name_check(client, name);
        }
    }
}

unsigned client_statements_count(const struct client *client)
{
    const struct client_statements *statements = client->statements;

    if (statements == NULL)
        return 0;
    return statements->names.count + (statements->unnamed.statement != NULL);
}
