#include "control/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct {
    struct listen_socket *sockets;
    size_t count;
    unsigned group_count;
    unsigned worker_count;
    enum listen_source source;
    char unix_path[sizeof(((struct sockaddr_un *)NULL)->sun_path)]; /* "": no file that is ours */
} listening;

enum { UNIX_PATH_ROOM = 128 };

/* ---- addresses ---- */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
    struct sockaddr_storage storage;
};

static void describe(struct listen_socket *entry, const union address *address, socklen_t bytes)
{
    const char *path = address->un.sun_path;
    size_t path_bytes = bytes - offsetof(struct sockaddr_un, sun_path);
    const char *dot;

    entry->is_unix = address->any.sa_family == AF_UNIX;
    switch (address->any.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &address->v4.sin_addr, entry->host, sizeof(entry->host));
        entry->port = ntohs(address->v4.sin_port);
        snprintf(entry->shown, sizeof(entry->shown), "%s:%u", entry->host, entry->port);
        break;
    case AF_INET6:
        inet_ntop(AF_INET6, &address->v6.sin6_addr, entry->host, sizeof(entry->host));
        entry->port = ntohs(address->v6.sin6_port);
        snprintf(entry->shown, sizeof(entry->shown), "[%s]:%u", entry->host, entry->port);
        break;
    default:
        strcpy(entry->host, "unix");
        if (path_bytes > 0 && path[0] == '\0')
            snprintf(entry->shown, sizeof(entry->shown), "unix:@%.*s", (int)path_bytes - 1,
                     path + 1);
        else
            snprintf(entry->shown, sizeof(entry->shown), "unix:%.*s", (int)path_bytes, path);
        dot = strrchr(entry->shown, '.');
        entry->port = dot != NULL ? (unsigned)strtoul(dot + 1, NULL, 10) : 0;
    }
}

static bool address_of(int fd, union address *address, socklen_t *bytes)
{
    *bytes = sizeof(*address);
    memset(address, 0, sizeof(*address));
    return getsockname(fd, &address->any, bytes) == 0;
}

static bool is_same_address(const union address *a, const union address *b)
{
    if (a->any.sa_family != b->any.sa_family)
        return false;
    if (a->any.sa_family == AF_INET)
        return a->v4.sin_port == b->v4.sin_port && a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    if (a->any.sa_family == AF_INET6)
        return a->v6.sin6_port == b->v6.sin6_port && a->v6.sin6_scope_id == b->v6.sin6_scope_id &&
               memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof(a->v6.sin6_addr)) == 0;
    return memcmp(a->un.sun_path, b->un.sun_path, sizeof(a->un.sun_path)) == 0;
}

static void add(int fd, unsigned group)
{
    struct listen_socket *more =
        realloc(listening.sockets, (listening.count + 1) * sizeof(*listening.sockets));
    union address address;
    socklen_t bytes;

    assert(more != NULL);
    listening.sockets = more;
    more[listening.count] = (struct listen_socket){.fd = fd, .group = group};
    if (address_of(fd, &address, &bytes))
        describe(&more[listening.count], &address, bytes);
    listening.count++;
}

/* ---- TCP ---- */

static void set_option(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

static void tune(int fd, const struct settings *settings)
{
    /* One second, whatever number it is, as PgBouncer. */
    set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, settings->tcp_defer_accept != 0);
}

static int open_tcp(const struct settings *settings, const struct sockaddr *address,
                    socklen_t bytes, bool share, bool has_siblings)
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
    if (!share && has_siblings)
        set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1); /* for the siblings to come */
    tune(fd, settings);
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
                              socklen_t bytes, bool share, bool has_siblings)
{
    for (int waited_ms = 0;; waited_ms += 20) {
        int fd = open_tcp(settings, address, bytes, share, has_siblings);

        if (fd >= 0 || errno != EADDRINUSE || waited_ms >= 500)
            return fd;
        usleep(20 * 1000);
    }
}

/* Takes the sockets of this address out of `fds`; returns how many. */
static unsigned take_inherited(const union address *wanted, int *fds, size_t fd_count)
{
    unsigned taken = 0;

    for (size_t i = 0; i < fd_count; i++) {
        union address address;
        socklen_t bytes;

        if (fds[i] < 0 || !address_of(fds[i], &address, &bytes) ||
            !is_same_address(&address, wanted))
            continue;
        add(fds[i], listening.group_count);
        fds[i] = -1;
        taken++;
    }
    return taken;
}

/* One address for all workers. False: it could not be bound (said). */
static bool open_address(const struct settings *settings, const struct addrinfo *item, int *fds,
                         size_t fd_count)
{
    union address wanted = {0};
    size_t begin = listening.count;
    unsigned have;

    memcpy(&wanted, item->ai_addr, MIN(sizeof(wanted), (size_t)item->ai_addrlen));
    have = take_inherited(&wanted, fds, fd_count);
    for (size_t i = begin; i < listening.count; i++) {
        tune(listening.sockets[i].fd, settings);
        set_option(listening.sockets[i].fd, SOL_SOCKET, SO_REUSEPORT, 1);
    }
    for (unsigned worker = have; worker < listening.worker_count; worker++) {
        int fd =
            open_tcp_patiently(settings, item->ai_addr, item->ai_addrlen,
                               worker > 0 || settings->so_reuseport, listening.worker_count > 1);

        /* Siblings of taken sockets need the same user; without them the taken ones are shared. */
        if (fd < 0 && have > 0)
            break;
        if (fd < 0) {
            struct listen_socket shown;

            describe(&shown, &wanted, item->ai_addrlen);
            log_write(LEVEL_WARNING, "cannot listen on %s: %s", shown.shown, strerror(errno));
            while (listening.count > begin)
                close(listening.sockets[--listening.count].fd);
            return false;
        }
        add(fd, listening.group_count);
    }
    log_write(LEVEL_LOG, "listening on %s", listening.sockets[begin].shown);
    listening.group_count++;
    return true;
}

static bool open_tcp_sockets(const struct settings *settings, int *fds, size_t fd_count)
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
            bound += open_address(settings, item, fds, fd_count);
        freeaddrinfo(addresses);
    }
    free(list);
    if (asked > 0 && bound == 0) {
        log_write(LEVEL_FATAL, "cannot listen on any address of listen_addr (port %s)", port);
        return false;
    }
    return true;
}

/* ---- unix ---- */

bool listen_unix_address(const struct settings *settings, struct sockaddr_un *address,
                         unsigned *bytes)
{
    int length;

    if (settings->unix_socket_dir == NULL || settings->unix_socket_dir[0] == '\0')
        return false;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    length = snprintf(address->sun_path, sizeof(address->sun_path), "%s/.s.PGSQL.%d",
                      settings->unix_socket_dir, settings->listen_port);
    if (length < 0 || (size_t)length >= sizeof(address->sun_path))
        return false;
    *bytes = (unsigned)(offsetof(struct sockaddr_un, sun_path) + (size_t)length + 1);
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

static bool set_unix_rights(const struct settings *settings, const char *path, const char *owner)
{
    const char *group = settings->unix_socket_group;
    const struct passwd *user = owner != NULL && geteuid() == 0 ? getpwnam(owner) : NULL;

    /* It has to be removed by who runs then, perhaps out of a directory like /tmp. */
    if (user != NULL)
        (void)!chown(path, user->pw_uid, user->pw_gid);
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

/* The descriptor, or -1: said. */
static int bind_unix(const struct settings *settings, const struct sockaddr_un *address,
                     socklen_t bytes)
{
    int fd;

    for (int waited_ms = 0; unix_is_in_use(address, bytes) && waited_ms < 500; waited_ms += 20)
        usleep(20 * 1000);
    if (unix_is_in_use(address, bytes)) {
        log_write(LEVEL_FATAL, "unix socket is in use, cannot continue");
        return -1;
    }
    if (address->sun_path[0] != '\0') {
        char lock[sizeof(address->sun_path) + 8];

        snprintf(lock, sizeof(lock), "%s.lock", address->sun_path);
        if (access(lock, F_OK) == 0) {
            log_write(LEVEL_FATAL, "unix port %d is in use by a PostgreSQL server (%s)",
                      settings->listen_port, lock);
            return -1;
        }
        (void)unlink(address->sun_path);
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Listening at once: who waits for the file to appear may connect, and is served when all is
     * ready. */
    if (fd < 0 || bind(fd, (const struct sockaddr *)address, bytes) < 0 ||
        listen(fd, settings->listen_backlog) < 0) {
        log_write(LEVEL_FATAL, "cannot listen on unix:%s/.s.PGSQL.%d: %s",
                  settings->unix_socket_dir, settings->listen_port, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

static bool open_unix_socket(const struct settings *settings, int *fds, size_t fd_count,
                             const char *owner)
{
    union address address = {0};
    unsigned bytes;

    if (settings->unix_socket_dir == NULL || settings->unix_socket_dir[0] == '\0')
        return true;
    if (!listen_unix_address(settings, &address.un, &bytes)) {
        log_write(LEVEL_FATAL, "unix_socket_dir is too long: %s", settings->unix_socket_dir);
        return false;
    }
    if (take_inherited(&address, fds, fd_count) == 0) {
        int fd = bind_unix(settings, &address.un, bytes);

        if (fd < 0)
            return false;
        add(fd, listening.group_count);
    }
    strcpy(listening.unix_path, address.un.sun_path); /* "": abstract */
    if (listening.unix_path[0] != '\0' && !set_unix_rights(settings, listening.unix_path, owner))
        return false;
    log_write(LEVEL_LOG, "listening on %s", listening.sockets[listening.count - 1].shown);
    listening.group_count++;
    return true;
}

/* ---- passed by systemd ---- */

static bool use_passed(const struct settings *settings, const int *fds, size_t fd_count)
{
    for (size_t i = 0; i < fd_count; i++) {
        int is_listening = 0, type = 0;
        socklen_t bytes = sizeof(int);
        const struct listen_socket *entry;

        if (getsockopt(fds[i], SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &bytes) < 0 ||
            getsockopt(fds[i], SOL_SOCKET, SO_TYPE, &type, &bytes) < 0 || !is_listening ||
            type != SOCK_STREAM) {
            log_write(LEVEL_FATAL,
                      "descriptor %d of socket activation is no listening stream socket", fds[i]);
            return false;
        }
        (void)fcntl(fds[i], F_SETFD, FD_CLOEXEC);
        add(fds[i], listening.group_count++);
        entry = &listening.sockets[listening.count - 1];
        if (!entry->is_unix)
            tune(fds[i], settings);
        log_write(LEVEL_LOG, "listening on %s (socket activation)", entry->shown);
    }
    return true;
}

/* ---- all of it ---- */

bool listen_open(const struct settings *settings, unsigned worker_count, enum listen_source source,
                 const int *fds, size_t fd_count, const char *owner)
{
    int *left = calloc(fd_count + 1, sizeof(*left));

    assert(left != NULL);
    if (fd_count > 0)
        memcpy(left, fds, fd_count * sizeof(*left));
    listening.worker_count = worker_count;
    listening.source = source;
    if (source == LISTEN_PASSED) {
        if (!use_passed(settings, left, fd_count))
            goto fail;
    } else if (!open_tcp_sockets(settings, left, fd_count) ||
               !open_unix_socket(settings, left, fd_count, owner)) {
        goto fail;
    } else {
        for (size_t i = 0; i < fd_count; i++)
            if (left[i] >= 0) {
                struct listen_socket entry = {0};
                union address address;
                socklen_t bytes;

                if (address_of(left[i], &address, &bytes))
                    describe(&entry, &address, bytes);
                log_write(LEVEL_WARNING,
                          "no longer listening on %s, which the configuration does not name",
                          entry.shown);
                close(left[i]);
            }
    }
    free(left);
    if (listening.count == 0) {
        log_write(LEVEL_FATAL,
                  "nowhere to listen on: listen_addr and unix_socket_dir are both empty");
        return false;
    }
    return true;
fail:
    free(left);
    return false;
}

bool listen_for_worker(unsigned worker, struct worker_listener *listeners, size_t *count)
{
    *count = 0;
    for (unsigned group = 0; group < listening.group_count; group++) {
        size_t begin = 0, size = 0;

        while (listening.sockets[begin].group != group)
            begin++;
        while (begin + size < listening.count && listening.sockets[begin + size].group == group)
            size++;
        assert(size > 0);
        /* Each socket to one worker at least, and each worker to one socket at least. */
        for (size_t k = worker; k < MAX(size, (size_t)listening.worker_count);
             k += listening.worker_count) {
            const struct listen_socket *entry = &listening.sockets[begin + k % size];
            int fd;

            if (*count == WORKER_LISTENERS_MAX) {
                log_write(LEVEL_FATAL, "too many listening sockets (%zu) for %u workers",
                          listening.count, listening.worker_count);
                return false;
            }
            fd = fcntl(entry->fd, F_DUPFD_CLOEXEC, 0);
            if (fd < 0) {
                log_write(LEVEL_FATAL, "cannot give a worker its listening socket: %s",
                          strerror(errno));
                return false;
            }
            listeners[(*count)++] = (struct worker_listener){
                .fd = fd,
                .is_unix = entry->is_unix,
                .is_shared = size < listening.worker_count,
            };
        }
    }
    return true;
}

bool listen_begin(const struct settings *settings)
{
    /* systemd's listen already, with a backlog of their own. */
    if (listening.source == LISTEN_PASSED)
        return true;
    for (size_t i = 0; i < listening.count; i++)
        if (listen(listening.sockets[i].fd, settings->listen_backlog) < 0) {
            log_write(LEVEL_FATAL, "cannot listen on %s: %s", listening.sockets[i].shown,
                      strerror(errno));
            return false;
        }
    return true;
}

void listen_tune(const struct settings *settings)
{
    for (size_t i = 0; i < listening.count; i++)
        if (listening.sockets[i].fd >= 0 && !listening.sockets[i].is_unix)
            tune(listening.sockets[i].fd, settings);
}

void listen_close(bool unix_too)
{
    for (size_t i = 0; i < listening.count; i++) {
        struct listen_socket *entry = &listening.sockets[i];

        if (entry->fd < 0 || (entry->is_unix && !unix_too))
            continue;
        close(entry->fd);
        entry->fd = -1;
    }
}

/* A second name of the same socket, for the time in which another process may remove the first. */
static bool kept_path(char path[UNIX_PATH_ROOM])
{
    return listening.unix_path[0] != '\0' &&
           snprintf(path, UNIX_PATH_ROOM, "%s.kept", listening.unix_path) < UNIX_PATH_ROOM;
}

void listen_keep_unix(void)
{
    char kept[UNIX_PATH_ROOM];

    if (!kept_path(kept))
        return;
    (void)unlink(kept);
    if (link(listening.unix_path, kept) < 0)
        log_write(LEVEL_WARNING, "the unix socket will be gone with the process before us: %s",
                  strerror(errno));
}

void listen_restore_unix(void)
{
    char kept[UNIX_PATH_ROOM];

    if (!kept_path(kept))
        return;
    if (access(listening.unix_path, F_OK) < 0 && rename(kept, listening.unix_path) == 0)
        log_write(LEVEL_LOG, "unix:%s is there again", listening.unix_path);
    (void)unlink(kept);
}

void listen_remove_unix(void)
{
    char kept[UNIX_PATH_ROOM];

    if (kept_path(kept))
        (void)unlink(kept);
    if (listening.unix_path[0] != '\0')
        (void)unlink(listening.unix_path);
}

void listen_handed_over(void)
{
    listening.unix_path[0] = '\0';
}

size_t listen_count(void)
{
    return listening.count;
}

const struct listen_socket *listen_at(size_t index)
{
    assert(index < listening.count);
    return &listening.sockets[index];
}
