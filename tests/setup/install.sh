#!/bin/sh
# Installs what is missing of the named groups of packages.txt:  tests/setup/install.sh build check
# Needs root or sudo only when something is missing.
set -eu
list=$(dirname "$0")/packages.txt
missing=
for group in "$@"; do
    for package in $(awk -v group="$group" '$1 == group { print $2 }' "$list"); do
        status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
        case "$status" in
        *" installed") ;;
        *) missing="$missing $package" ;;
        esac
    done
done
if [ -z "$missing" ]; then
    echo "packages ($*): all present"
    exit 0
fi
echo "packages ($*): installing$missing"
as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "not root and no sudo: please install$missing" >&2; exit 1; }
    as_root=sudo
fi
# Debian's postgresql package would make and start a cluster of its own on 5432; ours are scratch ones.
if [ ! -e /etc/postgresql-common/createcluster.conf ] && echo "$missing" | grep -q postgresql; then
    $as_root mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
