/* The far ends of the kernel: plain sockets on loopback that do not block. */
#include "adapter.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

struct far {
    int fd;
};

const bool adapter_is_simulated = false;

static int server_fd = -1;

void adapter_begin(void)
{
}

void adapter_end(void)
{
    if (server_fd >= 0)
        adapter_serve_end();
}

unsigned adapter_turn(struct ring *ring)
{
    return ring_turn(ring, clock_now_us() + 20 * US_PER_MS);
}

static int listen_somewhere(struct place *place, int flags)
{
    struct sockaddr_in *inet = (struct sockaddr_in *)&place->address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

    *place = (struct place){.bytes = sizeof(*inet)};
    inet->sin_family = AF_INET;
    inet->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert(fd >= 0);
    assert(bind(fd, (struct sockaddr *)inet, sizeof(*inet)) == 0);
    assert(listen(fd, 64) == 0);
    assert(getsockname(fd, (struct sockaddr *)inet, &place->bytes) == 0);
    return fd;
}

int adapter_listen(struct place *place)
{
    return listen_somewhere(place, 0);
}

static struct far *far_of(int fd)
{
    struct far *far = malloc(sizeof(*far));

    assert(far != NULL);
    assert(fd >= 0);
    assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    far->fd = fd;
    return far;
}

struct far *adapter_connect(const struct place *place)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert(fd >= 0);
    assert(connect(fd, (const struct sockaddr *)&place->address, place->bytes) == 0);
    return far_of(fd);
}

void adapter_serve(struct place *place)
{
    server_fd = listen_somewhere(place, SOCK_NONBLOCK);
}

struct far *adapter_take(void)
{
    int fd = accept4(server_fd, NULL, NULL, SOCK_CLOEXEC);

    return fd < 0 ? NULL : far_of(fd);
}

void adapter_serve_end(void)
{
    close(server_fd);
    server_fd = -1;
}

void adapter_nowhere(struct place *place)
{
    close(listen_somewhere(place, 0));
}

int adapter_pair(struct far **far)
{
    struct place place;
    int listen_fd = listen_somewhere(&place, 0);
    int fd;

    *far = adapter_connect(&place);
    fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    assert(fd >= 0);
    close(listen_fd);
    return fd;
}

size_t far_write(struct far *far, const void *data, size_t bytes)
{
    ssize_t result = send(far->fd, data, bytes, MSG_NOSIGNAL);

    return result < 0 ? 0 : (size_t)result;
}

ssize_t far_read(struct far *far, void *data, size_t bytes)
{
    ssize_t result = recv(far->fd, data, bytes, 0);

    if (result < 0)
        return errno == EAGAIN ? 0 : -errno;
    return result == 0 ? -1 : result;
}

void far_shutdown(struct far *far)
{
    assert(shutdown(far->fd, SHUT_WR) == 0);
}

void far_reset(struct far *far)
{
    struct linger linger = {.l_onoff = 1};

    assert(setsockopt(far->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
    far_close(far);
}

void far_close(struct far *far)
{
    close(far->fd);
    free(far);
}
