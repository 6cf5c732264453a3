"""The queue's directory: its layout, its lock, its poke, and what inotify says of it."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from service.queue import poke as poke_module
from service.queue.inotify import CLOSE_WRITE, CREATE, MOVED_TO, Inotify
from service.queue.layout import prepare
from service.queue.lock import DirectoryLock
from service.queue.orders import Order
from service.queue.poke import PokeWatch, poke
from service.queue.store import StoreFailed


def test_the_directory_is_made_with_what_is_in_it(tmp_path):
    """new/ is for the group to drop into, and what is dropped has its group."""
    layout = prepare(tmp_path / "spool" / "deferd")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in layout.directory.iterdir()}
    assert set(modes) == {"new", "rejected", "results"}
    assert modes["new"] == 0o2770
    assert modes["results"] & 0o7007 == 0
    assert prepare(layout.directory) == layout


def test_an_operators_modes_stay(tmp_path):
    """What exists is not touched."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new").chmod(0o777)
    assert stat.S_IMODE(prepare(tmp_path).new.stat().st_mode) == 0o777


def test_a_file_in_the_way_is_named(tmp_path):
    """The error says which path and what to do."""
    (tmp_path / "new").write_text("")
    with pytest.raises(StoreFailed, match=r"/new is no directory: move it away"):
        prepare(tmp_path)


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    """With the remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailed, match=r"file/spool.*cannot be made .*queue.directory"):
        prepare(tmp_path / "file" / "spool")


def test_the_store_is_for_its_owner_only(store, tmp_path):
    """Envelopes and content are nobody else's business, in the log neither."""
    for path in tmp_path.glob("queue.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_daemon_is_told_who_has_the_directory(tmp_path):
    """By process and host; when the first has gone, the next gets it."""
    first = DirectoryLock(tmp_path)
    with pytest.raises(StoreFailed, match=rf"running in {tmp_path} already: process \d+ on "):
        DirectoryLock(tmp_path)
    first.release()
    first.release()
    DirectoryLock(tmp_path).release()


def test_the_lock_ends_with_its_process(tmp_path):
    """A daemon that was killed does not keep the next one out."""
    code = "import os, sys; from pathlib import Path; from service.queue.lock import DirectoryLock\n"
    code += "lock = DirectoryLock(Path(sys.argv[1])); os._exit(9)"
    died = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=Path(__file__).parents[2], check=False)
    assert died.returncode == 9
    DirectoryLock(tmp_path).release()


def test_what_a_command_changed_is_looked_for_each_minute(reactor, tmp_path):
    """It may have died before its word, or not have been allowed to give it."""
    pokes, version = [], [1]
    watch = PokeWatch(tmp_path, reactor, lambda: pokes.append(1), lambda: version[0])
    reactor.advance(250)
    assert pokes == [1]
    version[0] = 2
    reactor.advance(250)
    assert pokes == [1, 1]
    watch.close()
    version[0] = 3
    reactor.advance(150)
    assert pokes == [1, 1]


def test_the_file_that_is_poked_is_the_daemons(reactor, tmp_path):
    """A command that root gives must not make it root's: others could not poke any more."""
    watch = PokeWatch(tmp_path, reactor, lambda: None, lambda: 1)
    assert (tmp_path / "poke").exists()
    watch.close()


def test_a_poke_is_noticed(reactor, tmp_path):
    """Several at a time are one; other files are none; after the end there is none."""
    pokes = []
    watch = PokeWatch(tmp_path, reactor, lambda: pokes.append(1), lambda: 1)
    poke(tmp_path)
    poke(tmp_path)
    reactor.read_files()
    assert pokes == [1]
    (tmp_path / "other").write_text("x")
    reactor.read_files()
    assert pokes == [1]
    watch.close()
    assert reactor.readers == {}


def test_who_pokes_tells_what_was_ordered(reactor, tmp_path):
    """Before the queue is looked at; reading it is no poke."""
    heard = []
    watch = PokeWatch(tmp_path, reactor, lambda: heard.append("poked"), lambda: 1, heard.append)
    order = Order(change="hold", jobs=1, ids=("x",))
    poke(tmp_path, order)
    reactor.read_files()
    reactor.read_files()
    assert heard == [order, "poked"]
    watch.close()


def test_a_poke_is_noticed_without_inotify(reactor, tmp_path, monkeypatch):
    """By the file's time, within a second or so."""
    monkeypatch.setattr(poke_module, "Inotify", lambda *_: (_ for _ in ()).throw(OSError("no more watches")))
    pokes = []
    watch = PokeWatch(tmp_path, reactor, lambda: pokes.append(1), lambda: 1)
    reactor.advance(5)
    assert pokes == []
    poke(tmp_path)
    reactor.advance(1.1)
    assert pokes == [1]
    watch.close()
    poke(tmp_path)
    reactor.advance(5)
    assert pokes == [1]


def test_inotify_tells_of_made_closed_and_moved_files(tmp_path):
    """Each for what it is; a name of any octets comes through."""
    watch = Inotify(tmp_path)
    assert watch.read() == []
    with open(tmp_path / "a", "w") as file:
        assert watch.read() == [("a", CREATE)]
        file.write("x")
    (tmp_path / "a").rename(tmp_path / "b\udcff")
    assert watch.read() == [("a", CLOSE_WRITE), ("b\udcff", MOVED_TO)]
    watch.close()
    watch.close()


def test_inotify_of_a_missing_directory_is_an_error(tmp_path):
    """With its name."""
    with pytest.raises(FileNotFoundError, match="missing"):
        Inotify(tmp_path / "missing")
