/* listen.h - the sockets that clients connect to: bound by us, passed by systemd, or taken over from
 * the process that served before (takeover.h).
 *
 * Each address has one TCP socket for each worker (SO_REUSEPORT), or as many as there were when they
 * were passed or taken over; a worker may have several of them, and one may be shared by several
 * workers: every socket is accepted from by somebody, since the kernel keeps connections in a queue
 * of each. A unix socket is shared by all.
 *
 * The sockets here are control's own descriptors; workers get duplicates. So they can be handed on
 * and tuned while workers use them, and a socket is closed only when both have closed it. Main
 * thread; errors are said in the log. */
#ifndef CONTROL_LISTEN_H
#define CONTROL_LISTEN_H

#include "config/settings.h"
#include "worker/worker.h"

enum listen_source { LISTEN_BIND, LISTEN_PASSED, LISTEN_TAKEN };

struct listen_socket {
    int fd; /* -1: closed */
    bool is_unix;
    unsigned group;  /* sockets of one address have the same */
    char host[64];   /* "unix" */
    unsigned port;   /* of a unix socket the number in its name */
    char shown[160]; /* as in the log: "127.0.0.1:6432", "unix:/tmp/.s.PGSQL.6432" */
};

/* Makes what `settings` ask for. `fds` come from elsewhere and are ours from now on: those that systemd
 * passed (LISTEN_PASSED) stand for all of listen_addr and unix_socket_dir; those of the process before
 * us (LISTEN_TAKEN) for the addresses that the settings still name, and the others are closed. `owner`
 * gets the unix socket's file when we are root (NULL: nobody).
 *
 * Two processes on one port are told apart although every worker has a listener of its own: without
 * so_reuseport a first socket is bound without SO_REUSEPORT, which fails when anybody has the port, and
 * only then gets the option that lets its siblings in. False: said. */
must_check bool listen_open(const struct settings *settings, unsigned worker_count,
                            enum listen_source source, const int *fds, size_t fd_count,
                            const char *owner);

/* Duplicates for one worker; `*count` is at least 1. False: said. */
must_check bool listen_for_worker(unsigned worker, struct worker_listener *listeners,
                                  size_t *count);

/* From now on clients can connect; after root was dropped. */
must_check bool listen_begin(const struct settings *settings);

/* tcp_defer_accept, which a RELOAD may change. */
void listen_tune(const struct settings *settings);

/* Closes control's descriptors; workers close theirs (thread_stop_listening). */
void listen_close(bool unix_too);

/* Removes the file of the unix socket, unless it is somebody else's: systemd's, or the next
 * process's. */
void listen_remove_unix(void);
/* The process before us will remove the file when it ends: keep a second name, and put it back then. */
void listen_keep_unix(void);
void listen_restore_unix(void);
/* The sockets live on in another process. */
void listen_handed_over(void);

/* What there is, for SHOW FDS and whoever takes over. */
size_t listen_count(void);
const struct listen_socket *listen_at(size_t index);

/* The address of the unix socket that the settings name. False: there is none, or it is too long. */
struct sockaddr_un;
bool listen_unix_address(const struct settings *settings, struct sockaddr_un *address,
                         unsigned *bytes);

#endif
