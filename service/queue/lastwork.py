"""What the daemon is at work on, noted where its own death does not erase it.

A file in memory that the system keeps for us: to note something costs a copy of a few octets, no system call, and
whatever kills this process, the next one reads there what it was that its predecessor did last. Only the death of the
whole machine may lose it; then it tells nothing, or something old, of jobs that are over.

    slot 0   the dropped file that is being read on the reactor's thread
    slot 1   the dropped file that is being read in a thread
    notes    a ring of the latest steps of deliveries, whichever they were: the job, the last phase that it had got
             through, when, and the number of the note
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec

from deferred.interfaces import TimerHandle, TimeSource
from service.queue.aftermath import AtWork
from service.queue.ids import id_number
from service.queue.store import Source
from service.queue.suspects import AT_ONCE, WorkedOn

NAME: Final = "last-work"
HERE: Final = 0
IN_THREAD: Final = 1
_SLOT: Final = 1024
_RING: Final = 2 * _SLOT
"""Where the notes begin."""
_NOTE: Final = struct.Struct("<12s8sdQ")
NOTES: Final = 4096
"""So many are kept: more than a daemon at its fastest makes within `SURVIVED`, and than it may have connections."""
_SIZE: Final = _RING + NOTES * _NOTE.size

SURVIVED: Final = 0.2
"""Seconds after which what was done is taken to have done no harm."""
_MOMENT: Final = AT_ONCE * 1.25
"""Seconds without work after which it is noted that time goes on, as it is again after `SURVIVED`."""

LISTENS_TO: Final = ("attempt_started", "step")


class LastWork:
    """A listener of the journal to the events in `LISTENS_TO`, deliveries' steps; the intake tells it of files.

    `before` is what the predecessor was at work on when it died. What this process has survived by a moment is not to
    blame for a later death, of which most come from outside: a delivery is not among them after `SURVIVED`.
    """

    def __init__(self, directory: Path, clock: TimeSource) -> None:
        """Read what the predecessor noted. Where there is no room for the file, nobody will read what is noted."""
        self._clock = clock
        self._numbers = count(1)
        self._worked_at = 0.0
        self._watched = False  # it is about to be looked whether time has gone on without work
        self._timer: TimerHandle | None = None
        self._memory = _open(directory / NAME)
        self.before = AtWork(tuple(self._deliveries()), tuple(self._files()))

    def begin(self) -> None:
        """The store knows of what was `before`: from now on it is our work that is noted."""
        self._forget()

    def _forget(self) -> None:
        self._memory[:] = bytes(_SIZE)

    def _deliveries(self) -> Iterator[WorkedOn]:
        """What was worked on less than `SURVIVED` before the last note, the latest first."""
        notes = sorted(_NOTE.iter_unpack(self._memory[_RING:_SIZE]), key=lambda note: -note[3])
        known: set[bytes] = set()
        for id, phase, at, _ in notes:
            if at > notes[0][2] - SURVIVED and id not in known and id_number(_text(id)) is not None:
                known.add(id)
                yield WorkedOn(_text(id), _text(phase) or None, notes[0][2] - at)

    def _files(self) -> Iterator[Source]:
        for slot in (HERE, IN_THREAD):
            with contextlib.suppress(msgspec.DecodeError):  # nothing there, or cut short
                yield msgspec.json.decode(self._line(slot), type=Source)

    def _line(self, slot: int) -> bytes:
        return bytes(self._memory[slot * _SLOT : (slot + 1) * _SLOT]).partition(b"\n")[0]

    def _write(self, slot: int, what: bytes) -> None:
        start = slot * _SLOT
        self._memory[start : start + len(what) + 1] = what + b"\n"

    def __call__(self, _event: str, facts: dict[str, Any]) -> None:
        """Note the beginning of an attempt, which has no phase, and each phase that it has got through."""
        self._worked_at = now = self._clock.time()
        number = next(self._numbers)
        place = _RING + number % NOTES * _NOTE.size
        _NOTE.pack_into(self._memory, place, facts["id"].encode(), facts.get("phase", "").encode(), now, number)
        if not self._watched:
            self._look_in_a_moment()

    def _look_in_a_moment(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._watched = True
        self._timer = self._clock.call_later(_MOMENT, self._look)

    def _look(self) -> None:
        """Where nothing has been done for a moment, note nothing but the time: it shows how long ago all else was."""
        self._timer = None
        now = self._clock.time()
        self._watched = now < self._worked_at + _MOMENT
        if not self._watched:
            number = next(self._numbers)
            place = _RING + number % NOTES * _NOTE.size
            _NOTE.pack_into(self._memory, place, b"", b"", now, number)
        then = self._worked_at + (_MOMENT if self._watched else SURVIVED)
        if now < then:
            self._timer = self._clock.call_later(then - now, self._look)

    def reading(self, file: Source, slot: int = HERE) -> None:
        """This file is read now."""
        self._write(slot, msgspec.json.encode(file))

    def read(self, slot: int = HERE) -> None:
        """It has been read, and we live."""
        self._write(slot, b"")

    def close(self) -> None:
        """An end in good order: nothing is to blame for it."""
        self._forget()
        self.let_go()

    def let_go(self) -> None:
        """Note nothing any more, and leave what is noted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._watched = True
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()
        self._memory = bytearray(_SIZE)


def _open(path: Path) -> mmap.mmap | bytearray:
    """The file in memory; with a full disk memory of our own, which nobody will read: mail goes on."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # The room is taken now: to write to a page for which the disk has none would kill us.
            os.posix_fallocate(fd, 0, _SIZE)
            return mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)
    return bytearray(_SIZE)


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("ascii", "replace")
