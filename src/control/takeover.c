#include "control/takeover.h"

#include "base/bytes.h"
#include "base/log.h"
#include "control/listen.h"
#include "control/process.h"
#include "crypto/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { ANSWER_SECONDS = 5, DYING_MS = 500, INPUT_BYTES = 16384, ATTACHED_MAX = 64 };

static struct {
    int fd; /* -1: none */
    bool is_pending;
    bool is_pgbouncer;
    pid_t pid;        /* of the process before us */
    size_t row_count; /* of SHOW FDS */
    int *sockets;
    size_t socket_count;
    uint8_t input[INPUT_BYTES];
    size_t input_bytes;
    char version[64]; /* its server_version */
    char error[256];  /* of its last ErrorResponse */
    bool has_spoken, has_said_no, has_hung_up;
} takeover = {.fd = -1};

/* ---- speaking to its console ---- */

static void hang_up(void)
{
    if (takeover.fd >= 0)
        close(takeover.fd);
    takeover.fd = -1;
}

static bool say(const void *data, size_t bytes)
{
    return send(takeover.fd, data, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

static bool ask(const char *command)
{
    uint8_t packet[128];
    size_t bytes = strlen(command) + 1;

    assert(bytes + 5 <= sizeof(packet));
    packet[0] = 'Q';
    bytes_put_u32(packet + 1, (uint32_t)bytes + 4);
    memcpy(packet + 5, command, bytes);
    return say(packet, bytes + 5);
}

static void keep_descriptors(struct msghdr *header)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part != NULL;
         part = CMSG_NXTHDR(header, part)) {
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        int *more;

        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        more = realloc(takeover.sockets, (takeover.socket_count + count) * sizeof(int));
        assert(more != NULL);
        takeover.sockets = more;
        memcpy(more + takeover.socket_count, CMSG_DATA(part), count * sizeof(int));
        takeover.socket_count += count;
    }
}

/* Waits for more bytes, which may bring descriptors along. 0: the end; negative: errno. */
static ssize_t receive(int flags)
{
    char room[CMSG_SPACE(ATTACHED_MAX * sizeof(int))] __attribute__((aligned(8)));
    struct iovec part = {takeover.input + takeover.input_bytes,
                         sizeof(takeover.input) - takeover.input_bytes};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
    ssize_t bytes = recvmsg(takeover.fd, &header, MSG_CMSG_CLOEXEC | flags);

    if (bytes < 0)
        return -errno;
    keep_descriptors(&header);
    takeover.input_bytes += (size_t)bytes;
    takeover.has_spoken = takeover.has_spoken || bytes > 0;
    return bytes;
}

/* The fields of an ErrorResponse: a letter and a text each. */
static void keep_error(const uint8_t *body, size_t bytes)
{
    strcpy(takeover.error, "it says no");
    takeover.has_said_no = true;
    for (size_t i = 0; i < bytes && body[i] != 0; i++) {
        size_t text = i + 1;

        while (i < bytes && body[i] != 0)
            i++;
        if (i < bytes && body[text - 1] == 'M')
            snprintf(takeover.error, sizeof(takeover.error), "%.*s",
                     (int)(sizeof(takeover.error) - 1), (const char *)body + text);
    }
}

/* server_version is "0.1.0/pgsplice". */
static void keep_parameter(const uint8_t *body, size_t bytes)
{
    static const char name[] = "server_version";

    if (bytes > sizeof(name) && memcmp(body, name, sizeof(name)) == 0 && body[bytes - 1] == 0)
        snprintf(takeover.version, sizeof(takeover.version), "%.*s",
                 (int)(sizeof(takeover.version) - 1), (const char *)body + sizeof(name));
}

/* A row of SHOW FDS: its second column says what its descriptor is. PgBouncer gives those of clients
 * and servers, too: they are not for us. */
static void keep_row(const uint8_t *body, size_t bytes)
{
    static const char listener[] = "pooler";
    struct reader reader;
    size_t row = takeover.row_count++;
    const uint8_t *text = NULL;
    uint32_t text_bytes = 0;

    reader_init(&reader, body, bytes);
    (void)reader_get_u16(&reader);
    for (int column = 0; column < 2; column++) {
        text_bytes = reader_get_u32(&reader);
        text = text_bytes == UINT32_MAX ? NULL : reader_get(&reader, text_bytes);
    }
    if (row >= takeover.socket_count ||
        (text != NULL && text_bytes == strlen(listener) && memcmp(text, listener, text_bytes) == 0))
        return;
    close(takeover.sockets[row]);
    takeover.sockets[row] = -1;
}

/* Takes one whole message out of the input; its type, 0: not there yet, -1: nonsense. */
static int take_message(void)
{
    uint8_t *data = takeover.input;
    size_t bytes;
    int type;

    if (takeover.input_bytes < 5)
        return 0;
    bytes = (size_t)bytes_get_u32(data + 1) + 1;
    if (bytes < 5 || bytes > sizeof(takeover.input))
        return -1;
    if (takeover.input_bytes < bytes)
        return 0;
    type = data[0];
    if (type == 'E')
        keep_error(data + 5, bytes - 5);
    else if (type == 'S')
        keep_parameter(data + 5, bytes - 5);
    else if (type == 'D')
        keep_row(data + 5, bytes - 5);
    else if (type == 'R' && (bytes < 9 || bytes_get_u32(data + 5) != 0))
        snprintf(takeover.error, sizeof(takeover.error), "it asks for a password");
    takeover.input_bytes -= bytes;
    memmove(data, data + bytes, takeover.input_bytes);
    return type;
}

/* Reads up to ReadyForQuery. False: takeover.error says why. */
static bool read_answer(void)
{
    takeover.error[0] = '\0';
    takeover.has_said_no = false;
    for (;;) {
        int type = take_message();
        ssize_t bytes;

        if (type == 'Z')
            return takeover.error[0] == '\0';
        if (type < 0)
            snprintf(takeover.error, sizeof(takeover.error), "it does not speak the protocol");
        if (type < 0 || (type == 'R' && takeover.error[0] != '\0'))
            return false;
        if (type != 0)
            continue;
        bytes = receive(0);
        if (bytes > 0 || bytes == -EINTR)
            continue;
        takeover.has_hung_up = bytes != -EAGAIN;
        if (takeover.error[0] == '\0')
            snprintf(takeover.error, sizeof(takeover.error), "%s",
                     bytes == 0         ? "it hung up"
                     : bytes == -EAGAIN ? "it does not answer"
                                        : strerror((int)-bytes));
        return false;
    }
}

static bool log_in(void)
{
    static const char words[] = "user\0pgbouncer\0database\0pgbouncer\0";
    uint8_t packet[8 + sizeof(words)];

    bytes_put_u32(packet, sizeof(packet));
    bytes_put_u32(packet + 4, 3 << 16);
    memcpy(packet + 8, words, sizeof(words));
    takeover.has_spoken = takeover.has_hung_up = false;
    (void)say(packet, sizeof(packet)); /* what is wrong is seen when reading */
    return read_answer();
}

/* ---- beginning ---- */

/* Its console lets in who has its own user id (the effective one, when connecting), and we take sockets
 * from nobody else: anybody may listen in /tmp. Negative: errno. */
static int connect_as(const struct sockaddr_un *address, unsigned bytes, const char *user)
{
    const struct passwd *entry = user != NULL && geteuid() == 0 ? getpwnam(user) : NULL;
    uid_t who = entry != NULL ? entry->pw_uid : geteuid();
    struct ucred credentials;
    socklen_t credentials_bytes = sizeof(credentials);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int result;

    if (fd < 0)
        return -errno;
    if (seteuid(who) < 0) {
        close(fd);
        return -EPERM;
    }
    result = connect(fd, (const struct sockaddr *)address, bytes) < 0 ? -errno : 0;
    if (entry != NULL && seteuid(0) < 0)
        result = -EPERM;
    if (result == 0 &&
        (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &credentials_bytes) < 0 ||
         credentials.uid != who))
        result = -EPERM;
    if (result < 0) {
        close(fd);
        return result;
    }
    takeover.pid = credentials.pid;
    return fd;
}

/* The sockets of a process that was killed live on for a moment, since its rings are taken down in the
 * background: whoever connects is dropped. Negative: errno. */
static int reach(const struct sockaddr_un *address, unsigned bytes, const char *user,
                 bool *is_logged_in)
{
    struct timeval patience = {.tv_sec = ANSWER_SECONDS};

    *is_logged_in = false;
    for (int waited_ms = 0;; waited_ms += 20) {
        takeover.fd = connect_as(address, bytes, user);
        if (takeover.fd < 0)
            return takeover.fd;
        (void)setsockopt(takeover.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        (void)setsockopt(takeover.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
        *is_logged_in = log_in();
        if (*is_logged_in || takeover.has_spoken || !takeover.has_hung_up || waited_ms >= DYING_MS)
            return 0;
        hang_up();
        usleep(20 * 1000);
    }
}

static void drop_closed_sockets(void)
{
    size_t kept = 0;

    for (size_t i = 0; i < takeover.socket_count; i++)
        if (takeover.sockets[i] >= 0)
            takeover.sockets[kept++] = takeover.sockets[i];
    takeover.socket_count = kept;
}

enum takeover_result takeover_begin(const struct settings *settings, const char *user)
{
    struct sockaddr_un address;
    const char *suffix;
    bool is_logged_in;
    unsigned bytes;
    int result;

    if (!listen_unix_address(settings, &address, &bytes) || address.sun_path[0] == '\0') {
        log_write(LEVEL_FATAL, "-R needs a unix socket in a directory (unix_socket_dir)");
        return TAKEOVER_FAILED;
    }
    result = reach(&address, bytes, user, &is_logged_in);
    if (result == -ENOENT || result == -ECONNREFUSED) {
        takeover.fd = -1;
        return TAKEOVER_NOBODY;
    }
    if (result == -EPERM) {
        log_write(LEVEL_FATAL,
                  "the process on unix:%s is another user's: both must run as the same one",
                  address.sun_path);
        takeover.fd = -1;
        return TAKEOVER_FAILED;
    }
    if (result < 0) {
        log_write(LEVEL_FATAL, "cannot connect to unix:%s to take over: %s", address.sun_path,
                  strerror(-result));
        takeover.fd = -1;
        return TAKEOVER_FAILED;
    }
    if (!is_logged_in) {
        log_write(LEVEL_FATAL, "the process on unix:%s does not let us take over: %s",
                  address.sun_path, takeover.error);
        goto fail;
    }
    suffix = strchr(takeover.version, '/');
    takeover.is_pgbouncer = suffix != NULL && strcmp(suffix, "/bouncer") == 0;
    if (!takeover.is_pgbouncer && (suffix == NULL || strcmp(suffix, "/pgsplice") != 0)) {
        log_write(LEVEL_FATAL,
                  "the process on unix:%s is neither pgsplice nor PgBouncer (%s): stop it first",
                  address.sun_path, takeover.version);
        goto fail;
    }
    if (!ask("SHOW FDS") || !read_answer()) {
        log_write(LEVEL_FATAL, "the process on unix:%s does not give its sockets: %s",
                  address.sun_path, takeover.error);
        goto fail;
    }
    /* PgBouncer's rows hold the passwords of its clients. */
    secret_wipe(takeover.input + takeover.input_bytes,
                sizeof(takeover.input) - takeover.input_bytes);
    drop_closed_sockets();
    if (takeover.socket_count == 0) {
        log_write(LEVEL_FATAL,
                  "the process on unix:%s gives no sockets: it is paused, suspended or shutting "
                  "down",
                  address.sun_path);
        goto fail;
    }
    takeover.is_pending = true;
    return TAKEOVER_BEGUN;
fail:
    hang_up();
    return TAKEOVER_FAILED;
}

const int *takeover_sockets(size_t *count)
{
    *count = takeover.socket_count;
    return takeover.sockets;
}

bool takeover_is_pending(void)
{
    return takeover.is_pending;
}

/* Its console sessions count as clients: with ours it would never end. So its process is watched
 * instead, because it removes files that are ours by then. */
static void watch_process(void)
{
    hang_up();
    takeover.fd = (int)syscall(SYS_pidfd_open, takeover.pid, 0);
    if (takeover.fd < 0)
        log_write(LEVEL_WARNING,
                  "the process before us cannot be watched (%s): when it has ended, "
                  "its pidfile and unix socket are gone",
                  strerror(errno));
}

static bool end_of_pgbouncer(void)
{
    (void)ask("SHUTDOWN WAIT_FOR_CLIENTS");
    if (read_answer())
        log_write(LEVEL_LOG, "PgBouncer %s has stopped accepting, its clients stay with it",
                  takeover.version);
    else if (takeover.has_said_no) /* before 1.23 */
        log_write(LEVEL_WARNING,
                  "PgBouncer %s cannot wait for its clients: it goes on accepting beside us until "
                  "it is stopped (process %d; SIGINT lets its transactions end)",
                  takeover.version, (int)takeover.pid);
    else
        log_write(LEVEL_WARNING, "PgBouncer does not say that it makes room: %s", takeover.error);
    takeover.is_pending = false;
    listen_keep_unix();
    watch_process();
    return true;
}

bool takeover_end(void)
{
    if (takeover.is_pgbouncer)
        return end_of_pgbouncer();
    (void)ask("SHUTDOWN TAKEOVER"); /* what is wrong is seen when reading */
    if (read_answer()) {
        log_write(LEVEL_LOG,
                  "the process before us has stopped accepting, its clients stay with it");
    } else if (takeover.has_said_no) {
        log_write(LEVEL_FATAL, "the process before us does not make room: %s", takeover.error);
        hang_up();
        return false;
    } else {
        /* It may have died: then there is nobody but us. */
        log_write(LEVEL_WARNING, "the process before us does not say that it makes room: %s",
                  takeover.error);
    }
    takeover.is_pending = false;
    (void)fcntl(takeover.fd, F_SETFL, O_NONBLOCK);
    return true;
}

/* ---- afterwards ---- */

int takeover_fd(void)
{
    return takeover.fd;
}

void takeover_readable(const struct settings *settings)
{
    ssize_t bytes = 0;

    if (takeover
            .is_pgbouncer) { /* what we watch is the process: readable means that it has ended */
        listen_restore_unix();
        process_restore_pidfile(settings->pidfile);
    } else {
        bytes = receive(MSG_DONTWAIT);
    }
    if (bytes > 0)
        while (take_message() > 0)
            ;
    if (bytes > 0 || bytes == -EAGAIN || bytes == -EINTR)
        return;
    log_write(LEVEL_LOG, "the process before us has ended");
    hang_up();
}

void takeover_cancel(const uint8_t key[8])
{
    char command[32] = "CANCEL ";

    if (takeover.fd < 0 || takeover.is_pgbouncer)
        return;
    for (int i = 0; i < 8; i++)
        sprintf(command + strlen(command), "%02x", key[i]);
    /* A full socket: it has stopped reading, and so it would not cancel either. */
    (void)ask(command);
}
