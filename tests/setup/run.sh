#!/bin/sh
# `make run`: the pooler in front of a scratch PostgreSQL, proved with pgbench, until Ctrl-C.
#   tests/setup/run.sh PGSPLICE BUILD [CONFIG]
set -eu
pgsplice=$1 build=$2 config=${3:-}
here=$(dirname "$0")
user=$("$here/scratch_postgres.sh" user)

run_as=
[ "$(id -u)" -ne 0 ] || run_as="-u $user"

if [ -n "$config" ]; then
    echo "serving $config; Ctrl-C ends it"
    # shellcheck disable=SC2086
    exec "$pgsplice" $run_as "$config"
fi

port=6432
if (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null || ss -ltn 2>/dev/null | grep -q ":$port "; then
    echo "port $port is taken: another pooler runs there; stop it, or use make run CONFIG=..." >&2
    exit 1
fi
run=$build/run
mkdir -p "$run"
run=$(cd "$run" && pwd)
server_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' 2>/dev/null || echo 54329)

echo "starting a scratch PostgreSQL on 127.0.0.1:$server_port (in $run)"
"$here/scratch_postgres.sh" start "$run" "$server_port"
pooler=
finish() {
    trap - INT TERM EXIT
    [ -z "$pooler" ] || { kill -QUIT "$pooler" 2>/dev/null || true; wait "$pooler" 2>/dev/null || true; }
    "$here/scratch_postgres.sh" stop "$run" || true
    echo "stopped"
}
trap 'finish; exit 0' INT TERM
trap finish EXIT

# The sample configuration, with this server in it.
printf '"postgres" ""\n' >"$run/userlist.txt"
sed -e "s|^\* *=.*|* = host=127.0.0.1 port=$server_port|" \
    -e "s|^auth_type *=.*|auth_type = trust|" \
    -e "s|^auth_file *=.*|auth_file = $run/userlist.txt|" \
    -e "s|^admin_users *=.*|admin_users = postgres|" \
    -e "s|^unix_socket_dir *=.*|unix_socket_dir =|" \
    -e "s|^;*unix_socket_dir *=.*|unix_socket_dir =|" \
    -e "s|^logfile *=.*|logfile =|" -e "s|^pidfile *=.*|pidfile =|" \
    "$here/../../conf/pgsplice.ini" >"$run/pgsplice.ini"

# shellcheck disable=SC2086
"$pgsplice" -q $run_as "$run/pgsplice.ini" &
pooler=$!
tries=0
until psql -h 127.0.0.1 -p $port -U postgres -qAtc 'select 1' postgres >/dev/null 2>&1; do
    kill -0 "$pooler" 2>/dev/null || { "$pgsplice" $run_as "$run/pgsplice.ini"; exit 1; }
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { echo "the pooler does not answer on $port" >&2; exit 1; }
    sleep 0.1
done

echo "filling pgbench's tables"
pgbench -h 127.0.0.1 -p "$server_port" -U postgres -i -q -s 5 postgres >/dev/null 2>&1
figure() {
    pgbench -h 127.0.0.1 -p "$1" -U postgres -n -S -c 16 -j 2 -T 3 postgres 2>/dev/null |
        awk '/^latency average/ { l = $4 } /^tps/ { printf "%.0f transactions/s, %s ms each\n", $3, l }'
}
echo "pgbench -S, 16 clients, straight:     $(figure "$server_port")"
echo "pgbench -S, 16 clients, through it:   $(figure $port)"
echo
echo "Try it:      psql -h 127.0.0.1 -p $port -U postgres postgres"
echo "Its console: psql -h 127.0.0.1 -p $port -U postgres pgbouncer -c 'show pools'"
echo "Its configuration: $run/pgsplice.ini"
echo "Ctrl-C ends it."
wait "$pooler" || true
