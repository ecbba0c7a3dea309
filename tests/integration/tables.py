"""The tables of tests/compat, and what of them this build says it does not do."""

import csv
import os
import re

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def rows(table):
    with open(os.path.join(TOP, "tests", "compat", table + ".tsv")) as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def keys(table):
    """Of settings PgBouncer's; of entries those that only pgsplice has, too."""
    if table == "settings":
        return [row["setting"] for row in rows(table)]
    found = [row["key"] for row in rows(table)]
    return found + [key for key in _reference()[SECTIONS[table]] if key not in found]


def _reference():
    """The rows of conf/SETTINGS.md by section: key -> (how it applies, what it says)."""
    found, section = {}, None
    with open(os.path.join(TOP, "conf", "SETTINGS.md")) as file:
        for line in file:
            heading = re.match(r"## .*\[(\w+)\]", line)
            if heading:
                section = found.setdefault(heading.group(1), {})
            cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
            if section is not None and line.startswith("| ") and len(cells) >= 3 and \
                    cells[0] not in ("setting", "key", "---"):
                section[cells[0]] = cells
    return found


SECTIONS = {"settings": "pgbouncer", "pgsplice": "pgsplice", "database_options": "databases",
            "user_options": "users", "peer_options": "peers"}


def own_keys():
    """Settings that only pgsplice has."""
    return list(_reference()["pgsplice"])


def without_effect(table):
    """Keys of which the manual says that they do nothing here."""
    return [key for key, cells in _reference().get(SECTIONS[table], {}).items()
            if "**No effect:**" in cells[-1]]


def is_reloadable(table, key):
    if table == "settings":
        return next(row["changeable"] for row in rows(table) if row["setting"] == key) == "reload"
    if table == "pgsplice":
        return _reference()["pgsplice"][key][3] == "reload"
    return True
