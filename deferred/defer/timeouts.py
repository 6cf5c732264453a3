"""What becomes of a Deferred whose time is up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deferred.defer.errors import CancelledError
from deferred.failure import Failure

if TYPE_CHECKING:
    from deferred.defer.deferred import Deferred
    from deferred.interfaces import TimeSource


def cancel_after(
    deferred: Deferred[Any], seconds: float, clock: TimeSource, on_timeout_cancel: Callable[[Any, float], Any] | None
) -> Deferred[Any]:
    """`Deferred.add_timeout`."""
    timed_out = False

    def time_out() -> None:
        nonlocal timed_out
        timed_out = True
        deferred.cancel()

    timer = clock.call_later(seconds, time_out)

    def settle(result: Any) -> Any:
        timer.cancel()
        if not timed_out:
            return result
        return (on_timeout_cancel or timeout_for_cancelled)(result, seconds)

    return deferred.add_both(settle)


def timeout_for_cancelled(result: Any, seconds: float) -> Any:
    """Translate `CancelledError`; a canceller that brought something else has its way."""
    if isinstance(result, Failure) and result.check(CancelledError):
        return Failure(TimeoutError(f"no result after {seconds} seconds"))
    return result
