"""Noticing files in new/: inotify tells of each, and a scan, at the start and now and then, finds what it missed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from deferred.interfaces import Reactor, TimerHandle
from service.journal import Journal
from service.queue.inotify import CLOSE_WRITE, MOVED_TO, Inotify
from service.queue.leftovers import Trouble

_SCAN_EVERY: Final = 30.0
_SCAN_SLICE: Final = 500
_LATER: Final = 1.0


class Watch:
    """Calls `noticed(name, closed)` for each name that comes, and `found(name)` for each that is there.

    `closed` tells that whoever wrote the file has closed it, or renamed it into place. `crowded` says whether a scan is
    to wait until what was told of has been seen to; `passed` is called after some calls. That the directory cannot be
    read is `trouble`.
    """

    def __init__(
        self,
        reactor: Reactor,
        journal: Journal,
        directory: Path,
        *,
        noticed: Callable[[str, bool], object],
        found: Callable[[str], object],
        passed: Callable[[], object],
        crowded: Callable[[], bool],
        trouble: Trouble,
    ) -> None:
        self._reactor = reactor
        self._journal = journal
        self._directory = directory
        self._noticed = noticed
        self._found = found
        self._passed = passed
        self._crowded = crowded
        self._trouble = trouble
        self._timer: TimerHandle | None = None
        self._scanning: Iterator[os.DirEntry[str]] | None = None
        self._inotify: Inotify | None = None
        self._watched: tuple[int, int] | None = None  # device and inode of the directory that is, if inotify works
        self._running = False

    def start(self) -> None:
        """Watch, and look through what is there."""
        self._running = True
        self.scan()

    def stop(self) -> None:
        """Tell of nothing any more."""
        self._running = False
        self._stop_watching()
        if self._timer is not None:
            self._timer.cancel()

    def _keep_watching(self) -> None:
        """Watch the directory that has the name now: it may be another than before. Raises `OSError` without one."""
        status = self._directory.stat()
        if (status.st_dev, status.st_ino) == self._watched:
            return
        self._stop_watching()
        self._watched = status.st_dev, status.st_ino
        try:
            self._inotify = Inotify(self._directory)
            self._reactor.add_reader(self._inotify.fileno(), self._read)
        except OSError as error:
            self._journal.tell("watch_failed", why=str(error))

    def _stop_watching(self) -> None:
        self._watched = None
        if self._inotify is not None:
            self._reactor.remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None

    def scan(self) -> None:
        """Look through the directory, some entries a turn, and again after a while."""
        if not self._running or self._scanning is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._keep_watching()
            self._scanning = iter(os.scandir(self._directory))
        except OSError as error:
            self._cannot_be_read(error)
            return
        self._scan_some()

    def _scan_some(self) -> None:
        if not self._running:
            return
        if self._crowded():
            self._timer = self._reactor.call_later(0.01, self._scan_some)
            return
        try:
            whole = self._find_some()
        except OSError as error:
            self._cannot_be_read(error)
        else:
            if whole:
                self._scanning = None
                self._trouble.is_over("scan")
                every = _SCAN_EVERY if self._inotify is not None else _LATER
                self._timer = self._reactor.call_later(every, self.scan)
            else:
                self._timer = self._reactor.call_soon(self._scan_some)
        self._passed()

    def _find_some(self) -> bool:
        """Tell of the next entries; True if those were the last."""
        for _ in range(_SCAN_SLICE):
            entry = next(self._scanning, None) if self._scanning is not None else None
            if entry is None:
                return True
            self._found(entry.name)
        return False

    def _cannot_be_read(self, error: OSError) -> None:
        self._scanning = None
        self._trouble.begins("scan", f"{self._directory} cannot be read: {error.strerror}")
        self._timer = self._reactor.call_later(_LATER, self.scan)

    def _read(self) -> None:
        for event in self._inotify.read() if self._inotify is not None else ():
            if event.gone:
                self._stop_watching()
                self._scanning = None
                self.scan()
                break
            if event.overflow:
                self.scan()
            else:
                self._noticed(event.name, bool(event.mask & (CLOSE_WRITE | MOVED_TO)))
        self._passed()
