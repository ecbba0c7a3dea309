#include "worker/machine.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

bool machine_settle(int cpu)
{
    if (cpu >= 0) {
        cpu_set_t cpus;

        CPU_ZERO(&cpus);
        CPU_SET((size_t)cpu, &cpus);
        if (pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus) != 0)
            return false;
    }
    /* Without NUMA in the kernel there is nothing to be chosen. */
    (void)syscall(SYS_set_mempolicy, MPOL_LOCAL, NULL, 0);
    return true;
}

bool machine_use_huge_pages(struct buffer_pool *buffers, enum huge_pages wanted, bool is_first,
                            char error[RING_ERROR_BYTES])
{
    if (wanted == HUGE_PAGES_OFF || buffer_pool_use_huge_pages(buffers))
        return true;
    if (wanted == HUGE_PAGES_ON) {
        snprintf(
            error, RING_ERROR_BYTES,
            "no huge pages for receive buffers (huge_pages = on): %s; each worker needs %zu kB: "
            "raise vm.nr_hugepages, or set huge_pages = try",
            strerror(errno), buffer_pool_receive_bytes(buffers) / 1024);
        return false;
    }
    if (is_first)
        log_write(LEVEL_LOG,
                  "no huge pages for receive buffers: %s; transparent ones are asked for",
                  strerror(errno));
    return true;
}

void machine_take_incoming(const struct worker_options *options, int cpu)
{
    if (cpu < 0)
        return;
    for (size_t i = 0; i < options->listener_count; i++)
        if (!options->listeners[i].is_unix && !options->listeners[i].is_shared)
            (void)setsockopt(options->listeners[i].fd, SOL_SOCKET, SO_INCOMING_CPU, &cpu,
                             sizeof(cpu));
}
