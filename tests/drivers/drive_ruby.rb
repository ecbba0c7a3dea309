# Ruby's pg: simple, parameterised and prepared queries, type maps, pipeline mode, COPY.
require 'pg'

TEXT = "it's \"quoted\" \\ ä€🐘"
$servers = {}
$stdout.sync = true

def say(*values) = puts(values.join(' '))
def show(result) = result.values.map { |row| '(' + row.map(&:inspect).join(',') + ')' }.join
def connect = PG.connect

def attempt(step, about)
  say(step, about, yield)
rescue PG::Error => error
  say(step, about, error.class, error.respond_to?(:result) && error.result&.error_field(PG::PG_DIAG_SQLSTATE),
      error.message.lines.first.to_s.strip)
end

def simple(conn)
  say('simple', show(conn.exec("select 1 as one, 'two' as two, null as nothing")))
  conn.exec('create table things (id int primary key, name text)')
  say('simple', conn.exec("insert into things values (1, 'one'), (2, 'two')").cmd_tuples)
  say('simple', show(conn.exec('select 1; select 2')))
end

def types(conn)
  values = [-42, 9_007_199_254_740_993, '12345.678900', TEXT, { value: "\0\xff\x10".b, format: 1 }, 't', nil,
            '2024-02-29 12:34:56.789', '{1,NULL,3}']
  sql = 'select $1::int, $2::bigint, $3::numeric, $4::text, $5::bytea, $6::bool, $7::text, $8::timestamp, $9::int[]'
  say('types', show(conn.exec_params(sql, values)))
  say('types', 'binary', show(conn.exec_params('select $1::int4, $2::text', [1, TEXT], 1)))
  conn.type_map_for_results = PG::BasicTypeMapForResults.new(conn)
  say('types', 'mapped', show(conn.exec_params(sql, values)))
  conn.type_map_for_results = PG::TypeMapAllStrings.new
end

def explicit(conn)
  conn.prepare('adding', 'select $1::int + 1000')
  20.times { |i| say('explicit', show(conn.exec_prepared('adding', [i]))) }
  say('explicit', conn.describe_prepared('adding').nparams)
  attempt('explicit', 'again') { conn.prepare('adding', 'select 1') }
  attempt('explicit', 'unknown') { conn.exec_prepared('nobody') }
  attempt('explicit', 'broken') { conn.prepare('broken', 'selec 1') }
  attempt('explicit', 'mended') { conn.prepare('broken', "select 'mended'"); show(conn.exec_prepared('broken')) }
end

def interleave(conns)
  conns.each_with_index { |conn, i| conn.prepare('mine', "select pg_backend_pid(), #{i % 2}, $1::int") }
  20.times do |round|
    conns.each_with_index do |conn, i|
      [nil, conns[(i + 1) % conns.size]].each do |holder|
        holder&.exec('begin')
        pid, tag, got = conn.exec_prepared('mine', [round]).values[0]
        $servers[pid] = true
        say('interleave', i, tag, got) if (round % 5).zero?
        holder&.exec('commit')
      end
    end
  end
end

def errors(conn)
  ['selec 1', 'select 1/0', "insert into things values (1, 'again')", 'select * from no_such_table',
   "select 'x'::int"].each do |sql|
    attempt('errors', 'simple') { show(conn.exec(sql)) }
    attempt('errors', 'extended') { show(conn.exec_params(sql, [])) }
    say('errors', 'usable', show(conn.exec('select 1')))
  end
  conn.prepare('divide', 'select 10 / $1::int')
  [5, 0, 2].each { |divisor| attempt('errors', 'prepared') { show(conn.exec_prepared('divide', [divisor])) } }
end

def transactions(conn, other)
  attempt('failed_transaction', 'block') do
    conn.transaction do
      conn.exec_params('insert into things values ($1, $2)', [10, 'ten'])
      conn.exec_params('select 1 / $1::int', [0])
    end
  end
  other.prepare('count', 'select count(*) from things where id = $1')
  say('failed_transaction', 'after', show(other.exec_prepared('count', [10])))
  conn.transaction do
    conn.prepare('insert', 'insert into things values ($1, $2)')
    conn.exec_prepared('insert', [11, 'eleven'])
    say('visible', 'before', show(other.exec_prepared('count', [11])))
  end
  say('visible', 'after', show(other.exec_prepared('count', [11])))
  conn.transaction do
    conn.exec_prepared('insert', [12, 'twelve'])
    conn.exec('savepoint one')
    attempt('savepoint', 'fails') { conn.exec_prepared('insert', [1, 'again']) }
    conn.exec('rollback to one')
    conn.exec_prepared('insert', [14, 'fourteen'])
  end
  say('savepoint', 'after', show(other.exec('select id from things where id > 11 order by 1')))
end

def pipelined(conn)
  conn.enter_pipeline_mode
  conn.send_prepare('pipe', 'select 100 / $1::int')
  [5, 0, 4].each { |value| conn.send_query_prepared('pipe', [value]) }
  conn.pipeline_sync
  [20, 25].each { |value| conn.send_query_prepared('pipe', [value]) }
  conn.pipeline_sync
  syncs = 0
  while syncs < 2
    result = begin
      conn.get_result
    rescue PG::Error => error
      error.result
    end
    next unless result

    syncs += 1 if result.result_status == PG::PGRES_PIPELINE_SYNC
    say('pipeline', result.res_status(result.result_status), result.result_status == PG::PGRES_TUPLES_OK ? show(result) : '')
  end
  conn.exit_pipeline_mode
  say('pipeline', 'after', show(conn.exec_prepared('pipe', [50])))
end

def batch(conn)
  conn.exec('create table batch (id int, name text)')
  conn.prepare('batch', 'insert into batch values ($1, $2)')
  300.times { |i| conn.exec_prepared('batch', [i, "name #{i}"]) }
  say('batch', show(conn.exec('select count(*), sum(id) from batch')))
end

def cursor(conn)
  conn.transaction do
    conn.exec_params('declare walk cursor for select i from generate_series(1, $1::int) i', [10])
    until (part = conn.exec('fetch 3 from walk')).ntuples.zero?
      say('cursor', show(part))
    end
  end
  conn.send_query('select generate_series(1, 1000)')
  conn.set_single_row_mode
  say('cursor', 'rows', conn.get_result.stream_each_row.sum { |row| row[0].to_i })
end

def copy(conn)
  conn.exec('create table copied (id int, name text)')
  conn.copy_data('copy copied from stdin') { 10_000.times { |i| conn.put_copy_data("#{i}\tname #{i}\n") } }
  bytes = 0
  conn.copy_data('copy copied to stdout') { while (line = conn.get_copy_data) do bytes += line.size end }
  say('copy', bytes)
  attempt('copy', 'bad') { conn.copy_data('copy copied from stdin') { conn.put_copy_data("no number\tx\n") } }
  say('copy', show(conn.exec('select count(*) from copied')))
end

def large(conn)
  big = 'x' * 1_000_000
  conn.prepare('large', 'select $1::text')
  3.times { say('large', conn.exec_prepared('large', [big]).getvalue(0, 0) == big) }
  many = conn.exec("select i, repeat('y', 100) from generate_series(1, 10000) i")
  say('large', many.ntuples, many.column_values(0).sum(&:to_i))
end

def timeout(conn, other)
  attempt('timeout', 'sleep') do
    conn.transaction do
      conn.exec('set local statement_timeout = 50')
      conn.exec_params('select pg_sleep($1)', [30])
    end
  end
  conn.send_query_params('select pg_sleep($1)', [30])
  until other.exec('select count(*) from pg_stat_activity where datname = current_database() ' \
                   "and wait_event = 'PgSleep'").getvalue(0, 0) == '1'
  end
  say('cancel', conn.cancel.inspect)
  attempt('cancel', 'sleep') { show(conn.get_last_result) }
  say('cancel', 'usable', show(conn.exec('select 1')))
end

def schema(conn, other)
  conn.exec('create table changing (id int)')
  conn.exec('insert into changing values (1)')
  conn.prepare('all', 'select * from changing')
  attempt('schema', 'before') { show(conn.exec_prepared('all')) }
  other.exec("alter table changing add column name text default 'new'")
  2.times { attempt('schema', 'after') { show(conn.exec_prepared('all')) } }
end

def discard(conn, other)
  other.prepare('kept', "select 'kept'")
  ['deallocate all', 'discard all'].each do |command|
    conn.prepare('kept', "select 'kept'")
    say('discard', conn.exec(command).cmd_status)
    attempt('discard', 'after') { show(conn.exec_prepared('kept')) }
    attempt('discard', 'other') { show(other.exec_prepared('kept')) }
  end
end

def listen(conn, other)
  conn.exec('listen news')
  other.exec_params('select pg_notify($1, $2)', ['news', 'it is here'])
  conn.wait_for_notify { |channel, _, payload| say('listen', channel, payload) }
end

def reconnect(conn)
  begin
    conn.exec('select pg_terminate_backend(pg_backend_pid())')
  rescue PG::Error => error
    say('reconnect', error.result&.error_field(PG::PG_DIAG_SQLSTATE))
  end
  conn.reset
  attempt('reconnect', 'forgotten') { show(conn.exec_prepared('kept')) }
  say('reconnect', show(conn.exec('select 1')))
end

conns = Array.new(3) { connect }
conn, other = conns
simple(conn)
types(conn)
explicit(conn)
interleave(conns)
errors(conn)
transactions(conn, other)
pipelined(conn)
batch(conn)
cursor(conn)
copy(conn)
large(conn)
timeout(conn, other)
schema(conn, other)
discard(conn, other)
listen(conn, other) if %w[straight session].include?(ENV['DRIVE_WAY'])
reconnect(conn)
puts "# servers #{$servers.size}", 'end'
