/* userlist.h - cuts an auth_file into names and secrets.
 *
 * One user a line: "name" "secret", the rest of the line is ignored. `;` as the first visible byte
 * makes a comment. Between the two fields anything but a double quote is skipped; "" inside a field
 * is one quote; a field may span lines. A NUL byte ends the file. What a secret means (plain, md5,
 * SCRAM) is not judged here.
 *
 * Pure: no allocation; fields are unquoted in place, in the caller's memory. */
#ifndef CONFIG_USERLIST_H
#define CONFIG_USERLIST_H

#include "base/base.h"

enum { USERLIST_SECRET_BYTES_MAX = 65530 }; /* without the closing zero */

enum userlist_result {
    USERLIST_OK,
    USERLIST_END,
    USERLIST_BROKEN, /* here and below: reading ends, users so far stay */
    USERLIST_NAME_TOO_LONG,
    USERLIST_SECRET_TOO_LONG,
};

struct userlist {
    char *at;
    int line; /* of the user that userlist_next spoke about last */
    /* below: userlist.c only */
    int line_next;
};

/* `text` ends with a zero. */
void userlist_init(struct userlist *userlist, char *text);

/* Only after USERLIST_OK are *name and *secret set, and may there be a next one. */
enum userlist_result userlist_next(struct userlist *userlist, const char **name,
                                   const char **secret) must_check;

#endif
