// node-postgres (pg): simple and parameterised queries, named statements, pg-cursor, COPY streams.
'use strict';
const { once } = require('events');
const { Readable } = require('stream');
const { pipeline } = require('stream/promises');
const pg = require('pg');
const Cursor = require('pg-cursor');
const copy = require('pg-copy-streams');

const TEXT = 'it\'s "quoted" \\ ä€🐘';
const servers = new Set();
const say = (...values) => console.log(values.join(' '));
const show = (value) => (Buffer.isBuffer(value) ? 'bytes:' + value.toString('hex')
  : value instanceof Date ? value.toISOString() : JSON.stringify(value));
const row = (values) => '(' + values.map(show).join(',') + ')';
const rows = (result) => result.rows.map((found) => row(Object.values(found))).join('');

async function connect() {
  const client = new pg.Client();
  client.on('error', () => {}); // a connection that ends while it idles
  await client.connect();
  return client;
}

async function attempt(step, about, work) {
  try {
    say(step, about, await work());
  } catch (error) {
    say(step, about, 'error', error.code, error.message);
  }
}

async function simple(client) {
  say('simple', rows(await client.query("select 1 as one, 'two' as two, null as nothing")));
  await client.query('create table things (id int primary key, name text)');
  const insert = await client.query("insert into things values (1, 'one'), (2, 'two')");
  say('simple', insert.command, insert.rowCount);
  say('simple', (await client.query('select 1 as a; select 2 as b')).map(rows).join(' '));
  say('simple', 'queued', (await Promise.all([1, 2, 3].map((i) => client.query('select $1::int as i', [i]))))
    .map(rows).join(' '));
}

async function types(client) {
  const text = 'select $1::int, $2::bigint as b, $3::numeric as c, $4::text as d, $5::bytea as e, $6::bool as f, ' +
    '$7::text as g, $8::timestamptz as h, $9::int[] as i, $10::json as j';
  const values = [-42, '9007199254740993', '12345.678900', TEXT, Buffer.from([0, 255, 16]), true, null,
    new Date('2024-02-29T12:34:56.789Z'), [1, null, 3], { key: TEXT }];
  for (const name of [undefined, 'types', 'types', undefined]) say('types', rows(await client.query({ name, text, values })));
}

async function repeat(client) {
  for (let i = 0; i < 20; i++) say('repeat', rows(await client.query('select $1::int * 2 as twice', [i])));
}

async function explicit(client) {
  for (let i = 0; i < 20; i++) {
    say('explicit', rows(await client.query({ name: 'adding', text: 'select $1::int + 1000 as sum', values: [i] })));
  }
  await attempt('explicit', 'other text', () => client.query({ name: 'adding', text: 'select 1' }));
  await client.query({ name: 'second', text: 'select $1::int + 1000 as sum', values: [1] });
  await attempt('explicit', 'broken', () => client.query({ name: 'broken', text: 'selec 1' }));
  await attempt('explicit', 'mended', async () => rows(await client.query({ name: 'broken', text: "select 'mended' as m" })));
}

async function interleave(clients) {
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < clients.length; i++) {
      for (const holder of [null, clients[(i + 1) % clients.length]]) {
        if (holder) await holder.query('begin');
        const { rows: [found] } = await clients[i].query(
          { name: 'mine', text: `select pg_backend_pid() as pid, ${i % 2} as tag, $1::int as got`, values: [round] });
        servers.add(found.pid);
        if (round % 5 === 0) say('interleave', i, found.tag, found.got);
        if (holder) await holder.query('commit');
      }
    }
  }
}

async function errors(client) {
  for (const text of ['selec 1', 'select 1/0', "insert into things values (1, 'again')", 'select * from no_such_table',
    "select 'x'::int"]) {
    await attempt('errors', 'simple', () => client.query(text));
    await attempt('errors', 'values', () => client.query(text, []));
    await attempt('errors', 'named', () => client.query({ name: 'bad ' + text, text }));
    say('errors', 'usable', rows(await client.query('select 1 as one')));
  }
  for (const divisor of [5, 0, 2]) {
    await attempt('errors', 'prepared', async () =>
      rows(await client.query({ name: 'divide', text: 'select 10 / $1::int as d', values: [divisor] })));
  }
}

async function transactions(client, other) {
  const insert = (id) => client.query({ name: 'insert', text: "insert into things values ($1, 'x')", values: [id] });
  const count = async (id) => rows(await other.query(
    { name: 'count', text: 'select count(*) from things where id = $1', values: [id] }));
  await client.query('begin');
  await insert(10);
  await attempt('failed_transaction', 'fails', () => client.query('select 1/0'));
  await attempt('failed_transaction', 'ignored', () => client.query({ name: 'late', text: "select 'late' as l" }));
  await client.query('rollback');
  await attempt('failed_transaction', 'late', async () => rows(await client.query({ name: 'late', text: "select 'late' as l" })));
  say('failed_transaction', 'after', await count(10));
  await client.query('begin');
  await insert(11);
  say('visible', 'before', await count(11));
  await client.query('commit');
  say('visible', 'after', await count(11));
  await client.query('begin');
  await insert(12);
  await client.query('savepoint one');
  await attempt('savepoint', 'fails', () => insert(1));
  await client.query('rollback to one');
  await insert(14);
  await client.query('commit');
  say('savepoint', 'after', rows(await other.query('select id from things where id > 11 order by 1')));
}

async function batch(client) {
  await client.query('create table batch (id int primary key, name text)');
  const done = await Promise.allSettled(Array.from({ length: 300 }, (_, i) => client.query(
    { name: 'batch', text: 'insert into batch values ($1, $2)', values: [i === 200 ? 1 : i, 'name ' + i] })));
  say('batch', done.filter((one) => one.status === 'fulfilled').length, done[200].reason.code);
  say('batch', rows(await client.query('select count(*), sum(id) from batch')));
}

async function cursors(client) {
  await client.query('begin');
  const cursor = client.query(new Cursor('select i, $1::text as t from generate_series(1, 10) i', [TEXT]));
  for (let read; (read = await cursor.read(3)).length;) say('cursor', read.map((found) => row(Object.values(found))).join(''));
  await cursor.close();
  await client.query('commit');
  const early = client.query(new Cursor('select generate_series(1, 100000) as i'));
  say('cursor', (await early.read(2)).length);
  await early.close();
  say('cursor', 'usable', rows(await client.query('select 1 as one')));
  // the driver's own row limit
  const limited = await client.query({ text: 'select generate_series(1, $1::int) as i', values: [10], rows: 4 });
  say('cursor', 'limited', limited.rows.length);
}

async function copying(client) {
  await client.query('create table copied (id int, name text)');
  const lines = Array.from({ length: 10000 }, (_, i) => `${i}\tname ${i}\n`);
  await pipeline(Readable.from(lines), client.query(copy.from('copy copied from stdin')));
  let bytes = 0;
  for await (const part of client.query(copy.to('copy copied to stdout'))) bytes += part.length;
  say('copy', bytes);
  await attempt('copy', 'bad', () => pipeline(Readable.from(['no number\tx\n']), client.query(copy.from('copy copied from stdin'))));
  say('copy', rows(await client.query('select count(*) from copied')));
}

async function large(client) {
  const big = 'x'.repeat(1000000);
  for (let i = 0; i < 3; i++) {
    const result = await client.query({ name: 'large', text: 'select $1::text as t', values: [big] });
    say('large', result.rows[0].t === big);
  }
  const many = await client.query("select i, repeat('y', 100) as y from generate_series(1, $1) i", [10000]);
  say('large', many.rows.length, many.rows.reduce((sum, found) => sum + found.i, 0));
}

async function timeout(client, other) {
  await client.query('begin');
  await client.query('set local statement_timeout = 50');
  await attempt('timeout', 'sleep', () => client.query('select pg_sleep($1)', [30]));
  await client.query('rollback');
  say('timeout', 'usable', rows(await client.query('select 1 as one')));
  const asleep = attempt('cancel', 'sleep', () => client.query('select pg_sleep($1)', [30]));
  for (let sleeping = 0; !sleeping;) {
    const found = await other.query('select count(*)::int as n from pg_stat_activity ' +
      "where datname = current_database() and wait_event = 'PgSleep'");
    sleeping = found.rows[0].n;
  }
  const canceller = new pg.Client(); // as the driver's own cancel does it: a new connection with the key
  await new Promise((resolve) => {
    const { connection } = canceller;
    connection.on('connect', () => connection.cancel(client.processID, client.secretKey));
    connection.on('end', resolve);
    connection.connect(canceller.port, canceller.host);
  });
  await asleep;
  say('cancel', 'usable', rows(await client.query('select 1 as one')));
}

async function schema(client, other) {
  await client.query('create table changing (id int)');
  await client.query('insert into changing values (1)');
  const look = async () => rows(await client.query({ name: 'all', text: 'select * from changing' }));
  await attempt('schema', 'before', look);
  await other.query("alter table changing add column name text default 'new'");
  await attempt('schema', 'after', look);
  await attempt('schema', 'again', look);
}

async function discard(client, other) {
  const kept = (who) => async () => rows(await who.query({ name: 'kept', text: "select $1::text || ' kept' as k", values: ['a'] }));
  await attempt('discard', 'before', kept(client));
  await attempt('discard', 'before', kept(other));
  for (const command of ['deallocate all', 'discard all']) {
    say('discard', (await client.query(command)).command);
    await attempt('discard', 'after', kept(client));
    await attempt('discard', 'other', kept(other));
  }
}

async function pool() {
  const shared = new pg.Pool({ max: 5 });
  const found = await Promise.all(Array.from({ length: 100 }, (_, i) => shared.query(
    { name: 'pooled', text: 'select $1::int * 7 as n', values: [i] })));
  say('pool', found.reduce((sum, result) => sum + result.rows[0].n, 0));
  await shared.end();
}

async function listen(client, other) {
  await client.query('listen news');
  const heard = once(client, 'notification');
  await other.query("select pg_notify('news', $1)", ['it is here']);
  const [{ channel, payload }] = await heard;
  say('listen', channel, payload);
}

async function reconnect(client) {
  const ended = new Promise((resolve) => { client.on('end', resolve); });
  await attempt('reconnect', 'killed', () => client.query('select pg_terminate_backend(pg_backend_pid())'));
  await ended;
  const again = await connect();
  say('reconnect', rows(await again.query({ name: 'kept', text: "select $1::text || ' kept' as k", values: ['b'] })));
  await again.end();
}

async function consoleWay() {
  const client = await connect();
  for (const how of ['simple', 'named', 'unnamed']) {
    for (const text of process.env.DRIVE_COMMANDS.split('\n')) {
      try {
        const asked = how === 'simple' ? text : how === 'named' ? { name: text.slice(0, 60), text } : { text, values: [] };
        const found = (await client.query(asked)).rows;
        if (found.length === 0) say('console', text, 'done');
        else say('console', text, found.length, ...Object.values(found[0]).slice(0, 5).map((v) => (v === null ? '-' : v)));
      } catch (error) {
        say('console', text, 'error', error.code);
      }
    }
  }
  await client.end();
  console.log('end');
}

async function main() {
  const clients = [await connect(), await connect(), await connect()];
  const [client, other] = clients;
  await simple(client);
  await types(client);
  await repeat(client);
  await explicit(client);
  await interleave(clients);
  await errors(client);
  await transactions(client, other);
  await batch(client);
  await cursors(client);
  await copying(client);
  await large(client);
  await timeout(client, other);
  await schema(client, other);
  await discard(client, other);
  await pool();
  if (['straight', 'session'].includes(process.env.DRIVE_WAY)) await listen(client, other);
  await reconnect(client);
  await clients[1].end();
  await clients[2].end();
  console.log(`# servers ${servers.size}\nend`);
}

(process.env.DRIVE_WAY === 'console' ? consoleWay : main)().catch((error) => { console.error(error); process.exit(1); });
