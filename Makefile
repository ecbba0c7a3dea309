# pgsplice. `make help` lists what can be done.
# One file, read from top to bottom: flags, library, program, tests, tools. Variants (sanitizers, fuzzers)
# are the same rules with another BUILD folder and other flags.

BUILD   ?= build
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
PREFIX  ?= /usr/local
DESTDIR ?=

VERSION := 0.1.0

OPTIMIZE  ?= -O2 -g
SANITIZE  ?=
WARNINGS  := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla \
             -Wno-sign-conversion -Wpointer-arith -Wundef -Werror
CPPFLAGS  += -Iinclude -D_GNU_SOURCE -DPGSPLICE_VERSION='"$(VERSION)"'
CFLAGS    += -std=gnu11 $(OPTIMIZE) $(WARNINGS) $(SANITIZE) -fno-strict-aliasing -fstack-protector-strong \
             -pthread -MMD -MP
LDFLAGS   += $(SANITIZE) -pthread
LDLIBS    += -luring -lwolfssl -linih -lidn

# The ring is chosen at link time (include/io/ring.h): the kernel's for the program, the simulated one for
# tests/sim. So it is not in the library.
SOURCES     := $(wildcard src/*/*.c)
RING_SOURCE := src/io/ring_uring.c
LIB_SOURCES := $(filter-out $(RING_SOURCE),$(SOURCES))
LIB_OBJECTS := $(LIB_SOURCES:%.c=$(BUILD)/%.o)
RING_OBJECT := $(RING_SOURCE:%.c=$(BUILD)/%.o)
LIB         := $(BUILD)/libpgsplice.a

UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
RING_TESTS := $(patsubst tests/ring/%.c,$(BUILD)/tests/ring/%,$(wildcard tests/ring/test_*.c))
SIM_TESTS  := $(patsubst tests/sim/%.c,$(BUILD)/tests/sim/%,$(wildcard tests/sim/test_*.c))

.DEFAULT_GOAL := all
.PHONY: all
all: $(BUILD)/pgsplice

$(BUILD)/pgsplice: $(BUILD)/src/main.o $(RING_OBJECT) $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(LIB): $(LIB_OBJECTS)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(RING_OBJECT) $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

.PHONY: unit
unit: $(UNIT_TESTS)
	@for test in $(UNIT_TESTS); do echo "== $$test"; $$test || exit 1; done

# ---- rings and simulation ----
# The contract tests are linked twice: against the kernel's ring and against the simulated one. They, and the
# simulation of conn, need the lower layers only.
SIM_RING_OBJECT := $(BUILD)/tests/sim/ring_sim.o
LOW_OBJECTS     := $(filter $(BUILD)/src/base/% $(BUILD)/src/io/% $(BUILD)/src/conn/%,$(LIB_OBJECTS))
CONTRACT_TESTS  := $(BUILD)/tests/ring/contract_uring $(BUILD)/tests/ring/contract_sim

$(BUILD)/tests/ring/contract_uring: $(BUILD)/tests/ring/test_contract.o $(BUILD)/tests/ring/adapter_uring.o \
                                    $(RING_OBJECT) $(LOW_OBJECTS)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

$(BUILD)/tests/ring/contract_sim: $(BUILD)/tests/ring/test_contract.o $(BUILD)/tests/ring/adapter_sim.o \
                                  $(SIM_RING_OBJECT) $(LOW_OBJECTS)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

$(BUILD)/tests/sim/test_conn_pair: $(BUILD)/tests/sim/test_conn_pair.o $(SIM_RING_OBJECT) $(LOW_OBJECTS)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/tests/sim/test_%: $(BUILD)/tests/sim/test_%.o $(SIM_RING_OBJECT) $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

.PHONY: ring
ring: $(CONTRACT_TESTS)
	@for test in $(CONTRACT_TESTS); do echo "== $$test"; $$test || exit 1; done

# One seed: make sim SEED=n. Build it with ASSERT_SLOW: make sim BUILD=build/sim OPTIMIZE="-O2 -g -DASSERT_SLOW".
.PHONY: sim
sim: $(SIM_TESTS)
	@for test in $(SIM_TESTS); do echo "== $$test"; $$test $(SEED) || exit 1; done
# ---- end of rings and simulation ----
