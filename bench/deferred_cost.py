"""What a Deferred costs, beside Twisted's and asyncio's Future.

Each scenario runs in short slices, ours and theirs in turn, and the medians are compared: what the machine does
meanwhile hits all alike. The ratio is ours to theirs; below 1 we are cheaper.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet import defer as twisted_defer

from bench.suite import Benchmark, Scale, Shown
from bench.tables import Table, number
from deferred import defer

REPETITIONS = 401
SLICE = 150  # shorter than a scheduler's quantum, so that most slices run undisturbed on a busy machine
Scenario = Callable[[int], object]


class Row(NamedTuple):
    """One scenario: microseconds each for a single run of it, None where a peer has no such thing."""

    name: str
    ours: float
    twisted: float
    asyncio: float | None

    @property
    def to_twisted(self) -> float:
        return self.ours / self.twisted

    @property
    def to_asyncio(self) -> float | None:
        return None if self.asyncio is None else self.ours / self.asyncio


def step(result: Any) -> Any:
    return result


def boom(_: Any) -> Any:
    raise ValueError


def recover(_: Any) -> Any:
    return None


def ours_five_then_fire(times: int) -> None:
    for _ in range(times):
        d: Any = defer.Deferred()
        d.add_callback(step)
        d.add_callback(step)
        d.add_callback(step)
        d.add_callback(step)
        d.add_callback(step)
        d.callback(1)


def twisted_five_then_fire(times: int) -> None:
    for _ in range(times):
        d: Any = twisted_defer.Deferred()
        d.addCallback(step)
        d.addCallback(step)
        d.addCallback(step)
        d.addCallback(step)
        d.addCallback(step)
        d.callback(1)


def ours_fired_then_five(times: int) -> None:
    for _ in range(times):
        d: Any = defer.succeed(1)
        d.add_callback(step)
        d.add_callback(step)
        d.add_callback(step)
        d.add_callback(step)
        d.add_callback(step)


def twisted_fired_then_five(times: int) -> None:
    for _ in range(times):
        d: Any = twisted_defer.succeed(1)
        d.addCallback(step)
        d.addCallback(step)
        d.addCallback(step)
        d.addCallback(step)
        d.addCallback(step)


def ours_with_arguments(times: int) -> None:
    for _ in range(times):
        d: Any = defer.Deferred()
        d.add_callback(with_arguments, 1, 2)
        d.add_callback(with_arguments, 1, last=2)
        d.callback(1)


def twisted_with_arguments(times: int) -> None:
    for _ in range(times):
        d: Any = twisted_defer.Deferred()
        d.addCallback(with_arguments, 1, 2)
        d.addCallback(with_arguments, 1, last=2)
        d.callback(1)


def with_arguments(result: Any, first: int, last: int) -> Any:
    return (result, first, last)


def ours_error_to_errback(times: int) -> None:
    for _ in range(times):
        d: Any = defer.Deferred()
        d.add_callback(boom)
        d.add_callback(step)
        d.add_errback(recover)
        d.callback(1)


def twisted_error_to_errback(times: int) -> None:
    for _ in range(times):
        d: Any = twisted_defer.Deferred()
        d.addCallback(boom)
        d.addCallback(step)
        d.addErrback(recover)
        d.callback(1)


def ours_waits_for_another(times: int) -> None:
    for _ in range(times):
        inner: Any = defer.Deferred()
        d: Any = defer.Deferred()
        d.add_callback(lambda _, inner=inner: inner)
        d.add_callback(step)
        d.callback(1)
        inner.callback(2)


def twisted_waits_for_another(times: int) -> None:
    for _ in range(times):
        inner: Any = twisted_defer.Deferred()
        d: Any = twisted_defer.Deferred()
        d.addCallback(lambda _, inner=inner: inner)
        d.addCallback(step)
        d.callback(1)
        inner.callback(2)


async def awaiting(deferreds: list[Any]) -> None:
    for deferred in deferreds:
        await deferred


def ours_coroutine(times: int) -> None:
    deferreds: list[Any] = [defer.Deferred() for _ in range(times)]
    defer.ensure_deferred(awaiting(deferreds))
    for deferred in deferreds:
        deferred.callback(1)


def twisted_coroutine(times: int) -> None:
    deferreds: list[Any] = [twisted_defer.Deferred() for _ in range(times)]
    twisted_defer.ensureDeferred(awaiting(deferreds))
    for deferred in deferreds:
        deferred.callback(1)


class OnLoop:
    """asyncio's nearest to a scenario; its callbacks run in the loop's next turn, so the turn belongs to the cost."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def five_then_fire(self, times: int) -> None:
        async def run() -> None:
            for _ in range(times):
                future = self.loop.create_future()
                for _ in range(5):
                    future.add_done_callback(step)
                future.set_result(1)
            await asyncio.sleep(0)

        self.loop.run_until_complete(run())

    def fired_then_five(self, times: int) -> None:
        async def run() -> None:
            for _ in range(times):
                future = self.loop.create_future()
                future.set_result(1)
                for _ in range(5):
                    future.add_done_callback(step)
            await asyncio.sleep(0)

        self.loop.run_until_complete(run())

    def coroutine(self, times: int) -> None:
        async def run() -> None:
            for _ in range(times):
                future = self.loop.create_future()
                self.loop.call_soon(future.set_result, 1)
                await future

        self.loop.run_until_complete(run())


def measure(scale: Scale) -> list[Row]:
    """Run every scenario, and give a row for each."""
    on_loop = OnLoop()
    scenarios: list[tuple[str, *tuple[Scenario, ...]]] = [
        ("five callbacks, then fire", ours_five_then_fire, twisted_five_then_fire, on_loop.five_then_fire),
        ("fired, then five callbacks", ours_fired_then_five, twisted_fired_then_five, on_loop.fired_then_five),
        ("two callbacks with arguments", ours_with_arguments, twisted_with_arguments),
        ("error to an errback", ours_error_to_errback, twisted_error_to_errback),
        ("callback waits for another", ours_waits_for_another, twisted_waits_for_another),
        ("coroutine awaits one", ours_coroutine, twisted_coroutine, on_loop.coroutine),
    ]
    repetitions = scale.of(REPETITIONS, 21)
    try:
        return [Row(name, *_compare(repetitions, peers)) for name, *peers in scenarios]
    finally:
        on_loop.loop.close()


def _compare(repetitions: int, peers: list[Scenario]) -> tuple[float, float, float | None]:
    """Microseconds for one run of each, the median of slices taken in turn."""
    taken: list[list[float]] = [[] for _ in peers]
    gc.collect()
    for _ in range(repetitions):
        for peer, times in zip(peers, taken, strict=True):
            started = time.perf_counter()
            peer(SLICE)
            times.append(time.perf_counter() - started)
    medians = [statistics.median(times) / SLICE * 1e6 for times in taken]
    return medians[0], medians[1], medians[2] if len(medians) > 2 else None


def show(rows: Sequence[Row]) -> Shown:
    """Microseconds, and how many times more or less than the others' they are."""
    lines = []
    for row in rows:
        theirs = "" if row.asyncio is None else number(row.asyncio)
        ratio = "" if row.to_asyncio is None else number(row.to_asyncio)
        lines.append((row.name, number(row.ours), number(row.twisted), theirs, number(row.to_twisted), ratio))
    columns = ("", "ours, us", "Twisted, us", "asyncio, us", "ours of Twisted's", "ours of asyncio's")
    return Shown((Table("One run of each, the median", columns, tuple(lines)),))


BENCHMARK: Final = Benchmark("what a Deferred costs, beside Twisted's and asyncio's Future", measure, show)
