/* control.h - the main thread: signals, the console's sessions, RELOAD, statistics, the end.
 *
 * It may block for moments, and it owns nothing that a worker touches: it asks by letter (struct
 * command, struct report) and waits for the answer in its poll loop. */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include "pool/command.h"
#include "pool/handover.h"
#include "pool/report.h"
#include "worker/thread.h"

struct control_options {
    struct snapshot *snapshot; /* one reference is control's */
    const char *config_path;
    struct usage_table *usage;
    unsigned worker_count;
    int signal_fd; /* signalfd with all signals of control_signals */
    bool is_quiet, is_daemon;
    int verbose; /* count of -v */
};

/* Blocks the signals that control handles, in this thread and those it will start; returns a
 * signalfd or -1. */
int control_signals(void);

/* Any thread. Before control_run too. */
void control_post(struct letter *letter);
must_check bool control_init(void);

/* Opened by control: a console session arrives. */
void control_console_open(struct letter *letter, void *context);

/* The loop. Returns the exit status. */
int control_run(const struct control_options *options);

/* ---- for console.c ---- */

struct request;
typedef void request_done(struct request *request);

/* Asks all workers, one after the other; `done` is called in control's thread with all rows. */
struct request {
    request_done *done;
    void *owner; /* the session; NULL: gone, then the request ends unseen */
    struct command command;
    struct report report;
    unsigned worker;
    bool is_command;
    void *rows;
    size_t row_count, row_max;
    struct core_counts counts; /* summed */
    bool found;
    uint64_t again_at_us; /* polled: asked again then */
    bool is_waiting;
    struct request *next_waiting;
    char database[DATABASE_NAME_BYTES_MAX];
};

struct request *request_make(void *owner, request_done *done);
void request_report(struct request *request, enum report_kind kind);
/* `command` but for its letter is filled in by the caller in request->command. */
void request_command(struct request *request);
/* Runs the report again after `pause_us`. */
void request_again(struct request *request, uint64_t pause_us);
void request_release(struct request *request);

const struct snapshot *control_snapshot(void);
struct usage_table *control_usage(void);
uint64_t control_now_us(void);
bool control_is_paused(void);
void control_set_paused(bool paused);
enum shutdown_mode control_shutdown_mode(void);
/* NULL: loaded, and `request` (a command) is on its way to the workers. Else the reason. */
const char *control_reload(struct request *request);
void control_replace_snapshot(struct snapshot *snapshot, struct request *request);
/* `request` carries it to the workers and is done when all of them know. */
void control_shutdown(enum shutdown_mode mode, struct request *request);
_Noreturn void control_exit_now(void);

/* Statistics of a database: totals now, and averages of the last stats_period. */
struct database_stats {
    char database[DATABASE_NAME_BYTES_MAX];
    struct pool_stats total, at_last_period, average;
    bool is_present; /* in the gathering at hand */
};
/* Sums rows by database into the kept table; returns it. */
struct database_stats *control_sum_stats(const struct pool_row *rows, size_t row_count,
                                         size_t *count);

#endif
