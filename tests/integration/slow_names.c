/* slow_names.c - preloaded, a resolver that never answers for host names that begin with "hangs.":
 * LD_PRELOAD=slow_names.so. SLOW_NAMES_FILE gets one byte for each lookup that hangs. */
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **result)
{
    lookup *real = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");

    if (name != NULL && strncmp(name, "hangs.", 6) == 0) {
        int fd = open(getenv("SLOW_NAMES_FILE"), O_WRONLY | O_APPEND);

        if (fd < 0 || write(fd, "x", 1) != 1)
            abort();
        for (;;)
            pause();
    }
    return real(name, service, hints, result);
}
