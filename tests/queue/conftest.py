"""A reactor whose time stands still, and a store on it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest

from deferred.defer import Deferred, execute
from deferred.failure import Failure
from deferred.testing import MemoryReactor
from service.journal import Journal
from service.message.job import Job
from service.message.outcome import Outcome, Phase, State
from service.queue.sqlite import SQLiteStore
from service.queue.store import Claim, Settlement, Source, Submission

T = TypeVar("T")

CONTENT = b"Subject: x\r\n\r\nhello\r\n"
NOW = 1_790_000_000.0  # 2026-09-21T14:13:20Z


class StillReactor(MemoryReactor):
    """Virtual time; what is sent to a thread runs two turns later, so that there is a time in between."""

    def __init__(self) -> None:
        super().__init__(time=1000.0, wall_time=NOW)
        self.turns = 0

    def turn(self) -> None:
        """Count it."""
        self.turns += 1
        super().turn()

    def defer_to_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Deferred[T]:
        d: Deferred[T] = Deferred()
        self.call_soon(self.call_soon, lambda: execute(function, *args, **kwargs).chain_deferred(d))
        return d

    def set_time(self, time: float) -> None:
        """Let a call take some time."""
        self._now = time

    def read_files(self) -> None:
        """Let each reader look, as if its file were ready, and go on until nothing is due."""
        for function in list(self.readers.values()):
            function()
        self.settle()

    def wait(self, deferred: Deferred[Any], seconds: float = 0) -> Any:
        """What `deferred` fires with by then; raises what it fails with."""
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
        store = SQLiteStore(tmp_path / "queue.db", reactor, told.journal, Random(7), **options)
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
    """Make a submission of a dropped file for some recipients, each of whose sites is its domain."""
    inodes = itertools.count(1_000_000)

    def make(
        *recipients: str, name: str = "hello", content: bytes = b"Subject: x\r\n\r\nhello\r\n", **facts: Any
    ) -> Any:
        own = {key: facts.pop(key) for key in ("source", "name_taken", "sites", "result") if key in facts}
        recipients = recipients or ("ann@a.example",)
        job = Job(sender="shop@example.org", recipients=recipients, content=content, **facts)
        own.setdefault("source", Source(f"{name}.eml", next(inodes), 1, len(content)))
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
