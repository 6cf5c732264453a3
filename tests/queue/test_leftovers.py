"""What cannot be removed, put aside or read: told of once, and done by itself when it can be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.queue.test_intake import World


@pytest.fixture
def begun(reactor, told, open_store, tmp_path):
    world = World(reactor, told, open_store, tmp_path)
    world.intake.start()
    reactor.settle()
    yield world
    world.intake.stop()


class Refusing:
    """Stands for a system call that fails with `error` on paths that hold `part`, until `mended`."""

    def __init__(self, monkeypatch, owner, name, error, part):
        self.mended = False
        self.calls = 0
        real = getattr(owner, name)

        def call(path, *args, **kwargs):
            if not self.mended and part in str(path):
                self.calls += 1
                raise OSError(error, os.strerror(error))
            return real(path, *args, **kwargs)

        monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("error", [errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM])
def test_an_accepted_file_is_removed_once_that_can_be_done(begun, monkeypatch, error):
    """Without a restart, without being read again, and the trouble is told of once, however long it takes."""
    renaming = Refusing(monkeypatch, os, "rename", error, "new/x.eml")
    begun.put("x.eml")
    begun.look()
    begun.reactor.advance(100)
    assert (begun.new(), begun.told.names()) == (["x.eml"], ["job_accepted", "file_stuck"])
    renaming.mended = True
    begun.reactor.advance(1)
    assert (begun.new(), begun.read_by, len(begun.jobs())) == ([], ["x.eml"], 1)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_refused_file_is_put_aside_once_that_can_be_done(begun, monkeypatch, error):
    """With the reason for which it was refused, and never without its note."""
    renaming = Refusing(monkeypatch, Path, "rename", error, "new/bad.eml")
    begun.put("bad.eml", "nonsense")
    begun.look()
    begun.reactor.advance(100)
    assert (begun.new(), begun.rejected(), begun.told.names()) == (["bad.eml"], [], ["file_stuck"])
    renaming.mended = True
    begun.reactor.advance(1)
    assert (begun.new(), begun.rejected()) == ([], ["bad.eml", "bad.eml.why"])
    assert begun.why("bad.eml") == "it does not begin with 'to'\n"
    assert begun.told.names() == ["file_stuck", "job_rejected"]


def test_a_refused_file_is_put_aside_though_somebody_has_removed_the_folder(begun):
    """It is made again."""
    begun.layout.rejected.rmdir()
    begun.put("bad.eml", "nonsense")
    begun.look()
    begun.reactor.advance(2)
    assert (begun.new(), begun.rejected()) == ([], ["bad.eml", "bad.eml.why"])


def test_what_is_left_of_many_files_costs_little_while_it_is_in_the_way(begun, monkeypatch):
    """A few tries a second, for a thousand files too; once they can go they go together."""
    renaming = Refusing(monkeypatch, os, "rename", errno.EROFS, "new/j")
    for n in range(1000):
        begun.put(f"j{n}.eml")
    begun.look()
    begun.reactor.advance(5)
    assert (len(begun.jobs()), len(begun.new())) == (1000, 1000)
    before = renaming.calls
    begun.reactor.advance(10)
    assert 0 < renaming.calls - before <= 60
    renaming.mended = True
    begun.reactor.advance(2)
    assert begun.new() == []


def test_a_leftover_that_is_replaced_is_a_new_file(begun, monkeypatch):
    """What has taken its name is a job of its own, and not removed for the other."""
    Refusing(monkeypatch, os, "rename", errno.EROFS, "new/x.eml")
    begun.put("x.eml")
    begun.look()
    begun.put("x.eml", "to bob@b.example")
    begun.look()
    assert [view.recipients[0].address for view in begun.store.list()] == ["ann@a.example", "bob@b.example"]


def test_a_stopped_intake_leaves_leftovers_to_the_next_start(begun, monkeypatch):
    """Nothing of it is left in the reactor."""
    renaming = Refusing(monkeypatch, os, "rename", errno.EROFS, "new/x.eml")
    begun.put("x.eml")
    begun.look()
    begun.intake.stop()
    renaming.mended = True
    begun.reactor.advance(100)
    assert begun.new() == ["x.eml"]


def test_a_file_that_the_disk_does_not_give_is_told_of_once_and_harms_no_other(begun, monkeypatch):
    """EIO on one file: it waits in new/, and is a job when it can be read."""
    opening = Refusing(monkeypatch, os, "open", errno.EIO, "/bad.eml")
    begun.put("bad.eml")
    begun.put("good.eml")
    begun.look()
    begun.reactor.advance(100)
    assert (begun.jobs(), begun.new()) == (["good"], ["bad.eml"])
    assert begun.told.names() == ["file_stuck", "job_accepted"]
    assert begun.intake.trouble is None
    opening.mended = True
    begun.reactor.advance(2)
    assert (sorted(begun.jobs()), begun.new()) == (["bad", "good"], [])


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_without_descriptors_the_intake_says_so_once_and_goes_on_when_there_are(begun, monkeypatch, error):
    """Every job waits in new/; nothing is refused for what the system lacks."""
    opening = Refusing(monkeypatch, os, "open", error, "/new/")
    scanning = Refusing(monkeypatch, os, "scandir", error, "/new")
    for n in range(5):
        begun.put(f"j{n}.eml")
    begun.look()
    begun.reactor.advance(100)
    assert (len(begun.new()), begun.rejected(), begun.told.names()) == (5, [], ["intake_failed"])
    assert os.strerror(error) in begun.intake.trouble
    assert os.strerror(error) in begun.told.of("intake_failed")[0]["why"]
    opening.mended = scanning.mended = True
    begun.reactor.advance(2)
    assert (begun.intake.trouble, begun.new(), len(begun.jobs())) == (None, [], 5)
    assert begun.told.names().count("intake_recovered") == 1


def test_a_directory_that_cannot_be_read_is_told_of_once_and_looked_through_when_it_can(begun, monkeypatch):
    """Other permissions on new/, say: what was dropped meanwhile is found within a second of their end."""
    scanning = Refusing(monkeypatch, os, "scandir", errno.EACCES, "/new")
    looking = Refusing(monkeypatch, os, "lstat", errno.EACCES, "/new/")
    begun.put("x.eml")
    begun.look()
    begun.reactor.advance(100)
    assert (begun.jobs(), begun.rejected(), begun.told.names()) == ([], [], ["intake_failed"])
    assert "/new cannot be read: Permission denied" in begun.intake.trouble
    scanning.mended = looking.mended = True
    begun.reactor.advance(1.1)
    assert (begun.jobs(), begun.new()) == (["x"], [])
    assert begun.told.names() == ["intake_failed", "intake_recovered", "job_accepted"]


def test_scans_do_not_add_up(begun, monkeypatch):
    """One that was asked for takes the place of the one that was due."""
    scanned = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (scanned.append(path), scandir(path))[1])
    for _ in range(10):
        begun.intake.scan()
        begun.reactor.advance(1)
    scanned.clear()
    begun.reactor.advance(31)
    assert len(scanned) == 1
