/* cpu_list.h - reads a list of CPUs as taskset(1) and the kernel write it: "0-3,8,10-11".
 *
 * Pure: any thread. */
#ifndef CONFIG_CPU_LIST_H
#define CONFIG_CPU_LIST_H

#include "base/assert.h"

enum { CPU_NUMBER_MAX = 1023 }; /* CPU_SETSIZE - 1 */

/* In the order of the text; a CPU that is named twice counts twice. Blanks are allowed around
 * numbers. An empty text is an empty list. False: `why` says what is wrong with it (a constant text);
 * a list of more than `cpu_count_max` CPUs is wrong, too. */
must_check bool cpu_list_parse(const char *text, int *cpus, unsigned cpu_count_max,
                               unsigned *cpu_count, const char **why);

#endif
