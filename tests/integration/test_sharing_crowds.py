"""Many clients on few servers that are shared, and whatever operators and clients do meanwhile: each gets the answers to
his own questions, all of them, and nobody notices anybody else."""

import os
import random
import signal

import pgwire
from harness import PASSWORD, POSTGRES_BIN, eventually, ours, same, slow
from pgwire import query
from sharing import (ALL_KINDS, MANY_READS, READS, Figures, Load, Question, own, shares, sharing_pooler, tables, text_of)
from test_lending import Shards
from test_restart import next_of


# ---- tagged rows --------------------------------------------------------------------------------

def converse(t, count, kinds, clients=30, **settings):
    leaves, pieces = settings.pop("leaves", 0.0), settings.pop("pieces", 0.0)
    tables(t)
    pooler = sharing_pooler(t, **settings)
    with pooler.console() as console:
        figures = Figures(console)
        with Load(pooler, clients, kinds, leaves=leaves, pieces=pieces) as load:
            load.goes_on(count, 60)
        figures.has("shared", "joined")
        figures.rest()
        console.wait_pool(cl_active=0, cl_waiting=0, sv_active=0)
    pooler.usable()


@ours
@slow(90)
def test_answers_reach_who_asked_on_one_server(t):
    converse(t, 6000, MANY_READS, size=1)


@ours
@slow(90)
def test_answers_reach_who_asked_on_two_servers_of_two_workers(t):
    converse(t, 5000, MANY_READS, sharing=2, size=2, workers=2, shards=2)


@ours
@slow(90)
def test_answers_reach_who_asked_on_four_servers(t):
    converse(t, 5000, ALL_KINDS, sharing=2, size=4)


@ours
@slow(90)
def test_answers_reach_who_asked_when_the_pooler_decides(t):
    converse(t, 5000, ALL_KINDS, sharing="auto", size=4, workers=2, shards=2)


@ours
@slow(90)
def test_answers_reach_who_asked_on_one_server_that_is_shared_by_turns(t):
    # Reads share it, what does not share wants it for itself, over and over.
    converse(t, 4000, ALL_KINDS, size=1)


@ours
@slow(90)
def test_clients_that_leave_at_any_moment_take_nothing_along(t):
    converse(t, 3000, MANY_READS, size=2, leaves=0.05)


@ours
@slow(90)
def test_clients_of_all_kinds_that_leave_at_any_moment(t):
    converse(t, 3000, ALL_KINDS, sharing=2, size=4, workers=2, shards=2, leaves=0.05, pieces=0.2)


@ours
@slow(90)
def test_questions_in_pieces_are_answered_among_whole_ones(t):
    converse(t, 3000, MANY_READS, size=2, pieces=0.3)


@ours
@slow(90)
def test_answers_reach_who_asked_with_room_for_one_statement(t):
    converse(t, 3000, MANY_READS, size=2, max_prepared_statements=1)


@ours
@slow(90)
def test_answers_reach_who_asked_without_statements(t):
    reads = {kind: weight for kind, weight in MANY_READS.items() if kind.__name__ not in ("q_prepared", "q_binary")}
    converse(t, 3000, reads, size=2, max_prepared_statements=0)


@ours
@slow(60)
def test_client_that_does_not_read_stops_nobody_else(t):
    tables(t)
    pooler = sharing_pooler(t, size=2)
    with Load(pooler, 10) as load, pooler.connect(receive_bytes=4096, timeout=40) as lazy:
        load.goes_on(300)
        for turn in range(3):
            # 4 MB: more than what lies in sockets and buffers
            lazy.send(query(f"select 'lazy', g::text, repeat('z', 2000) from generate_series(1, {2000 + turn}) g"))
            load.goes_on(500)
            result = lazy.results(30)
            same(result.rows, [("lazy", str(g), "z" * 2000) for g in range(1, 2001 + turn)])


@ours
@slow(60)
def test_clients_that_read_slowly_get_all_of_their_rows(t):
    tables(t)
    pooler = sharing_pooler(t, size=2)
    with Load(pooler, 6) as load:
        load.goes_on(200)
        lazy = [pooler.connect(receive_bytes=4096, timeout=40) for _ in range(6)]
        for turn in range(4):
            for i, c in enumerate(lazy):
                c.send(query(f"select 'lazy {i}', repeat('{i}', 1000) from generate_series(1, {60 + turn})"))
            load.goes_on(200)
            for i, c in enumerate(lazy):
                same(c.results(30).rows, [(f"lazy {i}", str(i) * 1000)] * (60 + turn))


@ours
@slow(60)
def test_statistics_count_shared_questions_as_others(t):
    tables(t)
    pooler = sharing_pooler(t, size=2)

    def counts(console):
        row = next(row for row in console.table("show stats") if row["database"] == "app")
        return int(row["total_query_count"]), int(row["total_xact_count"])
    with pooler.console() as console:
        with Load(pooler, 10, {kind: 1 for kind in READS}) as load:
            before = None
            load.holds()
            eventually(lambda: console.pool().get("cl_waiting") == 0, "nobody waits")
            before, answers = counts(console), load.answers
            load.resumes()
            load.goes_on(1000)
            load.holds()
            more = load.answers - answers
            eventually(lambda: [now - then for now, then in zip(counts(console), before)] == [more, more],
                       f"{more} more are counted")


# ---- the same as the operator acts ----------------------------------------------------------------

def under_load(t, act, turns=6, clients=16, kinds=None, between=200, needs=("joined",), **settings):
    """`act(pooler, console, turn)`, again and again, while a load goes on."""
    tables(t)
    settings.setdefault("size", 3)
    settings.setdefault("sharing", 1)
    pooler = sharing_pooler(t, **settings)
    with pooler.console(timeout=15) as console:
        figures = Figures(console)
        with Load(pooler, clients, kinds or READS) as load:
            for turn in range(turns):
                load.goes_on(between)
                act(pooler, console, turn)
                load.check()
            load.goes_on(between)
        figures.has(*needs)
        figures.rest()
    return pooler


@ours
@slow(60)
def test_pause_and_resume_lose_no_shared_answer(t):
    def act(pooler, console, turn):
        same(console.do("pause", 10), "PAUSE")
        same([row for row in console.table("show servers") if row["state"] != "new"], [])
        same(console.do("resume"), "RESUME")
    under_load(t, act)


@ours
@slow(60)
def test_pause_of_a_database_on_two_workers_loses_no_shared_answer(t):
    def act(pooler, console, turn):
        same(console.do("pause app", 10), "PAUSE")
        same(console.do("resume app"), "RESUME")
    under_load(t, act, kinds=ALL_KINDS, size=4, sharing=2, workers=2, shards=2)


@ours
@slow(60)
def test_reconnect_loses_no_shared_answer(t):
    def act(pooler, console, turn):
        before = {row["id"] for row in console.table("show servers") if row["database"] == "app"}
        same(console.do("reconnect"), "RECONNECT")
        same(console.do("wait_close", 10), "WAIT_CLOSE")
        after = {row["id"] for row in console.table("show servers") if row["database"] == "app"}
        same(before & after, set())
    under_load(t, act, turns=10)


@ours
@slow(60)
def test_suspend_and_resume_lose_no_shared_answer(t):
    def act(pooler, console, turn):
        same(console.do("suspend", 15), "SUSPEND")
        same(console.do("resume"), "RESUME")
    under_load(t, act)


@ours
@slow(60)
def test_disable_and_enable_concern_no_client_that_is_there(t):
    def act(pooler, console, turn):
        same(console.do("disable app"), "DISABLE")
        same(console.do("enable app"), "ENABLE")
    under_load(t, act)


@ours
@slow(60)
def test_reload_of_the_setting_loses_no_answer(t):
    settings = ("off", "auto", "1", "2", "3", "off", "auto", "off")

    def act(pooler, console, turn):
        pooler.extra = own(settings[turn])
        pooler.write()
        same(console.do("reload"), "RELOAD")
        if shares:
            same(console.config("server_sharing"), settings[turn])
    under_load(t, act, turns=len(settings), kinds=MANY_READS)


@ours
@slow(60)
def test_set_of_the_setting_loses_no_answer(t):
    def act(pooler, console, turn):
        value = ("off", "1", "off", "auto")[turn % 4]
        same(console.do(f"set server_sharing = '{value}'"), f"SET server_sharing={value}")
    under_load(t, act, turns=8, kinds=ALL_KINDS, sharing="auto")


@ours
@slow(60)
def test_after_off_nobody_shares(t):
    tables(t)
    pooler = sharing_pooler(t, size=2)
    with pooler.console() as console, Load(pooler, 12) as load:
        figures = Figures(console)
        load.goes_on(500)
        figures.has("joined")
        console.do("set server_sharing = off")
        load.goes_on(100)
        figures.rest()
        figures = Figures(console)
        load.goes_on(500)
        same(figures.since("shared"), 0)
        console.do("set server_sharing = 1")
        load.goes_on(500)
        if shares:
            assert figures.since("shared") > 0


@ours
@slow(60)
def test_reload_of_pool_modes_loses_no_answer(t):
    # Session mode would keep servers from the others.
    def act(pooler, console, turn):
        pooler.change(reload=False, pool_mode=("statement", "transaction")[turn % 2])
        same(console.do("reload"), "RELOAD")
    under_load(t, act, turns=6)


@ours
@slow(60)
def test_reload_of_pool_sizes_loses_no_answer(t):
    def act(pooler, console, turn):
        pooler.change(reload=False, default_pool_size=(1, 4, 2, 5, 1, 3)[turn])
        same(console.do("reload"), "RELOAD")
    under_load(t, act, turns=6, sharing="auto", kinds=ALL_KINDS)


@ours
@slow(60)
def test_reload_of_the_address_moves_shared_load(t):
    def act(pooler, console, turn):
        pooler.databases["app"] = t.postgres.address("app", host=(t.postgres.sockets, "127.0.0.1")[turn % 2])
        pooler.write()
        same(console.do("reload"), "RELOAD")
    under_load(t, act, turns=6)


@ours
@slow(60)
def test_short_lifetime_of_servers_is_not_noticed(t):
    pooler = under_load(t, lambda *_: None, turns=8, between=600, server_lifetime=0.2)
    assert pooler.log().count("server lifetime over") + pooler.log().count("closing because") > 3


@ours
@slow(60)
def test_lifetime_0_is_not_noticed(t):
    under_load(t, lambda *_: None, turns=1, between=200, server_lifetime=0, needs=())


@ours
@slow(60)
def test_reset_after_each_use_is_not_noticed(t):
    under_load(t, lambda *_: None, turns=2, between=500, server_reset_query_always=1,
               server_reset_query="discard all", needs=())


@ours
@slow(60)
def test_check_before_each_use_is_not_noticed(t):
    under_load(t, lambda *_: None, turns=2, between=500, server_check_delay=0, needs=())


@ours
@slow(60)
def test_idle_timeouts_close_servers_that_were_shared(t):
    tables(t)
    pooler = sharing_pooler(t, size=3, server_idle_timeout=0.5)
    with pooler.console() as console, Load(pooler, 10) as load:
        for _ in range(3):
            load.goes_on(300)
            load.holds()
            eventually(lambda: not t.postgres.backends(), "no server is left")
            load.resumes()


@ours
@slow(60)
def test_idle_timeouts_of_transactions_do_not_concern_who_shares(t):
    under_load(t, lambda *_: None, turns=2, between=1500, idle_transaction_timeout=0.5, transaction_timeout=3, query_timeout=5)


@ours
@slow(60)
def test_kill_reaches_who_shares_and_the_next_ones_are_served(t):
    tables(t)
    pooler = sharing_pooler(t, size=2)
    with pooler.console() as console:
        for _ in range(3):
            load = Load(pooler, 10)
            load.goes_on(300)
            same(console.do("kill app"), "KILL")
            eventually(lambda: load.problems, "its clients are gone")
            load.is_over = True
            load.thread.join()
            same(console.do("resume app"), "RESUME")
            figures = Figures(console)
            with Load(pooler, 10) as load:
                load.goes_on(300)
            figures.rest()


@ours
@slow(60)
def test_kill_client_takes_only_that_one(t):
    tables(t)
    pooler = sharing_pooler(t, size=2)
    with pooler.console() as console, Load(pooler, 10) as load:
        for _ in range(10):
            victims = Load(pooler, 1, names="v")
            load.goes_on(100)
            name = victims.askers[0].connection.socket.getsockname()[1]
            row = next(row for row in console.table("show clients") if row["port"] == str(name))
            same(console.do(f"kill_client {row['id']}"), "KILL_CLIENT")
            eventually(lambda: victims.problems, "the victim is gone")
            load.check()


@ours
@slow(60)
def test_lending_between_workers_goes_on(t):
    # One server for the clients of two workers: it goes to and fro.
    under_load(t, lambda *_: None, turns=3, between=700, size=1, workers=2, shards=2, kinds=MANY_READS)


@ours
@slow(60)
def test_shard_without_servers_borrows_one_that_is_shared(t):
    pooler = sharing_pooler(t, size=2, workers=2, shards=2)
    tables(t)
    with pooler.console() as console:
        crowd = Shards(pooler, console, 12)
        rich, poor = crowd.workers
        for turn in range(200):
            for worker in (rich, poor):
                for i, c in enumerate(crowd.clients[worker]):
                    c.send(query(text_of(f"w{worker} {i}", turn)))
            for worker in (rich, poor):
                for i, c in enumerate(crowd.clients[worker]):
                    same(c.results().rows, [(f"w{worker} {i}", str(turn * 7919 % 1000003))])


# ---- how it ends ----------------------------------------------------------------------------------

@ours
@slow(60)
def test_sigint_lets_current_answers_arrive(t):
    tables(t)
    for _ in range(3):
        pooler = sharing_pooler(t, size=2, workers=2, shards=2)
        clients = [pooler.connect() for _ in range(24)]
        for turn in range(30):
            for i, c in enumerate(clients):
                c.send(query(text_of(f"c{i}", turn)))
            if turn == 29:
                pooler.signal(signal.SIGINT)
            for i, c in enumerate(clients):
                wanted = [(f"c{i}", str(turn * 7919 % 1000003))]
                if turn < 29:
                    same(c.results().rows, wanted)
                    continue
                found = c.closed()  # who had not been read yet is told that it ends
                result = pgwire.Result([m for m in found if m.type != "E"])
                assert result.rows in (wanted, []) and (result.rows or found[-1].error().text == "server shutting down"), found
        same(pooler.wait_exit(10), 0)


@ours
@slow(60)
def test_sigterm_serves_until_the_last_client_has_left(t):
    tables(t)
    pooler = sharing_pooler(t, size=2)
    with Load(pooler, 12) as load:
        load.goes_on(300)
        pooler.signal(signal.SIGTERM)
        load.goes_on(1000)
    same(pooler.wait_exit(10), 0)


@ours
@slow(60)
def test_online_restart_loses_no_shared_answer(t):
    tables(t)
    settings = dict(default_pool_size=2, max_client_conn=500, extra=own(1, 2, 2))
    pooler = sharing_pooler(t, size=2, workers=2, shards=2, pidfile=os.path.join(t.folder, "pooler.pid"))
    for _ in range(3):
        with Load(pooler, 12, MANY_READS) as load:
            load.goes_on(300)
            after = next_of(t, pooler, **settings)
            load.goes_on(300)
            with Load(after, 12, MANY_READS, names="n") as younger:
                younger.goes_on(300)
                load.goes_on(300)
        same(pooler.wait_exit(10), 0)
        pooler = after
    pooler.usable()


# ---- other ways in and out --------------------------------------------------------------------------

@ours
@slow(60)
def test_unix_sockets_on_both_sides(t):
    tables(t)
    pooler = sharing_pooler(t, size=2, databases={"app": t.postgres.address(host=t.postgres.sockets)})
    with pooler.console() as console:
        figures = Figures(console)
        with Load(pooler, 16, ALL_KINDS, host=pooler.folder) as load:
            load.goes_on(1500)
        figures.has("joined")


@ours
@slow(60)
def test_two_databases_and_two_users_never_share(t):
    tables(t)
    tables(t, "app2")
    pooler = sharing_pooler(t, size=2, workers=2)
    ways = [(user, database) for user in ("app", "other") for database in ("app", "app2")]
    kinds = {**READS}
    loads = []
    for i, (user, database) in enumerate(ways):
        def q_who(name, number, _, user=user, database=database):
            return Question(query(f"select '{name}', current_user || '/' || current_database() from (values ({number})) v"),
                            ([(name, f"{user}/{database}")], None))
        loads.append(Load(pooler, 6, {**kinds, q_who: 5}, names=f"{user}{database}", user=user, database=database))
    for load in loads:
        load.goes_on(400, 30)
    for load in loads:
        load.finish()


@ours
@slow(60)
def test_lookups_of_auth_query_go_on_beside_shared_load(t):
    tables(t)
    pooler = sharing_pooler(
        t, size=1, auth_type="scram-sha-256", auth_user="app", auth_dbname="app",
        auth_query="select rolname, rolpassword from pg_authid where rolname = $1",
        databases={"app": t.postgres.address(user="app")}, userlist={"app": PASSWORD, "admin": PASSWORD})
    with Load(pooler, 12, user="app", password=PASSWORD) as load:
        for _ in range(15):
            load.goes_on(60)
            with pooler.connect("u_scram", "app", PASSWORD, timeout=10) as c:
                same(c.value("select 'in'"), "in")


@ours
@slow(60)
def test_pgbench_of_all_protocols_is_served(t):
    t.run_program([f"{POSTGRES_BIN}/pgbench", "-h", "127.0.0.1", "-p", str(t.postgres.port), "-U", "app", "-i", "-q", "app"])
    tables(t)
    pooler = sharing_pooler(t, size=4, sharing=2, workers=2, shards=2)
    with pooler.console() as console:
        figures = Figures(console)
        for mode in ("simple", "extended", "prepared"):
            shared = figures.now().get("shared", 0)
            done = t.run_program([f"{POSTGRES_BIN}/pgbench", "-h", "127.0.0.1", "-p", str(pooler.port), "-U", "app", "-n",
                                  "-S", "-M", mode, "-c", "24", "-j", "2", "-t", "300", "app"], seconds=40)
            assert "number of transactions actually processed: 7200/7200" in done.stdout, done.stdout
            assert "failed transactions: 0 " in done.stdout, done.stdout
            if shares:
                same(figures.now()["shared"] - shared >= 7200, True)
        figures.has("joined")


# ---- everything at once -------------------------------------------------------------------------------

@ours
@slow(150)
def test_everything_at_once_and_who_only_reads_notices_nothing(t):
    """Strict ones read; hardy ones do everything, leave at any moment, are cancelled; backends are terminated, and the
    operator does what he can think of. SHARING_SEED replays one, SHARING_ROUNDS is for how long."""
    seed = int(os.environ.get("SHARING_SEED", random.randrange(10000)))
    print(f"SHARING_SEED={seed}")
    draw = random.Random(seed)
    tables(t)
    pooler = sharing_pooler(t, size=3, workers=2, shards=2, max_client_conn=2000, server_login_retry=0.05, suspend_timeout=5)
    strict = Load(pooler, 12, READS, seed=seed, names="s", silence=30)
    hardy = Load(pooler, 8, ALL_KINDS, seed=seed + 1, names="h", silence=30, leaves=0.02, pieces=0.1, is_hardy=True)
    loads = (strict, hardy)

    def change(console, **settings):
        pooler.change(reload=False, **settings)
        console.do("reload")

    def share(console):
        pooler.extra = own(draw.choice(("auto", "1", "2")), 2, 2)
        change(console)

    def stop_sharing(console):  # meanwhile nobody is terminated, for everybody would notice
        pooler.extra = own("off", 2, 2)
        change(console)
        strict.goes_on(20, 30)
        share(console)

    def cancel(console):
        for asker in draw.sample(hardy.askers, 3):
            pooler.cancel(asker.connection.key, wait=False)

    def terminate(console):
        if shares:
            admin.query("select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'app' order by random() limit "
                        f"{draw.choice((1, 1, 1, 3))}")

    def pause(console):
        console.do("pause app", 20)
        console.do("resume app")

    def suspend(console):
        console.do("suspend", 20)
        console.do("resume")

    def lazy(console):
        with pooler.connect(receive_bytes=4096) as c:
            c.send(query(f"select 'lazy', repeat('z', 2000) from generate_series(1, {draw.choice((10, 1000, 3000))})"))
            strict.goes_on(20, 30)

    acts = (cancel, cancel, cancel, terminate, terminate, terminate, share, stop_sharing, pause, suspend, lazy,
            lambda console: console.do("reconnect"),
            lambda console: change(console, default_pool_size=draw.choice((2, 3, 5))),
            lambda console: change(console, server_lifetime=draw.choice((0.1, 0.5, 3600))),
            lambda console: change(console, max_prepared_statements=draw.choice((1, 3, 200))),
            lambda console: change(console, server_round_robin=draw.choice((0, 1))),
            lambda console: console.table("show sharing"), lambda console: console.table("show servers"),
            lambda console: console.table("show clients"), lambda console: console.table("show sharing_classes"))
    with t.postgres.admin() as admin, pooler.console(timeout=30) as console:
        for _ in range(int(os.environ.get("SHARING_ROUNDS", 60))):
            draw.choice(acts)(console)
            strict.goes_on(draw.choice((5, 20, 100)), 40)
            hardy.goes_on(draw.choice((1, 5, 20)), 40)
        print(f"{strict.finish()} and {hardy.finish()} answers, {hardy.losses} losses")
        Figures(console).rest()
        console.wait_pool(cl_active=0, cl_waiting=0, sv_active=0)
    pooler.usable()


@ours
@slow(60)
def test_shutdown_commands_wait_for_whom_they_say(t):
    tables(t)
    pooler = sharing_pooler(t, size=2)
    with pooler.console() as console:
        with Load(pooler, 10) as load:
            load.goes_on(200)
            console.client.send(query("shutdown wait_for_clients"))
            load.goes_on(500)
    same(pooler.wait_exit(10), 0)
