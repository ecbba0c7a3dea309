#include "config/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIPE_BYTES_EXPECTED = 4096 };

char *config_file_open(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    struct stat status;
    size_t room, used = 0;
    char *data = NULL, *larger;
    ssize_t got;
    int fd, error = 0;

    (void)context;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &status) != 0) {
        error = errno;
        goto close_file;
    }
    if (status.st_size > CONFIG_FILE_BYTES_MAX) {
        error = EFBIG;
        goto close_file;
    }
    /* The size is a guess only: pipes have none and files grow. */
    room = status.st_size > 0 ? (size_t)status.st_size + 1 : PIPE_BYTES_EXPECTED;
    data = arena_alloc(arena, room + 1);
    for (;;) {
        if (used == room) {
            room *= 2;
            larger = arena_alloc(arena, room + 1);
            memcpy(larger, data, used);
            data = larger;
        }
        got = read(fd, data + used, room - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            error = errno;
        if (got <= 0)
            break;
        used += (size_t)got;
        if (used > CONFIG_FILE_BYTES_MAX) {
            error = EFBIG;
            break;
        }
    }
    data[used] = '\0';

close_file:
    close(fd);
    if (error != 0) {
        errno = error;
        return NULL;
    }
    *bytes = used;
    return data;
}
