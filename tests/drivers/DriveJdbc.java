/* JDBC: prepareThreshold (5, 1 and 0), batches, fetch size in a transaction, COPY, savepoints,
 * autosave, several preferQueryModes. The steps are those of README.md. */
import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;

public class DriveJdbc {
    static final String TEXT = "it's \"quoted\" \\ ä€🐘";
    static final Set<Integer> servers = new TreeSet<>();
    static String step;

    static void say(Object... values) {
        StringBuilder line = new StringBuilder(step);
        for (Object value : values) line.append(' ').append(value);
        System.out.println(line);
        System.out.flush();
    }

    static Connection connect(String... more) throws SQLException {
        Properties settings = new Properties();
        settings.setProperty("user", System.getenv("PGUSER"));
        settings.setProperty("password", System.getenv("PGPASSWORD"));
        settings.setProperty("sslmode", System.getenv("PGSSLMODE"));
        for (int i = 0; i < more.length; i += 2) settings.setProperty(more[i], more[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":"
            + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE"), settings);
    }

    static String rows(ResultSet set) throws SQLException {
        StringBuilder text = new StringBuilder();
        int columns = set.getMetaData().getColumnCount();
        while (set.next()) {
            text.append('(');
            for (int i = 1; i <= columns; i++) {
                Object value = set.getObject(i);
                if (value instanceof byte[]) value = "bytes:" + HexFormat.of().formatHex((byte[]) value);
                text.append(i > 1 ? "," : "").append(value);
            }
            text.append(')');
        }
        set.close();
        return text.toString();
    }

    static String query(Connection conn, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
            return rows(statement.executeQuery());
        }
    }

    static int update(Connection conn, String sql) throws SQLException {
        try (Statement statement = conn.createStatement()) {
            return statement.executeUpdate(sql);
        }
    }

    interface Work { Object run() throws Exception; }

    static void attempt(String about, Work work) {
        try {
            say(about, work.run());
        } catch (SQLException error) {
            say(about, "error", error.getSQLState(), error.getMessage().lines().findFirst().orElse(""));
        } catch (Exception error) {
            say(about, error);
        }
    }

    static void simple(Connection conn) throws SQLException {
        say("values", query(conn, "select 1 as one, 'two' as two, null as nothing"));
        say("create", update(conn, "create table things (id int primary key, name text)"));
        say("insert", update(conn, "insert into things values (1, 'one'), (2, 'two')"));
        try (Statement statement = conn.createStatement()) {
            boolean more = statement.execute("select 1; update things set name = upper(name); select 2");
            while (more || statement.getUpdateCount() != -1) {
                say("several", more ? rows(statement.getResultSet()) : statement.getUpdateCount());
                more = statement.getMoreResults();
            }
        }
    }

    static void types(Connection conn) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement(
                "select ?::int, ?::bigint, ?::numeric, ?::text, ?::bytea, ?::bool, ?::text, ?::timestamp, ?::int[]")) {
            for (int round = 0; round < 8; round++) {
                statement.setInt(1, -42);
                statement.setLong(2, 9007199254740993L);
                statement.setBigDecimal(3, new BigDecimal("12345.678900"));
                statement.setString(4, TEXT);
                statement.setBytes(5, new byte[] {0, (byte) 255, 16});
                statement.setBoolean(6, true);
                statement.setNull(7, Types.VARCHAR);
                statement.setTimestamp(8, Timestamp.valueOf("2024-02-29 12:34:56.789"));
                statement.setArray(9, conn.createArrayOf("int4", new Integer[] {1, null, 3}));
                say(round, rows(statement.executeQuery()));
            }
        }
    }

    /* From the fifth time on the statement has a name, and results are binary. */
    static void repeat(Connection conn) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement("select ?::int * 2")) {
            for (int i = 0; i < 20; i++) {
                statement.setInt(1, i);
                say(rows(statement.executeQuery()));
            }
        }
        /* A type that changes makes the driver prepare anew and close the old name. */
        try (PreparedStatement statement = conn.prepareStatement("select ? || ''")) {
            for (int i = 0; i < 16; i++) {
                if (i % 4 == 0) statement.setInt(1, i); else statement.setString(1, "s" + i);
                int round = i;
                attempt("retyped " + round, () -> rows(statement.executeQuery()));
            }
        }
        for (String threshold : new String[] {"1", "0"}) {
            try (Connection other = connect("prepareThreshold", threshold)) {
                for (int i = 0; i < 5; i++) say("threshold", threshold, query(other, "select ?::text || '!'", "v" + i));
            }
        }
        /* A small cache: statements are closed by the driver. */
        try (Connection other = connect("prepareThreshold", "1", "preparedStatementCacheQueries", "2")) {
            for (int i = 0; i < 16; i++) say("few", query(other, "select " + i % 4 + " + ?::int", i));
        }
        for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
            try (Connection other = connect("preferQueryMode", mode)) {
                for (int i = 0; i < 8; i++) say(mode, query(other, "select ?::int + 1", i));
                say(mode, update(other, "update things set name = name"));
            }
        }
    }

    static void interleave(List<Connection> conns) throws SQLException {
        for (int round = 0; round < 20; round++)
            for (int i = 0; i < conns.size(); i++)
                for (int held = 0; held < 2; held++) {
                    Connection holder = conns.get((i + 1) % conns.size());
                    if (held == 1) {
                        holder.setAutoCommit(false);
                        query(holder, "select 1");
                    }
                    try (PreparedStatement statement =
                             conns.get(i).prepareStatement("select pg_backend_pid(), ?::text, ?::int")) {
                        statement.setString(1, "c" + i);
                        statement.setInt(2, round);
                        ResultSet set = statement.executeQuery();
                        set.next();
                        servers.add(set.getInt(1));
                        if (round % 5 == 0) say(i, set.getString(2), set.getInt(3));
                    }
                    if (held == 1) {
                        holder.commit();
                        holder.setAutoCommit(true);
                    }
                }
    }

    static void errors(Connection conn) throws SQLException {
        for (String sql : new String[] {"selec 1", "select 1/0", "insert into things values (1, 'again') returning id",
                                        "select * from no_such_table", "select 'x'::int"}) {
            for (int round = 0; round < 7; round++) {
                attempt("query", () -> query(conn, sql));
            }
            say("usable", query(conn, "select 1"));
        }
        try (PreparedStatement statement = conn.prepareStatement("select 10 / ?::int")) {
            for (int divisor : new int[] {5, 5, 5, 5, 5, 5, 0, 2, 0, 5}) {
                statement.setInt(1, divisor);
                attempt("prepared", () -> rows(statement.executeQuery()));
            }
        }
    }

    static void transactions(Connection conn, Connection other) throws SQLException {
        step = "failed_transaction";
        conn.setAutoCommit(false);
        for (int round = 0; round < 7; round++) {
            attempt("insert", () -> update(conn, "insert into things values (10, 'ten')"));
            attempt("fails", () -> query(conn, "select 1 / ?::int", 0));
            attempt("ignored", () -> query(conn, "select 'ignored'"));
            conn.rollback();
        }
        say("after", query(conn, "select count(*) from things"));
        conn.commit();
        step = "visible";
        String count = "select count(*) from things where id = ?";
        update(conn, "insert into things values (11, 'eleven')");
        say("before", query(other, count, 11));
        conn.commit();
        say("after", query(other, count, 11));
        step = "savepoint";
        update(conn, "insert into things values (12, 'twelve')");
        Savepoint one = conn.setSavepoint("one");
        attempt("fails", () -> update(conn, "insert into things values (1, 'again')"));
        conn.rollback(one);
        conn.releaseSavepoint(one);
        update(conn, "insert into things values (14, 'fourteen')");
        conn.commit();
        conn.setAutoCommit(true);
        say("after", query(other, "select id from things where id > 11 order by 1"));
        conn.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        /* autosave puts a savepoint before each statement. */
        try (Connection saving = connect("autosave", "always", "prepareThreshold", "1")) {
            saving.setAutoCommit(false);
            for (int i = 0; i < 4; i++) {
                attempt("autosave", () -> query(saving, "select 1 / ?::int", 0));
                say("autosave", query(saving, "select ?::int", i));
            }
            saving.commit();
        }
    }

    static void batch(Connection conn) throws SQLException {
        update(conn, "create table batch (id int primary key, name text)");
        for (int round = 0; round < 3; round++) {
            try (PreparedStatement statement = conn.prepareStatement("insert into batch values (?, ?)")) {
                for (int i = 0; i < 300; i++) {
                    statement.setInt(1, round * 1000 + i);
                    statement.setString(2, "name " + i);
                    statement.addBatch();
                }
                say("done", Arrays.stream(statement.executeBatch()).sum());
            }
        }
        for (boolean auto : new boolean[] {true, false}) {
            conn.setAutoCommit(auto);
            try (PreparedStatement statement = conn.prepareStatement("insert into batch values (?, ?)")) {
                for (int id : new int[] {5000, 5001, 1, 5002}) {
                    statement.setInt(1, id);
                    statement.setString(2, "x");
                    statement.addBatch();
                }
                try {
                    statement.executeBatch();
                } catch (BatchUpdateException error) {
                    say("fails", error.getSQLState(), Arrays.toString(error.getUpdateCounts()));
                }
            }
            if (!auto) conn.rollback();
        }
        conn.setAutoCommit(true);
        say("sum", query(conn, "select count(*), sum(id) from batch"));
        try (Statement statement = conn.createStatement()) {
            for (int i = 0; i < 5; i++) statement.addBatch("insert into batch values (" + (9000 + i) + ", 'plain')");
            say("plain", Arrays.toString(statement.executeBatch()));
        }
        try (PreparedStatement statement = conn.prepareStatement("insert into batch values (?, 'k')",
                                                                 Statement.RETURN_GENERATED_KEYS)) {
            for (int i = 0; i < 4; i++) {
                statement.setInt(1, 9100 + i);
                statement.addBatch();
            }
            statement.executeBatch();
            say("keys", rows(statement.getGeneratedKeys()));
        }
        try (Connection rewriting = connect("reWriteBatchedInserts", "true");
             PreparedStatement statement = rewriting.prepareStatement("insert into batch values (?, ?)")) {
            for (int i = 0; i < 300; i++) {
                statement.setInt(1, 20000 + i);
                statement.setString(2, "r");
                statement.addBatch();
            }
            statement.executeBatch();
        }
        say("sum", query(conn, "select count(*), sum(id) from batch"));
    }

    /* A fetch size in a transaction: named portals, Execute with a limit. */
    static void cursor(Connection conn) throws SQLException {
        conn.setAutoCommit(false);
        for (int round = 0; round < 7; round++) {
            try (PreparedStatement statement =
                     conn.prepareStatement("select i, 'row ' || i from generate_series(?, 1000) i")) {
                statement.setFetchSize(7);
                statement.setInt(1, 1);
                ResultSet set = statement.executeQuery();
                int count = 0;
                long sum = 0;
                while (set.next()) {
                    count++;
                    sum += set.getInt(1);
                    if (count % 100 == 0) query(conn, "select ?::int", count);  /* another statement between */
                }
                say(count, sum);
            }
        }
        conn.commit();
        conn.setAutoCommit(true);
    }

    static void copy(Connection conn) throws Exception {
        update(conn, "create table copied (id int, name text)");
        CopyManager manager = ((PGConnection) conn).getCopyAPI();
        StringBuilder rows = new StringBuilder();
        for (int i = 0; i < 10000; i++) rows.append(i).append("\tname ").append(i).append('\n');
        say("in", manager.copyIn("copy copied from stdin", new StringReader(rows.toString())));
        StringWriter writer = new StringWriter();
        say("out", manager.copyOut("copy copied to stdout", writer), writer.toString().length());
        attempt("bad", () -> manager.copyIn("copy copied from stdin", new StringReader("no number\tx\n")));
        say("count", query(conn, "select count(*) from copied"));
    }

    static void large(Connection conn) throws SQLException {
        String big = "x".repeat(1000000);
        for (int i = 0; i < 7; i++) say("value", query(conn, "select ?::text", big).equals("(" + big + ")"));
        try (PreparedStatement statement = conn.prepareStatement("select i, repeat('y', 100) from generate_series(1, ?) i")) {
            statement.setInt(1, 10000);
            ResultSet set = statement.executeQuery();
            long sum = 0;
            while (set.next()) sum += set.getInt(1);
            say("rows", sum);
        }
    }

    static void timeout(Connection conn, Connection other) throws Exception {
        conn.setAutoCommit(false);
        update(conn, "set local statement_timeout = 50");
        attempt("sleep", () -> query(conn, "select pg_sleep(30)"));
        conn.rollback();
        conn.setAutoCommit(true);
        say("usable", query(conn, "select 1"));
        step = "cancel";
        try (PreparedStatement statement = conn.prepareStatement("select pg_sleep(30)")) {
            Thread helper = new Thread(() -> {
                try {
                    while (!query(other, "select count(*) from pg_stat_activity where datname = current_database() "
                                         + "and wait_event = 'PgSleep'").equals("(1)")) { }
                    statement.cancel();
                } catch (SQLException error) {
                    say("helper", error);
                }
            });
            helper.start();
            attempt("sleep", () -> rows(statement.executeQuery()));
            helper.join();
        }
        say("usable", query(conn, "select 1"));
    }

    /* The driver remembers the columns of its statements: what comes must fit them. */
    static void schema(Connection conn, Connection other) throws SQLException {
        update(conn, "create table changing (id int)");
        update(conn, "insert into changing values (1)");
        String everything = "select * from changing where id = ?";
        for (int i = 0; i < 7; i++) say("before", query(conn, everything, 1));
        update(other, "alter table changing add column name text default 'new'");
        for (int i = 0; i < 3; i++) attempt("after", () -> query(conn, everything, 1));
        for (int i = 0; i < 7; i++) attempt("again", () -> query(conn, everything, 1));
        update(other, "alter table changing alter column name drop default, alter column name type int using 5");
        for (int i = 0; i < 3; i++) attempt("type", () -> query(conn, everything, 1));
        conn.setAutoCommit(false);
        for (int i = 0; i < 7; i++) say("inside", query(conn, everything, 1));
        conn.commit();
        update(other, "alter table changing drop column name");
        conn.setAutoCommit(false);
        attempt("inside", () -> query(conn, everything, 1));
        conn.rollback();
        conn.setAutoCommit(true);
        attempt("dropped", () -> query(conn, everything, 1));
    }

    /* The driver sees DISCARD ALL and DEALLOCATE ALL, and prepares anew. */
    static void discard(Connection conn, Connection other) throws SQLException {
        for (String command : new String[] {"deallocate all", "discard all"}) {
            for (int i = 0; i < 7; i++) query(conn, "select ?::text || ' kept'", "a");
            for (int i = 0; i < 7; i++) query(other, "select ?::text || ' kept'", "a");
            update(conn, command);
            for (int i = 0; i < 7; i++) attempt(command, () -> query(conn, "select ?::text || ' kept'", "b"));
            for (int i = 0; i < 7; i++) attempt("other", () -> query(other, "select ?::text || ' kept'", "c"));
        }
    }

    static void listen(Connection conn, Connection other) throws SQLException {
        update(conn, "listen news");
        query(other, "select pg_notify('news', ?)", "it is here");
        PGNotification[] heard = null;
        while (heard == null || heard.length == 0) heard = ((PGConnection) conn).getNotifications(1000);
        say(heard[0].getName(), heard[0].getParameter());
    }

    static void reconnect(Connection conn) throws SQLException {
        attempt("killed", () -> query(conn, "select pg_terminate_backend(pg_backend_pid())"));
        say("closed", conn.isClosed());
        try (Connection again = connect("prepareThreshold", "1")) {
            say("usable", query(again, "select ?::text || ' kept'", "d"));
        }
    }

    /* Each mode of queries; three times, so that prepareThreshold 2 prepares and asks for binary. */
    static void console() throws SQLException {
        String[][] modes = {{"prepareThreshold", "2"}, {"prepareThreshold", "-1"}, {"preferQueryMode", "simple"}};
        for (String[] mode : modes)
            try (Connection conn = connect(mode)) {
                for (String command : System.getenv("DRIVE_COMMANDS").split("\n"))
                    try (PreparedStatement statement = conn.prepareStatement(command)) {
                        StringBuilder line = new StringBuilder();
                        for (int turn = 0; turn < 3; turn++) {
                            line.setLength(0);
                            if (!statement.execute()) {
                                line.append("done");
                                continue;
                            }
                            ResultSet set = statement.getResultSet();
                            int count = 0, columns = Math.min(5, set.getMetaData().getColumnCount());
                            for (; set.next(); count++)
                                for (int i = 1; i <= columns && count == 0; i++)
                                    line.append(' ').append(set.getObject(i) == null ? "-" : set.getObject(i));
                            line.insert(0, count);
                        }
                        say(command, line);
                    } catch (SQLException error) {
                        say(command, "error", error.getSQLState());
                    }
                if (!conn.isValid(5)) throw new SQLException("not valid");
            }
        System.out.println("end");
    }

    public static void main(String[] arguments) throws Exception {
        if (System.getenv("DRIVE_WAY").equals("console")) {
            step = "console"; console();
            return;
        }
        List<Connection> conns = List.of(connect(), connect(), connect());
        Connection conn = conns.get(0), other = conns.get(1);
        String way = System.getenv("DRIVE_WAY");
        step = "simple"; simple(conn);
        step = "types"; types(conn);
        step = "repeat"; repeat(conn);
        step = "interleave"; interleave(conns);
        step = "errors"; errors(conn);
        transactions(conn, other);
        step = "batch"; batch(conn);
        step = "cursor"; cursor(conn);
        step = "copy"; copy(conn);
        step = "large"; large(conn);
        step = "timeout"; timeout(conn, other);
        step = "schema"; schema(conn, other);
        step = "discard"; discard(conn, other);
        if (way.equals("straight") || way.equals("session")) {
            step = "listen"; listen(conn, other);
        }
        step = "reconnect"; reconnect(conn);
        System.out.println("# servers " + servers.size() + "\nend");
    }
}
