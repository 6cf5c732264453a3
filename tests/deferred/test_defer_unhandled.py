"""Errors that nobody took."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from deferred.defer import (
    AlreadyCalledError,
    Deferred,
    ensure_deferred,
    fail,
    get_debugging,
    set_debugging,
    set_unhandled_error_hook,
    succeed,
)
from deferred.failure import Failure


@pytest.fixture
def told() -> Iterator[list[tuple[Failure, str]]]:
    """What the hook has been told; without the collector, so that what needs it is not told in time."""
    seen: list[tuple[Failure, str]] = []
    before = set_unhandled_error_hook(lambda failure, detail: seen.append((failure, detail)))
    gc.disable()
    yield seen
    gc.enable()
    set_unhandled_error_hook(before)


@pytest.fixture
def debugging() -> Iterator[None]:
    set_debugging(True)
    yield
    set_debugging(False)


def boom(_: object) -> Any:
    raise KeyError("nobody minds")


def failing() -> Deferred[Any]:
    """A Deferred that will fail when it is fired."""
    return Deferred().add_callback(boom)


def test_a_failure_that_nobody_took_is_told_when_its_deferred_goes(told):
    """At once, not when the collector comes by; and not before."""
    deferred = failing()
    deferred.callback(None)
    deferred.add_callback(str)
    assert told == []
    del deferred
    assert [(failure.type, detail) for failure, detail in told] == [(KeyError, "")]


def test_a_failure_that_an_errback_took_is_not_told(told):
    """Even if it came long after."""
    deferred = failing()
    deferred.callback(None)
    deferred.add_errback(lambda _: None)
    del deferred
    assert told == []


def test_a_failure_is_told_once_however_far_it_has_come(told):
    """A Deferred that was waited for has given its failure away."""
    inner: Deferred[None] = Deferred()
    inner.add_callback(boom)
    outer = succeed(None).add_callback(lambda _, waited=inner: waited)
    fired = succeed(None).add_callback(lambda _: fail(ValueError()))
    inner.callback(None)
    del inner
    assert told == []
    del fired
    assert [failure.type for failure, _ in told] == [ValueError]
    del outer
    assert [failure.type for failure, _ in told] == [ValueError, KeyError]


def test_an_awaited_failure_belongs_to_who_awaits(told):
    """The awaited Deferred is silent; the coroutine's own is not."""

    async def wait(deferred: Deferred[Any]) -> None:
        await deferred

    for early in (True, False):
        deferred = failing()
        if early:
            deferred.callback(None)
        outer = ensure_deferred(wait(deferred))
        if not early:
            deferred.callback(None)
        del deferred
        assert told == []
        del outer
        assert [failure.type for failure, _ in told] == [KeyError]
        told.clear()


def test_a_failure_in_a_cycle_is_told_when_the_collector_finds_it(told):
    """A frame that was running when the error was raised is in a cycle with it, if it holds the Deferred to its end."""

    def hold_to_the_end() -> None:
        deferred = failing()
        deferred.callback(None)

    hold_to_the_end()
    gc.collect()
    assert [failure.type for failure, _ in told] == [KeyError]


def test_debugging_tells_where_it_was_made_and_fired(told, debugging):
    """By file and line, without our own frames."""
    assert get_debugging()
    deferred = failing()
    deferred.callback(None)
    del deferred
    ((_, detail),) = told
    made, _, fired = detail.partition("Deferred was fired here:")
    assert "Deferred was made here:" in made
    assert "return Deferred().add_callback(boom)" in made
    assert "deferred.callback(None)" in fired
    assert "defer/deferred.py" not in detail


def test_debugging_tells_who_fired_first(debugging):
    """AlreadyCalledError has both places."""
    deferred: Deferred[int] = Deferred()
    deferred.callback(1)
    with pytest.raises(AlreadyCalledError, match=r"(?s)made here:.*fired here:.*deferred\.callback\(1\)"):
        deferred.callback(2)


def test_without_a_hook_it_is_written_to_standard_error(capsys):
    """With the traceback; None restores this."""
    before = set_unhandled_error_hook(None)
    try:
        deferred = failing()
        deferred.callback(None)
        del deferred
    finally:
        set_unhandled_error_hook(before)
    written = capsys.readouterr().err
    assert written.startswith("Unhandled error in Deferred:\nTraceback (most recent call last):\n")
    assert written.endswith("KeyError: 'nobody minds'\n")
