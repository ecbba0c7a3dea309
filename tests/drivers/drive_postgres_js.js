// postgres.js: every query is a named statement unless told otherwise, and queries are pipelined.
'use strict';
const { Readable } = require('stream');
const { pipeline } = require('stream/promises');
const postgres = require('postgres');

const TEXT = 'it\'s "quoted" \\ ä€🐘';
const servers = new Set();
const say = (...values) => console.log(values.join(' '));
const show = (value) => (Buffer.isBuffer(value) ? 'bytes:' + value.toString('hex')
  : value instanceof Date ? value.toISOString() : typeof value === 'bigint' ? String(value) : JSON.stringify(value));
const rows = (result) => result.map((found) => '(' + Object.values(found).map(show).join(',') + ')').join('');

// One connection each, so that it is known who speaks.
const ssl = process.env.PGSSLMODE === 'require' ? { rejectUnauthorized: false } : false;
const connect = (more) => postgres({ max: 1, fetch_types: true, onnotice: () => {}, ssl, ...more });

async function attempt(step, about, work) {
  try {
    say(step, about, await work());
  } catch (error) {
    say(step, about, 'error', error.code, error.message);
  }
}

async function simple(sql) {
  say('simple', rows(await sql`select 1 as one, 'two' as two, null as nothing`));
  await sql`create table things (id int primary key, name text)`;
  const insert = await sql`insert into things values (1, 'one'), (2, 'two')`;
  say('simple', insert.command, insert.count);
  say('simple', (await sql.unsafe('select 1 as a; select 2 as b').simple()).map(rows).join(' '));
}

async function types(sql) {
  for (let i = 0; i < 3; i++) {
    say('types', rows(await sql`select ${-42}::int as a, ${'9007199254740993'}::bigint as b, ${'12345.678900'}::numeric as c,
      ${TEXT}::text as d, ${Buffer.from([0, 255, 16])}::bytea as e, ${true}::bool as f, ${null}::text as g,
      ${new Date('2024-02-29T12:34:56.789Z')}::timestamptz as h, ${[1, 2, 3]}::int[] as i, ${sql.json({ key: TEXT })} as j`));
  }
}

async function repeat(sql) {
  for (let i = 0; i < 20; i++) say('repeat', rows(await sql`select ${i}::int * 2 as twice`));
  for (let i = 0; i < 3; i++) say('repeat', 'unnamed', rows(await sql.unsafe('select $1::int * 3 as thrice', [i])));
  for (let i = 0; i < 3; i++) {
    say('repeat', 'named', rows(await sql.unsafe('select $1::int * 3 as thrice', [i], { prepare: true })));
  }
  const plain = connect({ prepare: false });
  for (let i = 0; i < 3; i++) say('repeat', 'plain', rows(await plain`select ${i}::int * 4 as fourfold`));
  await plain.end();
  const described = await sql`select ${1}::int as a, ${'x'}::text as b`.describe();
  say('repeat', 'described', described.types.join(','), described.columns.map((column) => column.name).join(','));
}

async function interleave(all) {
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < all.length; i++) {
      const holder = all[(i + 1) % all.length];
      const ask = async () => {
        const [found] = await all[i]`select pg_backend_pid() as pid, ${'c' + i}::text as tag, ${round}::int as got`;
        servers.add(found.pid);
        if (round % 5 === 0) say('interleave', found.tag, found.got);
      };
      await ask();
      await holder.begin(async (inside) => { await inside`select 1`; await ask(); });
    }
  }
}

async function errors(sql) {
  for (const text of ['selec 1', 'select 1/0', "insert into things values (1, 'again')", 'select * from no_such_table',
    "select 'x'::int"]) {
    await attempt('errors', 'simple', () => sql.unsafe(text).simple());
    await attempt('errors', 'unnamed', () => sql.unsafe(text, []));
    for (let i = 0; i < 2; i++) await attempt('errors', 'named', () => sql.unsafe(text, [], { prepare: true }));
    say('errors', 'usable', rows(await sql`select 1 as one`));
  }
  for (const divisor of [5, 0, 2]) await attempt('errors', 'prepared', async () => rows(await sql`select 10 / ${divisor}::int as d`));
}

async function transactions(sql, other) {
  const count = async (id) => rows(await other`select count(*) from things where id = ${id}`);
  await attempt('failed_transaction', 'block', () => sql.begin(async (inside) => {
    await inside`insert into things values (${10}, 'ten')`;
    await attempt('failed_transaction', 'fails', () => inside`select 1 / ${0}::int as d`);
    await attempt('failed_transaction', 'ignored', () => inside`select 'ignored' as i`);
  }));
  say('failed_transaction', 'after', await count(10), rows(await sql`select 'ignored' as i`));
  await sql.begin('isolation level serializable', async (inside) => {
    await inside`insert into things values (${11}, 'eleven')`;
    say('visible', 'before', await count(11));
  });
  say('visible', 'after', await count(11));
  await sql.begin(async (inside) => {
    await inside`insert into things values (${12}, 'twelve')`;
    await attempt('savepoint', 'fails', () => inside.savepoint((deeper) => deeper`insert into things values (${1}, 'again')`));
    await inside`insert into things values (${14}, 'fourteen')`;
  });
  say('savepoint', 'after', rows(await other`select id from things where id > 11 order by 1`));
}

// The driver sends the next query before the last one's answer is there.
async function pipelined(sql) {
  await sql`create table batch (id int primary key, name text)`;
  const done = await Promise.allSettled(Array.from({ length: 300 }, (_, i) =>
    sql`insert into batch values (${i === 200 ? 1 : i}, ${'name ' + i})`));
  say('batch', done.filter((one) => one.status === 'fulfilled').length, done[200].reason.code);
  say('batch', rows(await sql`select count(*), sum(id) from batch`));
  const many = Array.from({ length: 100 }, (_, i) => ({ id: 1000 + i, name: 'many' }));
  say('batch', (await sql`insert into batch ${sql(many, 'id', 'name')}`).count);
  const found = await Promise.all(Array.from({ length: 60 }, (_, i) => (i % 3 === 0 ? sql`select ${i}::int as n`
    : i % 3 === 1 ? sql`select ${i}::int + 1 as n` : sql.unsafe(`select ${i} as n`))));
  say('pipeline', found.map((result) => result[0].n).join(','));
  say('pipeline', await sql.begin((inside) => [1, 2, 3].map((i) => inside`select ${i}::int as n`)).then((all) => all.map(rows).join(' ')));
}

async function cursors(sql) {
  await sql.begin(async (inside) => {
    await inside`select i, ${TEXT}::text as t from generate_series(1, 10) i`.cursor(3, (part) => say('cursor', rows(part)));
  });
  let seen = 0;
  for await (const part of sql`select generate_series(1, ${1000}::int) as i`.cursor(7)) {
    seen += part.length;
    if (seen > 500) break;
  }
  say('cursor', 'stopped', seen, rows(await sql`select 1 as one`));
  let sum = 0;
  await sql`select generate_series(1, ${1000}::int) as i`.forEach((found) => { sum += found.i; });
  say('cursor', 'each', sum);
}

async function copying(sql) {
  await sql`create table copied (id int, name text)`;
  // few and small pieces: with many the driver's streams sometimes stop, straight to PostgreSQL too
  const lines = Array.from({ length: 500 }, (_, i) => `${i}\tname ${i}\n`).join('');
  await pipeline(Readable.from([lines]), await sql`copy copied from stdin`.writable());
  let bytes = 0;
  for await (const part of await sql`copy copied to stdout`.readable()) bytes += part.length;
  say('copy', bytes, rows(await sql`select count(*) from copied`));
}

async function large(sql) {
  const big = 'x'.repeat(1000000);
  for (let i = 0; i < 3; i++) say('large', (await sql`select ${big}::text as t`)[0].t === big);
  const many = await sql`select i, repeat('y', 100) as y from generate_series(1, ${10000}::int) i`;
  say('large', many.length, many.reduce((sum, found) => sum + found.i, 0));
}

async function timeout(sql, other) {
  await attempt('timeout', 'sleep', () => sql.begin(async (inside) => {
    await inside`set local statement_timeout = 50`;
    await inside`select pg_sleep(${30})`;
  }));
  say('timeout', 'usable', rows(await sql`select 1 as one`));
  const sleep = sql`select pg_sleep(${30})`;
  const asleep = attempt('cancel', 'sleep', () => sleep);
  for (let sleeping = 0; !sleeping;) {
    [{ n: sleeping }] = await other`select count(*)::int as n from pg_stat_activity
      where datname = current_database() and wait_event = 'PgSleep'`;
  }
  sleep.cancel();
  await asleep;
  say('cancel', 'usable', rows(await sql`select 1 as one`));
}

async function schema(sql, other) {
  await sql`create table changing (id int)`;
  await sql`insert into changing values (1)`;
  const look = async () => rows(await sql`select * from changing where id = ${1}`);
  for (let i = 0; i < 2; i++) await attempt('schema', 'before', look);
  await other`alter table changing add column name text default 'new'`;
  for (let i = 0; i < 3; i++) await attempt('schema', 'after', look);
}

async function discard(sql, other) {
  const kept = (who) => async () => rows(await who`select ${'a'}::text || ' kept' as k`);
  for (const command of ['deallocate all', 'discard all']) {
    await attempt('discard', 'before', kept(sql));
    await attempt('discard', 'before', kept(other));
    say('discard', (await sql.unsafe(command)).command);
    for (let i = 0; i < 2; i++) await attempt('discard', 'after', kept(sql));
    await attempt('discard', 'other', kept(other));
  }
}

async function pool() {
  const shared = postgres({ max: 5, fetch_types: false, ssl });
  const found = await Promise.all(Array.from({ length: 200 }, (_, i) => shared`select ${i}::int * 7 as n`));
  say('pool', found.reduce((sum, result) => sum + result[0].n, 0));
  await shared.end();
}

async function listen(sql, other) {
  let heard;
  const hears = new Promise((resolve) => { heard = resolve; });
  await sql.listen('news', heard);
  await other.notify('news', 'it is here');
  say('listen', await hears);
}

async function reconnect(sql) {
  await attempt('reconnect', 'killed', () => sql`select pg_terminate_backend(pg_backend_pid())`);
  // its own attempt to connect again sometimes never ends, straight to PostgreSQL too
  const again = connect();
  say('reconnect', rows(await again`select ${'b'}::text || ' kept' as k`));
  await again.end();
}

async function main() {
  const all = [connect(), connect(), connect()];
  const [sql, other] = all;
  await simple(sql);
  await types(sql);
  await repeat(sql);
  await interleave(all);
  await errors(sql);
  await transactions(sql, other);
  await pipelined(sql);
  await cursors(sql);
  await copying(sql);
  await large(sql);
  await timeout(sql, other);
  await schema(sql, other);
  await discard(sql, other);
  await pool();
  if (['straight', 'session'].includes(process.env.DRIVE_WAY)) await listen(sql, other);
  await reconnect(sql);
  await Promise.all(all.map((one) => one.end({ timeout: 1 })));
  console.log(`# servers ${servers.size}\nend`);
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
