# Trine. `make run` runs a node, `make check` proves the tree; both install what is missing first.
#
#   make [CC=clang] [SAN=address,undefined | SAN=thread]    everything, objects below build/
#   make run [DIR=./run PORT=2379 PEER_PORT=2380]           one node in the foreground
#   make trio [DIR=./run PORT=2379 PEER_PORT=2380]          three nodes of one cluster, PORT + 0, 10000 and 20000
#   make sim [SEEDS=n SEED=s TRACE=1]    clusters on a simulated clock, network and disk
#   make scenarios      the known hard cases of Raft, message by message
#   make mutants        planted bugs: how many seeds until the simulation finds each
#   make check          units, fuzz slices, end-to-end tests, a short kill loop
#   make rpc-table      every rpc and the tests that call it
#   make bench          side by side with etcd          make soak   the kill loop, 1000 cycles
#   make bench-trio     the same with three members each
#   make node [HISTORIES=200 CYCLES=200]    partitions, pauses and kills of real nodes, the long form
#   make auth-property [CASES=100000 SEED=1]    random roles and requests: nothing outside the granted intervals
#   make clients [SUITES="patroni curl"]    real clients, unchanged, against etcd and then this
#   make abuse          floods, bombs, slow and half-open clients: what they cost the others
#   make fuzz           every decoder, FUZZ_SECONDS each  make fmt lint layers install clean

SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
SAN ?=
# V=1 shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),:,echo "  $(1)  $@")
comma := ,
B := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
PREFIX ?= /usr/local
DIR ?= ./run
PORT ?= 2379
PEER_PORT ?= 2380
FUZZ_SECONDS ?= 60

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wundef
OPT := $(if $(SAN),-O1 -g -fno-omit-frame-pointer -fsanitize=$(SAN) -fno-sanitize-recover=all,-O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong)
CFLAGS += -std=c11 $(WARN) $(OPT) -fPIE -pthread
CPPFLAGS += -D_GNU_SOURCE -I. -I$(B)/gen
LDFLAGS += -pie -Wl,-z,relro,-z,now -Wl,--as-needed -pthread $(if $(SAN),-fsanitize=$(SAN))

DAEMONS := raftd stored gatewayd
PROGRAMS := $(DAEMONS) trinectl

PROTOS := $(wildcard proto/etcd/*.proto)
GEN_C := $(patsubst proto/%.proto,$(B)/gen/%.pb-c.c,$(PROTOS))
GEN_H := $(GEN_C:.c=.h)

objs = $(patsubst %.c,$(B)/obj/%.o,$(1))
COMMON_OBJ := $(call objs,$(wildcard common/*.c))
PROTO_OBJ := $(call objs,$(wildcard proto/*.c)) $(patsubst $(B)/gen/%.c,$(B)/obj/gen/%.o,$(GEN_C))

LIBS_common := -luv -lsystemd -lisal -ljansson -lssl -lcrypto
LIBS_proto := -lnng -lmsgpackc -lprotobuf-c
LIBS_raftd := -lcrypto -luv
# The address sanitizer has a crypt_r of its own, in front of the library's: without it named the linker would leave that one out.
LIB_crypt := -Wl,--push-state,--no-as-needed -lcrypt -Wl,--pop-state
LIBS_stored := -lleveldb -lsodium $(LIB_crypt)
LIBS_gatewayd := -lnghttp2 -lwslay -lnng -luv -ljansson -lsodium -lcrypto
LIBS_trinectl := -lnng -lsmartcols -ljansson

all: $(PROGRAMS:%=$(B)/bin/%) $(B)/bin/etcd $(B)/bin/trine-bench $(B)/bin/trine-ledger $(B)/bin/trine-probe $(B)/bin/trine-lincheck $(B)/bin/trine-abuse $(B)/bin/trine-alter

# --- generated code ---------------------------------------------------------------------------
$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h &: proto/%.proto
	@mkdir -p $(dir $@)
	$(Q)$(call say,PROTO) && protoc-c --proto_path=proto --c_out=$(B)/gen $<
# Headers name each other, so all are made before the first object, and make must not tidy them away as intermediate.
.SECONDARY: $(GEN_C) $(GEN_H)

# --- objects and libraries ----------------------------------------------------------------------
$(B)/obj/%.o: %.c | $(GEN_H)
	@mkdir -p $(dir $@)
	$(Q)$(call say,CC) && $(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(B)/obj/gen/%.o: $(B)/gen/%.c | $(GEN_H)
	@mkdir -p $(dir $@)
	$(Q)$(call say,CC) && $(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(B)/lib/libcommon.a: $(COMMON_OBJ)
$(B)/lib/libproto.a: $(PROTO_OBJ)
$(B)/lib/libtest.a: $(call objs,$(filter-out tests/lib/ramdb.c,$(wildcard tests/lib/*.c)))
$(B)/lib/%.a:
	@mkdir -p $(dir $@)
	@rm -f $@
	$(Q)$(call say,AR) && ar rcs $@ $^

# One library and one program for each of the four; main.c stays out of the library, for the tests.
define program
$(B)/lib/lib$(1).a: $(call objs,$(filter-out $(1)/main.c,$(wildcard $(1)/*.c)))
$(B)/bin/$(1): $(call objs,$(1)/main.c) $(B)/lib/lib$(1).a $(B)/lib/libproto.a $(B)/lib/libcommon.a
	@mkdir -p $$(dir $$@)
	$(Q)$$(call say,LD) && $(CC) $(LDFLAGS) -o $$@ $$^ $(LIBS_$(1)) $(LIBS_proto) $(LIBS_common)
endef
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p))))

# What takes etcd's place: it runs the three daemons.
$(B)/lib/libdropin.a: $(call objs,$(filter-out deploy/etcd/main.c,$(wildcard deploy/etcd/*.c)))
$(B)/bin/etcd: $(call objs,deploy/etcd/main.c) $(B)/lib/libdropin.a $(B)/lib/libcommon.a
	@mkdir -p $(dir $@)
	$(Q)$(call say,LD) && $(CC) $(LDFLAGS) -o $@ $^ -lyaml $(LIBS_common)

$(B)/bin/trine-bench: $(call objs,$(wildcard tests/bench/*.c)) $(B)/lib/libtest.a $(B)/lib/libproto.a $(B)/lib/libcommon.a
	@mkdir -p $(dir $@)
	$(Q)$(call say,LD) && $(CC) $(LDFLAGS) -o $@ $^ -lnghttp2 -ljansson -lm $(LIBS_proto) $(LIBS_common)

$(B)/bin/trine-ledger $(B)/bin/trine-probe $(B)/bin/trine-lincheck $(B)/bin/trine-abuse: $(B)/bin/trine-%: $(B)/obj/tests/node/%.o $(B)/lib/libtest.a $(B)/lib/libproto.a $(B)/lib/libcommon.a
	@mkdir -p $(dir $@)
	$(Q)$(call say,LD) && $(CC) $(LDFLAGS) -o $@ $^ -lnghttp2 $(LIBS_proto) $(LIBS_common)

$(B)/bin/trine-alter: $(B)/obj/tests/node/alter.o $(B)/lib/libstored.a $(B)/lib/libproto.a $(B)/lib/libcommon.a
	@mkdir -p $(dir $@)
	$(Q)$(call say,LD) && $(CC) $(LDFLAGS) -o $@ $^ $(LIBS_stored) $(LIBS_common)

# --- tests --------------------------------------------------------------------------------------
# libnng exports nanomsg's symbols; Criterion must find nanomsg's own first, hence the odd front of the list.
CRITERION := -Wl,--push-state,--no-as-needed -lnanomsg -Wl,--pop-state -lcriterion
UNIT_SRC := $(wildcard tests/common/test_*.c tests/proto/test_*.c tests/raftd/test_*.c tests/stored/test_*.c tests/gatewayd/test_*.c tests/selftest/test_*.c)
UNITS := $(patsubst tests/%.c,$(B)/tests/%,$(UNIT_SRC))
NODE_C := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/node/test_*.c))
testlib = $(filter $(B)/lib/libraftd.a $(B)/lib/libstored.a $(B)/lib/libgatewayd.a,$(B)/lib/lib$(1).a)

.SECONDEXPANSION:
$(UNITS): $(B)/tests/%: $(B)/obj/tests/%.o $(B)/lib/libtest.a $$(call testlib,$$(firstword $$(subst /, ,$$*))) $(B)/lib/libproto.a $(B)/lib/libcommon.a
	@mkdir -p $(dir $@)
	$(Q)$(call say,LD) && $(CC) $(LDFLAGS) -o $@ $^ $(CRITERION) -lnghttp2 $(LIBS_raftd) $(LIBS_stored) $(LIBS_gatewayd) $(LIBS_proto) $(LIBS_common) -lm
$(NODE_C): $(B)/tests/%: $(B)/obj/tests/%.o $(B)/lib/libtest.a $(B)/lib/libproto.a $(B)/lib/libcommon.a
	@mkdir -p $(dir $@)
	$(Q)$(call say,LD) && $(CC) $(LDFLAGS) -o $@ $^ -lnghttp2 $(LIBS_proto) $(LIBS_common) -lm

units: $(UNITS)
nodes: $(NODE_C)

# Fuzzers are built by clang with everything instrumented, in a folder of their own. Their flag comes by the environment:
# as an argument of make it would replace all other flags.
fuzzers:
	CFLAGS=-fsanitize=fuzzer-no-link $(MAKE) CC=clang B=build/fuzz SAN=address,undefined fuzz-bins
fuzz-bins: $(patsubst tests/fuzz/%.c,$(B)/bin/%,$(wildcard tests/fuzz/fuzz_*.c))
.SECONDARY: $(patsubst %.c,$(B)/obj/%.o,$(wildcard tests/fuzz/fuzz_*.c))
$(B)/bin/fuzz_%: $(B)/obj/tests/fuzz/fuzz_%.o $(B)/lib/libraftd.a $(B)/lib/libstored.a $(B)/lib/libgatewayd.a $(B)/lib/libdropin.a $(B)/lib/libproto.a $(B)/lib/libcommon.a
	@mkdir -p $(dir $@)
	$(Q)$(call say,LD) && $(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ -lyaml -lnghttp2 $(LIBS_raftd) $(LIBS_stored) $(LIBS_gatewayd) $(LIBS_proto) $(LIBS_common) -lm

fuzz: deps fuzzers
	tests/fuzz/run.sh $(FUZZ_SECONDS)

# --- simulation ---------------------------------------------------------------------------------
# stored's keyspace comes without LevelDB: tests/lib/ramdb.c takes the place of db.c.
# --wrap: what ends a daemon ends one simulated member, and a broken must() is told with its seed (tests/sim/sim.c).
SIM_STORED := $(call objs,$(filter-out stored/db.c stored/db_%.c stored/main.c,$(wildcard stored/*.c)) tests/lib/ramdb.c)
SIM_WRAP := -Wl,--wrap=fatal,--wrap=fatalx,--wrap=must_failed
SIM_LIBS := $(LIBS_raftd) -lsodium $(LIB_crypt) $(LIBS_proto) $(LIBS_common) -lm
# Both daemons have a struct entry: of stored only mvcc.h is to be seen.
$(B)/obj/tests/sim/stored.o: $(SIM_STORED)
	$(Q)$(call say,LD) && ld -r -o $@.all $^ && \
	  objcopy --wildcard --keep-global-symbol='mvcc_*' --keep-global-symbol='ramdb_*' $@.all $@ && rm -f $@.all
$(B)/bin/sim: $(call objs,$(wildcard tests/sim/*.c)) $(B)/obj/tests/sim/stored.o $(B)/lib/libraftd.a $(B)/lib/libproto.a $(B)/lib/libcommon.a
	@mkdir -p $(dir $@)
	$(Q)$(call say,LD) && $(CC) $(LDFLAGS) $(SIM_WRAP) -o $@ $^ $(SIM_LIBS)

SEEDS ?= 200
SEED ?= 1
sim: $(B)/bin/sim
	@$(B)/bin/sim $(if $(TRACE),--trace --seed=$(SEED),--seeds=$(if $(filter command line,$(origin SEED)),$(if $(filter command line,$(origin SEEDS)),$(SEEDS),1),$(SEEDS)) --seed=$(SEED))
scenarios: $(B)/bin/sim
	@$(B)/bin/sim --scenario tests/sim/scenarios/*.txt

MUTANT_SEEDS ?= 3000
MUTANTS ?= all
mutants: $(B)/bin/sim
	@CC="$(CC)" FLAGS="$(CPPFLAGS) $(CFLAGS)" LINK="$(LDFLAGS) $(SIM_WRAP)" LIBS="$(SIM_LIBS)" \
	  tests/sim/mutants.sh $(B) $(MUTANT_SEEDS) $(MUTANTS)

# --- what a person types ------------------------------------------------------------------------
deps:
	@deploy/deps.sh

# deps may have just installed protoc-c and headers: a fresh make sees them.
run: deps
	@$(MAKE) --no-print-directory all
	@exec deploy/node.sh --dir '$(DIR)' --port '$(PORT)' --peer-port '$(PEER_PORT)' --bin $(B)/bin

# Three nodes of one cluster below DIR: ports 2379 12379 22379 for clients, 2380 12380 22380 between them, unless told otherwise.
plus = $(1) $(shell echo $$(($(1) + 10000)) $$(($(1) + 20000)))
trio: deps
	@$(MAKE) --no-print-directory all
	@exec deploy/trio.sh --dir '$(DIR)' --ports '$(call plus,$(PORT))' --peer-ports '$(call plus,$(PEER_PORT))' --bin $(B)/bin

check: deps
	@$(MAKE) --no-print-directory all units nodes fuzzers $(B)/bin/sim
	@tests/run.sh $(B)

# Every rpc and the tests that call it, over gRPC and over JSON, as Markdown.
rpc-table:
	@tests/rpc_table.sh

bench: deps
	@$(MAKE) --no-print-directory all
	@tests/bench/run.sh $(B)/bin

# Hostile clients beside a well-behaved one, whose p99 and the daemons' memory are judged.
abuse: deps
	@$(MAKE) --no-print-directory all
	@TRINE_BUILD=$(B) $(B)/bin/trine-abuse

soak: deps
	@$(MAKE) --no-print-directory all nodes
	@CYCLES=$${CYCLES:-1000} tests/node/kill_loop.sh $(B)

# The long form of the tests with three and five real nodes: HISTORIES recorded ones under partitions, a quarter of them with five
# nodes, then the leader killed CYCLES times.
node: deps
	@$(MAKE) --no-print-directory all
	@NODES=3 HISTORIES=$$(($${HISTORIES:-200} * 3 / 4)) tests/node/partition.sh $(B)
	@NODES=5 HISTORIES=$$(($${HISTORIES:-200} - $${HISTORIES:-200} * 3 / 4)) tests/node/partition.sh $(B)
	@CYCLES=$${CYCLES:-200} TERMS=$${TERMS:-20} ELECTION=$${ELECTION:-1000} tests/node/kill_cluster.sh $(B)

# Random roles and nested requests against a naive model of who may do what.
auth-property: deps
	@$(MAKE) --no-print-directory $(B)/tests/stored/test_authorize_model
	CASES=$${CASES:-100000} TRINE_SEED=$(SEED) $(B)/tests/stored/test_authorize_model

# Real clients, unchanged, against etcd and then Trine (SUITES="patroni curl": only these); installs them first.
clients: deps
	@$(MAKE) --no-print-directory all
	@tests/clients/run.sh $(B) $(SUITES)

bench-trio: deps
	@$(MAKE) --no-print-directory all
	@tests/bench/trio.sh $(B)/bin

fmt:
	clang-format -i $$(git ls-files '*.c' '*.h')

lint: all
	clang-tidy --quiet $$(git ls-files 'common/*.c' 'proto/*.c' 'raftd/*.c' 'stored/*.c' 'gatewayd/*.c' 'trinectl/*.c' 'deploy/etcd/*.c') -- $(CPPFLAGS) -std=c11
	shellcheck -x $$(git ls-files '*.sh') .ci/run

layers:
	@for d in common proto $(PROGRAMS) deploy/etcd; do \
	  printf '%-10s includes: ' $$d; \
	  grep -hoE '#include "(common|proto|raftd|stored|gatewayd|trinectl|deploy/etcd)/' $$d/*.[ch] | sed 's/.*"//; s,/$$,,' | sort -u | grep -v "^$$d$$" | tr '\n' ' '; echo; \
	done

install: all
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/trine $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/man/man5 $(DESTDIR)/etc/trine $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/sysusers.d
	install -m 755 $(DAEMONS:%=$(B)/bin/%) $(DESTDIR)$(PREFIX)/sbin
	install -m 755 $(B)/bin/trinectl $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(B)/bin/etcd $(DESTDIR)$(PREFIX)/lib/trine
	install -m 644 $(wildcard $(foreach p,$(PROGRAMS),$(p)/$(p).8)) deploy/etcd/trine-etcd.8 $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 644 deploy/trine.conf.5 $(DESTDIR)$(PREFIX)/share/man/man5
	test -e $(DESTDIR)/etc/trine/trine.conf || install -m 644 deploy/trine.conf $(DESTDIR)/etc/trine/trine.conf
	install -m 644 deploy/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/trine.conf
	for u in deploy/systemd/*; do sed 's,@SBINDIR@,$(PREFIX)/sbin,g' $$u > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$(basename $$u); done

clean:
	rm -rf build

.PHONY: abuse all run trio check sim scenarios mutants rpc-table auth-property bench bench-trio soak node clients fuzz fuzzers fuzz-bins units nodes deps fmt lint layers install clean
-include $(shell test -d $(B)/obj && find $(B)/obj -name '*.d')
