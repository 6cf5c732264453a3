"""Threads for what can only be had by blocking: a fsync, the system's resolver.

The pool is bounded twice, in threads and in calls that wait for one, so that a disk or a resolver that hangs fills
neither memory nor the process table; beyond the bound a call fails at once with `PoolFull`. The threads are daemons:
one that hangs does not keep the process from ending.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from deferred.defer import Deferred, fail

T = TypeVar("T")

_Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], "Deferred[Any]"]
_Work = list[_Call]
"""One call; whoever pops it has it: the thread that makes it, or who cancels it before."""


class PoolFull(RuntimeError):
    """As many calls wait for a thread as are allowed to."""


class ThreadPool:
    """Runs functions in at most `size` threads, while at most `backlog` others wait for one.

    All methods are for the reactor's thread; `post(function, *args)` must make a call there from any thread.
    """

    def __init__(
        self, post: Callable[..., None], *, size: int = 10, backlog: int = 10_000, name: str = "deferred"
    ) -> None:
        self._post = post
        self._size = size
        self._backlog = backlog
        self._name = name
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._unfinished = 0  # given to the pool, not delivered yet
        self._threads = 0
        self._closed = False

    @property
    def unfinished(self) -> int:
        """Calls that run or wait for a thread."""
        return self._unfinished

    def defer(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Deferred[T]:
        """Fire with what `function` returns or raises in a thread.

        Fails with `PoolFull`, or `RuntimeError` once the pool is closed. Cancelling it drops a call that has no thread
        yet; one that runs is not stopped, and its result is dropped.
        """
        if self._closed:
            return fail(RuntimeError("the thread pool is closed"))
        if self._unfinished >= self._size + self._backlog:
            return fail(PoolFull(f"{self._backlog} calls wait for one of {self._size} threads"))
        if self._threads < min(self._size, self._unfinished + 1):
            try:
                self._start_thread()
            except RuntimeError as error:  # the system has none; those that there are will do
                if not self._threads:
                    return fail(error)
        work: _Work = []
        deferred: Deferred[T] = Deferred(lambda _: self._withdraw(work))
        work.append((function, args, kwargs, deferred))
        self._unfinished += 1
        self._work.put(work)
        return deferred

    def _start_thread(self) -> None:
        threading.Thread(target=self._serve, name=f"{self._name}-{self._threads + 1}", daemon=True).start()
        self._threads += 1

    def _withdraw(self, work: _Work) -> None:
        """The call is cancelled; if no thread has it yet, it waits no longer."""
        with contextlib.suppress(IndexError):
            work.pop()
            self._unfinished -= 1

    def close(self) -> None:
        """Take no more calls; the threads end when those they have are made."""
        self._closed = True
        for _ in range(self._threads):
            self._work.put(None)
        self._threads = 0

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                function, args, kwargs, deferred = work.pop()
            except IndexError:
                continue  # it was cancelled while it waited
            result: Any = None
            error: BaseException | None = None
            try:
                result = function(*args, **kwargs)
            except BaseException as raised:  # noqa: BLE001 - whatever it is belongs to the caller
                error = raised
            self._post(self._deliver, deferred, result, error)
            # else this thread would keep them alive until its next call
            del work, function, args, kwargs, deferred, result, error

    def _deliver(self, deferred: Deferred[Any], result: Any, error: BaseException | None) -> None:
        self._unfinished -= 1
        if deferred.called:  # cancelled
            return
        if isinstance(result, Deferred):
            deferred.errback(TypeError("a function in a thread returned a Deferred, which belongs to the reactor's"))
        elif error is None:
            deferred.callback(result)
        else:
            deferred.errback(error)
