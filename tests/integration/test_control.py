"""Console commands and signals when every pool has shards on several workers: the answer comes when
it is true of all of them, and clients at work notice nothing that they should not."""

import collections
import random
import signal
import threading
import time

import pgwire
from harness import covers, eventually, ours, plain, refused, same, slow, within
from pgwire import query

FOUR = "[pgsplice]\nworker_threads = 4\n"
POOLS = [("app", "app"), ("app", "other"), ("app2", "app"), ("app2", "other")]


def spread(t, **settings):
    """A pooler whose pools have a shard on each of four workers."""
    settings.setdefault("pool_mode", "transaction")
    settings.setdefault("default_pool_size", 16)
    return t.pooler(extra=FOUR, **settings)


class Crowd:
    """Clients of several databases and users that go on working, and count what they did."""

    def __init__(self, pooler, clients=12, pools=POOLS, timeout=10):
        self.done = collections.Counter()  # transactions by database
        self.queries = collections.Counter()
        self.logins = collections.Counter()
        self.problems = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = []
        for number in range(clients):
            database, user = pools[number % len(pools)]
            connection = pooler.connect(user=user, database=database, timeout=timeout)
            self.logins[database] += 1
            self.threads.append(threading.Thread(target=self._work, daemon=True,
                                                 args=(connection, database, number)))
        for thread in self.threads:
            thread.start()

    def _work(self, connection, database, number):
        chance = random.Random(number)
        try:
            for turn in range(10 ** 9):
                if self.stopping.is_set():
                    connection.terminate()
                    return
                asked = ["begin", f"select {number}, {turn}", "commit"] \
                    if chance.random() < 0.3 else [f"select {number}, {turn}"]
                for sql in asked:
                    result = connection.query(sql)
                    if sql.startswith("select"):
                        same(result.rows, [(str(number), str(turn))])
                with self.lock:
                    self.done[database] += 1
                    self.queries[database] += len(asked)
        except Exception as problem:  # of this thread: told by check
            self.problems.append(f"client {number} of {database}: {problem!r}")

    def total(self):
        with self.lock:
            return sum(self.done.values())

    def settled(self, seconds=0.1):
        """How many when what had been answered is counted: no more come for a while."""
        seen = [self.total(), time.monotonic()]

        def rests():
            if self.total() != seen[0]:
                seen[:] = self.total(), time.monotonic()
            return time.monotonic() - seen[1] >= seconds
        eventually(rests, "quiet")
        return seen[0]

    def goes_on(self, count=100):
        """Waits until so many more transactions are done."""
        before = self.total()
        eventually(lambda: self.problems or self.total() >= before + count, "work goes on", 10)
        self.check()

    def check(self):
        assert not self.problems, self.problems[:3]

    def finish(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(15)
            assert not thread.is_alive(), "a client hangs"
        self.check()
        return self


def clients_of(pooler, count, pools=POOLS):
    return [pooler.connect(user=pools[i % len(pools)][1], database=pools[i % len(pools)][0])
            for i in range(count)]


def starts(console, command):
    console.client.send(query(command))
    return console.client


# ---- one picture --------------------------------------------------------------------------------

@ours
def test_every_pool_is_one_row_and_counts_once(t):
    pooler = spread(t)
    clients = clients_of(pooler, 24)
    for c in clients:
        c.query("begin")
    with pooler.console() as console:
        rows = console.table("show pools")
        same([(r["database"], r["user"]) for r in rows], POOLS + [("pgbouncer", "pgbouncer")])
        same([(r["cl_active"], r["sv_active"]) for r in rows[:4]], [("6", "6")] * 4)
        lists = {r["list"]: int(r["items"]) for r in console.table("show lists")}
        same(lists["pools"], 5)
        same(lists["used_servers"], 24)
        databases = {r["name"]: r for r in console.table("show databases")}
        same((databases["app"]["current_connections"],
              databases["app"]["current_client_connections"]), ("12", "12"))


@ours
@slow(30)
def test_nobody_is_shown_twice_while_servers_are_lent(t):
    pooler = spread(t, default_pool_size=8)
    crowd = Crowd(pooler, 24, POOLS[:2])
    with pooler.console() as console:
        for _ in range(60):
            for table in ("clients", "servers", "sockets"):
                ids = [r["id"] for r in console.table(f"show {table}")]
                same(len(ids), len(set(ids)), f"ids in show {table}")
        same(len(console.table("show clients")), 25)
    crowd.finish()


@ours
@slow(30)
def test_statistics_are_exactly_what_the_clients_did(t):
    pooler = spread(t, default_pool_size=8)
    crowd = Crowd(pooler, 16)
    crowd.goes_on(1000)
    crowd.finish()
    with pooler.console() as console:
        rows = {r["database"]: r for r in console.table("show stats")}
        for database in ("app", "app2"):
            row = rows[database]
            same((int(row["total_xact_count"]), int(row["total_query_count"]),
                  int(row["total_client_login_count"]), int(row["total_server_assignment_count"])),
                 (crowd.done[database], crowd.queries[database], crowd.logins[database],
                  crowd.done[database]), database)
        totals = {r["name"]: int(r["value"]) for r in console.table("show totals")}
        same((totals["total_xact_count"], totals["total_query_count"],
              totals["total_client_login_count"]),
             (sum(crowd.done.values()), sum(crowd.queries.values()), 16))


@ours
def test_averages_are_those_of_the_last_period(t):
    pooler = spread(t, stats_period=1)
    crowd = Crowd(pooler, 8)
    with pooler.console() as console:
        def average():
            rows = {r["database"]: r for r in console.table("show stats")}
            return int(rows["app"]["avg_xact_count"])
        eventually(lambda: average() > 10, "transactions per second")
        crowd.finish()
        eventually(lambda: average() == 0, "nothing in the last period")
    pooler.wait_log(r"LOG stats: [1-9]\d* xacts/s, ")


# ---- RELOAD -------------------------------------------------------------------------------------

@ours
@slow(30)
def test_reload_drops_nobody_who_works(t):
    pooler = spread(t, default_pool_size=8)
    crowd = Crowd(pooler, 16)
    for turn in range(12):
        pooler.change(default_pool_size=4 + turn % 3 * 4, query_wait_timeout=100 + turn)
        crowd.goes_on(50)
    same(crowd.finish().problems, [])
    with pooler.console() as console:
        same(console.config("query_wait_timeout"), "111")


@ours
@slow(30)
def test_reload_is_answered_when_every_worker_knows(t):
    pooler = spread(t, login_notify_message="version 0")
    pooler.usable()
    for version in range(1, 9):
        pooler.change(login_notify_message=f"version {version}")
        for _ in range(12):
            with pooler.open() as c:
                notices = [m.fields()["M"] for m in c.login() if m.type == "N"]
                same(notices, [f"version {version}"])


@ours
@slow(30)
def test_a_new_address_reaches_the_servers_of_all_workers(t):
    pooler = spread(t)
    pooler.databases["moving"] = t.postgres.address("app")
    pooler.write()
    pooler.reload()
    clients = [pooler.connect(database="moving") for _ in range(16)]
    for wanted in ("app2", "app", "app2"):
        for c in clients:
            c.query("select 1")
        pooler.databases["moving"] = t.postgres.address(wanted)
        pooler.write()
        pooler.reload()
        same({c.value("select current_database()") for c in clients}, {wanted})


# ---- PAUSE and RESUME ---------------------------------------------------------------------------

@ours
def test_pause_waits_for_the_transactions_of_all_workers(t):
    pooler = spread(t)
    clients = clients_of(pooler, 16)
    for c in clients:
        c.query("begin")
    with pooler.console() as pausing, pooler.console() as console:
        waiting = starts(pausing, "pause")
        eventually(lambda: {r["key"]: r["value"] for r in console.table("show state")}["paused"] ==
                   "yes", "paused")
        for c in clients:
            assert waiting.silent_for(0.03), "PAUSE answered while a transaction was open"
            c.query("commit")
        same(waiting.results().tags, ["PAUSE"])
        same([r for r in console.table("show servers")], [])
        for c in clients:
            c.send(query("select 'after'"))
        for database, user in POOLS:
            console.wait_pool(database, user, cl_waiting=4, sv_active=0)
        same(console.do("resume"), "RESUME")
    for c in clients:
        same(c.results().value(), "after")


@ours
@slow(40)
def test_pause_and_resume_lose_nothing_under_load(t):
    pooler = spread(t, default_pool_size=6)
    crowd = Crowd(pooler, 16)
    with pooler.console() as console:
        for turn in range(10):
            crowd.goes_on(50)
            if turn % 2:
                pooler.signal(signal.SIGUSR1)
                pooler.wait_log(rf"(?s)(got SIGUSR1, pausing.*){{{turn // 2 + 1}}}")
                eventually(lambda: not console.table("show servers"), "no server is left")
            else:
                same(console.do("pause"), "PAUSE")
                # those that were logging in close when that is over
                same([r for r in console.table("show servers") if r["state"] != "new"], [])
            quiet = crowd.settled()
            assert not crowd.problems, crowd.problems[:3]
            same(console.do("show version"), "SHOW")
            same(crowd.total(), quiet, "transactions while paused")
            if turn % 2:
                pooler.signal(signal.SIGUSR2)
            else:
                same(console.do("resume"), "RESUME")
    crowd.goes_on(50)
    crowd.finish()


@ours
def test_pause_of_one_database_holds_it_on_all_workers_and_nobody_else(t):
    pooler = spread(t)
    held = clients_of(pooler, 12, POOLS[:2])
    free = clients_of(pooler, 12, POOLS[2:])
    for c in held + free:
        c.query("select 1")
    with pooler.console() as console:
        same(console.do("pause app"), "PAUSE")
        held += clients_of(pooler, 4, POOLS[:2])
        for c in held:
            c.send(query("select 'held'"))
        for c in free:
            same(c.value("select 'free'"), "free")
        for user in ("app", "other"):
            console.wait_pool("app", user, cl_waiting=8, sv_active=0)
        same(console.do("resume app"), "RESUME")
    for c in held:
        same(c.results().value(), "held")


# ---- RECONNECT and WAIT_CLOSE -------------------------------------------------------------------

@ours
@slow(30)
def test_after_reconnect_no_old_server_is_used(t):
    pooler = spread(t, default_pool_size=8)
    clients = clients_of(pooler, 16)
    with pooler.console() as console:
        for _ in range(6):
            for c in clients:
                c.query("begin")
            old = {c.pid() for c in clients}
            same(console.do("reconnect"), "RECONNECT")
            waiting = starts(console, "wait_close")
            for c in clients:
                assert waiting.silent_for(0.002), "WAIT_CLOSE answered with old servers in use"
                c.query("commit")
            same(waiting.results().tags, ["WAIT_CLOSE"])
            new = {c.pid() for c in clients}
            same(old & new, set())


@ours
@slow(30)
def test_reconnect_under_load_drops_nobody(t):
    pooler = spread(t, default_pool_size=4)
    crowd = Crowd(pooler, 24)
    with pooler.console() as console:
        for _ in range(10):
            before = {r["id"] for r in console.table("show servers")}
            same(console.do("reconnect"), "RECONNECT")
            same(console.do("wait_close", 10), "WAIT_CLOSE")
            same(before & {r["id"] for r in console.table("show servers")}, set())
            crowd.goes_on(50)
    crowd.finish()


# ---- KILL, KILL_CLIENT, DISABLE -----------------------------------------------------------------

@ours
def test_kill_of_a_database_reaches_all_workers(t):
    pooler = spread(t)
    victims = clients_of(pooler, 12, POOLS[:2])
    others = clients_of(pooler, 12, POOLS[2:])
    for c in victims + others:
        c.query("select 1")
    with pooler.console() as console:
        same(console.do("kill app"), "KILL")
        for c in victims:
            same(c.fatal().text, "database removed")
        for c in others:
            same(c.value("select 'here'"), "here")
        databases = [r["database"] for r in console.table("show stats")]
        same(databases, ["app2", "pgbouncer"], "its statistics are forgotten")
        same([r["database"] for r in console.table("show servers") if r["database"] == "app"], [])
        late = [pooler.open() for _ in range(8)]
        for c in late:
            c.send(pgwire.startup({"user": "app", "database": "app"}))
        console.wait_pool(cl_waiting=8, sv_login=0, sv_active=0)
        same(console.do("resume app"), "RESUME")
        for c in late:
            c.until("Z")
            same(c.value("select 'again'"), "again")
        row = next(r for r in console.table("show stats") if r["database"] == "app")
        same((row["total_xact_count"], row["total_client_login_count"]), ("8", "8"))


@ours
def test_kill_of_everything_pauses_the_same_databases_on_all_workers(t):
    # one client each: most workers have no shard of these pools
    pooler = spread(t, default_pool_size=4)
    victims = [pooler.connect(database=database) for database in ("app", "app2")]
    for c in victims:
        c.query("select 1")
    with pooler.console() as console:
        same(console.do("kill"), "KILL")
        for c in victims:
            same(c.fatal().text, "database removed")
        late = []
        for database, user in POOLS * 3:
            late.append(pooler.open())
            late[-1].send(pgwire.startup({"user": user, "database": database}))
        for database, user in POOLS:
            console.wait_pool(database, user, cl_waiting=3, sv_login=0, sv_active=0)
        for database in ("app", "app2"):
            same(console.do(f"resume {database}"), "RESUME")
    for c in late:
        c.until("Z")
        same(c.value("select 1"), "1")


@ours
def test_kill_of_everything_is_finished_though_its_session_has_gone(t):
    names = [f"d{i}" for i in range(24)]
    pooler = spread(t, databases={name: t.postgres.address("app") for name in names})
    victims = [pooler.connect(database=name) for name in names]
    with pooler.console() as console, pooler.console() as other:
        console.client.send(query("kill"))
        console.client.reset()
        for c in victims:
            same(c.fatal().text, "database removed")
        eventually(lambda: {r["paused"] for r in other.table("show databases")
                            if r["name"] in names} == {"1"}, "all are paused")
        with pooler.open() as late:
            late.send(pgwire.startup({"user": "app", "database": names[0]}))
            other.wait_pool(names[0], cl_waiting=1)


@ours
def test_kill_client_finds_every_client(t):
    pooler = spread(t)
    clients = clients_of(pooler, 12)
    with pooler.console() as console:
        ports = {r["port"]: r["id"] for r in console.table("show clients")}
        for c in clients:
            number = ports[str(c.socket.getsockname()[1])]
            same(console.do(f"kill_client {number}"), "KILL_CLIENT")
            same(c.fatal().text, "admin forced disconnect")
            with refused("client not found"):
                console.do(f"kill_client {number}")


@ours
def test_disable_is_known_to_all_workers_when_it_is_answered(t):
    pooler = spread(t)
    present = clients_of(pooler, 8)
    with pooler.console() as console:
        for _ in range(3):
            same(console.do("disable app"), "DISABLE")
            for _ in range(8):
                with refused('database "app" is disabled'):
                    pooler.connect()
            for c in present:
                same(c.value("select 1"), "1")
            same(console.do("enable app"), "ENABLE")
            for _ in range(8):
                pooler.usable()


# ---- SHUTDOWN -----------------------------------------------------------------------------------

@ours
def test_shutdown_waits_for_the_servers_of_all_workers(t):
    pooler = spread(t)
    clients = clients_of(pooler, 12)
    for c in clients:
        c.query("begin")
    with pooler.console() as console:
        same(console.do("shutdown wait_for_servers"), "SHUTDOWN")
        for c in clients[:-1]:
            c.query("commit")
        eventually(lambda: len(console.table("show servers")) == 1, "one is left")
        assert pooler.runs()
        clients[-1].query("commit")
    same(pooler.wait_exit(), 0)


@ours
@slow(30)
def test_shutdown_waits_for_the_clients_of_all_workers(t):
    pooler = spread(t, default_pool_size=8)
    crowd = Crowd(pooler, 16)
    crowd.goes_on(50)
    pooler.signal(signal.SIGTERM)
    pooler.wait_log("got SIGTERM, shutting down")
    crowd.goes_on(200)
    assert pooler.runs()
    crowd.finish()
    same(pooler.wait_exit(), 0)


# ---- SUSPEND ------------------------------------------------------------------------------------

def state_of(console):
    return {r["key"]: r["value"] for r in console.table("show state")}


@ours
@slow(60)
def test_suspend_stops_everything_and_resume_loses_nothing(t):
    pooler = spread(t, default_pool_size=6)
    crowd = Crowd(pooler, 24)
    with pooler.console() as console:
        for turn in range(10):
            crowd.goes_on(50)
            same(console.do("suspend", 10), "SUSPEND")
            same(state_of(console), {"active": "no", "paused": "no", "suspended": "yes"})
            crowd.check()
            # what had gone out before may still be on its way to the client
            eventually(lambda: crowd.total() == (time.sleep(0.02), crowd.total())[1], "quiet")
            quiet = crowd.total()
            rows = console.table("show stats")
            same(console.table("show pools"), console.table("show pools"))
            same(console.table("show stats"), rows, "nothing is read while suspended")
            same(crowd.total(), quiet, "transactions while suspended")
            same(console.do("resume"), "RESUME")
            same(state_of(console)["active"], "yes")
    crowd.goes_on(50)
    crowd.finish()


@plain
@ours
def test_new_connections_wait_until_resume(t):
    pooler = spread(t)
    pooler.usable()
    with pooler.console() as console:
        same(console.do("suspend"), "SUSPEND")
        late = [pooler.open() for _ in range(12)]
        for c in late:
            c.send(pgwire.startup({"user": "app", "database": "app"}) + query("select 'late'"))
        assert all(c.silent_for(0.02) for c in late)
        same(len(console.table("show clients")), 1)
        same(console.do("resume"), "RESUME")
        for c in late:
            c.until("Z")
            same(c.results().value(), "late")


@ours
def test_a_running_query_answers_after_resume(t):
    pooler = spread(t)
    clients = clients_of(pooler, 8)
    for c in clients:
        c.send(query("select pg_sleep(0.3), 'slept'"))
    with pooler.console() as console:
        eventually(lambda: sum(int(r["sv_active"]) for r in console.table("show pools")) == 8,
                   "they run")
        same(console.do("suspend"), "SUSPEND")
        with t.postgres.connect(user="postgres", database="postgres") as admin:
            eventually(lambda: admin.value("select count(*) from pg_stat_activity where query like "
                                           "'%slept%' and state = 'active' and "
                                           "pid <> pg_backend_pid()") == "0", "they have ended")
        assert all(c.silent_for(0.02) for c in clients)
        same(console.do("resume"), "RESUME")
    for c in clients:
        same(c.results().rows[0][1], "slept")


@ours
def test_suspend_waits_for_the_rest_of_a_message(t):
    pooler = spread(t)
    whole = query("select 'whole'")
    clients = clients_of(pooler, 4)
    for c in clients:
        c.query("begin")
        c.send(whole[:9])
    with pooler.console() as console, pooler.console() as other:
        waiting = starts(console, "suspend")
        eventually(lambda: state_of(other)["suspended"] == "yes", "it has begun")
        for c in clients:
            assert waiting.silent_for(0.05), "answered in the middle of a message"
            c.send(whole[9:])
        same(waiting.results().tags, ["SUSPEND"])
        same(other.do("resume"), "RESUME")
    for c in clients:
        same(c.results().value(), "whole")


@ours
def test_suspend_waits_until_answers_have_gone_out(t):
    pooler = spread(t)
    with pooler.connect(timeout=10) as slow_reader, pooler.console() as console, \
            pooler.console() as other:
        slow_reader.query("begin")
        slow_reader.send(query("select repeat('x', 20000000)"))
        same(slow_reader.receive().type, "T")
        waiting = starts(console, "suspend")
        eventually(lambda: state_of(other)["suspended"] == "yes", "it has begun")
        assert waiting.silent_for(0.3), "answered in the middle of an answer"
        same([len(m.body) for m in slow_reader.until("Z", 10) if m.type == "D"], [20000006])
        same(waiting.results().tags, ["SUSPEND"])
        same(other.do("resume"), "RESUME")
        same(slow_reader.query("commit").tags, ["COMMIT"])


@covers("settings", "suspend_timeout")
@ours
def test_suspend_timeout_drops_who_has_not_settled_and_nobody_else(t):
    pooler = spread(t, suspend_timeout=1, default_pool_size=2)
    good = clients_of(pooler, 4)
    half, reader, holder, second, waiter = (
        pooler.connect(database="app2"), pooler.connect(user="other"),
        pooler.connect(database="app2", user="other"),
        pooler.connect(database="app2", user="other"),
        pooler.connect(database="app2", user="other"))
    for c in good:
        c.query("select 1")
    half.send(query("select 1")[:3])
    reader.send(query("select repeat('x', 20000000)"))
    same(reader.receive().type, "T")
    holder.query("begin")
    second.query("begin")
    waiter.send(query("select 1"))
    with pooler.console() as console:
        console.wait_pool("app2", "other", cl_waiting=1)
        started = time.monotonic()
        same(console.do("suspend", 8), "SUSPEND")
        within(started, 0.9, 4, "SUSPEND")
        same(half.fatal().text, "suspend_timeout")
        same(waiter.fatal().text, "suspend_timeout")
        with refused_or_closed():
            reader.results(5)
        same(console.do("resume"), "RESUME")
    for c in (holder, second):
        same(c.query("commit").tags, ["COMMIT"])
    for c in good:
        same(c.value("select 1"), "1")
    pooler.usable()


class refused_or_closed:
    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        return kind is not None and issubclass(kind, (pgwire.PgError, pgwire.Closed, OSError))


@ours
def test_suspend_waits_for_who_waits_for_a_server(t):
    pooler = spread(t, default_pool_size=2)
    clients = [pooler.connect() for _ in range(8)]
    for c in clients:
        c.send(query("select pg_sleep(0.05), 'served'"))
    with pooler.console() as console:
        same(console.do("suspend"), "SUSPEND")
        row = console.pool()
        same(row["cl_waiting"], 0)
        same(console.do("resume"), "RESUME")
    for c in clients:
        same(c.results().rows[0][1], "served")


@ours
def test_suspend_is_refused_when_it_makes_no_sense(t):
    pooler = spread(t)
    pooler.usable()
    with pooler.console() as console, pooler.console("stats") as stats:
        with refused("admin access needed"):
            stats.do("suspend")
        with refused(r"invalid command 'suspend app', use SHOW HELP;"):
            console.do("suspend app")
        same(console.do("pause"), "PAUSE")
        with refused("already suspended/paused"):
            console.do("suspend")
        same(console.do("resume"), "RESUME")
        same(console.do("pause app"), "PAUSE")
        with refused("cannot suspend with paused databases"):
            console.do("suspend")
        same(console.do("resume app"), "RESUME")
        same(console.do("suspend"), "SUSPEND")
        for command in ("suspend", "pause", "pause app", "kill", "kill app"):
            with refused("already suspended/paused"):
                console.do(command)
        with refused("pooler is suspended, RESUME it first"):
            console.do("shutdown wait_for_clients")
        same(console.do("resume"), "RESUME")
        with refused("pooler is not paused/suspended"):
            console.do("resume")
    pooler.usable()


@ours
def test_signals_and_commands_work_while_suspended(t):
    pooler = spread(t)
    clients = clients_of(pooler, 8)
    with pooler.console() as console:
        same(console.do("suspend"), "SUSPEND")
        pooler.signal(signal.SIGUSR1)
        pooler.wait_log("got SIGUSR1, but already paused/suspended")
        pooler.settings["query_wait_timeout"] = 77
        pooler.write()
        pooler.signal(signal.SIGHUP)
        eventually(lambda: console.config("query_wait_timeout") == "77", "reloaded")
        same(len(console.table("show clients")), 9)
        pooler.signal(signal.SIGUSR2)
        pooler.wait_log("got SIGUSR2, continuing from SUSPEND")
        for c in clients:
            same(c.value("select 1"), "1")


@ours
def test_a_cancel_request_of_the_console_ends_suspend(t):
    pooler = spread(t)
    pooler.usable()
    half = pooler.connect()
    half.send(query("select 1")[:3])
    with pooler.console() as console:
        waiting = starts(console, "suspend")
        # its listener is asleep: the request arrives on a connection that was there before
        assert waiting.silent_for(0.1)
        pooler.signal(signal.SIGUSR2)
        same(waiting.results().tags, ["SUSPEND"])
    half.send(query("select 1")[3:])
    same(half.results().value(), "1")


@ours
def test_suspend_ends_with_the_last_console_session(t):
    pooler = spread(t)
    with pooler.connect() as c:
        first, second = pooler.console(), pooler.console()
        same(first.do("suspend"), "SUSPEND")
        first.client.vanish()
        c.send(query("select 'back'"))
        assert c.silent_for(0.1), "one session is still there"
        second.client.vanish()
        same(c.results().value(), "back")
    pooler.usable()


@ours
def test_sigterm_while_suspended_ends_at_once(t):
    pooler = spread(t)
    with pooler.connect(), pooler.console() as console:
        same(console.do("suspend"), "SUSPEND")
        pooler.signal(signal.SIGTERM)
        same(pooler.wait_exit(), 1)
        pooler.wait_log("suspend was in progress, going down immediately")


@ours
@slow(30)
def test_client_timeouts_rest_while_suspended(t):
    pooler = spread(t, client_idle_timeout=1)
    clients = clients_of(pooler, 8)
    for c in clients:
        c.query("select 1")
    with pooler.console() as console:
        same(console.do("suspend"), "SUSPEND")
        for c in clients:
            c.send(query("select 'asked in time'"))
        assert clients[0].silent_for(2)
        same(console.do("resume"), "RESUME")
    for c in clients:
        same(c.results().value(), "asked in time")
