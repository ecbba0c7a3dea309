/* process.h - what the process is to the machine: listeners, pidfile, user, limits, background.
 *
 * Main thread, before and after the workers; errors are said in words in the log (or on stderr
 * before it). */
#ifndef CONTROL_PROCESS_H
#define CONTROL_PROCESS_H

#include "config/settings.h"
#include "worker/worker.h"

/* Binds the unix socket and, for each worker, its TCP sockets (SO_REUSEPORT): listeners[worker][i].
 * Two processes on one port are told apart although every worker has a listener of its own: without
 * so_reuseport a first socket is bound without SO_REUSEPORT, which fails when anybody has the port,
 * and only then gets the option that lets its siblings in. False: said. */
must_check bool process_bind(const struct settings *settings, unsigned worker_count,
                             struct worker_listener (*listeners)[WORKER_LISTENERS_MAX],
                             size_t *listener_count);
/* From now on clients can connect; after root was dropped. */
must_check bool process_listen_begin(const struct settings *settings, unsigned worker_count,
                                     struct worker_listener (*listeners)[WORKER_LISTENERS_MAX],
                                     size_t listener_count);
void process_remove_unix_socket(const struct settings *settings);

/* False: another live process has it (said). A stale one is removed. */
must_check bool process_check_pidfile(const char *path);
must_check bool process_write_pidfile(const char *path);
void process_remove_pidfile(const char *path);

/* setuid, setgid, initgroups. False: said. */
must_check bool process_become_user(const char *name);

/* A file that we made as root, for the user that will have to open it again. Not an error when it
 * fails. */
void process_give_file(const char *path, const char *user);

/* RLIMIT_NOFILE to its hard limit, RLIMIT_MEMLOCK as far as allowed. Returns the descriptor limit.
 */
unsigned process_raise_limits(const struct settings *settings, unsigned worker_count);

/* Into the background; the parent waits for process_daemon_ready, or the child's end, and exits. */
must_check bool process_daemon_begin(void);
void process_daemon_ready(void);

/* The cores this process may run on; returns their number. */
unsigned process_cpus(int cpus[WORKERS_MAX]);
/* The same, or those of cpu_affinity, of which each must be among them. 0: `error` says what is wrong. */
unsigned process_worker_cpus(const struct settings *settings, int cpus[WORKERS_MAX], char *error,
                             size_t error_bytes);

#endif
