"""What the store costs: messages a second and CPU for each, in batches of 100, all durable."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from bench.place import Folder
from bench.suite import Benchmark, Scale, Shown
from bench.tables import Table, number
from bench.wrong import Wrong
from deferred.defer import Deferred, gather_results, inline_callbacks
from deferred.reactor import Reactor
from service.journal import Journal
from service.message.job import Job
from service.message.outcome import Outcome, Phase, State
from service.queue.sqlite import SQLiteStore
from service.queue.store import Claim, Settlement, Source, Submission

CONTENT = b"Subject: x\r\n\r\n" + b"0123456789 01234567890123456789 0123456789 0123456789 0123456\r\n" * 64
BATCH = 100


def submissions(first: int, sites: int) -> list[Submission]:
    made = []
    for n in range(first, first + BATCH):
        address = f"user{n}@example.net"
        job = Job(sender="shop@example.org", recipients=(address,), content=CONTENT)
        source = Source(f"job{n}.eml", n, n, len(CONTENT))
        made.append(Submission(job=job, name=f"job{n}", sites=(f"site{n // BATCH % sites}",), source=source))
    return made


def settled(claim: Claim) -> Settlement:
    outcomes = tuple(
        Outcome(a, State.DELIVERED, 250, "2.0.0", "ok queued", "mx.example.net:25", Phase.CONFIRM)
        for a in claim.recipients
    )
    return Settlement(claim=claim, outcomes=outcomes, at=time.time(), attempts=1, due=None)


class Row(NamedTuple):
    """A step: messages a second, and CPU seconds for each."""

    step: str
    messages: int
    rate: float
    cpu: float


def measure(scale: Scale) -> list[Row]:
    """Take messages in, then hand them out and settle them, two batches at a time."""
    with Folder() as directory, Reactor() as reactor:
        store = SQLiteStore(directory / "queue.db", reactor, Journal(), Random(1), results="none")
        rows = reactor.run_until_complete(run(store, scale.of(20_000, 1_000)))
        reactor.run_until_complete(store.close())
    return rows


@inline_callbacks
def run(store: SQLiteStore, messages: int) -> Generator[Deferred[Any], Any, list[Row]]:
    batches = [submissions(n, 20) for n in range(0, messages, BATCH)]
    rows = []
    for label, step, waiting in (("accept", accept, messages), ("claim and settle", settle, 0)):
        wall, cpu = time.perf_counter(), time.process_time()
        yield gather_results([step(store, batches[lane::2]) for lane in range(2)])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if store.count().queued != waiting:
            raise Wrong(f"after {label} {store.count().queued} messages wait, not {waiting}")
        rows.append(Row(label, messages, messages / wall, cpu / messages))
    return rows


@inline_callbacks
def accept(store: SQLiteStore, batches: list[list[Submission]]) -> Generator[Deferred[Any], Any, None]:
    for batch in batches:
        yield store.accept(batch)


@inline_callbacks
def settle(store: SQLiteStore, batches: list[list[Submission]]) -> Generator[Deferred[Any], Any, None]:
    for batch in batches:
        claims: list[Claim] = yield store.claim(batch[0].sites[0], BATCH)
        yield store.settle([settled(claim) for claim in claims])


def show(rows: Sequence[Row]) -> Shown:
    """A line for each step."""
    lines = [(row.step, number(row.rate), number(row.cpu * 1e6)) for row in rows]
    title = f"{rows[0].messages:,} messages in batches of {BATCH}, all durable"
    return Shown((Table(title, ("", "messages/s", "CPU us each"), tuple(lines)),))


BENCHMARK: Final = Benchmark("what the store costs by itself", measure, show)
