"""Queue time: seconds since the epoch that pass as time really does, whatever the wall clock is set to.

On a healthy machine queue time is wall time: what NTP corrects, by slewing or by small steps, is followed. Where the
wall clock jumps, queue time goes on as if it had not, and `offset` (what the wall clock has beyond queue time) takes up
the difference: nothing expires, is tried, or is forgotten any earlier or later.

Every time in the store is queue time. What people are shown is `wall` of it, by the clock as it is now; what they say
(`not_before`) comes in by `queue`, and means their clock's moment also when that is set anew: a jump leaves scheduled
jobs to be moved, and until `align` says that they have been, nothing new may be taken for due.

A restart goes on from what was `seen` last. In the same boot of the machine its boot clock tells how much time has
really passed. In another boot nobody knows: a wall clock behind the one last seen has jumped back, and queue time goes
on from where it was; one ahead of it is believed, as the machine may have been off for that long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from deferred.interfaces import TimeSource
from service.journal import Journal

TOLERANCE: Final = 30.0
"""Seconds: a wall clock that has moved by more against the time that passed has jumped."""

_REMEMBERED: Final = 8 * 86400.0
"""Seconds for which former offsets are remembered: longer than any file is kept."""

_MOST_FORMER: Final = 50


class BootClock(NamedTuple):
    """A clock that goes on while the machine sleeps and while no deferd runs, from one boot to the next.

    `boot` tells this boot from any other; `time()` is in seconds.
    """

    boot: str
    time: Callable[[], float]


class Former(msgspec.Struct, frozen=True, array_like=True):
    """An offset that held until then (queue time)."""

    until: float
    offset: float


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """All clocks at one moment, as the store remembers them.

    `elapsed` is the boot clock's time in that `boot` (None: there was none). `aligned` tells whether scheduled jobs go
    by this offset; those that were scheduled for no later than `reached` (queue time) have begun, and are not moved.
    """

    queue: float
    wall: float
    offset: float
    boot: str | None
    elapsed: float
    aligned: bool
    reached: float
    former: tuple[Former, ...] = ()


def resumed(seen: Seen | None, wall: float, boot: BootClock | None) -> float:
    """The offset with which to go on from what was seen, now that the wall clock shows `wall`."""
    if seen is None:
        return 0.0
    ahead = wall - seen.wall
    elapsed = boot.time() if boot is not None and boot.boot == seen.boot else None
    if elapsed is not None and elapsed >= seen.elapsed:
        jump = ahead - (elapsed - seen.elapsed)
        return seen.offset + jump if abs(jump) > TOLERANCE else seen.offset
    return seen.offset + ahead if ahead < -TOLERANCE else seen.offset


class Calendar:
    """Tells queue time, and notices jumps of the wall clock: whenever it is asked, and only then.

    `jumped` is called in the turn after a jump was noticed, `jumps` counts them. Only the reactor's thread may ask.
    """

    def __init__(
        self, reactor: TimeSource, journal: Journal, boot: BootClock | None = None, seen: Seen | None = None
    ) -> None:
        self.jumped: Callable[[], object] = lambda: None
        self._reactor = reactor
        self._journal = journal
        self._boot = boot
        self._elapsed = reactor.time if boot is None else boot.time
        wall = reactor.wall_time()
        self._shift = wall - self._elapsed()
        self.offset = resumed(seen, wall, boot)
        self._last = wall - self.offset
        self.jumps = 0
        self._aligned = seen is None or (seen.aligned and seen.offset == self.offset)
        self._reached = self._last if seen is None else seen.reached
        self._former = [] if seen is None else list(seen.former)
        if seen is not None and self.offset != seen.offset:
            self._note(self.offset - seen.offset, seen.offset)

    def now(self) -> float:
        """Queue time."""
        wall = self._reactor.wall_time()
        shift = wall - self._elapsed()
        if abs(shift - self._shift) > TOLERANCE:
            wall = self._jump()
        else:
            self._shift = shift
        self._last = wall - self.offset
        return self._last

    def _jump(self) -> float:
        # A second look, as the process may have been stopped between the two clocks of the first.
        wall = self._reactor.wall_time()
        jump = wall - self._elapsed() - self._shift
        self._shift += jump
        if abs(jump) > TOLERANCE:
            if self._aligned:
                self._aligned, self._reached = False, self._last
            former, self.offset = self.offset, self.offset + jump
            self._last = wall - self.offset
            self._note(jump, former)
            self._reactor.call_soon(lambda: self.jumped())
        return wall

    def _note(self, jump: float, former: float) -> None:
        self.jumps += 1
        self._former = [one for one in self._former if one.until > self._last - _REMEMBERED]
        self._former.append(Former(self._last, former))
        if len(self._former) > _MOST_FORMER:  # the two oldest as one: for longer, the lower of them
            first, second = self._former[:2]
            self._former[:2] = [Former(second.until, min(first.offset, second.offset))]
        way = "ahead" if jump > 0 else "back"
        self._journal.tell(
            "clock_jumped",
            seconds=round(jump, 3),
            why=f"the wall clock went {abs(jump):.0f} s {way}; mail waits as long as it would have",
        )

    # the edges

    def wall(self, at: float) -> float:
        """What the wall clock, as it is now, shows at a moment of queue time."""
        return at + self.offset if self.offset else at

    def queue(self, wall: float) -> float:
        """When the wall clock, as it is now, shows `wall`, in queue time."""
        return wall - self.offset

    def earliest(self, age: float) -> float:
        """A time on the wall clock: what bears an earlier one, a file perhaps, was written at least `age` seconds ago,
        whatever the clock has done meanwhile. `age` is 7 days at most."""
        before = self.now() - age
        return before + min([self.offset, *(one.offset for one in self._former if one.until > before)])

    # scheduled jobs

    @property
    def aligned(self) -> bool:
        """Whether scheduled jobs go by the wall clock as it is now."""
        return self._aligned

    @property
    def reached(self) -> float:
        """Jobs scheduled for later than this (queue time) had not begun when the wall clock jumped: they follow it."""
        return self._last if self._aligned else self._reached

    def align(self, jumps: int) -> None:
        """Scheduled jobs go by the wall clock as it is after so many `jumps`."""
        self._aligned = self._aligned or jumps == self.jumps

    def seen(self) -> Seen:
        """All clocks now."""
        now = self.now()
        return Seen(
            queue=now,
            wall=now + self.offset,
            offset=self.offset,
            boot=None if self._boot is None else self._boot.boot,
            elapsed=self._elapsed(),
            aligned=self._aligned,
            reached=self.reached,
            former=tuple(self._former),
        )
