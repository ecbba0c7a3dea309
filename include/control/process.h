/* process.h - what the process is to the machine: pidfile, user, limits, background.
 *
 * Main thread, before and after the workers; errors are said in words in the log (or on stderr
 * before it). */
#ifndef CONTROL_PROCESS_H
#define CONTROL_PROCESS_H

#include "config/snapshot.h"
#include "worker/worker.h"

/* False: another live process has it (said). A stale one is removed. */
must_check bool process_check_pidfile(const char *path);
must_check bool process_write_pidfile(const char *path);
/* Writes it again, should somebody have removed it. */
void process_restore_pidfile(const char *path);
/* Unless another process has written it since. */
void process_remove_pidfile(const char *path);

/* setuid, setgid, initgroups; core dumps stay possible. False: said. */
must_check bool process_become_user(const char *name);

/* A file that we made as root, for the user that will have to open it again. Not an error when it
 * fails. */
void process_give_file(const char *path, const char *user);

/* RLIMIT_NOFILE to its hard limit (a warning when the configuration needs more), RLIMIT_MEMLOCK as far
 * as allowed. Returns the descriptor limit. */
unsigned process_raise_limits(const struct snapshot *snapshot, unsigned worker_count);

/* Into the background; the parent waits for process_daemon_ready, or the child's end, and exits. */
must_check bool process_daemon_begin(void);
void process_daemon_ready(void);

/* The cores this process may run on; returns their number. */
unsigned process_cpus(int cpus[WORKERS_MAX]);
/* The same, or those of cpu_affinity, of which each must be among them. 0: `error` says what is wrong. */
unsigned process_worker_cpus(const struct settings *settings, int cpus[WORKERS_MAX], char *error,
                             size_t error_bytes);

#endif
