/* control.h - the main thread: signals, the console's sessions, RELOAD, statistics, the end.
 *
 * It may block for moments, and it owns nothing that a worker touches: it asks by letter
 * (request.h) and waits for the answer in its poll loop. */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include "control/request.h"
#include "control/stats.h"
#include "pool/handover.h"
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

/* Called at the very start: SIGHUP, SIGUSR1 and SIGUSR2 that come before control can handle
 * them wait instead of killing it. */
void control_hold_signals(void);

/* Blocks the signals that control handles, in this thread and those it will start; returns a
 * signalfd or -1. */
int control_signals(void);

/* Any thread. Before control_run too. */
void control_post(struct letter *letter);
must_check bool control_init(void);

/* A cancel request that no worker knows: of a console session (true), or told to the process before us.
 */
bool control_cancel(const uint8_t key[8]);

/* Opened by control: a console session arrives. */
void control_console_open(struct letter *letter, void *context);

/* Opened by control: a core asks for the addresses of a name (struct resolution). */
void control_resolver_open(struct letter *letter, void *context);

/* The loop. Returns the exit status. */
int control_run(const struct control_options *options);

/* ---- for the console ---- */

enum control_mode { CONTROL_ACTIVE, CONTROL_PAUSED, CONTROL_SUSPENDED };

struct requests *control_requests(void);
const struct snapshot *control_snapshot(void);
struct usage_table *control_usage(void);
const struct dns *control_dns(void);
uint64_t control_now_us(void);
enum control_mode control_mode(void);
enum shutdown_mode control_shutdown_mode(void);

/* Each carries `request` to the workers, and it is done when all of them know. */
void control_pause(struct request *request);
void control_resume(struct request *request); /* from PAUSE or SUSPEND of everything */
void control_shutdown(enum shutdown_mode mode, struct request *request);
/* Some worker may still accept a connection. */
bool control_is_listening(void);
void control_replace_snapshot(struct snapshot *snapshot, struct request *request);
/* NULL: loaded, and `request` is on its way. Else the reason. */
const char *control_reload(struct request *request);

/* Begins; console_suspended is called when everything is at rest, or RESUME came first. */
void control_suspend(void);
/* The last console session has gone: nobody could end a SUSPEND any more. */
void control_consoles_gone(void);
_Noreturn void control_exit_now(void);

/* Totals of these rows, and the averages of the last stats_period. */
const struct stats *control_stats(const struct pool_row *rows, size_t row_count);

#endif
