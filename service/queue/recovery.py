"""What was saved of a damaged queue goes into the present one, and what cannot be sent is written down beside it.

    DIRECTORY/damaged-20261125T213000Z/    what the daemon set aside: queue.db and its log, never changed
        recovered.json                     how its recovery went; a folder without it has not been gone through
        saved/ID.json, saved/ID.eml        what is known of a job that is not whole

Each job is a transaction's, with all that belongs to it; one whose id the present queue has is left as it is there, so
that a recovery may be broken off, or done again, at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import apsw
import msgspec

from service.queue import owing
from service.queue.calendar import BootClock, resumed
from service.queue.damage import set_aside_folders
from service.queue.ids import id_text
from service.queue.owing import ResultPolicy
from service.queue.restoring import Fate, Restorer
from service.queue.salvage import Salvage, Salvaged
from service.queue.schema import FAULTS, explain, open_writer
from service.queue.sqlite import DATABASE
from service.queue.store import StoreFailed
from service.queue.timekeeping import offset_of, read_seen

NOTE: Final = "recovered.json"
SAVED: Final = "saved"
_PATIENCE: Final = 10.0  # seconds to wait for a lock that the daemon has for milliseconds
_JOBS: Final = 100  # in one transaction, or fewer:
_OCTETS: Final = 1024 * 1024


class Trouble(msgspec.Struct, frozen=True):
    """A job that is not whole: what is wrong, and the files that hold what is known of it."""

    id: str
    why: str
    files: tuple[str, ...] = ()


class Report(msgspec.Struct, kw_only=True):
    """How a recovery went: of how many jobs there is a trace, and what became of them.

    `queued` wait to be sent, `held` for somebody to decide, `ended` are remembered; `present` were in the queue
    already, `again` have been handed in again meanwhile. `parts` cannot be sent (or are remembered in part only), and
    of those `lost` nothing is left. `held_in_doubt` were held because they may have been sent since they were read.
    """

    source: str
    seen: int = 0
    queued: int = 0
    held: int = 0
    held_in_doubt: int = 0
    ended: int = 0
    present: int = 0
    again: int = 0
    log_damaged: bool = False
    parts: list[Trouble] = []
    lost: list[Trouble] = []

    @property
    def complete(self) -> bool:
        """Whether all that was seen was saved."""
        return not self.parts and not self.lost


def waiting_folders(directory: Path) -> list[Path]:
    """What was set aside in `directory` and has not been gone through, oldest first. Raises `OSError`."""
    return [folder for folder in set_aside_folders(directory) if not (folder / NOTE).exists()]


def recover(
    source: Path,
    directory: Path,
    wall_time: Callable[[], float],
    results: ResultPolicy = "all",
    boot: BootClock | None = None,
) -> Report:
    """Put what can be saved of `source` (a folder that was set aside, or a database) into the queue in `directory`.

    A running daemon is to be poked afterwards. `boot` tells a jump of the wall clock from time that passed.
    Raises `StoreFailed` where there is nothing to read, or the present queue cannot be written, and `OSError` where
    what was saved cannot be written down.
    """
    database = source / DATABASE if source.is_dir() else source
    present = directory / DATABASE
    if not database.exists():
        raise StoreFailed(f"{database} does not exist: name the folder that was set aside")
    if present.exists() and present.samefile(database):
        raise StoreFailed(f"{database} is the queue itself: start deferd, which sets it aside if it is damaged")
    writer = open_writer(present, busy_timeout=_PATIENCE)
    try:
        with Salvage(database) as salvage:
            report = Report(source=str(source), log_damaged=salvage.log_damaged)
            offset = resumed(read_seen(writer), wall_time(), boot)
            shift = offset_of(salvage.meta.get("clock")) - offset
            restorer = Restorer(writer, shift)
            recovery = _Recovery(writer, restorer, database.parent, lambda: wall_time() - offset, results, report)
            recovery.run(salvage.jobs())
            _let_reroute(writer, salvage.meta.get("routes"))
    except FAULTS as error:
        raise StoreFailed(explain(present, error)) from error
    finally:
        writer.close()
    _write(database.parent / NOTE, msgspec.json.encode(report) + b"\n")
    return report


def _let_reroute(writer: apsw.Connection, routes: object) -> None:
    """Where the jobs have their sites by other routes than the present ones, the next start or reload goes through the
    queue; a site that is no more a running daemon notices by itself."""
    writer.execute("UPDATE meta SET value = '' WHERE name = 'routes' AND value IS NOT ?", (routes,))


class _Recovery:
    def __init__(
        self,
        writer: apsw.Connection,
        restorer: Restorer,
        folder: Path,
        queue_time: Callable[[], float],
        results: ResultPolicy,
        report: Report,
    ) -> None:
        self._writer = writer
        self._restorer = restorer
        self._folder = folder
        self._queue_time = queue_time
        self._results: ResultPolicy = results
        self._report = report

    def run(self, jobs: Iterable[Salvaged]) -> None:
        """Go through them, some in each transaction, so that a daemon beside us commits in between."""
        for batch in _batches(jobs):
            fit = [job for job in batch if job.fit]
            fates = self._insert(fit) if fit else []
            for job, fate in zip(fit, fates, strict=True):
                setattr(self._report, fate, getattr(self._report, fate) + 1)
                self._report.held_in_doubt += fate == "held" and job.doubtful
            for job in batch:
                self._report.seen += 1
                if job.why is not None:
                    self._write_down(job)

    def _insert(self, jobs: list[Salvaged]) -> list[Fate]:
        writer = self._writer
        writer.execute("BEGIN IMMEDIATE")
        try:
            now = self._queue_time()
            fates = [self._restorer.put_back(job, now, hold=job.doubtful) for job in jobs]
            changed = [
                (job.id, fate == "ended")
                for job, fate in zip(jobs, fates, strict=True)
                if fate in ("queued", "held") or (fate == "ended" and job.owed)
            ]
            owing.owe(writer, changed, self._results, int(now * 1000))
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise
        return fates

    def _write_down(self, salvaged: Salvaged) -> None:
        id, why = id_text(salvaged.id & (1 << 60) - 1), salvaged.why or ""
        if salvaged.nothing:
            self._report.lost.append(Trouble(id, why))
            return
        saved = self._folder / SAVED
        saved.mkdir(mode=0o700, exist_ok=True)
        known = {
            "id": id,
            "why": why,
            "job": salvaged.job,
            "recipients": salvaged.recipients,
            "deliveries": salvaged.deliveries,
            "content": None if salvaged.content is None else len(salvaged.content),
        }
        files = {saved / f"{id}.json": msgspec.json.encode(known) + b"\n"}
        if salvaged.content:
            files[saved / f"{id}.eml"] = salvaged.content
        for path, data in files.items():
            _write(path, data)
        self._report.parts.append(Trouble(id, why, tuple(map(str, files))))


def _batches(jobs: Iterable[Salvaged]) -> Iterator[list[Salvaged]]:
    batch: list[Salvaged] = []
    octets = 0
    for job in jobs:
        batch.append(job)
        octets += len(job.content or b"")
        if len(batch) >= _JOBS or octets >= _OCTETS:
            yield batch
            batch, octets = [], 0
    if batch:
        yield batch


def _write(path: Path, data: bytes) -> None:
    """Write a file that nobody else reads, all or nothing, and durably."""
    temporary = path.with_name(f".{path.name}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
