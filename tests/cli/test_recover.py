"""`deferd queue recover`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import apsw
import pytest
from click.testing import Result

from deferred.reactor import Reactor
from service.journal import Journal
from service.message.job import Job
from service.queue.lock import DirectoryLock
from service.queue.poke import POKE
from service.queue.sqlite import DATABASE, SQLiteStore
from service.queue.store import Submission

Deferd = Callable[..., Result]


@pytest.fixture
def ids(spool: Path) -> list[str]:
    """Three jobs in a queue that no daemon has open."""
    reactor = Reactor()
    store = SQLiteStore(spool / DATABASE, reactor, Journal(), Random(1))
    jobs = [
        Job(sender="ann@a.example", recipients=(f"bob-{n}@b.example",), content=b"Subject: x\r\n") for n in range(3)
    ]
    submissions = [Submission(job=job, name=f"order-{n}", sites=("b",)) for n, job in enumerate(jobs)]
    accepted = reactor.run_until_complete(store.accept(submissions), 10)
    reactor.run_until_complete(store.close(), 10)
    reactor.close()
    return [one.id for one in accepted]


@pytest.fixture
def lose(spool: Path) -> Callable[[str], None]:
    """Lose a row, and break the header, so that the queue is noticed to be damaged."""

    def lose(statement: str = "SELECT * FROM tally") -> None:
        connection = apsw.Connection(str(spool / DATABASE))
        connection.execute(statement).fetchall()
        connection.close()
        with (spool / DATABASE).open("r+b") as file:
            file.write(bytes(100))

    return lose


@pytest.fixture
def running(spool: Path) -> Iterator[DirectoryLock]:
    """A daemon that has the directory."""
    lock = DirectoryLock(spool)
    yield lock
    lock.release()


def names(deferd: Deferd) -> list[str]:
    return [job["name"] for job in json.loads(deferd("queue", "list", "--json").stdout)]


def test_a_damaged_queue_is_recovered_in_one_step(deferd: Deferd, spool: Path, ids: list[str], lose) -> None:
    """Without a daemon the command sets the queue aside itself; then everything that was in it is in a new one."""
    lose()
    result = deferd("queue", "recover")
    assert result.exit_code == 0
    (folder,) = spool.glob("damaged-*")
    assert f"the queue is damaged (file is not a database): set aside as {folder}" in result.stderr
    assert f"{folder}: saved 3 whole, 0 in part, 0 lost, of 3 jobs" in result.stdout
    assert "  3 wait to be sent" in result.stdout
    assert names(deferd) == ["order-0", "order-1", "order-2"]
    assert (spool / POKE).exists()


def test_what_was_not_whole_is_told_with_its_files(deferd: Deferd, spool: Path, ids: list[str], lose) -> None:
    """Status 1: something needs a person."""
    lose("DELETE FROM content WHERE job = (SELECT min(id) FROM job)")
    result = deferd("queue", "recover")
    assert result.exit_code == 1
    (folder,) = spool.glob("damaged-*")
    assert "saved 2 whole, 1 in part, 0 lost" in result.stdout
    saved = folder / "saved" / f"{ids[0]}.json"
    assert f"in part: {ids[0]}: its content cannot be read ({saved})" in result.stdout
    assert saved.exists()


def test_it_prints_json(deferd: Deferd, ids: list[str], lose) -> None:
    """An array, with one report for each folder."""
    lose("DELETE FROM content WHERE job = (SELECT min(id) FROM job)")
    result = deferd("queue", "recover", "--json")
    (report,) = json.loads(result.stdout)
    assert (report["seen"], report["queued"], report["lost"]) == (3, 2, [])
    assert [part["id"] for part in report["parts"]] == [ids[0]]
    assert json.loads(deferd("queue", "recover", "--json").stdout) == []


def test_there_may_be_nothing_to_do(deferd: Deferd, spool: Path, ids: list[str]) -> None:
    """A sound queue is left alone; so is what has been recovered already."""
    before = (spool / DATABASE).read_bytes()
    result = deferd("queue", "recover")
    assert result.exit_code == 0
    assert "nothing is set aside" in result.stdout
    assert (spool / DATABASE).read_bytes() == before


def test_a_folder_or_a_file_can_be_named(deferd: Deferd, ids: list[str], spool: Path, lose) -> None:
    """Also one that was recovered before, which changes nothing; jobs that are there are counted as such."""
    lose()
    deferd("queue", "recover")
    (folder,) = spool.glob("damaged-*")
    for source in (folder, folder / DATABASE):
        result = deferd("queue", "recover", source)
        assert result.exit_code == 0
        assert "3 were in the queue already" in result.stdout
    assert len(names(deferd)) == 3


def test_a_running_daemon_keeps_its_queue(deferd: Deferd, spool: Path, ids: list[str], lose, running) -> None:
    """Beside a daemon nothing is set aside: it has checked its queue, and has it open."""
    lose()
    before = (spool / DATABASE).read_bytes()
    assert "nothing is set aside" in deferd("queue", "recover").stdout
    assert (spool / DATABASE).read_bytes() == before


def test_what_cannot_be_read_is_told(deferd: Deferd, spool: Path, ids: list[str], tmp_path: Path) -> None:
    """Status 1 and the reason; no queue is made where none was."""
    result = deferd("queue", "recover", tmp_path / "nothing")
    assert result.exit_code == 1
    assert "nothing does not exist" in result.stderr
    assert "is the queue itself" in deferd("queue", "recover", spool / DATABASE).stderr
    for path in spool.iterdir():
        if path.is_file():
            path.unlink()
    (spool / "new").rmdir()
    spool.rmdir()
    result = deferd("queue", "recover")
    assert result.exit_code == 1
    assert f"there is no queue at {spool}" in result.stderr
    assert not spool.exists()
