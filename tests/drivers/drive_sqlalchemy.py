"""SQLAlchemy with psycopg2, with pool_pre_ping and pool_recycle: an ORM's session, its pool, savepoints."""

import threading

import sqlalchemy as sa
from sqlalchemy import orm

from steps import finish, rows, say, servers

Base = orm.declarative_base()


class Author(Base):
    __tablename__ = "author"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.Text, nullable=False, unique=True)
    books = orm.relationship("Book", back_populates="author", order_by="Book.id", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "book"
    id = sa.Column(sa.Integer, primary_key=True)
    title = sa.Column(sa.Text)
    price = sa.Column(sa.Numeric(10, 2))
    cover = sa.Column(sa.LargeBinary)
    tags = sa.Column(sa.ARRAY(sa.Text))
    about = sa.Column(sa.JSON)
    author_id = sa.Column(sa.ForeignKey("author.id"))
    author = orm.relationship("Author", back_populates="books")


def engine(**more):
    return sa.create_engine("postgresql+psycopg2://", pool_pre_ping=True, future=True, **more)


def main():
    first = engine(pool_size=4, pool_recycle=1800)
    recycled = engine(pool_size=2, pool_recycle=0)  # each checkout is a new connection
    Base.metadata.create_all(first)
    say("create", *sorted(sa.inspect(first).get_table_names()))

    with orm.Session(first) as session:
        for number in range(20):
            author = Author(name=f"author {number} ä€🐘")
            author.books = [Book(title=f"it's \"book\" {i}", price="12.50", cover=b"\0\xff", tags=["a", "b"],
                                 about={"pages": i}) for i in range(5)]
            session.add(author)
        session.commit()
        say("count", session.scalar(sa.select(sa.func.count()).select_from(Book)))
        for author in session.scalars(sa.select(Author).order_by(Author.id).limit(3)):
            book = author.books[1]
            say("load", author.id, author.name, len(author.books), book.title, book.price, bytes(book.cover).hex(),
                book.tags, book.about)
        author.name = "changed"
        session.commit()
        say("change", session.scalar(sa.select(Author.name).where(Author.id == author.id)))
        session.delete(author)
        session.commit()
        say("delete", session.scalar(sa.select(sa.func.count()).select_from(Book)))
        session.add(Author(name="author 0 ä€🐘"))
        try:
            session.commit()
        except sa.exc.IntegrityError as error:
            say("errors", type(error).__name__, error.orig.pgcode)
            session.rollback()
        say("errors", "usable", session.scalar(sa.select(sa.literal(1))))
        with session.begin_nested():
            session.add(Author(name="nested"))
        try:
            with session.begin_nested():
                session.add(Author(name="nested"))
        except sa.exc.IntegrityError:
            say("savepoint", "rolled back")
        session.commit()
        say("savepoint", session.scalar(sa.select(sa.func.count()).select_from(Author)))

    with first.connect() as a, first.connect() as b, recycled.connect() as c:
        for number in range(20):
            for index, conn in enumerate((a, b, c)):
                found = conn.execute(sa.text("select pg_backend_pid(), cast(:n as int)"), {"n": number}).one()
                servers.add(found[0])
                if number % 5 == 0:
                    say("interleave", index, found[1])
                if number % 2 == index % 2:
                    conn.rollback()
            a.rollback(), b.rollback(), c.rollback()

    with first.connect().execution_options(stream_results=True, yield_per=7) as conn:
        say("cursor", sum(row[0] for row in conn.execute(sa.text("select generate_series(1, 1000)"))))
    with first.connect().execution_options(isolation_level="SERIALIZABLE") as conn:
        say("isolation", conn.scalar(sa.text("show transaction_isolation")))
    with first.begin() as conn:
        conn.execute(sa.insert(Author), [{"name": f"many {i}"} for i in range(500)])
        say("batch", conn.scalar(sa.select(sa.func.count()).select_from(Author)))

    totals = []

    def work(number):
        for _ in range(10):
            with orm.Session(recycled if number % 2 else first) as session:
                totals.append(session.scalar(sa.select(sa.func.sum(Book.id)).where(Book.id <= 50)))
    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say("threads", len(totals), sorted(set(totals)))

    # the server goes away while the connection is in the pool: the ping finds it
    try:
        with first.connect() as conn:
            conn.execute(sa.text("select pg_terminate_backend(pg_backend_pid())"))
    except sa.exc.OperationalError as error:
        say("reconnect", error.connection_invalidated)
    with first.connect() as conn:
        rows("reconnect", "usable", conn.execute(sa.select(sa.literal("usable"))).all())
    first.dispose()
    recycled.dispose()
    finish()


main()
