"""What the store costs: messages a second and CPU for each, in batches of 100, all durable.

python bench/store_cost.py [MESSAGES] [DIRECTORY]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from random import Random
from typing import Any

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


@inline_callbacks
def run(store: SQLiteStore, messages: int, done: Callable[[], None]) -> Generator[Deferred[Any], Any, None]:
    batches = [submissions(n, 20) for n in range(0, messages, BATCH)]
    for label, step in (("accept", accept), ("claim, read, settle", settle)):
        wall, cpu = time.perf_counter(), time.process_time()
        yield gather_results([step(store, batches[lane::2]) for lane in range(2)])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{label:22} {messages / wall:10,.0f}/s {cpu / messages * 1e6:8.1f} us CPU each")
        print(f"{'':22} waiting now: {store.count().queued}")
    done()


@inline_callbacks
def accept(store: SQLiteStore, batches: list[list[Submission]]) -> Generator[Deferred[Any], Any, None]:
    for batch in batches:
        yield store.accept(batch)


@inline_callbacks
def settle(store: SQLiteStore, batches: list[list[Submission]]) -> Generator[Deferred[Any], Any, None]:
    for batch in batches:
        claims: list[Claim] = yield store.claim(batch[0].sites[0], BATCH)
        yield store.settle([settled(claim) for claim in claims])


def main() -> None:
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as directory:
        reactor = Reactor()
        store = SQLiteStore(Path(directory) / "queue.db", reactor, Journal(), Random(1), results="none")
        reactor.call_soon(run, store, messages, reactor.stop)
        reactor.run()


if __name__ == "__main__":
    main()
