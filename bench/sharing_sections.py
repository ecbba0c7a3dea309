"""The benchmark's sections about clients that share a server; bench.py runs them.

pgsplice stands in them several times, with another `server_sharing` each time. Where the question is whether sharing makes
something worse, it stands twice with `off`: what these two differ by is noise, and says how much a ratio means."""
import csv
import glob
import io
import os
import re
import statistics
import subprocess
import sys

from tls_sections import median_of, ratio_of

POOL = 20
OFF, AGAIN, AUTO = "pgsplice off", "pgsplice off again", "pgsplice auto"
FIXED = (1, 2, 3, 4, 6, 8, 12, 20)
# Protocol, clients, wanted of tx/s to PgBouncer, of tx/s to PostgreSQL straight, of CPU to PgBouncer.
LOADS = (
    ("simple", 64, 1.6, 1.3, 0.55),
    ("extended", 64, 1.6, 1.3, 0.55),
    ("prepared", 64, 1.6, 1.3, 0.55),
    ("simple", 200, 1.8, None, None),
)
# Name of a load of the mixed section, clients, threads of pgbench.
SHORT, SLOW, TRANSACTION, TPC_B = "-S", "50 ms query", "100 ms transaction", "TPC-B"
MIXED = ((SHORT, 60, 2), (SLOW, 4, 1), (TRANSACTION, 4, 1), (TPC_B, 8, 1))
TRANSACTION_SCRIPT = r"""\set aid random(1, 1000000)
begin;
select abalance from pgbench_accounts where aid = :aid;
select pg_sleep(0.1);
commit;
"""


def part_of(times, part):
    """Of sorted times, the one below which `part` of them lie."""
    return times[min(len(times) - 1, int(len(times) * part))]


def noise_of(found, key):
    """The factor between two poolers that are equal, of the same round, then the median."""
    ratios = [a[key] / b[key] for a, b in zip(found[AGAIN], found[OFF])]
    return statistics.median([max(r, 1 / r) for r in ratios])


def digits(value, count=0):
    return "-" if value is None else f"{value:.{count}f}"


class SharingSections:
    def sharing(self):
        self.sharing_load()
        self.sharing_limits()
        self.sharing_few()
        self.sharing_mixed()

    # what they share

    def sharing_start(self, sharing):
        return self.start("pgsplice", workers=self.options.workers, pool=POOL, more=f"server_sharing = {sharing}\n")

    def sharing_stop(self, poolers):
        for _, _, stop in poolers.values():
            stop()

    def sharing_counts(self, port):
        """The figures of SHOW SHARING, those of all workers added."""
        out = subprocess.run(["psql", "-X", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "--csv", "-c",
                              "show sharing", "pgbouncer"], check=True, capture_output=True, text=True).stdout
        counts = {}
        for row in csv.DictReader(io.StringIO(out)):
            if row["database"] == "postgres":
                for name, value in row.items():
                    if re.fullmatch(r"\d+", value):
                        counts[name] = counts.get(name, 0) + int(value)
        return counts

    @staticmethod
    def sharing_story(counts):
        """What SHOW SHARING counted since the pooler began, reasons that occurred only."""
        reasons = [f"{name} {count}" for name, count in counts.items()
                   if count > 0 and name.startswith(("refused_", "apart_", "again_", "sets"))]
        return (f"{counts['shared']} exchanges shared, {counts['joined']} were queued behind others"
                + "".join(f", {reason}" for reason in reasons) + f"; limit at the end: {counts['server_limit']}.")

    def backend_switches(self):
        """Context switches of each process of the scratch PostgreSQL, wanted and unwanted."""
        with open(os.path.join(self.folder, "data", "postmaster.pid")) as file:
            postmaster = file.readline().strip()
        counts = {}
        for path in glob.glob("/proc/[0-9]*/status"):
            try:
                with open(path) as file:
                    words = dict(line.split(":", 1) for line in file)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if words["PPid"].strip() == postmaster:
                counts[words["Pid"]] = int(words["voluntary_ctxt_switches"]) + int(words["nonvoluntary_ctxt_switches"])
        return counts

    def sharing_seconds(self, clients):
        """Logins take part of a run, and many of them at PostgreSQL straight more than a second."""
        return max(self.options.seconds, 3) if clients > 100 else self.options.seconds

    def sharing_one(self, what, process, port, protocol, clients):
        """One run of pgbench -S, and what it took of the pooler and of PostgreSQL."""
        is_ours = what.startswith("pgsplice")
        backends, switches = self.backend_cpu_us(), self.backend_switches()
        counts = self.sharing_counts(port) if is_ours else {}
        result = self.one(port, process, protocol, clients, self.sharing_seconds(clients))
        transactions = result["count"]
        result["backend_us"] = (self.backend_cpu_us() - backends) / transactions
        if process:  # those of PostgreSQL straight have gone with their clients
            result["backend_switches"] = sum(count - switches.get(pid, 0)
                                             for pid, count in self.backend_switches().items()) / transactions
        if is_ours:
            now = self.sharing_counts(port)
            result["limit"] = now["server_limit"]
            # Before the first client of all, the pool has no row.
            result["shared"], result["joined"] = ((now[key] - counts.get(key, 0)) / transactions for key in ("shared", "joined"))
        return result

    SHARING_HEAD = ("tx/s | p50 us | p99 us | CPU us/tx | switches/tx | CPU of PostgreSQL us/tx | its switches/tx | "
                    "shared/tx | joined/tx | limit |")

    def sharing_row(self, section, what, results, **which):
        """Records the medians; returns them as cells of SHARING_HEAD."""
        row = median_of(results)
        self.record(section, what, **which, **row)
        is_off = what in (OFF, AGAIN)
        limit = None if is_off else row.get("limit")
        if "shared" in row and (row["shared"] > 0 if is_off else row["shared"] < 0.5):
            self.verdicts.append(f"VOID  {section}, {what}, {', '.join(str(value) for value in which.values())}: "
                                 f"{row['shared']:.2f} of the transactions shared a server: its ratios say nothing")
        elif row.get("joined", 1) < 0.1 and row.get("shared", 0) > 0 and which["clients"] > POOL:
            self.verdicts.append(f"NOTE  {section}, {what}, {', '.join(str(value) for value in which.values())}: only "
                                 f"{row['joined']:.2f} of the transactions were queued behind others")
        return " | ".join((digits(row["tps"]), digits(row["p50_us"]), digits(row["p99_us"]), digits(row.get("cpu_us"), 2),
                           digits(row.get("switches"), 3), digits(row["backend_us"], 1),
                           digits(row.get("backend_switches"), 3), digits(row.get("shared"), 2),
                           digits(row.get("joined"), 2), digits(limit))) + " |"

    def sharing_verdict(self, text, ratio, limit, at_most, noise=None):
        """A cell of a table of ratios, and a line among the targets. Judged as printed."""
        if limit is None:
            return digits(ratio, 2)
        ratio = round(ratio, 2)
        good = ratio <= limit if at_most else ratio >= limit
        wanted = f"{'<=' if at_most else '>='} {limit}"
        remark = "" if noise is None else f"; off and off again differ by a factor of {noise:.2f}"
        self.verdicts.append(f"{'PASS' if good else 'MISS'}  {text}: {ratio:.2f} (target {wanted}{remark})")
        return f"{ratio:.2f} {'target' if good else 'miss'} ({wanted})"

    # the sections

    def sharing_load(self):
        """More clients than servers."""
        self.say(f"\n## Sharing a server: pgbench -S, pool of {POOL}, workers: {self.options.workers}\n")
        self.say("Each pooler is warmed up first. PgBouncer 1.18 does not track prepared statements: for `prepared` it runs in "
                 "session mode, with a server for each client.\n")
        self.say(f"| protocol | clients | what | {self.SHARING_HEAD}")
        self.say("|---|---|---|" + "---|" * self.SHARING_HEAD.count("|"))
        lines, remarks = [], []
        for protocol, clients, to_pgbouncer, to_straight, cpu in LOADS:
            pgbouncer = "pgbouncer (session)" if protocol == "prepared" else "pgbouncer"
            poolers = {
                "postgresql": (None, self.pg_port, lambda: None),
                pgbouncer: self.start("pgbouncer", "session", pool=clients + 6) if protocol == "prepared"
                else self.start("pgbouncer", pool=POOL),
                OFF: self.sharing_start("off"),
                AUTO: self.sharing_start("auto"),
            }
            for _, port, _ in poolers.values():
                self.one(port, None, protocol, clients, self.sharing_seconds(clients))
            found = self.in_turn(poolers, lambda what, process, port:
                                 self.sharing_one(what, process, port, protocol, clients))
            remarks.append(f"- {clients} clients, {protocol}, auto: {self.sharing_story(self.sharing_counts(poolers[AUTO][1]))}")
            self.sharing_stop(poolers)
            for what, results in found.items():
                self.say(f"| {protocol} | {clients} | {what} | "
                         + self.sharing_row("sharing_load", what, results, protocol=protocol, clients=clients))
            where = f"{clients} clients, {protocol}"
            lines.append(
                f"| {protocol} | {clients} | "
                + self.sharing_verdict(f"tx/s, {where}, auto/PgBouncer", ratio_of(found, "tps", AUTO, pgbouncer),
                                       to_pgbouncer, False) + " | "
                + self.sharing_verdict(f"tx/s, {where}, auto/straight", ratio_of(found, "tps", AUTO, "postgresql"),
                                       to_straight, False) + " | "
                + self.sharing_verdict(f"CPU of the pooler per transaction, {where}, auto/PgBouncer",
                                       ratio_of(found, "cpu_us", AUTO, pgbouncer), cpu, True)
                + f" | {ratio_of(found, 'tps', AUTO, OFF):.2f} | {ratio_of(found, 'cpu_us', AUTO, OFF):.2f} |")
        self.say("\nWith sharing (auto), ratios of the same round, medians of them:\n")
        self.say("| protocol | clients | tx/s to PgBouncer | tx/s to PostgreSQL straight | CPU of the pooler to PgBouncer | "
                 "tx/s to off | CPU to off |")
        self.say("|---|---|---|---|---|---|---|")
        for line in lines + [""] + remarks:
            self.say(line)

    def sharing_limits(self):
        """Does auto find what the best fixed number of servers gives?"""
        clients = 64
        self.say(f"\n## Sharing a server: auto against fixed numbers of servers, pgbench -S, simple, {clients} clients\n")
        self.say(f"| server_sharing | {self.SHARING_HEAD}")
        self.say("|---|" + "---|" * self.SHARING_HEAD.count("|"))
        names = [OFF] + [f"pgsplice {count}" for count in FIXED] + [AUTO]
        poolers = {name: self.sharing_start(name.split()[1]) for name in names}
        for _, port, _ in poolers.values():
            self.one(port, None, "simple", clients, self.options.seconds)
        found = self.in_turn(poolers, lambda what, process, port: self.sharing_one(what, process, port, "simple", clients))
        self.sharing_stop(poolers)
        for name, results in found.items():
            self.say(f"| {name.split()[1]} | "
                     + self.sharing_row("sharing_limits", name, results, protocol="simple", clients=clients))
        best = max((name for name in names if name not in (OFF, AUTO)), key=lambda name: median_of(found[name])["tps"])
        limits = ", ".join(str(result["limit"]) for result in found[AUTO])
        self.say(f"\nThe best fixed number is {best.split()[1]}; auto has {ratio_of(found, 'tps', AUTO, best):.2f} of its tx/s and "
                 f"{ratio_of(found, 'cpu_us', AUTO, best):.2f} of its CPU of the pooler. After each round auto stood at: {limits}.")

    def sharing_few(self):
        """Clients that need not share: what does it cost them?"""
        self.say("\n## Sharing a server: few clients, pgbench -S\n")
        self.say(f"| protocol | clients | what | {self.SHARING_HEAD}")
        self.say("|---|---|---|" + "---|" * self.SHARING_HEAD.count("|"))
        lines = []
        for protocol in ("simple", "prepared"):
            poolers = {OFF: self.sharing_start("off"), AGAIN: self.sharing_start("off"), AUTO: self.sharing_start("auto")}
            for clients in (1, 2, 4, 8):
                for _, port, _ in poolers.values():
                    self.one(port, None, protocol, clients, 1)
                found = self.in_turn(poolers, lambda what, process, port:
                                     self.sharing_one(what, process, port, protocol, clients))
                for what, results in found.items():
                    self.say(f"| {protocol} | {clients} | {what} | "
                             + self.sharing_row("sharing_few", what, results, protocol=protocol, clients=clients))
                cells = []
                for key in ("p50_us", "p99_us"):
                    noise = noise_of(found, key)
                    cells.append(self.sharing_verdict(f"{key[:3]}, {clients} client{'s' * (clients > 1)}, {protocol}, auto/off",
                                                      ratio_of(found, key, AUTO, OFF), 1.0, True, noise))
                    cells.append(f"{noise:.2f}")
                lines.append(f"| {protocol} | {clients} | " + " | ".join(cells)
                             + f" | {ratio_of(found, 'cpu_us', AUTO, OFF):.2f} |")
            self.sharing_stop(poolers)
        self.say("\nAuto to off, ratios of the same round, medians of them; noise: the factor between off and off again.\n")
        self.say("| protocol | clients | p50 | its noise | p99 | its noise | CPU of the pooler |")
        self.say("|---|---|---|---|---|---|---|")
        for line in lines:
            self.say(line)

    def sharing_mixed(self):
        """Short queries among others that take long: those that show it (they sleep, or are in a transaction) and those
        that do not (they compute)."""
        rows = self.rows_of_50_ms()
        kinds = (("sleeps", "select pg_sleep(0.05)"), ("computes", f"select count(*) from generate_series(1, {rows})"))
        seconds = 3 * self.options.seconds
        self.say(f"\n## Sharing a server: mixed load, pool of {POOL}, workers: {self.options.workers}, {seconds} s a round\n")
        self.say("At once: " + ", ".join(f"{clients} clients {name}" for name, clients, _ in MIXED)
                 + f". The query of 50 ms sleeps, or it computes: `{kinds[1][1]}`. The -S clients use the simple protocol.\n")
        self.say("| 50 ms query | load | what | tx/s | p50 ms | p99 ms | p99.9 ms |")
        self.say("|---|---|---|---|---|---|---|")
        lines, remarks = [], []
        for kind, query in kinds:
            poolers = {OFF: self.sharing_start("off"), AGAIN: self.sharing_start("off"), AUTO: self.sharing_start("auto")}
            for _, port, _ in poolers.values():
                self.mixed_run(port, query, self.options.seconds)
            found = self.in_turn(poolers, lambda what, process, port: self.mixed_run(port, query, seconds))
            counts = self.sharing_counts(poolers[AUTO][1])
            self.sharing_stop(poolers)
            for load, _, _ in MIXED:
                of_load = {what: [result[load] for result in results] for what, results in found.items()}
                for what, results in of_load.items():
                    row = median_of(results)
                    self.record("sharing_mixed", what, kind=kind, load=load, **row)
                    self.say(f"| {kind} | {load} | {what} | {row['tps']:.0f} | {row['p50_us'] / 1000:.2f} | "
                             f"{row['p99_us'] / 1000:.2f} | "
                             + (f"{row['p999_us'] / 1000:.2f} |" if load == SHORT else "- |"))
                # What share of a server is promised never to be worse; of the others, 5 % are allowed.
                figures = (("tx/s", "tps", None if load == SHORT else 0.95, False),
                           ("p50", "p50_us", 1.0 if load == SHORT else 1.05, True),
                           ("p99", "p99_us", 1.0 if load == SHORT else 1.05, True),
                           ("p99.9", "p999_us", 1.0 if load == SHORT else None, True))
                cells = []
                for figure, key, limit, at_most in figures:
                    if figure == "p99.9" and limit is None:
                        cells += ["-", "-"]
                        continue
                    noise = noise_of(of_load, key)
                    text = f"{figure} of {load} in the mixed load ({kind}), auto/off"
                    cells += [self.sharing_verdict(text, ratio_of(of_load, key, AUTO, OFF), limit, at_most, noise),
                              f"{noise:.2f}"]
                lines.append(f"| {kind} | {load} | " + " | ".join(cells) + " |")
            if counts["shared"] == 0:
                self.verdicts.append(f"VOID  sharing_mixed, {kind}: nothing shared a server: its ratios say nothing")
            remarks.append(f"- {kind}, auto: {self.sharing_story(counts)}")
        self.say("\nAuto to off, ratios of the same round, medians of them; noise: the factor between off and off again.\n")
        self.say("| 50 ms query | load | tx/s | noise | p50 | noise | p99 | noise | p99.9 | noise |")
        self.say("|---|---|---|---|---|---|---|---|---|---|")
        for line in lines + [""] + remarks:
            self.say(line)

    def rows_of_50_ms(self):
        """How many rows generate_series has to make for 50 ms. PostgreSQL's own time, alone."""
        rows = 100000
        for _ in range(2):
            times = []
            for _ in range(5):
                out = self.sql(f"explain (analyze, timing off) select count(*) from generate_series(1, {rows})")
                times.append(float(re.search(r"Execution Time: ([\d.]+) ms", out)[1]))
            rows = int(rows * 50 / min(times))
        return rows // 1000 * 1000

    def mixed_run(self, port, query, seconds):
        """All loads at once for `seconds`, counted from the moment when each of them runs. {load: figures}."""
        for old in glob.glob(os.path.join(self.folder, "mixed*")):
            os.unlink(old)
        scripts = {SHORT: ["-S"], TPC_B: []}
        for load, text in ((SLOW, query + ";\n"), (TRANSACTION, TRANSACTION_SCRIPT)):
            path = os.path.join(self.folder, f"mixed-script-{len(scripts)}")
            with open(path, "w") as file:
                file.write(text)
            scripts[load] = ["-f", path]
        clients = {}
        for number, (load, count, threads) in enumerate(MIXED):
            clients[load] = subprocess.Popen(
                ["pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-n", *scripts[load], "-c", str(count), "-j",
                 str(threads), "-T", str(seconds + 2), "-l", "--log-prefix", os.path.join(self.folder, f"mixed{number}"),
                 "postgres"], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.running.append(clients[load])
        for load, client in clients.items():
            out = client.communicate()[0]
            self.running.remove(client)
            if client.returncode != 0:
                sys.exit(f"pgbench failed ({load}): {out}")
        done = {}
        for number, (load, _, _) in enumerate(MIXED):
            done[load] = []  # when it ended, how long it took
            for path in glob.glob(os.path.join(self.folder, f"mixed{number}.*")):
                with open(path) as file:
                    for words in (line.split() for line in file):
                        done[load].append((int(words[4]) * 1000000 + int(words[5]), int(words[2])))
            if not done[load]:
                sys.exit(f"mixed load: {load} has not done anything")
        begin = max(min(ended for ended, _ in times) for times in done.values()) + 500000
        end = min(begin + seconds * 1000000, min(max(ended for ended, _ in times) for times in done.values()))
        if end - begin < seconds * 500000:
            sys.exit("mixed load: the loads did not run at the same time")
        result = {}
        for load, times in done.items():
            took = sorted(us for ended, us in times if begin < ended <= end)
            result[load] = {"tps": len(took) * 1e6 / (end - begin), "p50_us": part_of(took, 0.5), "p99_us": part_of(took, 0.99),
                            "p999_us": part_of(took, 0.999)}
        return result
