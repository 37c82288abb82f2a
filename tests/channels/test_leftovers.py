"""What a consumer leaves behind is put right before the next message."""

import contextlib
import os
import sys

import pytest
from django.db import transaction
from django.db.utils import ConnectionHandler

from procman.channels import leftovers, route
from procman.channels.leftovers import Cleaner
from procman.channels.worker import Worker, WorkerGroup
from tests.support.waiting import wait_until


def consumer():
    """A name for the log."""


@pytest.fixture
def database_file(tmp_path, monkeypatch):
    """The default database in a file, with a table; connections are closed and opened as in production."""
    settings = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "db", "CONN_MAX_AGE": None}}
    handler = ConnectionHandler(settings)
    for module in ("django.db", "django.db.transaction", "procman.channels.leftovers"):
        monkeypatch.setattr(f"{module}.connections", handler)
    with handler["default"].cursor() as cursor:
        cursor.execute("CREATE TABLE notes (text)")
    yield handler["default"]
    handler.close_all()


def notes(connection):
    with connection.cursor() as cursor:
        return [text for (text,) in cursor.execute("SELECT text FROM notes").fetchall()]


def write(connection, text):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO notes VALUES (%s)", [text])


def test_a_recursion_limit_that_is_too_low_is_raised_again(caplog):
    limit = sys.getrecursionlimit()
    cleaner = Cleaner()
    sys.setrecursionlimit(limit - 100)
    cleaner.put_right(consumer)
    assert sys.getrecursionlimit() == limit
    assert "test_leftovers.consumer has left a recursion limit" in caplog.text


def test_a_higher_recursion_limit_stays(caplog):
    limit = sys.getrecursionlimit()
    cleaner = Cleaner()
    try:
        sys.setrecursionlimit(limit + 100)
        cleaner.put_right(consumer)
        assert sys.getrecursionlimit() == limit + 100
    finally:
        sys.setrecursionlimit(limit)
    assert not caplog.records


def test_a_transaction_that_was_left_open_is_rolled_back_and_the_connection_works(database_file, caplog):
    cleaner = Cleaner()
    block = transaction.atomic()
    block.__enter__()
    inner = transaction.atomic()
    inner.__enter__()
    write(database_file, "half")
    transaction.on_commit(lambda: write(database_file, "never"))
    cleaner.put_right(consumer)
    assert "left a transaction open on database 'default'" in caplog.text
    assert notes(database_file) == []
    with transaction.atomic():
        write(database_file, "whole")
    assert notes(database_file) == ["whole"]


def test_a_transaction_that_was_left_open_on_a_broken_connection_does_not_stay(database_file):
    cleaner = Cleaner()
    transaction.atomic().__enter__()
    database_file.connection.close()
    cleaner.put_right(consumer)
    write(database_file, "after")
    assert notes(database_file) == ["after"]


def test_a_transaction_in_which_the_consumer_was_called_stays(database_file, caplog):
    with transaction.atomic():
        write(database_file, "kept")
        Cleaner().put_right(consumer)
        assert database_file.in_atomic_block
    assert notes(database_file) == ["kept"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, 0), (SystemExit(), 0), (SystemExit(7), 7), (SystemExit("text"), 1), (ValueError("in the child"), 1)],
)
def test_a_forked_child_ends_where_it_comes_out_of_the_consumer(error, status):
    cleaner = Cleaner()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            cleaner.put_right(consumer, error)
        os._exit(99)  # not reached
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
    cleaner.put_right(consumer)  # in the parent this returns


def test_a_child_of_a_consumer_neither_answers_nor_takes_part_as_a_worker(layer, wrapper):
    def forks(message):
        if (pid := os.fork()) != 0:
            os.waitpid(pid, 0)
        message.reply_channel.send({"text": str(os.getpid())})

    wrapper.router.add_route(route("test", forks))
    layer.deliver("test", {"reply_channel": "i!1"})
    here = os.getpid()
    Worker(wrapper).step(["test"])
    assert os.getpid() == here, "the child came out"
    assert layer.sent() == [{"text": str(here)}]


def test_a_connection_that_broke_in_one_message_works_in_the_next(database_file, layer, wrapper, caplog, monkeypatch):
    monkeypatch.setattr(database_file, "is_usable", lambda: False)  # sqlite3's always says that it is

    def breaks(message):
        if not caplog.records:
            database_file.connection.close()
        write(database_file, "found")

    wrapper.router.add_route(route("test", breaks))
    worker = Worker(wrapper)
    for _ in range(2):
        layer.deliver("test", {})
        worker.step(["test"])
    assert notes(database_file) == ["found"]
    assert len(caplog.records) == 1
    assert "Cannot operate on a closed database" in caplog.text


@pytest.mark.parametrize(("age", "is_kept"), [(0, False), (None, True)])
def test_connections_live_for_as_long_as_conn_max_age_says(database_file, layer, wrapper, age, is_kept):
    database_file.close()
    database_file.settings_dict["CONN_MAX_AGE"] = age
    wrapper.router.add_route(route("test", lambda message: write(database_file, "x")))
    layer.deliver("test", {})
    Worker(wrapper).step(["test"])
    assert (database_file.connection is not None) is is_kept


def test_a_connection_that_died_while_nothing_came_is_found_by_its_health_check(
    database_file, layer, wrapper, caplog, monkeypatch
):
    database_file.settings_dict["CONN_HEALTH_CHECKS"] = True
    database_file.close()
    wrapper.router.add_route(route("test", lambda message: write(database_file, "x")))
    worker = Worker(wrapper)
    for _ in range(2):
        layer.deliver("test", {})
        worker.step(["test"])
        database_file.connection.close()  # as by a server that was restarted
        monkeypatch.setattr(database_file, "is_usable", lambda: False)
    database_file.close()
    assert notes(database_file) == ["x", "x"]
    assert not caplog.records


def test_connections_of_a_groups_threads_are_closed_when_these_end(database_file, layer, wrapper):
    opened = []

    def consumes(message):
        connection = leftovers.connections["default"]
        notes(connection)
        opened.append(connection)
        wait_until(lambda: len(opened) == 2)
        group.stop()

    wrapper.router.add_route(route("test", consumes))
    group = WorkerGroup(wrapper, n_threads=2, signal_handlers=False)
    for _ in range(2):
        layer.deliver("test", {})
    group.run()
    beside = [connection for connection in opened if connection is not database_file]
    assert len(beside) == 1, "each thread has its own"
    assert beside[0].connection is None
    assert database_file.connection is not None
