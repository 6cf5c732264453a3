"""A damaged database is noticed at the start, and set aside so that mail goes on.

Noticed is a file that is no database, tables that are missing, a log with transactions that SQLite does not see, and
whatever SQLite's own check finds: everywhere up to 64 MiB, and also beyond where the last daemon met damage while it
ran (`queue.db-damaged` says so). Else only what the daemon lives by is checked in a larger file: everything that waits
to be delivered, and the ends of the other tables; damage within the content or among ended jobs is met later. Nothing
notices octets that were overwritten within a value, or a log that was cut or removed between two transactions.

Setting aside moves queue.db and its log, unchanged, into a folder of their own; nothing is deleted but the shared
memory's file. The database goes first and the log follows, each move made durable; a note in the folder, there until
all is done, lets the next start complete a move that was broken off. A lock, a full disk, missing rights and a newer
schema are no damage.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

import apsw
import msgspec

from deferred.failure import Failure
from service.queue.frames import read_log
from service.queue.schema import FAULTS, TABLES, UPGRADES, VERSION, explain
from service.queue.store import StoreFailed

FOLDER: Final = "damaged-"
REMEDY: Final = "deferd queue recover"
_MARK: Final = "-damaged"
_UNDER_WAY: Final = "being-set-aside"
_SMALL: Final = 64 * 1024 * 1024
_PATIENCE: Final = 10_000  # milliseconds for a lock that a command has
_DAMAGE: Final = (apsw.CorruptError, apsw.NotADBError)
_LIVED_BY: Final = ("meta", "tally", "delivery", "owed", "retried")
_ENDS: Final = (
    "SELECT min(id), max(id) FROM job",
    "SELECT min(job), max(job) FROM piece",
    "SELECT min(job), max(job) FROM content",
    "SELECT (SELECT 1 FROM recipient ORDER BY job LIMIT 1), (SELECT 1 FROM recipient ORDER BY job DESC LIMIT 1)",
)
_STATES: Final = 5  # rows of the tally


class SetAside(msgspec.Struct, frozen=True):
    """A queue that was set aside: why, and the folder that has it now."""

    why: str
    folder: Path


def set_aside_folders(directory: Path) -> list[Path]:
    """What was ever set aside in the queue's directory, oldest first. Raises `OSError`."""
    return sorted(path for path in directory.glob(f"{FOLDER}*") if path.is_dir())


def set_aside_if_damaged(database: Path, now: float) -> SetAside | None:
    """Check the queue before anything opens it; where it is damaged, move it out of the way.

    To be called by who has the directory to itself. Raises `StoreFailed` where it cannot be moved.
    """
    try:
        why = find_damage(database)
        if why is None:
            _mark(database).unlink(missing_ok=True)
            return None
        return SetAside(why, _set_aside(database, now))
    except OSError as error:
        raise StoreFailed(f"{database} is damaged and cannot be set aside ({error.strerror}): move it away") from error


def note_damage(database: Path, error: BaseException, connection: apsw.Connection | None = None) -> str:
    """What is wrong with the store and what may help; if it is damaged, the next start checks all of it.

    `connection` is the one that met the error, where there is one: it knows what the system said.
    """
    why = str(error) if isinstance(error, StoreFailed) else explain(database, error, connection)
    if isinstance(error, _DAMAGE) or isinstance(error.__cause__, _DAMAGE):
        try:
            os.close(os.open(_mark(database), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError as failure:
            why += f" (nor can this be noted in {_mark(database)}: {failure.strerror})"
    return why


def as_store_failed(failure: Failure, database: Path) -> NoReturn:
    """An errback that passes on what went wrong with the store as `StoreFailed`, having noted damage."""
    if failure.check(*FAULTS):
        raise StoreFailed(note_damage(database, failure.value)) from failure.value
    failure.raise_exception()


def find_damage(database: Path) -> str | None:
    """What is damaged, or None: also where it cannot be looked at, which opening it will say. Raises `OSError`."""
    log = _beside(database, "-wal")
    octets = _octets(log)
    size = _octets(database)
    if not size:
        return _gone(database, size, octets)
    try:
        with _looking(database) as connection:
            whole = size + (octets or 0) <= _SMALL or _mark(database).exists()
            why = (
                _missing(connection, _has_results(database)) or _unseen(connection, log) or _checked(connection, whole)
            )
    except _DAMAGE as error:
        return str(error)
    except FAULTS:
        return None
    except apsw.Error as error:  # no statement of ours is wrong for a queue that is in order
        return str(error)
    return why


def _gone(database: Path, size: int | None, log: int | None) -> str | None:
    """Whether there was a queue where there is none now."""
    if log:
        return "there is a log, but no database" if size is None else "there is a log, but the database is empty"
    if size is None:
        return None
    return "it is empty, but there are results" if _has_results(database) else None


def _has_results(database: Path) -> bool:
    results = database.parent / "results"
    return results.is_dir() and any(results.iterdir())


@contextlib.contextmanager
def _looking(database: Path) -> Iterator[apsw.Connection]:
    """A connection that leaves the file and its log as they are."""
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.set_busy_timeout(_PATIENCE)
        yield connection
    finally:
        connection.close(True)


def _missing(connection: apsw.Connection, results: bool) -> str | None:
    """What of the tables is not there."""
    version = connection.pragma("user_version")
    there = {
        str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
    }
    if version == 0 and not there:
        return "it has no tables, but there are results" if results else None  # a first start that was broken off
    if version == 0:
        return "it has tables, but no version"
    if version < 0:
        return "its version is none"
    if version not in (VERSION, *UPGRADES):
        return None  # opening it says what to do
    coming = [UPGRADES[older] for older in range(version, VERSION)]
    missing = sorted(_names(TABLES) - _names(*coming) - there)
    return f"it has no {', '.join(missing)}" if missing else None


def _names(*statements: str) -> set[str]:
    """Of the tables and indexes that these make."""
    with contextlib.closing(apsw.Connection(":memory:")) as connection:
        for each in statements:
            connection.execute(each)
        rows = connection.execute("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
        return {str(name) for (name,) in rows}


def _unseen(connection: apsw.Connection, log: Path) -> str | None:
    """Whether the log has transactions that SQLite does not see."""
    if not _octets(log):
        return None
    seen, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    page_size = connection.pragma("page_size")
    fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = read_log(fd, page_size, max(0, seen))
    finally:
        os.close(fd)
    return "its log is damaged: transactions in it cannot be read" if found.damaged else None


def _checked(connection: apsw.Connection, whole: bool) -> str | None:
    """What SQLite finds."""
    if connection.pragma("user_version") not in (VERSION, *UPGRADES):
        return None  # opening it says what to do
    checks = ["PRAGMA integrity_check(1)"] if whole else [f"PRAGMA integrity_check({name})" for name in _LIVED_BY]
    for check in checks:
        said = connection.execute(check).get
        if said != "ok":
            return " ".join(str(said).split())
    for query in _ENDS:
        connection.execute(query).fetchall()
    if connection.execute("SELECT count(*) FROM tally").get != _STATES:
        return "the tally of jobs is not complete"
    return None


def _set_aside(database: Path, now: float) -> Path:
    directory = database.parent
    folder = _broken_off(database) or _new_folder(directory, now)
    (folder / _UNDER_WAY).touch(mode=0o600)
    for name in ("", "-journal", "-wal"):
        path = _beside(database, name)
        if _octets(path) or (path == database and path.exists()):
            path.rename(folder / path.name)
            # The log must not be gone before the database is: what is left would pass for an older, sound queue.
            _sync(folder)
            _sync(directory)
    for name in ("-journal", "-wal", "-shm", _MARK):  # of the first two what is empty
        _beside(database, name).unlink(missing_ok=True)
    (folder / _UNDER_WAY).unlink()
    return folder


def _broken_off(database: Path) -> Path | None:
    """The folder that has the database already and waits for what is beside it."""
    if database.exists():
        return None
    waiting = [path for path in set_aside_folders(database.parent) if (path / _UNDER_WAY).exists()]
    return waiting[-1] if waiting else None


def _new_folder(directory: Path, now: float) -> Path:
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1, 1000):
        folder = directory / (f"{FOLDER}{stamp}" + (f"-{number}" if number > 1 else ""))
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            return folder
    raise FileExistsError(0, "there are too many folders for one second", str(directory))


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _octets(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _mark(database: Path) -> Path:
    return _beside(database, _MARK)


def _beside(database: Path, ending: str) -> Path:
    return database.with_name(database.name + ending)
