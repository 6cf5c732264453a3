"""What the daemon is at work on, noted where its own death does not erase it.

A file of a few slots in memory that the system keeps for us: to note something costs a copy of a few octets, no system
call, and whatever kills this process, the next one reads there what it was that its predecessor did last. Only the
death of the whole machine may lose it; then it tells nothing, or something old, of jobs that are over.

    slot 0   the delivery that was worked on a moment ago, and the last phase that it had got through
    slot 1   the dropped file that is being read on the reactor's thread
    slot 2   the dropped file that is being read in a thread
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from deferred.interfaces import TimerHandle, TimeSource
from service.queue.aftermath import AtWork, WorkedOn
from service.queue.ids import id_number
from service.queue.store import Source

NAME: Final = "last-work"
_SLOT: Final = 1024
_SLOTS: Final = 3
SURVIVED: Final = 0.1
"""Seconds after which what was done is taken to have done no harm."""
_DELIVERY: Final = 0
HERE: Final = 1
IN_THREAD: Final = 2


class LastWork:
    """A listener of the journal, which notes steps of deliveries; the intake tells it of files.

    `before` is what the predecessor was at work on when it died. What this process has survived by a moment is not to
    blame for a later death, of which most come from outside: the note of a delivery ends after `SURVIVED`.
    """

    def __init__(self, directory: Path, clock: TimeSource) -> None:
        """Read what the predecessor noted. Where there is no room for the file nothing is noted."""
        self.before = AtWork()
        self._clock = clock
        self._noted_at = 0.0
        self._timer: TimerHandle | None = None
        self._memory: mmap.mmap | None = None
        with contextlib.suppress(OSError):  # a full disk: then nothing is noted, and mail goes on
            self._memory = _open(directory / NAME)
        if self._memory is not None:
            self.before = AtWork(tuple(self._deliveries()), tuple(self._files()))

    def begin(self) -> None:
        """The store knows of what was `before`: from now on it is our work that is noted."""
        for slot in range(_SLOTS):
            self._note(slot, b"")

    def _deliveries(self) -> Iterator[WorkedOn]:
        id, _, phase = self._line(_DELIVERY).decode("ascii", "replace").partition(" ")
        if id_number(id) is not None:
            yield WorkedOn(id, phase or None)

    def _files(self) -> Iterator[Source]:
        for slot in (HERE, IN_THREAD):
            with contextlib.suppress(msgspec.DecodeError):  # nothing there, or cut short
                yield msgspec.json.decode(self._line(slot), type=Source)

    def _line(self, slot: int) -> bytes:
        assert self._memory is not None
        return self._memory[slot * _SLOT : (slot + 1) * _SLOT].partition(b"\n")[0]

    def _note(self, slot: int, what: bytes) -> None:
        if self._memory is not None:
            start = slot * _SLOT
            self._memory[start : start + len(what) + 1] = what + b"\n"

    def __call__(self, event: str, facts: dict[str, object]) -> None:
        """Note the beginning of an attempt, and each phase that it has got through."""
        if event == "step":
            self._work(f"{facts['id']} {facts['phase']}")
        elif event == "attempt_started":
            self._work(str(facts["id"]))

    def _work(self, what: str) -> None:
        self._note(_DELIVERY, what.encode())
        self._noted_at = self._clock.time()
        if self._timer is None and self._memory is not None:
            self._timer = self._clock.call_later(SURVIVED, self._survived)

    def _survived(self) -> None:
        left = self._noted_at + SURVIVED - self._clock.time()
        if left > 0:
            self._timer = self._clock.call_later(left, self._survived)
        else:
            self._timer = None
            self._note(_DELIVERY, b"")

    def reading(self, file: Source, slot: int = HERE) -> None:
        """This file is read now."""
        self._note(slot, msgspec.json.encode(file))

    def read(self, slot: int = HERE) -> None:
        """It has been read, and we live."""
        self._note(slot, b"")

    def close(self) -> None:
        """An end in good order: nothing is to blame for it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for slot in range(_SLOTS):
            self._note(slot, b"")
        self.let_go()

    def let_go(self) -> None:
        """Note nothing any more, and leave what is noted."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None


def _open(path: Path) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # The room is taken now: to write to a page for which the disk has none would kill us.
        os.posix_fallocate(fd, 0, _SLOT * _SLOTS)
        return mmap.mmap(fd, _SLOT * _SLOTS)
    finally:
        os.close(fd)
