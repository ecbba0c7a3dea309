#include "control/notify.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void notify(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t path_bytes;
    int fd;

    if (path == NULL || (path[0] != '/' && path[0] != '@'))
        return;
    path_bytes = strlen(path);
    if (path_bytes >= sizeof(address.sun_path))
        return;
    memcpy(address.sun_path, path, path_bytes);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address,
                  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes));
    close(fd);
}

void notify_ready(void)
{
    notify("READY=1");
}

void notify_reloading(void)
{
    char text[64];

    snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_now_us());
    notify(text);
}

void notify_stopping(void)
{
    notify("STOPPING=1");
}

void notify_status(const char *text)
{
    char status[600];

    snprintf(status, sizeof(status), "STATUS=%s", text);
    notify(status);
}
