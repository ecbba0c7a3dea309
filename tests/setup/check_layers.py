#!/usr/bin/python3
"""Checks that each #include goes down (house rule: folders are layers) and that a library is named in one place."""
import pathlib
import re
import sys

ROWS = [{"base"}, {"io", "config", "wire", "crypto"}, {"conn"}, {"pool"}, {"worker"}, {"control"}]
LEVEL = {folder: level for level, row in enumerate(ROWS) for folder in row}
LIBRARIES = {"ares.h": {"src/control/resolver.c"}, "liburing.h": {"src/io/ring_uring.c"}, "ini.h": {"src/config/ini.c"},
             "systemd/sd-daemon.h": {"src/control/systemd.c"}, "systemd/sd-journal.h": {"src/control/systemd.c"},
             "security/pam_appl.h": {"src/control/pam_check.c"}, "ldap.h": {"src/control/ldap_check.c"}}

mistakes = []
for path in sorted([*pathlib.Path("src").rglob("*.[ch]"), *pathlib.Path("include").rglob("*.h")]):
    folder = path.parts[1] if len(path.parts) > 2 else None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = re.match(r'\s*#\s*include\s*[<"]([^">]+)[">]', line)
        if not found:
            continue
        name = found.group(1)
        if name in LIBRARIES and str(path) not in LIBRARIES[name]:
            mistakes.append(f"{path}:{number}: {name} belongs to {', '.join(LIBRARIES[name])}")
        if name.startswith("wolfssl/") and folder != "crypto":
            mistakes.append(f"{path}:{number}: wolfSSL belongs to crypto/")
        other = name.split("/")[0]
        if folder is None or other not in LEVEL or "/" not in name or other == folder:
            continue
        if LEVEL[other] >= LEVEL[folder]:
            mistakes.append(f"{path}:{number}: {folder}/ may not include {name}")
print("\n".join(mistakes) or "layers: every include goes down")
sys.exit(1 if mistakes else 0)
