/* world_peer.h - the other processes of a simulated cluster, and the cancel requests that come to us by
 * mistake and belong to one of them.
 *
 * Each such request has a key that is made once. A process checks that what arrives is such a key, was
 * meant for it, has lost one hop, and comes once. */
#ifndef TESTS_SIM_WORLD_PEER_H
#define TESTS_SIM_WORLD_PEER_H

#include "world.h"

enum {
    PEER_OURS = 1,    /* peer_id of the pooler, mostly, and an entry of [peers] all the same */
    PEER_LITERAL = 2, /* an address */
    PEER_NAMED = 3,   /* a name with two addresses, of which nobody serves one */
    PEER_UNKNOWN = 9, /* nobody's number */
    PEER_PORT = 7000, /* + its number */
};

void strays_begin(void);
void strays_step(void);
/* So many more, which must arrive. */
void strays_finish(unsigned count);
bool strays_are_done(void);
uint64_t strays_next_us(void);
void strays_explain(void);
void strays_end(void);

#endif
