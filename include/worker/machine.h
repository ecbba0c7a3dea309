/* machine.h - what a worker's thread asks of the machine that it runs on: its CPU, memory of that CPU's
 * node, huge pages, connections whose packets arrive there.
 *
 * Called by the worker's own thread: machine_settle before anything of the worker is touched, so that
 * its memory comes from the right node; machine_take_incoming before the listeners accept. */
#ifndef WORKER_MACHINE_H
#define WORKER_MACHINE_H

#include "worker/worker.h"

/* Pins the thread to `cpu` (-1: not), and takes memory from the node on which it runs
 * (MPOL_LOCAL), whatever policy the process was started with. False: the CPU cannot be had. */
must_check bool machine_settle(int cpu);

/* Huge pages for receive buffers, as the setting huge_pages wants them; before the ring gets any.
 * False: they are a must and cannot be had; `error` says what to do. */
must_check bool machine_use_huge_pages(struct buffer_pool *buffers, enum huge_pages wanted,
                                       bool is_first, char error[RING_ERROR_BYTES]);

/* SO_INCOMING_CPU for the worker's TCP listeners: among the sockets of one port (SO_REUSEPORT) the
 * kernel prefers the one whose CPU handles the packet, from Linux 6.2 on. */
void machine_take_incoming(const struct worker_options *options, int cpu);

#endif
