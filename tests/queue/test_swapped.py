"""A name in new/ that stands for another file than it did a moment ago."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os

import pytest

from service.message.outcome import Outcome, Phase, State
from service.queue import drop
from service.queue.aside import aside_name, name_before
from service.queue.drop import DroppedFile
from service.queue.store import Settlement, Source
from tests.queue.test_intake import World


@pytest.fixture
def begun(reactor, told, open_store, tmp_path):
    world = World(reactor, told, open_store, tmp_path)
    world.intake.start()
    reactor.settle()
    yield world
    world.intake.stop()


def replace(world, name, content):
    """Rename a new file over the old, as a careful writer does."""
    (world.layout.new / "y.tmp").write_text(content)
    (world.layout.new / "y.tmp").rename(world.layout.new / name)


def test_a_good_file_renamed_over_a_bad_one_that_is_being_read_is_taken(begun, monkeypatch):
    """What was wrong with the old file says nothing of the new one, which is looked at for itself."""

    def read(name, data):
        if data.startswith(b"bad"):
            replace(begun, name, "to ann@a.example")
        return World.read(begun, name, data)

    monkeypatch.setattr(begun.intake, "_read", read)
    for name, size in (("small.eml", 1), ("large.eml", 1_500_000)):
        begun.put(name, "bad" + "x" * size)
        begun.look()
        begun.look()
        begun.reactor.advance(5)
    assert (sorted(begun.jobs()), begun.new(), begun.rejected()) == (["large", "small"], [], [])


def test_a_good_file_renamed_over_a_bad_one_that_is_being_put_aside_is_taken(begun, monkeypatch):
    """Until the last moment: while the note is written."""
    monkeypatch.setattr(
        "service.queue.drop._write_note",
        lambda path, *_: (path.write_text("why"), replace(begun, "x.eml", "to ann@a.example")),
    )
    begun.put("x.eml", "bad")
    begun.look()
    begun.reactor.advance(5)
    assert (begun.jobs(), begun.new(), begun.rejected()) == (["x"], [], [])


class Swap:
    """In the last moment before an accepted x.eml is taken aside, `replace` is called; after it, `then`."""

    def __init__(self, monkeypatch, replace, then=lambda: None):
        rename = os.rename
        self.waits = True

        def late(path, target):
            if self.waits and "/.taken-" in str(target):
                self.waits = False
                replace()
                rename(path, target)
                then()
            else:
                rename(path, target)

        monkeypatch.setattr(os, "rename", late)


@pytest.fixture(params=["in one step", "looked at before"])
def file_system(request, monkeypatch):
    """One that renames to a free name only, and one that does not know how."""
    if request.param == "looked at before":
        real = ctypes.CDLL(None, use_errno=True)

        class Old:
            def renameat2(self, *_):
                ctypes.set_errno(errno.EINVAL)
                return -1

            def __getattr__(self, name):
                return getattr(real, name)

        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Old())


def addresses(world):
    return [view.recipients[0].address for view in world.store.list()]


def asides(world):
    return [name for name in world.new() if name.startswith(".taken-")]


@pytest.mark.usefixtures("file_system")
def test_a_file_renamed_over_an_accepted_one_in_its_last_moment_is_not_lost(begun, monkeypatch):
    """It goes back to its place."""
    Swap(monkeypatch, lambda: replace(begun, "x.eml", "to bob@b.example"))
    begun.put("x.eml")
    begun.look()
    begun.look()
    begun.reactor.advance(35)
    assert addresses(begun) == ["ann@a.example", "bob@b.example"]
    assert begun.new() == []


@pytest.mark.usefixtures("file_system")
def test_nor_is_it_where_a_newer_one_has_its_place_by_then(begun, monkeypatch):
    """It gets another name: what comes back replaces nothing, and is replaced by nothing."""
    Swap(
        monkeypatch,
        lambda: replace(begun, "x.eml", "to bob@b.example"),
        lambda: replace(begun, "x.eml", "to cat@c.example"),
    )
    begun.put("x.eml")
    begun.look()
    begun.look()
    begun.reactor.advance(35)
    assert sorted(addresses(begun)) == ["ann@a.example", "bob@b.example", "cat@c.example"]
    assert begun.new() == []


def test_nor_where_it_cannot_be_put_back_at_once(begun, monkeypatch):
    """It is told of, with its path; the next file of the name is another, and both are jobs in the end."""
    Swap(monkeypatch, lambda: replace(begun, "x.eml", "to bob@b.example"))
    with monkeypatch.context() as patch:
        patch.setattr(drop, "rename_to_free", lambda *_: refuse(errno.EIO))
        begun.put("x.eml")
        begun.look()
        begun.reactor.advance(35)
        [aside] = asides(begun)
        begun.put("x.eml", "to cat@c.example")
        begun.look()
        begun.reactor.advance(65)
        assert asides(begun) == [aside]
        assert [each["name"] for each in begun.told.of("file_stuck")] == ["x.eml", aside]
        assert all(aside in str(each["why"]) for each in begun.told.of("file_stuck"))
    begun.reactor.advance(35)
    assert sorted(addresses(begun)) == ["ann@a.example", "bob@b.example", "cat@c.example"]
    assert begun.new() == []


def test_a_directory_that_is_swapped_in_is_refused_as_one(begun, monkeypatch):
    """It is in nobody's way."""

    def swap():
        (begun.layout.new / "x.eml").rename(begun.layout.new / "kept.tmp")
        (begun.layout.new / "x.eml").mkdir()

    Swap(monkeypatch, swap)
    begun.put("x.eml")
    begun.look()
    begun.reactor.advance(35)
    (begun.layout.new / "kept.tmp").rename(begun.layout.new / "x.eml")
    begun.look()
    begun.reactor.advance(35)
    assert (begun.jobs(), begun.new(), begun.rejected()) == (["x"], [], ["x.eml", "x.eml.why"])


def test_what_comes_back_is_not_taken_for_closed(begun, monkeypatch):
    """It was we who renamed it: somebody may still write it, which nobody tells us of others' files."""
    monkeypatch.setattr(DroppedFile, "being_written", lambda _: None)
    writers = []

    def write():
        (begun.layout.new / "x.eml").unlink()
        writers.append((begun.layout.new / "x.eml").open("w"))
        writers[0].write("to bob@b")
        writers[0].flush()

    Swap(monkeypatch, write)
    begun.put("x.eml")
    begun.look()
    begun.look()
    begun.reactor.advance(5)
    assert addresses(begun) == ["ann@a.example"]
    writers[0].write(".example")
    writers[0].close()
    begun.look()
    assert addresses(begun) == ["ann@a.example", "bob@b.example"]


def refuse(error):
    raise OSError(error, os.strerror(error))


@pytest.fixture
def stays_aside(begun, monkeypatch):
    """x.eml is accepted, and taken aside, and cannot be removed until the context ends."""

    @contextlib.contextmanager
    def stays_aside():
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", lambda *_: refuse(errno.EIO))
            begun.put("x.eml")
            begun.look()
            begun.reactor.advance(1)
            [aside] = begun.new()
            yield aside

    return stays_aside


def test_what_was_taken_aside_and_could_not_be_removed_is_removed_later(begun, stays_aside):
    """It is told of, and taken for nothing new."""
    with stays_aside() as aside:
        [told] = begun.told.of("file_stuck")
        assert (told["name"], aside in str(told["why"])) == ("x.eml", True)
    begun.reactor.advance(35)
    begun.look()
    assert (begun.jobs(), begun.new()) == (["x"], [])


def test_a_job_is_remembered_while_its_file_is_on_its_way_out(begun, stays_aside):
    """However long ago it ended: a file that came back would be another job."""
    with stays_aside():
        [claim] = begun.reactor.wait(begun.store.claim("a.example", 1))
        outcome = Outcome("ann@a.example", State.DELIVERED, 250, "2.0.0", "ok", "mx", Phase.CONFIRM)
        settled = Settlement(claim=claim, outcomes=(outcome,), at=begun.store.now(), attempts=1, due=None)
        begun.reactor.wait(begun.store.settle([settled]))
        begun.intake.stop()
        assert begun.reactor.wait(begun.store.purge(begun.store.now() + 1)) == []
    assert len(begun.store.list(state="delivered")) == 1


def test_what_a_crash_left_taken_aside_is_looked_at_again(begun):
    """It may be another file than the accepted one; if it is not, it is known."""
    begun.put(".taken-17-1a-x.eml")
    begun.reactor.advance(61)
    assert (begun.jobs(), begun.new()) == (["x"], [])


@pytest.mark.parametrize("name", ["x.eml", "-x.eml", "1-2-x.eml", ".taken-1-2-x.eml", "two\nlines.eml"])
@pytest.mark.parametrize("mtime_ns", [0, 1_790_000_000_123_456_789, -1])
def test_the_name_before_can_be_told(name, mtime_ns):
    """Of each name, and also of files from before 1970."""
    assert name_before(aside_name(Source(name, 17, mtime_ns, 3))) == name


@pytest.mark.parametrize("name", [".taken-", ".taken-x.eml", ".taken-17-1a-", ".taken-1-2-x.pdf", ".taken-1-2-.x.eml"])
def test_what_only_looks_like_that_is_let_alone(begun, name):
    """As any file whose name begins with a dot."""
    begun.put(name)
    begun.reactor.advance(61)
    assert (begun.jobs(), begun.new()) == ([], [name])


def test_an_accepted_file_of_the_longest_name_is_removed(begun):
    """There is no room to take it aside."""
    begun.put("n" * 251 + ".eml")
    begun.look()
    assert (len(begun.jobs()), begun.new()) == (1, [])
