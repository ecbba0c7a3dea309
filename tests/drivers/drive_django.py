"""Django with psycopg2: an application's models, transactions, and connections that stay open
(CONN_MAX_AGE). DISABLE_SERVER_SIDE_CURSORS is set, as Django's manual asks for with transaction mode."""

import os
import threading

import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
        "PASSWORD": os.environ["PGPASSWORD"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
        "CONN_MAX_AGE": 60, "DISABLE_SERVER_SIDE_CURSORS": True}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    USE_TZ=True, TIME_ZONE="Europe/Berlin", SECRET_KEY="for tests", DEFAULT_AUTO_FIELD="django.db.models.AutoField")
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import DatabaseError, IntegrityError, connection, models, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from steps import finish, say, servers  # noqa: E402


def value(sql, *args):
    with connection.cursor() as cursor:
        cursor.execute(sql, args)
        return cursor.fetchone()[0]


def main():
    call_command("migrate", verbosity=0)
    say("migrate", len(connection.introspection.table_names()))
    # TimeZone is a parameter that the pooler follows: Django sets it at each connection
    say("simple", value("show timezone"), value("select %s", "it's \"quoted\" \\ ä€🐘"))
    moment = timezone.make_aware(timezone.datetime(2024, 2, 29, 12, 34, 56, 789000))
    for number in range(20):
        user = User.objects.create_user(f"user {number}", first_name="ä€🐘", date_joined=moment)
        user.groups.add(Group.objects.get_or_create(name=f"group {number % 3}")[0])
    say("types", *User.objects.order_by("id").values_list("id", "username", "first_name", "date_joined", "is_staff")[0])
    say("query", User.objects.filter(groups__name="group 1").count(),
        [group.name for group in Group.objects.annotate(n=models.Count("user")).order_by("-n", "name")],
        len(User.objects.prefetch_related("groups").all()))
    say("update", User.objects.filter(id__lte=5).update(is_staff=True), User.objects.filter(is_staff=True).count())

    try:
        User.objects.create_user("user 1")
    except IntegrityError as error:
        say("errors", error.__cause__.pgcode)
    try:
        value("select 1 / %s", 0)
    except DatabaseError as error:
        say("errors", error.__cause__.pgcode)
    say("errors", "usable", User.objects.count())

    try:
        with transaction.atomic():
            User.objects.create_user("rolled back")
            raise ValueError
    except ValueError:
        say("failed_transaction", User.objects.filter(username="rolled back").exists())
    with transaction.atomic():
        User.objects.create_user("outer")
        try:
            with transaction.atomic():
                User.objects.create_user("outer")
        except IntegrityError:
            say("savepoint", "rolled back")
        say("savepoint", User.objects.select_for_update().get(username="outer").username)
        transaction.on_commit(lambda: say("savepoint", "committed"))

    Group.objects.bulk_create([Group(name=f"many {number}") for number in range(500)])
    say("batch", Group.objects.count(), sum(1 for _ in Group.objects.order_by("id").iterator(chunk_size=50)))
    store = SessionStore()
    store["key"] = "value"
    store.create()
    say("session", SessionStore(session_key=store.session_key)["key"])

    # threads are an application server's workers: each has a connection
    meet = threading.Barrier(4)
    found = []

    def work(number):
        try:
            for turn in range(10):
                meet.wait(20)
                with transaction.atomic():
                    servers.add(value("select pg_backend_pid()"))
                    found.append((number, turn, User.objects.get(username=f"user {turn}").username, value("show timezone")))
        finally:
            connection.close()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say("threads", len(found), sorted(found)[::7])

    try:
        value("select pg_terminate_backend(pg_backend_pid())")
    except DatabaseError as error:
        say("reconnect", error.__cause__.pgcode)
    connection.close_if_unusable_or_obsolete()
    say("reconnect", User.objects.count())
    finish()


main()
