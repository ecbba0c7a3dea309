/* system_log.h - lines to syslog that never wait for it: syslog(3) blocks while the daemon does not read,
 * and with it would block whoever waits for the log, at a RELOAD or at the end.
 *
 * One datagram to /dev/log for each line, `<PRIORITY>Jan 31 12:00:00 IDENT[PID]: TEXT`. Not before
 * system_log_open; one thread at a time. */
#ifndef CONTROL_SYSTEM_LOG_H
#define CONTROL_SYSTEM_LOG_H

#include "base/base.h"

/* Another name or facility may be given at any time. */
void system_log_open(const char *ident, int facility);
void system_log_close(void);

/* False: nobody takes it now, it is lost. `priority` is one of syslog's, without facility. */
must_check bool system_log_write(uint64_t wall_us, int priority, const char *text, size_t bytes);

#endif
