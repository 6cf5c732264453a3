"""A damaged queue at the start: noticed, set aside, and never taken for a new one."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from random import Random

import apsw
import pytest

from service.queue import damage
from service.queue.damage import find_damage, note_damage, set_aside_folders, set_aside_if_damaged
from service.queue.sqlite import SQLiteStore
from service.queue.store import StoreFailed
from tests.queue import wreck

NOW = 1_790_000_000.0
FOLDER = "damaged-20260921T141320Z"
FULL = "database or disk is full"


@pytest.fixture
def database(open_store, reactor, submission, settlement, tmp_path) -> Path:
    """A queue as a killed daemon leaves it."""
    store = open_store()
    wreck.fill(store, reactor, submission, settlement, 20)
    return wreck.copy(tmp_path / "queue.db", tmp_path / "spool")


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, but for the shared memory and what is in folders."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".db-shm"}


def log_of(database: Path) -> Path:
    return database.with_name("queue.db-wal")


def execute(database: Path, *statements: str) -> None:
    connection = apsw.Connection(str(database))
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_queue_in_order_is_left_as_it_is(database):
    """To the octet, with all that is in its log; so is one with nothing in it, and none at all."""
    before = files(database.parent)
    assert set_aside_if_damaged(database, NOW) is None
    assert {name: data for name, data in files(database.parent).items() if not name.endswith("-shm")} == before
    assert set_aside_if_damaged(wreck.checkpointed(database), NOW) is None
    nothing = database.parent / "nothing"
    nothing.mkdir()
    assert set_aside_if_damaged(nothing / "queue.db", NOW) is None
    assert list(nothing.iterdir()) == []
    assert set_aside_folders(database.parent) == []


@pytest.mark.parametrize("statements", [(), ("PRAGMA journal_mode = WAL",)])
def test_a_first_start_that_was_broken_off_is_no_damage(tmp_path, statements):
    """The file is there, but no table is yet, and there never was a result."""
    (tmp_path / "results").mkdir()
    (tmp_path / "queue.db").touch()
    execute(tmp_path / "queue.db", *statements)
    assert find_damage(tmp_path / "queue.db") is None


DAMAGED = {
    "no database": lambda database: database.write_bytes(b"This is no database at all. " * 400),
    "the header": lambda database: wreck.overwrite(database, 0, bytes(100)),
    "the first page": lambda database: wreck.overwrite(database, 0, wreck.noise(4096)),
    "cut in half": lambda database: os.truncate(database, database.stat().st_size // 2),
    "an inner page": lambda database: wreck.overwrite(
        database, (wreck.inner_page(database, "recipient", 0) - 1) * 4096, bytes(4096)
    ),
    "content": lambda database: wreck.overwrite(database, (wreck.content_page(database) - 1) * 4096, bytes(4096)),
    "a table is gone": lambda database: execute(database, "DROP TABLE owed"),
    "an index is gone": lambda database: execute(database, "DROP INDEX delivery_open"),
    "an index lacks a row": lambda database: execute(
        database,
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_schema SET sql = sql || ' WHERE id > 0' WHERE name = 'job_state'",
        "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'job_key')"
        " WHERE name = 'job_state'",
    ),
    "the version": lambda database: execute(database, "PRAGMA user_version = 0"),
    "the tally": lambda database: execute(database, "DELETE FROM tally WHERE state = 'held'"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_noticed_and_the_queue_set_aside(database, kind, reactor, told):
    """Unchanged, in a folder that only the daemon's user can look into; then a new queue begins in its place."""
    DAMAGED[kind](wreck.checkpointed(database))
    before = files(database.parent)
    aside = set_aside_if_damaged(database, NOW)
    assert aside is not None
    assert aside.why.isprintable()
    assert aside.folder == database.parent / FOLDER
    assert stat.S_IMODE(aside.folder.stat().st_mode) == 0o700
    assert files(aside.folder) == before
    assert files(database.parent) == {}
    store = SQLiteStore(database, reactor, told.journal, Random(1))
    assert store.count().queued == 0
    reactor.wait(store.close())


@pytest.mark.parametrize("at", [0, 0.2, 0.6])
def test_a_damaged_log_is_noticed(database, at):
    """Where transactions are in it that SQLite would pass over, as if they had never been; the log is set aside too."""
    wreck.overwrite(log_of(database), int(log_of(database).stat().st_size * at), wreck.noise(40))
    before = files(database.parent)
    aside = set_aside_if_damaged(database, NOW)
    assert aside is not None
    assert "log is damaged" in aside.why
    assert files(aside.folder) == before


@pytest.mark.parametrize("cut", [1, 2000, 4120])
def test_a_log_that_a_power_cut_tore_is_no_damage(database, cut):
    """Its last transaction was told to nobody."""
    log = log_of(database)
    os.truncate(log, log.stat().st_size - cut)
    assert find_damage(database) is None
    wreck.overwrite(log, log.stat().st_size - 4120, wreck.noise(3000))
    assert find_damage(database) is None


def test_the_rest_of_a_former_log_is_no_damage(database):
    """A log that was begun anew has frames of the one before behind it."""
    log = log_of(database)
    long = log.stat().st_size
    connection = apsw.Connection(str(database))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute("SELECT count(*) FROM job").fetchall()
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    for value in range(3):
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('probe', ?)", (value,))
    connection.close()
    assert log.stat().st_size == long
    assert find_damage(database) is None


@pytest.mark.parametrize("empty", [True, False])
def test_a_queue_that_is_gone_is_not_taken_for_a_new_one(database, empty):
    """A log without its database, or results without any job, tell that there was one."""
    database.unlink()
    if empty:
        database.touch()
    aside = set_aside_if_damaged(database, NOW)
    assert aside is not None
    assert (aside.folder / "queue.db-wal").exists()
    assert not log_of(database).exists()
    results = database.parent / "results"
    results.mkdir()
    (results / "order.json").touch()
    database.touch()
    assert "there are results" in str(find_damage(database))


def test_a_second_damage_has_a_folder_of_its_own(database):
    """Also within the same second."""
    wreck.checkpointed(database).write_bytes(b"x" * 5000)
    first = set_aside_if_damaged(database, NOW)
    database.write_bytes(b"y" * 5000)
    second = set_aside_if_damaged(database, NOW)
    assert first is not None
    assert second is not None
    assert (first.folder / "queue.db").read_bytes()[:1] == b"x"
    assert (second.folder / "queue.db").read_bytes()[:1] == b"y"
    assert set_aside_folders(database.parent) == [first.folder, second.folder]


class Killed(BaseException):
    """As by SIGKILL: nothing handles it."""


@pytest.mark.parametrize("moves", range(4))
def test_a_move_that_was_broken_off_is_completed(database, monkeypatch, moves):
    """Killed between any two moves: at the end the database is beside its log, in one folder."""
    wreck.overwrite(database, 0, b"no database")
    wreck.overwrite(log_of(database), 0, bytes(32))
    before = files(database.parent)

    synced: list[Path] = []

    def sync(directory: Path) -> None:
        synced.append(directory)
        if len(synced) > moves:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(damage, "_sync", sync)
        with pytest.raises(Killed):
            set_aside_if_damaged(database, NOW)
    set_aside_if_damaged(database, NOW + 60)
    (folder,) = set_aside_folders(database.parent)
    left = files(folder)
    left.pop("being-set-aside", None)  # where all had been moved
    assert left == before
    assert files(database.parent) == {}


def test_what_is_no_damage_is_left_to_whoever_opens_it(database, tmp_path):
    """A newer schema: opening it says what to do."""
    execute(wreck.checkpointed(database), "PRAGMA user_version = 99")
    assert set_aside_if_damaged(database, NOW) is None
    assert database.exists()


def test_a_locked_queue_is_not_damaged(database, monkeypatch):
    """Somebody is at work on it."""
    monkeypatch.setattr(damage, "_PATIENCE", 0)
    wreck.checkpointed(database)
    holder = apsw.Connection(str(database))
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE; UPDATE tally SET jobs = jobs")
    assert find_damage(database) is None
    holder.execute("ROLLBACK")
    holder.close()


def test_a_large_queue_is_checked_where_the_daemon_lives(database, monkeypatch):
    """All that waits; not the content, until the daemon has met damage while it ran: then everything is."""
    monkeypatch.setattr(damage, "_SMALL", 0)
    wreck.checkpointed(database)
    intact = database.read_bytes()
    wreck.overwrite(database, (wreck.inner_page(database, "delivery", 0) - 1) * 4096, bytes(4096))
    assert find_damage(database) is not None
    database.write_bytes(intact)
    wreck.overwrite(database, (wreck.content_page(database) - 1) * 4096, wreck.noise(4096))
    assert find_damage(database) is None
    assert "queue recover" in note_damage(database, apsw.CorruptError("database disk image is malformed"))
    assert set_aside_if_damaged(database, NOW) is not None
    assert not database.with_name("queue.db-damaged").exists()


def test_a_suspicion_that_proves_wrong_is_forgotten(database):
    """The mark goes with a check that finds nothing."""
    note_damage(database, apsw.CorruptError("so it seemed"))
    assert database.with_name("queue.db-damaged").exists()
    assert set_aside_if_damaged(database, NOW) is None
    assert not database.with_name("queue.db-damaged").exists()


def test_a_full_disk_is_no_suspicion(database):
    """Only damage is noted; the reason is told as before."""
    assert "disk is full" in note_damage(database, apsw.FullError(FULL))
    assert note_damage(database, StoreFailed("so")) == "so"
    assert not database.with_name("queue.db-damaged").exists()


def test_damage_that_cannot_be_noted_is_told_all_the_same(database):
    """With what was in the way."""
    database.with_name("queue.db-damaged").mkdir()
    assert "nor can this be noted" in note_damage(database, apsw.CorruptError("malformed"))


def test_a_queue_that_cannot_be_moved_stops_the_start(database, monkeypatch):
    """The error names the file; nothing is begun beside it."""
    wreck.checkpointed(database).write_bytes(b"x" * 5000)

    def rename(path: Path, to: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StoreFailed, match=r"queue\.db is damaged and cannot be set aside \(Permission denied\)"):
        set_aside_if_damaged(database, NOW)


def test_content_that_cannot_be_read_is_noted(reactor, open_store, submission, tmp_path):
    """Its reader is told, and the next start looks at all of the file."""
    store = open_store()
    reactor.wait(store.accept([submission(content=wreck.message(600_000, "large"))]))
    (claim,) = reactor.wait(store.claim("a.example", 1))
    page = wreck.content_page(wreck.copy(tmp_path / "queue.db", tmp_path / "copy"))
    wreck.checkpointed(tmp_path / "queue.db")
    wreck.overwrite(tmp_path / "queue.db", (page - 1) * 4096, b"\xff" * 4096)
    with pytest.raises(StoreFailed, match="deferd queue recover"):
        reactor.wait(store.read(claim, 0))
    assert (tmp_path / "queue.db-damaged").exists()


def test_damage_met_while_running_is_told_with_its_remedy(reactor, open_store, submission, told, tmp_path):
    """Nothing is acknowledged, nothing lost, and the store does not spin; the reason is there for /readyz too."""
    store = open_store()
    reactor.wait(store.accept([submission(name=f"job-{n}") for n in range(30)]))
    reactor.wait(store.close())
    store = open_store()
    page = wreck.inner_page(wreck.copy(tmp_path / "queue.db", tmp_path / "copy"), "recipient", 0)
    wreck.checkpointed(tmp_path / "queue.db")
    wreck.overwrite(tmp_path / "queue.db", (page - 1) * 4096, bytes(4096))
    accepted: list[object] = []
    store.accept([submission(name="late")]).add_both(accepted.append)
    reactor.advance(30)
    assert accepted == []
    assert not store.healthy
    assert 5 < store._commit._failures < 15
    (failed,) = told.of("store_failed")
    assert "restart deferd" in str(failed["why"])
    assert "deferd queue recover" in str(failed["why"])
    with pytest.raises(StoreFailed, match="deferd queue recover"):
        reactor.wait(store.probe())
    assert (tmp_path / "queue.db-damaged").exists()
    reactor.wait(store.close())
    assert isinstance(getattr(accepted[0], "value", None), StoreFailed)
