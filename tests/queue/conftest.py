"""A reactor whose time stands still, and a store on it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from deferred.defer import Deferred
from deferred.failure import Failure
from service.journal import Journal
from service.message.job import Job
from service.message.outcome import Outcome, Phase, State
from service.queue.sqlite import SQLiteStore
from service.queue.store import Claim, Settlement, Submission

CONTENT = b"Subject: x\r\n\r\nhello\r\n"
NOW = 1_790_000_000.0  # 2026-09-21T14:13:20Z


class _Call:
    def __init__(
        self, reactor: StillReactor, at: float, function: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self.at, self.function, self.args, self.gone, self._reactor = at, function, args, False, reactor

    def cancel(self) -> None:
        self.gone = True

    def cancelled(self) -> bool:
        return self.gone

    def when(self) -> float:
        return self.at

    def reset(self, delay: float) -> None:
        self.gone = True
        self._reactor.call_later(delay, self.function, *self.args)


class StillReactor:
    """Virtual time; what is sent to a thread runs in the next turn but one."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.offset = NOW - 1000
        self.readers: dict[int, Callable[[], object]] = {}
        self._calls: list[tuple[float, int, _Call]] = []
        self._serial = itertools.count()

    def time(self) -> float:
        return self.now

    def wall_time(self) -> float:
        return self.now + self.offset

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> _Call:
        call = _Call(self, self.now + delay, function, args)
        heapq.heappush(self._calls, (call.at, next(self._serial), call))
        return call

    def call_soon(self, function: Callable[..., object], *args: Any) -> _Call:
        return self.call_later(0, function, *args)

    call_soon_threadsafe = call_soon

    def defer_to_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        d: Deferred[Any] = Deferred()

        def run() -> None:
            try:
                result = function(*args, **kwargs)
            except Exception:  # noqa: BLE001 (as a thread pool does)
                d.errback(Failure())
            else:
                d.callback(result)

        self.call_soon(lambda: self.call_soon(run))
        return d

    def add_reader(self, fd: int, function: Callable[..., object], *args: Any) -> None:
        self.readers[fd] = lambda: function(*args)

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def read_files(self) -> None:
        """Let each reader look, as if its file were ready, and go on until nothing is due."""
        for function in list(self.readers.values()):
            function()
        self.settle()

    def turn(self) -> bool:
        """Run what is due now; False when nothing was."""
        ran = False
        for _ in range(len(self._calls)):
            if not self._calls or self._calls[0][0] > self.now:
                break
            call = heapq.heappop(self._calls)[2]
            if not call.gone:
                call.gone = ran = True
                call.function(*call.args)
        return ran

    def settle(self) -> None:
        """Turn until nothing is due."""
        while self.turn():
            pass

    def advance(self, seconds: float) -> None:
        """Let time pass, stopping at each call on the way."""
        end = self.now + seconds
        self.settle()
        while self._calls and self._calls[0][0] <= end:
            self.now = max(self.now, self._calls[0][0])
            self.settle()
        self.now = end

    def wait(self, deferred: Deferred[Any], seconds: float = 0) -> Any:
        """What `deferred` fires with; raises what it fails with."""
        outcome: list[Any] = []
        deferred.add_both(outcome.append)
        self.advance(seconds)
        assert outcome, "nothing came"
        if isinstance(outcome[0], Failure):
            outcome[0].raise_exception()
        return outcome[0]


class Told:
    """A journal's listener that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []
        self.journal = Journal(lambda event, facts: self.events.append((event, facts)))

    def names(self) -> list[str]:
        return [event for event, _ in self.events]

    def of(self, event: str) -> list[dict[str, object]]:
        return [facts for name, facts in self.events if name == event]


@pytest.fixture
def reactor() -> StillReactor:
    return StillReactor()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def open_store(reactor: StillReactor, told: Told, tmp_path: Path) -> Iterator[Callable[..., SQLiteStore]]:
    """Open the store in `tmp_path` as another process would: its former user has not said good-bye."""
    opened: list[SQLiteStore] = []

    def open_one(**options: Any) -> SQLiteStore:
        store = SQLiteStore(tmp_path / "queue.db", reactor, told.journal, Random(7), **options)  # type: ignore[arg-type] # a part of a Reactor
        opened.append(store)
        reactor.settle()
        return store

    yield open_one
    for store in opened:
        store.close()
    reactor.settle()


@pytest.fixture
def store(open_store: Callable[..., SQLiteStore]) -> SQLiteStore:
    return open_store()


@pytest.fixture
def submission() -> Callable[..., Submission]:
    """Make a submission for some recipients, each of whose sites is its domain."""

    def make(
        *recipients: str, name: str = "hello", content: bytes = b"Subject: x\r\n\r\nhello\r\n", **facts: Any
    ) -> Any:
        own = {key: facts.pop(key) for key in ("source", "name_taken", "sites") if key in facts}
        recipients = recipients or ("ann@a.example",)
        job = Job(sender="shop@example.org", recipients=recipients, content=content, **facts)
        sites = own.pop("sites", tuple(address.split("@")[1] for address in recipients))
        return Submission(job=job, name=name, sites=sites, **own)

    return make


@pytest.fixture
def outcome() -> Callable[..., Outcome]:
    def make(address: str, state: str = "delivered", code: int | None = None, text: str = "") -> Outcome:
        codes = {"delivered": 250, "waiting": 450, "failed": 550}
        return Outcome(address, State(state), code or codes[state], "2.0.0", text or "so", "mx:25", Phase.CONFIRM)

    return make


@pytest.fixture
def settlement(reactor: StillReactor, outcome: Callable[..., Outcome]) -> Callable[..., Settlement]:
    """Settle a claim with one state for all its recipients."""

    def make(claim: Claim, state: str = "delivered", **facts: Any) -> Settlement:
        facts.setdefault("outcomes", tuple(outcome(address, state) for address in claim.recipients))
        facts.setdefault("due", reactor.wall_time() + 60 if state == "waiting" else None)
        return Settlement(claim=claim, at=reactor.wall_time(), attempts=claim.attempts + 1, **facts)

    return make
