/* systemd.h - what we and systemd tell each other (libsystemd, named here only): how we are, sockets
 * that it passes, the watchdog, the journal. Without systemd all of it does nothing.
 *
 * Control's thread, but for systemd_journal. */
#ifndef CONTROL_SYSTEMD_H
#define CONTROL_SYSTEMD_H

#include "base/base.h"

/* READY=1 at start and when a RELOAD is over, with our process id: in the background, or after a
 * takeover, it is another one than systemd started. */
void systemd_ready(void);
void systemd_reloading(void);
void systemd_stopping(void);
void systemd_status(const char *text);

/* Sockets that were passed to this process ($LISTEN_FDS), once; 0: none. They are `*first`,
 * `*first` + 1 and so on. Before the process forks. */
unsigned systemd_sockets(int *first);

/* How often systemd wants to hear from us ($WATCHDOG_USEC); 0: it does not. */
uint64_t systemd_watchdog_us(void);
void systemd_alive(void);

/* stderr is the journal ($JOURNAL_STREAM): lines go there by systemd_journal, with a priority of
 * syslog and without a prefix. */
bool systemd_stderr_is_journal(void);
void systemd_journal(int priority, const char *text, size_t bytes); /* the log writer's thread */

#endif
