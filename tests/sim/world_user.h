/* world_user.h - simulated clients: they log in, follow scripts, cancel, break off, and know what
 * each answer must be. */
#ifndef TESTS_SIM_WORLD_USER_H
#define TESTS_SIM_WORLD_USER_H

#include "world.h"

enum { USERS_MAX = 24 };

/* `count`: how many there are, at most USERS_MAX. */
void users_begin(unsigned count);
/* Each does what it can do now. */
void users_step(void);
/* The chaos is over: each of them is to run `scripts` more and to leave. */
void users_finish(unsigned scripts);
bool users_are_done(void);
/* The owner that was told this key; 0: nobody, yet or any more. */
unsigned users_find_key(const uint8_t key[8]);
/* When one of them will go on by itself; UINT64_MAX: none will. */
uint64_t users_next_us(void);
void users_explain(void);
void users_end(void);

#endif
