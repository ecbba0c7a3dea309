#include "pool/exchange.h"

#include <string.h>

static void run_add(struct exchange *exchange, enum exchange_run_kind kind)
{
    struct exchange_run *last =
        exchange->run_count > 0 ? &exchange->runs[exchange->run_count - 1] : NULL;

    if (last != NULL && last->kind == kind) {
        last->count++;
        return;
    }
    if (exchange->run_count == EXCHANGE_RUNS_MAX) {
        /* A long pipeline that alternates. What is answered by ReadyForQuery stays counted; only
         * what an error or a COPY would skip is no longer known. */
        exchange->is_uncertain = true;
        exchange->is_blurred = true;
        if (kind == RUN_EXTENDED) {
            exchange->is_open_behind = true;
        } else if (kind != RUN_COPY_END) {
            if (last->kind == RUN_EXTENDED || last->kind == RUN_COPY_END)
                *last = (struct exchange_run){.count = 1, .kind = (uint8_t)kind};
            else
                last->count++;
        }
        return;
    }
    exchange->runs[exchange->run_count++] =
        (struct exchange_run){.count = 1, .kind = (uint8_t)kind};
}

static void run_remove(struct exchange *exchange, unsigned index)
{
    assert(index < exchange->run_count);
    exchange->run_count--;
    memmove(&exchange->runs[index], &exchange->runs[index + 1],
            (exchange->run_count - index) * sizeof(exchange->runs[0]));
}

bool exchange_sent(struct exchange *exchange, uint8_t type)
{
    enum exchange_run_kind kind;

    switch (type) {
    case 'Q':
    case 'F':
        if (exchange->is_skipping)
            return false;
        if (exchange->in_copy_both)
            exchange->is_uncertain = exchange->is_lost = true;
        if (exchange->in_copy_in) /* the backend ends the COPY with an error and eats this */
            exchange->is_uncertain = exchange->is_lost = true;
        run_add(exchange, RUN_QUERY);
        return true;
    case 'S':
        if (exchange->in_copy_in) {
            exchange->sync_ignored = true;
            return false;
        }
        exchange->is_skipping = false;
        /* The batch and its Sync become one; so a pipeline of any length is one run. */
        kind = exchange_is_open(exchange) ? RUN_SYNC : RUN_BARE_SYNC;
        if (exchange->run_count > 0 && exchange->runs[exchange->run_count - 1].kind == RUN_EXTENDED)
            exchange->run_count--;
        exchange->is_open_behind = false;
        run_add(exchange, kind);
        return true;
    case 'P':
    case 'B':
    case 'D':
    case 'E':
    case 'C':
        if (exchange->in_copy_in)
            exchange->is_uncertain = exchange->is_lost = true;
        run_add(exchange, RUN_EXTENDED);
        break;
    case 'c':
    case 'f':
        if (exchange->in_copy_in)
            exchange->in_copy_in = false;
        else if (exchange->in_copy_both)
            exchange->in_copy_both = false;
        else if (exchange->run_count > 0)
            run_add(exchange, RUN_COPY_END); /* outside of COPY the backend ignores it */
        break;
    default: /* CopyData, Flush: no answer, no state */
        break;
    }
    return false;
}

static void copy_in_began(struct exchange *exchange)
{
    struct exchange_run *head = &exchange->runs[0];
    unsigned next = 1;

    /* A COPY that nobody asked for, or one of which it is not known whether the client has ended it
     * already: then no Sync may be taken for thrown away. */
    if (exchange->run_count == 0 || exchange->is_blurred) {
        exchange->is_uncertain = exchange->is_lost = true;
        return;
    }
    if (head->count > 1 && head->kind != RUN_EXTENDED)
        exchange->is_uncertain = exchange->is_lost = true; /* what follows is read as COPY data */
    if (head->kind == RUN_SYNC) {
        /* The batch's own Sync is thrown away: the batch is open again. */
        exchange->sync_ignored = true;
        if (head->count == 1)
            head->kind = RUN_EXTENDED;
    } else if (head->kind == RUN_COPY_END) {
        return;
    }
    while (next < exchange->run_count && exchange->runs[next].kind == RUN_BARE_SYNC) {
        exchange->sync_ignored = true;
        run_remove(exchange, next);
    }
    if (next < exchange->run_count && exchange->runs[next].kind != RUN_COPY_END)
        exchange->is_uncertain = exchange->is_lost = true;
    exchange->in_copy_in = next == exchange->run_count;
}

/* Only a Query begins one, and nothing may be asked before it is over. */
static void copy_both_began(struct exchange *exchange)
{
    if (exchange->run_count != 1 || exchange->runs[0].kind != RUN_QUERY ||
        exchange->runs[0].count != 1 || exchange->is_blurred)
        exchange->is_uncertain = exchange->is_lost = true;
    exchange->in_copy_both = exchange->run_count > 0;
}

static void ready_for_query(struct exchange *exchange)
{
    bool is_surplus = exchange_has_surplus(exchange);

    exchange->has_answered = false;
    exchange->is_skipping = false;
    exchange->in_copy_in = false;
    exchange->in_copy_both = false;
    if (is_surplus)
        return;
    while (exchange->run_count > 0 &&
           (exchange->runs[0].kind == RUN_EXTENDED || exchange->runs[0].kind == RUN_COPY_END))
        run_remove(exchange, 0);
    if (exchange->run_count == 0) {
        exchange->is_uncertain = true; /* an answer too many */
        return;
    }
    if (--exchange->runs[0].count == 0)
        run_remove(exchange, 0);
    while (exchange->run_count > 0 && exchange->runs[0].kind == RUN_COPY_END)
        run_remove(exchange, 0);
}

void exchange_received(struct exchange *exchange, uint8_t type)
{
    unsigned next = 0;
    bool is_open;
    if (type != 'Z')
        exchange->has_answered = true;
    switch (type) {
    case 'Z':
        ready_for_query(exchange);
        break;
    case 'G':
        copy_in_began(exchange);
        break;
    case 'W':
        copy_both_began(exchange);
        break;
    case 'E':
        /* After an error in a batch everything up to the next Sync is skipped, a Query too; after
         * one in COPY IN a Sync that we took for thrown away may still be answered. */
        if (exchange->sync_ignored)
            exchange->is_uncertain = true;
        while (next < exchange->run_count && (exchange->runs[next].kind == RUN_EXTENDED ||
                                              exchange->runs[next].kind == RUN_COPY_END))
            next++;
        is_open = exchange->run_count > 0 && exchange->runs[0].kind == RUN_EXTENDED;
        if (is_open && next < exchange->run_count && exchange->runs[next].kind == RUN_QUERY)
            exchange->is_uncertain = exchange->is_lost = true;
        /* Nothing but the open batch is outstanding: it is this that has failed. */
        exchange->is_skipping = is_open && next == exchange->run_count && !exchange->is_blurred;
        exchange->in_copy_in = false;
        exchange->in_copy_both = false;
        break;
    default:
        break;
    }
}
