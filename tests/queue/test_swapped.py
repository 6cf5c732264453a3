"""A name in new/ that stands for another file than it did a moment ago."""

from __future__ import annotations

import pytest

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
