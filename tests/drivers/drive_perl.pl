# Perl's DBD::Pg: server-side statements at once and from the second time on, COPY, async, array execute.
use strict;
use warnings;
use utf8;
use DBI;
use DBD::Pg qw(:async :pg_types);

binmode STDOUT, ':encoding(UTF-8)';
$| = 1;
my $text = "it's \"quoted\" \\ ä€🐘";
my %servers;
my $warnings = 0;    # a DEALLOCATE that fails when a statement goes out of scope is only a warning
$SIG{__WARN__} = sub { $warnings++; print STDERR @_ };

sub say { print join(' ', map { defined $_ ? $_ : 'NULL' } @_), "\n" }

sub rows {
    my ($found) = @_;
    return join '', map {
        '(' . join(',', map { !defined $_ ? 'NULL' : ref $_ ? '[' . join(',', map { $_ // 'NULL' } @$_) . ']' : $_ } @$_) . ')'
    } @$found;
}

sub open_one {
    my (%more) = @_;
    return DBI->connect("dbi:Pg:dbname=$ENV{PGDATABASE}", undef, undef,
        { RaiseError => 1, PrintError => 0, AutoCommit => 1, pg_enable_utf8 => 1, %more });
}

# What the work gives, or its error.
sub attempt {
    my ($step, $about, $work) = @_;
    my $result = eval { $work->() };
    if ($@) {
        my ($first) = split /\n/, $DBI::errstr // $@;
        $first =~ s/dbdpg_p\d+_/dbdpg_p_/;    # the process id is in the name
        say($step, $about, 'error', $DBI::state, $first);
    } else {
        say($step, $about, $result);
    }
}

sub query {
    my ($conn, $sql, @values) = @_;
    return rows($conn->selectall_arrayref($sql, undef, @values));
}

my @conns = map { open_one() } 1 .. 3;
my ($conn, $other) = @conns;

# simple
say('simple', query($conn, "select 1 as one, 'two' as two, null as nothing"));
$conn->do('create table things (id int primary key, name text)');
say('simple', $conn->do("insert into things values (1, 'one'), (2, 'two')"));

# types
{
    my $sth = $conn->prepare('select ?::int, ?::bigint, ?::numeric, ?::text, ?::bool, ?::text, ?::timestamp, ?::int[]');
    for (1 .. 3) {
        $sth->execute(-42, '9007199254740993', '12345.678900', $text, 1, undef, '2024-02-29 12:34:56.789', [1, undef, 3]);
        say('types', rows($sth->fetchall_arrayref));
    }
    my $bytes = $conn->prepare('select ?::bytea');
    $bytes->bind_param(1, "\0\xff\x10", { pg_type => PG_BYTEA });
    $bytes->execute;
    say('types', unpack('H*', $bytes->fetchrow_array));
}

# repeat: DBD::Pg uses a named statement from the second execute on
{
    my $sth = $conn->prepare('select ?::int * 2');
    for my $i (0 .. 19) { $sth->execute($i); say('repeat', rows($sth->fetchall_arrayref)) }
}

# explicit
{
    local $conn->{pg_switch_prepared} = 1;
    for my $round (1 .. 5) {
        my $sth = $conn->prepare('select ?::int + 1000', { pg_prepare_now => 1 });
        say('explicit', $sth->{pg_prepare_name} =~ /^dbdpg/ ? 'named' : 'unnamed');
        $sth->execute($round);
        say('explicit', rows($sth->fetchall_arrayref));
        undef $sth;    # DEALLOCATE in SQL
        attempt('explicit', 'broken', sub { $conn->prepare('selec ?', { pg_prepare_now => 1 }); 'prepared' });
    }
    my $plain = $conn->prepare('select ?::int + 1', { pg_server_prepare => 0 });
    $plain->execute(1);
    say('explicit', 'plain', rows($plain->fetchall_arrayref));
}

# interleave
{
    my @mine = map { $conns[$_]->prepare("select pg_backend_pid(), " . $_ % 2 . ", ?::int", { pg_prepare_now => 1 }) } 0 .. 2;
    for my $round (0 .. 19) {
        for my $i (0 .. 2) {
            for my $holder (undef, $conns[ ($i + 1) % 3 ]) {
                if ($holder) { $holder->begin_work; query($holder, 'select 1') }
                $mine[$i]->execute($round);
                my ($pid, $tag, $got) = $mine[$i]->fetchrow_array;
                $mine[$i]->finish;
                $servers{$pid} = 1;
                say('interleave', $i, $tag, $got) unless $round % 5;
                $holder->commit if $holder;
            }
        }
    }
}

# errors
for my $sql ('selec 1', 'select 1/0', "insert into things values (1, 'again')", 'select * from no_such_table',
    "select 'x'::int") {
    attempt('errors', 'do', sub { $conn->do($sql) });
    attempt('errors', 'query', sub { query($conn, $sql) });
    attempt('errors', 'prepared', sub {
        my $sth = $conn->prepare($sql, { pg_prepare_now => 1 });
        $sth->execute;
        rows($sth->fetchall_arrayref);
    });
    say('errors', 'usable', query($conn, 'select 1'));
}
{
    my $divide = $conn->prepare('select 10 / ?::int');
    for my $divisor (5, 5, 0, 2, 0, 1) {
        attempt('errors', 'divide', sub { $divide->execute($divisor); rows($divide->fetchall_arrayref) });
    }
}

# transactions
my $count = 'select count(*) from things where id = ?';
$conn->begin_work;
$conn->do('insert into things values (?, ?)', undef, 10, 'ten');
attempt('failed_transaction', 'fails', sub { query($conn, 'select 1 / ?::int', 0) });
attempt('failed_transaction', 'ignored', sub { query($conn, 'select ?::int', 1) });
$conn->rollback;
say('failed_transaction', 'after', query($conn, $count, 10));
$conn->begin_work;
$conn->do('insert into things values (?, ?)', undef, 11, 'eleven');
say('visible', 'before', query($other, $count, 11));
$conn->commit;
say('visible', 'after', query($other, $count, 11));
$conn->begin_work;
$conn->do('insert into things values (?, ?)', undef, 12, 'twelve');
$conn->pg_savepoint('one');
attempt('savepoint', 'fails', sub { $conn->do('insert into things values (?, ?)', undef, 1, 'again') });
$conn->pg_rollback_to('one');
$conn->do('insert into things values (?, ?)', undef, 14, 'fourteen');
$conn->commit;
say('savepoint', 'after', query($other, 'select id from things where id > 11 order by 1'));

# batch
$conn->do('create table batch (id int primary key, name text)');
{
    my $sth = $conn->prepare('insert into batch values (?, ?)');
    my $done = $sth->execute_array({ ArrayTupleStatus => [] }, [ 1 .. 300 ], [ map { "name $_" } 1 .. 300 ]);
    say('batch', $done, query($conn, 'select count(*), sum(id) from batch'));
    local $sth->{RaiseError} = 0;
    my @status;
    $sth->execute_array({ ArrayTupleStatus => \@status }, [ 301, 1, 302 ], [ 'a', 'b', 'c' ]);
    say('batch', map { ref $_ ? $_->[2] : $_ } @status);
    say('batch', query($conn, 'select count(*), sum(id) from batch'));
}

# cursor
$conn->begin_work;
$conn->do('declare walk cursor for select i from generate_series(1, 10) i');
while (my $part = query($conn, 'fetch 3 from walk')) { say('cursor', $part) }
$conn->commit;

# copy
$conn->do('create table copied (id int, name text)');
$conn->do('copy copied from stdin');
$conn->pg_putcopydata("$_\tname $_\n") for 0 .. 9999;
$conn->pg_putcopyend;
$conn->do('copy copied to stdout');
{
    my ($line, $bytes) = ('', 0);
    $bytes += length $line while $conn->pg_getcopydata($line) >= 0;
    say('copy', $bytes, query($conn, 'select count(*) from copied'));
}
attempt('copy', 'bad', sub { $conn->do('copy copied from stdin'); $conn->pg_putcopydata("no number\tx\n"); $conn->pg_putcopyend });
say('copy', 'usable', query($conn, 'select 1'));

# large
{
    my $big = 'x' x 1_000_000;
    my $sth = $conn->prepare('select ?::text');
    for (1 .. 3) { $sth->execute($big); say('large', $sth->fetchrow_array eq $big ? 'same' : 'other'); $sth->finish }
    my $sum = 0;
    $sum += $_->[0] for @{ $conn->selectall_arrayref("select i, repeat('y', 100) from generate_series(1, 10000) i") };
    say('large', $sum);
}

# timeout and cancel
$conn->begin_work;
$conn->do('set local statement_timeout = 50');
attempt('timeout', 'sleep', sub { query($conn, 'select pg_sleep(?)', 30) });
$conn->rollback;
say('timeout', 'usable', query($conn, 'select 1'));
{
    my $sth = $conn->prepare('select pg_sleep(30)', { pg_async => PG_ASYNC });
    $sth->execute;
    1 until query($other, "select count(*) from pg_stat_activity where datname = current_database()
        and wait_event = 'PgSleep'") eq '(1)';
    say('cancel', $conn->pg_cancel ? 'cancelled' : 'too late');
    undef $sth;
    say('cancel', 'usable', query($conn, 'select 1'));
}

# discard
for my $command ('deallocate all', 'discard all') {
    my ($mine, $theirs) = map { $_->prepare("select ?::text || ' kept'", { pg_prepare_now => 1 }) } $conn, $other;
    $mine->execute('a');
    $theirs->execute('a');
    $conn->do($command);
    attempt('discard', 'after', sub { $mine->execute('b'); rows($mine->fetchall_arrayref) });
    attempt('discard', 'other', sub { $theirs->execute('c'); rows($theirs->fetchall_arrayref) });
    undef $mine;
    attempt('discard', 'new', sub { query($conn, "select ?::text || ' anew'", 'd') });
}

say('warnings', $warnings);

# schema
$conn->do('create table changing (id int)');
$conn->do('insert into changing values (1)');
{
    my $all = $conn->prepare('select * from changing where id = ?', { pg_prepare_now => 1 });
    attempt('schema', 'before', sub { $all->execute(1); rows($all->fetchall_arrayref) });
    $other->do("alter table changing add column name text default 'new'");
    for (1 .. 2) { attempt('schema', 'after', sub { $all->execute(1); rows($all->fetchall_arrayref) }) }
}

# listen
if ($ENV{DRIVE_WAY} eq 'straight' || $ENV{DRIVE_WAY} eq 'session') {
    $conn->do('listen news');
    $other->do("notify news, 'it is here'");
    my $notice;
    1 until $notice = $conn->pg_notifies;
    say('listen', $notice->[0], $notice->[2]);
}

# reconnect
eval { query($conn, 'select pg_terminate_backend(pg_backend_pid())') };
say('reconnect', $DBI::state, $conn->ping ? 'there' : 'gone');
my $again = open_one();
say('reconnect', query($again, "select ?::text || ' kept'", 'e'));
print '# servers ', scalar(keys %servers), "\nend\n";
