/* helper.h - threads for what burns CPU (PBKDF2, TLS handshakes) or blocks (names of OS users, PAM, LDAP).
 *
 * They keep no state: a job goes in, a result goes back by letter to the core that asked. Hashing, TLS with
 * clients, TLS with servers, OS users, PAM and LDAP have a queue and threads each, so that none holds up
 * the others. A job whose
 * asker has gone (job_set_cancelled) comes back without having run. Posting takes no lock.
 *
 * A worker is pinned to each core, and a PBKDF2 of 2 ms between two of its turns would be seen by
 * all of its clients. So the threads that hash are SCHED_IDLE, which a worker that wakes up
 * preempts soonest. Where nothing but full cores is left for them they would starve, and logins
 * time out; what has waited too long is taken by another thread, of low but ordinary priority. See
 * src/README.md for the measurements. Handshakes are shorter and come in storms (all clients of a host
 * come back): theirs are of that low priority from the beginning. */
#ifndef CONTROL_HELPER_H
#define CONTROL_HELPER_H

#include "control/job_queue.h"

enum {
    HELPER_HASH_THREADS = 2,
    HELPER_LATE_THREADS = 1,
    HELPER_PATIENCE_US = 200 * 1000, /* a hundred hashes on a free core */
    HELPER_TLS_THREADS_MIN = 2,      /* one for two CPUs, within these bounds */
    HELPER_TLS_THREADS_MAX = 8,
    /* Towards servers: behind a storm of clients no server could be opened, and no query cancelled. */
    HELPER_TLS_CONNECT_THREADS = 1,
    HELPER_USER_THREADS = 2,
    HELPER_PAM_THREADS = 1, /* see pam_check.h */
    /* A server that is silent costs PASSWORD_CHECK_TIMEOUT_MAX_S for each login. */
    HELPER_LDAP_THREADS = 8,

    /* Jobs of 2 ms (4,096 rounds): 8 s of one core, 4 s of two. That is well within
     * client_login_timeout, so that thousands of users who come back at the same moment are all
     * served; whoever comes to a queue that is longer would most likely wait in vain, and hold up
     * the logins at servers meanwhile. */
    HELPER_HASH_WAITING_MAX = 4096,
    /* Steps of handshakes, of 0.1 to 1 ms each. */
    HELPER_TLS_WAITING_MAX = 16384,
    /* Logins by peer: so many mean that NSS does not answer. */
    HELPER_USER_WAITING_MAX = 4096,
    /* Logins. Where they wait too long client_login_timeout takes them out. */
    HELPER_PAM_WAITING_MAX = 4096,
    HELPER_LDAP_WAITING_MAX = 4096,
};

must_check bool helper_start(void);
/* Any thread: the job in a helper of its kind, then the letter to core `job->core_index`. False:
 * too many wait; the job is the caller's still, and no letter will come. Said in the log, at most
 * once a second. */
must_check bool helper_post(struct job *job);
/* What the helpers did since the start. Any thread. */
struct helper_counts {
    struct job_counts hashes, tls_clients, tls_servers, users, pam, ldap;
};
struct helper_counts helper_counts(void);

#endif
