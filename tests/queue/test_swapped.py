"""A name in new/ that stands for another file than it did a moment ago."""

from __future__ import annotations

import os

import pytest

from tests.fakes.disk import small_disk
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


@pytest.mark.parametrize("linkable", [True, False])
@pytest.mark.parametrize("newest", ["", "to cat@c.example"])
def test_a_file_renamed_over_an_accepted_one_in_its_last_moment_is_not_lost(begun, monkeypatch, linkable, newest):
    """It goes back to its place, unless a newer one is there by then; others' files may not be linked."""
    rename = os.rename

    def late(path, target):
        if "/.taken-" in str(target):
            monkeypatch.undo()
            if not linkable:
                monkeypatch.setattr(os, "link", refuse)
            replace(begun, "x.eml", "to bob@b.example")
            rename(path, target)
            if newest:
                replace(begun, "x.eml", newest)
        else:
            rename(path, target)

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "rename", late)
    begun.put("x.eml")
    begun.look()
    begun.look()
    begun.reactor.advance(35)
    last = "cat@c.example" if newest else "bob@b.example"
    assert [view.recipients[0].address for view in begun.store.list()] == ["ann@a.example", last]
    assert [path.name for path in begun.layout.new.iterdir()] == []


@pytest.mark.parametrize("place", ["", "new"])
def test_what_a_crash_left_taken_aside_is_looked_at_again(reactor, told, open_store, tmp_path, place):
    """It may be another file than the accepted one; if it is not, it is known."""
    world = World(reactor, told, open_store, tmp_path)
    aside = tmp_path / place / ".taken-x.eml"
    aside.write_text("to ann@a.example")
    world.intake.start()
    reactor.advance(31)
    assert (world.jobs(), world.new(), aside.exists()) == (["x"], [], False)
    world.intake.stop()


def test_what_was_taken_aside_and_could_not_be_removed_is_removed_later(begun, monkeypatch):
    """It is told of, and taken for nothing new."""

    def refuse(*_, **__):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        begun.put("x.eml")
        begun.look()
        begun.reactor.advance(1)
    assert [each["name"] for each in begun.told.of("file_stuck")] == ["x.eml"]
    begun.reactor.advance(35)
    assert (begun.jobs(), begun.new(), list(begun.layout.directory.glob(".taken-*"))) == (["x"], [], [])


def test_what_could_not_be_put_back_is_put_back_by_the_next_scan(begun, monkeypatch):
    """And until then it is not in new/, nor lost."""
    rename = os.rename

    def late(path, target):
        if "/.taken-" in str(path):
            refuse()
        if "/.taken-" in str(target):
            replace(begun, "x.eml", "to bob@b.example")
        rename(path, target)

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", late)
        patch.setattr(os, "link", refuse)
        begun.put("x.eml")
        begun.look()
        begun.reactor.advance(1)
        assert begun.new() == []
    begun.reactor.advance(35)
    assert [view.recipients[0].address for view in begun.store.list()] == ["ann@a.example", "bob@b.example"]
    assert begun.new() == []


@pytest.mark.root
def test_in_a_new_that_is_a_file_system_of_its_own_files_are_taken_aside_in_it(reactor, told, open_store, tmp_path):
    """As with a volume of its own, from which nothing can be renamed into the directory above."""
    world = World(reactor, told, open_store, tmp_path)
    with small_disk(world.layout.new):
        world.intake.start()
        for name in ("x", "y"):
            world.put(f"{name}.eml")
        world.look()
        reactor.settle()
        assert (sorted(world.jobs()), world.new(), told.of("file_stuck")) == (["x", "y"], [], [])
        world.put(".taken-z.eml")
        reactor.advance(61)
        assert (sorted(world.jobs()), world.new()) == (["x", "y", "z"], [])
        world.intake.stop()


def test_an_accepted_file_of_the_longest_name_is_removed(begun):
    """There is no room to take it aside."""
    begun.put("n" * 251 + ".eml")
    begun.look()
    assert (len(begun.jobs()), begun.new()) == (1, [])
