"""The chain itself: what runs, with what, in which order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from deferred.defer import AlreadyCalledError, CancelledError, Deferred, execute, fail, maybe_deferred, succeed
from deferred.failure import Failure

MANY = 100_000


def boom(result: Any, *args: Any) -> Any:
    raise ValueError(result, *args)


def outcome(deferred: Deferred[Any]) -> Any:
    """What the chain has come to; an error is taken out of it, and given as its exception."""
    assert deferred.called
    seen: list[Any] = []
    deferred.add_both(seen.append)
    assert seen, "the chain waits"
    return seen[0].value if isinstance(seen[0], Failure) else seen[0]


def test_each_callback_gets_what_the_one_before_returned():
    """Three callbacks make a pipeline."""
    deferred: Deferred[int] = Deferred()
    chain = deferred.add_callback(lambda n: n + 1).add_callback(str).add_callback(lambda text: text * 2)
    deferred.callback(4)
    assert chain is deferred
    assert outcome(chain) == "55"


def test_a_callback_added_after_the_result_runs_at_once():
    """Nobody needs to know whether the result is there already."""
    assert outcome(succeed(1).add_callback(lambda n: n + 1)) == 2


def test_nothing_runs_before_the_deferred_is_fired():
    """Callbacks wait for the result."""
    seen: list[int] = []
    deferred: Deferred[int] = Deferred()
    deferred.add_callback(seen.append)
    assert (seen, deferred.called) == ([], False)
    deferred.callback(1)
    assert (seen, deferred.called) == ([1], True)


def test_extra_arguments_follow_the_result():
    """Positional and keyword arguments are handed on, to callbacks, errbacks and both."""
    seen: list[Any] = []

    def note(result: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((args, kwargs))
        return result

    succeed(0).add_callback(note, 1, a=2).add_both(note, 3, b=4).add_callback(note, c=5)
    fail(ValueError()).add_errback(note, 6, d=7).add_errback(lambda _: None)
    assert seen == [((1,), {"a": 2}), ((3,), {"b": 4}), ((), {"c": 5}), ((6,), {"d": 7})]


def test_an_error_goes_to_the_next_errback_past_the_callbacks():
    """What is raised skips callbacks, and what an errback returns goes to the next callback."""
    seen: list[Any] = []
    deferred: Deferred[int] = Deferred()
    deferred.add_errback(seen.append)  # passed by: there is no error yet
    deferred.add_callback(boom).add_callback(seen.append)
    deferred.add_errback(lambda failure: failure.type).add_callback(seen.append)
    deferred.callback(1)
    assert seen == [ValueError]


def test_a_failure_that_is_returned_or_fired_with_is_an_error():
    """`return failure` and `callback(failure)` are as good as raising."""
    failure = Failure(KeyError("x"))
    deferred: Deferred[Any] = Deferred()
    deferred.callback(failure)
    assert outcome(deferred) is failure.value
    assert outcome(succeed(1).add_callback(lambda _: failure)) is failure.value
    assert outcome(succeed(failure)) is failure.value


def test_only_one_of_a_pair_is_called():
    """An errback added together with a callback does not see that callback's error."""
    seen: list[Any] = []
    deferred = succeed(1).add_callbacks(boom, seen.append)
    assert isinstance(outcome(deferred), ValueError)
    fail(KeyError()).add_callbacks(seen.append, lambda failure: seen.append(failure.type))
    assert seen == [KeyError]


def test_a_pair_may_share_its_arguments_or_have_its_own():
    """Positional extras go to whichever runs; the keywords go to one."""
    seen: list[Any] = []

    def note(result: Any, *args: Any, **kwargs: Any) -> None:
        seen.append((args, kwargs))

    for deferred in (succeed(1), fail(ValueError())):
        deferred.add_callbacks(note, note, "both")
    own: dict[str, Any] = {
        "callback_args": (1,),
        "callback_kwargs": {"a": 2},
        "errback_args": (3,),
        "errback_kwargs": {"b": 4},
    }
    for deferred in (succeed(1), fail(ValueError())):
        deferred.add_callbacks(note, note, "first", **own)
    assert seen == [
        (("both",), {}),
        (("both",), {}),
        (("first", 1), {"a": 2}),
        (("first", 3), {"b": 4}),
    ]


def test_an_error_passes_a_pair_without_an_errback():
    """`add_callbacks(f)` is `add_callback(f)`."""
    assert isinstance(outcome(fail(KeyError()).add_callbacks(str)), KeyError)


def test_errback_takes_an_exception_a_failure_or_the_current_exception():
    """Three ways to say the same."""
    error = OSError("gone")
    for given in (error, Failure(error)):
        deferred: Deferred[int] = Deferred()
        deferred.errback(given)
        assert outcome(deferred) is error
    try:
        raise error
    except OSError:
        deferred = fail()
    assert outcome(deferred) is error


def test_firing_twice_is_refused():
    """The second `callback` or `errback` raises, and changes nothing."""
    deferred = succeed(1)
    with pytest.raises(AlreadyCalledError):
        deferred.callback(2)
    with pytest.raises(AlreadyCalledError):
        deferred.errback(ValueError())
    assert outcome(deferred) == 1


def test_firing_with_a_deferred_is_refused():
    """A Deferred belongs into a callback's return value."""
    deferred: Deferred[Any] = Deferred()
    with pytest.raises(TypeError, match="chain_deferred"):
        deferred.callback(succeed(1))
    assert not deferred.called


def test_a_returned_deferred_is_waited_for():
    """The callbacks after it run with its result, once it has one."""
    inner: Deferred[str] = Deferred()
    seen: list[str] = []
    outer = succeed(1).add_callback(lambda _: inner).add_callback(seen.append)
    assert (seen, outer.result, outer.paused) == ([], inner, 1)
    inner.callback("there")
    assert (seen, inner.result) == (["there"], None)


def test_a_returned_deferred_that_is_fired_is_taken_at_once():
    """Its result, or its error, goes on, and is taken from it."""
    inner = succeed(5)
    assert outcome(succeed(1).add_callback(lambda _: inner)) == 5
    assert inner.result is None
    assert isinstance(outcome(succeed(1).add_callback(lambda _: fail(KeyError()))), KeyError)


def test_the_inner_deferreds_later_callbacks_see_none():
    """The result has gone to who waited; it is his turn first."""
    inner: Deferred[int] = Deferred()
    seen: list[Any] = []
    succeed(0).add_callback(lambda _: inner).add_callback(lambda n: seen.append(("outer", n)))
    inner.add_callback(lambda n: seen.append(("inner", n)))
    inner.callback(1)
    assert seen == [("outer", 1), ("inner", None)]


def test_a_callback_added_by_a_callback_waits_for_its_turn():
    """It is called after those added before it, not inside."""
    seen: list[int] = []
    deferred: Deferred[None] = Deferred()

    def first(_: None) -> None:
        deferred.add_callback(lambda _: seen.append(3))
        seen.append(1)

    deferred.add_callback(first)
    deferred.add_callback(lambda _: seen.append(2))
    deferred.callback(None)
    assert seen == [1, 2, 3]


def test_a_deferred_that_returns_itself_is_told_so():
    """It could wait for ever; it fails instead, and says which callback did it."""
    deferred: Deferred[Any] = Deferred()

    def return_myself(_: Any) -> Any:
        return deferred

    deferred.add_callback(return_myself)
    deferred.callback(None)
    error = outcome(deferred)
    assert isinstance(error, RuntimeError)
    assert "return_myself" in str(error)


def test_chain_deferred_fires_the_other():
    """With the result, or with the error."""
    for source, expected in ((succeed(1), 1), (fail(KeyError("x")), KeyError)):
        other: Deferred[int] = Deferred()
        source.chain_deferred(other)
        result = outcome(other)
        assert result == expected or isinstance(result, KeyError)
        assert outcome(source) is None


def test_pause_holds_callbacks_back_until_as_many_unpauses():
    """Pauses are counted."""
    seen: list[int] = []
    deferred: Deferred[int] = Deferred()
    deferred.add_callback(seen.append)
    deferred.pause()
    deferred.pause()
    deferred.callback(1)
    deferred.unpause()
    assert seen == []
    deferred.unpause()
    assert seen == [1]


def test_a_callback_may_pause_its_own_chain():
    """What comes after it waits, and nothing runs twice."""
    seen: list[int] = []
    deferred: Deferred[int] = Deferred()

    def hold(n: int) -> int:
        deferred.pause()
        seen.append(n)
        return n + 1

    deferred.add_callback(hold)
    deferred.add_callback(seen.append)
    deferred.callback(1)
    assert seen == [1]
    deferred.unpause()
    assert seen == [1, 2]


def test_a_paused_deferred_that_is_waited_for_keeps_its_waiter_waiting():
    """Its result counts when it is unpaused."""
    inner = succeed(3)
    inner.pause()
    outer = succeed(0).add_callback(lambda _: inner)
    assert outer.result is inner
    inner.unpause()
    assert outcome(outer) == 3


def test_a_paused_waiter_goes_on_when_it_is_unpaused():
    """Getting the result does not undo somebody else's pause."""
    inner: Deferred[int] = Deferred()
    seen: list[int] = []
    outer = succeed(0).add_callback(lambda _: inner)
    outer.add_callback(seen.append)
    outer.pause()
    inner.callback(7)
    assert seen == []
    outer.unpause()
    assert seen == [7]


def test_a_hundred_thousand_fired_deferreds_in_one_chain_do_not_recurse():
    """Each callback returns a Deferred that is there already."""
    deferred: Deferred[int] = Deferred()
    for _ in range(MANY):
        deferred.add_callback(lambda n: succeed(n + 1))
    deferred.callback(0)
    assert outcome(deferred) == MANY


def waiting_chain() -> tuple[list[Deferred[Any]], list[Any]]:
    """Deferreds that each wait for the next, and what the first comes to."""
    chain: list[Deferred[Any]] = [Deferred() for _ in range(MANY)]
    for this, following in pairwise(chain):
        this.add_callback(lambda _, following=following: following)
    seen: list[Any] = []
    chain[0].add_both(seen.append)
    for deferred in chain[:-1]:
        deferred.callback(None)
    return chain, seen


def test_a_hundred_thousand_deferreds_that_wait_for_one_another_do_not_recurse():
    """The innermost fires, and the outermost has its result."""
    chain, seen = waiting_chain()
    chain[-1].callback("there")
    assert seen == ["there"]


def test_cancelling_the_first_of_a_hundred_thousand_reaches_the_last():
    """Neither the way there nor the way back overflows."""
    chain, seen = waiting_chain()
    chain[0].cancel()
    assert chain[-1].called
    assert seen[0].check(CancelledError)


def test_execute_gives_a_deferred_of_what_happens_now():
    """Returned or raised."""
    assert outcome(execute(divmod, 7, 2)) == (3, 1)
    assert isinstance(outcome(execute(divmod, 7, 0)), ZeroDivisionError)


def test_maybe_deferred_takes_whatever_a_function_does():
    """A value, an exception, a Failure, a Deferred or a coroutine."""

    async def later() -> str:
        return "co"

    inner: Deferred[int] = Deferred()
    assert outcome(maybe_deferred(int, "4")) == 4
    assert isinstance(outcome(maybe_deferred(int, "x")), ValueError)
    assert isinstance(outcome(maybe_deferred(lambda: Failure(KeyError()))), KeyError)
    assert maybe_deferred(lambda: inner) is inner
    assert outcome(maybe_deferred(later)) == "co"


def test_repr_tells_the_state():
    """Not fired, waiting, or its result."""
    inner: Deferred[int] = Deferred()
    outer = succeed(1).add_callback(lambda _: inner)
    assert "not fired" in repr(inner)
    assert f"waiting for Deferred at {id(inner):#x}" in repr(outer)
    assert "result: 'x'" in repr(succeed("x"))


@pytest.mark.parametrize("add", ["add_callback", "add_errback", "add_both", "add_callbacks"])
def test_none_is_no_callback(add):
    """It is refused where it is added, not passed over."""
    with pytest.raises(TypeError, match="there is no"):
        getattr(Deferred(), add)(None)


def test_twisteds_names_for_a_callbacks_arguments_do_too():
    """In snake case, beside ours."""
    seen = []

    def note(result, *args, **keywords):
        seen.append((args, keywords))

    for deferred in (succeed(1), fail(KeyError())):
        deferred.add_callbacks(
            note,
            note,
            0,
            callback_args=(1,),
            callback_keywords={"well": 2},
            callback_kwargs={"also": 3},
            errback_args=(4,),
            errback_keywords={"ill": 5},
        )
    assert seen == [((0, 1), {"well": 2, "also": 3}), ((0, 4), {"ill": 5})]


def test_executing_what_returns_a_deferred_fails():
    """It has no result yet, and `execute` does not wait; `maybe_deferred` does."""
    assert isinstance(outcome(execute(lambda: succeed(1))), TypeError)
