/* console_tls.c - the console's bytes, encrypted. Control is not pressed for time: the heap will do. */
#include "control/console_session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* One record of answers waits at most; what is beyond are answers to a peer that has its keys changed again
 * and again, and does not read. */
enum { SEALED_BYTES_MAX = 128 * 1024 };

static bool keep(struct tls_output *output, const void *data, size_t bytes)
{
    struct console_tls *tls = OWNER_OF(output, struct console_tls, output);
    size_t total = tls->sealed_bytes + bytes;

    if (total > SEALED_BYTES_MAX)
        return false;
    if (total > tls->sealed_max) {
        uint8_t *bigger = realloc(tls->sealed, total);

        if (bigger == NULL)
            return false;
        tls->sealed = bigger;
        tls->sealed_max = total;
    }
    memcpy(tls->sealed + tls->sealed_bytes, data, bytes);
    tls->sealed_bytes = total;
    return true;
}

bool console_tls_start(struct session *session, struct tls *tls)
{
    if (tls == NULL)
        return true;
    session->tls = calloc(1, sizeof(*session->tls));
    if (session->tls == NULL)
        return false;
    session->tls->session = tls;
    session->tls->output.put = keep;
    return true;
}

/* What waits goes to the socket. False: it would block (errno EAGAIN), or is broken. */
static bool send_sealed(struct session *session)
{
    struct console_tls *tls = session->tls;

    while (tls->sent_bytes < tls->sealed_bytes) {
        ssize_t count = send(session->fd, tls->sealed + tls->sent_bytes,
                             tls->sealed_bytes - tls->sent_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return false;
        tls->sent_bytes += (size_t)count;
    }
    tls->sent_bytes = tls->sealed_bytes = 0;
    return true;
}

ssize_t console_tls_send(struct session *session, size_t bytes)
{
    struct console_tls *tls = session->tls;
    size_t count = MIN(bytes, (size_t)TLS_RECORD_BYTES_MAX);

    if (!send_sealed(session))
        return -1;
    if (count == 0)
        return 0;
    if (!tls_write(tls->session, &tls->output, session->output.data + session->sent_bytes, count)) {
        errno = EPROTO;
        return -1;
    }
    if (!send_sealed(session) && errno != EAGAIN)
        return -1;
    return (ssize_t)count;
}

ssize_t console_receive(struct session *session)
{
    uint8_t *to = session->input + session->input_bytes;
    struct console_tls *tls = session->tls;
    uint8_t received[TLS_RECORD_BYTES_MAX];
    enum tls_result result;
    ssize_t bytes;
    size_t got;

    if (session->input_bytes >= INPUT_BYTES_MAX)
        return 0; /* it hung up, and has said more than is taken */
    if (tls == NULL)
        return recv(session->fd, to, INPUT_BYTES_MAX - session->input_bytes, MSG_DONTWAIT);
    bytes = recv(session->fd, received, sizeof(received), MSG_DONTWAIT);
    if (bytes <= 0)
        return bytes;
    tls_feed(tls->session, received, (size_t)bytes);
    result = tls_read(tls->session, &tls->output, to, sizeof(session->input) - session->input_bytes,
                      &got);
    tls_drop_input(tls->session); /* behind the end, where there is one */
    (void)send_sealed(session);   /* an alert, or the answer to a change of keys */
    assert(result != TLS_OK);     /* there was room for all of it */
    tls->has_ended = result != TLS_WANT_INPUT;
    if (got > 0)
        return (ssize_t)got;
    if (result == TLS_CLOSED)
        return 0;
    errno = result == TLS_WANT_INPUT ? EAGAIN : EPROTO;
    return -1;
}

void console_tls_end(struct session *session)
{
    if (session->tls == NULL)
        return;
    tls_close_notify(session->tls->session, &session->tls->output);
    (void)send_sealed(session);
    tls_destroy(session->tls->session);
    free(session->tls->sealed);
    free(session->tls);
    session->tls = NULL;
}
