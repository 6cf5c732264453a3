"""Functions that wait in the middle: coroutines that await Deferreds, and generators that yield them.

Cancelling the Deferred of such a function cancels what it waits for: the function sees the `CancelledError`, where it
waits, and decides what comes of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from types import CoroutineType, GeneratorType
from typing import Any, ParamSpec, TypeVar

from deferred.defer.deferred import Deferred
from deferred.defer.errors import NotACoroutineError
from deferred.failure import Failure, failure_from

T = TypeVar("T")
P = ParamSpec("P")

Waiting = Coroutine[Deferred[Any], Any, T] | Generator[Any, Any, T]


class CoroutineDeferred(Deferred[T]):
    """The Deferred of what a coroutine or generator returns; it also moves it along, up to the first wait when made.

    The function runs in a copy of the context (`contextvars`) that it was started in.
    """

    __slots__ = ("_cancelled", "_context", "_function", "_waiting_for")

    def __init__(self, function: Waiting[T]) -> None:
        super().__init__()
        self._function = function
        self._context = copy_context()
        self._waiting_for: Deferred[Any] | None = None
        self._cancelled = False  # while it ran: its next wait is given up at once
        self._step(None)
        if self._is_idle():
            self._run()
        del self  # for the reason that _step has

    def cancel(self) -> None:
        """Cancel what the function waits for; when it has returned, as any Deferred does."""
        if self.called or self._waiting_for is not None:
            super().cancel()
        else:
            self._cancelled = True

    def _waited(self) -> Deferred[Any] | None:
        return super()._waited() if self.called else self._waiting_for

    def _go_on(self, waited: Deferred[Any], ready: list[Deferred[Any]]) -> None:
        if self.called:
            super()._go_on(waited, ready)
            return
        self._step(waited._receive())
        if self._is_idle():
            ready.append(self)
        del self, ready  # for the reason that _step has

    def _step(self, result: Any) -> None:
        """Run the function, which waits for `result`, until it waits for what is not there yet, or has a result.

        Our callbacks are left to the caller: coroutines that wait for one another are no calls in calls, either.
        """
        function = self._function
        self._waiting_for = None
        while True:
            thrown = result if isinstance(result, Failure) else None
            try:
                if thrown is not None:
                    waited = self._context.run(function.throw, thrown.value.with_traceback(thrown.tb))
                else:
                    waited = self._context.run(function.send, result)
            except StopIteration as stop:
                result = stop.value
                break
            except BaseException as error:  # noqa: BLE001 - every error goes down the chain
                result = failure_from(error, None)
                break
            finally:
                if thrown is not None:  # who else waited has it still: it must not point back at him
                    thrown.value.__traceback__ = thrown.tb
            if isinstance(waited, (CoroutineType, GeneratorType)):
                waited = ensure_deferred(waited)
            if not isinstance(waited, Deferred):
                result = waited
                continue
            if self._cancelled:
                self._cancelled = False
                waited.cancel()
            if not waited._is_idle():
                self._waiting_for = waited
                waited._add_waiting(self)
                self = function = result = waited = thrown = None  # type: ignore[assignment]  # see below
                return
            result = waited._receive()
        if self._may_fire():
            self.called = True
            self.result = self._follow(result, function) if isinstance(result, Deferred) else result
        # a traceback may keep this frame for longer than anybody keeps the Deferred
        self = function = result = waited = thrown = None  # type: ignore[assignment]


def ensure_deferred(waiting: Waiting[T] | Deferred[T]) -> Deferred[T]:
    """Run a coroutine (or generator) that waits for Deferreds: a Deferred of what it returns. A Deferred is itself.

    Raises `NotACoroutineError`.
    """
    if isinstance(waiting, Deferred):
        return waiting
    if not isinstance(waiting, (CoroutineType, GeneratorType)):
        raise NotACoroutineError(f"{waiting!r} is neither a coroutine nor a Deferred")
    return CoroutineDeferred(waiting)


def inline_callbacks(function: Callable[P, Generator[Any, Any, T]]) -> Callable[P, Deferred[T]]:
    """Have a generator function wait for each Deferred that it yields, and return a Deferred of what it returns.

    `yield` gives the Deferred's result, or raises its error; what is no Deferred is given straight back.
    """

    @functools.wraps(function)
    def start(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        generator = function(*args, **kwargs)
        if not isinstance(generator, GeneratorType):
            raise TypeError(f"{function!r} is under inline_callbacks, but it yields nothing: it returned {generator!r}")
        return ensure_deferred(generator)

    return start
