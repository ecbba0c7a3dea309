<?php
// PHP: the functions of pgsql, and PDO with server-side and with emulated prepared statements.
declare(strict_types=1);

const TEXT = "it's \"quoted\" \\ ä€🐘";
const BROKEN = ['selec 1', 'select 1/0', "insert into things values (1, 'again')", 'select * from no_such_table',
    "select 'x'::int"];
$servers = [];

function say(...$values): void
{
    echo implode(' ', array_map(fn ($value) => $value === null ? 'NULL' : (is_bool($value) ? var_export($value, true)
        : (string) $value), $values)), "\n";
}

function rows(array $found): string
{
    return implode('', array_map(fn ($row) => json_encode(array_values($row),
        JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES), $found));
}

function pgsql_connect()
{
    return pg_connect('dbname=' . getenv('PGDATABASE'), PGSQL_CONNECT_FORCE_NEW);
}

function pdo_connect(array $more = []): PDO
{
    return new PDO('pgsql:dbname=' . getenv('PGDATABASE'), null, null,
        [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_NUM] + $more);
}

// pgsql: sends, and shows the result or the error
function result(string $step, string $about, $conn, bool $sent): void
{
    while ($sent && ($result = pg_get_result($conn))) {
        $state = pg_result_error_field($result, PGSQL_DIAG_SQLSTATE);
        say($step, $about, $state ? "error $state " . pg_result_error_field($result, PGSQL_DIAG_MESSAGE_PRIMARY)
            : rows(pg_fetch_all($result, PGSQL_NUM)));
    }
}

function attempt(string $step, string $about, callable $work): void
{
    try {
        say($step, $about, $work());
    } catch (PDOException $error) {
        say($step, $about, 'error', $error->errorInfo[0] ?? $error->getCode(), explode("\n", $error->errorInfo[2] ?? '')[0]);
    }
}

function query(PDO $conn, string $sql, array $values = []): string
{
    $statement = $conn->prepare($sql);
    $statement->execute($values);
    return rows($statement->fetchAll());
}

// ---- pgsql
$conns = [pgsql_connect(), pgsql_connect(), pgsql_connect()];
[$conn, $other] = $conns;
result('simple', 'values', $conn, pg_send_query($conn, "select 1 as one, 'two' as two, null as nothing"));
result('simple', 'several', $conn, pg_send_query($conn, 'select 1; select 2'));
pg_query($conn, 'create table things (id int primary key, name text)');
say('simple', pg_affected_rows(pg_query($conn, "insert into things values (1, 'one'), (2, 'two')")));
result('types', 'values', $conn, pg_send_query_params($conn,
    'select $1::int, $2::bigint, $3::numeric, $4::text, $5::bytea, $6::bool, $7::text, $8::timestamp, $9::int[]',
    [-42, '9007199254740993', '12345.678900', TEXT, '\x00ff10', 't', null, '2024-02-29 12:34:56.789', '{1,NULL,3}']));
result('explicit', 'prepare', $conn, pg_send_prepare($conn, 'adding', 'select $1::int + 1000'));
for ($i = 0; $i < 20; $i++) {
    result('explicit', 'execute', $conn, pg_send_execute($conn, 'adding', [$i]));
}
result('explicit', 'again', $conn, pg_send_prepare($conn, 'adding', 'select 1'));
result('explicit', 'unknown', $conn, pg_send_execute($conn, 'nobody', []));
foreach (BROKEN as $sql) {
    result('errors', 'simple', $conn, pg_send_query($conn, $sql));
    result('errors', 'extended', $conn, pg_send_query_params($conn, $sql, []));
    result('errors', 'usable', $conn, pg_send_query($conn, 'select 1'));
}
foreach ($conns as $i => $one) {
    pg_prepare($one, 'mine', 'select pg_backend_pid(), ' . $i % 2 . ', $1::int');
}
for ($round = 0; $round < 20; $round++) {
    foreach ($conns as $i => $one) {
        foreach ([null, $conns[($i + 1) % 3]] as $holder) {
            if ($holder) {
                pg_query($holder, 'begin');
            }
            [$pid, $tag, $got] = pg_fetch_row(pg_execute($one, 'mine', [$round]));
            $servers[$pid] = true;
            if ($round % 5 == 0) {
                say('interleave', $i, $tag, $got);
            }
            if ($holder) {
                pg_query($holder, 'commit');
            }
        }
    }
}
pg_query($conn, 'create table copied (id int, name text)');
say('copy', 'in', pg_copy_from($conn, 'copied', array_map(fn ($i) => "$i\tname $i\n", range(0, 9999))));
say('copy', 'out', strlen(implode('', pg_copy_to($conn, 'copied'))));
pg_prepare($conn, 'all', 'select * from copied where id = $1');
result('schema', 'before', $conn, pg_send_execute($conn, 'all', [7]));
pg_query($other, "alter table copied add column extra text default 'new'");
result('schema', 'after', $conn, pg_send_execute($conn, 'all', [7]));
foreach (['deallocate all', 'discard all'] as $command) {
    pg_prepare($conn, 'kept', "select 'kept'");
    pg_query($conn, $command);
    result('discard', 'after', $conn, pg_send_execute($conn, 'kept', []));
    result('discard', 'mine', $other, pg_send_execute($other, 'mine', [1]) && false);
    pg_fetch_row(pg_get_result($other));
    while (pg_get_result($other)) {
    }
}
pg_send_query($conn, 'select pg_sleep(30)');
while (pg_fetch_row(pg_query($other, "select count(*) from pg_stat_activity where datname = current_database()
        and wait_event = 'PgSleep'"))[0] !== '1') {
}
say('cancel', pg_cancel_query($conn));
result('cancel', 'usable', $conn, pg_send_query($conn, 'select 1'));
if (in_array(getenv('DRIVE_WAY'), ['straight', 'session'], true)) {
    pg_query($conn, 'listen news');
    pg_query($other, "notify news, 'it is here'");
    while (!($notice = pg_get_notify($conn))) {
    }
    say('listen', $notice['message'], $notice['payload']);
}

// ---- PDO, with server-side statements, with none, with statements that are not named
foreach (['server' => [], 'emulated' => [PDO::ATTR_EMULATE_PREPARES => true],
    'unnamed' => [PDO::PGSQL_ATTR_DISABLE_PREPARES => true]] as $kind => $how) {
    $conn = pdo_connect($how);
    $other = pdo_connect($how);
    $step = "pdo_$kind";
    say($step, query($conn, 'select ?::int, ?::numeric, ?::text, ?::bool, ?::text', [-42, '12345.678900', TEXT, 't', null]));
    $sum = $conn->prepare('select :a::int + 1000');
    for ($i = 0; $i < 20; $i++) {
        $sum->execute(['a' => $i]);
        say($step, rows($sum->fetchAll()));
    }
    $sum = null; // DEALLOCATE in SQL
    foreach (BROKEN as $sql) {
        attempt($step, 'exec', fn () => $conn->exec($sql));
        attempt($step, 'prepared', fn () => query($conn, $sql));
        say($step, 'usable', query($conn, 'select 1'));
    }
    for ($i = 0; $i < 10; $i++) { // a statement for each query, each of them deallocated
        say($step, query($i % 2 ? $conn : $other, 'select ?::int * 2', [$i]));
    }
    $conn->beginTransaction();
    $insert = $conn->prepare('insert into things values (?, ?)');
    $insert->execute([100, 'hundred']);
    attempt($step, 'fails', fn () => $insert->execute([1, 'again']));
    attempt($step, 'ignored', fn () => query($conn, 'select 1'));
    $conn->rollBack();
    say($step, 'after', query($other, 'select count(*) from things where id = ?', [100]));
    $conn->beginTransaction();
    $insert->execute([101, 'one']);
    say($step, 'before', query($other, 'select count(*) from things where id = ?', [101]));
    $conn->commit();
    say($step, 'after', query($other, 'select count(*) from things where id = ?', [101]));
    $conn->exec('delete from things where id > 99');
    $conn->beginTransaction();
    $cursor = $conn->prepare('select generate_series(1, ?::int)', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $cursor->execute([10]);
    say($step, 'cursor', ...array_map(fn ($i) => $cursor->fetch()[0], range(1, 4)));
    $cursor = null;
    $conn->commit();
    $conn->beginTransaction();
    $conn->exec('set local statement_timeout = 50');
    attempt($step, 'timeout', fn () => query($conn, 'select pg_sleep(?)', [30]));
    $conn->rollBack();
    $big = str_repeat('x', 1000000);
    $echo = $conn->prepare('select ?::text');
    for ($i = 0; $i < 3; $i++) {
        $echo->execute([$big]);
        say($step, 'large', $echo->fetchColumn() === $big);
    }
    $insert = $echo = null;
    try {
        query($conn, 'select pg_terminate_backend(pg_backend_pid())');
    } catch (PDOException $error) {
        say($step, 'killed', $error->errorInfo[0]);
    }
    $conn = pdo_connect($how);
    say($step, 'reconnect', query($conn, 'select ?::text', ['usable']));
}
echo '# servers ', count($servers), "\nend\n";
