#include "control/merge.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

static int compare_pools(const void *left, const void *right)
{
    const struct pool_row *a = left;
    const struct pool_row *b = right;
    int order = strcmp(a->database, b->database);

    return order != 0 ? order : strcmp(a->user, b->user);
}

static void add_pool(struct pool_row *to, const struct pool_row *from)
{
    uint64_t *sum = (uint64_t *)(void *)&to->stats;
    const uint64_t *more = (const uint64_t *)(const void *)&from->stats;

    to->cl_active += from->cl_active;
    to->cl_waiting += from->cl_waiting;
    to->cl_active_cancel_req += from->cl_active_cancel_req;
    to->cl_waiting_cancel_req += from->cl_waiting_cancel_req;
    to->sv_active += from->sv_active;
    to->sv_active_cancel += from->sv_active_cancel;
    to->sv_being_canceled += from->sv_being_canceled;
    to->sv_idle += from->sv_idle;
    to->sv_used += from->sv_used;
    to->sv_tested += from->sv_tested;
    to->sv_login += from->sv_login;
    to->client_count += from->client_count;
    to->maxwait_us = MAX(to->maxwait_us, from->maxwait_us);
    to->is_paused = to->is_paused || from->is_paused;
    to->lent_total += from->lent_total;
    to->borrowed_total += from->borrowed_total;
    for (size_t i = 0; i < sizeof(struct pool_stats) / sizeof(uint64_t); i++)
        sum[i] += more[i];
}

size_t merge_pools(struct pool_row *rows, size_t count)
{
    size_t kept = 0;

    if (count == 0)
        return 0;
    qsort(rows, count, sizeof(*rows), compare_pools);
    for (size_t i = 1; i < count; i++) {
        if (compare_pools(&rows[kept], &rows[i]) == 0)
            add_pool(&rows[kept], &rows[i]);
        else if (++kept != i)
            rows[kept] = rows[i];
    }
    return kept + 1;
}

struct place {
    uint64_t id;
    size_t index;
};

static int compare_places(const void *left, const void *right)
{
    const struct place *a = left;
    const struct place *b = right;

    if (a->id != b->id)
        return a->id < b->id ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* Of two rows of the same: which one is nearer to the truth. */
static bool is_newer(const struct socket_row *row, const struct socket_row *than)
{
    if (row->request_us != than->request_us)
        return row->request_us > than->request_us;
    return row->link != 0 && than->link == 0;
}

size_t merge_sockets(struct socket_row *rows, size_t count)
{
    struct place *places = malloc(MAX(count, (size_t)1) * sizeof(*places));
    size_t kept = 0;

    assert(places != NULL);
    for (size_t i = 0; i < count; i++)
        places[i] = (struct place){.id = rows[i].id, .index = i};
    if (count > 0)
        qsort(places, count, sizeof(*places), compare_places);
    for (size_t i = 1; i < count; i++) {
        struct socket_row *first = &rows[places[i - 1].index];
        struct socket_row *second = &rows[places[i].index];

        if (places[i].id != places[i - 1].id)
            continue;
        /* The survivor takes the first place; what is left behind is marked by its state. */
        if (is_newer(second, first))
            *first = *second;
        second->state = NULL;
        places[i].index = places[i - 1].index;
    }
    free(places);
    for (size_t i = 0; i < count; i++)
        if (rows[i].state != NULL) {
            if (kept != i)
                rows[kept] = rows[i];
            kept++;
        }
    return kept;
}

static int compare_statements(const void *left, const void *right)
{
    const struct statement_row *a = left;
    const struct statement_row *b = right;

    return strcmp(a->name, b->name);
}

static int compare_uses(const void *left, const void *right)
{
    const struct statement_row *a = left;
    const struct statement_row *b = right;
    int order = (a->bind_count < b->bind_count) - (a->bind_count > b->bind_count);

    return order != 0 ? order : strcmp(a->name, b->name);
}

static void add_statement(struct statement_row *to, const struct statement_row *from)
{
    to->bind_count += from->bind_count;
    to->client_count += from->client_count;
    to->server_count += from->server_count;
    if (to->bytes == 0) {
        to->bytes = from->bytes;
        memcpy(to->text, from->text, sizeof(to->text));
        memcpy(to->types, from->types, sizeof(to->types));
    }
}

size_t merge_statements(struct statement_row *rows, size_t count)
{
    size_t kept = 0;

    if (count == 0)
        return 0;
    qsort(rows, count, sizeof(*rows), compare_statements);
    for (size_t i = 1; i < count; i++) {
        if (compare_statements(&rows[kept], &rows[i]) == 0)
            add_statement(&rows[kept], &rows[i]);
        else if (++kept != i)
            rows[kept] = rows[i];
    }
    qsort(rows, kept + 1, sizeof(*rows), compare_uses);
    return kept + 1;
}

static int compare_sharing(const void *left, const void *right)
{
    const struct sharing_row *a = left;
    const struct sharing_row *b = right;
    int order = strcmp(a->database, b->database);

    if (order == 0)
        order = strcmp(a->user, b->user);
    if (order == 0)
        order = (a->worker > b->worker) - (a->worker < b->worker);
    return order;
}

void merge_sharing(struct sharing_row *rows, size_t count)
{
    if (count > 0)
        qsort(rows, count, sizeof(*rows), compare_sharing);
}

static int compare_class_pools(const struct class_row *a, const struct class_row *b)
{
    int order = strcmp(a->database, b->database);

    return order != 0 ? order : strcmp(a->user, b->user);
}

static int compare_classes(const void *left, const void *right)
{
    const struct class_row *a = left;
    const struct class_row *b = right;
    int order = compare_class_pools(a, b);

    return order != 0 ? order : (a->hash > b->hash) - (a->hash < b->hash);
}

static int compare_class_uses(const void *left, const void *right)
{
    const struct class_row *a = left;
    const struct class_row *b = right;
    int order = compare_class_pools(a, b);

    if (order == 0)
        order = (a->total < b->total) - (a->total > b->total);
    return order != 0 ? order : compare_classes(a, b);
}

static double weighted(double a, uint64_t a_weight, double b, uint64_t b_weight)
{
    if (a_weight + b_weight == 0)
        return 0;
    return (a * (double)a_weight + b * (double)b_weight) / (double)(a_weight + b_weight);
}

static void add_class(struct class_row *to, const struct class_row *from)
{
    to->mean_us = weighted(to->mean_us, to->measured, from->mean_us, from->measured);
    to->deviation_us = weighted(to->deviation_us, to->measured, from->deviation_us, from->measured);
    if (from->floor_us > 0 && (to->floor_us <= 0 || from->floor_us < to->floor_us))
        to->floor_us = from->floor_us;
    if (from->measured > to->most_measured) {
        to->most_measured = from->measured;
        to->follow = from->follow;
    }
    to->measured += from->measured;
    to->total += from->total;
    if (to->text[0] == '\0')
        memcpy(to->text, from->text, sizeof(to->text));
}

size_t merge_classes(struct class_row *rows, size_t count)
{
    size_t kept = 0;

    if (count == 0)
        return 0;
    qsort(rows, count, sizeof(*rows), compare_classes);
    for (size_t i = 0; i < count; i++)
        rows[i].most_measured = rows[i].measured;
    for (size_t i = 1; i < count; i++) {
        if (compare_classes(&rows[kept], &rows[i]) == 0)
            add_class(&rows[kept], &rows[i]);
        else if (++kept != i)
            rows[kept] = rows[i];
    }
    qsort(rows, kept + 1, sizeof(*rows), compare_class_uses);
    return kept + 1;
}

size_t merge_memory(struct memory_row *rows, size_t count)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        size_t k = 0;

        while (k < kept && strcmp(rows[k].name, rows[i].name) != 0)
            k++;
        if (k == kept) {
            rows[kept++] = rows[i];
        } else {
            rows[k].used_count += rows[i].used_count;
            rows[k].free_count += rows[i].free_count;
        }
    }
    return kept;
}
