# pgsplice. `make help` lists what can be done.
# One file, read from top to bottom: flags, library, program, tests, tools. Variants (sanitizers, fuzzers)
# are the same rules with another BUILD folder and other flags.

BUILD   ?= build
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
PREFIX  ?= /usr/local
DESTDIR ?=

VERSION := 0.1.0

# Ways to check passwords that cost a library each; 0 leaves it out (in a BUILD folder of its own).
WITH_PAM  ?= 1
WITH_LDAP ?= 1

# The TLS library. `own`: made from Debian's source package with tests/setup/wolfssl_options.h, once, for all BUILD
# folders; `system`: Debian's package, with no assembly in it and much more memory for a session.
WOLFSSL     ?= own
WOLFSSL_DIR ?= build/wolfssl

OPTIMIZE  ?= -O2 -g
SANITIZE  ?=
WARNINGS  := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla \
             -Wno-sign-conversion -Wpointer-arith -Wundef -Werror
CPPFLAGS  += -Iinclude -D_GNU_SOURCE -DPGSPLICE_VERSION='"$(VERSION)"' \
             -DBUILD_HAS_PAM=$(WITH_PAM) -DBUILD_HAS_LDAP=$(WITH_LDAP) $(WOLFSSL_FLAGS)
CFLAGS    += -std=gnu11 $(OPTIMIZE) $(WARNINGS) $(SANITIZE) -fno-strict-aliasing -fstack-protector-strong \
             -pthread -MMD -MP
LDFLAGS   += $(SANITIZE) -pthread
LDLIBS    ?= -luring $(WOLFSSL_LIBS) -linih -lidn -lsystemd -lcares $(PAM_LIBS) $(LDAP_LIBS)

PAM_LIBS  := $(if $(filter 1,$(WITH_PAM)),-lpam)
LDAP_LIBS := $(if $(filter 1,$(WITH_LDAP)),-lldap -llber)

# Its options come before the first line of each file: the sizes of its structs depend on them. A change of it makes
# everything anew, by a file that names what is built with.
WOLFSSL_MARK := $(BUILD)/wolfssl.mark
ifeq ($(WOLFSSL),own)
WOLFSSL_FLAGS := -isystem $(WOLFSSL_DIR)/include -include wolfssl/options.h -DPGSPLICE_WOLFSSL_OWN=1
WOLFSSL_LIBS  := $(WOLFSSL_DIR)/lib/libwolfssl.a -lm
WOLFSSL_STAMP := $(WOLFSSL_DIR)/stamp
else ifeq ($(WOLFSSL),system)
WOLFSSL_FLAGS := -include wolfssl/options.h -DPGSPLICE_WOLFSSL_OWN=0
WOLFSSL_LIBS  := -lwolfssl
else
$(error WOLFSSL is own or system, not "$(WOLFSSL)")
endif

# V=1 shows the commands.
Q := $(if $(V),,@)

# The ring is chosen at link time (include/io/ring.h): the kernel's for the program, the simulated one for
# tests/sim. So it is not in the library.
SOURCES     := $(wildcard src/*/*.c)
RING_SOURCE := src/io/ring_uring.c
LIB_SOURCES := $(filter-out $(RING_SOURCE) $(if $(PAM_LIBS),,src/control/pam_check.c) \
                 $(if $(LDAP_LIBS),,src/control/ldap_check.c),$(SOURCES))
LIB_OBJECTS := $(LIB_SOURCES:%.c=$(BUILD)/%.o)
RING_OBJECT := $(RING_SOURCE:%.c=$(BUILD)/%.o)
LIB         := $(BUILD)/libpgsplice.a

UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
RING_TESTS := $(patsubst tests/ring/%.c,$(BUILD)/tests/ring/%,$(wildcard tests/ring/test_*.c))
SIM_TESTS  := $(patsubst tests/sim/%.c,$(BUILD)/tests/sim/%,$(wildcard tests/sim/test_*.c))

.DEFAULT_GOAL := all
.PHONY: all
all: packages-build ## builds build/pgsplice (the default)
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/pgsplice

.PHONY: packages-build
packages-build:
	@tests/setup/install.sh build
ifeq ($(WOLFSSL),own)
	@tests/setup/wolfssl.sh $(WOLFSSL_DIR)

$(WOLFSSL_STAMP): tests/setup/wolfssl.sh tests/setup/wolfssl_options.h
	@tests/setup/wolfssl.sh $(WOLFSSL_DIR)

.PHONY: wolfssl
wolfssl: ## looks for a newer source of the TLS library, and builds that
	@tests/setup/wolfssl.sh $(WOLFSSL_DIR) --update
endif

.PHONY: always
always:

$(WOLFSSL_MARK): $(WOLFSSL_STAMP) always
	@mkdir -p $(@D)
	@{ echo $(WOLFSSL_FLAGS); $(if $(WOLFSSL_STAMP),cat $<,dpkg-query -W libwolfssl-dev); } > $@.new
	@cmp -s $@.new $@ || cp $@.new $@; rm $@.new

$(BUILD)/pgsplice: $(BUILD)/src/main.o $(RING_OBJECT) $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(LIB): $(LIB_OBJECTS)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(BUILD)/%.o: %.c Makefile $(WOLFSSL_MARK)
	@mkdir -p $(@D)
	@echo "  CC $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(RING_OBJECT) $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

.PHONY: unit
unit: $(UNIT_TESTS) ## the unit tests
	@for test in $(UNIT_TESTS); do echo "== $$test"; $$test || exit 1; done

# ---- rings and simulation ----
# The contract tests are linked twice: against the kernel's ring and against the simulated one. They, and the
# simulation of conn, need the lower layers only.
SIM_RING_OBJECT := $(BUILD)/tests/sim/ring_sim.o
SIM_WORLD_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/sim/world*.c))
LOW_OBJECTS     := $(filter $(BUILD)/src/base/% $(BUILD)/src/io/% $(BUILD)/src/conn/% $(BUILD)/src/crypto/%,$(LIB_OBJECTS))
CONTRACT_TESTS  := $(BUILD)/tests/ring/contract_uring $(BUILD)/tests/ring/contract_sim

$(BUILD)/tests/ring/contract_uring: $(BUILD)/tests/ring/test_contract.o $(BUILD)/tests/ring/adapter_uring.o \
                                    $(RING_OBJECT) $(LOW_OBJECTS)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

$(BUILD)/tests/ring/contract_sim: $(BUILD)/tests/ring/test_contract.o $(BUILD)/tests/ring/adapter_sim.o \
                                  $(SIM_RING_OBJECT) $(LOW_OBJECTS)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

$(BUILD)/tests/sim/test_conn_pair: $(BUILD)/tests/sim/test_conn_pair.o $(SIM_RING_OBJECT) $(LOW_OBJECTS)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/tests/sim/test_hba_login: $(BUILD)/tests/sim/test_hba_login.o $(SIM_RING_OBJECT) $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/tests/sim/test_login: $(BUILD)/tests/sim/test_login.o $(SIM_RING_OBJECT) $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# Every session of TLS is counted, whoever makes it.
SIM_COUNT_OBJECT := $(BUILD)/tests/sim/tls_count.o
SIM_WRAP := -Wl,--wrap=tls_create,--wrap=tls_destroy

$(BUILD)/tests/sim/test_world: $(BUILD)/tests/sim/test_world.o $(SIM_WORLD_OBJECTS) $(SIM_RING_OBJECT) \
                               $(SIM_COUNT_OBJECT) $(LIB)
	$(Q)$(CC) $(LDFLAGS) $(SIM_WRAP) -o $@ $^ $(LDLIBS)

$(BUILD)/tests/sim/test_tls: $(BUILD)/tests/sim/test_tls.o $(SIM_RING_OBJECT) $(SIM_COUNT_OBJECT) $(LIB)
	$(Q)$(CC) $(LDFLAGS) $(SIM_WRAP) -o $@ $^ $(LDLIBS)

.PHONY: ring
ring: $(CONTRACT_TESTS) ## both rings keep the same contract
	@for test in $(CONTRACT_TESTS); do echo "== $$test"; $$test || exit 1; done

# SEED=n replays one seed of the world with its trace; SEEDS=n runs so many of it. Either is best built with
# ASSERT_SLOW, as `make check` does it: make sim BUILD=build/sim OPTIMIZE="-O2 -g -DASSERT_SLOW".
SIM_WORLD := $(BUILD)/tests/sim/test_world
.PHONY: sim
sim: $(SIM_TESTS) ## the state machines on the simulated ring; SEEDS=n so many, SEED=n replays one
ifdef SEED
	SIM_LOG=1 $(SIM_WORLD) $(SEED)
else
	@for test in $(filter-out $(SIM_WORLD),$(SIM_TESTS)); do echo "== $$test"; $$test || exit 1; done
	@echo "== $(SIM_WORLD)"
	@$(SIM_WORLD) $(if $(SEEDS),$(or $(FIRST),1) $(SEEDS))
endif

.PHONY: sim-million
sim-million: ## a million seeds of the simulation, on all cores: an hour and a quarter on two of them
	@$(MAKE) --no-print-directory sim BUILD=$(BUILD)/sim OPTIMIZE="-O2 -g -DASSERT_SLOW" SEEDS=1000000

.PHONY: sim-mutants
sim-mutants: ## tests the simulation: each mistake of a list must be found
	@$(MAKE) --no-print-directory $(BUILD)/sim/tests/sim/test_world BUILD=$(BUILD)/sim OPTIMIZE="-O2 -g -DASSERT_SLOW"
	@CC="$(CC)" FLAGS='$(CPPFLAGS) -std=gnu11 -O2 -g -DASSERT_SLOW -fno-strict-aliasing -pthread' LIBS="$(LDLIBS) $(SIM_WRAP)" \
	    /usr/bin/python3 tests/sim/mutants.py $(BUILD)/sim $(MUTANT)
# ---- end of rings and simulation ----

# ---- what a person types ----
.PHONY: run
run: ## scratch PostgreSQL + pooler on 6432, proved with pgbench, until Ctrl-C; CONFIG=file serves that instead
	@tests/setup/install.sh build run
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/pgsplice
	@tests/setup/run.sh $(BUILD)/pgsplice $(BUILD) $(CONFIG)

.PHONY: check
check: ## all tests: unit, ring contract, simulation, integration, layers, sanitizers; under ten minutes
	@tests/setup/install.sh build run check
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/pgsplice $(UNIT_TESTS) $(CONTRACT_TESTS)
	@$(MAKE) --no-print-directory unit ring
	@$(MAKE) --no-print-directory -j$$(nproc) sim BUILD=$(BUILD)/sim OPTIMIZE="-O2 -g -DASSERT_SLOW"
	@$(MAKE) --no-print-directory -j$$(nproc) asan-unit
	@$(MAKE) --no-print-directory tidy man integration

.PHONY: asan-unit
asan-unit: ## the unit tests with address and undefined sanitizers
	@$(MAKE) --no-print-directory unit BUILD=$(BUILD)/asan OPTIMIZE="-O2 -g -DASSERT_SLOW" \
	    SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=undefined"

.PHONY: check-sanitizers
check-sanitizers: ## the integration tests on address/undefined, and a part of them on thread sanitizer builds
	@tests/setup/install.sh build run check
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/asan/pgsplice BUILD=$(BUILD)/asan \
	    OPTIMIZE="-O2 -g -DASSERT_SLOW" SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/tsan/pgsplice BUILD=$(BUILD)/tsan \
	    OPTIMIZE="-O2 -g -Wno-tsan" SANITIZE="-fsanitize=thread"
	ASAN_OPTIONS=detect_leaks=0 PGSPLICE_BIN=$(abspath $(BUILD)/asan/pgsplice) \
	    /usr/bin/python3 tests/integration/runner.py --jobs 2
	TSAN_OPTIONS=halt_on_error=1 PGSPLICE_BIN=$(abspath $(BUILD)/tsan/pgsplice) \
	    /usr/bin/python3 tests/integration/runner.py --jobs 2 workers. auth. cancel. console.

.PHONY: integration
integration: $(BUILD)/pgsplice $(BUILD)/pgsplice.ini.5 ## clients through the pooler to a real PostgreSQL
	PGSPLICE_BIN=$(abspath $(BUILD)/pgsplice) /usr/bin/python3 tests/integration/runner.py --jobs 2 --again

.PHONY: check-tls
check-tls: $(BUILD)/pgsplice $(BUILD)/pgsplice.ini.5 ## the integration tests once more, with every TCP connection in TLS
	PGSPLICE_BIN=$(abspath $(BUILD)/pgsplice) /usr/bin/python3 tests/integration/runner.py --jobs 2 --again --tls

.PHONY: check-drivers
check-drivers: ## each driver straight, through session and transaction mode, compared; DRIVERS="psycopg jdbc" runs some
	@tests/setup/install.sh build run
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/pgsplice
	PGSPLICE_BIN=$(abspath $(BUILD)/pgsplice) /usr/bin/python3 tests/drivers/runner.py $(DRIVERS)

# Fuzz targets read foreign bytes: most of them in the lower layers only, three through the pools, on rings of their
# own. Found inputs are kept under build/fuzz/NAME.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SOURCES := $(filter src/base/% src/config/% src/wire/% src/crypto/%,$(LIB_SOURCES))

$(BUILD)/fuzz/bin/%: tests/fuzz/%.c $(FUZZ_SOURCES) $(WOLFSSL_MARK)
	@mkdir -p $(@D)
	@echo "  CLANG $@"
	$(Q)clang $(CPPFLAGS) -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	    -DASSERT_SLOW -o $@ $(filter %.c,$^) $(WOLFSSL_LIBS) -linih -lidn

$(BUILD)/fuzz/bin/fuzz_statements: $(filter src/io/% src/conn/% src/pool/%,$(LIB_SOURCES))
$(BUILD)/fuzz/bin/fuzz_tls $(BUILD)/fuzz/bin/fuzz_sharing: $(filter src/io/% src/conn/% src/pool/%,$(LIB_SOURCES)) tests/sim/ring_sim.c
$(BUILD)/fuzz/bin/fuzz_console: src/control/console_command.c src/control/console_message.c src/control/show.c

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZ_SECONDS
	@tests/setup/install.sh build fuzz
	@$(MAKE) --no-print-directory $(FUZZ_TARGETS:%=$(BUILD)/fuzz/bin/%)
	@for target in $(FUZZ_TARGETS); do \
	    mkdir -p $(BUILD)/fuzz/$$target; echo "== $$target"; \
	    $(BUILD)/fuzz/bin/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -print_final_stats=0 -verbosity=0 \
	        -artifact_prefix=$(BUILD)/fuzz/ $(BUILD)/fuzz/$$target tests/fuzz/corpus/$${target#fuzz_} || exit 1; \
	done

.PHONY: bench
bench: ## pgsplice against PgBouncer and plain PostgreSQL; BENCH_ARGS="--quick" for a look
	@tests/setup/install.sh build run bench
	@$(MAKE) --no-print-directory $(BUILD)/pgsplice $(BUILD)/bench/storm $(BUILD)/bench/tls_storm $(BUILD)/bench/tls_storm_own \
	    $(BUILD)/bench/malloc_count.so $(BUILD)/bench/atomic_count.so
	@$(MAKE) --no-print-directory $(BUILD)/atomics/pgsplice BUILD=$(BUILD)/atomics \
	    OPTIMIZE="-O2 -g -fno-inline-atomics" LDLIBS="$(LDLIBS) -latomic"
	/usr/bin/python3 bench/bench.py --pgsplice $(BUILD)/pgsplice --atomics $(BUILD)/atomics/pgsplice \
	    --out $(BUILD)/bench $(BENCH_ARGS)

# OpenSSL, as libpq's: so neither the library nor wolfSSL is linked to it.
$(BUILD)/bench/tls_storm: $(BUILD)/bench/tls_storm.o $(BUILD)/bench/tls_client_openssl.o
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lssl -lcrypto

$(BUILD)/bench/storm: $(BUILD)/bench/storm.o $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/bench/tls_storm_own: $(BUILD)/bench/tls_storm.o $(BUILD)/bench/tls_client_own.o $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/bench/tls_library: $(BUILD)/bench/tls_library.o $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/bench/%_count.so: bench/%_count.c Makefile $(WOLFSSL_MARK)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -O2 -fPIC -shared -o $@ $< -ldl

.PHONY: reference
reference: $(BUILD)/settings_reference ## makes conf/SETTINGS.md anew from the settings table
	$< > conf/SETTINGS.md

$(BUILD)/settings_reference: $(BUILD)/tests/tools/settings_reference.o $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# The manual page of settings: prose by hand, lists from the tables.
$(BUILD)/pgsplice.ini.5: conf/pgsplice.ini.5.in $(BUILD)/settings_reference
	$(Q)$(BUILD)/settings_reference --mdoc > $@.lists
	$(Q)sed -e '/^SETTINGS$$/{r $@.lists' -e 'd}' $< > $@
	$(Q)rm $@.lists

.PHONY: man
man: $(BUILD)/pgsplice.ini.5 ## the manual pages, in the build folder

DOC := $(DESTDIR)$(PREFIX)/share/doc/pgsplice
MAN := $(DESTDIR)$(PREFIX)/share/man

.PHONY: install
install: $(BUILD)/pgsplice $(BUILD)/pgsplice.ini.5 ## into DESTDIR and PREFIX: program, manual pages, samples
	install -D -m 755 $(BUILD)/pgsplice $(DESTDIR)$(PREFIX)/bin/pgsplice
	install -D -m 644 conf/pgsplice.8 $(MAN)/man8/pgsplice.8
	install -D -m 644 $(BUILD)/pgsplice.ini.5 $(MAN)/man5/pgsplice.ini.5
	install -D -m 644 -t $(DOC) README.md $(filter-out %.8 %.in,$(wildcard conf/*.*))
	install -D -m 644 -t $(DOC)/examples $(wildcard conf/examples/*)

.PHONY: format
format: ## clang-format over the sources
	@tests/setup/install.sh lint
	clang-format -i $$(git ls-files '*.c' '*.h')

.PHONY: lint
lint: $(WOLFSSL_MARK) ## clang-tidy and cppcheck
	@tests/setup/install.sh build lint
	cppcheck --quiet --error-exitcode=1 --inline-suppr --enable=warning,portability --suppress=normalCheckLevelMaxBranches -Iinclude -D_GNU_SOURCE src
	clang-tidy --quiet --checks='-*,bugprone-*,clang-analyzer-*,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier,-clang-analyzer-security.insecureAPI.*,-bugprone-assignment-in-if-condition,-bugprone-macro-parentheses' $(LIB_SOURCES) -- $(CPPFLAGS) -std=gnu11

.PHONY: tidy
tidy: ## every include goes down a layer
	@/usr/bin/python3 tests/setup/check_layers.py

.PHONY: clean
clean: ## removes the build folder, but not the TLS library in it, which takes a network
	@mkdir -p $(BUILD)
	find $(abspath $(BUILD)) -mindepth 1 -maxdepth 1 ! -path $(abspath $(WOLFSSL_DIR)) -exec rm -rf {} +

.PHONY: distclean
distclean: ## removes the build folder and the TLS library
	rm -rf $(BUILD) $(WOLFSSL_DIR)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
