/* console.h - sessions of the database "pgbouncer": simple and extended protocol, all commands.
 *
 * Control's thread. A session is busy while workers are asked; what it sends meanwhile waits. */
#ifndef CONTROL_CONSOLE_H
#define CONTROL_CONSOLE_H

#include "pool/handover.h"

#include <poll.h>

/* Takes the descriptor; the handover is given back by the caller. */
void console_start(const struct handover *handover);

enum { CONSOLE_SESSIONS_MAX = 256 };

/* Fills in what is to be polled; then tells what happened. */
size_t console_poll_fill(struct pollfd *fds, size_t count_max);
void console_poll_events(const struct pollfd *fds, size_t count);

/* True: the key is that of a console session. An administrator's ends PAUSE and SUSPEND. */
bool console_cancel(const uint8_t key[8]);
/* Everything is at rest, or RESUME came first: SUSPEND is answered. */
void console_suspended(void);

/* The process after us waits to be told that we accept nobody any more. */
bool console_owes_takeover(void);

/* By PAUSE db or KILL; by DISABLE db. */
bool console_is_paused(const char *database);
bool console_is_disabled(const char *database);

#endif
