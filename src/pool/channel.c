#include "pool/channel.h"

static_assert((int)SCRAM_BINDING_BYTES_MAX == (int)TLS_END_POINT_BYTES_MAX, "one hash");

void channel_look(const struct conn *conn, struct scram_channel *channel)
{
    *channel = (struct scram_channel){0};
    if (conn->tls == NULL)
        return;
    channel->is_tls = true;
    channel->binding_bytes = (uint8_t)tls_end_point(conn->tls->session, channel->binding);
}
