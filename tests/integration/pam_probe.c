/* A PAM module that does what real ones do to a pooler. First argument: a file, to which it appends
 * who is asked for.
 *
 *   user "slow"     blocks until that file's name with ".go" behind it exists
 *   user "delayed"  is refused, and 2 s (PAM makes 1 to 3 of it) are to pass before he is told
 *   user "expired"  has the right password, but no valid account
 *   user "app"      gets in with "Probe-pw" */
#include <security/pam_modules.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <security/pam_ext.h>

static const char *item(pam_handle_t *handle, int type)
{
    const void *value = NULL;

    return pam_get_item(handle, type, &value) == PAM_SUCCESS && value != NULL ? value : "(none)";
}

int pam_sm_authenticate(pam_handle_t *handle, int flags, int argc, const char **argv)
{
    const char *user = item(handle, PAM_USER);
    const char *password = NULL;
    char go[512];
    FILE *file = fopen(argv[0], "a");

    (void)flags;
    (void)argc;
    if (file == NULL)
        return PAM_SYSTEM_ERR;
    fprintf(file, "%s %s %s\n", item(handle, PAM_SERVICE), user, item(handle, PAM_RHOST));
    fclose(file);
    if (strcmp(user, "slow") == 0) {
        snprintf(go, sizeof(go), "%s.go", argv[0]);
        while (access(go, F_OK) != 0)
            usleep(5000);
    }
    if (strcmp(user, "delayed") == 0) {
        (void)pam_fail_delay(handle, 2000000);
        return PAM_AUTH_ERR;
    }
    if (pam_get_authtok(handle, PAM_AUTHTOK, &password, NULL) != PAM_SUCCESS || password == NULL)
        return PAM_AUTH_ERR;
    return strcmp(password, "Probe-pw") == 0 ? PAM_SUCCESS : PAM_AUTH_ERR;
}

int pam_sm_acct_mgmt(pam_handle_t *handle, int flags, int argc, const char **argv)
{
    (void)flags;
    (void)argc;
    (void)argv;
    return strcmp(item(handle, PAM_USER), "expired") == 0 ? PAM_ACCT_EXPIRED : PAM_SUCCESS;
}

int pam_sm_setcred(pam_handle_t *handle, int flags, int argc, const char **argv)
{
    (void)handle;
    (void)flags;
    (void)argc;
    (void)argv;
    return PAM_SUCCESS;
}
