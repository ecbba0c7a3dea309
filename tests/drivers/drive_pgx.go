// pgx: a cache of prepared statements (and, in its other mode, of descriptions only), batches in one
// pipeline, binary values, CopyFrom, its pool.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgconn/stmtcache"
	"github.com/jackc/pgtype"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

const text = "it's \"quoted\" \\ ä€🐘"

var (
	ctx     = context.Background()
	servers = map[int32]bool{}
	step    string
)

func say(values ...interface{}) {
	fmt.Print(step, " ", fmt.Sprintln(values...))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, step, err)
		os.Exit(1)
	}
}

// An error as one sees it: SQLSTATE and message.
func attempt(about string, result interface{}, err error) {
	var of *pgconn.PgError
	if errors.As(err, &of) {
		say(about, "error", of.Code, of.Message)
	} else if err != nil {
		say(about, "error", err)
	} else {
		say(about, result)
	}
}

type asker interface {
	Query(context.Context, string, ...interface{}) (pgx.Rows, error)
	Exec(context.Context, string, ...interface{}) (pgconn.CommandTag, error)
}

func read(found pgx.Rows, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer found.Close()
	var out strings.Builder
	for found.Next() {
		values, err := found.Values()
		if err != nil {
			return "", err
		}
		fmt.Fprint(&out, values)
	}
	return out.String(), found.Err()
}

func query(on asker, what string, args ...interface{}) (string, error) {
	return read(on.Query(ctx, what, args...))
}

func value(on asker, what string, args ...interface{}) string {
	got, err := query(on, what, args...)
	must(err)
	return got
}

func exec(on asker, what string, args ...interface{}) {
	_, err := on.Exec(ctx, what, args...)
	must(err)
}

func open(mode, capacity int) *pgx.Conn {
	config, err := pgx.ParseConfig("sslmode=" + os.Getenv("PGSSLMODE"))
	must(err)
	config.BuildStatementCache = func(conn *pgconn.PgConn) stmtcache.Cache {
		return stmtcache.New(conn, mode, capacity)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	must(err)
	return conn
}

func types(conn *pgx.Conn) {
	given := []interface{}{-42, int64(9007199254740993), text, []byte{0, 255, 16}, true, nil,
		time.Date(2024, 2, 29, 12, 34, 56, 789000000, time.UTC), []int32{1, 2, 3}}
	for i := 0; i < 2; i++ {
		say(value(conn, "select $1::int, $2::bigint, $3::text, $4::bytea, $5::bool, $6::text, $7::timestamptz, "+
			"$8::int[]::text", given...))
	}
}

func repeat(conn *pgx.Conn) {
	for i := 0; i < 20; i++ {
		say(value(conn, "select $1::int * 2", i))
	}
	for _, mode := range []int{stmtcache.ModePrepare, stmtcache.ModeDescribe} {
		few := open(mode, 2) // the driver lets statements go, in SQL
		for i := 0; i < 12; i++ {
			got, err := query(few, fmt.Sprintf("select %d + $1::int", i%4), i)
			attempt(fmt.Sprint("few ", mode), got, err)
		}
		must(few.Close(ctx))
	}
	plain := open(stmtcache.ModePrepare, 10)
	say("simple protocol", value(plain, "select $1::int", pgx.QuerySimpleProtocol(true), 5))
	must(plain.Close(ctx))
}

func explicit(conn *pgx.Conn) {
	_, err := conn.Prepare(ctx, "adding", "select $1::int + 1000")
	attempt("prepare", "", err)
	for i := 0; i < 5; i++ {
		say(value(conn, "adding", i))
	}
	_, err = conn.Prepare(ctx, "broken", "selec 1")
	attempt("broken", "", err)
	attempt("deallocate", "", conn.Deallocate(ctx, "adding"))
	description, err := conn.Prepare(ctx, "adding", "select $1::int + 2000")
	attempt("prepare", description.ParamOIDs, err)
	say(value(conn, "adding", 1))
}

func interleave(conns []*pgx.Conn) {
	for round := 0; round < 20; round++ {
		for i, conn := range conns {
			for held := 0; held < 2; held++ {
				holder := conns[(i+1)%len(conns)]
				if held == 1 {
					exec(holder, "begin")
				}
				var pid, tag, got int32
				must(conn.QueryRow(ctx, fmt.Sprintf("select pg_backend_pid(), %d, $1::int", i%2), round).Scan(&pid, &tag, &got))
				servers[pid] = true
				if round%5 == 0 {
					say(i, tag, got)
				}
				if held == 1 {
					exec(holder, "commit")
				}
			}
		}
	}
}

func failures(conn *pgx.Conn) {
	for _, what := range []string{"selec 1", "select 1/0", "insert into things values (1, 'again')",
		"select * from no_such_table", "select 'x'::int"} {
		for i := 0; i < 2; i++ {
			got, err := query(conn, what)
			attempt("extended", got, err)
		}
		got, err := query(conn, what, pgx.QuerySimpleProtocol(true))
		attempt("simple", got, err)
		say("usable", value(conn, "select 1"))
	}
	for _, divisor := range []int{5, 0, 2} {
		got, err := query(conn, "select 10 / $1::int", divisor)
		attempt("prepared", got, err)
	}
}

func transactions(conn *pgx.Conn, other *pgx.Conn) {
	count := "select count(*) from things where id = $1"
	step = "failed_transaction"
	tx, err := conn.Begin(ctx)
	must(err)
	exec(tx, "insert into things values ($1, 'ten')", 10)
	got, err := query(tx, "select 1 / $1::int", 0)
	attempt("fails", got, err)
	got, err = query(tx, "select 'ignored', $1::int", 1)
	attempt("ignored", got, err)
	attempt("commit", "", tx.Commit(ctx))
	say("after", value(conn, count, 10), value(conn, "select 'ignored', $1::int", 1))
	step = "visible"
	tx, err = conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable})
	must(err)
	exec(tx, "insert into things values ($1, 'eleven')", 11)
	say("before", value(other, count, 11))
	must(tx.Commit(ctx))
	say("after", value(other, count, 11))
	step = "savepoint"
	tx, err = conn.Begin(ctx)
	must(err)
	deeper, err := tx.Begin(ctx)
	must(err)
	_, err = deeper.Exec(ctx, "insert into things values ($1, 'again')", 1)
	attempt("fails", "", err)
	must(deeper.Rollback(ctx))
	exec(tx, "insert into things values ($1, 'fourteen')", 14)
	must(tx.Commit(ctx))
	say("after", value(other, "select id from things where id > 11"))
}

// SendBatch: all statements in one pipeline with one Sync.
func batch(conn *pgx.Conn) {
	exec(conn, "create table batch (id int primary key, name text)")
	for _, bad := range []bool{false, true} {
		work := &pgx.Batch{}
		for i := 0; i < 200; i++ {
			id := i
			if bad {
				id = 1000 + i
				if i == 100 {
					id = 1
				}
			}
			work.Queue("insert into batch values ($1, $2)", id, fmt.Sprintf("name %d", i))
			work.Queue(fmt.Sprintf("select $1::int + %d", i%5), i)
		}
		results := conn.SendBatch(ctx, work)
		sum, problems := int32(0), 0
		var first error
		for i := 0; i < 200; i++ {
			if _, err := results.Exec(); err != nil {
				if problems++; first == nil {
					first = err
				}
			}
			var got int32
			if err := results.QueryRow().Scan(&got); err == nil {
				sum += got
			}
		}
		results.Close()
		attempt("batch", sum, first)
		say("problems", problems, value(conn, "select count(*), sum(id) from batch"))
	}
}

func copying(conn *pgx.Conn) {
	exec(conn, "create table copied (id int, name text)")
	rows := make([][]interface{}, 10000)
	for i := range rows {
		rows[i] = []interface{}{int32(i), fmt.Sprintf("name %d", i)}
	}
	count, err := conn.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"id", "name"}, pgx.CopyFromRows(rows))
	attempt("in", count, err)
	var out bytes.Buffer
	tag, err := conn.PgConn().CopyTo(ctx, &out, "copy copied to stdout")
	attempt("out", tag, err)
	say(out.Len())
	_, err = conn.PgConn().CopyFrom(ctx, strings.NewReader("no number\tx\n"), "copy copied from stdin")
	attempt("bad", "", err)
	say(value(conn, "select count(*) from copied"))
}

func large(conn *pgx.Conn) {
	big := strings.Repeat("x", 1000000)
	for i := 0; i < 3; i++ {
		var got string
		must(conn.QueryRow(ctx, "select $1::text", big).Scan(&got))
		say("value", got == big)
	}
	var sum int64
	found, err := conn.Query(ctx, "select i, repeat('y', 100) from generate_series(1, $1::int) i", 10000)
	must(err)
	for found.Next() {
		var i int32
		var y string
		must(found.Scan(&i, &y))
		sum += int64(i)
	}
	say("rows", sum)
}

func timeout(conn *pgx.Conn, other *pgx.Conn) {
	tx, err := conn.Begin(ctx)
	must(err)
	exec(tx, "set local statement_timeout = 50")
	got, err := query(tx, "select pg_sleep($1)", 30)
	attempt("sleep", got, err)
	must(tx.Rollback(ctx))
	say("usable", value(conn, "select 1"))
	step = "cancel"
	ended := make(chan error)
	go func() {
		_, err := query(conn, "select pg_sleep($1)", 30)
		ended <- err
	}()
	for value(other, "select count(*) from pg_stat_activity where datname = current_database() and wait_event = $1",
		"PgSleep") != "[1]" {
	}
	must(conn.PgConn().CancelRequest(ctx))
	attempt("sleep", "", <-ended)
	say("usable", value(conn, "select 1"))
}

// The driver remembers the columns of its statements, and their formats.
func schema(other *pgx.Conn) {
	exec(other, "create table changing (id int)")
	exec(other, "insert into changing values (1)")
	for _, mode := range []int{stmtcache.ModePrepare, stmtcache.ModeDescribe} {
		conn := open(mode, 100)
		got, err := query(conn, "select * from changing where id = $1", 1)
		attempt("before", got, err)
		exec(other, "alter table changing add column name text default 'new'")
		for i := 0; i < 3; i++ {
			got, err = query(conn, "select * from changing where id = $1", 1)
			attempt("after", got, err)
		}
		exec(other, "alter table changing drop column name")
		must(conn.Close(ctx))
	}
}

func discard(conn *pgx.Conn, other *pgx.Conn) {
	for number, command := range []string{"deallocate all", "discard all"} {
		what := fmt.Sprintf("select $1::text || ' kept %d'", number)
		say(value(conn, what, "a"), value(other, what, "a"))
		exec(conn, command, pgx.QuerySimpleProtocol(true))
		got, err := query(conn, what, "b")
		if err != nil { // the name has a counter in it
			var of *pgconn.PgError
			say("after", errors.As(err, &of), of.Code)
		} else {
			say("after", got)
		}
		got, err = query(other, what, "c")
		attempt("other", got, err)
	}
}

func pool() {
	config, err := pgxpool.ParseConfig("pool_max_conns=5 sslmode=" + os.Getenv("PGSSLMODE"))
	must(err)
	shared, err := pgxpool.ConnectConfig(ctx, config)
	must(err)
	var done sync.WaitGroup
	sums := make([]int, 8)
	for worker := range sums {
		done.Add(1)
		go func(worker int) {
			defer done.Done()
			for i := 0; i < 50; i++ {
				var got int
				must(shared.QueryRow(ctx, "select $1::int * 7", i).Scan(&got))
				sums[worker] += got
			}
		}(worker)
	}
	done.Wait()
	say(sums)
	shared.Close()
}

func listen(conn *pgx.Conn, other *pgx.Conn) {
	exec(conn, "listen news")
	exec(other, "select pg_notify('news', $1)", "it is here")
	heard, err := conn.WaitForNotification(ctx)
	must(err)
	say(heard.Channel, heard.Payload)
}

// A value as text; numeric comes as a struct.
func shown(value interface{}) string {
	if value == nil {
		return "-"
	}
	if numeric, ok := value.(pgtype.Numeric); ok {
		var number int64
		must(numeric.AssignTo(&number))
		return fmt.Sprint(number)
	}
	return fmt.Sprint(value)
}

func console() {
	step = "console"
	for _, mode := range []int{stmtcache.ModePrepare, stmtcache.ModeDescribe} {
		conn := open(mode, 512)
		for _, command := range strings.Split(os.Getenv("DRIVE_COMMANDS"), "\n") {
			line, count := "", 0
			found, err := conn.Query(ctx, command)
			for err == nil && found.Next() {
				var values []interface{}
				values, err = found.Values()
				for i := 0; i < len(values) && i < 5 && count == 0; i++ {
					line += " " + shown(values[i])
				}
				count++
			}
			if err == nil {
				err = found.Err()
			}
			var of *pgconn.PgError
			if errors.As(err, &of) {
				say(command, "error", of.Code)
			} else if must(err); count == 0 {
				say(command, "done")
			} else {
				say(command, fmt.Sprint(count)+line)
			}
		}
		conn.Close(ctx)
	}
	fmt.Println("end")
}

func main() {
	if os.Getenv("DRIVE_WAY") == "console" {
		console()
		return
	}
	conns := []*pgx.Conn{open(stmtcache.ModePrepare, 512), open(stmtcache.ModePrepare, 512), open(stmtcache.ModeDescribe, 512)}
	conn, other := conns[0], conns[1]
	way := os.Getenv("DRIVE_WAY")
	step = "simple"
	say(value(conn, "select 1 as one, 'two' as two, null as nothing"))
	exec(conn, "create table things (id int primary key, name text)")
	exec(conn, "insert into things values (1, 'one'), (2, 'two')")
	step = "types"
	types(conn)
	step = "repeat"
	repeat(conn)
	step = "explicit"
	explicit(conn)
	step = "interleave"
	interleave(conns)
	step = "errors"
	failures(conn)
	transactions(conn, other)
	step = "batch"
	batch(conn)
	step = "copy"
	copying(conn)
	step = "large"
	large(conn)
	step = "timeout"
	timeout(conn, other)
	step = "pool"
	pool()
	step = "schema"
	schema(other)
	step = "discard"
	discard(conn, other)
	if way == "straight" || way == "session" {
		step = "listen"
		listen(conn, other)
	}
	step = "reconnect"
	got, err := query(conn, "select pg_terminate_backend(pg_backend_pid())")
	attempt("killed", got, err)
	say(conn.IsClosed())
	again := open(stmtcache.ModePrepare, 10)
	say(value(again, "select $1::text", "usable"))
	fmt.Printf("# servers %d\nend\n", len(servers))
}
