#!/usr/bin/python3
"""Tests the tester: plants one mistake at a time in the sources; the simulation must find each.

    mutants.py BUILD [NAME ...]        called by `make sim-mutants`, which has built BUILD and sets CC, FLAGS, LIBS

A mutant is one replacement in one file. Its object is linked before the library, so only that file is compiled
again. A text that is no longer there is an error: then the mutant has to be moved to where the code went.
"""
import os
import pathlib
import re
import shlex
import subprocess
import sys

SEEDS = 20000

# name, file, what stands there, what is to stand there
# Not in the list: that a place which has become free, and a welcome, are told to other shards. Without it they find it
# three times a second, and the simulation has no word for "late" there.
MUTANTS = [
    ("worker_sleeps_over_its_letters", "worker/worker.c",
     "    if (atomic_load_explicit(&worker->mailbox.last, memory_order_seq_cst) != NULL)\n        deadline_us = 0;\n",
     ""),
    ("nobody_rings", "worker/worker.c",
     "if (atomic_load_explicit(&to->asleep, memory_order_seq_cst))", "if (false)"),
    # The five of every review: a lost wake-up, a double release, a wrong head, a missing unref, an off-by-one.
    ("lost_wake_up_of_a_lender", "pool/lending.c",
     "        if (shard_want(set, pool->shard_index, more))\n            poke_owners(pool);",
     "        if (shard_want(set, pool->shard_index, more) && more > 1)\n            poke_owners(pool);"),
    ("double_release_of_a_servers_place", "pool/server.c",
     "    if (!server->has_left_pool)\n        usage_give(&pool->set->server_count);",
     "    usage_give(&pool->set->server_count);"),
    ("wrong_head_of_the_waiters", "pool/pool.c",
     "waiter = list_front(&pool->waiting_clients);\n    if (waiter != NULL) {",
     "waiter = list_back(&pool->waiting_clients);\n    if (waiter != NULL) {"),
    ("missing_unref_of_a_lent_servers_parameters", "pool/server.c",
     "    params_release(&core->params, server->params);\n    gather_release(server);\n    server_become(server, SERVER_FREE);",
     "    gather_release(server);\n    server_become(server, SERVER_FREE);"),
    ("pool_opens_one_too_many", "pool/pool.c",
     "if (!usage_take(&pool->set->server_count, size)) {", "if (!usage_take(&pool->set->server_count, size + 1)) {"),
    # Lending and what the shards share.
    ("waiter_gone_stays_wanted", "pool/client.c", "    if (was_waiting)\n        lending_update(pool);\n", ""),
    ("idle_server_is_not_offered", "pool/pool.c", "    lending_serve(pool);\n    arm_maintenance(pool);", "    arm_maintenance(pool);"),
    ("lost_loan_is_not_wanted_again", "pool/lending.c", "    (void)!shard_want(pool->set, index, 1);\n", ""),
    ("lender_keeps_whom_it_owes", "pool/lending.c",
     "oldest_us + LENDING_PASS_OVER_US >= first->wait_since_us", "oldest_us + 1000 * LENDING_PASS_OVER_US >= first->wait_since_us"),
    ("lent_servers_key_is_forgotten", "pool/server.c", "    memcpy(server->key, lent->key, sizeof(server->key));\n", ""),
    ("borrowed_server_survives_a_reconnect", "pool/server.c", "lender_generation < server_core(server)->generation) {", "false) {"),
    ("limit_of_the_database_leaks", "pool/pool.c",
     "    if (!take_limit(pool, true, for_client)) {\n        usage_give(&pool->database_usage->server_count);\n",
     "    if (!take_limit(pool, true, for_client)) {\n"),
    ("free_server_passes_the_waiters_by", "pool/pool.c",
     "waiter = list_front(&pool->waiting_clients);\n    if (waiter != NULL) {",
     "waiter = list_front(&pool->waiting_clients);\n    if (waiter != NULL && pool->waiting_count > 1) {"),
    ("login_limits_are_given_back_twice", "pool/login.c",
     "    client->counts_in_database = client->user_usage != NULL && client->database_usage != NULL;\n", ""),
    ("unknown_cancel_stops_at_the_second_core", "pool/login.c",
     "if (++handover->hop_count < core->count) {", "if (++handover->hop_count < 2) {"),
    ("early_question_is_lost_on_the_way", "pool/login.c",
     "if (handover->leftover_bytes > 0 &&", "if (handover->leftover_bytes > 600 &&"),
    ("handover_after_shutdown", "pool/login.c",
     "} else if (core->shutdown != SHUTDOWN_NONE) {\n        /* It began", "} else if (false) {\n        /* It began"),
    ("reload_forgets_scram_keys", "pool/core.c",
     "strcmp(user_before->secret, pool->user_config->secret) != 0)", "true)"),
    ("resume_forgets_a_database", "pool/core.c",
     "        if (flags != NULL)\n            flags->is_paused = false;", "        if (flags == NULL)\n            return;"),
    ("last_words_do_not_end_the_client", "pool/server.c",
     "server->looks_at_body = type == 'E' && exchange_is_answered(&server->exchange);",
     "server->looks_at_body = false;"),
    ("server_is_given_away_inside_copy_data", "pool/server.c",
     "if (unlikely(client->frame.body_left > 0 && !client->drops_body))", "if (false)"),
    ("server_is_given_away_inside_a_notice", "pool/server.c",
     "else if (unlikely(is_mid_answer(server)))", "else if (false)"),
    ("session_is_not_reset", "pool/server.c",
     "server->needs_reset = session_over || settings->server_reset_query_always;", "server->needs_reset = false;"),
    ("parameters_are_taken_for_set", "pool/server.c",
     "if (likely(server->params == client->params) ||", "if (likely(server->params != NULL) ||"),
    ("cancel_does_not_hold_its_server", "pool/server.c",
     "} else if (server->cancel_count > 0) {\n        server_become(server, SERVER_CANCELED);",
     "} else if (server->cancel_count > 9) {\n        server_become(server, SERVER_CANCELED);"),
    ("lost_cancel_leaves_its_server_in_use", "pool/cancel.c",
     "if (cancel->is_sent && !delivered && !server->close_needed) {", "if (false) {"),
    ("welcome_is_forgotten_for_the_second", "pool/pool.c",
     "    while (!list_is_empty(&pool->welcome_clients))\n        client_welcome(",
     "    if (!list_is_empty(&pool->welcome_clients))\n        client_welcome("),
]


def run(command, **rest):
    return subprocess.run(command, capture_output=True, text=True, **rest)


def seeds_until_found(build, mutant):
    name, file, old, new = mutant
    source = pathlib.Path("src", file)
    text = source.read_text()
    if text.count(old) != 1:
        sys.exit(f"{name}: the text stands {text.count(old)} times in {source}")
    folder = pathlib.Path(build, "mutants")
    folder.mkdir(parents=True, exist_ok=True)
    changed, binary = folder / f"{name}.c", folder / name
    changed.write_text(text.replace(old, new))
    objects = [str(path) for path in pathlib.Path(build, "tests/sim").glob("world*.o")]
    objects += [f"{build}/tests/sim/test_world.o", f"{build}/tests/sim/ring_sim.o"]
    flags = [flag for flag in shlex.split(os.environ["FLAGS"]) if flag != "-Werror"]
    done = run([os.environ["CC"], *flags, "-o", str(binary), str(changed), *objects,
                f"{build}/libpgsplice.a", *shlex.split(os.environ["LIBS"])])
    if done.returncode != 0:
        sys.exit(f"{name} does not compile:\n{done.stderr}")
    done = run([str(binary), "1", str(SEEDS)])
    found = [int(seed) for seed in re.findall(r"seed (\d+) failed", done.stdout)]
    causes = sorted(set(re.findall(r"broken invariant `(.*)` in", done.stderr)))
    return (min(found) if found else None), causes


def main():
    build, wanted = sys.argv[1], sys.argv[2:]
    missed = []
    for mutant in MUTANTS:
        if wanted and not any(word in mutant[0] for word in wanted):
            continue
        seed, causes = seeds_until_found(build, mutant)
        if seed is None:
            missed.append(mutant[0])
        print(f"{'MISSED' if seed is None else 'found '} {mutant[0]}"
              + (f" by seed {seed}: {'; '.join(causes)[:150]}" if seed is not None else ""), flush=True)
    print(f"{len(missed)} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
