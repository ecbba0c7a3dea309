/* ring_sim.h - a simulated kernel: the second implementation of io/ring.h, in one thread, from one
 * seed.
 *
 * A connection has a *pooler side*, a descriptor number that is used with struct ring, and a *world
 * side*, a struct sim_peer that the test reads and writes: a client, or a PostgreSQL server.
 *
 * What a kernel may do differently from one run to the next is drawn from the seed: where received
 * data is cut, how much of a send is taken and how late its completion comes, in which order
 * independent operations complete, when a multishot operation ends, whether a cancel comes too
 * late. What the pooler may not do stops the test at once: a descriptor closed with a started op or
 * closed twice, an op started twice, bytes of a send changed before its completion, a receive
 * buffer touched while the kernel has it.
 *
 * There is one world at a time: ring_create makes a ring in it. ring_turn never sleeps: a test asks
 * sim_would_return before it, and moves the time when nobody has anything to do. */
#ifndef TESTS_SIM_RING_SIM_H
#define TESTS_SIM_RING_SIM_H

#include "io/ring.h"

/* Chances in a thousand, each time that it could happen. All zero: a kernel that is always in a
 * good mood. */
struct sim_faults {
    unsigned split;             /* a receive takes only a part of what is there */
    unsigned receive_end;       /* a receive with data ends: `more` false */
    unsigned spurious_shortage; /* ENOBUFS though there are buffers */
    unsigned short_send;
    unsigned delay;       /* an operation that could go on waits for another turn */
    unsigned send_late;   /* the completion of a send comes later than its data at the peer */
    unsigned cancel_late; /* a cancelled operation goes on for a while */
    unsigned reset;       /* a connection breaks, with each receive that could go on */
    unsigned connect_refused;
    unsigned connect_hangs; /* no answer: ETIMEDOUT after SIM_CONNECT_TIMEOUT_US */
    unsigned accept_error;  /* EMFILE: the accept ends */
    unsigned socket_error;  /* ring_socket: EMFILE */
};

enum { SIM_CONNECT_TIMEOUT_US = 130 * 1000 * 1000 };

struct sim;
struct sim_peer;

struct sim *sim_create(uint64_t seed) must_check;
/* No ring may be left. Closes what the world still holds. */
void sim_destroy(struct sim *sim);
/* From now on it draws as if it were new: of many short programs each has its own. */
void sim_reseed(struct sim *sim, uint64_t seed);

void sim_set_faults(struct sim *sim, const struct sim_faults *faults);
/* Draws which faults happen and how often: each of them is absent in about half of the seeds. */
void sim_draw_faults(struct sim *sim, struct sim_faults *faults);
/* The size of a connection's pipes, each direction; for those made from now on. 0: drawn for each,
 * from 1 byte to 64 KiB (the default). */
void sim_set_pipe_bytes(struct sim *sim, size_t bytes);

uint64_t sim_random(struct sim *sim);
uint64_t sim_below(struct sim *sim, uint64_t limit); /* 0 .. limit - 1 */
bool sim_chance(struct sim *sim, unsigned per_mille);

uint64_t sim_now_us(const struct sim *sim);
void sim_advance(struct sim *sim, uint64_t us);
/* A number that stands for all that has happened: the same seed must give the same. */
uint64_t sim_trace(const struct sim *sim);
/* Mixes a fact of the test into it. */
void sim_note(struct sim *sim, uint64_t fact);

/* Lets the kernel work for `ring` and says whether ring_turn would return: there is a completion,
 * it was woken, or the deadline has come. */
bool sim_would_return(struct ring *ring, uint64_t deadline_us);
/* It was woken, or somebody has begun to: ring_turn will return. */
bool sim_is_rung(const struct ring *ring);
/* False: no operation of any ring can go on unless the world, a deadline or the pooler does
 * something. */
bool sim_has_work(struct sim *sim);
/* When a connect that hangs will fail; UINT64_MAX: none does. */
uint64_t sim_next_us(const struct sim *sim);

/* Pooler-side descriptors that are open, listeners included. */
unsigned sim_open_fds(const struct sim *sim);
/* Operations started and not yet completed, of all rings. */
unsigned sim_started_ops(const struct sim *sim);

/* ---- the world's side ---- */

/* A listening descriptor for ring_accept. Several with one address share its connections. */
int sim_listen(struct sim *sim, const struct sockaddr *address, socklen_t address_bytes) must_check;

/* A client connects. NULL: nobody listens there. It may write before it is accepted. */
struct sim_peer *sim_connect(struct sim *sim, const struct sockaddr *address,
                             socklen_t address_bytes) must_check;
/* The client's own address, until now; ring_peer_address tells it. */
void sim_peer_set_address(struct sim_peer *peer, const struct sockaddr *address,
                          socklen_t address_bytes);
/* The OS user that it runs as (0); ring_peer_uid tells it for unix sockets. */
void sim_peer_set_uid(struct sim_peer *peer, uint32_t uid);

/* Whoever connects to `address` is given to `connected`, from inside ring_turn: it should only take
 * a note. */
typedef void sim_connected(void *context, struct sim_peer *peer);
void sim_serve(struct sim *sim, const struct sockaddr *address, socklen_t address_bytes,
               sim_connected *connected, void *context);
/* From now on connects to it are refused. */
void sim_serve_end(struct sim *sim, const struct sockaddr *address, socklen_t address_bytes);

/* A connected pair: a pooler-side descriptor and its peer. */
int sim_pair(struct sim *sim, struct sim_peer **peer) must_check;

/* Returns how many bytes were taken: as many as the pipe has room for. Nothing is taken after an
 * end. */
size_t sim_peer_write(struct sim_peer *peer, const void *data, size_t bytes);
size_t sim_peer_write_room(const struct sim_peer *peer);
/* Returns the number of bytes, 0 if there are none now. */
size_t sim_peer_read(struct sim_peer *peer, void *data, size_t bytes_max);
size_t sim_peer_readable(const struct sim_peer *peer);
/* All was read, and the pooler has ended the connection (or its sending half), or it is reset. */
bool sim_peer_is_at_end(const struct sim_peer *peer);
/* Broken: what was under way may be lost. */
bool sim_peer_is_reset(const struct sim_peer *peer);
/* Ends the direction to the pooler; reading goes on. */
void sim_peer_shutdown(struct sim_peer *peer);
/* Breaks the connection; sim_peer_close is still due. */
void sim_peer_reset(struct sim_peer *peer);
/* Ends the connection and frees the peer. With bytes unread it is a reset, as with TCP. */
void sim_peer_close(struct sim_peer *peer);

#endif
