/* suspend.h - SUSPEND on one core: nothing is read any more, and nothing of what was read is left.
 *
 * Each connection is held (conn.h) as soon as it is between two messages; until then it is read on.
 * It has settled when what is queued for it has gone out, too. Clients that wait for a server are
 * served first: as long as there are any, servers at work are read on until they are free. (A
 * transaction that is open between two queries does not end: its client is not read.) Else servers
 * at work are held like all others, and their answers wait in the kernel until RESUME, as new
 * connections do.
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

/* Timeouts of clients are put off by so much at a time; after RESUME what has arrived meanwhile is
 * read before any of them counts again. */
enum { SUSPEND_GRACE_US = 333 * 1000 };

void suspend_begin(struct core *core);
/* Looks at all connections; how many keep the SUSPEND from being complete. */
must_check unsigned suspend_unsettled(struct core *core);
/* Closes those (suspend_timeout). */
void suspend_drop(struct core *core);
/* RESUME: what is wanted is read again. */
void suspend_end(struct core *core);

#endif
