#include "control/systemd.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-daemon.h>
#define SD_JOURNAL_SUPPRESS_LOCATION /* of the log writer, which says nothing */
#include <systemd/sd-journal.h>
#include <unistd.h>

/* Results are not looked at: whether systemd listens is its business. */

void systemd_ready(void)
{
    (void)sd_notifyf(0, "READY=1\nMAINPID=%ld", (long)getpid());
}

void systemd_reloading(void)
{
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_now_us());
}

void systemd_stopping(void)
{
    (void)sd_notify(0, "STOPPING=1");
}

void systemd_status(const char *text)
{
    (void)sd_notifyf(0, "STATUS=%s", text);
}

unsigned systemd_sockets(int *first)
{
    int count = sd_listen_fds(1); /* 1: the variables are for nobody after us */

    *first = SD_LISTEN_FDS_START;
    return count > 0 ? (unsigned)count : 0;
}

uint64_t systemd_watchdog_us(void)
{
    uint64_t period_us = 0;

    return sd_watchdog_enabled(0, &period_us) > 0 ? period_us : 0;
}

void systemd_alive(void)
{
    (void)sd_notify(0, "WATCHDOG=1");
}

bool systemd_stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat status;

    return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &status) == 0 && status.st_dev == device && status.st_ino == inode;
}

void systemd_journal(int priority, const char *text, size_t bytes)
{
    (void)sd_journal_send("PRIORITY=%i", priority, "MESSAGE=%.*s", (int)bytes, text, NULL);
}
