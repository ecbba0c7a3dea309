#include "control/control.h"

#include "base/clock.h"
#include "control/console.h"
#include "control/dns.h"
#include "control/helper.h"
#include "control/listen.h"
#include "control/log_writer.h"
#include "control/resolver.h"
#include "control/systemd.h"
#include "control/takeover.h"
#include "control/tls_setup.h"
#include "pool/peer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { POLL_SHUTDOWN_US = 50 * 1000, POLL_SUSPEND_US = 5 * 1000 };

static struct {
    struct control_options options;
    struct snapshot *snapshot;
    struct mailbox mailbox;
    int bell_fd;
    struct requests requests;
    struct dns dns;
    enum control_mode mode;
    enum shutdown_mode shutdown;
    struct request *suspend; /* the SUSPEND that is under way */
    uint64_t suspend_began_us;
    bool has_settled; /* all workers said so once */
    struct stats stats;
    uint64_t stats_begun_us; /* when the period that runs began */
    uint64_t watchdog_us;    /* half of what systemd wants; 0: it does not watch */
    uint64_t watchdog_at_us;
    bool is_asking; /* the workers have not all answered for the watchdog yet */
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

bool control_cancel(const uint8_t key[8])
{
    if (console_cancel(key))
        return true;
    /* Perhaps a client of the process before us; what nobody there knows ends there. */
    takeover_cancel(key);
    return false;
}

void control_console_open(struct letter *letter, void *context)
{
    struct handover *handover = OWNER_OF(letter, struct handover, letter);

    (void)context;
    if (handover->kind == HANDOVER_CANCEL) {
        /* No core knows the key: perhaps a console session's. */
        if (!control_cancel(handover->cancel_key) &&
            cancel_key_is_foreign(handover->cancel_key, control.snapshot->settings.peer_id)) {
            handover->is_for_peer = true;
            letter->open = handover_open;
            thread_post(peer_core(handover->cancel_key, control.requests.worker_count), letter);
            return;
        }
        tls_destroy(handover->tls);
        close(handover->fd);
        usage_give(&control.options.usage->client_count);
    } else {
        console_start(handover);
    }
    letter->open = handover_returned;
    thread_post(handover->from_core, letter);
}

/* ---- names ---- */

void control_resolver_open(struct letter *letter, void *context)
{
    (void)context;
    dns_resolve(&control.dns, OWNER_OF(letter, struct resolution, letter), clock_now_us());
}

static void dns_replied(void *context, struct resolution *resolution)
{
    (void)context;
    resolution->letter.open = resolution_returned;
    thread_post(resolution->core_index, &resolution->letter);
}

static void host_change_told(struct request *request)
{
    free(request->owner);
    request_release(request);
}

/* Letters arrive in order: who gets the new answer has heard of this before. */
static void host_has_changed(void *context, const char *name, const struct host_answer *answer)
{
    struct host_news *news = malloc(sizeof(*news));
    struct request *request;

    (void)context;
    assert(news != NULL);
    snprintf(news->name, sizeof(news->name), "%s", name);
    news->answer = *answer;
    request = request_make(&control.requests, news, host_change_told);
    request->command.kind = COMMAND_HOST;
    request->command.host = news;
    request_command(request);
}

const struct dns *control_dns(void)
{
    return &control.dns;
}

/* ---- what others ask for ---- */

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

struct requests *control_requests(void)
{
    return &control.requests;
}

const struct stats *control_stats(const struct pool_row *rows, size_t row_count)
{
    stats_sum(&control.stats, rows, row_count);
    return &control.stats;
}

enum control_mode control_mode(void)
{
    return control.mode;
}

enum shutdown_mode control_shutdown_mode(void)
{
    return control.shutdown;
}

/* `context` is not used: there is one process, and its workers have numbers. */
static void post_to_worker(void *context, unsigned worker, struct letter *letter)
{
    (void)context;
    thread_post(worker, letter);
}

static void simple_done(struct request *request)
{
    request_release(request);
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
    dns_configure(&control.dns, &snapshot->settings, clock_now_us());
    listen_tune(&snapshot->settings);
    request->command.kind = COMMAND_SNAPSHOT;
    request->command.snapshot = snapshot;
    request_command(request);
}

const char *control_reload(struct request *request)
{
    const char *path = control.snapshot->settings.conffile != NULL
                           ? control.snapshot->settings.conffile
                           : control.options.config_path;
    struct snapshot *snapshot;

    systemd_reloading();
    snapshot = snapshot_reload(control.snapshot, path, report_line, NULL);
    if (snapshot != NULL && !tls_setup_load(snapshot, control.snapshot, report_line, NULL)) {
        snapshot_release(snapshot);
        snapshot = NULL;
    }
    systemd_ready();
    if (snapshot == NULL) {
        log_write(LEVEL_WARNING, "config file loading failed; the running configuration stays");
        return "RELOAD failed, see logs for additional details";
    }
    resolver_reload();
    control_replace_snapshot(snapshot, request);
    return NULL;
}

/* ---- statistics ---- */

/* Since the start, not a rate: they are seldom at work, and it is the sum that tells whether. */
static void log_helpers(void)
{
    const struct helper_counts counts = helper_counts();
    const struct {
        const char *what;
        struct job_counts counts;
    } kinds[] = {
        {"hashes made", counts.hashes},
        {"steps of TLS with clients", counts.tls_clients},
        {"steps of TLS with servers", counts.tls_servers},
        {"OS users looked up", counts.users},
        {"passwords checked by PAM", counts.pam},
        {"passwords checked by LDAP", counts.ldap},
    };
    char text[768] = "";
    size_t bytes = 0;

    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        bytes += (size_t)snprintf(text + bytes, sizeof(text) - bytes,
                                  "%s%llu %s, %llu cancelled, %llu refused", i == 0 ? "" : "; ",
                                  kinds[i].counts.run, kinds[i].what, kinds[i].counts.cancelled,
                                  kinds[i].counts.refused);
    assert(bytes < sizeof(text));
    log_write(LEVEL_DEBUG, "helpers: %s", text);
}

static void stats_gathered(struct request *request)
{
    const struct pool_stats *average = &control.stats.all.average;
    char text[512];

    stats_end_period(&control.stats, request->rows, request->row_count, clock_now_us());
    snprintf(text, sizeof(text),
             "stats: %llu xacts/s, %llu queries/s, %llu client parses/s, %llu server parses/s, "
             "%llu binds/s, %llu client logins/s, in %llu B/s, out %llu B/s, xact %llu us, query "
             "%llu us, "
             "wait %llu us",
             (unsigned long long)average->xact_count, (unsigned long long)average->query_count,
             (unsigned long long)average->client_parse_count,
             (unsigned long long)average->server_parse_count,
             (unsigned long long)average->bind_count,
             (unsigned long long)average->client_login_count,
             (unsigned long long)average->received_bytes, (unsigned long long)average->sent_bytes,
             (unsigned long long)average->xact_us, (unsigned long long)average->query_us,
             (unsigned long long)average->wait_us);
    if (control.snapshot->settings.log_stats)
        log_write(LEVEL_LOG, "%s", text);
    systemd_status(text);
    log_helpers();
    request_release(request);
}

/* Asked anew each time: a RELOAD may change the period that runs. */
static uint64_t stats_due_us(void)
{
    return control.stats_begun_us +
           (uint64_t)MAX(control.snapshot->settings.stats_period, 1) * US_PER_S;
}

/* ---- SUSPEND ---- */

static void suspend_looked(struct request *request);

/* The order has reached all workers: have they settled? */
static void suspend_ordered(struct request *request)
{
    request->done = suspend_looked;
    request_report(request, REPORT_UNSETTLED);
}

static void suspend_looked(struct request *request)
{
    uint64_t timeout_us = control.snapshot->settings.suspend_timeout_us;
    uint64_t now_us = clock_now_us();

    if (request != control.suspend) { /* RESUME came first */
        request_release(request);
        return;
    }
    if (request->counts.unsettled == 0) {
        if (!control.has_settled) {
            /* What was on its way from one worker to another was counted by none. */
            control.has_settled = true;
            request_report(request, REPORT_UNSETTLED);
            return;
        }
        control.suspend = NULL;
        request_release(request);
        console_suspended();
        return;
    }
    control.has_settled = false;
    if (timeout_us > 0 && now_us - control.suspend_began_us >= timeout_us) {
        log_write(LEVEL_WARNING, "suspend_timeout: dropping %u connections that did not settle",
                  request->counts.unsettled);
        control.suspend_began_us = now_us;
        request->command.kind = COMMAND_SUSPEND_DROP;
        request->done = suspend_ordered;
        request_command(request);
        return;
    }
    request_again(request, now_us + POLL_SUSPEND_US);
}

void control_suspend(void)
{
    assert(control.mode == CONTROL_ACTIVE);
    control.mode = CONTROL_SUSPENDED;
    control.suspend_began_us = clock_now_us();
    control.has_settled = false;
    control.suspend = request_make(&control.requests, &control, suspend_ordered);
    control.suspend->command.kind = COMMAND_SUSPEND;
    request_command(control.suspend);
}

void control_pause(struct request *request)
{
    assert(control.mode == CONTROL_ACTIVE);
    control.mode = CONTROL_PAUSED;
    request->command.kind = COMMAND_PAUSE;
    request_command(request);
}

void control_resume(struct request *request)
{
    control.mode = CONTROL_ACTIVE;
    control.suspend = NULL;
    request->command.kind = COMMAND_RESUME;
    request_command(request);
    console_suspended();
}

void control_consoles_gone(void)
{
    if (control.mode != CONTROL_SUSPENDED)
        return;
    log_write(LEVEL_WARNING, "suspended, and all console sessions are gone: continuing");
    control_resume(request_make(&control.requests, &control, simple_done));
}

/* ---- the end ---- */

_Noreturn void control_exit_now(void)
{
    log_writer_flush();
    systemd_stopping();
    exit(0);
}

bool control_is_listening(void)
{
    for (unsigned i = 0; i < control.options.worker_count; i++)
        if (thread_is_listening(i))
            return true;
    return false;
}

static void shutdown_looked(struct request *request)
{
    /* The process's own count: a session on its way from one worker to another is on none. */
    bool over = control.shutdown == SHUTDOWN_WAIT_FOR_SERVERS
                    ? request->counts.servers == 0
                    : usage_count(&control.options.usage->client_count) == 0;

    /* Cancel requests for clients of the process before us go through us. */
    if (control.shutdown == SHUTDOWN_TAKEOVER &&
        (takeover_fd() >= 0 || control_is_listening() || console_owes_takeover()))
        over = false;

    if (!over) {
        request_again(request, clock_now_us() + POLL_SHUTDOWN_US);
        return;
    }
    log_write(LEVEL_LOG, "%s connections dropped, exiting",
              control.shutdown == SHUTDOWN_WAIT_FOR_SERVERS ? "server" : "client");
    request_release(request);
    control.is_done = true;
}

void control_shutdown(enum shutdown_mode mode, struct request *request)
{
    control.shutdown = mode;
    /* The unix socket stays for the console, unless it is another process's now. */
    for (unsigned i = 0; i < control.options.worker_count; i++)
        thread_stop_listening(i, mode == SHUTDOWN_TAKEOVER);
    listen_close(mode == SHUTDOWN_TAKEOVER);
    if (mode == SHUTDOWN_TAKEOVER) {
        listen_handed_over();
        control.watchdog_us = 0; /* systemd watches the process after us */
    }
    request->command.kind = COMMAND_SHUTDOWN;
    request->command.shutdown = mode;
    if (mode == SHUTDOWN_WAIT_FOR_SERVERS)
        control.mode = CONTROL_PAUSED;
    request_command(request);
    request_report(request_make(&control.requests, &control, shutdown_looked), REPORT_COUNTS);
    /* The service goes on in the process after us. */
    if (mode != SHUTDOWN_TAKEOVER)
        systemd_stopping();
}

/* ---- signals ---- */

void control_hold_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
}

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

/* Said when it is true of all workers. */
static void signal_paused(struct request *request)
{
    log_write(LEVEL_LOG, "got SIGUSR1, pausing all activity");
    request_release(request);
}

static void signal_resumed(struct request *request)
{
    log_write(LEVEL_LOG, "got SIGUSR2, continuing from PAUSE");
    request_release(request);
}

static void signal_unsuspended(struct request *request)
{
    log_write(LEVEL_LOG, "got SIGUSR2, continuing from SUSPEND");
    request_release(request);
}

static void signal_arrived(int number)
{
    struct request *request;

    switch (number) {
    case SIGHUP:
        log_write(LEVEL_LOG, "got SIGHUP, re-reading config");
        request = request_make(&control.requests, &control, simple_done);
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
        if (control.mode == CONTROL_SUSPENDED) {
            log_write(LEVEL_FATAL, "suspend was in progress, going down immediately");
            log_writer_flush();
            systemd_stopping();
            exit(1);
        }
        log_write(LEVEL_LOG,
                  number == SIGTERM
                      ? "got SIGTERM, shutting down, waiting for all clients disconnect"
                      : "got SIGINT, shutting down, waiting for all servers connections to "
                        "be released");
        control_shutdown(number == SIGTERM ? SHUTDOWN_WAIT_FOR_CLIENTS : SHUTDOWN_WAIT_FOR_SERVERS,
                         request_make(&control.requests, &control, simple_done));
        break;
    case SIGQUIT:
        log_write(LEVEL_LOG, "got SIGQUIT, fast exit");
        control_exit_now();
    case SIGUSR1:
        if (control.mode != CONTROL_ACTIVE)
            log_write(LEVEL_LOG, "got SIGUSR1, but already paused/suspended");
        else
            control_pause(request_make(&control.requests, &control, signal_paused));
        break;
    case SIGUSR2:
        if (control.shutdown != SHUTDOWN_NONE) {
            log_write(LEVEL_LOG, "got SIGUSR2 while shutting down, ignoring");
        } else if (control.mode == CONTROL_ACTIVE) {
            log_write(LEVEL_LOG, "got SIGUSR2, but not paused/suspended");
        } else {
            control_resume(request_make(&control.requests, &control,
                                        control.mode == CONTROL_SUSPENDED ? signal_unsuspended
                                                                          : signal_resumed));
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

/* ---- the watchdog ---- */

static void watchdog_answered(struct request *request)
{
    control.is_asking = false;
    systemd_alive();
    request_release(request);
}

/* systemd is told that we are alive when every worker has just said so. */
static void watchdog_run(uint64_t now_us)
{
    if (control.watchdog_us == 0 || now_us < control.watchdog_at_us)
        return;
    control.watchdog_at_us = now_us + control.watchdog_us;
    if (control.is_asking) {
        log_write(LEVEL_WARNING, "a worker does not answer");
        return;
    }
    control.is_asking = true;
    request_report(request_make(&control.requests, &control, watchdog_answered), REPORT_COUNTS);
}

/* ---- the loop ---- */

static int poll_timeout_ms(void)
{
    uint64_t now_us = clock_now_us();
    uint64_t next_us = MIN(stats_due_us(), requests_next_us(&control.requests));

    next_us = MIN(next_us, MIN(dns_next_us(&control.dns), resolver_next_us()));
    if (control.watchdog_us > 0)
        next_us = MIN(next_us, control.watchdog_at_us);
    return next_us <= now_us ? 0 : (int)MIN((next_us - now_us) / 1000 + 1, UINT64_C(60000));
}

int control_run(const struct control_options *options)
{
    static const struct dns_ports dns_ports = {
        .ask = resolver_ask, .reply = dns_replied, .changed = host_has_changed};
    struct pollfd fds[4 + CONSOLE_SESSIONS_MAX];
    uint64_t drained;

    control.options = *options;
    control.snapshot = options->snapshot;
    requests_init(&control.requests, options->worker_count, post_to_worker, NULL);
    stats_init(&control.stats, clock_now_us());
    control.stats_begun_us = clock_now_us();
    dns_init(&control.dns, &dns_ports, NULL, &control.snapshot->settings, clock_now_us());
    if (!resolver_start(control.snapshot->settings.resolv_conf)) {
        log_writer_flush();
        return 1;
    }
    control.watchdog_us = systemd_watchdog_us() / 2;
    systemd_ready();
    while (!control.is_done) {
        size_t count = 4;

        fds[0] = (struct pollfd){.fd = options->signal_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = control.bell_fd, .events = POLLIN};
        fds[2] = (struct pollfd){.fd = takeover_fd(), .events = POLLIN}; /* -1: not looked at */
        fds[3] = (struct pollfd){.fd = resolver_fd(), .events = POLLIN};
        count += console_poll_fill(fds + 4, CONSOLE_SESSIONS_MAX);
        if (poll(fds, count, poll_timeout_ms()) < 0 && errno != EINTR) {
            log_write(LEVEL_FATAL, "poll() failed: %s", strerror(errno));
            return 1;
        }
        if ((fds[0].revents & POLLIN) != 0)
            read_signals();
        if ((fds[1].revents & POLLIN) != 0)
            (void)!read(control.bell_fd, &drained, sizeof(drained));
        (void)mailbox_open_all(&control.mailbox, NULL);
        if (fds[2].revents != 0)
            takeover_readable(&control.snapshot->settings);
        resolver_run();
        dns_run(&control.dns, clock_now_us());
        console_poll_events(fds + 4, count - 4);
        requests_run(&control.requests, clock_now_us());
        watchdog_run(clock_now_us());
        if (clock_now_us() >= stats_due_us()) {
            control.stats_begun_us = clock_now_us();
            request_report(request_make(&control.requests, &control, stats_gathered), REPORT_POOLS);
        }
    }
    log_writer_flush();
    return 0;
}
