"""The queue as a command sees it, beside a running daemon or without one."""

from __future__ import annotations

import apsw
import pytest

from service.queue.commands import open_for_commands
from service.queue.store import StoreFailed, UnknownJob


@pytest.fixture
def commands(reactor, store, submission, tmp_path):
    reactor.wait(store.accept([submission("x@a.example", name="one"), submission("x@b.example", name="two")]))
    with open_for_commands(tmp_path, reactor.wall_time) as commands:
        yield commands


def test_a_command_looks(commands):
    """List, show and count as the daemon's own."""
    one, two = commands.list()
    assert (one.name, two.name) == ("one", "two")
    assert commands.show(two.id) == two
    assert commands.show("nonsense") is None
    assert [view.name for view in commands.list(site="b.example", state="queued")] == ["two"]
    assert commands.count().queued == 2


def test_a_command_s_change_is_the_daemons_at_once(reactor, store, commands):
    """It is in the one store: what is held is not claimed, and the sites to retry are remembered."""
    one, two = commands.list()
    assert commands.change("hold", site="a.example") == 1
    assert reactor.wait(store.claim("a.example", 1)) == []
    assert commands.change("release") == 1
    assert commands.change("retry", [one.id, one.id, two.id.upper()]) == 2
    assert reactor.wait(store.retried()) == ["a.example", "b.example"]
    assert commands.change("remove") == 2
    assert store.count().queued == 0


def test_an_unknown_id_changes_nothing(commands):
    """As for the daemon."""
    with pytest.raises(UnknownJob, match="nothere"):
        commands.change("remove", [commands.list()[0].id, "nothere"])
    assert commands.count().queued == 2


def test_a_command_works_without_a_daemon(reactor, open_store, submission, tmp_path):
    """After it has closed the store, and after it has died with its log unfinished."""
    store = open_store()
    reactor.wait(store.accept([submission()]))
    reactor.wait(store.close())
    with open_for_commands(tmp_path, reactor.wall_time) as commands:
        assert commands.change("hold") == 1
    assert open_store().count().held == 1


def test_a_missing_queue_is_said_so(tmp_path, reactor):
    """With the path, and nothing is made."""
    with pytest.raises(StoreFailed, match=r"queue\.db does not exist"):
        open_for_commands(tmp_path, reactor.wall_time)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_queue_is_said_so(tmp_path, reactor, open_store):
    """For a command and for the daemon."""
    (tmp_path / "queue.db").write_bytes(b"This is no database at all. " * 400)
    with pytest.raises(StoreFailed, match="is damaged"):
        open_for_commands(tmp_path, reactor.wall_time)
    with pytest.raises(StoreFailed, match="is damaged"):
        open_store()


def test_a_newer_queue_is_left_alone(tmp_path, reactor, store, open_store):
    """A deferd that does not know its tables does not touch them."""
    with apsw.Connection(str(tmp_path / "queue.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreFailed, match="newer deferd"):
        open_for_commands(tmp_path, reactor.wall_time)
    with pytest.raises(StoreFailed, match="newer deferd"):
        open_store()
