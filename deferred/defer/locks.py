"""Taking turns: a lock and a semaphore whose `acquire` is a Deferred.

Who waits longest is served first, and a free token is not handed to a newcomer while somebody waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from deferred.defer.deferred import Deferred
from deferred.defer.results import maybe_deferred, succeed

T = TypeVar("T")
P = ParamSpec("P")


class DeferredSemaphore:
    """Up to `limit` holders at a time; `tokens` are free now.

    `async with semaphore:` holds a token for the block.
    """

    def __init__(self, tokens: int) -> None:
        """Raises `ValueError` for less than one token."""
        if tokens < 1:
            raise ValueError(f"a semaphore needs at least one token, not {tokens}")
        self.tokens = tokens
        self.limit = tokens
        self.waiting: deque[Deferred[Any]] = deque()
        self._serving = False

    def acquire(self) -> Deferred[Self]:
        """Fires with this object once a token is ours. Cancelling gives up the place in the queue."""
        if self.tokens and not self.waiting:
            self.tokens -= 1
            return succeed(self)
        deferred: Deferred[Self] = Deferred(self.waiting.remove)
        self.waiting.append(deferred)
        return deferred

    def release(self) -> None:
        """Give a token back. Raises `RuntimeError` if all are there."""
        if self.tokens >= self.limit:
            raise RuntimeError("released more often than acquired")
        self.tokens += 1
        self._serve()

    def _serve(self) -> None:
        """Hand free tokens to those who wait; a release in the midst of it is served by the loop, not by a call."""
        if self._serving:
            return
        self._serving = True
        try:
            while self.tokens and self.waiting:
                self.tokens -= 1
                self.waiting.popleft().callback(self)
        finally:
            self._serving = False

    @overload
    def run(self, function: Callable[P, Deferred[T]], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
    @overload
    def run(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
    @overload
    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call `function` while holding a token, until the Deferred that it may return has fired."""

        def call(_: object) -> Deferred[Any]:
            return maybe_deferred(function, *args, **kwargs).add_both(release)

        def release(result: Any) -> Any:
            self.release()
            return result

        return self.acquire().add_callback(call)

    def __aenter__(self) -> Deferred[Self]:
        return self.acquire()

    def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> Deferred[None]:
        self.release()
        return succeed(None)


class DeferredLock(DeferredSemaphore):
    """One holder at a time."""

    def __init__(self) -> None:
        super().__init__(1)

    @property
    def locked(self) -> bool:
        """Whether somebody holds it."""
        return not self.tokens
