"""The real daemon is killed, wherever it is, again and again; and then the books are audited.

A chain of runs works on one queue: each takes new jobs, is killed, and its successor is at once the recovery and the
next to be killed, until a last run ends what is left. Nothing may be lost, nothing be sent twice but where the daemon
itself says that it may have been, and nothing be left over.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from service.queue.aside import aside_name
from service.queue.store import Source
from tests.fakes import strace
from tests.fakes.audit import SETTINGS, Books, Tally, deferd
from tests.fakes.forked import Zygote
from tests.fakes.process import DaemonProcess, eventually
from tests.fakes.relay import Relay
from tests.fakes.strace import Point, Reference

CHAINS = 9
DEATHS = 23
"""Of each chain at system calls: more than 200 in all."""
SPARE = 7
"""Points of each chain for those that its runs, which are not all alike, do not come to."""

RANDOM_CHAINS = 4
KILLS = 25


class References(NamedTuple):
    """Runs by which points are chosen: on an empty directory, and on one that has a queue."""

    first: Reference
    usual: Reference


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """All daemons come from one process, where sets have their order by one seed: they start alike, call for call."""
    with Zygote({**os.environ, "PYTHONWARNINGS": "error", "PYTHONHASHSEED": "0"}) as zygote:
        yield zygote


def make_books(directory: Path, relay: Relay, zygote: Zygote) -> Books:
    """A queue in `directory`, with a daemon not yet started that sends everything to `relay`."""
    routes = [{"domains": ["*"], "relay": f"smtp://127.0.0.1:{relay.port}", "tls": "none"}]
    return Books(DaemonProcess(directory, {**SETTINGS, "routes": routes}, zygote=zygote), relay)


def one_run(books: Books, number: int) -> Callable[[DaemonProcess], None]:
    """What a run has to do: two jobs await it, two come while it works, and every third is told to reload."""
    names = [books.drop(), books.drop()]

    def work(process: DaemonProcess) -> None:
        if process.hear("started") is None:
            return
        if number % 3 == 0:
            process.signal(signal.SIGHUP)
        names.extend((books.drop(), books.drop()))
        eventually(lambda: all(map(books.at_rest, names)) or process.process.poll() is not None)

    return work


@pytest.fixture(scope="session")
def tracing() -> None:
    """Skips where strace cannot be used."""
    why = strace.missing()
    if why is not None:
        pytest.skip(why)


@pytest.fixture(scope="session")
def references(tracing: None, zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> References:
    """Two runs, watched."""
    directory = tmp_path_factory.mktemp("references")
    trace = directory / "trace"
    with Relay() as relay, ExitStack() as stack:
        warm, fresh = (make_books(directory / name, relay, zygote) for name in ("warm", "fresh"))
        for books in (warm, fresh):
            stack.enter_context(books.process)
        warm.process.start()
        assert warm.process.stop() == 0
        first = strace.watched(fresh.process, trace, one_run(fresh, 0))
        usual = strace.watched(warm.process, trace, one_run(warm, 0))
    return References(first, usual)


@pytest.fixture
def books(tmp_path: Path, zygote: Zygote) -> Iterator[Books]:
    """A queue, with a relay of its own."""
    with Relay() as relay:
        books = make_books(tmp_path / "daemon", relay, zygote)
        with books.process:
            yield books


def must_balance(books: Books, record: Callable[[str, object], None]) -> Tally:
    """Let a last run end everything, and fail where anything was lost, or sent twice without a word."""
    books.settle()
    tally = books.audit()
    for name in ("jobs", "recipients", "held", "set_aside", "duplicates"):
        record(f"killed: {name}", getattr(tally, name))
    record("killed: lost", len(tally.lost))
    assert tally.lost == []
    assert tally.wrong == []
    assert tally.unexplained == []
    return tally


@pytest.mark.strace
@pytest.mark.parametrize("chain", range(CHAINS))
def test_killed_at_any_system_call_nothing_is_lost(
    chain: int, references: References, books: Books, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """SIGKILL at points all over its work, from the making of the store to the last result and the end: lost 0."""
    start = references.first.points[chain * references.first.listening // CHAINS]
    points = [start, *references.usual.spread(DEATHS + SPARE - 1, chain, CHAINS)]
    died: list[Point] = []
    missed: list[Point] = []
    for number, point in enumerate(points):
        dead = strace.struck(books.process, tmp_path / "trace", point, one_run(books, number))
        (died if dead else missed).append(point)
        books.keep_log()
        if len(died) == DEATHS:
            break
    record_property("killed: at system-call points", len(died))
    for name, times in Counter(point.name for point in died).items():
        record_property(f"killed: at {name}", times)
    must_balance(books, record_property)
    assert len(died) == DEATHS, f"it did not come to: {', '.join(map(str, missed))}"


@pytest.mark.parametrize("seed", range(RANDOM_CHAINS))
def test_killed_at_random_under_load_nothing_is_lost(
    seed: int, books: Books, record_property: Callable[[str, object], None]
) -> None:
    """SIGKILL at any moment while jobs come all the time, one in five while it starts; restarted at once: lost 0."""
    draw = random.Random(seed)
    process = books.process
    begun = time.monotonic()
    process.start()
    starting = time.monotonic() - begun
    process.kill()
    for _ in range(KILLS):
        process.spawn()
        assert process.process
        if draw.random() < 0.2:
            moment = draw.uniform(0.2, 1.2) * starting
        else:
            process.hear("started")
            moment = draw.uniform(0, 0.3)
        killer = threading.Timer(moment, process.process.kill)
        killer.start()
        alive = True
        while alive:
            last = [books.drop() for _ in range(draw.randint(1, 10))][-1]
            alive = process.hear("job_finished", name=last) is not None
        killer.join()
        assert process.wait() == -signal.SIGKILL
        books.keep_log()
    record_property("killed: at random", KILLS)
    must_balance(books, record_property)


RENAME = "?rename,?renameat,?renameat2"
UNLINK = "?unlink,?unlinkat"


@pytest.mark.strace
@pytest.mark.usefixtures("tracing")
def test_killed_between_accepting_and_removing_it_does_not_take_the_file_twice(
    books: Books, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """At each step of a file's way out of new/ its job is in the store already: one job, one message."""
    relays = books.process.config.read_text()
    nowhere = [{"domains": ["*"], "relay": "smtp://127.0.0.1:1", "tls": "none"}]
    books.process.configure({**SETTINGS, "routes": nowhere})  # until the end: nothing is in flight when it dies
    new = books.process.queue / "new"
    file = new / f"{books.drop()}.eml"
    aside = new / aside_name(Source(file.name, file.stat().st_ino, file.stat().st_mtime_ns, file.stat().st_size))
    steps = [
        (RENAME, file, {file}),  # it is accepted
        (UNLINK, aside, {aside}),  # known again, and taken aside
        (RENAME, aside, {aside}),  # found aside by the next start
        (UNLINK, aside, {aside}),  # put back, known again, and taken aside
    ]
    for names, path, left in steps:
        died = strace.struck_on(books.process, tmp_path / "trace", names, path, lambda process: process.hear("stopped"))
        assert died, f"not killed at {names}"
        assert set(new.iterdir()) == left
        books.keep_log()
    books.process.config.write_text(relays)
    tally = must_balance(books, record_property)
    assert len(json.loads(deferd(books.process, "queue", "list", "--json", "--state", "delivered"))) == 1
    assert len(books.relay.arrivals) == 1
    assert (tally.jobs, tally.duplicates) == (1, 0)
