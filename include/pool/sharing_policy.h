/* sharing_policy.h - how many servers a shard of a pool keeps busy with exchanges that share, and how many of
 * them may queue on one: found by measurement.
 *
 * Too many busy backends on few cores cost more than they give (switches, caches), too few leave cores
 * idle. The policy sees each answer - how long it took on its server, and how long its class takes
 * undisturbed - and moves a limit.
 *
 * Pure: time is an argument, no I/O, no randomness. One thread: the core's. */
#ifndef POOL_SHARING_POLICY_H
#define POOL_SHARING_POLICY_H

#include "config/settings.h"

struct sharing_policy {
    int setting;      /* server_sharing: SHARING_OFF, SHARING_AUTO, or a number of servers */
    unsigned ceiling; /* pool_size, or what this shard may have of it; at least 1 */
    unsigned limit;   /* the result: servers to keep busy before sharing, 1 to ceiling */
};

/* Also when the setting or the ceiling has changed: what was learned is kept where it fits. */
void sharing_policy_set(struct sharing_policy *policy, int setting, unsigned ceiling);
/* An exchange was answered. `took_us`: since it was the oldest on its server; `floor_us`: what its class takes
 * undisturbed, 0: not known. `busy`: servers that were busy with sharing exchanges then; `queued`:
 * exchanges on them, those that run included. */
void sharing_policy_answered(struct sharing_policy *policy, uint64_t now_us, uint64_t took_us,
                             float floor_us, unsigned busy, unsigned queued);

#endif
