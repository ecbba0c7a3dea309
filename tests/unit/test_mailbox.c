/* Build it with SANITIZE=-fsanitize=thread too: the order of memory accesses is what a test alone
 * cannot see. */
#include "unit.h"

#include "io/mailbox.h"

#include <pthread.h>
#include <sched.h>

enum { SENDERS = 4, LETTERS = 20000 };

struct note {
    struct letter letter;
    unsigned sender;
    unsigned number;
};

struct receiver {
    struct mailbox *mailbox;
    unsigned next[SENDERS];
    unsigned count;
};

static struct note notes[SENDERS][LETTERS];
static struct mailbox shared;
static atomic_uint doorbell; /* how often a sender was told to ring */

static void note_open(struct letter *letter, void *context)
{
    struct note *note = OWNER_OF(letter, struct note, letter);
    struct receiver *receiver = context;

    assert_int_equal(note->number, receiver->next[note->sender]);
    receiver->next[note->sender]++;
    receiver->count++;
}

static void letters_are_opened_oldest_first(void **state)
{
    struct mailbox mailbox;
    struct receiver receiver = {.mailbox = &mailbox};
    struct note few[5];

    (void)state;
    mailbox_init(&mailbox);
    assert_int_equal(mailbox_open_all(&mailbox, &receiver), 0);
    for (unsigned i = 0; i < 5; i++) {
        few[i] = (struct note){.letter.open = note_open, .number = i};
        assert_int_equal(mailbox_post(&mailbox, &few[i].letter), i == 0);
    }
    assert_int_equal(mailbox_open_all(&mailbox, &receiver), 5);
    assert_int_equal(receiver.count, 5);
    assert_int_equal(mailbox_open_all(&mailbox, &receiver), 0);
}

static void repost(struct letter *letter, void *context)
{
    struct receiver *receiver = context;

    receiver->count++;
    if (receiver->count < 3)
        assert_true(mailbox_post(receiver->mailbox, letter));
}

static void a_letter_may_be_posted_again_when_opened(void **state)
{
    struct mailbox mailbox;
    struct receiver receiver = {.mailbox = &mailbox};
    struct letter letter = {.open = repost};

    (void)state;
    mailbox_init(&mailbox);
    assert_true(mailbox_post(&mailbox, &letter));
    /* One pass opens what was there when it began, or two mailboxes could keep each other busy for
     * ever. */
    assert_int_equal(mailbox_open_all(&mailbox, &receiver), 1);
    assert_int_equal(mailbox_open_all(&mailbox, &receiver), 1);
    assert_int_equal(mailbox_open_all(&mailbox, &receiver), 1);
    assert_int_equal(mailbox_open_all(&mailbox, &receiver), 0);
    assert_int_equal(receiver.count, 3);
}

static void *send_all(void *argument)
{
    unsigned sender = (unsigned)(uintptr_t)argument;

    for (unsigned i = 0; i < LETTERS; i++) {
        struct note *note = &notes[sender][i];

        *note = (struct note){.letter.open = note_open, .sender = sender, .number = i};
        if (mailbox_post(&shared, &note->letter))
            atomic_fetch_add(&doorbell, 1);
    }
    return NULL;
}

static void letters_of_several_threads_arrive_once_and_in_order(void **state)
{
    pthread_t threads[SENDERS];
    struct receiver receiver = {.mailbox = &shared};
    unsigned passes = 0;

    (void)state;
    mailbox_init(&shared);
    atomic_store(&doorbell, 0);
    for (unsigned i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, (void *)(uintptr_t)i), 0);
    while (receiver.count < SENDERS * LETTERS) {
        unsigned before = receiver.count;
        unsigned opened = mailbox_open_all(&shared, &receiver);

        assert_int_equal(receiver.count - before, opened);
        passes += opened > 0;
        if (opened == 0)
            sched_yield();
    }
    for (unsigned i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (unsigned i = 0; i < SENDERS; i++)
        assert_int_equal(receiver.next[i], LETTERS);
    assert_int_equal(mailbox_open_all(&shared, &receiver), 0);
    /* Each pass that found letters was announced by exactly one doorbell: none is lost, none is
     * idle. */
    assert_int_equal(atomic_load(&doorbell), passes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_are_opened_oldest_first),
        cmocka_unit_test(a_letter_may_be_posted_again_when_opened),
        cmocka_unit_test(letters_of_several_threads_arrive_once_and_in_order),
    };

    return cmocka_run_group_tests_name("mailbox", tests, NULL, NULL);
}
