#!/usr/bin/python3
"""Measures pgsplice against PgBouncer and plain PostgreSQL, in one run, in turn, medians of several rounds.

    bench/bench.py --pgsplice build/pgsplice --out build/bench [--rounds N] [--seconds S] [--quick] [--only a,b]

Sections: matrix prepared latency idle logins keys copy heap cores atomics lending cold tls (tls_idle tls_handshakes tls_storm
tls_pgbench tls_bulk) sharing (sharing-load sharing-limits sharing-few sharing-mixed). Writes results.md, results.csv and tps.svg
into --out.
Machines are noisy: what counts is the ratio of two figures of the same round. See bench/README.md.
"""
import argparse
import csv
import glob
import os
import pwd
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

from sharing_sections import SharingSections
from tls_sections import TlsSections

HERE = os.path.dirname(os.path.abspath(__file__))
SCRATCH = os.path.join(HERE, "..", "tests", "setup", "scratch_postgres.sh")
CLIENTS = (1, 8, 32, 64, 200)
PROTOCOLS = ("simple", "extended", "prepared")
PASSWORD = "bench-password"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else float("nan")


class Process:
    """CPU, context switches and memory of a process, all its threads."""

    def __init__(self, pid):
        self.pid = pid

    def user_us(self):
        """Of the time of all threads, the part outside the kernel; by ticks of the clock, so only for seconds."""
        with open(f"/proc/{self.pid}/stat") as file:
            return int(file.read().rsplit(")", 1)[1].split()[11]) * 1e6 / os.sysconf("SC_CLK_TCK")

    def cpu_us(self):
        total = 0
        for path in glob.glob(f"/proc/{self.pid}/task/*/schedstat"):
            with open(path) as file:
                total += int(file.read().split()[0])
        return total / 1000

    def switches(self):
        total = 0
        for path in glob.glob(f"/proc/{self.pid}/task/*/status"):
            with open(path) as file:
                for line in file:
                    if line.startswith("voluntary_ctxt_switches"):
                        total += int(line.split()[1])
        return total

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Rss:"):
                    return int(line.split()[1]) * 1024
        return 0


class Bench(TlsSections, SharingSections):
    def __init__(self, options):
        self.options = options
        self.folder = tempfile.mkdtemp(prefix="pgsplice-bench.")
        os.chmod(self.folder, 0o755)
        self.user = run(SCRATCH, "user").strip()
        self.as_root = os.geteuid() == 0
        self.rows = []
        self.lines = []
        self.verdicts = []
        self.pg_port = free_port()
        self.poolers = options.poolers.split(",")
        self.agreed = set()
        self.running = []

    # servers

    def __enter__(self):
        self.give(self.folder)
        run(SCRATCH, "start", self.folder, str(self.pg_port))
        self.pgbench(self.pg_port, "-i", "-q", "-s", "10")
        self.sql(f"create role bench login superuser password '{PASSWORD}'")
        self.secret = self.sql("select rolpassword from pg_authid where rolname = 'bench'").strip()
        return self

    def __exit__(self, *_):
        for process in self.running:  # none, unless a section has failed
            process.kill()
            process.wait()
        run(SCRATCH, "stop", self.folder)
        shutil.rmtree(os.path.realpath(os.path.join(self.folder, "data")), ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def give(self, path):
        if self.as_root:
            entry = pwd.getpwnam(self.user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def sql(self, text, port=None):
        return run("psql", "-h", "127.0.0.1", "-p", str(port or self.pg_port), "-U", "postgres", "-qAt",
                   "-c", text, "postgres")

    def pgbench(self, port, *arguments, user="postgres", environment=None):
        return run("pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", user, *arguments, "postgres",
                   cwd=self.folder, env={**os.environ, **(environment or {})})

    def start(self, what, mode="transaction", auth="trust", busy_poll=None, preload=None, secrets=None, entry="",
              workers=1, more="", binary=None, pool=20, server_port=None, settings="", environment=None):
        """A pooler of its own; returns (Process, port, stop). `secrets`: of its users; `entry`: more of [databases];
        `more`: of [pgsplice]; `settings`: of [pgbouncer]; `pool`: default_pool_size; `server_port`: where PostgreSQL is, if not straight."""
        port = free_port()
        name = f"{what}-{port}"
        ini = os.path.join(self.folder, name + ".ini")
        users = os.path.join(self.folder, name + ".users")
        with open(users, "w") as file:
            secret = self.secret if auth == "scram-sha-256" else ""
            for user, secret in (secrets or {"postgres": "", "bench": secret}).items():
                file.write(f'"{user}" "{secret}"\n')
        with open(ini, "w") as file:
            file.write(f"[databases]\n* = host=127.0.0.1 port={server_port or self.pg_port} {entry}\n[pgbouncer]\n"
                       f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
                       f"auth_type = {auth}\nauth_file = {users}\npool_mode = {mode}\n"
                       f"default_pool_size = {pool}\nmax_client_conn = 12000\nlisten_backlog = 1024\n"
                       "log_connections = 0\nlog_disconnections = 0\nadmin_users = postgres\n" + settings)
            if "server_tls_sslmode" not in settings:
                file.write("server_tls_sslmode = disable\n")  # the default depends on the version
            if what == "pgsplice":
                file.write(f"[pgsplice]\nworker_threads = {workers}\n{more}")
                if busy_poll:
                    file.write(f"busy_poll = {busy_poll}\n")
        for path in (ini, users):
            self.give(path)
        binary = os.path.abspath(binary or self.options.pgsplice) if what == "pgsplice" else "/usr/sbin/pgbouncer"
        if self.as_root:
            copy = os.path.join(self.folder, os.path.basename(os.path.dirname(binary)) + "-pgsplice")
            if what == "pgsplice":
                if not os.path.exists(copy):
                    shutil.copy(binary, copy)
                binary = copy
            command = ["setpriv", f"--reuid={self.user}", f"--regid={pwd.getpwnam(self.user).pw_gid}",
                       "--clear-groups", "--", binary, "-q", ini]
        else:
            command = [binary, "-q", ini]
        environment = {**os.environ, **(environment or {})}
        if preload:
            environment.update(preload)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, cwd=self.folder)
        self.running.append(process)
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    sys.exit(f"{what} does not start: {' '.join(command)}")
                time.sleep(0.02)

        def stop():
            process.send_signal(signal.SIGQUIT if what == "pgsplice" else signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self.running.remove(process)
        return Process(process.pid), port, stop

    # results

    def say(self, line=""):
        print(line, flush=True)
        self.lines.append(line)

    def record(self, section, what, **values):
        self.rows.append({"section": section, "what": what, **values})

    def judge(self, text, value, limit, at_most):
        good = value <= limit if at_most else value >= limit
        line = (f"{'PASS' if good else 'MISS'}  {text}: {value:.2f} "
                f"(target {'<=' if at_most else '>='} {limit})")
        self.verdicts.append(line)
        self.say(line)

    # sections

    def one(self, port, process, protocol, clients, seconds, environment=None):
        for old in glob.glob(os.path.join(self.folder, "log.*")):
            os.unlink(old)
        cpu, switches, user = (process.cpu_us(), process.switches(), process.user_us()) if process else (0, 0, 0)
        out = self.pgbench(port, "-n", "-S", "-M", protocol, "-c", str(clients), "-j", "2", "-T",
                           str(seconds), "-l", "--log-prefix", os.path.join(self.folder, "log"), environment=environment)
        result = {}
        for line in out.splitlines():
            if line.startswith("tps"):
                result["tps"] = float(line.split()[2])
            if line.startswith("latency average"):
                result["average_ms"] = float(line.split()[3])
            if "actually processed" in line:
                count = result["count"] = int(line.split(":")[1].split("/")[0])
        times = []
        for path in glob.glob(os.path.join(self.folder, "log.*")):
            with open(path) as file:
                times.extend(int(line.split()[2]) for line in file)
        times.sort()
        if not times:
            sys.exit(f"port {port}: {clients} clients did nothing in {seconds} s")
        for part in (50, 95, 99):
            result[f"p{part}_us"] = times[min(len(times) - 1, len(times) * part // 100)]
        if process:
            result["cpu_us"] = (process.cpu_us() - cpu) / count
            result["user_us"] = (process.user_us() - user) / count
            result["switches"] = (process.switches() - switches) / count
        return result

    def matrix(self):
        self.say("\n## Throughput, latency, CPU: pgbench -S, pool of 20, one worker\n")
        self.say("| protocol | clients | what | tx/s | avg ms | p50 us | p95 us | p99 us | CPU us/tx | switches/tx |")
        self.say("|---|---|---|---|---|---|---|---|---|---|")
        tps, cpu = {}, {}
        for protocol in PROTOCOLS:
            # Debian's PgBouncer 1.18 does not track prepared statements; see the section `prepared`.
            mode = "session" if protocol == "prepared" else "transaction"
            poolers = {what: self.start(what, mode) for what in ("pgbouncer", "pgsplice")}
            for clients in CLIENTS:
                if mode == "session" and clients > 20:
                    continue  # a session each: the pool is full
                found = {what: [] for what in ("postgresql", "pgbouncer", "pgsplice")}
                for round_number in range(self.options.rounds):
                    order = ["pgbouncer", "pgsplice"] if round_number % 2 == 0 else ["pgsplice", "pgbouncer"]
                    for what in ["postgresql"] + order:
                        process, port = poolers[what][:2] if what in poolers else (None, self.pg_port)
                        found[what].append(self.one(port, process, protocol, clients, self.options.seconds))
                for what, results in found.items():
                    row = {k: median([r.get(k) for r in results]) for k in results[0]}
                    self.record("matrix", what, protocol=protocol, clients=clients, **row)
                    tps[protocol, clients, what] = row["tps"]
                    cpu[protocol, clients, what] = row.get("cpu_us")
                    self.say(f"| {protocol}{' (session)' if mode == 'session' else ''} | {clients} | {what} | "
                             f"{row['tps']:.0f} | {row['average_ms']:.3f} | {row['p50_us']:.0f} | "
                             f"{row['p95_us']:.0f} | {row['p99_us']:.0f} | "
                             + (f"{row['cpu_us']:.2f} | {row['switches']:.3f} |" if what in poolers else "- | - |"))
            for _, _, stop in poolers.values():
                stop()
        self.say()
        self.judge("CPU per transaction, 32 clients, simple, pgsplice/PgBouncer",
                   cpu["simple", 32, "pgsplice"] / cpu["simple", 32, "pgbouncer"], 0.75, True)
        for clients in (32, 64):
            self.judge(f"tx/s, {clients} clients, simple, pgsplice/PgBouncer",
                       tps["simple", clients, "pgsplice"] / tps["simple", clients, "pgbouncer"], 1.1, False)
        self.plot(tps)

    def prepared(self):
        """Tracked statements in transaction mode. Debian's PgBouncer 1.18 has no tracking: it runs in session
        mode, with a server for each client."""
        self.say("\n## Prepared statements: pgbench -S, one worker\n")
        self.say("pgsplice: transaction mode, pool of 20. PgBouncer: session mode for prepared, pool of 70; transaction "
                 "mode, pool of 20, for the others.\n")
        self.say("| clients | protocol | what | tx/s | p50 us | p99 us | CPU us/tx | CPU of PostgreSQL us/tx |")
        self.say("|---|---|---|---|---|---|---|---|")
        ways = [("simple", "postgresql"), ("simple", "pgbouncer"), ("simple", "pgsplice"),
                ("prepared", "postgresql"), ("prepared", "pgbouncer (session)"), ("prepared", "pgsplice"),
                ("extended", "postgresql"), ("extended", "pgbouncer"), ("extended", "pgsplice"),
                ("extended", "pgsplice, unnamed not cached")]
        poolers = {
            "pgbouncer": self.start("pgbouncer"),
            "pgbouncer (session)": self.start("pgbouncer", "session", pool=70),
            "pgsplice": self.start("pgsplice"),
            "pgsplice, unnamed not cached": self.start("pgsplice", more="cache_unnamed_statements = 0\n"),
        }
        cpu, tps = {}, {}
        for clients in (1, 32, 64):
            found = {way: [] for way in ways}
            for round_number in range(self.options.rounds):
                for way in ways if round_number % 2 == 0 else reversed(ways):
                    process, port = poolers[way[1]][:2] if way[1] in poolers else (None, self.pg_port)
                    backends = self.backend_cpu_us()
                    result = self.one(port, process, way[0], clients, self.options.seconds)
                    count = result["tps"] * self.options.seconds
                    result["backend_us"] = (self.backend_cpu_us() - backends) / count
                    found[way].append(result)
            for way in ways:
                row = {k: median([r.get(k) for r in found[way]]) for k in found[way][0]}
                self.record("prepared", way[1], protocol=way[0], clients=clients, **row)
                cpu[way, clients], tps[way, clients] = row.get("cpu_us"), row["tps"]
                self.say(f"| {clients} | {way[0]} | {way[1]} | {row['tps']:.0f} | {row['p50_us']:.0f} | "
                         f"{row['p99_us']:.0f} | " + (f"{row['cpu_us']:.2f}" if way[1] in poolers else "-") +
                         f" | {row['backend_us']:.1f} |")
        for _, _, stop in poolers.values():
            stop()
        self.say()
        for clients in (1, 32, 64):
            self.judge(f"CPU per transaction, {clients} clients, prepared/simple, pgsplice",
                       cpu[("prepared", "pgsplice"), clients] / cpu[("simple", "pgsplice"), clients], 1.15, True)
        for clients in (1, 32, 64):
            self.judge(f"tx/s, {clients} clients, extended, unnamed cached/not cached",
                       tps[("extended", "pgsplice"), clients] /
                       tps[("extended", "pgsplice, unnamed not cached"), clients], 1.0, False)

    def backend_cpu_us(self):
        """CPU of all processes of the scratch PostgreSQL, those that have ended included."""
        with open(os.path.join(self.folder, "data", "postmaster.pid")) as file:
            postmaster = int(file.readline())
        total = 0
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(path) as file:
                    pid, rest = int(path.split("/")[2]), file.read().rsplit(")", 1)[1].split()
                if pid == postmaster:
                    total += int(rest[13]) + int(rest[14])
                if pid == postmaster or int(rest[1]) == postmaster:
                    total += int(rest[11]) + int(rest[12])
            except (FileNotFoundError, ProcessLookupError):
                pass
        return total * 1e6 / os.sysconf("SC_CLK_TCK")

    def plot(self, tps):
        colours = {"postgresql": "#888888", "pgbouncer": "#c8553d", "pgsplice": "#2a6f97"}
        top = max(v for k, v in tps.items() if k[0] == "simple") * 1.1
        parts = ['<svg xmlns="http://www.w3.org/2000/svg" width="760" height="320" font-family="sans-serif" '
                 'font-size="12"><rect width="760" height="320" fill="white"/>'
                 '<text x="20" y="20">pgbench -S, simple protocol, transactions per second (medians)</text>']
        for group, clients in enumerate(CLIENTS):
            for number, (what, colour) in enumerate(colours.items()):
                value = tps["simple", clients, what]
                height = 230 * value / top
                x = 40 + group * 140 + number * 36
                parts.append(f'<rect x="{x}" y="{270 - height:.0f}" width="32" height="{height:.0f}" fill="{colour}"/>'
                             f'<text x="{x + 16}" y="{266 - height:.0f}" text-anchor="middle" font-size="9">'
                             f'{value / 1000:.1f}k</text>')
            parts.append(f'<text x="{40 + group * 140 + 52}" y="288" text-anchor="middle">{clients} clients</text>')
        for number, (what, colour) in enumerate(colours.items()):
            parts.append(f'<rect x="{40 + number * 120}" y="300" width="12" height="12" fill="{colour}"/>'
                         f'<text x="{58 + number * 120}" y="310">{what}</text>')
        with open(os.path.join(self.options.out, "tps.svg"), "w") as file:
            file.write("".join(parts) + "</svg>\n")

    def latency(self):
        self.say("\n## Latency added at one client (p50, pgbench -S, simple)\n")
        poolers = {"pgbouncer": self.start("pgbouncer"), "pgsplice": self.start("pgsplice"),
                   "pgsplice busy_poll=50us": self.start("pgsplice", busy_poll="50us")}
        found = {what: [] for what in ("postgresql", *poolers)}
        for _ in range(self.options.rounds + 2):
            for what in found:
                process, port = poolers[what][:2] if what in poolers else (None, self.pg_port)
                found[what].append(self.one(port, process, "simple", 1, self.options.seconds))
        for _, _, stop in poolers.values():
            stop()
        base = [r["p50_us"] for r in found["postgresql"]]
        added = {}
        self.say("| what | p50 us | p99 us | added us | CPU us/tx |")
        self.say("|---|---|---|---|---|")
        for what, results in found.items():
            added[what] = median([r["p50_us"] - b for r, b in zip(results, base)])
            p50, p99 = median([r["p50_us"] for r in results]), median([r["p99_us"] for r in results])
            cpu = median([r.get("cpu_us") for r in results])
            self.record("latency", what, p50_us=p50, p99_us=p99, added_us=added[what], cpu_us=cpu)
            self.say(f"| {what} | {p50:.0f} | {p99:.0f} | {added[what]:.0f} | {cpu:.1f} |")
        self.say()
        self.judge("added latency with busy_poll=50us / PgBouncer's",
                   added["pgsplice busy_poll=50us"] / added["pgbouncer"], 0.5, True)
        self.judge("added latency without busy_poll / PgBouncer's", added["pgsplice"] / added["pgbouncer"], 1.0, True)

    def storm(self, *arguments, **more):
        return [os.path.join(self.options.out, "storm"), *[str(a) for a in arguments]]

    def idle(self):
        count = 1000 if self.options.quick else 10000
        self.say(f"\n## Resident memory of {count} idle clients\n")
        self.say("| what | before MiB | after MiB | bytes for each |")
        self.say("|---|---|---|---|")
        for what in ("pgbouncer", "pgsplice"):
            process, port, stop = self.start(what)
            self.pgbench(port, "-n", "-S", "-c", "20", "-j", "2", "-T", "1")
            before = process.rss_bytes()
            client = subprocess.Popen(self.storm("idle", "127.0.0.1", port, "postgres", "", "postgres", count),
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            line = client.stdout.readline()
            if not line.startswith("open"):
                sys.exit(f"{what}: {count} clients could not be opened")
            after = process.rss_bytes()
            each = (after - before) / count
            self.record("idle", what, before=before, after=after, bytes_each=each)
            self.say(f"| {what} | {before / 2**20:.1f} | {after / 2**20:.1f} | {each:.0f} |")
            client.stdin.close()
            client.wait()
            stop()
            if what == "pgsplice":
                self.say()
                self.judge("resident bytes for each idle client", each, 512, True)

    def logins(self):
        self.say("\n## Logins per second (16 at a time)\n")
        self.say("| method | what | logins/s | pooler CPU us each |")
        self.say("|---|---|---|---|")
        for auth in ("trust", "scram-sha-256"):
            poolers = {what: self.start(what, auth=auth) for what in ("pgbouncer", "pgsplice")}
            found = {what: [] for what in poolers}
            for _ in range(self.options.rounds):
                for what, (process, port, _) in poolers.items():
                    cpu = process.cpu_us()
                    out = run(*self.storm("logins", "127.0.0.1", port, "bench", PASSWORD, "postgres",
                                          self.options.seconds, 16)).split()
                    found[what].append((float(out[0]) / float(out[3]), (process.cpu_us() - cpu) / float(out[0])))
            rates = {}
            for what, results in found.items():
                rates[what], cost = median([r[0] for r in results]), median([r[1] for r in results])
                self.record("logins", what, auth=auth, per_second=rates[what], cpu_us=cost)
                self.say(f"| {auth} | {what} | {rates[what]:.0f} | {cost:.0f} |")
                poolers[what][2]()
            self.verdicts.append("")
            self.judge(f"logins per second, {auth}, pgsplice/PgBouncer", rates["pgsplice"] / rates["pgbouncer"], 1.5, False)

    def keys(self):
        """Ten busy clients, alone and while others log in with SCRAM against plain secrets. Each round has poolers of
        its own: no key is made yet when the storm begins."""
        logins, at_once = (400, 50) if self.options.quick else (2000, 50)
        self.say(f"\n## Busy clients while {logins} others log in (SCRAM, plain secrets, {at_once} at a time)\n")
        self.say("| users | what | quiet p50 us | quiet p99 us | storm p50 us | storm p99 us | storm max ms | storm tx/s | "
                 "storm lasted s | p99 storm/quiet |")
        self.say("|---|---|---|---|---|---|---|---|---|---|")
        ratios = {}
        for users in (200, 2000):
            secrets = {"postgres": PASSWORD, **{f"u{i}": PASSWORD for i in range(users)}}
            found = {"pgbouncer": [], "pgsplice": []}
            for round_number in range(self.options.rounds):
                for what in sorted(found, reverse=round_number % 2 == 1):
                    _, port, stop = self.start(what, auth="scram-sha-256", secrets=secrets, entry="user=postgres",
                                                workers=0)
                    found[what].append(self.one_storm(port, logins, at_once, users))
                    stop()
            for what, results in found.items():
                row = {key: median([r[key] for r in results]) for key in results[0]}
                ratios[what, users] = row["ratio"]
                self.record("keys", what, clients=users, **row)
                self.say(f"| {users} | {what} | {row['quiet_p50']:.0f} | {row['quiet_p99']:.0f} | {row['p50']:.0f} | "
                         f"{row['p99']:.0f} | {row['max'] / 1000:.1f} | {row['tps']:.0f} | {row['lasted']:.2f} | "
                         f"{row['ratio']:.2f} |")
        self.say()
        for users in (200, 2000):
            self.judge(f"p99 of busy clients, {logins} logins of {users} users / quiet, pgsplice",
                       ratios["pgsplice", users], 2, True)

    def one_storm(self, port, logins, at_once, users):
        def busy(seconds):
            # More at once than pipes may hold is never written: one line each.
            return subprocess.Popen(self.storm("busy", "127.0.0.1", port, "postgres", PASSWORD, "postgres", seconds, 10),
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def result(client):
            out = client.communicate()[0].split()
            if client.returncode != 0:
                sys.exit("the busy clients failed")
            words = dict(zip(out[5::2], out[6::2]))
            return {"tps": float(out[0]) / float(out[3]), **{key: float(words[key]) for key in ("p50", "p99", "max")}}

        busy(1).communicate()  # PostgreSQL's caches and the pool's servers
        client = busy(self.options.seconds)
        client.stdout.readline()
        quiet = result(client)
        client = busy(0)
        client.stdout.readline()
        out = run(*self.storm("users", "127.0.0.1", port, "u", PASSWORD, "postgres", logins, at_once, users)).split()
        storm = result(client)
        if out[5] != "0":
            sys.exit(f"{out[5]} logins failed")
        return {**storm, "quiet_p50": quiet["p50"], "quiet_p99": quiet["p99"], "ratio": storm["p99"] / quiet["p99"],
                "lasted": float(out[3])}

    def copy(self):
        megabytes = 100 if self.options.quick else 1000
        self.say(f"\n## COPY out of {megabytes} MB, and a row of 100 MB\n")
        self.say("| what | COPY MB/s | row MB/s | resident memory grew by MiB |")
        self.say("|---|---|---|---|")
        poolers = {what: self.start(what) for what in ("pgbouncer", "pgsplice")}
        queries = {"copy": f"copy (select repeat('x', 1023) from generate_series(1, {megabytes * 1000})) to stdout",
                   "row": "select repeat('x', 100000000)"}
        found = {what: {"copy": [], "row": [], "grown": []} for what in ("postgresql", *poolers)}
        for _ in range(self.options.rounds):
            for what in found:
                process, port = poolers[what][:2] if what in poolers else (None, self.pg_port)
                before = process.rss_bytes() if process else 0
                most, over = [before], threading.Event()

                def watch():
                    while process and not over.wait(0.02):
                        most.append(process.rss_bytes())
                watcher = threading.Thread(target=watch)
                watcher.start()
                for kind, query in queries.items():
                    began = time.monotonic()
                    size = read_query(port, query)
                    found[what][kind].append(size / 1e6 / (time.monotonic() - began))
                over.set()
                watcher.join()
                found[what]["grown"].append((max(most) - before) / 2**20)
        for what, values in found.items():
            self.record("copy", what, copy_mb_s=median(values["copy"]), row_mb_s=median(values["row"]),
                        grown_mib=max(values["grown"]))
            self.say(f"| {what} | {median(values['copy']):.0f} | {median(values['row']):.0f} | {max(values['grown']):.1f} |")
        for _, _, stop in poolers.values():
            stop()
        self.say()
        for kind, text in (("copy", "COPY out"), ("row", "row of 100 MB")):
            ratio = median([a / b for a, b in zip(found["pgsplice"][kind], found["postgresql"][kind])])
            self.judge(f"{text}, pgsplice/straight", ratio, 0.95, False)

    def heap(self):
        self.say("\n## Heap allocations in steady state\n")
        counter = os.path.join(self.folder, "mallocs")
        with open(counter, "wb") as file:
            file.write(bytes(8))
        os.chmod(counter, 0o666)
        preload = os.path.join(self.folder, "malloc_count.so")
        shutil.copy(os.path.join(self.options.out, "malloc_count.so"), preload)

        def read():
            with open(counter, "rb") as file:
                return struct.unpack("Q", file.read(8))[0]
        process, port, stop = self.start("pgsplice", preload={"LD_PRELOAD": preload, "MALLOC_COUNT_FILE": counter})
        self.pgbench(port, "-n", "-S", "-c", "8", "-T", "1")
        at_start = read()
        before = read()
        self.pgbench(port, "-n", "-S", "-c", "8", "-t", "2000")
        count = read() - before
        stop()
        self.record("heap", "pgsplice", allocations=count, transactions=16000, before=at_start)
        self.say(f"{count} allocations in 16000 transactions of 8 clients, their logins included "
                 f"({at_start} before that: start and configuration)")
        self.judge("heap allocations per transaction", count / 16000, 0, True)

    def cores(self):
        """What another core costs: the clients of one pool on one worker, and spread over two."""
        self.say("\n## The cost of more cores: one pool, pgbench -S, simple\n")
        self.say("| clients | pool | what | tx/s | p50 us | p99 us | CPU us/tx | switches/tx |")
        self.say("|---|---|---|---|---|---|---|---|")
        cpu = {}
        # 8 clients for 20 servers: nobody waits. 64: there is always a waiter on both workers.
        for clients in (8, 32, 64):
            poolers = {"pgbouncer": self.start("pgbouncer"), "pgsplice 1 worker": self.start("pgsplice"),
                       "pgsplice 2 workers": self.start("pgsplice", workers=2)}
            found = {what: [] for what in poolers}
            for round_number in range(self.options.rounds):
                order = list(poolers)
                for what in order if round_number % 2 == 0 else reversed(order):
                    process, port, _ = poolers[what]
                    found[what].append(self.one(port, process, "simple", clients, self.options.seconds))
            for _, _, stop in poolers.values():
                stop()
            for what, results in found.items():
                row = {k: median([r.get(k) for r in results]) for k in results[0]}
                self.record("cores", what, clients=clients, **row)
                self.say(f"| {clients} | 20 | {what} | {row['tps']:.0f} | {row['p50_us']:.0f} | "
                         f"{row['p99_us']:.0f} | {row['cpu_us']:.2f} | {row['switches']:.3f} |")
            cpu[clients] = median([two["cpu_us"] / one["cpu_us"] for one, two in
                                   zip(found["pgsplice 1 worker"], found["pgsplice 2 workers"])])
        self.say()
        for clients, ratio in cpu.items():
            self.judge(f"CPU per transaction, 2 workers/1 worker, {clients} clients", ratio, 1.1, True)

    def atomics(self):
        """What the workers share: atomic read-modify-write operations for a transaction. (Plain loads of what nobody
        writes cost nothing, and no lock exists.)"""
        self.say("\n## Atomic operations of the pooler for one transaction (pgbench -S, simple, pool of 20)\n")
        self.say("| workers | clients | atomic operations for each transaction | stores of the sleep flag (turns) |")
        self.say("|---|---|---|---|")
        counter = os.path.join(self.folder, "atomics")
        preload = os.path.join(self.folder, "atomic_count.so")
        shutil.copy(os.path.join(self.options.out, "atomic_count.so"), preload)
        with open(counter, "wb") as file:
            file.write(bytes(16))
        os.chmod(counter, 0o666)

        def read():
            with open(counter, "rb") as file:
                return struct.unpack("QQ", file.read(16))
        found = {}
        for workers in (1, 2):
            for clients in (8, 64):
                _, port, stop = self.start("pgsplice", workers=workers, binary=self.options.atomics,
                                           preload={"LD_PRELOAD": preload, "ATOMIC_COUNT_FILE": counter})
                counts = []
                # The difference of two runs: what logins and server connections cost is in both.
                for each in (100, 100, 1100):
                    before = read()
                    self.pgbench(port, "-n", "-S", "-c", str(clients), "-j", "2", "-t", str(each))
                    counts.append([now - then for now, then in zip(read(), before)])
                stop()
                each, turns = ((counts[2][i] - counts[1][i]) / (1000 * clients) for i in (0, 1))
                found[workers, clients] = each
                self.record("atomics", "pgsplice", workers=workers, clients=clients,
                            per_transaction=each, turns=turns)
                self.say(f"| {workers} | {clients} | {each:.3f} | {turns:.3f} |")
        self.say()
        self.judge("atomic operations for a transaction, 2 workers, nobody waits", found[2, 8], 0.05, True)

    def lending(self):
        """All load on one shard, all idle servers on the other: how long does the client wait? Counted by the
        pooler (total_wait_time), since a client's own clock would mostly show the client."""
        self.say("\n## Lending: a waiter of one shard, all idle servers on the other\n")
        self.say("| what | hand-overs | p10 us | median us | p90 us | worst us | one wake-up, us |")
        self.say("|---|---|---|---|---|---|---|")
        medians = {}
        # After a pause of 2 ms the CPUs of a virtual machine have been halted, and waking one costs tens of
        # microseconds: the last column tells how much, by a byte through a pipe between two processes.
        for busy_poll, pause in ((None, 0), (None, 0.002), ("50us", 0), ("50us", 0.002)):
            what = "pgsplice" + (f" busy_poll={busy_poll}" if busy_poll else "") + (", after 2 ms of silence" if pause else "")
            wakes = sorted(wake_ups(300, pause))
            waits = []
            for _ in range(self.options.rounds):
                _, port, stop = self.start("pgsplice", busy_poll=busy_poll, workers=2, more="pool_shards = 2\n")
                waits.extend(lend_again_and_again(port, 50 if self.options.quick else 200, pause))
                stop()
            waits.sort()
            medians[what] = statistics.median(waits)
            values = [waits[len(waits) * part // 100] for part in (10, 50, 90)] + [waits[-1], wakes[len(wakes) // 2]]
            self.record("lending", what, hand_overs=len(waits), p10_us=values[0], p50_us=values[1],
                        p90_us=values[2], worst_us=values[3], wake_up_us=values[4])
            self.say(f"| {what} | {len(waits)} | " + " | ".join(str(v) for v in values) + " |")
        self.say()
        for what, value in medians.items():
            self.judge(f"median wait for a server that idles on another worker, {what}, us", value, 50, True)


    def cold(self):
        """Servers that have to be opened first, where a login takes 100 ms. Each client opens a transaction and keeps
        it, so each of them needs a server of its own."""
        self.say(f"\n## Cold servers: a login takes {COLD_DELAY * 1000:.0f} ms, each client needs a server of its own\n")
        self.say("Time until all clients have their first answer. Nothing known: a fresh pooler, which does not know yet what to tell "
                 "clients at their login, either. Pool known: it has had one client before.\n")
        self.say("| what | nothing known, 1 client | 20 clients | pool known, 1 client | 20 clients |")
        self.say("|---|---|---|---|---|")
        relay = SlowLogins(self.pg_port, COLD_DELAY)
        found = {}
        for round_number in range(self.options.rounds):
            order = ["postgresql", "pgbouncer", "pgsplice"]
            for what in order if round_number % 2 == 0 else reversed(order):
                times = []
                for is_known in (False, True):
                    for clients in (1, 20):
                        if what == "postgresql":
                            times.append(first_answers(relay.port, clients))
                            continue
                        _, port, stop = self.start(what, server_port=relay.port, pool=30)
                        if is_known:
                            holder = Connection(port)
                            holder.query("begin")
                        times.append(first_answers(port, clients))
                        stop()
                found.setdefault(what, []).append(times)
        values = {what: [median(column) for column in zip(*rounds)] for what, rounds in found.items()}
        for what in ("postgresql", "pgbouncer", "pgsplice"):
            self.record("cold", what, one_ms=values[what][0], twenty_ms=values[what][1], known_one_ms=values[what][2],
                        known_twenty_ms=values[what][3])
            self.say(f"| {what} | " + " | ".join(f"{value:.0f} ms" for value in values[what]) + " |")
        self.say()
        self.judge("20 cold servers/one, pgsplice", values["pgsplice"][3] / values["pgsplice"][2], 1.5, True)


COLD_DELAY = 0.1


class SlowLogins:
    """Stands before PostgreSQL and keeps the first bytes of each connection for a while. A process of its own: its
    work is not the measuring one's."""

    def __init__(self, target, delay):
        self.target = target
        self.delay = delay
        listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = listener.getsockname()[1]
        parent = os.getpid()
        if os.fork() == 0:
            threading.Thread(target=self.end_with, args=(parent,), daemon=True).start()
            while True:
                taken, _ = listener.accept()
                threading.Thread(target=self.serve, args=(taken,), daemon=True).start()
        listener.close()

    @staticmethod
    def end_with(parent):
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(0)

    def serve(self, taken):
        time.sleep(self.delay)
        with taken, socket.create_connection(("127.0.0.1", self.target)) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                for ready in select.select([taken, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    (server if ready is taken else taken).sendall(data)


def first_answers(port, clients):
    """Milliseconds until so many new clients, all at once, are inside a transaction."""
    open_ones = []

    def client():
        connection = Connection(port)
        connection.query("begin")
        open_ones.append(connection)
    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = (time.monotonic() - began) * 1000
    if len(open_ones) < clients:
        raise SystemExit("not all clients were served")
    for connection in open_ones:
        connection.socket.close()
    return took


class Connection:
    """A client that is just enough for one query at a time."""

    def __init__(self, port, database="postgres", user="postgres"):
        self.socket = socket.create_connection(("127.0.0.1", port))
        body = struct.pack("!I", 3 << 16) + f"user\0{user}\0database\0{database}\0\0".encode()
        self.socket.sendall(struct.pack("!I", len(body) + 4) + body)
        self.read()

    def read(self):
        """The rows up to ReadyForQuery."""
        rows, data = [], b""
        while True:
            while len(data) < 5 or len(data) < 1 + struct.unpack("!I", data[1:5])[0]:
                more = self.socket.recv(65536)
                if not more:
                    raise SystemExit("the connection ended")
                data += more
            kind, length = data[:1], struct.unpack("!I", data[1:5])[0]
            body, data = data[5:1 + length], data[1 + length:]
            if kind == b"D":
                at, row = 2, []
                for _ in range(struct.unpack("!H", body[:2])[0]):
                    size = struct.unpack("!i", body[at:at + 4])[0]
                    at += 4
                    row.append(None if size < 0 else body[at:at + size].decode())
                    at += max(size, 0)
                rows.append(row)
            elif kind == b"E":
                raise SystemExit(body)
            elif kind == b"Z":
                return rows

    def query(self, text):
        self.socket.sendall(b"Q" + struct.pack("!I", len(text) + 5) + text.encode() + b"\0")
        return self.read()


def wake_ups(count, pause):
    """Microseconds from a write into a pipe until the process that slept on it has the time."""
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()
    if os.fork() == 0:
        while os.read(to_child, 1) == b"x":
            os.write(from_child, struct.pack("Q", time.monotonic_ns()))
        os._exit(0)
    found = []
    for _ in range(count):
        time.sleep(pause)
        began = time.monotonic_ns()
        os.write(from_parent, b"x")
        found.append((struct.unpack("Q", os.read(to_parent, 8))[0] - began) // 1000)
    os.write(from_parent, b"q")
    os.wait()
    return found


def lend_again_and_again(port, count, pause):
    console = Connection(port, "pgbouncer")

    def shards():
        return {row[2]: {"clients": int(row[3]), "lent": int(row[8])}
                for row in console.query("show shards") if row[0] == "postgres"}

    def waited():
        return sum(int(row[8]) for row in console.query("show stats") if row[0] == "postgres")
    by_worker, before = {}, {}
    for _ in range(40):
        client = Connection(port)
        now = shards()
        worker = next(w for w in now if now[w]["clients"] != before.get(w, {"clients": 0})["clients"])
        by_worker.setdefault(worker, []).append(client)
        before = now
    rich, poor = sorted(by_worker)
    waits = []
    for _ in range(count):
        for text in ("begin", "commit"):
            for client in by_worker[rich]:
                client.query(text)
        moved, wait = sum(s["lent"] for s in shards().values()), waited()
        time.sleep(pause)
        by_worker[poor][0].query("select 1")
        wait = waited() - wait
        if sum(s["lent"] for s in shards().values()) == moved + 1:
            waits.append(wait)
    return waits


def read_query(port, query):
    """Reads the answer and throws it away: a client that costs little. Returns its size."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        body = struct.pack("!I", 3 << 16) + b"user\0postgres\0database\0postgres\0\0"
        connection.sendall(struct.pack("!I", len(body) + 4) + body)
        # The welcome ends with ReadyForQuery; the answer's end is the next one after at least a CommandComplete.
        tail = b""
        while not tail.endswith(b"Z\0\0\0\5I"):
            tail = (tail + connection.recv(65536))[-6:]
        connection.sendall(b"Q" + struct.pack("!I", len(query) + 5) + query.encode() + b"\0")
        size, tail = 0, b""
        buffer = bytearray(1 << 20)
        while not tail.endswith(b"Z\0\0\0\5I"):
            count = connection.recv_into(buffer)
            if count == 0:
                raise SystemExit("the connection ended in the middle of an answer")
            size += count
            tail = (tail + bytes(buffer[max(0, count - 6):count]))[-6:]
        connection.sendall(b"X\0\0\0\4")
        return size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pgsplice", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--atomics", help="pgsplice built with -fno-inline-atomics, for the section atomics")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--poolers", default="pgbouncer,pgsplice", help="TLS only: measures one of them alone")
    parser.add_argument("--client", default="tls_storm", help="TLS only: tls_storm_own is a client with the pooler's own library")
    parser.add_argument("--groups", help="TLS only: the key exchanges that clients offer, as OpenSSL names them")
    parser.add_argument("--workers", type=int, default=1, help="sharing only: worker_threads of pgsplice")
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works")
    parser.add_argument("--only", default="matrix,prepared,latency,idle,logins,keys,copy,heap,cores,atomics,lending,cold,tls,sharing")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1
    options.seconds = max(1, int(options.seconds))
    os.makedirs(options.out, exist_ok=True)
    with Bench(options) as bench:
        versions = run("pgbouncer", "-V", env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"}).splitlines()[0]
        bench.say(f"{run(options.pgsplice, '-V').splitlines()[0]}, {versions}, PostgreSQL "
                  f"{bench.sql('show server_version').strip()}, Linux {os.uname().release}, {os.cpu_count()} cores; "
                  f"{options.rounds} rounds of {options.seconds} s")
        for section in options.only.split(","):
            getattr(bench, section.replace("-", "_"))()
    bench.say("\n## Targets\n")
    for line in bench.verdicts:
        if line:
            bench.say(f"- {line}")
    with open(os.path.join(options.out, "results.md"), "w") as file:
        file.write("\n".join(bench.lines) + "\n")
    keys = sorted({k for row in bench.rows for k in row}, key=lambda k: (k not in ("section", "what"), k))
    with open(os.path.join(options.out, "results.csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(bench.rows)


if __name__ == "__main__":
    main()
