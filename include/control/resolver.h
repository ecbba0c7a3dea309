/* resolver.h - asks name servers (c-ares): A and AAAA, apart, and SOA; /etc/hosts first.
 *
 * Control's thread, nothing blocks: sockets are in one epoll descriptor that control's loop polls. The
 * name servers, search domains and time-outs are those of resolv_conf, or of /etc/resolv.conf; a
 * `nameserver` line may name a port (`127.0.0.1:5353`, `[::1]:5353`). RELOAD reads the file again.
 * A file that CARES_HOSTS in the environment names is read instead of /etc/hosts. */
#ifndef CONTROL_RESOLVER_H
#define CONTROL_RESOLVER_H

#include "control/dns.h"

/* `path` NULL or empty: the system's file. False: said in the log. */
must_check bool resolver_start(const char *path);
/* The files have changed: open questions are asked again. */
void resolver_reload(void);
/* A dns_ports.ask. */
void resolver_ask(void *context, struct dns_question *question);

/* To be polled for reading. */
int resolver_fd(void);
void resolver_run(void);
/* When resolver_run is due though nothing can be read; UINT64_MAX: no need. */
uint64_t resolver_next_us(void);

/* "c-ares 1.18.1" */
const char *resolver_version(void);

#endif
