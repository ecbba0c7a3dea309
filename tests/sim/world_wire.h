/* world_wire.h - the world's end of a connection: plain, or on TLS with the real library (crypto/tls.h).
 *
 * A client is the client of TLS, a simulated PostgreSQL its server. What is written goes through the
 * session into a heap and from there into the pipe, what is read comes the other way, and the
 * handshake goes on whenever somebody looks (wire_write, wire_read). Which bytes of it arrive changed,
 * and after which nothing more comes, is drawn by whoever wants to do harm.
 *
 * Seeds come from the simulation's where the library's build can do that
 * (WC_RNG_SEED_CB, as in our own); with another library a run with TLS can be repeated in its course, but
 * not byte for byte. */
#ifndef TESTS_SIM_WORLD_WIRE_H
#define TESTS_SIM_WORLD_WIRE_H

#include "world.h"

#include "crypto/scram.h"
#include "crypto/tls.h"

struct wire {
    struct sim_peer *peer; /* NULL: there is no connection */
    struct tls *session;   /* NULL: plain */
    bool is_shaking;       /* the handshake is not done */
    bool has_failed;       /* of TLS, or the peer did not speak it */
    bool has_goodbye;      /* the peer's close_notify */
    bool has_said_goodbye;
    struct heap out;   /* ciphertext that waits for room in the pipe */
    struct heap plain; /* decrypted, nobody has read it */
    size_t raw_bytes;  /* of ciphertext, given to the pipe so far */
    size_t flip_at;    /* this one of them is another; SIZE_MAX: none */
    size_t cut_at;     /* from this one on nothing arrives; SIZE_MAX: never */
};

/* What the world's ends and the pooler's are made of, for one run. The client sides verify that the other is of our
 * authority. */
struct wire_contexts {
    struct tls_context *clients;    /* the pooler's, towards clients: TLS 1.2 and 1.3 */
    struct tls_context *servers[2]; /* the pooler's, towards PostgreSQL: two that differ */
    struct tls_context *user;       /* of the simulated clients: one protocol or both */
    struct tls_context *postgres;   /* of the simulated PostgreSQL */
};
extern struct wire_contexts wire_contexts;

/* With `seed` for all keys of this run. */
void wire_begin(uint64_t seed);
/* The library's build takes our seeds: the same run gives the same bytes. */
bool wire_is_repeatable(void);
/* All sessions must be gone. */
void wire_end(void);
void wire_open(struct wire *wire, struct sim_peer *peer);
/* From now on it is TLS; in its plain life nothing may be left to be read. */
void wire_start_tls(struct wire *wire, struct tls_context *context);
static inline bool wire_is_up(const struct wire *wire)
{
    return wire->session != NULL && !wire->is_shaking && !wire->has_failed;
}

/* What the world's end can bind SCRAM to. */
struct scram_channel wire_channel(const struct wire *wire);

/* As sim_peer_write and sim_peer_read: of plain bytes. On TLS all of it is taken, or nothing. */
size_t wire_write(struct wire *wire, const void *data, size_t bytes);
size_t wire_read(struct wire *wire, void *data, size_t bytes_max);
/* All was read, and no more will come: the end of the stream, close_notify, or TLS has failed. */
bool wire_is_at_end(const struct wire *wire);
/* Nothing that was written waits for room. */
static inline bool wire_is_flushed(const struct wire *wire)
{
    return heap_bytes(&wire->out) == 0;
}
/* Both sides get new keys (KeyUpdate). False: TLS 1.2 has none. */
bool wire_change_keys(struct wire *wire);
/* close_notify, if there is TLS. */
void wire_say_goodbye(struct wire *wire);
/* Ends the connection, in whatever state. */
void wire_close(struct wire *wire);

#endif
