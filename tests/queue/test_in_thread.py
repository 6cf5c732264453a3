"""Jobs that take long to read are read in a thread."""

from __future__ import annotations

import pytest

from service.queue.attachments import Attachments
from tests.queue.test_intake import World

LONG = "to ann@a.example bob@b.example "


@pytest.fixture
def world(reactor, told, open_store, tmp_path):
    world = World(reactor, told, open_store, tmp_path)
    world.threads = []
    world.in_thread = False
    defer = reactor.defer_to_thread

    def noticed(function, *args):
        def run():
            world.in_thread = True
            try:
                return function(*args)
            finally:
                world.in_thread = False

        return defer(run)

    reactor.defer_to_thread = noticed
    attachments = Attachments(world.layout.new, most=1000)

    def read(name, data):
        job = World.read(world, name, data)
        if b"attach" in data:
            world.attached = attachments.read("a.bin")
        world.threads.append((name, world.in_thread))
        return job

    world.intake._read = read
    (world.layout.new / "a.bin").write_text("attached")
    world.intake.start()
    reactor.settle()
    yield world
    world.intake.stop()


@pytest.mark.parametrize(
    ("name", "size", "in_thread"), [("x.json", 20_000, False), ("x.json", 40_000, True), ("x.eml", 900_000, False)]
)
def test_structured_jobs_count_as_large_sooner(world, name, size, in_thread):
    """JSON and YAML take many times as long as a message of their size."""
    world.put(name, LONG + "x" * size)
    world.look()
    assert world.threads == [(name, in_thread)]
    assert world.new() == ["a.bin"]


def test_a_job_with_an_attachment_is_read_in_a_thread(world):
    """However small the job is, its attachment may be large, or on a slow disk."""
    for n in range(3):
        world.put(f"x{n}.json", "to ann@a.example bob@b.example attach")
    world.put("y.json", "to ann@a.example")
    world.look()
    assert sorted(world.threads) == [("x0.json", True), ("x1.json", True), ("x2.json", True), ("y.json", False)]
    assert (world.attached, world.new(), len(world.jobs())) == (b"attached", ["a.bin"], 4)


def test_many_large_jobs_are_not_looked_at_again_for_each_that_is_done(world, monkeypatch):
    """They wait in a line."""
    opened = []
    open_file = world.drop.open
    monkeypatch.setattr(world.drop, "open", lambda name: opened.append(name) or open_file(name))
    for n in range(40):
        world.put(f"x{n}.json", LONG + "x" * 40_000)
    world.look()
    assert (world.new(), len(world.jobs())) == (["a.bin"], 40)
    assert len(opened) < 100


def test_a_large_job_that_is_gone_does_not_stop_the_line(world):
    """Those behind it are still taken."""
    for n in range(4):
        world.put(f"x{n}.json", LONG + "x" * 40_000)
    for function in list(world.reactor.readers.values()):
        function()
    world.reactor.turn()
    (world.layout.new / "x1.json").unlink()
    world.look()
    assert (len(world.jobs()), world.new()) == (3, ["a.bin"])


def test_a_name_that_is_noticed_again_while_it_is_in_the_line_is_taken_once(world, monkeypatch):
    """Also where the line moves on before the second notice is looked at."""
    offered = []
    accept = world.store.accept
    monkeypatch.setattr(world.store, "accept", lambda jobs: offered.extend(jobs) or accept(jobs))
    for n in range(3):
        world.put(f"x{n}.json", LONG + "x" * 40_000)
    for function in list(world.reactor.readers.values()):
        function()
    world.reactor.turn()
    world.intake._names.update({f"x{n}.json": True for n in range(3)})
    world.look()
    assert (len(offered), world.new()) == (3, ["a.bin"])
