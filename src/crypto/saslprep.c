#include "crypto/saslprep.h"

#include "base/assert.h"
#include "crypto/secret.h"

#include <stringprep.h>

/* Code points after normalization: at most 18 of one (U+FDFA), which takes 3 bytes in the input.
 * libidn wants one place more than it fills. */
enum { CODE_COUNT_MAX = (SASLPREP_INPUT_BYTES_MAX / 3 + 1) * 18 + 1, STEP_COUNT_MAX = 32 };

/* Characters that Unicode 3.2 decomposed to the wrong ones (Corrigendum 4 of Unicode 4.0). libidn
 * follows 3.2 to the letter, PostgreSQL normalizes as Unicode does now. */
static const Stringprep_table_element corrigendum[] = {
    {0x2F868, 0x2F868, {0x36FC}}, {0x2F874, 0x2F874, {0x5F53}}, {0x2F91F, 0x2F91F, {0x243AB}},
    {0x2F95F, 0x2F95F, {0x7AEE}}, {0x2F9BF, 0x2F9BF, {0x45D7}}, {0},
};

static const Stringprep_profile corrigendum_step = {
    .operation = STRINGPREP_MAP_TABLE,
    .table = corrigendum,
    .table_size = COUNT_OF(corrigendum) - 1,
};

/* The steps of RFC 4013 as libidn has them, with normalization moved to the end (see the header).
 * They are taken from libidn's own profile, because only that tells the lengths of the tables.
 * False: libidn's profile is not what this was written for. */
static bool order_steps(Stringprep_profile steps[STEP_COUNT_MAX])
{
    const Stringprep_profile *normalization = NULL;
    size_t count = 0;

    for (const Stringprep_profile *step = stringprep_saslprep; step->operation != 0; step++) {
        if (count + 3 >= STEP_COUNT_MAX)
            return false;
        if (step->operation == STRINGPREP_NFKC)
            normalization = step;
        else
            steps[count++] = *step;
    }
    if (normalization == NULL)
        return false;
    steps[count++] = corrigendum_step;
    steps[count++] = *normalization;
    steps[count] = (Stringprep_profile){0};
    return true;
}

/* Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF; and no zero.
 * Returns the number of bytes, 0 if there is no such character. */
static size_t decode_character(const uint8_t *text, size_t bytes, uint32_t *code)
{
    static const uint32_t code_min[] = {0, 1, 0x80, 0x800, 0x10000};
    size_t length = text[0] < 0x80   ? 1
                    : text[0] < 0xC0 ? 0
                    : text[0] < 0xE0 ? 2
                    : text[0] < 0xF0 ? 3
                    : text[0] < 0xF8 ? 4
                                     : 0;

    if (length == 0 || length > bytes)
        return 0;
    *code = length == 1 ? text[0] : text[0] & (0xFFu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xC0) != 0x80)
            return 0;
        *code = *code << 6 | (text[i] & 0x3F);
    }
    if (*code < code_min[length] || *code > 0x10FFFF || (*code >= 0xD800 && *code <= 0xDFFF))
        return 0;
    return length;
}

static bool is_ascii(const char *text, size_t bytes)
{
    uint8_t all = 0;

    for (size_t i = 0; i < bytes; i++)
        all |= (uint8_t)text[i];
    return all < 0x80;
}

enum saslprep_result saslprep(const char *text, size_t text_bytes,
                              char out[SASLPREP_OUTPUT_BYTES_MAX], size_t *out_bytes)
{
    enum saslprep_result result = SASLPREP_REFUSED;
    Stringprep_profile steps[STEP_COUNT_MAX];
    uint32_t codes[CODE_COUNT_MAX];
    size_t code_count = 0;
    size_t length;

    *out_bytes = 0;
    if (is_ascii(text, text_bytes))
        return SASLPREP_ASCII;
    if (text_bytes > SASLPREP_INPUT_BYTES_MAX || !order_steps(steps))
        return SASLPREP_REFUSED;

    for (size_t i = 0; i < text_bytes; i += length) {
        length = decode_character((const uint8_t *)text + i, text_bytes - i, &codes[code_count]);
        if (length == 0)
            goto wipe;
        code_count++;
    }
    /* STRINGPREP_NO_UNASSIGNED: a stored string may not hold what Unicode 3.2 did not know. */
    if (stringprep_4i(codes, &code_count, CODE_COUNT_MAX, STRINGPREP_NO_UNASSIGNED, steps) !=
        STRINGPREP_OK)
        goto wipe;
    for (size_t i = 0; i < code_count; i++) {
        char character[6];
        size_t bytes = (size_t)stringprep_unichar_to_utf8(codes[i], character);

        if (bytes > SASLPREP_OUTPUT_BYTES_MAX - *out_bytes)
            goto wipe;
        for (size_t j = 0; j < bytes; j++)
            out[(*out_bytes)++] = character[j];
    }
    /* Nothing but invisible characters: as empty as no password, and PostgreSQL takes it raw. */
    if (*out_bytes > 0)
        result = SASLPREP_OK;
wipe:
    if (result != SASLPREP_OK)
        *out_bytes = 0;
    secret_wipe(codes, sizeof(codes));
    return result;
}
