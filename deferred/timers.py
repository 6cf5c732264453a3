"""Calls to be made: in the next turn, or at a time.

100,000 timers that are pushed back or cancelled over and over (one deadline for each connection) must cost next to
nothing. So the heap is lazy: pushing a timer back only stores its new time, and the heap's entry finds out when it
comes up; a cancelled timer's entry stays until it comes up, or until such entries are the greater part of the heap,
which is then built anew without them. Cancelling and pushing back are thus O(1), and the heap is at most about twice
as large as the timers that count.

A turn makes the calls that were due when it began. What a call asks for, even with a delay of 0, is the next turn's:
a call that always asks for itself again starves nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

_FEW = 64  # a heap of so few stale entries is not worth building anew


class Timer:
    """A call that has been put off; made by `Schedule`, known to users as `deferred.interfaces.TimerHandle`."""

    __slots__ = ("_args", "_entry", "_entry_when", "_function", "_order", "_schedule", "_when")

    def __init__(
        self, schedule: Schedule, when: float, order: int, function: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self._schedule = schedule
        self._when = when
        self._order = order  # among calls for the same moment
        self._entry = -1  # the order under which it stands in the heap; -1: it does not
        self._entry_when = when  # the time under which it stands there, never later than _when
        self._function: Callable[..., object] | None = function  # None: made, or cancelled
        self._args = args

    def when(self) -> float:
        """The time of the call, on its clock's `time()`."""
        return self._when

    def cancel(self) -> None:
        """Do not make the call. Harmless when it has been made or cancelled."""
        if self._function is not None:
            self._function = None
            self._args = ()
            self._order = -1
            if self._entry >= 0:
                self._schedule.one_more_stale()

    def cancelled(self) -> bool:
        """Whether `cancel` came before the call."""
        return self._function is None and self._order < 0

    def reset(self, delay: float) -> None:
        """Make the call `delay` seconds from now instead. Raises `RuntimeError` if it was made or cancelled."""
        if self._function is None:
            raise RuntimeError("this call was " + ("cancelled" if self._order < 0 else "made already"))
        self._schedule.put_off(self, delay)

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "made" if self._function is None else repr(self._function)
        return f"<Timer at {self._when:.3f}: {state}>"


class Schedule:
    """The calls that a reactor or a clock has to make."""

    __slots__ = ("_clock", "_heap", "_next_order", "_soon", "_stale")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._soon: deque[tuple[int, Timer]] = deque()
        self._stale = 0  # entries of the heap that stand for no call
        self._next_order = 0

    def call_at(self, when: float, function: Callable[..., object], *args: Any) -> Timer:
        """Call at `when` on the clock; at once (next turn) if that is past."""
        order = self._next_order
        self._next_order = order + 1
        timer = Timer(self, max(when, self._clock()), order, function, args)
        self._push(timer)
        return timer

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> Timer:
        """Call `delay` seconds from now. Raises `ValueError` for a delay that is negative or no number."""
        if not delay >= 0:
            raise ValueError(f"a delay of {delay} seconds")
        order = self._next_order
        self._next_order = order + 1
        timer = Timer(self, self._clock() + delay, order, function, args)
        self._push(timer)
        return timer

    def call_soon(self, function: Callable[..., object], *args: Any) -> Timer:
        """Call in the next turn."""
        order = self._next_order
        self._next_order = order + 1
        timer = Timer(self, self._clock(), order, function, args)
        self._soon.append((order, timer))
        return timer

    def wait(self, now: float) -> float | None:
        """Seconds until something is due: 0 if something is, None if there is nothing to wait for."""
        if self._soon:
            return 0.0
        when = self.next_time()
        return None if when is None else max(0.0, when - now)

    def next_time(self) -> float | None:
        """When to look next: no later than the earliest timer, earlier if that was put off; None if there is none.

        To find the exact time would mean to push every timer that was put off anew: one early look is cheaper.
        """
        heap = self._heap
        while heap:
            when, order, timer = heap[0]
            if order == timer._entry and timer._order >= 0:
                return when
            heappop(heap)
            self._settle(order, timer)
        return None

    @property
    def busy(self) -> bool:
        """Whether there is a call for the next turn."""
        return bool(self._soon)

    def __len__(self) -> int:
        """Calls still to be made."""
        soon = sum(timer._order == order for order, timer in self._soon)
        return len(self._heap) - self._stale + soon

    @property
    def heap_size(self) -> int:
        """Entries in the heap, stale ones included; for tests of its bound."""
        return len(self._heap)

    def begin_turn(self) -> int:
        """Tell calls asked for until now from those that this turn's other work will ask for; for `turn`."""
        return self._next_order

    def turn(self, now: float, begun: int, report: Callable[[Exception], object]) -> None:
        """Make the calls asked for until `begin_turn`, which gave `begun`, and those of the timers due at `now`.

        Whatever a call raises goes to `report`; the others are made all the same. If `report` raises too (or somebody
        interrupts), what is left stays for the next turn.
        """
        limit = self._next_order  # timers asked for from here on are the next turn's
        soon = self._soon
        while soon and soon[0][0] < begun:
            order, timer = soon.popleft()
            if order == timer._order:
                self._call(timer, report)
        heap = self._heap
        while heap and heap[0][0] <= now and heap[0][1] < limit:
            _, order, timer = heappop(heap)
            if order == timer._order:
                timer._entry = -1
                self._call(timer, report)
            else:
                self._settle(order, timer)

    @staticmethod
    def _call(timer: Timer, report: Callable[[Exception], object]) -> None:
        function, args = timer._function, timer._args
        timer._function, timer._args = None, ()
        if function is not None:
            try:
                function(*args)
            except Exception as error:  # noqa: BLE001 - a callback that raises must not stop the others
                report(error)

    def _push(self, timer: Timer) -> None:
        timer._entry = timer._order
        timer._entry_when = timer._when
        heappush(self._heap, (timer._when, timer._order, timer))

    def _settle(self, order: int, timer: Timer) -> None:
        """An entry that does not tell its timer's time has left the heap."""
        if order == timer._entry and timer._order >= 0:
            self._push(timer)  # it was put off
        else:
            self._stale -= 1
            if order == timer._entry:
                timer._entry = -1

    def put_off(self, timer: Timer, delay: float) -> None:
        """Give a timer that is still to be called a new time."""
        if not delay >= 0:
            raise ValueError(f"a delay of {delay} seconds")
        when = self._clock() + delay
        timer._order = self._next_order
        self._next_order += 1
        timer._when = when
        replaced = timer._entry >= 0
        if replaced and when >= timer._entry_when:
            return  # the entry will find out
        self._push(timer)
        if replaced:
            self.one_more_stale()

    def one_more_stale(self) -> None:
        """An entry of the heap stands for no call any more; build the heap anew when most do."""
        self._stale += 1
        if self._stale > _FEW and self._stale * 2 > len(self._heap):
            # in place, since a turn may be in the middle of it
            self._heap[:] = [entry for entry in self._heap if entry[1] == entry[2]._entry and entry[2]._order >= 0]
            heapify(self._heap)
            self._stale = 0
