#include "pool/channel.h"

/* Until connections have TLS: nothing to bind to. */
void channel_look(const struct conn *conn, struct scram_channel *channel)
{
    (void)conn;
    *channel = (struct scram_channel){0};
}
