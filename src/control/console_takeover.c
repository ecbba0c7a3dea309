/* console_takeover.c - the old process's side of an online restart (takeover.h). */
#include "control/console_session.h"

#include "control/console.h"
#include "control/control.h"
#include "control/listen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TAKEOVER_LOOK_US = 1000 };

bool console_is_own_user(const struct session *session)
{
    struct ucred credentials;
    socklen_t bytes = sizeof(credentials);

    return session->peer.family == AF_UNIX &&
           getsockopt(session->fd, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) == 0 &&
           credentials.uid == geteuid();
}

/* ---- giving the sockets ---- */

void console_show_fds(struct session *session)
{
    bool is_attached = console_is_own_user(session) && !session->is_extended &&
                       control_mode() == CONTROL_ACTIVE &&
                       control_shutdown_mode() == SHUTDOWN_NONE && session->attachments == NULL;

    if (is_attached) {
        session->attachments = calloc(listen_count() + 1, sizeof(*session->attachments));
        assert(session->attachments != NULL);
        session->attachment_count = session->attached_count = 0;
    }
    for (size_t i = 0; i < listen_count(); i++) {
        const struct listen_socket *listener = listen_at(i);
        struct show_row row;

        if (listener->fd < 0)
            continue;
        if (is_attached)
            session->attachments[session->attachment_count++] =
                (struct attachment){.at_byte = session->output.bytes, .listener = i};
        show_row_begin(&row, &session->output, session->table);
        show_number(&row, listener->fd);
        show_text(&row, "pooler");
        show_text(&row, NULL);
        show_text(&row, NULL);
        show_text(&row, listener->host);
        show_number(&row, listener->port);
        show_number(&row, 0); /* no cancel key */
        show_number(&row, 0); /* no partner */
        for (int k = 0; k < 7; k++)
            show_text(&row, NULL);
        show_row_end(&row);
    }
}

ssize_t console_send(struct session *session, size_t bytes)
{
    char room[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
    struct iovec part = {session->output.data + session->sent_bytes, bytes};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    size_t next = session->attached_count;
    ssize_t count;

    if (next < session->attachment_count &&
        session->attachments[next].at_byte == session->sent_bytes) {
        struct cmsghdr *control;

        header.msg_control = room;
        header.msg_controllen = sizeof(room);
        control = CMSG_FIRSTHDR(&header);
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(control), &listen_at(session->attachments[next].listener)->fd,
               sizeof(int));
        next++;
    }
    if (next < session->attachment_count)
        part.iov_len = MIN(bytes, session->attachments[next].at_byte - session->sent_bytes);
    count = sendmsg(session->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0)
        session->attached_count = next;
    return count;
}

void console_forget_attachments(struct session *session)
{
    free(session->attachments);
    session->attachments = NULL;
    session->attachment_count = session->attached_count = 0;
}

/* ---- making room ---- */

static void takeover_looked(struct request *request)
{
    struct session *session = request->owner;

    if (control_is_listening()) {
        request_again(request, control_now_us() + TAKEOVER_LOOK_US);
        return;
    }
    console_request_over(session, request);
}

static void takeover_sent(struct request *request)
{
    request->done = takeover_looked;
    request_report(request, REPORT_COUNTS);
}

void console_run_takeover(struct session *session)
{
    log_write(LEVEL_LOG, "another process takes over, waiting for all clients disconnect");
    session->is_successor = true;
    usage_give(&control_usage()->client_count);
    session->request = request_make(control_requests(), session, takeover_sent);
    control_shutdown(SHUTDOWN_TAKEOVER, session->request);
}

bool console_owes_takeover(void)
{
    for (const struct session *session = console_sessions; session != NULL; session = session->next)
        if (session->is_successor &&
            (session->is_busy || session->output.bytes > session->sent_bytes))
            return true;
    return false;
}

/* ---- cancel requests that came to the process after us ---- */

static char nobody; /* waits for what comes of it */

static void cancel_looked(struct request *request)
{
    if (!request->found)
        (void)control_cancel(request->command.cancel_key);
    request_release(request);
}

void console_run_cancel(struct session *session)
{
    const char *argument = session->command.argument;
    unsigned long long key;
    char *end;
    struct request *request;

    key = strtoull(argument, &end, 16);
    if (strlen(argument) != 16 || *end != '\0') {
        console_failed(session, "bad arguments");
        return;
    }
    request = request_make(control_requests(), &nobody, cancel_looked);
    request->command.kind = COMMAND_CANCEL;
    for (int i = 7; i >= 0; i--, key >>= 8)
        request->command.cancel_key[i] = (uint8_t)key;
    request_command(request);
    console_complete(session, "CANCEL");
}
