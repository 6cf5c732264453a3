"""The queue on the real reactor: files, threads, inotify and the disk as they are."""

from __future__ import annotations

import os
from random import Random

import pytest

from deferred.defer import Deferred
from deferred.reactor import Reactor
from deferred.testing import MemoryReactor
from service.journal import Journal
from service.message.job import Job
from service.queue.drop import DropDirectory
from service.queue.intake import Intake
from service.queue.lastwork import LastWork
from service.queue.layout import prepare
from service.queue.results import ResultWriter
from service.queue.sqlite import SQLiteStore
from service.queue.store import Submission


@pytest.fixture
def reactor(errors):
    reactor = Reactor(on_error=errors.append)
    yield reactor
    reactor.close()


def test_five_hundred_files_become_jobs_with_results(reactor, tmp_path):
    """Dropped while the reactor runs, by rename and by plain writing, some large; each once, and new/ is empty."""
    layout = prepare(tmp_path)
    drop = DropDirectory(layout, 4_000_000)
    store = SQLiteStore(layout.database, reactor, Journal(), Random(1), present=drop.present)
    writer = ResultWriter(reactor, store, Journal(), layout)
    done: Deferred[None] = Deferred()
    intake = Intake(
        reactor,
        store,
        Journal(),
        layout,
        drop,
        read=lambda name, data: Job(sender="", recipients=(f"{name}@a.example",), content=data),
        wants=lambda name: name.endswith(".eml"),
        site_of=lambda _: "a.example",
        accepted=lambda _: store.count().queued == 500 and not done.called and done.callback(None),
        unique=lambda: "id",
        last_work=LastWork(tmp_path, reactor),
    )

    def put(n):
        path = layout.new / f"j{n}.eml"
        content = os.urandom(1) * (1_500_000 if n % 100 == 0 else 4000)
        if n % 2:
            path.write_bytes(content)
        else:
            path.with_suffix(".tmp").write_bytes(content)
            path.with_suffix(".tmp").rename(path)
        if n < 499:
            reactor.call_soon(put, n + 1)

    def end(_):
        intake.stop()
        return writer.stop().add_callback(lambda _: store.close())

    writer.start()
    intake.start()
    reactor.call_soon(put, 0)
    ended = done.add_callback(end)
    ended.add_both(lambda result: (reactor.stop(), result)[1])
    reactor.run()
    assert ended.called
    assert list(layout.new.iterdir()) == []
    assert {path.name for path in layout.results.iterdir()} == {f"j{n}.json" for n in range(500)}


def test_threads_that_answer_at_once_are_no_trouble(tmp_path):
    """As on a simulated reactor, where what is sent to a thread has been done when the call returns."""
    memory = MemoryReactor()
    store = SQLiteStore(tmp_path / "queue.db", memory, Journal(), Random(1))
    job = Job(sender="", recipients=("x@a",), content=b"x" * 600_000)
    [accepted] = memory.run(store.accept([Submission(job=job, name="x", sites=("a",))]))
    [claim] = memory.run(store.claim("a", 1))
    assert (claim.id, claim.pieces) == (accepted.id, 3)
    memory.run(store.close())
