#include "control/request.h"

#include <stdlib.h>
#include <string.h>

/* At most so many rows in one letter: filling them in takes a core some microseconds. */
enum { REPORT_ROWS = 256 };

void requests_init(struct requests *requests, unsigned worker_count,
                   void (*post)(void *context, unsigned worker, struct letter *letter),
                   void *context)
{
    assert(worker_count > 0);
    *requests = (struct requests){.worker_count = worker_count, .post = post, .context = context};
}

struct request *request_make(struct requests *requests, void *owner, request_done *done)
{
    struct request *request =
        calloc(1, sizeof(*request) + requests->worker_count * sizeof(request->errands[0]));

    assert(request != NULL);
    request->requests = requests;
    request->owner = owner;
    request->done = done;
    for (unsigned i = 0; i < requests->worker_count; i++)
        request->errands[i].request = request;
    return request;
}

void request_release(struct request *request)
{
    assert(request->open_count == 0);
    for (unsigned i = 0; i < request->requests->worker_count; i++)
        free(request->errands[i].rows);
    free(request->rows);
    free(request);
}

static size_t row_bytes(const struct request *request)
{
    switch (request->kind) {
    case REPORT_POOLS:
    case REPORT_PEERS:
        return sizeof(struct pool_row);
    case REPORT_STATEMENTS:
        return sizeof(struct statement_row);
    case REPORT_MEMORY:
        return sizeof(struct memory_row);
    case REPORT_SHARING:
        return sizeof(struct sharing_row);
    case REPORT_CLASSES:
        return sizeof(struct class_row);
    default:
        return sizeof(struct socket_row);
    }
}

static bool has_rows(const struct request *request)
{
    return request->kind != REPORT_COUNTS && request->kind != REPORT_UNSETTLED;
}

static void post(struct errand *errand, struct letter *letter)
{
    struct request *request = errand->request;

    request->requests->post(request->requests->context, (unsigned)(errand - request->errands),
                            letter);
}

/* ---- answers ---- */

static void add_counts(struct core_counts *sum, const struct core_counts *more)
{
    sum->pools += more->pools;
    sum->clients += more->clients;
    sum->login_clients += more->login_clients;
    sum->free_clients += more->free_clients;
    sum->servers += more->servers;
    sum->free_servers += more->free_servers;
    sum->busy_servers += more->busy_servers;
    sum->connections += more->connections;
    sum->unsettled += more->unsettled;
}

/* All rows into one array: the first worker's first. */
static void join_rows(struct request *request)
{
    size_t bytes = row_bytes(request);
    size_t count = 0;
    char *to;

    for (unsigned i = 0; i < request->requests->worker_count; i++)
        count += request->errands[i].row_count;
    free(request->rows);
    request->row_count = count;
    request->rows = to = malloc(MAX(count, (size_t)1) * bytes);
    assert(to != NULL);
    for (unsigned i = 0; i < request->requests->worker_count; i++) {
        struct errand *errand = &request->errands[i];

        if (errand->row_count > 0)
            memcpy(to, errand->rows, errand->row_count * bytes);
        to += errand->row_count * bytes;
        free(errand->rows);
        errand->rows = NULL;
        errand->row_count = errand->row_max = 0;
    }
}

static void answered(struct request *request)
{
    assert(request->open_count > 0);
    if (--request->open_count > 0)
        return;
    if (!request->is_command && has_rows(request))
        join_rows(request);
    if (request->owner == NULL)
        request_release(request);
    else
        request->done(request);
}

static void command_answered(struct letter *letter, void *context)
{
    struct command *command = OWNER_OF(letter, struct command, letter);
    struct errand *errand = command->owner;

    (void)context;
    errand->request->found = errand->request->found || command->found;
    answered(errand->request);
}

static void ask(struct errand *errand);

static void report_answered(struct letter *letter, void *context)
{
    struct report *report = OWNER_OF(letter, struct report, letter);
    struct errand *errand = report->owner;
    struct request *request = errand->request;

    (void)context;
    errand->row_count += report->row_count;
    if (report->more && request->owner != NULL) {
        ask(errand);
        return;
    }
    if (!has_rows(request))
        add_counts(&request->counts, &report->counts);
    answered(request);
}

/* ---- questions ---- */

/* The worker writes its rows where they will stay. */
static void ask(struct errand *errand)
{
    struct request *request = errand->request;
    struct report *report = &errand->report;

    report->letter.open = report_open;
    report->row_count = 0;
    report->row_max = 0;
    if (has_rows(request)) {
        if (errand->row_max - errand->row_count < REPORT_ROWS) {
            errand->row_max = MAX(errand->row_max * 2, errand->row_count + REPORT_ROWS);
            errand->rows = realloc(errand->rows, errand->row_max * row_bytes(request));
            assert(errand->rows != NULL);
        }
        report->row_max = REPORT_ROWS;
        if (request->kind == REPORT_POOLS || request->kind == REPORT_PEERS)
            report->rows.pools = (struct pool_row *)errand->rows + errand->row_count;
        else if (request->kind == REPORT_STATEMENTS)
            report->rows.statements = (struct statement_row *)errand->rows + errand->row_count;
        else if (request->kind == REPORT_MEMORY)
            report->rows.memory = (struct memory_row *)errand->rows + errand->row_count;
        else if (request->kind == REPORT_SHARING)
            report->rows.sharing = (struct sharing_row *)errand->rows + errand->row_count;
        else if (request->kind == REPORT_CLASSES)
            report->rows.classes = (struct class_row *)errand->rows + errand->row_count;
        else
            report->rows.sockets = (struct socket_row *)errand->rows + errand->row_count;
    }
    post(errand, &report->letter);
}

void request_report(struct request *request, enum report_kind kind)
{
    unsigned worker_count = request->requests->worker_count;

    assert(request->open_count == 0);
    request->is_command = false;
    request->kind = kind;
    request->counts = (struct core_counts){0};
    request->open_count = worker_count;
    for (unsigned i = 0; i < worker_count; i++) {
        struct errand *errand = &request->errands[i];

        errand->report = (struct report){
            .answered = report_answered,
            .kind = kind,
            .owner = errand,
        };
        strcpy(errand->report.database, request->database);
        ask(errand);
    }
}

void request_command(struct request *request)
{
    unsigned worker_count = request->requests->worker_count;

    assert(request->open_count == 0);
    request->is_command = true;
    request->found = false;
    request->open_count = worker_count;
    for (unsigned i = 0; i < worker_count; i++) {
        struct errand *errand = &request->errands[i];

        errand->command = request->command;
        errand->command.letter.open = command_open;
        errand->command.answered = command_answered;
        errand->command.owner = errand;
        errand->command.found = false;
        if (errand->command.kind == COMMAND_SNAPSHOT)
            snapshot_reference(errand->command.snapshot);
        post(errand, &errand->command.letter);
    }
}

void request_again(struct request *request, uint64_t at_us)
{
    assert(request->open_count == 0);
    assert(!request->is_command);
    request->again_at_us = at_us;
    request->next_waiting = request->requests->waiting;
    request->requests->waiting = request;
}

void requests_run(struct requests *requests, uint64_t now_us)
{
    struct request **link = &requests->waiting;

    while (*link != NULL) {
        struct request *request = *link;

        if (request->again_at_us > now_us) {
            link = &request->next_waiting;
            continue;
        }
        *link = request->next_waiting;
        if (request->owner == NULL)
            request_release(request);
        else
            request_report(request, request->kind);
        /* A simulated worker may have answered already, and the list have changed. */
        link = &requests->waiting;
    }
}

uint64_t requests_next_us(const struct requests *requests)
{
    uint64_t next_us = UINT64_MAX;

    for (const struct request *request = requests->waiting; request != NULL;
         request = request->next_waiting)
        next_us = MIN(next_us, request->again_at_us);
    return next_us;
}
