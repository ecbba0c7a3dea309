/* adapter.h - what the contract tests need beside io/ring.h, once for the kernel and once for its
 * twin: a far end for each connection. */
#ifndef TESTS_RING_ADAPTER_H
#define TESTS_RING_ADAPTER_H

#include "io/ring.h"

#include <sys/types.h>

struct far;

struct place {
    struct sockaddr_storage address;
    socklen_t bytes;
};

extern const bool adapter_is_simulated;

void adapter_begin(void);
void adapter_end(void);

/* One ring_turn that waits for a moment at most. */
unsigned adapter_turn(struct ring *ring);

/* A near descriptor for ring_accept, and where it listens. */
int adapter_listen(struct place *place);
struct far *adapter_connect(const struct place *place);
/* A far server; adapter_take gives the next connection that came in, or NULL. */
void adapter_serve(struct place *place);
struct far *adapter_take(void);
void adapter_serve_end(void);
/* A place where nobody listens. */
void adapter_nowhere(struct place *place);
/* A near descriptor that is connected. */
int adapter_pair(struct far **far);

/* How many bytes were taken; 0: no room now. */
size_t far_write(struct far *far, const void *data, size_t bytes);
/* How many bytes were there; 0: none now; -1: the end; else a negative errno. */
ssize_t far_read(struct far *far, void *data, size_t bytes);
void far_shutdown(struct far *far);
/* Both free `far`. */
void far_reset(struct far *far);
void far_close(struct far *far);

#endif
