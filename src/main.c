/* main.c - the command line, the order in which things start, the exit code. */
#include "config/snapshot.h"
#include "control/control.h"
#include "control/helper.h"
#include "control/listen.h"
#include "control/log_writer.h"
#include "control/process.h"
#include "control/resolver.h"
#include "control/systemd.h"
#include "control/takeover.h"
#include "control/tls_setup.h"
#include "crypto/random.h"
#include "crypto/tls.h"
#include "worker/thread.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct arguments {
    const char *config_path, *check_path, *user;
    int verbose;
    bool is_daemon, is_quiet, takes_over;
};

static const char *program = "pgsplice";

static void print_usage(void)
{
    printf("%s is a connection pooler for PostgreSQL; it reads PgBouncer's files.\n\n"
           "Usage:\n"
           "  %s [OPTION]... CONFIG_FILE\n\n"
           "Options:\n"
           "  -d, --daemon         run in the background (needs pidfile)\n"
           "  -q, --quiet          write nothing to stderr\n"
           "  -R, --reboot         take over the listening sockets of the running process, which\n"
           "                       then ends with its last client\n"
           "  -t, --check FILE     check a configuration, name every mistake, exit\n"
           "  -u, --user=USERNAME  assume the identity of USERNAME\n"
           "  -v, --verbose        log more; may be given several times\n"
           "  -V, --version        show version, exit\n"
           "  -h, --help           show this help, exit\n",
           program, program);
}

static void print_version(void)
{
    printf("pgsplice " PGSPLICE_VERSION "\n"
           "io_uring: liburing\nadns: %s\ntls: %s\nsystemd: yes\n"
           "pam: %s\nldap: %s\n",
           resolver_version(), tls_library(), BUILD_HAS_PAM ? "yes" : "no",
           BUILD_HAS_LDAP ? "yes" : "no");
}

/* The exit status when the program should end at once, -1: go on. */
static int parse_arguments(int argc, char **argv, struct arguments *arguments)
{
    static const struct option options[] = {
        {"daemon", no_argument, NULL, 'd'},
        {"quiet", no_argument, NULL, 'q'},
        {"check", required_argument, NULL, 't'},
        {"user", required_argument, NULL, 'u'},
        {"verbose", no_argument, NULL, 'v'},
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {"reboot", no_argument, NULL, 'R'},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "dqt:u:vVhR", options, NULL)) != -1) {
        switch (option) {
        case 'd':
            arguments->is_daemon = true;
            break;
        case 'q':
            arguments->is_quiet = true;
            break;
        case 't':
            arguments->check_path = optarg;
            break;
        case 'u':
            arguments->user = optarg;
            break;
        case 'v':
            arguments->verbose++;
            break;
        case 'V':
            print_version();
            return 0;
        case 'h':
            print_usage();
            return 0;
        case 'R':
            arguments->takes_over = true;
            break;
        default:
            fprintf(stderr, "Try \"%s --help\" for more information.\n", program);
            return 1;
        }
    }
    if (arguments->check_path != NULL && optind == argc)
        return -1;
    if (optind + 1 != argc) {
        fprintf(stderr,
                "%s: no configuration file specified\nTry \"%s --help\" for more information.\n",
                program, program);
        return 1;
    }
    arguments->config_path = argv[optind];
    return -1;
}

/* ---- checking a configuration ---- */

struct check {
    unsigned mistakes;
};

static void print_line(void *context, enum log_level level, const char *text)
{
    struct check *check = context;

    if (level <= LEVEL_ERROR)
        check->mistakes++;
    printf("%s %s\n", log_level_name(level), text);
}

static int check_configuration(const char *path)
{
    struct check check = {0};
    struct snapshot *snapshot = snapshot_load(path, print_line, &check);
    bool is_good = snapshot != NULL && tls_setup_load(snapshot, NULL, print_line, &check);

    if (snapshot != NULL)
        snapshot_release(snapshot);
    if (!is_good || check.mistakes > 0) {
        printf("%s: %u mistake%s\n", path, check.mistakes, check.mistakes == 1 ? "" : "s");
        return 1;
    }
    printf("%s: no mistakes\n", path);
    return 0;
}

/* ---- starting ---- */

/* What loading said, before there was a log to say it in. */
static struct load_line {
    enum log_level level;
    char *text;
} * load_lines;
static size_t load_line_count;

static void keep_line(void *context, enum log_level level, const char *text)
{
    struct load_line *more = realloc(load_lines, (load_line_count + 1) * sizeof(*more));

    (void)context;
    if (more == NULL)
        return;
    load_lines = more;
    load_lines[load_line_count++] = (struct load_line){level, strdup(text)};
}

static void log_kept_lines(void)
{
    for (size_t i = 0; i < load_line_count; i++) {
        if (load_lines[i].text != NULL)
            log_write(load_lines[i].level, "%s", load_lines[i].text);
        free(load_lines[i].text);
    }
    free(load_lines);
    load_lines = NULL;
    load_line_count = 0;
}

static _Noreturn void give_up(void)
{
    log_writer_flush();
    exit(1);
}

static const char *run_user;
static struct snapshot *running; /* for the clean-up at exit */

static void clean_up(void)
{
    /* As long as the process before us serves, the files are its own. */
    if (takeover_is_pending())
        return;
    process_remove_pidfile(running->settings.pidfile);
    listen_remove_unix();
}

/* Sockets that are there already: systemd's, or those of the running process (-R). */
static struct {
    enum listen_source source;
    const int *fds;
    size_t count;
} inherited;

static bool inherit_sockets(const struct settings *settings, bool takes_over)
{
    static int passed[WORKER_LISTENERS_MAX];
    int first;
    unsigned count = systemd_sockets(&first);

    if (count > 0 && takes_over) {
        log_write(LEVEL_FATAL, "-R does not go together with socket activation");
        return false;
    }
    if (count > COUNT_OF(passed)) {
        log_write(LEVEL_FATAL, "socket activation passes %u sockets, %d are possible", count,
                  WORKER_LISTENERS_MAX);
        return false;
    }
    if (count > 0) {
        for (unsigned i = 0; i < count; i++)
            passed[i] = first + (int)i;
        inherited.source = LISTEN_PASSED;
        inherited.fds = passed;
        inherited.count = count;
        if (settings->listen_addr != NULL && settings->listen_addr[0] != '\0')
            keep_line(NULL, LEVEL_WARNING, "listen_addr is ignored, because of socket activation");
        if (settings->unix_socket_dir != NULL && settings->unix_socket_dir[0] != '\0' &&
            strcmp(settings->unix_socket_dir, "/tmp") != 0)
            keep_line(NULL, LEVEL_WARNING,
                      "unix_socket_dir is no place to listen on, because of socket activation");
        return true;
    }
    if (!takes_over)
        return true;
    switch (takeover_begin(settings, run_user)) {
    case TAKEOVER_BEGUN:
        inherited.source = LISTEN_TAKEN;
        inherited.fds = takeover_sockets(&inherited.count);
        return true;
    case TAKEOVER_NOBODY:
        return true;
    case TAKEOVER_FAILED:
        break;
    }
    return false;
}

static void start_workers(struct snapshot *snapshot, unsigned worker_count, const int *cpus,
                          unsigned cpu_count, unsigned descriptor_limit, struct usage_table *usage,
                          struct shard_table *shards)
{
    static struct param_names param_names;
    static char param_storage[2048];
    static uint8_t mock_key[32];
    char error[RING_ERROR_BYTES];

    if (!random_bytes(mock_key, sizeof(mock_key))) {
        log_write(LEVEL_FATAL, "the kernel gives no random bytes");
        give_up();
    }
    param_names_init(&param_names, snapshot->settings.track_extra_parameters, param_storage,
                     sizeof(param_storage));
    if (!listen_open(&snapshot->settings, worker_count, inherited.source, inherited.fds,
                     inherited.count, run_user))
        give_up();
    atexit(clean_up);
    for (unsigned i = 0; i < worker_count; i++) {
        struct worker_listener listeners[WORKER_LISTENERS_MAX];
        struct worker_options options = {
            .index = i,
            .count = worker_count,
            .snapshot = snapshot,
            .usage = usage,
            .shards = shards,
            .param_names = &param_names,
            .mock_key = mock_key,
            .has_other_keys = takeover_is_pending(),
            .client_count_max = descriptor_limit,
            .listeners = listeners,
            .post_control = control_post,
            .post_job = helper_post,
            .resolver_open = control_resolver_open,
            .console_open = control_console_open,
        };
        struct thread *thread;

        if (!listen_for_worker(i, listeners, &options.listener_count))
            give_up();
        snapshot_reference(snapshot);
        thread = thread_start_worker(&options, cpu_count > 0 ? cpus[i % cpu_count] : -1, error);
        if (thread == NULL) {
            log_write(LEVEL_FATAL, "%s", error);
            give_up();
        }
        if (i == 0)
            log_write(LEVEL_LOG, "%u worker%s, %s", worker_count, worker_count == 1 ? "" : "s",
                      thread_describe(thread));
    }
}

int main(int argc, char **argv)
{
    struct arguments arguments = {0};
    static struct usage_table usage;
    static struct shard_table shards;
    struct control_options control_options;
    const struct settings *settings;
    struct snapshot *snapshot;
    int cpus[WORKERS_MAX];
    unsigned worker_count, cpu_count, descriptor_limit;
    char error[RING_ERROR_BYTES];
    int status = parse_arguments(argc, argv, &arguments);

    if (status >= 0)
        return status;
    if (!tls_init()) {
        log_write(LEVEL_FATAL, "the TLS library cannot be used: %s", tls_library());
        return 1;
    }
    if (arguments.check_path != NULL)
        return check_configuration(arguments.check_path);
    control_hold_signals();
    snapshot = snapshot_load(arguments.config_path, keep_line, NULL);
    if (snapshot == NULL) {
        log_kept_lines();
        log_write(LEVEL_FATAL, "cannot load config file");
        return 1;
    }
    /* Before the user changes: the key may be root's only. */
    if (!tls_setup_load(snapshot, NULL, keep_line, NULL)) {
        log_kept_lines();
        log_write(LEVEL_FATAL, "cannot set up TLS");
        return 1;
    }
    running = snapshot;
    settings = &snapshot->settings;
    run_user = arguments.user != NULL ? arguments.user : settings->user;
    if (run_user != NULL && run_user[0] == '\0')
        run_user = NULL;
    if (geteuid() == 0 && (run_user == NULL || strcmp(run_user, "root") == 0)) {
        log_write(LEVEL_FATAL,
                  "pgsplice should not run as root: set `user` in the configuration, or use -u");
        return 1;
    }
    if (arguments.is_daemon && (settings->pidfile == NULL || settings->pidfile[0] == '\0')) {
        log_write(LEVEL_FATAL, "daemon needs pidfile configured");
        return 1;
    }
    if (!inherit_sockets(settings, arguments.takes_over))
        return 1;
    if (!takeover_is_pending() && !process_check_pidfile(settings->pidfile))
        return 1;
    if (arguments.is_daemon && !process_daemon_begin()) {
        log_write(LEVEL_FATAL, "cannot fork");
        return 1;
    }
    control_options = (struct control_options){
        .snapshot = snapshot,
        .config_path = arguments.config_path,
        .usage = &usage,
        .signal_fd = control_signals(),
        .is_quiet = arguments.is_quiet,
        .is_daemon = arguments.is_daemon,
        .verbose = arguments.verbose,
    };
    {
        struct log_options options = {
            .path = settings->logfile,
            .to_stderr = !arguments.is_quiet && !arguments.is_daemon,
            .fatal_to_stderr = !arguments.is_quiet,
            .to_syslog = settings->syslog,
            .syslog_ident = settings->syslog_ident,
            .syslog_facility = settings->syslog_facility,
        };
        int verbose = settings->verbose >= 0 ? settings->verbose : arguments.verbose;

        /* As the user that will append to it, should it have to be made. */
        log_set_level(verbose == 0 ? LEVEL_LOG : verbose == 1 ? LEVEL_DEBUG : LEVEL_NOISE);
        if (!log_writer_start(&options))
            return 1;
        log_kept_lines();
        if (takeover_is_pending())
            log_write(LEVEL_LOG, "taking over %zu listening sockets of the running process",
                      inherited.count);
        else if (arguments.takes_over)
            log_write(LEVEL_LOG, "there is no running process to take over from");
        if (run_user != NULL)
            process_give_file(settings->logfile, run_user);
    }
    cpu_count = process_worker_cpus(settings, cpus, error, sizeof(error));
    if (cpu_count == 0) {
        log_write(LEVEL_FATAL, "%s", error);
        give_up();
    }
    worker_count = settings->worker_threads > 0 ? (unsigned)settings->worker_threads : cpu_count;
    worker_count = MIN(worker_count, (unsigned)WORKERS_MAX);
    /* As many workers as somebody wanted run where the kernel puts them, unless he also said where. */
    if (settings->worker_threads > 0 && settings->cpu_affinity[0] == '\0')
        cpu_count = 0;
    descriptor_limit = process_raise_limits(snapshot, worker_count);
    if (control_options.signal_fd < 0 || !control_init() || !usage_table_init(&usage) ||
        !shard_table_init(&shards, worker_count)) {
        log_write(LEVEL_FATAL, "cannot set up signals and letters");
        give_up();
    }
    /* Rings are made as root if we are: later ones would count against RLIMIT_MEMLOCK. */
    if (!thread_prepare_bell(error)) {
        log_write(LEVEL_FATAL, "%s", error);
        give_up();
    }
    if (!helper_start())
        give_up();
    start_workers(snapshot, worker_count, cpus, cpu_count, descriptor_limit, &usage, &shards);
    if (run_user != NULL && !process_become_user(run_user))
        give_up();
    if (geteuid() == 0) {
        log_write(LEVEL_FATAL, "pgsplice should not run as root");
        give_up();
    }
    /* What may fail comes before the first connection that would be lost with us. */
    if (!process_write_pidfile(settings->pidfile) || !listen_begin(settings))
        give_up();
    thread_release_all();
    /* Only now, and so there is always somebody who accepts. */
    if (takeover_is_pending()) {
        if (!takeover_end())
            give_up();
        for (unsigned i = 0; i < worker_count; i++)
            thread_accept_again(i);
    }
    log_write(LEVEL_LOG,
              "process up: pgsplice " PGSPLICE_VERSION ", liburing (io_uring), adns: %s, tls: %s",
              resolver_version(), tls_library());
    if (arguments.is_daemon)
        process_daemon_ready();
    control_options.worker_count = worker_count;
    snapshot_reference(snapshot); /* `running` keeps one for the clean-up */
    return control_run(&control_options);
}
