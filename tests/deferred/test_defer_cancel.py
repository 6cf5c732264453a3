"""Giving up a wait, by hand and by the clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deferred.defer import AlreadyCalledError, CancelledError, Deferred, fail, succeed
from deferred.failure import Failure


class Timers:
    """A clock that a test moves: as much of one as `add_timeout` needs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Timer] = []

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> Timer:
        self.calls.append(Timer(self, self.now + delay, function, args))
        return self.calls[-1]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [timer for timer in self.calls if timer.due <= self.now]:
            self.calls.remove(timer)
            timer.function(*timer.args)


class Timer:
    def __init__(self, timers: Timers, due: float, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.timers, self.due, self.function, self.args = timers, due, function, args

    def cancel(self) -> None:
        if self in self.timers.calls:
            self.timers.calls.remove(self)


def error_of(deferred: Deferred[Any]) -> BaseException:
    seen: list[Failure] = []
    deferred.add_errback(seen.append)
    return seen[0].value


def test_a_cancelled_deferred_fails():
    """With CancelledError."""
    deferred: Deferred[int] = Deferred()
    deferred.cancel()
    assert isinstance(error_of(deferred), CancelledError)


def test_without_a_canceller_the_late_result_is_ignored_once():
    """Who fires it cannot know; firing it twice is still an error."""
    deferred: Deferred[int] = Deferred()
    deferred.cancel()
    deferred.callback(1)
    with pytest.raises(AlreadyCalledError):
        deferred.callback(2)
    assert isinstance(error_of(deferred), CancelledError)


def test_a_canceller_is_called_with_the_deferred():
    """If it does not fire it, the Deferred fails; a late result is then an error, for the canceller has stopped it."""
    seen: list[Any] = []
    deferred: Deferred[int] = Deferred(seen.append)
    deferred.cancel()
    assert seen == [deferred]
    assert isinstance(error_of(deferred), CancelledError)
    with pytest.raises(AlreadyCalledError):
        deferred.callback(1)


def test_a_canceller_may_give_a_result_or_another_error():
    """What it fires the Deferred with counts."""
    with_result: Deferred[str] = Deferred(lambda d: d.callback("partly"))
    with_result.cancel()
    assert with_result.result == "partly"
    with_error: Deferred[str] = Deferred(lambda d: d.errback(OSError()))
    with_error.cancel()
    assert isinstance(error_of(with_error), OSError)


def test_cancelling_after_the_result_does_nothing():
    """Nor is the canceller called."""
    deferred: Deferred[int] = Deferred(lambda _: pytest.fail("called"))
    deferred.callback(1)
    deferred.cancel()
    assert deferred.result == 1


def test_cancelling_who_waits_cancels_what_he_waits_for():
    """Through as many Deferreds as there are in between."""
    innermost: Deferred[int] = Deferred()
    middle = succeed(0).add_callback(lambda _: innermost)
    outer = succeed(0).add_callback(lambda _: middle)
    outer.cancel()
    assert innermost.called
    assert isinstance(error_of(outer), CancelledError)


def test_the_inner_one_may_recover_from_the_cancel():
    """Its errback decides what the outer one sees."""
    inner: Deferred[Any] = Deferred()
    inner.add_errback(lambda _: "recovered")
    outer = succeed(0).add_callback(lambda _: inner)
    outer.cancel()
    assert outer.result == "recovered"


def test_a_timeout_fails_with_the_builtin_timeout_error():
    """After its seconds, not before; and it tells how many."""
    timers = Timers()
    deferred: Deferred[int] = Deferred()
    deferred.add_timeout(10, timers)
    timers.advance(9)
    assert not deferred.called
    timers.advance(1)
    error = error_of(deferred)
    assert isinstance(error, TimeoutError)
    assert "10 seconds" in str(error)


def test_a_result_in_time_stops_the_timer():
    """No call is left on the clock."""
    timers = Timers()
    deferred: Deferred[int] = Deferred()
    deferred.add_timeout(10, timers)
    deferred.callback(3)
    assert (deferred.result, timers.calls) == (3, [])


def test_a_timeout_counts_only_the_callbacks_before_it():
    """A slow callback added before it is cut off; one added after it has all the time it wants."""
    timers = Timers()
    slow: Deferred[int] = Deferred()
    before = succeed(0).add_callback(lambda _: slow).add_timeout(1, timers)
    unhurried: Deferred[int] = Deferred()
    after = succeed(0).add_timeout(1, timers).add_callback(lambda _: unhurried)
    timers.advance(2)
    assert isinstance(error_of(before), TimeoutError)
    assert not unhurried.called
    assert after.result is unhurried


def test_an_error_of_its_own_or_a_cancel_by_hand_is_no_timeout():
    """Only what the clock cancelled is translated."""
    timers = Timers()
    cancelled: Deferred[int] = Deferred()
    cancelled.add_timeout(1, timers)
    cancelled.cancel()
    assert isinstance(error_of(cancelled), CancelledError)
    assert isinstance(error_of(fail(KeyError()).add_timeout(1, timers)), KeyError)
    assert timers.calls == []


def test_a_timeouts_own_function_gives_the_result():
    """It is called with what the cancel brought, and the seconds; not without a timeout."""
    timers = Timers()
    seen: list[Any] = []

    def say(result: Any, seconds: float) -> str:
        seen.append((result.type, seconds))
        return "too late"

    deferred: Deferred[Any] = Deferred()
    deferred.add_timeout(2, timers, on_timeout_cancel=say)
    timers.advance(2)
    assert (deferred.result, seen) == ("too late", [(CancelledError, 2)])
    assert succeed(1).add_timeout(2, timers, on_timeout_cancel=say).result == 1


def test_a_canceller_that_has_a_result_wins_over_the_timeout():
    """What came of the cancel is no CancelledError, so it stands."""
    timers = Timers()
    deferred: Deferred[str] = Deferred(lambda d: d.callback("partly"))
    deferred.add_timeout(2, timers)
    timers.advance(2)
    assert deferred.result == "partly"


def test_cancelling_what_waits_in_a_circle_is_refused():
    """There is no end of it that could be given up; whether it is in the circle or waits for one that is."""
    one: Deferred[None] = Deferred()
    two: Deferred[None] = Deferred()
    outside: Deferred[None] = Deferred()
    one.add_callback(lambda _: two)
    two.add_callback(lambda _: one)
    outside.add_callback(lambda _: one)
    for deferred in (one, two, outside):
        deferred.callback(None)
    for deferred in (one, two, outside):
        with pytest.raises(RuntimeError, match="wait for one another"):
            deferred.cancel()
