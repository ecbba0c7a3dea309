"""What the Python programs share: the transcript's lines, and which servers were seen."""

import sys

servers = set()


def say(step, *values):
    print(step, *values)


def show(value):
    """A value whose text is the same in each run."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"bytes:{bytes(value).hex()}"
    return repr(value)


def rows(step, about, found):
    say(step, about, *(f"({','.join(show(value) for value in row)})" for row in found))


def console_line(command, found):
    """What the way `console` shows of a table: how many rows, and five values of the first."""
    values = ("-" if value is None else str(value) for value in found[0][:5])
    say("console", command, len(found), *values)


def finish():
    print(f"# servers {len(servers)}\nend")
    sys.stdout.flush()
