/* tls_count.h - how many sessions of TLS there are, whoever has made them: the linker (--wrap) puts these two functions
 * between everybody and crypto/tls.h. */
#ifndef TESTS_SIM_TLS_COUNT_H
#define TESTS_SIM_TLS_COUNT_H

unsigned tls_session_count(void);

#endif
