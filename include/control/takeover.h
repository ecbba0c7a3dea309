/* takeover.h - online restart (-R), from the side of the new process: the listening sockets come from
 * the process that serves now, which then serves the clients that it has until they leave.
 *
 * We are a client of its console, over its unix socket, as the same user. SHOW FDS gives the sockets,
 * each attached to its row (SCM_RIGHTS). When all workers accept from them, SHUTDOWN TAKEOVER tells the
 * old process to stop: no moment is without somebody who accepts, and what waits in a socket's queue
 * stays there. A connection that the old process has accepted may log in and stay.
 *
 * The session with it stays open until it ends: cancel requests for its clients come to us now and are
 * told to it (CANCEL key). Its clients are its own: neither they nor servers are handed over.
 *
 * PgBouncer gives its sockets in the same way. From 1.23 on it can be told to stop accepting and to end
 * with its last client (SHUTDOWN WAIT_FOR_CLIENTS); older ones go on accepting beside us until they are
 * stopped. Cancel requests for its clients are lost when they come to us. At its end it removes the
 * unix socket's file and the pidfile, which are ours by then: we watch its process and put them back.
 *
 * Main thread; blocks for at most some seconds while starting, never later. */
#ifndef CONTROL_TAKEOVER_H
#define CONTROL_TAKEOVER_H

#include "config/settings.h"

enum takeover_result {
    TAKEOVER_NOBODY, /* no process serves on that unix socket: an ordinary start */
    TAKEOVER_BEGUN,
    TAKEOVER_FAILED, /* said */
};

/* `user`: who we shall be, when we are root still (NULL: who we are). */
enum takeover_result takeover_begin(const struct settings *settings, const char *user);

/* The sockets that it gave; theirs who asks. */
const int *takeover_sockets(size_t *count);

/* Between begin and end both processes live from the same sockets, and files are the old one's. */
bool takeover_is_pending(void);

/* We serve: the old process stops accepting, if it is still there. False: it does not agree (said),
 * because another one has come first. */
must_check bool takeover_end(void);

/* The session with the process before us; -1: there is none (any more). */
int takeover_fd(void);
/* It has said something, or ended. */
void takeover_readable(const struct settings *settings);
/* Somebody's cancel request that nobody here knows. */
void takeover_cancel(const uint8_t key[8]);

#endif
