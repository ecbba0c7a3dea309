/* slow_names.c - preloaded, a user database that never answers for OS user 5 (games):
 * LD_PRELOAD=slow_names.so.
 * SLOW_NAMES_FILE gets one byte for each lookup that hangs. */
#include <dlfcn.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

typedef int user_lookup(uid_t, struct passwd *, char *, size_t, struct passwd **);

static void hang(void)
{
    int fd = open(getenv("SLOW_NAMES_FILE"), O_WRONLY | O_APPEND);

    if (fd < 0 || write(fd, "x", 1) != 1)
        abort();
    for (;;)
        pause();
}

int getpwuid_r(uid_t uid, struct passwd *entry, char *strings, size_t bytes, struct passwd **result)
{
    user_lookup *real = (user_lookup *)dlsym(RTLD_NEXT, "getpwuid_r");

    if (uid == 5)
        hang();
    return real(uid, entry, strings, bytes, result);
}
