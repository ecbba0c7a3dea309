#include "config/cpu_list.h"

static const char *skip_blanks(const char *text)
{
    while (*text == ' ' || *text == '\t')
        text++;
    return text;
}

/* NULL: not a number, or too large a one. */
static const char *read_number(const char *text, int *number)
{
    text = skip_blanks(text);
    if (*text < '0' || *text > '9')
        return NULL;
    for (*number = 0; *text >= '0' && *text <= '9'; text++) {
        *number = *number * 10 + (*text - '0');
        if (*number > CPU_NUMBER_MAX)
            return NULL;
    }
    return skip_blanks(text);
}

bool cpu_list_parse(const char *text, int *cpus, unsigned cpu_count_max, unsigned *cpu_count,
                    const char **why)
{
    *cpu_count = 0;
    if (*skip_blanks(text) == '\0')
        return true;
    for (;;) {
        int first, last;

        text = read_number(text, &first);
        last = first;
        if (text != NULL && *text == '-')
            text = read_number(text + 1, &last);
        if (text == NULL) {
            *why = "a list of CPU numbers and ranges like 0-3,8 is wanted";
            return false;
        }
        if (last < first) {
            *why = "a range of CPUs ends before it begins";
            return false;
        }
        for (int cpu = first; cpu <= last; cpu++) {
            if (*cpu_count == cpu_count_max) {
                *why = "more CPUs than there can be workers";
                return false;
            }
            cpus[(*cpu_count)++] = cpu;
        }
        if (*text == '\0')
            return true;
        if (*text++ != ',') {
            *why = "CPUs are separated by commas";
            return false;
        }
    }
}
