/* world_session.h - a simulated PostgreSQL: its backends, each with one connection.
 *
 * It checks what a real one could not: whether somebody else's question enters an open transaction,
 * batch or COPY, or a session that was not reset, and whether a question comes to the database and
 * the user that its owner asked for. */
#ifndef TESTS_SIM_WORLD_SESSION_H
#define TESTS_SIM_WORLD_SESSION_H

#include "world.h"

/* Begins to serve at world.server_addresses. */
void sessions_begin(void);
/* Each does what it can do now. */
void sessions_step(void);
/* When one of them will go on by itself; UINT64_MAX: none will. */
uint64_t sessions_next_us(void);
/* One of them runs this question, a sleep. */
bool sessions_sleep_for(unsigned owner, unsigned number);
/* Those that are slow are so no longer. */
void sessions_hurry(void);
/* None of them is about to end by itself. */
bool sessions_are_well(void);
unsigned sessions_count(void);
void sessions_explain(void);
/* The pooler has closed its ends: forgets what is left. */
void sessions_end(void);

#endif
