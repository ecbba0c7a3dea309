#include "config/userlist.h"

#include <string.h>

static bool is_space(char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

void userlist_init(struct userlist *userlist, char *text)
{
    *userlist = (struct userlist){.at = text, .line = 1, .line_next = 1};
}

/* Stands on the opening quote; NULL when the closing one is missing. */
static char *take_field(struct userlist *userlist, size_t *bytes)
{
    char *start = userlist->at + 1;
    char *from = start, *to = start;

    for (;;) {
        if (*from == '\0')
            return NULL;
        if (*from == '"') {
            if (from[1] != '"')
                break;
            from++;
        }
        userlist->line_next += *from == '\n';
        *to++ = *from++;
    }
    userlist->at = from + 1;
    *to = '\0';
    *bytes = (size_t)(to - start);
    return start;
}

static void skip_until(struct userlist *userlist, char stop)
{
    while (*userlist->at != '\0' && *userlist->at != stop) {
        userlist->line_next += *userlist->at == '\n';
        userlist->at++;
    }
}

enum userlist_result userlist_next(struct userlist *userlist, const char **name,
                                   const char **secret)
{
    size_t name_bytes, secret_bytes;
    char *name_field, *secret_field;

    for (;;) {
        while (is_space(*userlist->at)) {
            userlist->line_next += *userlist->at == '\n';
            userlist->at++;
        }
        if (*userlist->at != ';')
            break;
        skip_until(userlist, '\n');
    }
    userlist->line = userlist->line_next;
    if (*userlist->at == '\0')
        return USERLIST_END;
    if (*userlist->at != '"')
        return USERLIST_BROKEN;
    name_field = take_field(userlist, &name_bytes);
    if (name_field == NULL)
        return USERLIST_BROKEN;
    if (name_bytes >= USER_NAME_BYTES_MAX)
        return USERLIST_NAME_TOO_LONG;
    skip_until(userlist, '"');
    if (*userlist->at == '\0')
        return USERLIST_BROKEN;
    secret_field = take_field(userlist, &secret_bytes);
    if (secret_field == NULL)
        return USERLIST_BROKEN;
    if (secret_bytes > USERLIST_SECRET_BYTES_MAX)
        return USERLIST_SECRET_TOO_LONG;
    skip_until(userlist, '\n');
    *name = name_field;
    *secret = secret_field;
    return USERLIST_OK;
}
