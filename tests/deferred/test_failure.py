"""Exceptions as values, and what they keep alive."""

from __future__ import annotations

import contextlib
import gc
import io
import traceback
import weakref
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import pytest

from deferred.defer import Deferred, DeferredList, ensure_deferred, inline_callbacks
from deferred.failure import Failure, NoCurrentExceptionError


class Precious:
    """Something whose end a test watches."""


@pytest.fixture(autouse=True)
def _without_the_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def raised(error: Exception) -> Failure:
    try:
        raise error
    except Exception:  # noqa: BLE001 - whichever the test wants
        return Failure()


def frames(failure: Failure) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(failure.tb)]


def test_a_failure_is_made_of_the_current_exception_or_a_given_one():
    """And of nothing else."""
    error = KeyError("x")
    failure = raised(error)
    assert (failure.value, failure.type, frames(failure)) == (error, KeyError, ["raised"])
    given = Failure(error.with_traceback(None))
    assert (given.value, given.tb) == (error, None)
    with pytest.raises(NoCurrentExceptionError):
        Failure()


def test_check_gives_the_first_type_that_fits():
    """Or None."""
    failure = Failure(KeyError())
    assert failure.check(ValueError, LookupError, KeyError) is LookupError
    assert failure.check(ValueError) is None


def test_trap_gives_the_type_or_raises_the_error():
    """With the traceback it had."""
    failure = raised(KeyError())
    assert failure.trap(OSError, KeyError) is KeyError
    with pytest.raises(KeyError) as caught:
        failure.trap(OSError)
    assert caught.value is failure.value
    assert [frame.name for frame in caught.traceback][-1] == "raised"


def test_a_trap_that_lets_go_hands_the_failure_on_as_it_was():
    """Ten errbacks later the traceback is what it was at the first."""
    deferred: Deferred[None] = Deferred()
    deferred.add_callback(lambda _: int("no number"))
    seen: list[Failure] = []
    deferred.add_errback(lambda failure: seen.append(failure) or failure)
    for _ in range(10):
        deferred.add_errback(lambda failure: failure.trap(OSError))
    deferred.add_errback(seen.append)
    deferred.callback(None)
    first, last = seen
    assert last is first
    assert frames(last) == ["<lambda>"]
    assert last.value.__traceback__ is last.tb


def test_it_is_raised_and_thrown_with_its_own_traceback():
    """Into a generator too, whose next value comes back."""
    failure = raised(KeyError())

    def generator() -> Generator[str, None, None]:
        try:
            yield "first"
        except KeyError as error:
            yield "/".join(frame.name for frame in traceback.extract_tb(error.__traceback__))

    running = generator()
    next(running)
    assert failure.throw_exception_into_generator(running) == "generator/raised"
    with pytest.raises(KeyError) as caught:
        failure.raise_exception()
    assert [frame.name for frame in caught.traceback][-2:] == ["raise_exception", "raised"]


def test_the_message_is_the_exceptions_own():
    """Even when it has none, or cannot say it."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise OSError

    assert Failure(ValueError("plain")).get_error_message() == "plain"
    assert Failure(ValueError()).get_error_message() == ""
    assert "Mute" in Failure(Mute()).get_error_message()
    assert "OSError" in Failure(Mute()).get_error_message()


def test_the_traceback_is_pythons_own():
    """With causes."""

    def fail_twice() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    try:
        fail_twice()
    except ValueError as error:
        expected = traceback.format_exc()
        failure = Failure(error)
    assert failure.get_traceback() == expected
    assert "KeyError: 'first'" in expected
    out = io.StringIO()
    failure.print_traceback(out)
    assert out.getvalue() == expected


def test_the_brief_traceback_has_a_line_for_each_frame():
    """And the error at the top."""
    lines = raised(KeyError("x")).get_brief_traceback().splitlines()
    assert lines[0] == "Traceback: builtins.KeyError: 'x'"
    assert lines[1].startswith(__file__)
    assert lines[1].endswith(":raised")
    assert len(lines) == 2


def hold_and_raise(watch: list[weakref.ref[Precious]], *, cause: bool = False) -> None:
    precious = Precious()
    watch.append(weakref.ref(precious))
    if cause:
        try:
            hold_and_raise(watch)
        except ValueError as error:
            raise KeyError from error
    raise ValueError


def test_cleaning_lets_go_of_the_frames_and_keeps_the_text():
    """Those of its causes and of a group's members too."""
    watch: list[weakref.ref[Precious]] = []

    def make() -> Failure:
        errors: list[Exception] = []
        for cause in (False, True):
            try:
                hold_and_raise(watch, cause=cause)
            except Exception as error:  # noqa: BLE001 - either of two
                errors.append(error)
        return raised(ExceptionGroup("both", errors))

    failure = make()
    assert [ref() is None for ref in watch] == [False] * 3
    text, brief = failure.get_traceback(), failure.get_brief_traceback()
    failure.clean_failure()
    failure.clean_failure()
    gc.collect()  # make() itself has made a cycle: its frame has the errors whose traceback has its frame
    assert [ref() for ref in watch] == [None] * 3
    assert (failure.tb, failure.get_traceback(), failure.get_brief_traceback()) == (None, text, brief)
    with pytest.raises(ExceptionGroup):
        failure.raise_exception()


def test_an_error_that_is_handled_leaves_no_garbage():
    """What its frames held goes at once: by errback, by trap, in a group, in a coroutine or a generator."""
    watch: list[weakref.ref[Precious]] = []

    def errback(deferred: Deferred[Any]) -> None:
        deferred.add_errback(lambda _: None)

    def trap(deferred: Deferred[Any]) -> None:
        deferred.add_errback(lambda failure: failure.trap(OSError))
        deferred.add_errback(lambda failure: failure.trap(ValueError))

    def group(deferred: Deferred[Any]) -> None:
        DeferredList([deferred], fire_on_one_errback=True, consume_errors=True).add_errback(lambda _: None)

    async def catch(deferred: Deferred[Any]) -> None:
        with contextlib.suppress(ValueError):
            await deferred

    async def pass_on(deferred: Deferred[Any]) -> None:
        await deferred

    @inline_callbacks
    def generate(deferred: Deferred[Any]) -> Generator[Deferred[Any], Any, None]:
        yield deferred

    ways = [
        errback,
        trap,
        group,
        lambda deferred: ensure_deferred(catch(deferred)),
        lambda deferred: ensure_deferred(pass_on(deferred)).add_errback(lambda _: None),
        lambda deferred: generate(deferred).add_errback(lambda _: None),
    ]
    for way in ways:
        for fire_first in (True, False):
            deferred: Deferred[None] = Deferred()
            deferred.add_callback(lambda _: hold_and_raise(watch))
            if fire_first:
                deferred.callback(None)
            way(deferred)
            if not fire_first:
                deferred.callback(None)
            del deferred
            assert [ref() for ref in watch] == [None], (way, fire_first)
            watch.clear()


def test_throwing_and_raising_leave_no_garbage():
    """The frames of `raise_exception` and `throw_exception_into_generator` do not point back."""
    watch: list[weakref.ref[Precious]] = []

    def generator() -> Generator[None, None, None]:
        yield

    running = generator()
    next(running)
    failure = raised_in(watch)
    for attempt in (failure.raise_exception, partial(failure.throw_exception_into_generator, running)):
        with contextlib.suppress(ValueError):
            attempt()
    # our own frame is in the traceback, and points at the failure as long as these do
    del failure, attempt
    assert [ref() for ref in watch] == [None]


def raised_in(watch: list[weakref.ref[Precious]]) -> Failure:
    try:
        hold_and_raise(watch)
    except ValueError:
        return Failure()
    raise AssertionError


def test_repr_and_str_tell_the_error():
    """For logs and debuggers."""
    failure = raised(KeyError("x"))
    assert repr(failure) == "<deferred.failure.Failure builtins.KeyError: 'x'>"
    assert "KeyError: 'x'" in str(failure)
    assert ":raised" in str(failure)


def test_telling_of_an_error_does_not_change_it():
    """An exception on its way up keeps the frames it has been through."""
    failure = raised(KeyError())
    with pytest.raises(KeyError) as caught:
        failure.raise_exception()
    on_its_way = caught.value.__traceback__
    failure.get_traceback()
    assert caught.value.__traceback__ is on_its_way


def test_types_may_be_given_by_name():
    """The exception's own, or one that it inherits from, with the module's name."""
    failure = Failure(FileNotFoundError("x"))
    assert failure.check(ValueError, "builtins.OSError") == "builtins.OSError"
    assert failure.check("OSError", "builtins.ValueError") is None
    assert failure.trap("builtins.FileNotFoundError") == "builtins.FileNotFoundError"
    with pytest.raises(FileNotFoundError):
        failure.trap("builtins.ValueError")


def test_an_unknown_detail_of_a_traceback_is_refused():
    """It is not taken for another."""
    with pytest.raises(ValueError, match="verbose"):
        Failure(KeyError("x")).get_traceback("verbose")
