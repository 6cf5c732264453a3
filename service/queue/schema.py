"""The tables, and how a connection to them is opened.

    job        one message; stays for 7 days after its end, for its result, its key and its dropped file's identity
    recipient  one address of a job and what its last try brought; `site` is where it goes next
    delivery   (job, site): the waiting recipients that travel together; gone when none of them waits
    content    the message of a job that fits in one piece; gone when the job ends
    piece      the message of a larger job, in rows of 256 KiB; pieces without an unfinished job are left-overs
    alias      further results of a job: of jobs with its key that were not taken again
    repeated   their dropped files, so that these are known again
    suspect    dropped files over which a daemon has died, while it read them
    owed       jobs whose result file does not yet show how they stand; owed_alias, aliases
    retried    sites that a command asked to be tried now
    rest       sites whose hosts failed, and that have not served since (store.Rest)
    pace       sites that are served by a rate (store.Pace)
    tally      how many jobs there are in each state, kept by triggers, so that nobody counts a million rows
    meta       single values: the routes' fingerprint, the last probe, what was seen of the clocks (calendar.Seen)

All times are queue time (calendar), but for `not_before`, which is somebody's wall clock's.

`delivery_open` serves everything the scheduler asks: what is due at a site (state, site, priority, due), which sites
there are (a skip-scan by site), and what a dead daemon had claimed (state). Nothing of it grows with a backlog
elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import apsw

from service.queue.store import StoreFailed

VERSION: Final = 4
PIECE: Final = 256 * 1024
"""Octets of content in one row: content up to this size is one piece and travels with its claim."""

READY: Final = 0
CLAIMED: Final = 1
HELD: Final = 2

_VERSION_3: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
CREATE TABLE tally (state TEXT PRIMARY KEY, jobs INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO tally VALUES ('queued', 0), ('held', 0), ('delivered', 0), ('failed', 0), ('partly', 0);

CREATE TABLE job (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,          -- the dropped file's name without its ending
    result TEXT NOT NULL,        -- what its result file is called, without the ending
    shown INTEGER NOT NULL,      -- whether it gets a result file
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    sender TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    begins_at REAL NOT NULL,     -- when it may first be tried: its age counts from here
    not_before REAL,             -- the wall clock's time to begin at; NULL where it began with its acceptance
    expires_at REAL,
    finished_at REAL,
    in_doubt TEXT NOT NULL,
    size INTEGER NOT NULL,
    eight_bit INTEGER NOT NULL,
    pieces INTEGER NOT NULL,
    tags TEXT NOT NULL,          -- a JSON object
    key TEXT,
    deaths INTEGER NOT NULL DEFAULT 0,   -- how often in a row a daemon died at work on it, in the same phase
    died_in TEXT,                        -- after which; NULL: it is not known
    inode INTEGER, mtime_ns INTEGER, octets INTEGER, file TEXT   -- the dropped file
) STRICT;
CREATE INDEX job_state ON job (state);
CREATE UNIQUE INDEX job_result ON job (result);
CREATE INDEX job_finished ON job (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX job_scheduled ON job (begins_at) WHERE not_before IS NOT NULL;
CREATE INDEX job_key ON job (key) WHERE key IS NOT NULL;
CREATE INDEX job_deaths ON job (deaths) WHERE deaths > 0;
CREATE UNIQUE INDEX job_source ON job (inode, mtime_ns, octets, file) WHERE inode IS NOT NULL;
CREATE TRIGGER job_added AFTER INSERT ON job BEGIN
    UPDATE tally SET jobs = jobs + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER job_moved AFTER UPDATE OF state ON job WHEN OLD.state <> NEW.state BEGIN
    UPDATE tally SET jobs = jobs + 1 WHERE state = NEW.state;
    UPDATE tally SET jobs = jobs - 1 WHERE state = OLD.state;
END;
CREATE TRIGGER job_gone AFTER DELETE ON job BEGIN
    UPDATE tally SET jobs = jobs - 1 WHERE state = OLD.state;
END;

CREATE TABLE recipient (
    job INTEGER NOT NULL,
    position INTEGER NOT NULL,
    address TEXT NOT NULL,
    site TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    code INTEGER, enhanced TEXT, text TEXT, host TEXT, phase TEXT, at REAL,
    PRIMARY KEY (job, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE delivery (
    job INTEGER NOT NULL,
    site TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,    -- 0 ready, 1 claimed, 2 held
    due REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    rested INTEGER NOT NULL DEFAULT 0,   -- whether due is the end of its site's rest
    doubts INTEGER NOT NULL DEFAULT 0,   -- how often a server may have got it and nobody knows
    warned INTEGER NOT NULL DEFAULT 0,
    lease INTEGER NOT NULL DEFAULT 0,    -- which claim has it: a settlement counts only for the claim it answers
    dot TEXT,                            -- the host that the final dot may have gone to, until this is settled
    hold INTEGER NOT NULL DEFAULT 0,     -- to be held as soon as its claim ends
    priority INTEGER NOT NULL DEFAULT 1, -- 0 high, 1 normal, 2 bulk
    PRIMARY KEY (job, site)
) STRICT, WITHOUT ROWID;
CREATE INDEX delivery_open ON delivery (state, site, priority, due);

CREATE TABLE content (job INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE piece (
    job INTEGER NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (job, number)
) STRICT;
CREATE TABLE alias (result TEXT PRIMARY KEY, job INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX alias_job ON alias (job);
CREATE TABLE repeated (
    inode INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, octets INTEGER NOT NULL, file TEXT NOT NULL,
    job INTEGER NOT NULL, PRIMARY KEY (inode, mtime_ns, octets, file)
) STRICT, WITHOUT ROWID;
CREATE INDEX repeated_job ON repeated (job);
CREATE TABLE suspect (
    file TEXT NOT NULL, inode INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, octets INTEGER NOT NULL,
    deaths INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (file, inode, mtime_ns, octets)
) STRICT, WITHOUT ROWID;
CREATE TABLE owed (job INTEGER PRIMARY KEY, version INTEGER NOT NULL) STRICT;
CREATE TABLE owed_alias (
    job INTEGER NOT NULL, result TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (job, result)
) STRICT, WITHOUT ROWID;
CREATE TABLE retried (site TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE rest (
    site TEXT PRIMARY KEY, ends REAL NOT NULL, failures INTEGER NOT NULL, since REAL NOT NULL, why TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
_VERSION_4: Final = """
CREATE TABLE pace (site TEXT PRIMARY KEY, rate REAL NOT NULL, next REAL NOT NULL) STRICT, WITHOUT ROWID;
"""
TABLES: Final = "".join((_VERSION_3, _VERSION_4))
UPGRADES: Final = {3: _VERSION_4}
"""What makes of a version the next one."""

FAULTS: Final = (
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.FullError,
    apsw.IOError,
    apsw.LockedError,
    apsw.NoMemError,
    apsw.NotADBError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    apsw.ReadOnlyError,
)
"""What is wrong with the store or its disk, not with an operation."""


def open_writer(path: Path, *, busy_timeout: float = 0, upgrading: bool = False) -> apsw.Connection:
    """A connection that may write; the database is made, readable by its owner only, where there is none.

    `busy_timeout` is how many seconds a statement may wait for another's lock. `upgrading`: an older version becomes
    this one, for good: who says so has the directory's lock, lest an older daemon be at work. Raises `StoreFailed`.
    """
    try:
        _make_file(path)
        connection = _connect(path, apsw.SQLITE_OPEN_READWRITE)
        # Opening and the first statements may meet the lock of a command that does the same; that is over soon.
        connection.set_busy_timeout(10_000)
        if connection.readonly("main"):
            raise apsw.ReadOnlyError("it can only be read")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA cache_size = -2048")
        _make_tables(connection, path, upgrading)
        connection.set_busy_timeout(int(busy_timeout * 1000))
    except (*FAULTS, OSError) as error:
        raise StoreFailed(explain(path, error)) from error
    return connection


def make_durable(connection: apsw.Connection) -> None:
    """Copy what is in the log into the database, and sync that. Raises `apsw.Error`.

    A transaction whose COMMIT failed, because the log could not be synced, comes back if the log is read anew while the
    system remembers its octets: it looks committed, and was perhaps never on the disk. So nobody who has opened a log
    that somebody else left relies on it before this.
    """
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(FULL)").get
    if busy:
        raise apsw.BusyError("the log is in use")


def open_reader(path: Path, *, busy_timeout: float) -> apsw.Connection:
    """A connection that only looks. Raises `StoreFailed`."""
    try:
        if not path.exists():
            raise StoreFailed(f"{path} does not exist: no deferd has worked in this directory yet")
        connection = _connect(path, apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(int(busy_timeout * 1000))
        connection.execute("PRAGMA temp_store = MEMORY")  # there may be no directory to write to
        _check_version(connection, path)
        _fill_in(connection)
    except (*FAULTS, OSError) as error:
        raise StoreFailed(explain(path, error)) from error
    return connection


def _connect(path: Path, flags: int) -> apsw.Connection:
    """A connection that keeps its plans. This SQLite (with STAT4) else makes a statement's plan anew whenever other
    values are bound to it, in case these call for another: for each run of nearly every statement here, and that costs
    ten times what the statement does."""
    connection = apsw.Connection(str(path), flags=flags)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return connection


def _make_file(path: Path) -> None:
    # Never opened where it exists: closing any descriptor of the file gives up all of this process's POSIX locks on it.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _make_tables(connection: apsw.Connection, path: Path, upgrading: bool) -> None:
    if connection.pragma("user_version") in (0, *(UPGRADES if upgrading else ())):
        connection.execute("BEGIN IMMEDIATE")
        # Asked again under the lock: a command may have made them meanwhile.
        version = connection.pragma("user_version")
        if version == 0:
            connection.execute(TABLES)
            version = VERSION
        while version in UPGRADES:
            connection.execute(UPGRADES[version])
            version += 1
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    _check_version(connection, path)
    _fill_in(connection)


def _check_version(connection: apsw.Connection, path: Path) -> None:
    version = connection.pragma("user_version")
    if version == 0:
        raise StoreFailed(f"{path} is not yet a queue: start deferd first")
    if version < VERSION and version not in UPGRADES:
        raise StoreFailed(
            f"{path} was written by an older deferd, before the first release (schema {version}, known {VERSION}):"
            " let that one deliver what is in it, then move it aside"
        )
    if version > VERSION:
        raise StoreFailed(f"{path} was written by a newer deferd (schema {version}, known {VERSION}): upgrade this one")


def _fill_in(connection: apsw.Connection) -> None:
    """What an older version lacks is there, and empty, for this connection alone."""
    for older in range(connection.pragma("user_version"), VERSION):
        connection.execute(UPGRADES[older].replace("CREATE TABLE", "CREATE TEMP TABLE"))


def explain(path: Path, error: BaseException, connection: apsw.Connection | None = None) -> str:
    """What is wrong with the store at `path`, and what may help; of the `connection` that failed it is known what the
    system said."""
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        remedy = "restart deferd, which sets it aside and goes on, then run `deferd queue recover`"
        return f"{path} is damaged ({error}): {remedy}"
    if isinstance(error, apsw.FullError):
        return f"{path} cannot grow ({error}): the disk is full; free some space"
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return f"{path} is locked by another process ({error})"
    if isinstance(error, PermissionError | apsw.ReadOnlyError | apsw.PermissionsError):
        return f"{path} cannot be written ({error}): it and its directory must belong to the user that runs deferd"
    if isinstance(error, apsw.IOError) and connection is not None and connection.system_errno:
        return f"{path}: {error} ({os.strerror(connection.system_errno)})"
    return f"{path}: {error}"
