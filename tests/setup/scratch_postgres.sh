#!/bin/sh
# A scratch PostgreSQL:  scratch_postgres.sh start DIRECTORY PORT | stop DIRECTORY | user
#
# start  makes a cluster in DIRECTORY unless there is one, starts it on 127.0.0.1:PORT and on a unix socket in
#        DIRECTORY/socket, waits until it answers. Superuser postgres, trust, fsync off: for tests only.
# stop   ends the one that `start` began, by its process id.
# user   prints the system user that it runs as: PostgreSQL refuses root.
#
# When that user cannot reach DIRECTORY (below /root, for example), the data goes to a folder under /tmp, and
# DIRECTORY/data is a link to it.
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || { echo "no PostgreSQL server under /usr/lib/postgresql" >&2; exit 1; }

user=$(id -un)
[ "$(id -u)" -ne 0 ] || user=postgres

as_user() {
    if [ "$(id -u)" -eq 0 ]; then
        setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups -- "$@"
    else
        "$@"
    fi
}

case "${1:-}" in
user)
    echo "$user"
    ;;
start)
    directory=$2 port=$3
    mkdir -p "$directory"
    directory=$(cd "$directory" && pwd)
    if [ ! -e "$directory/data" ]; then
        if [ "$(id -u)" -eq 0 ]; then
            chown "$user" "$directory"
        fi
        if as_user test -w "$directory" 2>/dev/null; then
            mkdir "$directory/data"
        else
            ln -s "$(mktemp -d /tmp/pgsplice-postgres.XXXXXX)" "$directory/data"
        fi
        [ "$(id -u)" -ne 0 ] || chown "$user" "$directory/data/."
        chmod 700 "$directory/data/."
    fi
    data=$(readlink -f "$directory/data")
    if [ ! -e "$data/PG_VERSION" ]; then
        (cd /tmp && as_user "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$directory/initdb.log" 2>&1) ||
            { cat "$directory/initdb.log" >&2; exit 1; }
        {
            echo "max_connections = 300"
            echo "fsync = off"
            echo "synchronous_commit = off"
            echo "full_page_writes = off"
        } >>"$data/postgresql.conf"
    fi
    (cd /tmp && as_user "$bin/pg_ctl" -D "$data" -l "$data/server.log" -w -t 60 \
        -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$data" start >/dev/null) ||
        { tail -n 20 "$data/server.log" >&2; exit 1; }
    ;;
stop)
    data=$(readlink -f "$2/data")
    (cd /tmp && as_user "$bin/pg_ctl" -D "$data" -m fast -w stop >/dev/null)
    ;;
*)
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
