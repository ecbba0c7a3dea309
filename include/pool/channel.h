/* channel.h - what a SCRAM exchange on a connection can be bound to.
 *
 * One function, so that a test can have another one (it is linked before the library). Thread: the
 * connection's. */
#ifndef POOL_CHANNEL_H
#define POOL_CHANNEL_H

#include "conn/conn.h"
#include "crypto/scram.h"

/* Costs the hash of a certificate; for logins only. The TLS handshake is done, or there is none. */
void channel_look(const struct conn *conn, struct scram_channel *channel);

#endif
