// database/sql with lib/pq: db.Query with arguments (unnamed statements), db.Prepare (named ones, on
// whatever connection database/sql picks), transactions, COPY by pq.CopyIn, LISTEN, contexts that cancel.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"
)

const text = "it's \"quoted\" \\ ä€🐘"

var (
	ctx     = context.Background()
	servers = map[int]bool{}
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
	var of *pq.Error
	if errors.As(err, &of) {
		say(about, "error", of.Code, of.Message)
	} else if err != nil {
		say(about, "error", err)
	} else {
		say(about, result)
	}
}

type asker interface {
	QueryContext(context.Context, string, ...interface{}) (*sql.Rows, error)
	ExecContext(context.Context, string, ...interface{}) (sql.Result, error)
}

func read(found *sql.Rows, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer found.Close()
	var out strings.Builder
	for {
		columns, err := found.Columns()
		if err != nil {
			return "", err
		}
		for found.Next() {
			values := make([]interface{}, len(columns))
			places := make([]interface{}, len(columns))
			for i := range values {
				places[i] = &values[i]
			}
			if err := found.Scan(places...); err != nil {
				return "", err
			}
			for i, value := range values {
				if bytes, ok := value.([]byte); ok {
					values[i] = fmt.Sprintf("%q", bytes)
				}
			}
			fmt.Fprint(&out, values)
		}
		if !found.NextResultSet() {
			break
		}
		out.WriteString(" next ")
	}
	return out.String(), found.Err()
}

func query(on asker, what string, args ...interface{}) (string, error) {
	return read(on.QueryContext(ctx, what, args...))
}

func value(on asker, what string, args ...interface{}) string {
	got, err := query(on, what, args...)
	must(err)
	return got
}

func exec(on asker, what string, args ...interface{}) {
	_, err := on.ExecContext(ctx, what, args...)
	must(err)
}

func open(more string) *sql.DB {
	db, err := sql.Open("postgres", "sslmode="+os.Getenv("PGSSLMODE")+" "+more)
	must(err)
	return db
}

func simple(conn *sql.Conn) {
	say(value(conn, "select 1 as one, 'two' as two, null as nothing"))
	exec(conn, "create table things (id int primary key, name text)")
	result, err := conn.ExecContext(ctx, "insert into things values (1, 'one'), (2, 'two')")
	must(err)
	count, _ := result.RowsAffected()
	say(count)
	say(value(conn, "select 1; select 2"))
}

func types(conn *sql.Conn, binary *sql.DB) {
	given := []interface{}{-42, int64(9007199254740993), "12345.678900", text, []byte{0, 255, 16}, true, nil,
		time.Date(2024, 2, 29, 12, 34, 56, 789000000, time.UTC), pq.Array([]int64{1, 2, 3})}
	what := "select $1::int, $2::bigint, $3::numeric, $4::text, $5::bytea, $6::bool, $7::text, $8::timestamp, $9::int[]"
	say(value(conn, what, given...))
	say("binary", value(binary, "select $1::int, $2::text, $3::bytea, $4::bool", 7, text, []byte{0, 255}, true))
}

func repeat(conn *sql.Conn, binary *sql.DB) {
	for i := 0; i < 20; i++ {
		say(value(conn, "select $1::int * 2", i), value(binary, "select $1::int * 3", i))
	}
}

func explicit(db *sql.DB, conn *sql.Conn) {
	one, err := conn.PrepareContext(ctx, "select $1::int + $2::int as sum")
	must(err)
	two, err := conn.PrepareContext(ctx, "select $1::int + $2::int as sum")
	must(err)
	for i := 0; i < 5; i++ {
		got, err := read(one.Query(i, 100))
		attempt("one", got, err)
		got, err = read(two.Query(i, 200))
		attempt("two", got, err)
	}
	must(one.Close())
	got, err := read(two.Query(1, 2))
	attempt("two", got, err)
	must(two.Close())
	_, err = conn.PrepareContext(ctx, "selec 1")
	attempt("broken", "", err)
	_, err = conn.PrepareContext(ctx, "select * from no_such_table")
	attempt("broken", "", err)
	// A statement of the pool: database/sql prepares it on each connection that comes.
	shared, err := db.Prepare("select $1::int * 7")
	must(err)
	var done sync.WaitGroup
	sums := make([]int, 8)
	for worker := range sums {
		done.Add(1)
		go func(worker int) {
			defer done.Done()
			for i := 0; i < 50; i++ {
				var got int
				must(shared.QueryRow(i).Scan(&got))
				sums[worker] += got
			}
		}(worker)
	}
	done.Wait()
	say("shared", sums)
	must(shared.Close())
}

func interleave(conns []*sql.Conn) {
	statements := make([]*sql.Stmt, len(conns))
	for i, conn := range conns {
		var err error
		statements[i], err = conn.PrepareContext(ctx, fmt.Sprintf("select pg_backend_pid(), %d, $1::int", i%2))
		must(err)
	}
	for round := 0; round < 20; round++ {
		for i := range conns {
			for held := 0; held < 2; held++ {
				holder := conns[(i+1)%len(conns)]
				if held == 1 {
					exec(holder, "begin")
				}
				var pid, tag, got int
				must(statements[i].QueryRow(round).Scan(&pid, &tag, &got))
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

func failures(conn *sql.Conn) {
	for _, what := range []string{"selec 1", "select 1/0", "insert into things values (1, 'again')",
		"select * from no_such_table", "select 'x'::int"} {
		got, err := query(conn, what)
		attempt("simple", got, err)
		got, err = query(conn, what+" -- $1", []interface{}{}...)
		attempt("extended", got, err)
		say("usable", value(conn, "select 1"))
	}
	divide, err := conn.PrepareContext(ctx, "select 10 / $1::int")
	must(err)
	for _, divisor := range []int{5, 0, 2} {
		got, err := read(divide.Query(divisor))
		attempt("prepared", got, err)
		got, err = query(conn, "select 10 / $1::int", divisor)
		attempt("unnamed", got, err)
	}
	must(divide.Close())
}

func transactions(conn *sql.Conn, other *sql.Conn) {
	count := "select count(*) from things where id = $1"
	step = "failed_transaction"
	tx, err := conn.BeginTx(ctx, nil)
	must(err)
	exec(tx, "insert into things values ($1, 'ten')", 10)
	got, err := query(tx, "select 1 / $1::int", 0)
	attempt("fails", got, err)
	got, err = query(tx, "select $1::int", 1)
	attempt("ignored", got, err)
	_, err = tx.Prepare("select 'late'")
	attempt("ignored", "", err)
	attempt("commit", "", tx.Commit())
	say("after", value(conn, count, 10))
	step = "visible"
	tx, err = conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	must(err)
	insert, err := tx.Prepare("insert into things values ($1, 'x')")
	must(err)
	_, err = insert.Exec(11)
	must(err)
	say("before", value(other, count, 11))
	must(tx.Commit())
	say("after", value(other, count, 11))
	step = "savepoint"
	tx, err = conn.BeginTx(ctx, nil)
	must(err)
	exec(tx, "savepoint one")
	_, err = tx.Exec("insert into things values ($1, 'again')", 1)
	attempt("fails", "", err)
	exec(tx, "rollback to one")
	exec(tx, "insert into things values ($1, 'fourteen')", 14)
	must(tx.Commit())
	say("after", value(other, "select id from things where id > 11"))
}

func copying(conn *sql.Conn) {
	exec(conn, "create table copied (id int, name text)")
	for _, bad := range []bool{false, true} {
		tx, err := conn.BeginTx(ctx, nil)
		must(err)
		in, err := tx.Prepare(pq.CopyIn("copied", "id", "name"))
		must(err)
		for i := 0; i < 10000; i++ {
			var id interface{} = i
			if bad && i == 5 {
				id = "no number"
			}
			if _, err = in.Exec(id, fmt.Sprintf("name %d", i)); err != nil {
				break
			}
		}
		if err == nil {
			_, err = in.Exec()
		}
		if bad {
			say("bad", err != nil)
			in.Close()
			must(tx.Rollback())
		} else {
			must(err)
			must(in.Close())
			must(tx.Commit())
		}
	}
	say(value(conn, "select count(*), sum(id) from copied"))
}

func large(conn *sql.Conn) {
	big := strings.Repeat("x", 1000000)
	echo, err := conn.PrepareContext(ctx, "select $1::text")
	must(err)
	for i := 0; i < 3; i++ {
		var got string
		must(echo.QueryRow(big).Scan(&got))
		say("value", got == big)
	}
	must(echo.Close())
	found, err := conn.QueryContext(ctx, "select i, repeat('y', 100) from generate_series(1, $1) i", 10000)
	must(err)
	sum, count := 0, 0
	for found.Next() {
		var i int
		var y string
		must(found.Scan(&i, &y))
		sum += i
		count++
	}
	say("rows", count, sum)
}

func timeout(conn *sql.Conn, other *sql.Conn) {
	tx, err := conn.BeginTx(ctx, nil)
	must(err)
	exec(tx, "set local statement_timeout = 50")
	got, err := query(tx, "select pg_sleep($1)", 30)
	attempt("sleep", got, err)
	must(tx.Rollback())
	say("usable", value(conn, "select 1"))
	step = "cancel"
	short, stop := context.WithCancel(ctx)
	ended := make(chan error)
	go func() {
		_, err := read(conn.QueryContext(short, "select pg_sleep($1)", 30))
		ended <- err
	}()
	for value(other, "select count(*) from pg_stat_activity where datname = current_database() and wait_event = $1",
		"PgSleep") != "[1]" {
	}
	stop()
	attempt("sleep", "", <-ended)
}

func schema(conn *sql.Conn, other *sql.Conn) {
	exec(conn, "create table changing (id int)")
	exec(conn, "insert into changing values (1)")
	everything, err := conn.PrepareContext(ctx, "select * from changing where id = $1")
	must(err)
	got, err := read(everything.Query(1))
	attempt("before", got, err)
	exec(other, "alter table changing add column name text default 'new'")
	for i := 0; i < 2; i++ {
		got, err = read(everything.Query(1))
		attempt("after", got, err)
	}
}

func discard(conn *sql.Conn, other *sql.Conn) {
	for _, command := range []string{"deallocate all", "discard all"} {
		mine, err := conn.PrepareContext(ctx, "select $1::text || ' kept'")
		must(err)
		theirs, err := other.PrepareContext(ctx, "select $1::text || ' kept'")
		must(err)
		exec(conn, command)
		got, err := read(mine.Query("a"))
		attempt("after", got, err)
		got, err = read(theirs.Query("b"))
		attempt("other", got, err)
		say("new", value(conn, "select $1::text || ' kept'", "c"))
		mine.Close()
		must(theirs.Close())
	}
}

func listen(db *sql.DB) {
	listener := pq.NewListener("sslmode="+os.Getenv("PGSSLMODE"), time.Second, time.Minute, nil)
	must(listener.Listen("news"))
	exec(db, "select pg_notify('news', $1)", "it is here")
	heard := <-listener.Notify
	say(heard.Channel, heard.Extra)
	listener.Close()
}

func reconnect(db *sql.DB) {
	conn, err := db.Conn(ctx)
	must(err)
	got, err := query(conn, "select pg_terminate_backend(pg_backend_pid())")
	attempt("killed", got, err)
	conn.Close()
	say(value(db, "select $1::text || ' kept'", "d"))
}

func console() {
	step = "console"
	for _, how := range []string{"simple", "prepared"} {
		db := open("")
		conn, err := db.Conn(ctx)
		must(err)
		for _, command := range strings.Split(os.Getenv("DRIVE_COMMANDS"), "\n") {
			line, count := "", 0
			var found *sql.Rows
			if how == "simple" {
				found, err = conn.QueryContext(ctx, command)
			} else {
				var statement *sql.Stmt
				if statement, err = conn.PrepareContext(ctx, command); err == nil {
					found, err = statement.QueryContext(ctx)
				}
			}
			for err == nil && found.Next() {
				columns, _ := found.Columns()
				values := make([]sql.NullString, len(columns))
				places := make([]interface{}, len(columns))
				for i := range values {
					places[i] = &values[i]
				}
				err = found.Scan(places...)
				for i := 0; i < len(values) && i < 5 && count == 0; i++ {
					if values[i].Valid {
						line += " " + values[i].String
					} else {
						line += " -"
					}
				}
				count++
			}
			if err == nil {
				err = found.Err()
			}
			var of *pq.Error
			if errors.As(err, &of) {
				say(command, "error", of.Code)
			} else if must(err); count == 0 {
				say(command, "done")
			} else {
				say(command, fmt.Sprint(count)+line)
			}
			if found != nil {
				found.Close()
			}
		}
		conn.Close()
		db.Close()
	}
	fmt.Println("end")
}

func main() {
	if os.Getenv("DRIVE_WAY") == "console" {
		console()
		return
	}
	db := open("")
	binary := open("binary_parameters=yes")
	conns := make([]*sql.Conn, 3)
	for i := range conns {
		var err error
		conns[i], err = db.Conn(ctx)
		must(err)
	}
	way := os.Getenv("DRIVE_WAY")
	step = "simple"
	simple(conns[0])
	step = "types"
	types(conns[0], binary)
	step = "repeat"
	repeat(conns[0], binary)
	step = "explicit"
	explicit(db, conns[0])
	step = "interleave"
	interleave(conns)
	step = "errors"
	failures(conns[0])
	transactions(conns[0], conns[1])
	step = "copy"
	copying(conns[0])
	step = "large"
	large(conns[0])
	step = "schema"
	schema(conns[0], conns[1])
	step = "discard"
	discard(conns[0], conns[1])
	if way == "straight" || way == "session" {
		step = "listen"
		listen(db)
	}
	step = "timeout"
	timeout(conns[2], conns[1])
	step = "reconnect"
	reconnect(db)
	fmt.Printf("# servers %d\nend\n", len(servers))
}
