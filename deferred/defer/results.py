"""Deferreds that are fired already, and calls whose outcome becomes one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar, overload

from deferred.defer.coroutines import ensure_deferred
from deferred.defer.deferred import Deferred
from deferred.failure import Detour, Failure

T = TypeVar("T")
P = ParamSpec("P")


def succeed(result: T) -> Deferred[T]:
    """A Deferred that has `result` already."""
    deferred: Deferred[T] = Deferred()
    if isinstance(result, Detour):
        deferred.callback(result)
    else:
        deferred.called = True
        deferred.result = result
    return deferred


def fail(error: Failure | BaseException | None = None) -> Deferred[Any]:
    """A Deferred that has failed already: with a Failure, an exception, or by default the one being handled."""
    deferred: Deferred[Any] = Deferred()
    deferred.errback(error)
    return deferred


def execute(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
    """A Deferred of what `function` returns, or raises, now; if that is a Deferred, it fails with `TypeError`."""
    try:
        return succeed(function(*args, **kwargs))
    except BaseException:  # noqa: BLE001 - every error goes down the chain
        return fail()


@overload
def maybe_deferred(function: Callable[P, Deferred[T]], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
@overload
def maybe_deferred(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
@overload
def maybe_deferred(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
def maybe_deferred(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
    """Call `function`, and give a Deferred whether it returns one, a coroutine, a Failure or a value, or raises."""
    try:
        result = function(*args, **kwargs)
    except BaseException:  # noqa: BLE001 - every error goes down the chain
        return fail()
    if isinstance(result, Deferred):
        return result
    if isinstance(result, CoroutineType):
        return ensure_deferred(result)
    return succeed(result)
