#!/usr/bin/python3
"""Runs the integration tests: tests/integration/runner.py [--jobs N] [name ...]

A name selects the tests that contain it, `topic.` a whole file. Each test is a process group of its
own, with a scratch PostgreSQL per job; one that is stuck is killed, and its pooler's log is shown.
The last line is `N passed, N failed, N skipped`; the status is 1 when something failed.
"""

import argparse
import glob
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import harness  # noqa: E402
import pgwire  # noqa: E402
import tables  # noqa: E402
import tls_wire  # noqa: E402

SECONDS_MAX = 15.0
LOG_TAIL = int(os.environ.get("LOG_TAIL", 2000))
STATUS_PASSED, STATUS_FAILED, STATUS_SKIPPED = 0, 1, 2


def collect(names, all_in_tls):
    found = []
    for path in sorted(glob.glob(os.path.join(HERE, "test_*.py"))):
        module = importlib.import_module(os.path.basename(path)[:-3])
        for key, value in list(vars(module).items()):
            if key.startswith("test_") and callable(value):
                full = f"{module.__name__[5:]}.{key[5:]}"
                if all_in_tls and (full.startswith("tls_") or getattr(value, "plain", False)):
                    continue
                for name, test in [(full, value)] + ([] if all_in_tls else variants(full, value)):
                    if not names or any(part in name for part in names):
                        found.append((name, test))
    return found


def variants(full, function):
    """The test once more for each key that it covers: without it, and with it after a RELOAD."""
    found = []
    for table, key in getattr(function, "covers", []):
        found.append((f"{full}~without_{key}", harness.Variant(
            function, table, key, harness.Variant.IGNORED, True)))
        if not getattr(function, "reload_shows_nothing", False):
            found.append((f"{full}~reloaded_{key}", harness.Variant(
                function, table, key, harness.Variant.RELOADED,
                not tables.is_reloadable(table, key))))
    return found


def binary_is_pgbouncer():
    try:
        done = subprocess.run([harness.POOLER_BIN, "-V"], capture_output=True, text=True, timeout=5)
    except OSError as problem:
        sys.exit(f"cannot run the pooler: {problem}")
    return done.stdout.startswith("PgBouncer")


def run_in_child(function, postgres, slot, folder):
    """The test's own process: never returns."""
    os.setpgid(0, 0)
    output = os.open(os.path.join(folder, "output"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    status = STATUS_FAILED
    test = harness.Test(postgres, slot, folder)
    try:
        function(test)
        test.finish()
        status = STATUS_PASSED
    except harness.Skip as reason:
        print(reason)
        status = STATUS_SKIPPED
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Slot:
    """One job: a PostgreSQL and at most one test at a time."""

    def __init__(self, number, folder, template, keep, why):
        self.why = why
        self.number = number
        self.folder = folder
        self.keep = keep
        self.postgres = template.copy(os.path.join(folder, f"postgres{number}"), number)
        self.postgres.start()
        self.pid = None
        self.begun = 0

    def begin(self, name, function):
        self.name, self.function = name, function
        self.seconds_max = getattr(function, "seconds_max", SECONDS_MAX)
        self.begun += 1
        # Short, because a unix socket's path may have 107 bytes only.
        self.test_folder = os.path.join(self.folder, f"{self.number}-{self.begun}")
        os.makedirs(self.test_folder, mode=0o755)
        harness.give_to_os_user(self.test_folder)
        if not self.postgres.runs():
            self.postgres.start()
        self.postgres.clear()
        self.started = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            run_in_child(function, self.postgres, self.number, self.test_folder)

    def poll(self):
        """(status, took, text) when the test is over, else None."""
        pid, wait_status = os.waitpid(self.pid, os.WNOHANG)
        took = time.monotonic() - self.started
        stuck = pid == 0 and took > self.seconds_max
        if pid == 0 and not stuck:
            return None
        try:
            os.killpg(self.pid, signal.SIGKILL)  # the stuck test, or poolers that it left behind
        except ProcessLookupError:
            pass
        if stuck:
            os.waitpid(self.pid, 0)
        self.end_daemons()
        self.pid = None
        if stuck:
            status, text = STATUS_FAILED, f"stuck: killed after {took:.0f} s\n"
        else:
            status = os.waitstatus_to_exitcode(wait_status)
            text = "" if status in (0, 1, 2) else f"ended with status {status}\n"
        if status != STATUS_PASSED or self.why:
            text += self.read(os.path.join(self.test_folder, "output"))
        if status not in (STATUS_PASSED, STATUS_SKIPPED):
            status = STATUS_FAILED
            for pooler in sorted(glob.glob(os.path.join(self.test_folder, "*", ""))):
                log = self.read(pooler + "pooler.log") or self.read(pooler + "stderr")
                text += f"--- log of {os.path.relpath(pooler, self.folder)}\n{log[-LOG_TAIL:]}\n"
        if not (self.keep and status == STATUS_FAILED):
            shutil.rmtree(self.test_folder, ignore_errors=True)
        return status, took, text

    def end_daemons(self):
        """Poolers that went into the background have a pidfile in the test's folder."""
        for path in glob.glob(os.path.join(self.test_folder, "*", "*.pid")):
            try:
                os.kill(int(self.read(path)), signal.SIGKILL)
            except (ValueError, ProcessLookupError):
                pass

    @staticmethod
    def read(path):
        try:
            with open(path, errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("names", nargs="*", help="run only tests whose name contains one of these")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--list", action="store_true", help="only print the names")
    options.add_argument("--keep", action="store_true", help="keep the folders of failed tests")
    options.add_argument("--again", action="store_true",
                         help="a failed test is run once more and named as unsteady if it passes then; "
                              "not those of isolation, which must never fail")
    options.add_argument("--why", action="store_true",
                         help="print also what passed tests say: variants, how they failed without their key")
    options.add_argument("--slowest", type=int, default=0, metavar="N")
    options.add_argument("--all", action="store_true",
                         help="with PgBouncer, run the tests of what only pgsplice does, too")
    options.add_argument("--tls", action="store_true",
                         help="all TCP connections in TLS, of clients and servers; without the tests that are about it, or about plain ones")
    arguments = options.parse_args()
    if arguments.tls:
        harness.all_in_tls, pgwire.wrap_tcp = True, tls_wire.prefer
    tests = collect(arguments.names, arguments.tls)
    if arguments.list:
        print("\n".join(name for name, _ in tests))
        return 0
    if not tests:
        print("no test has such a name")
        return 1
    without_ours = binary_is_pgbouncer() and not arguments.all

    counts = {STATUS_PASSED: 0, STATUS_FAILED: 0, STATUS_SKIPPED: 0}
    failed, durations, tried = [], [], {}
    folder = tempfile.mkdtemp(prefix="pgsplice-it-", dir="/tmp")
    os.chmod(folder, 0o755)
    harness.give_to_os_user(folder)
    slots = []
    try:
        template = harness.Postgres.create(os.path.join(folder, "template"))
        for number in range(min(arguments.jobs, len(tests))):
            slots.append(Slot(number, folder, template, arguments.keep, arguments.why))
        waiting = list(reversed(tests))
        while waiting or any(slot.pid for slot in slots):
            for slot in slots:
                if slot.pid is not None:
                    ended = slot.poll()
                    if ended is None:
                        continue
                    status, took, text = ended
                    if (arguments.again and status == STATUS_FAILED and slot.name not in tried and
                            not slot.name.startswith("isolation.")):
                        tried[slot.name] = True
                        print(f"AGAIN {slot.name}\n    " + text.rstrip().replace("\n", "\n    "))
                        waiting.insert(0, (slot.name, dict(tests)[slot.name]))
                        continue
                    counts[status] += 1
                    durations.append((took, slot.name))
                    if status == STATUS_PASSED:
                        print(f"ok   {slot.name}" + (f" ({took:.1f} s)" if took > 2 else "") +
                              (f": {text.strip()}" if text else ""))
                    elif status == STATUS_SKIPPED:
                        print(f"skip {slot.name}: {text.strip()}")
                    else:
                        failed.append(slot.name)
                        print(f"FAIL {slot.name}\n    " + text.rstrip().replace("\n", "\n    "))
                while slot.pid is None and waiting:
                    name, function = waiting.pop()
                    if without_ours and getattr(function, "ours", False):
                        counts[STATUS_SKIPPED] += 1
                        print(f"skip {name}: not PgBouncer's behaviour")
                        continue
                    slot.begin(name, function)
            sys.stdout.flush()
            time.sleep(0.005)
    finally:
        for slot in slots:
            if slot.pid:
                os.killpg(slot.pid, signal.SIGKILL)
            slot.postgres.stop(signal.SIGQUIT)
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    if arguments.keep and failed:
        print(f"kept: {folder}")
    for took, name in sorted(durations, reverse=True)[:arguments.slowest]:
        print(f"{took:6.2f} s  {name}")
    for name in tried:
        if name not in failed:
            print(f"unsteady: {name} failed once and then passed")
    for name in failed:
        print(f"failed: {name}")
    print(f"{counts[STATUS_PASSED]} passed, {counts[STATUS_FAILED]} failed, "
          f"{counts[STATUS_SKIPPED]} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
