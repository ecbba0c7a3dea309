#include "control/pam_check.h"

#include "crypto/secret.h"

#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char service[] = "pgbouncer";

/* Those that PAM does not get: it frees the others. */
static void answers_free(struct pam_response *answers, int count)
{
    for (int i = 0; i < count; i++)
        if (answers[i].resp != NULL) {
            secret_wipe(answers[i].resp, strlen(answers[i].resp));
            free(answers[i].resp);
        }
    free(answers);
}

static bool answer(const struct pam_message *message, const struct password_check *check,
                   struct pam_response *out)
{
    switch (message->msg_style) {
    case PAM_PROMPT_ECHO_OFF:
        out->resp = strdup(check->password);
        return out->resp != NULL;
    case PAM_TEXT_INFO:
    case PAM_ERROR_MSG:
        return true; /* nobody there to be told */
    default:
        return false;
    }
}

static int converse(int count, const struct pam_message **messages, struct pam_response **out,
                    void *context)
{
    struct pam_response *answers;

    if (count <= 0 || count > PAM_MAX_NUM_MSG)
        return PAM_CONV_ERR;
    answers = calloc((size_t)count, sizeof(*answers));
    if (answers == NULL)
        return PAM_BUF_ERR;
    for (int i = 0; i < count; i++)
        if (!answer(messages[i], context, &answers[i])) {
            answers_free(answers, count);
            return PAM_CONV_ERR;
        }
    /* pam_matrix, for one, wants none back where it only tells something. */
    if (out != NULL)
        *out = answers;
    else
        answers_free(answers, count);
    return PAM_SUCCESS;
}

/* Instead of the pause. */
static void note_delay(int status, unsigned delay_us, void *context)
{
    struct password_check *check = context;

    if (status != PAM_SUCCESS)
        check->delay_us = delay_us;
}

/* The item is not declared as a function, though it is one. */
static int set_fail_delay(pam_handle_t *handle)
{
    void (*function)(int, unsigned, void *) = note_delay;
    void *item;

    static_assert(sizeof(item) == sizeof(function), "a function's address is an address");
    memcpy(&item, &function, sizeof(item));
    return pam_set_item(handle, PAM_FAIL_DELAY, item);
}

void pam_check_run(struct job *job)
{
    struct password_check *check = OWNER_OF(job, struct password_check, job);
    struct pam_conv conversation = {.conv = converse, .appdata_ptr = check};
    const char *step = "pam_start";
    pam_handle_t *handle = NULL;
    int status = pam_start(service, check->user, &conversation, &handle);

    if (status == PAM_SUCCESS) {
        step = "pam_set_item";
        status = pam_set_item(handle, PAM_RHOST, check->host);
    }
    if (status == PAM_SUCCESS)
        status = set_fail_delay(handle);
    if (status == PAM_SUCCESS) {
        step = "pam_authenticate";
        status = pam_authenticate(handle, PAM_SILENT);
    }
    if (status == PAM_SUCCESS) {
        step = "pam_acct_mgmt";
        status = pam_acct_mgmt(handle, PAM_SILENT);
    }
    check->is_right = status == PAM_SUCCESS;
    if (!check->is_right)
        snprintf(check->reason, sizeof(check->reason), "%s() failed: %s", step,
                 pam_strerror(handle, status));
    if (handle != NULL)
        (void)pam_end(handle, status);
}
