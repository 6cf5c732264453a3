"""What goes wrong with Deferreds themselves, and with groups of them."""

from __future__ import annotations

from collections.abc import Sequence

from deferred.failure import Failure


class AlreadyCalledError(Exception):
    """A Deferred was fired a second time."""


class CancelledError(Exception):
    """A Deferred was cancelled before it had a result."""


class NotACoroutineError(TypeError):
    """A coroutine, generator or Deferred was wanted."""


class FirstError(Exception):
    """The first failure in a group: `sub_failure` is what came, from the Deferred at `index`."""

    def __init__(self, sub_failure: Failure, index: int) -> None:
        super().__init__(sub_failure, index)
        self.sub_failure = sub_failure
        self.index = index

    def __str__(self) -> str:
        return f"#{self.index}: {self.sub_failure.value!r}"


class FailureGroup(Exception):
    """All of a group failed: `failures` has them, in the group's order."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__(failures)
        self.failures = failures

    def __str__(self) -> str:
        return f"all {len(self.failures)} failed: " + ", ".join(repr(failure.value) for failure in self.failures)


class QueueOverflow(Exception):
    """A `DeferredQueue` holds as many objects as it may."""


class QueueUnderflow(Exception):
    """A `DeferredQueue` has as many takers waiting as it may."""
