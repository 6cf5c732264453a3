"""What is to be known of sites also after a restart: which rest, and how fast they may be served."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import apsw
import msgspec
import pytest

from service.queue.commands import open_for_commands
from service.queue.damage import find_damage
from service.queue.recovery import recover
from service.queue.sqlite import DATABASE
from service.queue.store import Pace, Rest

REST = Rest(site="mx:25", ends=1_790_000_300.5, failures=4, since=1_790_000_000.25, why="the port is closed")
PACE = Pace(site="a.example", rate=0.5, next=1_790_000_300.5)


def test_a_rest_is_there_after_a_restart(reactor, open_store):
    """As it was noted, to the second."""
    reactor.wait(open_store().notes.note_rest(REST))
    assert open_store().notes.rests() == [REST]


def test_a_site_has_one_rest_the_last(reactor, store):
    """A longer one takes the place of the one before; another site's stays."""
    longer = msgspec.structs.replace(REST, ends=REST.ends + 600, failures=5)
    other = msgspec.structs.replace(REST, site="other:25")
    for rest in (REST, other, longer):
        reactor.wait(store.notes.note_rest(rest))
    assert sorted(store.notes.rests(), key=lambda rest: rest.site) == [longer, other]


def test_a_site_that_serves_has_none(reactor, open_store):
    """It is forgotten for good; one that is not known is no error."""
    store = open_store()
    reactor.wait(store.notes.note_rest(REST))
    reactor.wait(store.notes.forget_rest(REST.site))
    reactor.wait(store.notes.forget_rest("nobody:25"))
    assert store.notes.rests() == []
    assert open_store().notes.rests() == []


def test_the_last_word_counts(reactor, store):
    """Noted, forgotten and noted in one turn: it rests."""
    store.notes.note_rest(REST)
    store.notes.forget_rest(REST.site)
    reactor.wait(store.notes.note_rest(REST))
    assert store.notes.rests() == [REST]


# the pace


def test_a_pace_is_there_after_a_restart(reactor, open_store):
    """As it was noted last; a site that has no rate any more has none."""
    store = open_store()
    for pace in (PACE, msgspec.structs.replace(PACE, site="b.example"), msgspec.structs.replace(PACE, next=7.0)):
        reactor.wait(store.notes.note_pace(pace))
    reactor.wait(store.notes.forget_pace("b.example"))
    assert open_store().notes.paces() == [msgspec.structs.replace(PACE, next=7.0)]


def test_a_claim_notes_the_pace_it_leaves(reactor, open_store, submission):
    """In one transaction, so that whoever dies with it has used it up; one that brings nothing has left none."""
    store = open_store()
    reactor.wait(store.claim("a.example", 1, lambda: PACE))
    assert store.notes.paces() == []
    reactor.wait(store.accept([submission("x@a.example")]))
    reactor.wait(store.claim("a.example", 1, lambda: PACE))
    assert open_store().notes.paces() == [PACE]


def test_the_pace_is_asked_for_when_the_claim_is_made(reactor, store, submission, tmp_path):
    """However long another process's lock, or a full disk, has kept it waiting: the message begins after that."""
    reactor.wait(store.accept([submission("x@a.example")]))
    with contextlib.closing(apsw.Connection(str(tmp_path / DATABASE))) as other:
        other.execute("BEGIN IMMEDIATE")
        claiming = store.claim("a.example", 1, lambda: msgspec.structs.replace(PACE, next=store.now() + 10))
        reactor.advance(8)
        other.execute("COMMIT")
    reactor.wait(claiming, 1)
    assert store.notes.paces()[0].next >= 1_790_000_018.0


# the version before, which knew of no pace


def older(directory: Path, damage: str = "") -> None:
    """Make of a queue one of the version before."""
    with contextlib.closing(apsw.Connection(str(directory / DATABASE))) as connection:
        connection.execute(f"DROP TABLE pace; PRAGMA user_version = 3; {damage}")


def test_an_older_queue_is_brought_up_to_date(reactor, open_store, submission, tmp_path):
    """Its jobs are there, and the next start finds nothing to do."""
    store = open_store()
    (accepted,) = reactor.wait(store.accept([submission("x@a.example")]))
    reactor.wait(store.close())
    older(tmp_path)
    store = open_store()
    reactor.wait(store.claim("a.example", 1, lambda: PACE))
    reactor.wait(store.close())
    store = open_store()
    assert (store.show(accepted.id).state, store.notes.paces()) == ("queued", [PACE])


def test_a_command_leaves_an_older_queue_as_it_is(reactor, open_store, submission, tmp_path):
    """It does its work there; the daemon may be of the version before, and is to find what it knows."""
    store = open_store()
    (accepted,) = reactor.wait(store.accept([submission("x@a.example")]))
    reactor.wait(store.close())
    older(tmp_path)
    with open_for_commands(tmp_path, reactor.wall_time) as commands:
        assert commands.standing().sites[0].rate is None
        assert (commands.change("hold").changed, commands.list()[0].state) == (1, "held")
        assert commands.show(accepted.id, 60.0).sites[0].rate is None
    other = tmp_path / "other.db"
    shutil.copy(tmp_path / DATABASE, other)
    recover(other, tmp_path, reactor.wall_time)
    with contextlib.closing(apsw.Connection(str(tmp_path / DATABASE))) as connection:
        assert connection.pragma("user_version") == 3


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("DELETE FROM tally", "the tally of jobs is not complete"),
        ("DROP TABLE owed; DROP TABLE rest", "it has no owed, rest"),
        ("ANALYZE", None),
    ],
)
def test_an_older_queue_is_looked_through_for_damage(reactor, open_store, tmp_path, damage, why):
    """As one of this version is, before it is brought up to date."""
    reactor.wait(open_store().close())
    older(tmp_path, damage)
    assert find_damage(tmp_path / DATABASE) == why
