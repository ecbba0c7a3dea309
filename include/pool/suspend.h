/* suspend.h - SUSPEND on one core: nothing is read any more, and nothing of what was read is left.
 *
 * Each connection is held (conn.h) as soon as it is between two messages; until then it is read on,
 * and what it sent is served: clients that wait for a server still get one. It has settled when
 * what is queued for it has gone out, too. New connections wait in the kernel. Servers at work are
 * held like all others: their answers wait in the kernel until RESUME.
 *
 * Whether a core has settled is asked by control (REPORT_UNSETTLED), again and again as for PAUSE.
 * Timeouts of clients and the pools' upkeep rest meanwhile, so that nothing begins by itself.
 *
 * Sessions and servers go from core to core until the last one has settled, in letters that no core
 * counts for a moment. So it is over when all cores say 0 twice: the second question reaches each
 * of them after whatever was on its way at the first. */
#ifndef POOL_SUSPEND_H
#define POOL_SUSPEND_H

#include "pool/core.h"

void suspend_begin(struct core *core);
/* Looks at all connections; how many keep the SUSPEND from being complete. */
must_check unsigned suspend_unsettled(struct core *core);
/* Closes those (suspend_timeout). */
void suspend_drop(struct core *core);
/* RESUME: what is wanted is read again. */
void suspend_end(struct core *core);

#endif
