/* mailbox.h - letters between threads: many senders, one receiver, no lock.
 *
 * A `letter` is embedded in what it carries and holds the function that the receiver calls; it
 * belongs to the sender until it is posted, to the receiver from then on. Nothing is allocated, so
 * a mailbox is bounded by what carries letters: sessions, servers, requests, all of which have
 * limits.
 *
 * Letters of one sender arrive in the order in which they were posted. */
#ifndef IO_MAILBOX_H
#define IO_MAILBOX_H

#include "base/base.h"

#include <stdatomic.h>

struct letter;
/* `context` is the receiver's (its worker, the control plane). */
typedef void letter_open(struct letter *letter, void *context);

struct letter {
    struct letter *next;
    letter_open *open;
};

struct mailbox {
    _Atomic(struct letter *) last;
};

static inline void mailbox_init(struct mailbox *mailbox)
{
    atomic_init(&mailbox->last, NULL);
}

/* True: the mailbox was empty, so the receiver may be asleep: ring it (ring_wake). */
static inline bool mailbox_post(struct mailbox *mailbox, struct letter *letter)
{
    struct letter *last = atomic_load_explicit(&mailbox->last, memory_order_relaxed);

    do
        letter->next = last;
    while (!atomic_compare_exchange_weak_explicit(&mailbox->last, &last, letter,
                                                  memory_order_seq_cst, memory_order_relaxed));
    return last == NULL;
}

/* The receiver: opens all letters that are there, oldest first. Returns their number. */
static inline unsigned mailbox_open_all(struct mailbox *mailbox, void *context)
{
    struct letter *letter;
    struct letter *oldest = NULL;
    unsigned count = 0;

    /* A plain read first: most turns find nothing, and an exchange would cost a locked instruction.
     */
    if (atomic_load_explicit(&mailbox->last, memory_order_relaxed) == NULL)
        return 0;
    letter = atomic_exchange_explicit(&mailbox->last, NULL, memory_order_acquire);
    while (letter != NULL) {
        struct letter *next = letter->next;

        letter->next = oldest;
        oldest = letter;
        letter = next;
    }
    while (oldest != NULL) {
        struct letter *next = oldest->next;

        oldest->open(oldest, context);
        oldest = next;
        count++;
    }
    return count;
}

#endif
