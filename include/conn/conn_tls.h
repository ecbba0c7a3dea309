/* conn_tls.h - between conn.c and conn_tls.c alone: what conn does differently on TLS. */
#ifndef CONN_CONN_TLS_H
#define CONN_CONN_TLS_H

#include "conn/conn.h"

/* ---- conn_tls.c ---- */

/* Encrypts from `out` into `sealed`, as much as a send should take. 0, or the errno that ends the
 * connection. */
must_check int conn_tls_seal(struct conn *conn);
/* Decrypts and gives it to `received`; says `ended`. */
void conn_tls_received(struct conn *conn, const void *data, size_t bytes);
/* The end has not been said yet (close_notify), and the peer may still hear it: an end of its stream
 * without a word is most often the end of the socket. */
static inline bool conn_owes_goodbye(const struct conn *conn)
{
    return conn->tls != NULL && !conn->tls->has_failed && !conn->tls->has_said_goodbye &&
           (!conn->has_ended || conn->tls->has_heard_goodbye);
}

/* The conn is gone, or another's. */
struct tls *conn_tls_release(struct conn *conn);

/* ---- conn.c ---- */

void conn_flush_later(struct conn *conn);
void conn_ended(struct conn *conn, int error);
/* True: `quiet` was said, and conn may be gone. */
bool conn_quiet_if_due(struct conn *conn);

#endif
