#include "control/process.h"

#include "config/cpu_list.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ADDRESSES_MAX = 32 };

/* ---- listening ---- */

static void set_option(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

static int open_tcp(const struct settings *settings, const struct sockaddr *address,
                    socklen_t bytes, bool share)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (address->sa_family == AF_INET6)
        set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (share)
        set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (bind(fd, address, bytes) < 0)
        goto fail;
    if (!share)
        set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1); /* for the siblings to come */
    if (settings->tcp_defer_accept != 0)
        set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1);
    return fd;
fail : {
    int error = errno;

    close(fd);
    errno = error;
    return -1;
}
}

/* A process that was killed gives its sockets back a moment late, since its rings are taken down in
 * the background. */
static int open_tcp_patiently(const struct settings *settings, const struct sockaddr *address,
                              socklen_t bytes, bool share)
{
    for (int waited_ms = 0;; waited_ms += 20) {
        int fd = open_tcp(settings, address, bytes, share);

        if (fd >= 0 || errno != EADDRINUSE || waited_ms >= 500)
            return fd;
        usleep(20 * 1000);
    }
}

static void address_text(const struct sockaddr *address, char text[96])
{
    char host[64] = "?";

    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;

        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
        snprintf(text, 96, "%s:%u", host, ntohs(v4->sin_port));
    } else {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;

        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
        snprintf(text, 96, "[%s]:%u", host, ntohs(v6->sin6_port));
    }
}

/* One address for all workers. False: it could not be bound (said). */
static bool listen_address(const struct settings *settings, const struct addrinfo *item,
                           unsigned worker_count,
                           struct worker_listener (*listeners)[WORKER_LISTENERS_MAX], size_t index)
{
    char text[96];

    address_text(item->ai_addr, text);
    for (unsigned worker = 0; worker < worker_count; worker++) {
        bool share = worker > 0 || settings->so_reuseport;
        int fd = open_tcp_patiently(settings, item->ai_addr, item->ai_addrlen, share);

        if (fd < 0) {
            log_write(LEVEL_WARNING, "cannot listen on %s: %s", text, strerror(errno));
            while (worker-- > 0)
                close(listeners[worker][index].fd);
            return false;
        }
        listeners[worker][index] = (struct worker_listener){.fd = fd};
    }
    log_write(LEVEL_LOG, "listening on %s", text);
    return true;
}

static bool listen_tcp(const struct settings *settings, unsigned worker_count,
                       struct worker_listener (*listeners)[WORKER_LISTENERS_MAX], size_t *count)
{
    char *list = strdup(settings->listen_addr != NULL ? settings->listen_addr : "");
    char *position = NULL;
    size_t asked = 0, bound = 0;
    char port[8];

    if (list == NULL)
        return false;
    snprintf(port, sizeof(port), "%d", settings->listen_port);
    for (char *name = strtok_r(list, ", \t", &position); name != NULL;
         name = strtok_r(NULL, ", \t", &position)) {
        struct addrinfo hints = {
            .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
        struct addrinfo *addresses = NULL;
        int result = getaddrinfo(strcmp(name, "*") == 0 ? NULL : name, port, &hints, &addresses);

        asked++;
        if (result != 0) {
            log_write(LEVEL_WARNING, "cannot listen on %s: %s", name, gai_strerror(result));
            continue;
        }
        for (struct addrinfo *item = addresses; item != NULL; item = item->ai_next)
            if (*count < WORKER_LISTENERS_MAX - 1 &&
                listen_address(settings, item, worker_count, listeners, *count)) {
                (*count)++;
                bound++;
            }
        freeaddrinfo(addresses);
    }
    free(list);
    if (asked > 0 && bound == 0) {
        log_write(LEVEL_FATAL, "cannot listen on any address of listen_addr (port %s)", port);
        return false;
    }
    return true;
}

static bool unix_path(const struct settings *settings, struct sockaddr_un *address,
                      socklen_t *bytes)
{
    int length;

    if (settings->unix_socket_dir == NULL || settings->unix_socket_dir[0] == '\0')
        return false;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    length = snprintf(address->sun_path, sizeof(address->sun_path), "%s/.s.PGSQL.%d",
                      settings->unix_socket_dir, settings->listen_port);
    if (length < 0 || (size_t)length >= sizeof(address->sun_path))
        return false;
    *bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length + 1);
    if (address->sun_path[0] == '@') {
        address->sun_path[0] = '\0';
        (*bytes)--;
    }
    return true;
}

static bool unix_is_in_use(const struct sockaddr_un *address, socklen_t bytes)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool in_use = connect(fd, (const struct sockaddr *)address, bytes) == 0;

    close(fd);
    return in_use;
}

static bool set_unix_rights(const struct settings *settings, const char *path)
{
    const char *group = settings->unix_socket_group;

    if (chmod(path, (mode_t)settings->unix_socket_mode & 07777) < 0) {
        log_write(LEVEL_FATAL, "cannot set the mode of %s: %s", path, strerror(errno));
        return false;
    }
    if (group != NULL && group[0] != '\0') {
        struct group *entry = getgrnam(group);
        char *end;
        gid_t gid = entry != NULL ? entry->gr_gid : (gid_t)strtoul(group, &end, 10);

        if ((entry == NULL && *end != '\0') || chown(path, (uid_t)-1, gid) < 0) {
            log_write(LEVEL_FATAL, "cannot give %s to the group %s", path, group);
            return false;
        }
    }
    return true;
}

static bool listen_unix(const struct settings *settings, unsigned worker_count,
                        struct worker_listener (*listeners)[WORKER_LISTENERS_MAX], size_t *count)
{
    struct sockaddr_un address;
    socklen_t bytes;
    int fd;

    if (settings->unix_socket_dir == NULL || settings->unix_socket_dir[0] == '\0')
        return true;
    if (!unix_path(settings, &address, &bytes)) {
        log_write(LEVEL_FATAL, "unix_socket_dir is too long: %s", settings->unix_socket_dir);
        return false;
    }
    for (int waited_ms = 0; unix_is_in_use(&address, bytes) && waited_ms < 500; waited_ms += 20)
        usleep(20 * 1000);
    if (unix_is_in_use(&address, bytes)) {
        log_write(LEVEL_FATAL, "unix socket is in use, cannot continue");
        return false;
    }
    if (address.sun_path[0] != '\0') {
        char lock[sizeof(address.sun_path) + 8];

        snprintf(lock, sizeof(lock), "%s.lock", address.sun_path);
        if (access(lock, F_OK) == 0) {
            log_write(LEVEL_FATAL, "unix port %d is in use by a PostgreSQL server (%s)",
                      settings->listen_port, lock);
            return false;
        }
        (void)unlink(address.sun_path);
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Listening at once: who waits for the file to appear may connect, and is served when all is
     * ready. */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, bytes) < 0 ||
        listen(fd, settings->listen_backlog) < 0) {
        log_write(LEVEL_FATAL, "cannot listen on unix:%s/.s.PGSQL.%d: %s",
                  settings->unix_socket_dir, settings->listen_port, strerror(errno));
        if (fd >= 0)
            close(fd);
        return false;
    }
    if (address.sun_path[0] != '\0' && !set_unix_rights(settings, address.sun_path))
        return false;
    log_write(LEVEL_LOG, "listening on unix:%s/.s.PGSQL.%d", settings->unix_socket_dir,
              settings->listen_port);
    /* The same socket for all; each worker closes its own descriptor. */
    for (unsigned worker = 0; worker < worker_count; worker++)
        listeners[worker][*count] = (struct worker_listener){
            .fd = worker == 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 0), .is_unix = true};
    (*count)++;
    return true;
}

bool process_listen_begin(const struct settings *settings, unsigned worker_count,
                          struct worker_listener (*listeners)[WORKER_LISTENERS_MAX],
                          size_t listener_count)
{
    for (unsigned worker = 0; worker < worker_count; worker++)
        for (size_t i = 0; i < listener_count; i++)
            if (listen(listeners[worker][i].fd, settings->listen_backlog) < 0) {
                log_write(LEVEL_FATAL, "listen() failed: %s", strerror(errno));
                return false;
            }
    return true;
}

bool process_bind(const struct settings *settings, unsigned worker_count,
                  struct worker_listener (*listeners)[WORKER_LISTENERS_MAX], size_t *listener_count)
{
    *listener_count = 0;
    if (!listen_tcp(settings, worker_count, listeners, listener_count) ||
        !listen_unix(settings, worker_count, listeners, listener_count))
        return false;
    if (*listener_count == 0) {
        log_write(LEVEL_FATAL,
                  "nowhere to listen on: listen_addr and unix_socket_dir are both empty");
        return false;
    }
    return true;
}

void process_remove_unix_socket(const struct settings *settings)
{
    struct sockaddr_un address;
    socklen_t bytes;

    if (unix_path(settings, &address, &bytes) && address.sun_path[0] != '\0')
        (void)unlink(address.sun_path);
}

/* ---- pidfile ---- */

bool process_check_pidfile(const char *path)
{
    FILE *file;
    long pid = 0;

    if (path == NULL || path[0] == '\0')
        return true;
    file = fopen(path, "re");
    if (file == NULL)
        return true;
    if (fscanf(file, "%ld", &pid) != 1)
        pid = 0;
    fclose(file);
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
    if (file == NULL || fprintf(file, "%d\n", (int)getpid()) < 0 || fclose(file) != 0) {
        log_write(LEVEL_FATAL, "could not write pidfile '%s': %s", path, strerror(errno));
        return false;
    }
    return true;
}

void process_remove_pidfile(const char *path)
{
    if (path != NULL && path[0] != '\0')
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

unsigned process_raise_limits(const struct settings *settings, unsigned worker_count)
{
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
              "fd use: %d",
              (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_max,
              settings->max_client_conn,
              settings->max_client_conn + settings->default_pool_size + 10 + (int)worker_count * 4);
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
