"""Failures that nobody took, and how to find out where they came from.

A Deferred that ends in a Failure gets a `Record`. Taking the Failure empties it; if the Deferred is collected first,
the record dies full, and tells the hook. Only Deferreds that fail pay for this.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from types import FrameType

from deferred.failure import Failure

Hook = Callable[[Failure, str], object]

debugging = False
"""Whether Deferreds note where they are made and fired. Read by `Deferred`; changed by `set_debugging`."""


def get_debugging() -> bool:
    """Whether Deferreds note where they are made and fired."""
    return debugging


def set_debugging(on: bool) -> None:
    """Let Deferreds made from now on note where they are made and fired: slow, and told with what goes wrong."""
    global debugging
    debugging = on


def print_unhandled(failure: Failure, detail: str) -> None:
    """The hook until another is set: write to standard error."""
    print(f"Unhandled error in Deferred:\n{detail}{failure.get_traceback()}", end="", file=sys.stderr)


_hook: Hook = print_unhandled


def set_unhandled_error_hook(hook: Hook | None) -> Hook:
    """Have `hook(failure, detail)` called for each failure that no errback took; None restores the first hook.

    It is called when the Deferred goes, from wherever that happens: with the last reference, or, if a frame that the
    traceback keeps still holds the Deferred, when the collector finds the two. `detail` tells where the Deferred was
    made and fired if debugging is on, else it is ''. Returns the hook that was set before.
    """
    global _hook
    before, _hook = _hook, hook or print_unhandled
    return before


def report(failure: Failure, detail: str = "") -> None:
    """Give an unhandled failure to the hook."""
    _hook(failure, detail)


class Record:
    """What is known of one Deferred: the Failure it is left with, and, when debugging, where it was made and fired."""

    __slots__ = ("failure", "fired", "made")

    def __init__(self, failure: Failure | None = None) -> None:
        self.failure = failure
        self.made = ""
        self.fired = ""

    def note_made(self) -> None:
        """The Deferred is being made."""
        self.made = _stack()

    def note_fired(self) -> None:
        """The Deferred is being fired."""
        self.fired = _stack()

    def detail(self) -> str:
        """Both places, as text; '' if nothing was noted."""
        parts = [("made", self.made), ("fired", self.fired)]
        return "".join(f"Deferred was {what} here:\n{stack}" for what, stack in parts if stack)

    def __del__(self) -> None:
        if self.failure is not None:
            report(self.failure, self.detail())


def _stack() -> str:
    """Where we are, without this package's own frames."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(__package__):
        frame = frame.f_back
    return "".join(traceback.format_stack(frame))
