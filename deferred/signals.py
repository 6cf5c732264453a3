"""Signals as calls on the reactor.

Python runs a signal's handler between two instructions of the main thread, wherever that is; ours only asks the reactor
for a call. The wake-up descriptor makes the system's handler write an octet, so that a reactor that waits (or is just
about to) notices.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], Any] | int | None


class Signals:
    """The signals that one reactor has taken over."""

    def __init__(self, post: Callable[..., None], wake_fd: int) -> None:
        self._post = post
        self._wake_fd = wake_fd
        self._before: dict[int, _Handler] = {}
        self._wake_before = -1

    def add(self, number: int, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Make the call for each signal from now on. Raises `ValueError` outside the main thread, `OSError`."""

        def caught(_number: int, _frame: FrameType | None) -> None:
            self._post(function, *args)

        if not self._before:
            self._wake_before = signal.set_wakeup_fd(self._wake_fd, warn_on_full_buffer=False)
        try:
            before = signal.signal(number, caught)
        except (OSError, ValueError):  # one that cannot be caught, or is none
            if not self._before:
                signal.set_wakeup_fd(self._wake_before)
            raise
        signal.siginterrupt(number, False)  # the other threads' system calls go on as if nothing was
        self._before.setdefault(number, before)

    def remove(self, number: int) -> bool:
        """Give the signal back to whoever had it; False if it was not ours."""
        if number not in self._before:
            return False
        before = self._before.pop(number)
        signal.signal(number, signal.SIG_DFL if before is None else before)
        if not self._before:
            signal.set_wakeup_fd(self._wake_before)
        return True

    def close(self) -> None:
        """Give them all back."""
        for number in list(self._before):
            self.remove(number)
