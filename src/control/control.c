#include "control/control.h"

#include "base/clock.h"
#include "control/console.h"
#include "control/helper.h"
#include "control/log_writer.h"
#include "control/notify.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { REPORT_ROWS = 256, POLL_SHUTDOWN_US = 50 * 1000 };

static struct {
    struct control_options options;
    struct snapshot *snapshot;
    struct mailbox mailbox;
    int bell_fd;
    bool is_paused;
    enum shutdown_mode shutdown;
    struct request *waiting;
    uint64_t stats_at_us, stats_period_us;
    struct database_stats *stats;
    size_t stats_count;
    bool is_done;
} control = {.bell_fd = -1};

/* ---- letters ---- */

bool control_init(void)
{
    mailbox_init(&control.mailbox);
    control.bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return control.bell_fd >= 0;
}

void control_post(struct letter *letter)
{
    uint64_t one = 1;

    if (mailbox_post(&control.mailbox, letter))
        (void)!write(control.bell_fd, &one, sizeof(one));
}

void control_console_open(struct letter *letter, void *context)
{
    struct handover *handover = OWNER_OF(letter, struct handover, letter);

    (void)context;
    if (handover->kind == HANDOVER_CANCEL) {
        /* No core knows the key: perhaps a console session's. */
        (void)console_cancel(handover->cancel_key);
        close(handover->fd);
        usage_give(&control.options.usage->client_count);
    } else {
        console_start(handover);
    }
    letter->open = handover_returned;
    worker_post(handover->from_core, letter);
}

const struct snapshot *control_snapshot(void)
{
    return control.snapshot;
}

struct usage_table *control_usage(void)
{
    return control.options.usage;
}

uint64_t control_now_us(void)
{
    return clock_now_us();
}

bool control_is_paused(void)
{
    return control.is_paused;
}

void control_set_paused(bool paused)
{
    control.is_paused = paused;
}

enum shutdown_mode control_shutdown_mode(void)
{
    return control.shutdown;
}

/* ---- requests ---- */

static void command_answered(struct letter *letter, void *context);
static void report_answered(struct letter *letter, void *context);

struct request *request_make(void *owner, request_done *done)
{
    struct request *request = calloc(1, sizeof(*request));

    assert(request != NULL);
    request->owner = owner;
    request->done = done;
    return request;
}

void request_release(struct request *request)
{
    free(request->report.rows.pools);
    free(request->rows);
    free(request);
}

static size_t row_bytes(const struct request *request)
{
    return request->report.kind == REPORT_POOLS ? sizeof(struct pool_row)
                                                : sizeof(struct socket_row);
}

static void ask(struct request *request)
{
    if (request->is_command) {
        request->command.letter.open = command_open;
        request->command.answered = command_answered;
        if (request->command.kind == COMMAND_SNAPSHOT) {
            request->command.snapshot = control.snapshot;
            snapshot_reference(control.snapshot);
        }
        worker_post(request->worker, &request->command.letter);
    } else {
        request->report.letter.open = report_open;
        request->report.answered = report_answered;
        worker_post(request->worker, &request->report.letter);
    }
}

void request_report(struct request *request, enum report_kind kind)
{
    request->is_command = false;
    request->worker = 0;
    request->row_count = 0;
    request->counts = (struct core_counts){0};
    if (request->report.rows.pools == NULL) {
        request->report.rows.pools =
            malloc(REPORT_ROWS * MAX(sizeof(struct pool_row), sizeof(struct socket_row)));
        assert(request->report.rows.pools != NULL);
    }
    request->report.kind = kind;
    request->report.owner = request;
    request->report.cursor = 0;
    request->report.row_max = REPORT_ROWS;
    strcpy(request->report.database, request->database);
    ask(request);
}

void request_command(struct request *request)
{
    request->is_command = true;
    request->worker = 0;
    request->found = false;
    request->command.owner = request;
    ask(request);
}

void request_again(struct request *request, uint64_t pause_us)
{
    request->again_at_us = clock_now_us() + pause_us;
    request->is_waiting = true;
    request->next_waiting = control.waiting;
    control.waiting = request;
}

static void run_waiting(void)
{
    uint64_t now_us = clock_now_us();
    struct request **link = &control.waiting;

    while (*link != NULL) {
        struct request *request = *link;

        if (request->again_at_us > now_us) {
            link = &request->next_waiting;
            continue;
        }
        *link = request->next_waiting;
        request->is_waiting = false;
        request_report(request, request->report.kind);
    }
}

static void take_rows(struct request *request)
{
    const struct report *report = &request->report;
    size_t bytes = row_bytes(request);
    struct core_counts *sum = &request->counts;

    if (report->kind == REPORT_COUNTS) {
        sum->pools += report->counts.pools;
        sum->clients += report->counts.clients;
        sum->login_clients += report->counts.login_clients;
        sum->free_clients += report->counts.free_clients;
        sum->servers += report->counts.servers;
        sum->free_servers += report->counts.free_servers;
        sum->busy_servers += report->counts.busy_servers;
        sum->connections += report->counts.connections;
        return;
    }
    if (report->row_count == 0)
        return;
    if (request->row_count + report->row_count > request->row_max) {
        request->row_max = MAX(request->row_max * 2, request->row_count + REPORT_ROWS);
        request->rows = realloc(request->rows, request->row_max * bytes);
        assert(request->rows != NULL);
    }
    memcpy((char *)request->rows + request->row_count * bytes, report->rows.pools,
           report->row_count * bytes);
    request->row_count += report->row_count;
}

/* True: the next worker was asked. */
static bool ask_next(struct request *request)
{
    if (++request->worker >= control.options.worker_count)
        return false;
    request->report.cursor = 0;
    ask(request);
    return true;
}

static void finish(struct request *request)
{
    if (request->owner == NULL)
        request_release(request);
    else
        request->done(request);
}

static void command_answered(struct letter *letter, void *context)
{
    struct command *command = OWNER_OF(letter, struct command, letter);
    struct request *request = command->owner;

    (void)context;
    request->found = request->found || command->found;
    if (!ask_next(request))
        finish(request);
}

static void report_answered(struct letter *letter, void *context)
{
    struct report *report = OWNER_OF(letter, struct report, letter);
    struct request *request = report->owner;

    (void)context;
    take_rows(request);
    if (report->more && request->owner != NULL)
        ask(request);
    else if (!ask_next(request))
        finish(request);
}

/* ---- configuration ---- */

static void report_line(void *context, enum log_level level, const char *text)
{
    (void)context;
    log_write(level, "%s", text);
}

static void apply_log_settings(void)
{
    const struct settings *settings = &control.snapshot->settings;
    struct log_options options = {
        .path = settings->logfile,
        .to_stderr = !control.options.is_quiet && !control.options.is_daemon,
        .to_syslog = settings->syslog,
        .syslog_ident = settings->syslog_ident,
        .syslog_facility = settings->syslog_facility,
    };
    int verbose = settings->verbose >= 0 ? settings->verbose : control.options.verbose;

    log_set_level(verbose == 0 ? LEVEL_LOG : verbose == 1 ? LEVEL_DEBUG : LEVEL_NOISE);
    if (!log_writer_reopen(&options))
        log_write(LEVEL_ERROR, "could not open logfile '%s': %s; the old one stays",
                  settings->logfile, strerror(errno));
}

void control_replace_snapshot(struct snapshot *snapshot, struct request *request)
{
    snapshot_release(control.snapshot);
    control.snapshot = snapshot;
    apply_log_settings();
    request->command.kind = COMMAND_SNAPSHOT;
    request_command(request);
}

const char *control_reload(struct request *request)
{
    const char *path = control.snapshot->settings.conffile != NULL
                           ? control.snapshot->settings.conffile
                           : control.options.config_path;
    struct snapshot *snapshot;

    notify_reloading();
    snapshot = snapshot_reload(control.snapshot, path, report_line, NULL);
    notify_ready();
    if (snapshot == NULL) {
        log_write(LEVEL_WARNING, "config file loading failed; the running configuration stays");
        return "RELOAD failed, see logs for additional details";
    }
    control_replace_snapshot(snapshot, request);
    return NULL;
}

/* ---- statistics ---- */

static void add_stats(struct pool_stats *sum, const struct pool_stats *more)
{
    uint64_t *to = (uint64_t *)(void *)sum;
    const uint64_t *from = (const uint64_t *)(const void *)more;

    static_assert(sizeof(struct pool_stats) % sizeof(uint64_t) == 0, "counters only");
    for (size_t i = 0; i < sizeof(struct pool_stats) / sizeof(uint64_t); i++)
        to[i] += from[i];
}

static struct database_stats *stats_of(const char *database)
{
    struct database_stats *stats;

    for (size_t i = 0; i < control.stats_count; i++)
        if (strcmp(control.stats[i].database, database) == 0)
            return &control.stats[i];
    control.stats = realloc(control.stats, (control.stats_count + 1) * sizeof(*control.stats));
    assert(control.stats != NULL);
    stats = &control.stats[control.stats_count++];
    *stats = (struct database_stats){0};
    snprintf(stats->database, sizeof(stats->database), "%s", database);
    return stats;
}

static int compare_stats(const void *left, const void *right)
{
    return strcmp(((const struct database_stats *)left)->database,
                  ((const struct database_stats *)right)->database);
}

struct database_stats *control_sum_stats(const struct pool_row *rows, size_t row_count,
                                         size_t *count)
{
    size_t kept = 0;

    for (size_t i = 0; i < control.stats_count; i++) {
        control.stats[i].is_present = false;
        control.stats[i].total = (struct pool_stats){0};
    }
    stats_of("pgbouncer")->is_present = true;
    for (size_t i = 0; i < row_count; i++) {
        struct database_stats *stats = stats_of(rows[i].database);

        stats->is_present = true;
        add_stats(&stats->total, &rows[i].stats);
    }
    /* Pools that are gone take their figures with them. */
    for (size_t i = 0; i < control.stats_count; i++)
        if (control.stats[i].is_present)
            control.stats[kept++] = control.stats[i];
    control.stats_count = kept;
    qsort(control.stats, kept, sizeof(*control.stats), compare_stats);
    *count = kept;
    return control.stats;
}

static uint64_t difference(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0; /* a pool was forgotten and made anew */
}

static void average(struct database_stats *stats, uint64_t period_us)
{
    const struct pool_stats *now = &stats->total;
    const struct pool_stats *before = &stats->at_last_period;
    struct pool_stats *result = &stats->average;
    uint64_t xacts = difference(now->xact_count, before->xact_count);
    uint64_t queries = difference(now->query_count, before->query_count);
    uint64_t assignments =
        difference(now->server_assignment_count, before->server_assignment_count);

#define PER_SECOND(field)                                                                          \
    result->field = difference(now->field, before->field) * US_PER_S / period_us
    PER_SECOND(server_assignment_count);
    PER_SECOND(xact_count);
    PER_SECOND(query_count);
    PER_SECOND(received_bytes);
    PER_SECOND(sent_bytes);
    PER_SECOND(client_parse_count);
    PER_SECOND(server_parse_count);
    PER_SECOND(bind_count);
    PER_SECOND(client_login_count);
#undef PER_SECOND
    result->xact_us = xacts > 0 ? difference(now->xact_us, before->xact_us) / xacts : 0;
    result->query_us = queries > 0 ? difference(now->query_us, before->query_us) / queries : 0;
    result->wait_us = assignments > 0 ? difference(now->wait_us, before->wait_us) / assignments : 0;
    stats->at_last_period = *now;
}

/* Since the start, not a rate: they are seldom at work, and it is the sum that tells whether. */
static void log_helpers(void)
{
    struct helper_counts counts = helper_counts();

    log_write(LEVEL_DEBUG,
              "helpers: %llu hashes made, %llu cancelled, %llu refused; %llu names looked up, %llu "
              "cancelled, %llu refused",
              counts.hashes.run, counts.hashes.cancelled, counts.hashes.refused, counts.names.run,
              counts.names.cancelled, counts.names.refused);
}

static void stats_gathered(struct request *request)
{
    struct database_stats sum = {.database = "all"};
    struct database_stats *stats;
    size_t count;
    char text[512];

    stats = control_sum_stats(request->rows, request->row_count, &count);
    for (size_t i = 0; i < count; i++) {
        add_stats(&sum.total, &stats[i].total);
        add_stats(&sum.at_last_period, &stats[i].at_last_period);
        average(&stats[i], control.stats_period_us);
    }
    average(&sum, control.stats_period_us);
    snprintf(text, sizeof(text),
             "stats: %llu xacts/s, %llu queries/s, %llu client parses/s, %llu server parses/s, "
             "%llu binds/s, %llu client logins/s, in %llu B/s, out %llu B/s, xact %llu us, query "
             "%llu us, "
             "wait %llu us",
             (unsigned long long)sum.average.xact_count,
             (unsigned long long)sum.average.query_count,
             (unsigned long long)sum.average.client_parse_count,
             (unsigned long long)sum.average.server_parse_count,
             (unsigned long long)sum.average.bind_count,
             (unsigned long long)sum.average.client_login_count,
             (unsigned long long)sum.average.received_bytes,
             (unsigned long long)sum.average.sent_bytes, (unsigned long long)sum.average.xact_us,
             (unsigned long long)sum.average.query_us, (unsigned long long)sum.average.wait_us);
    if (control.snapshot->settings.log_stats)
        log_write(LEVEL_LOG, "%s", text);
    notify_status(text);
    log_helpers();
    request_release(request);
}

/* ---- the end ---- */

_Noreturn void control_exit_now(void)
{
    log_writer_flush();
    notify_stopping();
    exit(0);
}

static void simple_done(struct request *request)
{
    request_release(request);
}

static void shutdown_looked(struct request *request)
{
    bool over;

    if (control.shutdown == SHUTDOWN_WAIT_FOR_CLIENTS)
        over = request->counts.clients + request->counts.login_clients == 0 && console_count() == 0;
    else
        over = request->counts.servers == 0;
    if (!over) {
        request_again(request, POLL_SHUTDOWN_US);
        return;
    }
    log_write(LEVEL_LOG, "%s connections dropped, exiting",
              control.shutdown == SHUTDOWN_WAIT_FOR_CLIENTS ? "client" : "server");
    request_release(request);
    control.is_done = true;
}

void control_shutdown(enum shutdown_mode mode, struct request *request)
{
    control.shutdown = mode;
    for (unsigned i = 0; i < control.options.worker_count; i++)
        worker_stop_listening(i, false);
    request->command.kind = COMMAND_SHUTDOWN;
    request->command.shutdown = mode;
    if (mode == SHUTDOWN_WAIT_FOR_SERVERS)
        control.is_paused = true;
    request_command(request);
    request_report(request_make(&control, shutdown_looked), REPORT_COUNTS);
    notify_stopping();
}

/* ---- signals ---- */

int control_signals(void)
{
    static const int numbers[] = {SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2};
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    for (size_t i = 0; i < COUNT_OF(numbers); i++)
        sigaddset(&set, numbers[i]);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
        return -1;
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void pause_done(struct request *request)
{
    log_write(LEVEL_LOG, request->command.kind == COMMAND_PAUSE
                             ? "got SIGUSR1, pausing all activity"
                             : "got SIGUSR2, continuing from PAUSE");
    request_release(request);
}

/* Said when it is true of all workers. */
static void pause_all(bool pause)
{
    struct request *request = request_make(&control, pause_done);

    control.is_paused = pause;
    request->command.kind = pause ? COMMAND_PAUSE : COMMAND_RESUME;
    request_command(request);
}

static void signal_arrived(int number)
{
    struct request *request;

    switch (number) {
    case SIGHUP:
        log_write(LEVEL_LOG, "got SIGHUP, re-reading config");
        request = request_make(&control, simple_done);
        if (control_reload(request) != NULL)
            request_release(request);
        break;
    case SIGTERM:
    case SIGINT:
        if (control.shutdown != SHUTDOWN_NONE) {
            log_write(LEVEL_LOG, "got %s while shutting down, fast exit",
                      number == SIGTERM ? "SIGTERM" : "SIGINT");
            control_exit_now();
        }
        log_write(LEVEL_LOG,
                  number == SIGTERM
                      ? "got SIGTERM, shutting down, waiting for all clients disconnect"
                      : "got SIGINT, shutting down, waiting for all servers connections to "
                        "be released");
        control_shutdown(number == SIGTERM ? SHUTDOWN_WAIT_FOR_CLIENTS : SHUTDOWN_WAIT_FOR_SERVERS,
                         request_make(&control, simple_done));
        break;
    case SIGQUIT:
        log_write(LEVEL_LOG, "got SIGQUIT, fast exit");
        control_exit_now();
    case SIGUSR1:
        if (control.is_paused) {
            log_write(LEVEL_LOG, "got SIGUSR1, but already paused/suspended");
            break;
        }
        pause_all(true);
        break;
    case SIGUSR2:
        if (control.shutdown != SHUTDOWN_NONE) {
            log_write(LEVEL_LOG, "got SIGUSR2 while shutting down, ignoring");
        } else if (!control.is_paused) {
            log_write(LEVEL_LOG, "got SIGUSR2, but not paused/suspended");
        } else {
            pause_all(false);
        }
        break;
    default:
        break;
    }
}

static void read_signals(void)
{
    struct signalfd_siginfo info;

    while (read(control.options.signal_fd, &info, sizeof(info)) == sizeof(info))
        signal_arrived((int)info.ssi_signo);
}

/* ---- the loop ---- */

static int poll_timeout_ms(void)
{
    uint64_t now_us = clock_now_us();
    uint64_t next_us = control.stats_at_us;

    for (struct request *request = control.waiting; request != NULL;
         request = request->next_waiting)
        next_us = MIN(next_us, request->again_at_us);
    return next_us <= now_us ? 0 : (int)MIN((next_us - now_us) / 1000 + 1, UINT64_C(60000));
}

int control_run(const struct control_options *options)
{
    struct pollfd fds[2 + CONSOLE_SESSIONS_MAX];
    uint64_t drained;

    control.options = *options;
    control.snapshot = options->snapshot;
    control.stats_period_us = (uint64_t)MAX(options->snapshot->settings.stats_period, 1) * US_PER_S;
    control.stats_at_us = clock_now_us() + control.stats_period_us;
    notify_ready();
    while (!control.is_done) {
        size_t count = 2;

        fds[0] = (struct pollfd){.fd = options->signal_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = control.bell_fd, .events = POLLIN};
        count += console_poll_fill(fds + 2, CONSOLE_SESSIONS_MAX);
        if (poll(fds, count, poll_timeout_ms()) < 0 && errno != EINTR) {
            log_write(LEVEL_FATAL, "poll() failed: %s", strerror(errno));
            return 1;
        }
        if ((fds[0].revents & POLLIN) != 0)
            read_signals();
        if ((fds[1].revents & POLLIN) != 0)
            (void)!read(control.bell_fd, &drained, sizeof(drained));
        (void)mailbox_open_all(&control.mailbox, NULL);
        console_poll_events(fds + 2, count - 2);
        run_waiting();
        if (clock_now_us() >= control.stats_at_us) {
            control.stats_at_us += control.stats_period_us;
            request_report(request_make(&control, stats_gathered), REPORT_POOLS);
        }
    }
    log_writer_flush();
    return 0;
}
