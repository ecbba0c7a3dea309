/* base.h - the few words of C that every file uses: attributes, sizes, conversion from member to
 * owner. */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define must_check __attribute__((warn_unused_result))
#define printf_like(format_index, first_index)                                                     \
    __attribute__((format(printf, format_index, first_index)))
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

#define BIT(number) (1u << (number))
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define OWNER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#define US_PER_S UINT64_C(1000000)
#define US_PER_MS UINT64_C(1000)

/* Names as PostgreSQL and PgBouncer bound them: bytes with the closing zero. */
enum { DATABASE_NAME_BYTES_MAX = 64, USER_NAME_BYTES_MAX = 128 };

#endif
