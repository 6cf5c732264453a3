"""Several Deferreds as one."""

from __future__ import annotations

from typing import Any

import pytest

from deferred.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    FailureGroup,
    FirstError,
    fail,
    gather_results,
    race,
    set_unhandled_error_hook,
    succeed,
)
from deferred.failure import Failure


def several(count: int) -> list[Deferred[Any]]:
    return [Deferred() for _ in range(count)]


def error_of(deferred: Deferred[Any]) -> BaseException:
    seen: list[Failure] = []
    deferred.add_errback(seen.append)
    return seen[0].value


def test_a_list_fires_when_all_have_in_its_own_order():
    """With whether each succeeded, and what it brought."""
    first, second, third = several(3)
    group = DeferredList([first, second, third], consume_errors=True)
    error = KeyError()
    second.errback(error)
    third.callback("c")
    assert not group.called
    first.callback("a")
    assert [(good, getattr(result, "value", result)) for good, result in group.result] == [
        (True, "a"),
        (False, error),
        (True, "c"),
    ]


def test_an_empty_list_fires_at_once():
    """All of none have fired; but a first one never will."""
    assert DeferredList([]).result == []
    assert gather_results([]).result == []
    assert not DeferredList([], fire_on_one_callback=True).called


def test_a_list_may_fire_with_the_first_result():
    """And with whose it was; what comes later is not told."""
    first, second, third = several(3)
    group = DeferredList([first, second, third], fire_on_one_callback=True, consume_errors=True)
    first.errback(KeyError())
    third.callback("c")
    second.callback("b")
    assert group.result == ("c", 2)


def test_a_list_may_fail_with_the_first_error():
    """FirstError has the failure and whose it was."""
    first, second = several(2)
    group = DeferredList([first, second], fire_on_one_errback=True, consume_errors=True)
    second.errback(KeyError("x"))
    error = error_of(group)
    assert isinstance(error, FirstError)
    assert (error.index, error.sub_failure.type) == (1, KeyError)
    assert str(error) == "#1: KeyError('x')"


def test_the_members_go_on_with_their_results():
    """A result stays with its Deferred; an error too, unless it is consumed."""
    kept, consumed, good = fail(KeyError()), fail(KeyError()), succeed(1)
    DeferredList([kept, good])
    DeferredList([consumed], consume_errors=True)
    assert isinstance(error_of(kept), KeyError)
    assert (consumed.result, good.result) == (None, 1)


def test_cancelling_a_list_cancels_its_members():
    """Whether it waits for all, or for the first."""
    members = several(2)
    group = DeferredList(members, consume_errors=True)
    group.cancel()
    assert [result.type for _, result in group.result] == [CancelledError] * 2
    members = several(2)
    assert isinstance(cancelled(gather_results(members, consume_errors=True)), FirstError)
    assert all(member.called for member in members)


def cancelled(group: Deferred[Any]) -> BaseException:
    group.cancel()
    return error_of(group)


def test_cancelling_a_list_that_has_fired_leaves_the_rest_alone():
    """They may be somebody else's."""
    first, second = several(2)
    group = DeferredList([first, second], fire_on_one_callback=True)
    first.callback(1)
    group.cancel()
    assert not second.called


def test_a_canceller_that_raises_does_not_save_the_others():
    """Its error goes to the hook for unhandled errors."""

    def broken(_: Deferred[Any]) -> None:
        raise OSError

    told: list[Failure] = []
    before = set_unhandled_error_hook(lambda failure, _: told.append(failure))
    try:
        stuck: Deferred[None] = Deferred(broken)
        other: Deferred[None] = Deferred()
        group = DeferredList([stuck, other], consume_errors=True)
        group.cancel()
        assert other.called
        assert [failure.type for failure in told] == [OSError]
    finally:
        set_unhandled_error_hook(before)


def test_gather_results_gives_the_results_alone():
    """In the order of the Deferreds, not of their firing."""
    first, second = several(2)
    gathered = gather_results([first, second])
    second.callback(2)
    first.callback(1)
    assert gathered.result == [1, 2]


def test_gather_results_fails_with_the_first_error():
    """At once, without waiting for the rest."""
    first, second = several(2)
    gathered = gather_results([first, second], consume_errors=True)
    second.errback(KeyError())
    assert isinstance(error_of(gathered), FirstError)
    assert not first.called


def test_the_first_result_wins_a_race_and_the_others_are_cancelled():
    """Their errors are taken, and they are settled before the winner is announced."""
    first, second, third = several(3)
    announced: list[Any] = []
    race([first, second, third]).add_callback(lambda won: announced.append((won, first.called, third.called)))
    second.callback("b")
    assert announced == [((1, "b"), True, True)]
    assert (first.result, third.result) == (None, None)


def test_a_race_goes_on_after_an_error():
    """Only when all have failed has the race."""
    first, second = several(2)
    over = race([first, second])
    first.errback(KeyError())
    assert not over.called
    second.callback(2)
    assert over.result == (1, 2)


def test_a_race_that_all_lose_fails_with_all_their_failures():
    """In the order of the Deferreds."""
    first, second = several(2)
    over = race([first, second])
    second.errback(ValueError("b"))
    first.errback(KeyError("a"))
    error = error_of(over)
    assert isinstance(error, FailureGroup)
    assert [failure.type for failure in error.failures] == [KeyError, ValueError]
    assert str(error) == "all 2 failed: KeyError('a'), ValueError('b')"
    assert isinstance(error_of(race([])), FailureGroup)


def test_cancelling_a_race_cancels_all_who_run():
    """And it fails as cancelled, so that a timeout knows its own."""
    racers = several(2)
    over = race(racers)
    over.cancel()
    assert [racer.called for racer in racers] == [True, True]
    assert isinstance(error_of(over), CancelledError)


@pytest.mark.parametrize("there", [0, 1])
def test_a_race_may_be_over_before_it_starts(there):
    """Who has a result already wins; if several do, the first of them."""
    racers = [*several(there), succeed("x"), succeed("y"), Deferred()]
    over = race(racers)
    assert over.result == (there, "x")
    assert racers[-1].called


def test_a_loser_whose_canceller_has_a_result_does_not_win():
    """The race is decided by then."""
    late: Deferred[str] = Deferred(lambda d: d.callback("late"))
    first: Deferred[str] = Deferred()
    over = race([late, first])
    first.callback("first")
    assert over.result == (1, "first")
