//! tokio-postgres: every query with parameters is a named statement, requests are pipelined, portals, COPY.
//! A function that returns an Err ends the program; what a driver's user would see is printed.
use futures_util::{future, pin_mut, SinkExt, StreamExt, TryStreamExt};
use std::collections::HashSet;
use std::env;
use std::fmt::Display;
use tokio_postgres::{types::ToSql, types::Type, Client, Error, NoTls, Row, SimpleQueryMessage};

const TEXT: &str = "it's \"quoted\" \\ ä€🐘";

fn say(step: &str, about: impl Display) {
    println!("{} {}", step, about);
}

async fn connect() -> Result<Client, Error> {
    let word = |name: &str| env::var(name).expect(name);
    let (client, connection) = tokio_postgres::Config::new()
        .host(&word("PGHOST"))
        .port(word("PGPORT").parse().expect("a port"))
        .user(&word("PGUSER"))
        .password(word("PGPASSWORD"))
        .dbname(&word("PGDATABASE"))
        .connect(NoTls)
        .await?;
    tokio::spawn(async move {
        let _ = connection.await; // its error is also that of the query
    });
    Ok(client)
}

fn attempt<T: Display>(step: &str, about: &str, result: Result<T, Error>) {
    match result {
        Ok(value) => say(step, format!("{} {}", about, value)),
        Err(error) => match error.as_db_error() {
            Some(from) => say(step, format!("{} error {} {}", about, from.code().code(), from.message())),
            None => say(step, format!("{} error {}", about, error)),
        },
    }
}

async fn simple_rows(client: &Client, sql: &str) -> Result<String, Error> {
    Ok(client
        .simple_query(sql)
        .await?
        .iter()
        .map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let values: Vec<_> = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL").to_string()).collect();
                format!("({})", values.join(","))
            }
            SimpleQueryMessage::CommandComplete(count) => format!(" {}; ", count),
            _ => String::new(),
        })
        .collect())
}

async fn number(client: &Client, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<i32, Error> {
    client.query_one(sql, values).await?.try_get(0)
}

fn show_all(rows: &[Row]) -> String {
    rows.iter()
        .map(|row| {
            let values: Vec<_> = (0..row.len())
                .map(|i| match *row.columns()[i].type_() {
                    Type::INT4 => format!("{:?}", row.try_get::<_, Option<i32>>(i)),
                    _ => format!("{:?}", row.try_get::<_, Option<&str>>(i)),
                })
                .collect();
            format!("({})", values.join(","))
        })
        .collect()
}

async fn types(client: &Client) -> Result<(), Error> {
    for _ in 0..2 {
        let row = client
            .query_one(
                "select $1::int, $2::bigint, $3::float8, $4::text, $5::bytea, $6::bool, $7::text, $8::int[]",
                &[&-42i32, &9007199254740993i64, &1.5f64, &TEXT, &&b"\0\xff\x10"[..], &true, &None::<&str>,
                    &vec![Some(1), None, Some(3)]],
            )
            .await?;
        let values: (i32, i64, f64, &str, &[u8], bool, Option<&str>, Vec<Option<i32>>) = (
            row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5), row.get(6), row.get(7));
        say("types", format!("{:?}", values));
    }
    // a type that the driver must ask the catalogue for, with statements of its own
    client.batch_execute("create type mood as enum ('sad', 'glad')").await?;
    let statement = client.prepare("select 'glad'::mood").await?;
    say("types", statement.columns()[0].type_().name());
    Ok(())
}

async fn explicit(client: &Client) -> Result<(), Error> {
    for i in 0..20 {
        say("repeat", number(client, "select $1::int * 2", &[&i]).await?);
    }
    let adding = client.prepare_typed("select $1 + 1000", &[Type::INT4]).await?;
    for i in 0..5 {
        let row = client.query_one(&adding, &[&i]).await?;
        say("explicit", row.get::<_, i32>(0));
    }
    drop(adding); // Close, some time
    attempt("explicit", "broken", client.prepare("selec 1").await.map(|_| "prepared"));
    say("explicit", number(client, "select 1", &[]).await?);
    Ok(())
}

async fn interleave(clients: &[Client], servers: &mut HashSet<i32>) -> Result<(), Error> {
    let mut statements = Vec::new();
    for (i, client) in clients.iter().enumerate() {
        statements.push(client.prepare(&format!("select pg_backend_pid(), {}, $1::int", i % 2)).await?);
    }
    for round in 0..20i32 {
        for (i, client) in clients.iter().enumerate() {
            for held in [false, true] {
                let holder = &clients[(i + 1) % clients.len()];
                if held {
                    holder.batch_execute("begin").await?;
                }
                let row = client.query_one(&statements[i], &[&round]).await?;
                servers.insert(row.get(0));
                if round % 5 == 0 {
                    say("interleave", format!("{} {} {}", i, row.get::<_, i32>(1), row.get::<_, i32>(2)));
                }
                if held {
                    holder.batch_execute("commit").await?;
                }
            }
        }
    }
    Ok(())
}

async fn errors(client: &Client) -> Result<(), Error> {
    for sql in ["selec 1", "select 1/0", "insert into things values (1, 'again')", "select * from no_such_table",
        "select 'x'::int"] {
        attempt("errors", "simple", simple_rows(client, sql).await);
        attempt("errors", "extended", client.query(sql, &[]).await.map(|rows| rows.len()));
        say("errors", number(client, "select 1", &[]).await?);
    }
    let divide = client.prepare("select 10 / $1::int").await?;
    for divisor in [5, 0, 2] {
        attempt("errors", "divide", client.query_one(&divide, &[&divisor]).await.map(|row| row.get::<_, i32>(0)));
    }
    Ok(())
}

async fn transactions(client: &mut Client, other: &Client) -> Result<(), Error> {
    let count = "select count(*)::int from things where id = $1";
    let inside = client.transaction().await?;
    inside.execute("insert into things values ($1, $2)", &[&10, &"ten"]).await?;
    attempt("failed_transaction", "fails", inside.query("select 1 / $1::int", &[&0]).await.map(|rows| rows.len()));
    attempt("failed_transaction", "ignored", inside.query("select $1::int", &[&0]).await.map(|rows| rows.len()));
    inside.rollback().await?;
    say("failed_transaction", number(client, count, &[&10]).await?);
    let inside = client.transaction().await?;
    inside.execute("insert into things values ($1, $2)", &[&11, &"eleven"]).await?;
    say("visible", number(other, count, &[&11]).await?);
    inside.commit().await?;
    say("visible", number(other, count, &[&11]).await?);
    let mut inside = client.transaction().await?;
    let deeper = inside.savepoint("one").await?;
    attempt("savepoint", "fails", deeper.execute("insert into things values ($1, $2)", &[&1, &"again"]).await);
    deeper.rollback().await?;
    inside.execute("insert into things values ($1, $2)", &[&14, &"fourteen"]).await?;
    inside.commit().await?;
    drop(client.transaction().await?); // rolled back without waiting
    say("savepoint", number(other, count, &[&14]).await?);
    Ok(())
}

async fn pipelined(client: &Client) -> Result<(), Error> {
    let divide = client.prepare("select 100 / $1::int").await?;
    let divisors = [5, 0, 4, 0, 1];
    let all = future::join_all(divisors.iter().map(|divisor| async { number_of(client, &divide, *divisor).await })).await;
    for result in all {
        attempt("pipeline", "result", result);
    }
    let texts: Vec<String> = (0..30).map(|i| format!("select {} + $1::int", i % 7)).collect();
    let all = future::try_join_all(texts.iter().map(|text| async move { number(client, text, &[&1]).await })).await?;
    say("pipeline", format!("{:?}", all));
    Ok(())
}

async fn number_of(client: &Client, statement: &tokio_postgres::Statement, value: i32) -> Result<i32, Error> {
    client.query_one(statement, &[&value]).await.map(|row| row.get(0))
}

async fn cursor(client: &mut Client) -> Result<(), Error> {
    let inside = client.transaction().await?;
    let portal = inside.bind("select generate_series(1, $1::int)", &[&10]).await?;
    loop {
        let rows = inside.query_portal(&portal, 3).await?;
        say("cursor", show_all(&rows));
        if rows.len() < 3 {
            break;
        }
    }
    inside.commit().await?;
    let rows = client.query_raw("select generate_series(1, $1::int)", [1000i32]).await?;
    let sum = rows.try_fold(0, |sum, row| async move { Ok(sum + row.get::<_, i32>(0)) }).await?;
    say("cursor", sum);
    Ok(())
}

async fn copy(client: &Client) -> Result<(), Error> {
    client.batch_execute("create table copied (id int, name text)").await?;
    let sink = client.copy_in::<_, bytes::Bytes>("copy copied from stdin").await?;
    pin_mut!(sink);
    for i in 0..10000 {
        sink.send(bytes::Bytes::from(format!("{}\tname {}\n", i, i))).await?;
    }
    say("copy", sink.finish().await?);
    let out = client.copy_out("copy copied to stdout").await?;
    pin_mut!(out);
    let mut total = 0;
    while let Some(part) = out.next().await {
        total += part?.len();
    }
    say("copy", total);
    let sink = client.copy_in::<_, bytes::Bytes>("copy copied from stdin").await?;
    pin_mut!(sink);
    sink.send(bytes::Bytes::from("no number\tx\n")).await?;
    attempt("copy", "bad", sink.finish().await);
    say("copy", number(client, "select count(*)::int from copied", &[]).await?);
    Ok(())
}

async fn large(client: &Client) -> Result<(), Error> {
    let big = "x".repeat(1_000_000);
    let echo = client.prepare("select $1::text").await?;
    for _ in 0..3 {
        say("large", client.query_one(&echo, &[&big]).await?.get::<_, &str>(0) == big);
    }
    let rows = client.query("select i, repeat('y', 100) from generate_series(1, $1::int) i", &[&10000]).await?;
    say("large", rows.iter().map(|row| row.get::<_, i32>(0)).sum::<i32>());
    Ok(())
}

async fn timeout(client: &mut Client, other: &Client) -> Result<(), Error> {
    let inside = client.transaction().await?;
    inside.batch_execute("set local statement_timeout = 50").await?;
    attempt("timeout", "sleep", inside.query("select pg_sleep(30)", &[]).await.map(|rows| rows.len()));
    inside.rollback().await?;
    let token = client.cancel_token();
    let sleep = client.query("select pg_sleep(30)", &[]);
    let asleep = other
        .prepare("select 1 / $1::int * count(*)::int from pg_stat_activity \
                  where datname = current_database() and wait_event = 'PgSleep'")
        .await?;
    let watch = async {
        while number_of(other, &asleep, 1).await? != 1 {}
        token.cancel_query(NoTls).await
    };
    let (slept, cancelled) = future::join(sleep, watch).await;
    cancelled?;
    attempt("cancel", "sleep", slept.map(|rows| rows.len()));
    say("cancel", number(client, "select 1", &[]).await?);
    Ok(())
}

/// The driver remembers the columns of its statements.
async fn schema(client: &Client, other: &Client) -> Result<(), Error> {
    client.batch_execute("create table changing (id int); insert into changing values (1)").await?;
    let all = client.prepare("select * from changing where id = $1").await?;
    attempt("schema", "before", client.query(&all, &[&1]).await.map(|rows| show_all(&rows)));
    other.batch_execute("alter table changing add column name text default 'new'").await?;
    for _ in 0..2 {
        attempt("schema", "after", client.query(&all, &[&1]).await.map(|rows| show_all(&rows)));
    }
    let anew = client.prepare("select * from changing where id = $1").await?;
    attempt("schema", "anew", client.query(&anew, &[&1]).await.map(|rows| show_all(&rows)));
    Ok(())
}

async fn discard(client: &Client, other: &Client) -> Result<(), Error> {
    for command in ["deallocate all", "discard all"] {
        let mine = client.prepare("select $1::int + 5").await?;
        let theirs = other.prepare("select $1::int + 5").await?;
        client.batch_execute(command).await?;
        attempt("discard", "after", number_of(client, &mine, 1).await);
        attempt("discard", "other", number_of(other, &theirs, 1).await);
        say("discard", number(client, "select $1::int + 5", &[&2]).await?);
    }
    Ok(())
}

async fn steps() -> Result<(), Error> {
    let mut servers = HashSet::new();
    let mut clients = vec![connect().await?, connect().await?, connect().await?];
    interleave(&clients, &mut servers).await?;
    let _third = clients.pop();
    let other = clients.pop().expect("two left");
    let mut client = clients.pop().expect("one left");
    say("simple", simple_rows(&client, "select 1 as one, 'two' as two, null as nothing; select 2").await?);
    client.batch_execute("create table things (id int primary key, name text)").await?;
    say("simple", client.execute("insert into things values ($1, 'one'), (2, 'two')", &[&1]).await?);
    types(&client).await?;
    explicit(&client).await?;
    errors(&client).await?;
    transactions(&mut client, &other).await?;
    pipelined(&client).await?;
    cursor(&mut client).await?;
    copy(&client).await?;
    large(&client).await?;
    timeout(&mut client, &other).await?;
    schema(&client, &other).await?;
    discard(&client, &other).await?;
    attempt("reconnect", "killed",
        client.query("select pg_terminate_backend(pg_backend_pid())", &[]).await.map(|rows| rows.len()));
    let again = connect().await?;
    say("reconnect", number(&again, "select $1::int + 5", &[&3]).await?);
    println!("# servers {}\nend", servers.len());
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    steps().await
}
