"""Several worker threads are one pooler: limits, order and promises are those of the process."""

import os
import time

import pgwire
from harness import eventually, ours, refused, same, slow, within
from pgwire import query
from test_isolation import converse

FOUR = "[pgsplice]\nworker_threads = 4\n"


@ours
def test_number_of_workers_is_the_configured_one(t):
    counts = []
    for workers in (1, 4):
        pooler = t.pooler(extra=f"[pgsplice]\nworker_threads = {workers}\n")
        pooler.usable()
        folder = f"/proc/{pooler.process.pid}/task"
        names = [open(f"{folder}/{task}/comm").read() for task in os.listdir(folder)]
        counts.append(len([name for name in names if not name.startswith("iou-")]))  # the kernel's
    same(counts[1] - counts[0], 3)


@ours
@slow(30)
def test_answers_reach_who_asked_over_four_workers(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=8, max_client_conn=500, extra=FOUR)
    assert converse(pooler, 24, 3, 7, abandon=True) > 100
    with pooler.console() as console:
        console.wait_pool(cl_active=0, cl_waiting=0, sv_active=0)


@ours
@slow(30)
def test_answers_reach_who_asked_with_servers_lent_between_workers(t):
    # as many shards as can be, and fewer servers than clients on each
    pooler = t.pooler(pool_mode="transaction", default_pool_size=16, max_client_conn=500,
                      extra=FOUR)
    assert converse(pooler, 40, 3, 8) > 200


@ours
def test_pool_size_is_the_whole_processes(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=10, extra=FOUR)
    clients = [pooler.connect() for _ in range(24)]
    for c in clients:
        c.send(query("select pg_sleep(0.4), pg_backend_pid()"))
    with pooler.console() as console:
        console.wait_pool(sv_active=10, cl_waiting=14)
    same(len({c.results().rows[0][1] for c in clients}), 10)
    same(len(t.postgres.backends()), 10)


@ours
def test_nobody_waits_while_a_server_is_idle_elsewhere(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=16, extra=FOUR)
    holders = [pooler.connect() for _ in range(15)]
    for c in holders:
        c.query("begin")
    others = [pooler.connect() for _ in range(20)]
    started = time.monotonic()
    for _ in range(3):
        for i, c in enumerate(others):
            same(c.value(f"select {i}", 2), str(i))
    within(started, 0, 2, "60 queries on the one free server")
    same(len(t.postgres.backends()), 16)


@ours
def test_max_client_conn_is_the_whole_processes(t):
    pooler = t.pooler(max_client_conn=21, extra=FOUR)
    clients = [pooler.connect() for _ in range(21)]
    with refused(r"no more connections allowed \(max_client_conn\)"):
        pooler.connect()
    for c in clients[:10]:
        c.terminate()
    with pooler.console() as console:
        eventually(lambda: console.pool()["cl_active"] == 11, "ten have left")
    more = [pooler.connect() for _ in range(9)]
    assert more


@ours
def test_max_db_connections_is_the_whole_processes(t):
    pooler = t.pooler(pool_mode="transaction", max_db_connections=6, default_pool_size=20,
                      extra=FOUR)
    clients = [pooler.connect(user=user) for user in ("app", "other") for _ in range(10)]
    for c in clients:
        c.send(query("select pg_sleep(0.1)"))
    most = 0
    # Counted by the pooler: a backend whose connection was closed (evicted) takes a moment to go.
    with pooler.console() as console:
        while any(c.silent_for(0.0005) for c in clients):
            row = next(r for r in console.table("show databases") if r["name"] == "app")
            most = max(most, int(row["current_connections"]))
    for c in clients:
        same(c.results().tags, ["SELECT 1"])
    assert 1 <= most <= 6, most


@ours
def test_cancel_finds_its_client_on_any_worker(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=8, extra=FOUR)
    clients = [pooler.connect() for _ in range(8)]
    for c in clients:
        c.send(query("select pg_sleep(20)"))
    with pooler.console() as console:
        console.wait_pool(sv_active=8)
    for c in clients:
        # again and again, because the first may come before PostgreSQL runs the query
        eventually(lambda: pooler.cancel(c.key) == [] and not c.silent_for(0.05), "cancelled")
        same(c.results().errors[0].sqlstate, "57014")
        same(c.value("select 1"), "1")


@ours
def test_statistics_are_the_whole_processes(t):
    pooler = t.pooler(pool_mode="transaction", extra=FOUR)
    clients = [pooler.connect() for _ in range(12)]
    for c in clients:
        for _ in range(5):
            c.query("select 1")
    with pooler.console() as console:
        row = next(r for r in console.table("show stats") if r["database"] == "app")
        same((row["total_query_count"], row["total_client_login_count"]), ("60", "12"))
        same(len([r for r in console.table("show clients") if r["database"] == "app"]), 12)
        same(console.pool()["cl_active"], 12)


@ours
def test_pause_holds_all_workers(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=16, extra=FOUR)
    clients = [pooler.connect() for _ in range(16)]
    for c in clients:
        c.query("select 1")
    with pooler.console() as console:
        same(console.do("pause"), "PAUSE")
        for c in clients:
            c.send(query("select 'held'"))
        console.wait_pool(cl_waiting=16)
        eventually(lambda: not t.postgres.backends(), "the servers are closed")
        same(console.do("resume"), "RESUME")
    for c in clients:
        same(c.results().value(), "held")


@ours
def test_reload_reaches_all_workers(t):
    pooler = t.pooler(pool_mode="session", extra=FOUR)
    pooler.databases["fresh"] = t.postgres.address("app2")
    pooler.write()
    pooler.reload()
    for _ in range(12):
        with pooler.connect(database="fresh") as c:
            same(c.value("select current_database()"), "app2")
    del pooler.databases["fresh"]
    pooler.write()
    clients = [pooler.connect(database="fresh") for _ in range(8)]
    pooler.reload()
    for c in clients:
        same(c.fatal().text, "database removed")


@ours
def test_sessions_keep_their_server_with_many_workers(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=12, extra=FOUR)
    clients = [pooler.connect() for _ in range(12)]
    pids = [c.pid() for c in clients]
    same(len(set(pids)), 12)
    for _ in range(3):
        same([c.pid() for c in clients], pids)


@ours
def test_waiters_of_one_small_pool_are_served_in_order_with_many_workers(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, extra=FOUR)
    with pooler.connect() as holder, pooler.console() as console:
        holder.query("begin")
        waiters = [pooler.connect() for _ in range(8)]
        for i, c in enumerate(waiters):
            c.send(query("select nextval('turn_of_many')"))
            console.wait_pool(cl_waiting=i + 1)
        holder.query("create sequence turn_of_many")
        holder.query("commit")
        same([c.results().value() for c in waiters], [str(i + 1) for i in range(8)])
        holder.query("drop sequence turn_of_many")


@ours
def test_connections_that_come_and_go_leave_nothing_behind(t):
    pooler = t.pooler(pool_mode="transaction", extra=FOUR, max_client_conn=1000)

    def come_and_go():
        for i in range(400):
            c = pooler.connect()
            if i % 4 == 0:
                c.send(query("select 1"))
            if i % 3 == 0:
                c.reset()
            else:
                c.vanish()
    come_and_go()
    before = pooler.memory()
    come_and_go()
    with pooler.console() as console:
        console.wait_pool(cl_active=0, cl_waiting=0, sv_active=0)
        with pgwire.Client(pooler.port):
            same(console.do("show version"), "SHOW")
    grown = (pooler.memory() - before) / (1 << 20)
    assert grown < 10, f"grew by {grown:.1f} MB"


def threads_of(pooler, name):
    """(name, CPUs it may run on) of the pooler's threads."""
    folder = f"/proc/{pooler.process.pid}/task"
    found = []
    for task in os.listdir(folder):
        comm = open(f"{folder}/{task}/comm").read().strip()
        if comm.startswith(name):
            found.append((comm, sorted(os.sched_getaffinity(int(task)))))
    return sorted(found)


@ours
def test_workers_are_pinned_in_turn_to_the_cpus_of_cpu_affinity(t):
    cpus = sorted(os.sched_getaffinity(0))
    one = cpus[-1]
    pooler = t.pooler(extra=f"[pgsplice]\nworker_threads = 3\ncpu_affinity = {one}\n")
    pooler.usable()
    same(threads_of(pooler, "worker-"), [(f"worker-{i}", [one]) for i in range(3)])


@ours
def test_one_worker_for_each_cpu_of_cpu_affinity(t):
    cpus = sorted(os.sched_getaffinity(0))
    text = ",".join(str(cpu) for cpu in reversed(cpus))
    pooler = t.pooler(extra=f"[pgsplice]\ncpu_affinity = {text}\nincoming_cpu = 1\n")
    pooler.usable()
    same([cpu for _, cpu in threads_of(pooler, "worker-")], [[cpu] for cpu in reversed(cpus)])


@ours
def test_cpu_that_is_not_there_is_refused_at_start(t):
    for value, reason in (("1000", "CPU 1000 does not exist"), ("a-b", "is wanted"),
                          ("3-1", "ends before it begins")):
        pooler = t.pooler(start=False, extra=f"[pgsplice]\ncpu_affinity = {value}\n")
        ended = pooler.run_to_end()
        same(ended.returncode, 1)
        assert f"cpu_affinity = {value}" in ended.stderr, ended.stderr
        assert reason in ended.stderr, ended.stderr


@ours
def test_huge_pages_are_tried_or_insisted_on(t):
    # The test machine may or may not have some: what is asked for is done, or said.
    available = int(next(line.split()[1] for line in open("/proc/meminfo")
                         if line.startswith("HugePages_Free")))
    pooler = t.pooler(extra="[pgsplice]\nworker_threads = 1\nhuge_pages = try\n")
    pooler.usable()
    if available < 32:
        pooler.wait_log("no huge pages for receive buffers")
        strict = t.pooler(start=False, extra="[pgsplice]\nworker_threads = 1\nhuge_pages = on\n")
        ended = strict.run_to_end()
        same(ended.returncode, 1)
        assert "vm.nr_hugepages" in ended.stderr, ended.stderr


@ours
def test_incoming_cpu_leaves_no_worker_without_clients(t):
    # On loopback all packets may be handled by the client's CPU; pools are spread all the same.
    cpus = len(os.sched_getaffinity(0))
    pooler = t.pooler(pool_mode="transaction", default_pool_size=20,
                      extra="[pgsplice]\nincoming_cpu = 1\n")
    clients = [pooler.connect() for _ in range(4 * cpus)]
    with pooler.console() as console:
        rows = [row for row in console.table("show shards") if row["database"] == "app"]
        same([int(row["cl_active"]) for row in rows], [4] * min(cpus, 5))
    for i, c in enumerate(clients):
        same(c.value(f"select {i}"), str(i))
