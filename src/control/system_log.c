#include "control/system_log.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

static struct {
    int fd; /* -1: not connected */
    int facility;
    char ident[64];
} target = {.fd = -1};

/* The daemon may have been restarted since, or not run yet. */
static bool is_connected(void)
{
    static const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = _PATH_LOG};

    if (target.fd >= 0)
        return true;
    target.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (target.fd >= 0 &&
        connect(target.fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return true;
    system_log_close();
    return false;
}

void system_log_open(const char *ident, int facility)
{
    system_log_close();
    target.facility = facility;
    snprintf(target.ident, sizeof(target.ident), "%s", ident);
}

void system_log_close(void)
{
    if (target.fd >= 0)
        close(target.fd);
    target.fd = -1;
}

bool system_log_write(uint64_t wall_us, int priority, const char *text, size_t bytes)
{
    char line[LOG_TEXT_BYTES_MAX + 128];
    time_t seconds = (time_t)(wall_us / US_PER_S);
    struct tm local;
    char when[32];
    int length;

    localtime_r(&seconds, &local);
    strftime(when, sizeof(when), "%b %e %H:%M:%S", &local);
    length = snprintf(line, sizeof(line), "<%d>%s %s[%d]: %.*s", target.facility | priority, when,
                      target.ident, (int)getpid(), (int)bytes, text);
    length = MIN(length, (int)sizeof(line) - 1);
    for (int attempt = 0; attempt < 2 && is_connected(); attempt++) {
        if (send(target.fd, line, (size_t)length, MSG_NOSIGNAL) >= 0)
            return true;
        if (errno == EAGAIN || errno == ENOBUFS)
            return false;
        system_log_close();
    }
    return false;
}
