"""The audit of the daemon's deaths can fail: it finds what was lost, doubled, damaged or left."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from tests.fakes.audit import KINDS, SETTINGS, Books
from tests.fakes.process import DaemonProcess
from tests.fakes.relay import Relay


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    """A queue through which one job of each kind has gone, without any trouble."""
    with Relay() as relay:
        routes = [{"domains": ["*"], "relay": f"smtp://127.0.0.1:{relay.port}", "tls": "none"}]
        with DaemonProcess(tmp_path / "daemon", {**SETTINGS, "routes": routes}) as process:
            books = Books(process, relay)
            for _ in KINDS:
                books.drop()
            books.settle()
            yield books


def test_the_books_of_a_quiet_day_balance_and_no_others(books: Books) -> None:
    """One run, and then one thing wrong after the other: each is found, and nothing else."""
    relay, new = books.relay, books.process.queue / "new"
    quiet = list(relay.arrivals)
    tally = books.audit()
    assert (tally.lost, tally.unexplained, tally.wrong) == ([], [], [])
    assert (tally.jobs, tally.duplicates, tally.held) == (len(KINDS), 0, 0)
    first = next(arrival for arrival in quiet if arrival.recipients == ["yes-job-0-0@b.example"])
    bounce = next(arrival for arrival in quiet if not arrival.sender)

    relay.arrivals = [arrival for arrival in quiet if arrival is not first]
    assert books.audit().lost == ["yes-job-0-0@b.example never arrived"]

    relay.arrivals = [arrival for arrival in quiet if arrival is not bounce]
    assert [what.split(" of ")[0] for what in books.audit().lost] == [f"{bounce.recipients[0]} was never told"]

    again = deepcopy(bounce)
    again.content = again.content.replace(b"Message-ID: <", b"Message-ID: <2", 1)
    relay.arrivals = [*quiet, again]
    assert any(bounce.recipients[0] in what for what in books.audit().wrong)

    relay.arrivals = [*quiet, first]
    books.events.append({"event": "possible_duplicate", "id": "?", "recipient": "yes-job-0-0@b.example"})
    tally = books.audit()
    assert tally.duplicates == 1
    assert tally.unexplained == ["yes-job-0-0@b.example got its message again after it was told to be delivered"]
    books.events.pop()
    assert "yes-job-0-0@b.example got its message 2 times, and nobody said so" in books.audit().unexplained

    cut = deepcopy(first)
    cut.content = cut.content[:-1]
    relay.arrivals = [cut if arrival is first else arrival for arrival in quiet]
    assert [what.split(":")[0] for what in books.audit().wrong] == ["no job"]

    relay.arrivals = quiet
    (new / "job-0.eml").touch()
    (books.process.queue / "results" / "job-1.json").unlink()
    assert books.audit().wrong == ["job-1 has no result", f"{new / 'job-0.eml'} is left"]
