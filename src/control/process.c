#include "control/process.h"

#include "config/cpu_list.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- pidfile ---- */

/* -1: no file; 0: no number in it. */
static long read_pidfile(const char *path)
{
    FILE *file = path == NULL || path[0] == '\0' ? NULL : fopen(path, "re");
    long pid;

    if (file == NULL)
        return -1;
    if (fscanf(file, "%ld", &pid) != 1 || pid < 0)
        pid = 0;
    fclose(file);
    return pid;
}

bool process_check_pidfile(const char *path)
{
    long pid = read_pidfile(path);

    if (pid < 0)
        return true;
    if (pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM)) {
        log_write(LEVEL_FATAL, "pidfile '%s' exists and process %ld lives, already running?", path,
                  pid);
        return false;
    }
    log_write(LEVEL_WARNING, "removing stale pidfile '%s'", path);
    (void)unlink(path);
    return true;
}

bool process_write_pidfile(const char *path)
{
    FILE *file;

    if (path == NULL || path[0] == '\0')
        return true;
    file = fopen(path, "we");
    if (file == NULL) {
        log_write(LEVEL_FATAL, "could not open pidfile '%s': %s", path, strerror(errno));
        return false;
    }
    if (fprintf(file, "%d\n", (int)getpid()) < 0 || fclose(file) != 0) {
        log_write(LEVEL_FATAL, "could not write pidfile '%s': %s", path, strerror(errno));
        return false;
    }
    return true;
}

void process_restore_pidfile(const char *path)
{
    if (read_pidfile(path) < 0)
        (void)!process_write_pidfile(path);
}

void process_remove_pidfile(const char *path)
{
    /* It may be the next process's by now. */
    if (read_pidfile(path) == (long)getpid())
        (void)unlink(path);
}

/* ---- user, limits, background ---- */

bool process_become_user(const char *name)
{
    struct passwd *user = getpwnam(name);

    if (user == NULL) {
        log_write(LEVEL_FATAL, "no such system user: %s", name);
        return false;
    }
    if (geteuid() == user->pw_uid)
        return true;
    if (initgroups(name, user->pw_gid) < 0 || setgid(user->pw_gid) < 0 ||
        setuid(user->pw_uid) < 0) {
        log_write(LEVEL_FATAL, "cannot become user %s: %s", name, strerror(errno));
        return false;
    }
    /* Changing the user has forbidden core dumps. */
    (void)prctl(PR_SET_DUMPABLE, 1);
    return true;
}

void process_give_file(const char *path, const char *user)
{
    struct passwd *entry = getpwnam(user);
    struct stat status;

    if (geteuid() == 0 && entry != NULL && path != NULL && path[0] != '\0' &&
        stat(path, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == 0)
        (void)!chown(path, entry->pw_uid, entry->pw_gid);
}

/* Clients, the most servers that the entries allow (each user has a pool, unless the entry names one),
 * and our own: files, rings, listeners. */
static unsigned long long expected_descriptors(const struct snapshot *snapshot,
                                               unsigned worker_count)
{
    const struct settings *settings = &snapshot->settings;
    unsigned long long count =
        (unsigned long long)settings->max_client_conn + 20 + 6ull * worker_count;

    for (size_t i = 0; i < snapshot->database_count; i++) {
        const struct database_config *database = &snapshot->databases[i];
        struct pool_settings limits;
        unsigned long long servers;

        snapshot_pool_settings(snapshot, database, NULL, &limits);
        servers = (unsigned long long)MAX(limits.pool_size, 0) *
                  (database->user != NULL ? 1 : MAX(snapshot->user_count, (size_t)1));
        if (limits.max_db_connections > 0)
            servers = MIN(servers, (unsigned long long)limits.max_db_connections);
        count += servers;
    }
    return count;
}

unsigned process_raise_limits(const struct snapshot *snapshot, unsigned worker_count)
{
    const struct settings *settings = &snapshot->settings;
    unsigned long long expected = expected_descriptors(snapshot, worker_count);
    struct rlimit limit;
    rlim_t before;

    (void)getrlimit(RLIMIT_MEMLOCK, &limit);
    limit.rlim_cur = limit.rlim_max = RLIM_INFINITY;
    if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 && getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_MEMLOCK, &limit);
    }
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        limit.rlim_cur = before;
    log_write(LEVEL_LOG,
              "kernel file descriptor limit: %llu (hard: %llu); max_client_conn: %d, max expected "
              "fd use: %llu",
              (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_max,
              settings->max_client_conn, expected);
    if ((unsigned long long)limit.rlim_cur < (unsigned long long)settings->max_client_conn)
        log_write(LEVEL_WARNING,
                  "the file descriptor limit (%llu) does not allow max_client_conn = %d: raise it "
                  "(ulimit -n, LimitNOFILE), or lower max_client_conn",
                  (unsigned long long)limit.rlim_cur, settings->max_client_conn);
    else if ((unsigned long long)limit.rlim_cur < expected)
        log_write(LEVEL_WARNING,
                  "the file descriptor limit (%llu) is lower than what may be needed (%llu): raise "
                  "it (ulimit -n, LimitNOFILE), or lower max_client_conn or pool sizes",
                  (unsigned long long)limit.rlim_cur, expected);
    return (unsigned)MIN(limit.rlim_cur, (rlim_t)1000000);
}

static int ready_pipe[2] = {-1, -1};

bool process_daemon_begin(void)
{
    pid_t child;
    int status;
    char byte;

    if (pipe(ready_pipe) < 0)
        return false;
    child = fork();
    if (child < 0)
        return false;
    if (child > 0) {
        close(ready_pipe[1]);
        if (read(ready_pipe[0], &byte, 1) == 1)
            _exit(0);
        if (waitpid(child, &status, 0) == child && WIFEXITED(status))
            _exit(WEXITSTATUS(status));
        _exit(1);
    }
    close(ready_pipe[0]);
    (void)setsid();
    return true;
}

void process_daemon_ready(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null >= 0) {
        (void)dup2(null, STDIN_FILENO);
        (void)dup2(null, STDOUT_FILENO);
        (void)dup2(null, STDERR_FILENO);
        close(null);
    }
    (void)!write(ready_pipe[1], "", 1);
    close(ready_pipe[1]);
}

unsigned process_cpus(int cpus[WORKERS_MAX])
{
    cpu_set_t set;
    unsigned count = 0;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && count < WORKERS_MAX; cpu++)
        if (CPU_ISSET((size_t)cpu, &set))
            cpus[count++] = cpu;
    return count;
}

unsigned process_worker_cpus(const struct settings *settings, int cpus[WORKERS_MAX], char *error,
                             size_t error_bytes)
{
    int allowed[WORKERS_MAX];
    unsigned allowed_count = process_cpus(allowed);
    unsigned count;
    const char *why;

    if (!cpu_list_parse(settings->cpu_affinity, cpus, WORKERS_MAX, &count, &why)) {
        snprintf(error, error_bytes, "cpu_affinity = %s: %s", settings->cpu_affinity, why);
        return 0;
    }
    if (count == 0) {
        memcpy(cpus, allowed, sizeof(allowed));
        return MAX(allowed_count, 1u);
    }
    for (unsigned i = 0; i < count; i++) {
        bool is_allowed = false;

        for (unsigned k = 0; k < allowed_count; k++)
            is_allowed = is_allowed || allowed[k] == cpus[i];
        if (!is_allowed) {
            snprintf(error, error_bytes,
                     "cpu_affinity = %s: CPU %d does not exist, or this process may not use it",
                     settings->cpu_affinity, cpus[i]);
            return 0;
        }
    }
    return count;
}
