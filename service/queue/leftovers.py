"""Files of new/ that are done with, but are still there; and what else keeps jobs from being taken in.

An accepted file that cannot be removed, a refused one that rejected/ does not take: each is told of once and not read
again while it stays as it is. It is tried again each second until it goes, so that a disk that was read-only or full,
or permissions that were wrong, leave nothing behind that would need a restart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Final

import msgspec

from deferred.interfaces import Reactor, TimerHandle
from service.journal import Journal
from service.queue.drop import DropDirectory, Identity, Lacking, NotYet, Stuck, Unreadable, printable
from service.queue.store import Source

_EVERY: Final = 1.0
_MOST_FAILURES: Final = 5  # in one turn: whatever is in the way, it is in the way of most
_SOME: Final = 500
_SLICE: Final = 0.004  # seconds of work in one turn


class _Leftover(msgspec.Struct, frozen=True):
    identity: Identity
    again: Callable[[], object] | None  # raises `Stuck` or `NotYet` where it still cannot be done


class Trouble:
    """What keeps every job from being taken in: told when it begins, whatever it is, and when all of it is over."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._reasons: dict[str, str] = {}

    @property
    def why(self) -> str | None:
        """What it is now; None for nothing."""
        return next(iter(self._reasons.values()), None)

    def begins(self, what: str, why: str) -> None:
        """`what` cannot be done, and no job can be taken in without."""
        if not self._reasons:
            self._journal.tell("intake_failed", why=why)
        self._reasons.setdefault(what, why)

    def is_over(self, what: str) -> None:
        """`what` can be done."""
        if self._reasons.pop(what, None) is not None and not self._reasons:
            self._journal.tell("intake_recovered")


class Leftovers:
    """Removes accepted files, puts refused ones aside, gives back what was taken for another: now, or as soon as that
    can be done."""

    def __init__(self, reactor: Reactor, journal: Journal, drop: DropDirectory, unique: Callable[[], str]) -> None:
        self._reactor = reactor
        self._journal = journal
        self._drop = drop
        self._unique = unique
        self._left: OrderedDict[str, _Leftover] = OrderedDict()
        self._unreadable: dict[str, Identity | None] = {}
        self.trouble = Trouble(journal)
        self._timer: TimerHandle | None = None
        self._stopped = False

    def holds(self, name: str, identity: Identity) -> bool:
        """Whether the file of this name is a leftover; no longer where it has changed."""
        left = self._left.get(name)
        if left is None:
            return False
        if left.identity != identity:
            del self._left[name]
        return left.identity == identity

    def remove(self, source: Source) -> None:
        """Remove a file whose job is accepted."""
        try:
            self._drop.remove(source)
        except Stuck as error:
            self.keep(source.name, str(error), lambda: self._drop.remove(source))

    def put_back(self, aside: str, name: str) -> None:
        """Give a file that was taken aside its name again, now or as soon as that can be done."""
        status = self._drop.status(aside)
        if status is None or self.holds(aside, status):
            return
        try:
            self._drop.put_back(aside, name)
        except Stuck as error:
            self.keep(aside, str(error), lambda: self._drop.put_back(aside, name))

    def reject(self, name: str, read: Identity, why: str) -> None:
        """Put aside what was `read` as `name`. Raises `NotYet` where the name stands for something else by now."""
        status = self._drop.status(name)
        if status is None or self.holds(name, status):
            return
        try:
            self._put_aside(name, read, why)
        except Stuck as error:
            self.keep(name, str(error), lambda: self._put_aside(name, read, why))

    def _put_aside(self, name: str, read: Identity, why: str) -> None:
        self._drop.reject(name, read, why, self._unique())
        self._journal.tell("job_rejected", name=printable(name), why=why)

    def keep(self, name: str, why: str, again: Callable[[], object] | None = None) -> None:
        """Leave the file alone while it stays as it is, but for trying `again` what could not be done."""
        status = self._drop.status(name)
        if status is not None:
            self._left[name] = _Leftover(status, again)
            self._come_again()
        self._journal.tell("file_stuck", name=printable(name), why=why)

    def not_yet(self, name: str, reason: NotYet) -> None:
        """The file cannot be taken now, and is tried again: say why, once, unless that is only its writer."""
        if isinstance(reason, Lacking):
            self.trouble.begins("read", f"no file can be read: {reason}")
        elif isinstance(reason, Unreadable):
            status = self._drop.status(name)
            if name not in self._unreadable or self._unreadable[name] != status:
                self._unreadable[name] = status
                self._journal.tell("file_stuck", name=printable(name), why=f"it cannot be read yet ({reason})")
                self._come_again()

    def stop(self) -> None:
        """Try nothing any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _come_again(self, delay: float = _EVERY) -> None:
        if self._timer is None and not self._stopped:
            self._timer = self._reactor.call_later(delay, self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        self._unreadable = {name: was for name, was in self._unreadable.items() if self._drop.status(name) == was}
        end = self._reactor.time() + _SLICE
        failures = 0
        for name in list(islice(self._left, _SOME)):
            failures += not self._gone(name)
            if failures >= _MOST_FAILURES or self._reactor.time() >= end:
                break
        if self._left or self._unreadable:
            self._come_again(0 if self._left and not failures else _EVERY)

    def _gone(self, name: str) -> bool:
        """Whether this one is no leftover any more; else it is the last to be tried next time."""
        left = self._left[name]
        status = self._drop.status(name)
        if status == left.identity:
            try:
                if left.again is None:
                    raise Stuck
                left.again()
            except (Stuck, NotYet):
                self._left.move_to_end(name)
                return False
        self._left.pop(name, None)
        return True
