/* helper.h - threads for what blocks or burns CPU: PBKDF2 (struct job), names (struct resolution).
 *
 * They keep no state: a job goes in, a result goes back by letter to the core that asked. Posting
 * takes no lock; each helper sleeps on a futex. */
#ifndef CONTROL_HELPER_H
#define CONTROL_HELPER_H

#include "pool/core.h"

enum { HELPER_THREADS = 2 };

must_check bool helper_start(void);
/* Any thread: `job->run` in a helper, then the letter to core `job->core_index`. */
void helper_post(struct job *job);
/* Opened by control: looks the host names of a struct resolution up in a helper and sends it back
 * with resolution_returned. */
void helper_resolver_open(struct letter *letter, void *context);

#endif
