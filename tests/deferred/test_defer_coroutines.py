"""Coroutines that await Deferreds, and generators that yield them."""

from __future__ import annotations

import traceback
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

import pytest

from deferred.defer import (
    CancelledError,
    Deferred,
    NotACoroutineError,
    ensure_deferred,
    fail,
    inline_callbacks,
    succeed,
)
from deferred.failure import Failure

MANY = 100_000


def error_of(deferred: Deferred[Any]) -> BaseException:
    seen: list[Failure] = []
    deferred.add_errback(seen.append)
    return seen[0].value


async def wait_for(deferred: Deferred[Any]) -> Any:
    return await deferred


@inline_callbacks
def yield_for(deferred: Deferred[Any]) -> Generator[Deferred[Any], Any, Any]:
    return (yield deferred)


def run_coroutine(deferred: Deferred[Any]) -> Deferred[Any]:
    return ensure_deferred(wait_for(deferred))


both_kinds = pytest.mark.parametrize("wait", [run_coroutine, yield_for], ids=["coroutine", "generator"])


@both_kinds
def test_it_waits_for_a_result_and_returns_it(wait):
    """The function's return value is its Deferred's result."""
    inner: Deferred[int] = Deferred()
    outer = wait(inner)
    assert not outer.called
    inner.callback(3)
    assert outer.result == 3


@both_kinds
def test_a_result_that_is_there_is_not_waited_for(wait):
    """It goes on at once."""
    assert wait(succeed(3)).result == 3


@both_kinds
def test_an_error_is_raised_where_it_waits_and_goes_on_from_there(wait):
    """Whether it is there already or comes later; it counts as handled, but stays for whoever waits too."""
    error = KeyError("x")
    there = fail(error)
    assert error_of(wait(there)) is error
    assert error_of(wait(there)) is error
    later: Deferred[int] = Deferred()
    outer, another = wait(later), wait(later)
    later.errback(error)
    assert error_of(outer) is error
    assert error_of(another) is error
    assert error_of(wait(later)) is error


@both_kinds
def test_cancelling_it_cancels_what_it_waits_for(wait):
    """And it fails in turn."""
    inner: Deferred[int] = Deferred()
    outer = wait(inner)
    outer.cancel()
    assert inner.called
    assert isinstance(error_of(outer), CancelledError)


@both_kinds
def test_waiting_for_one_that_waits_itself_gives_the_final_result(wait):
    """A Deferred that is paused behind another is not mistaken for a result."""
    innermost: Deferred[str] = Deferred()
    middle = succeed(0).add_callback(lambda _: innermost)
    outer = wait(middle)
    assert not outer.called
    innermost.callback("x")
    assert outer.result == "x"


def test_a_coroutine_may_survive_its_cancel():
    """What it returns afterwards is the result, and its Deferred waits for that."""
    cleaned_up: Deferred[None] = Deferred()

    async def stubborn() -> str:
        try:
            await Deferred()
        except CancelledError:
            await cleaned_up
        return "done"

    outer = ensure_deferred(stubborn())
    outer.cancel()
    assert not outer.called
    cleaned_up.callback(None)
    assert outer.result == "done"


def test_a_cancel_while_it_runs_counts_for_its_next_wait():
    """There is nothing to cancel yet, but the wish is not forgotten."""
    started: Deferred[None] = Deferred()
    inner: Deferred[None] = Deferred()

    async def run() -> None:
        await started
        outer.cancel()
        await inner

    outer = ensure_deferred(run())
    started.callback(None)
    assert isinstance(error_of(outer), CancelledError)
    assert inner.called


def test_cancelling_who_waits_for_a_coroutine_reaches_what_that_waits_for():
    """Through a chain and two coroutines."""
    innermost: Deferred[int] = Deferred()
    outer = succeed(0).add_callback(lambda _: run_coroutine(run_coroutine(innermost)))
    outer.cancel()
    assert innermost.called
    assert isinstance(error_of(outer), CancelledError)


def test_several_coroutines_may_await_one_deferred():
    """A result stays for the next."""
    event: Deferred[str] = Deferred()
    waiting = [run_coroutine(event), run_coroutine(event)]
    event.callback("go")
    waiting.append(run_coroutine(event))
    assert [deferred.result for deferred in waiting] == ["go"] * 3


def test_a_hundred_thousand_awaits_of_what_is_there_do_not_recurse():
    """Nor do as many yields."""

    async def count() -> int:
        return sum([await succeed(1) for _ in range(MANY)])

    @inline_callbacks
    def count_too() -> Generator[Deferred[int], int, int]:
        total = 0
        for _ in range(MANY):
            total += yield succeed(1)
        return total

    assert ensure_deferred(count()).result == MANY
    assert count_too().result == MANY


@both_kinds
@pytest.mark.parametrize("end", ["result", "cancel"])
def test_many_that_wait_for_one_another_do_not_recurse(wait, end):
    """Each waits for the one before: the result of the first runs through, and so does a cancel of the last."""
    first: Deferred[str] = Deferred()
    last = first
    for _ in range(MANY // 10):
        last = wait(last)
    outcome: list[Any] = []
    last.add_both(outcome.append)
    if end == "result":
        first.callback("x")
        assert outcome == ["x"]
    else:
        last.cancel()
        assert outcome[0].check(CancelledError)


def test_a_deferred_that_it_returns_is_waited_for():
    """As one that a callback returns."""
    inner: Deferred[str] = Deferred()

    async def run(returned: Deferred[str]) -> Deferred[str]:
        return returned

    outer = ensure_deferred(run(inner))
    assert outer.result is inner
    inner.callback("x")
    assert (outer.result, ensure_deferred(run(succeed("y"))).result) == ("x", "y")


def test_what_was_added_behind_a_coroutine_runs_after_it():
    """A coroutine takes its place among the callbacks of what it awaits."""
    seen: list[str] = []
    event: Deferred[str] = Deferred()

    async def run() -> None:
        seen.append(await event)

    event.add_callback(lambda text: text + "1")
    ensure_deferred(run()).add_callback(lambda _: seen.append("done"))
    event.add_callback(lambda text: seen.append(text + "2"))
    event.callback("x")
    assert seen == ["x1", "done", "x12"]


def test_yielding_what_is_no_deferred_gives_it_back():
    """And a coroutine or generator is run."""

    async def later() -> str:
        return "co"

    @inline_callbacks
    def run() -> Generator[Any, Any, list[Any]]:
        return [(yield 1), (yield None), (yield later())]

    assert run().result == [1, None, "co"]


def test_the_traceback_leads_from_the_await_to_the_origin():
    """Throwing the error into a coroutine, or a generator, keeps where it was raised."""

    def origin(_: object) -> None:
        raise KeyError

    for wait, waits_in in ((run_coroutine, "wait_for"), (yield_for, "yield_for")):
        for early in (True, False):
            inner: Deferred[None] = Deferred()
            inner.add_callback(origin)
            if early:
                inner.callback(None)
            outer = wait(inner)
            if not early:
                inner.callback(None)
            names = [frame.name for frame in traceback.extract_tb(outer.result.tb)]
            error_of(outer)
            assert names.index(waits_in) < names.index("origin")


def test_an_error_raised_after_a_caught_one_tells_of_nothing_else():
    """The chain's own handling leaves no `__context__` on errors that have nothing to do with each other."""
    first: Deferred[None] = Deferred()
    seen: list[BaseException] = []

    async def run() -> None:
        await first

    def complain(_: Failure) -> None:
        raise ValueError

    ensure_deferred(run()).add_errback(complain).add_errback(lambda failure: seen.append(failure.value))
    first.errback(KeyError())
    assert isinstance(seen[0], ValueError)
    assert seen[0].__context__ is None


def test_it_keeps_the_context_it_was_started_in():
    """A `ContextVar` set by one coroutine, or by who fires, is not seen in another."""
    name: ContextVar[str] = ContextVar("name", default="nobody")
    gate: Deferred[None] = Deferred()

    async def run(mine: str) -> str:
        name.set(mine)
        await gate
        return name.get()

    outers = [ensure_deferred(run("ann")), ensure_deferred(run("bob"))]
    assert name.get() == "nobody"
    gate.callback(None)
    assert [outer.result for outer in outers] == ["ann", "bob"]


def test_ensure_deferred_gives_a_deferred_back_and_refuses_the_rest():
    """A Deferred is itself; what cannot wait is a NotACoroutineError."""
    deferred = succeed(1)
    assert ensure_deferred(deferred) is deferred
    with pytest.raises(NotACoroutineError, match="neither"):
        ensure_deferred(3)  # type: ignore[arg-type]  # what this test is about


def test_inline_callbacks_wants_a_generator():
    """A function that yields nothing is told of, when it is called."""

    @inline_callbacks
    def plain() -> Any:
        return 3

    with pytest.raises(TypeError, match="yields nothing"):
        plain()
