/* world_vandal.h - simulated clients that come over TLS and mean harm, or break off: what others must never notice.
 *
 * Each does one thing: bytes smuggled behind SSLRequest, rubbish instead of a handshake or in it, an end or a silence in
 * the middle of it, a changed byte, records that are none, an end that is not the last word. Only where the world has
 * TLS; in the chaos they come, after it they must find their end. */
#ifndef TESTS_SIM_WORLD_VANDAL_H
#define TESTS_SIM_WORLD_VANDAL_H

#include "world.h"

void vandals_step(void);
bool vandals_are_done(void);
void vandals_explain(void);
void vandals_end(void);

#endif
