"""The Deferred: a result that has not come yet, and what is to be done with it.

    waiting --callback/errback--> running <--> waiting for another Deferred (returned by a callback), or paused
                                     \\--> idle, with a result, until somebody adds a callback

Each callback is called with what the one before returned. What one raises, or a Failure that it returns, goes to the
next errback. A Deferred that it returns is waited for, and its result goes on in its place. Callbacks run as soon as
there is a result: at once, inside `add_callback`, if it is there already.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from operator import length_hint
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload

from deferred.defer import timeouts, unhandled
from deferred.defer.errors import AlreadyCalledError, CancelledError
from deferred.failure import Detour, Failure, failure_from

if TYPE_CHECKING:
    from deferred.interfaces import TimeSource

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
P = ParamSpec("P")

_NO_KWARGS: Final[Mapping[str, Any]] = {}

_HAND_OVER: Final = object()
"""In the place of a callback: where its arguments would be is a Deferred that waits for the result."""


class Deferred(Detour, Generic[T]):
    """A result that has not come yet.

    `called` tells whether it was fired, `result` is what the last callback returned (not there before it is fired; a
    Deferred while that one is waited for), and `paused` counts what holds the callbacks back.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_canceller",
        "_late",
        "_record",
        "_running",
        "called",
        "paused",
        "result",
    )

    result: Any

    def __init__(self, canceller: Callable[[Deferred[Any]], object] | None = None) -> None:
        """`canceller`, called with this Deferred by `cancel`, stops what would have fired it.

        It may fire the Deferred itself; if it does not, the Deferred fails with `CancelledError`.
        """
        self.called = False
        self.paused = 0
        # each is (callback, errback, args, kwargs); None instead of a function lets the result pass. All that have no
        # keywords share one empty dict: ten thousand chains that wait have a hundred thousand callbacks.
        self._callbacks: list[tuple[Any, Any, Any, Mapping[str, Any]]] = []
        self._canceller = canceller
        self._late = False  # whether the result may still come, to be ignored, after a cancel
        self._running = False
        self._record: unhandled.Record | None = None
        if unhandled.debugging:
            self._record = unhandled.Record()
            self._record.note_made()

    @overload
    def add_callback(
        self, callback: Callable[Concatenate[T, P], Deferred[U] | Failure], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[U]: ...
    @overload
    def add_callback(
        self, callback: Callable[Concatenate[T, P], Deferred[U] | U | Failure], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[U]: ...
    def add_callback(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call `callback(result, *args, **kwargs)` when there is a result; an error passes by. Returns self."""
        if callback is None:
            raise TypeError("there is no callback to add")
        self._callbacks.append((callback, None, args, kwargs or _NO_KWARGS))
        if self.called and not self.paused:
            self._run()
        return self

    @overload
    def add_errback(
        self, errback: Callable[Concatenate[Failure, P], Deferred[U] | Failure], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T | U]: ...
    @overload
    def add_errback(
        self, errback: Callable[Concatenate[Failure, P], Deferred[U] | U | Failure], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T | U]: ...
    def add_errback(self, errback: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call `errback(failure, *args, **kwargs)` if there is an error; a result passes by. Returns self."""
        if errback is None:
            raise TypeError("there is no errback to add")
        self._callbacks.append((None, errback, args, kwargs or _NO_KWARGS))
        if self.called and not self.paused:
            self._run()
        return self

    @overload
    def add_both(
        self, callback: Callable[Concatenate[T | Failure, P], Deferred[U] | Failure], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[U]: ...
    @overload
    def add_both(
        self,
        callback: Callable[Concatenate[T | Failure, P], Deferred[U] | U | Failure],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Deferred[U]: ...
    @overload
    def add_both(self, callback: Callable[Concatenate[U, P], U], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
    def add_both(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call `callback(result or failure, *args, **kwargs)` in any case. Returns self."""
        if callback is None:
            raise TypeError("there is no callback to add")
        self._callbacks.append((callback, callback, args, kwargs or _NO_KWARGS))
        if self.called and not self.paused:
            self._run()
        return self

    @overload
    def add_callbacks(
        self, callback: Callable[[T], Deferred[U] | Failure], errback: Callable[[Failure], Deferred[V] | Failure]
    ) -> Deferred[U | V]: ...
    @overload
    def add_callbacks(
        self, callback: Callable[[T], Deferred[U] | Failure], errback: Callable[[Failure], V | Failure]
    ) -> Deferred[U | V]: ...
    @overload
    def add_callbacks(
        self, callback: Callable[[T], U | Failure], errback: Callable[[Failure], Deferred[V] | Failure]
    ) -> Deferred[U | V]: ...
    @overload
    def add_callbacks(
        self, callback: Callable[[T], U | Failure], errback: Callable[[Failure], V | Failure]
    ) -> Deferred[U | V]: ...
    @overload
    def add_callbacks(
        self,
        callback: Callable[..., Any],
        errback: Callable[..., Any] | None = None,
        *args: Any,
        callback_args: tuple[Any, ...] = (),
        callback_kwargs: Mapping[str, Any] = _NO_KWARGS,
        callback_keywords: Mapping[str, Any] = _NO_KWARGS,
        errback_args: tuple[Any, ...] = (),
        errback_kwargs: Mapping[str, Any] = _NO_KWARGS,
        errback_keywords: Mapping[str, Any] = _NO_KWARGS,
    ) -> Deferred[Any]: ...
    def add_callbacks(
        self,
        callback: Callable[..., Any],
        errback: Callable[..., Any] | None = None,
        *args: Any,
        callback_args: tuple[Any, ...] = (),
        callback_kwargs: Mapping[str, Any] = _NO_KWARGS,
        callback_keywords: Mapping[str, Any] = _NO_KWARGS,
        errback_args: tuple[Any, ...] = (),
        errback_kwargs: Mapping[str, Any] = _NO_KWARGS,
        errback_keywords: Mapping[str, Any] = _NO_KWARGS,
    ) -> Deferred[Any]:
        """Call `callback` for a result or `errback` for an error: one of them, never both. Returns self.

        `args` go to whichever is called, where Twisted's third to sixth would be each one's arguments: those are
        keywords here, by Twisted's names (`callback_keywords`) or these (`callback_kwargs`), and come after `args`.
        """
        if callback is None:
            raise TypeError("there is no callback to add")
        if callback_args or callback_kwargs or callback_keywords:
            callback = _with_arguments(callback, callback_args, {**callback_kwargs, **callback_keywords})
        if errback is not None and (errback_args or errback_kwargs or errback_keywords):
            errback = _with_arguments(errback, errback_args, {**errback_kwargs, **errback_keywords})
        self._callbacks.append((callback, errback, args, _NO_KWARGS))
        if self.called and not self.paused:
            self._run()
        return self

    def chain_deferred(self, other: Deferred[T]) -> Deferred[None]:
        """Fire `other` with our result or error. Returns this Deferred."""
        return self.add_callbacks(other.callback, other.errback)

    def add_timeout(
        self, seconds: float, clock: TimeSource, on_timeout_cancel: Callable[[T | Failure, float], U] | None = None
    ) -> Deferred[T | U]:
        """Cancel this Deferred unless it has a result `seconds` from now, counting the callbacks added before this.

        It then fails with the builtin `TimeoutError` where it would have failed with `CancelledError`; or, given
        `on_timeout_cancel(result or failure, seconds)`, goes on with what that returns. Returns this Deferred.
        """
        return timeouts.cancel_after(self, seconds, clock, on_timeout_cancel)

    def callback(self, result: T) -> None:
        """Fire with a result (or a Failure). Raises `AlreadyCalledError` the second time."""
        if isinstance(result, Deferred):
            raise TypeError("a Deferred is no result: return it from a callback, or use chain_deferred")
        if (self.called or self._record is not None) and not self._may_fire():
            return
        self.called = True
        self._canceller = None  # it is done with, and often points back at us
        self.result = result
        self._run()
        # a traceback may keep this frame for longer than anybody keeps the Deferred
        del self

    def errback(self, error: Failure | BaseException | None = None) -> None:
        """Fire with an error: a Failure, an exception, or by default the one being handled.

        Raises `AlreadyCalledError` the second time, `NoCurrentExceptionError` if there is no exception.
        """
        failure: Any = error if isinstance(error, Failure) else Failure(error)
        self.callback(failure)
        del self, error, failure

    def pause(self) -> None:
        """Hold the callbacks back until `unpause` was called as often."""
        self.paused += 1

    def unpause(self) -> None:
        """Take one `pause` back; after the last, the callbacks run if there is a result."""
        self.paused -= 1
        if self.called:
            self._run()

    def cancel(self) -> None:
        """Give up the wait.

        Not fired yet: the canceller is called, and unless it fires the Deferred, that fails with `CancelledError`.
        Without a canceller, the result that may still come is ignored, once. Waiting for another Deferred: that one
        is cancelled. Otherwise nothing happens. Raises `RuntimeError` where Deferreds wait for one another in a circle.
        """
        last: Deferred[Any] = self
        passed: set[int] = set()
        while (waited := last._waited()) is not None:
            if id(waited) in passed:
                raise RuntimeError(f"{self!r} waits for Deferreds that wait for one another: none of them can end")
            passed.add(id(waited))
            last = waited
        if last is not self:
            last.cancel()
        elif not self.called:
            if self._canceller is not None:
                self._canceller(self)
            else:
                self._late = True
            if not self.called:
                self.errback(CancelledError())

    def __await__(self) -> Generator[Deferred[Any], Any, T]:
        """Wait in a coroutine that `ensure_deferred` runs.

        The result stays, for whoever else awaits it, and so does an error, which counts as handled.
        """
        if not self._is_idle() or type(self.result) is Failure:
            return (yield self)  # type: ignore[no-any-return]  # what is sent in comes out of our own chain
        return self.result  # type: ignore[no-any-return]  # the chain's result, as any callback gets it

    def _may_fire(self) -> bool:
        """Whether to fire at all; not if this is the late result of what was cancelled. Notes where, when debugging."""
        if self.called:
            if self._late:
                self._late = False
                return False
            raise AlreadyCalledError(self._record.detail() if self._record is not None else "")
        if self._record is not None:
            self._record.note_fired()
        return True

    def _waited(self) -> Deferred[Any] | None:
        """What we wait for, if it is another Deferred."""
        return self.result if self.called and isinstance(self.result, Deferred) else None

    def _is_idle(self) -> bool:
        """Whether there is a result, and nothing on the way that would change it."""
        return self.called and not self.paused and not self._running

    def _take(self) -> Any:
        """Take the result, whatever it is, out of an idle Deferred: nobody will be told of its error."""
        result, self.result = self.result, None
        if self._record is not None:
            self._record.failure = None
        return result

    def _receive(self) -> Any:
        """The result of an idle Deferred, for a function that waits for it; an error has been heard, but stays."""
        if self._record is not None:
            self._record.failure = None
        return self.result

    def _run(self, ready: list[Deferred[Any]] | None = None) -> None:
        """Call what can be called. Who waits for us is put into `ready`: calls in calls would overflow the stack."""
        if self._running or self.paused:
            return
        self._running = True
        result = self.result
        failed = type(result) is Failure
        mine: list[Deferred[Any]] | None = None
        steps = iter(self._callbacks)  # which also gives what is added while it runs
        for callback, errback, args, kwargs in steps:
            call = errback if failed else callback
            if call is None:
                continue
            try:
                if not args and not kwargs:
                    result = call(result)
                elif call is _HAND_OVER:
                    failed = False
                    break
                else:
                    result = call(result, *args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - every error goes down the chain
                result = failure_from(error, result)
            failed = False
            if isinstance(result, Detour):
                if isinstance(result, Deferred):
                    result = self._follow(result, call)
                failed = type(result) is Failure
            self.result = result
            if self.paused:
                break  # type: ignore[unreachable]  # mypy does not see that the call, or _follow, may pause
        else:
            self._running = False
            self._callbacks.clear()
            call = None
        if self._running:  # stopped on the way: the rest is for later
            del self._callbacks[: len(self._callbacks) - length_hint(steps)]
            self._running = False
        if call is _HAND_OVER:
            ready = (mine := []) if ready is None else ready
            if self._callbacks:
                ready.append(self)  # when those who waited are done
            args._go_on(self, ready)  # which hears of a failure
        elif failed or self._record is not None:
            self._note_failure()
        # a traceback may keep this frame for longer than anybody keeps the Deferred and what it called
        self = result = steps = callback = errback = args = kwargs = call = None  # type: ignore[assignment]
        while mine:
            mine.pop()._run(mine)

    def _go_on(self, waited: Deferred[Any], ready: list[Deferred[Any]]) -> None:
        """Take the result of `waited`, which we waited for; it is our turn next."""
        self.result = waited._take()
        self.paused -= 1
        ready.append(self)

    def _note_failure(self) -> None:
        """Keep a record while our result is a Failure, to tell of it if nobody takes it."""
        failure = self.result if isinstance(self.result, Failure) else None
        if self._record is not None:
            self._record.failure = failure
        elif failure is not None:
            self._record = unhandled.Record(failure)

    def _follow(self, other: Deferred[Any], call: object) -> Any:
        """What to go on with after a callback returned `other`: its result, or, paused until it has one, itself."""
        if other is self:
            return Failure(
                RuntimeError(f"{call!r} returned the Deferred that it is a callback of, which cannot wait for itself")
            )
        if other._is_idle():
            return other._take()
        self.paused += 1
        other._add_waiting(self)
        return other

    def _add_waiting(self, other: Deferred[Any]) -> None:
        """Let `other` go on when we have a result."""
        self._callbacks.append((_HAND_OVER, _HAND_OVER, other, _NO_KWARGS))

    def __repr__(self) -> str:
        if not self.called:
            state = "not fired"
        elif isinstance(self.result, Deferred):
            state = f"waiting for Deferred at {id(self.result):#x}"
        else:
            state = f"result: {self.result!r}"
        return f"<{self.__class__.__name__} at {id(self):#x}, {state}>"


def _with_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Callable[..., Any]:
    def call(result: Any, *more: Any) -> Any:
        return function(result, *more, *args, **kwargs)

    return call
