/* request.h - questions and orders to all workers: one letter to each at the same time, and one
 * answer put together.
 *
 * All workers are asked at once, so that a table is a picture of nearly one moment; what they
 * answer is kept apart until the last one has answered, and then put together in the order of
 * workers. Orders (struct command) of one control reach every worker in the order in which they
 * were given, since a mailbox keeps the order of one sender: two cores never see PAUSE and RESUME,
 * or two configurations, the other way round.
 *
 * Knows neither clock nor socket nor thread: time is an argument, letters go out through the
 * owner's `post` and come back by being opened in the owner's thread. So the simulator can run it.
 * Allocates: never for a worker's thread. */
#ifndef CONTROL_REQUEST_H
#define CONTROL_REQUEST_H

#include "pool/command.h"
#include "pool/report.h"

struct request;
typedef void request_done(struct request *request);

/* Whom requests are sent to. */
struct requests {
    unsigned worker_count;
    /* Takes the letter to that worker's mailbox. */
    void (*post)(void *context, unsigned worker, struct letter *letter);
    void *context;
    struct request *waiting; /* to be asked again later */
};

/* One worker's part of a request. */
struct errand {
    struct request *request;
    struct command command;
    struct report report;
    void *rows; /* what this worker has answered so far */
    size_t row_count, row_max;
};

struct request {
    struct requests *requests;
    /* Called when all workers have answered. The request is the owner's again then: to be asked
     * once more, or released. */
    request_done *done;
    void *owner; /* NULL: gone meanwhile; the request ends unseen */

    struct command command;                 /* an order; its letter and `owner` are not used */
    enum report_kind kind;                  /* of a question */
    char database[DATABASE_NAME_BYTES_MAX]; /* of REPORT_COUNTS: see report.h */

    /* The answer. */
    void *rows; /* struct pool_row, socket_row ..., in the order of workers */
    size_t row_count;
    struct core_counts counts; /* summed */
    bool found;                /* by any worker */

    /* Own. */
    bool is_command;
    unsigned open_count; /* workers that have not answered yet */
    uint64_t again_at_us;
    struct request *next_waiting;
    struct errand errands[];
};

void requests_init(struct requests *requests, unsigned worker_count,
                   void (*post)(void *context, unsigned worker, struct letter *letter),
                   void *context);

/* Asks anew what is due. */
void requests_run(struct requests *requests, uint64_t now_us);
/* When requests_run is due; UINT64_MAX: no need. */
uint64_t requests_next_us(const struct requests *requests);

struct request *request_make(struct requests *requests, void *owner, request_done *done);
void request_release(struct request *request);

void request_report(struct request *request, enum report_kind kind);
/* request->command is filled in by the caller; of a COMMAND_SNAPSHOT each worker gets a reference
 * of its own, the caller keeps his. */
void request_command(struct request *request);
/* The same question again, at `at_us`. */
void request_again(struct request *request, uint64_t at_us);

#endif
