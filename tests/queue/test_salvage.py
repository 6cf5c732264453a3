"""What is read of a damaged database: all that is intact, nothing that is not, and never anything wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import apsw
import pytest

from service.queue.ids import id_number
from service.queue.salvage import Salvage, Salvaged
from service.queue.store import StoreFailed
from tests.queue import wreck

NUMBER = 60


@pytest.fixture
def filled(open_store, reactor, submission, settlement, tmp_path) -> Path:
    """A queue with jobs of all kinds, nearly all of it in the log."""
    store = open_store()
    wreck.fill(store, reactor, submission, settlement, NUMBER)
    database = tmp_path / "queue.db"
    wreck.hold_some(database, reactor.wall_time())
    return wreck.copy(database, tmp_path / "copy")


@pytest.fixture
def settled(filled) -> Path:
    """The same, all of it in the database and nothing in the log."""
    return wreck.checkpointed(filled)


@pytest.fixture
def before(filled) -> wreck.Jobs:
    """What is in it, as SQLite tells."""
    return wreck.jobs(wreck.copy(filled, filled.parent.parent / "before"))


def read(database: Path) -> dict[int, Salvaged]:
    with Salvage(database) as salvage:
        return {job.id: job for job in salvage.jobs()}


def whole(found: dict[int, Salvaged], before: wreck.Jobs) -> set[int]:
    """The jobs that were read whole; each of them is what it was."""
    jobs = {job.id for job in found.values() if job.why is None}
    assert all(found[id].fit for id in jobs)
    assert [id for id in jobs if not wreck.is_as_before(found[id], before)] == []
    return jobs


def test_an_undamaged_queue_comes_back_as_it_was(filled, before):
    """Every value of every row, in the log or checkpointed, and nothing else."""
    for database in (filled, wreck.checkpointed(wreck.copy(filled, filled.parent.parent / "settled"))):
        found = read(database)
        assert whole(found, before) == set(before.job)
        assert len(found) == NUMBER
        assert not any(job.doubtful for job in found.values())
        assert all({row["site"]: row for row in job.deliveries} == before.deliveries[job.id] for job in found.values())
        owed = apsw.Connection(str(database)).execute("SELECT job FROM owed").fetchall()
        assert {job.id for job in found.values() if job.owed} == {job for (job,) in owed}


def test_the_test_queue_has_jobs_of_all_kinds(before):
    """Else these tests would show less than they say."""
    assert {row["state"] for row in before.job.values()} == {"queued", "held", "delivered", "failed", "partly"}
    assert {row["state"] for sites in before.deliveries.values() for row in sites.values()} == {0, 1, 2}
    assert max(row["pieces"] for row in before.job.values()) > 3
    assert max(map(len, before.recipients.values())) == 90
    assert any(row["eight_bit"] for row in before.job.values())


def test_nothing_is_read_of_what_has_been_given_up(open_store, reactor, submission, settlement, before, filled):
    """Rows of jobs that were forgotten, and pieces that a crash left over, are neither saved nor lost."""
    store = open_store()
    reactor.wait(store.purge(reactor.wall_time() + 1), 10)
    connection = apsw.Connection(str(filled.parent.parent / "queue.db"))
    connection.execute("INSERT INTO piece VALUES (77, 0, x'00')")
    connection.close()
    database = wreck.copy(filled.parent.parent / "queue.db", filled.parent.parent / "purged")
    kept = {id for id, row in before.job.items() if row["finished_at"] is None}
    assert kept < set(before.job)
    assert set(read(database)) == kept


@pytest.mark.parametrize("fill", [wreck.zeros, wreck.noise])
@pytest.mark.parametrize("octets", [16, 100, 4096])
def test_a_queue_without_its_head_comes_back(settled, before, octets, fill):
    """The file's header, or all of its first page, from which all trees are found."""
    wreck.overwrite(settled, 0, fill(octets))
    assert whole(read(settled), before) == set(before.job)


@pytest.mark.parametrize("seed", range(40))
def test_a_job_whose_pages_are_intact_comes_back(settled, before, seed):
    """Whatever other pages are overwritten: leaves, inner pages and content, with zeros or noise."""
    random = Random(seed)
    needs = wreck.pages_of_jobs(settled)
    assert set(needs) == set(before.job)
    number = random.choice((1, 2, 5, 20))
    hit = wreck.overwrite_pages(settled, random, number, wreck.zeros if seed % 2 else random.randbytes)
    found = read(settled)
    assert {id for id, pages in needs.items() if not pages & hit} <= whole(found, before)


@pytest.mark.parametrize("table", ["job", "recipient", "delivery", "content", "piece"])
@pytest.mark.parametrize("depth", [0, 1])
def test_what_a_lost_page_led_to_is_found(settled, before, table, depth):
    """The first page of a table's tree, or one below it, is overwritten: what was below that comes back."""
    needs = wreck.pages_of_jobs(settled)
    page = wreck.inner_page(settled, table, depth)
    wreck.overwrite(settled, (page - 1) * 4096, wreck.noise(4096))
    found = read(settled)
    back = whole(found, before)
    assert {id for id, pages in needs.items() if page not in pages} <= back
    assert not any(found[id].doubtful for id in back)


def test_pages_that_may_have_been_given_up_are_not_trusted(settled, before):
    """Where a tree has a gap and the list of free pages is lost, an old state of a job may pass for the present one."""
    wreck.overwrite(settled, 0, wreck.zeros(100))
    page = wreck.inner_page(settled, "job", 0)
    wreck.overwrite(settled, (page - 1) * 4096, wreck.noise(4096))
    found = read(settled)
    back = whole(found, before)
    assert len(back) > NUMBER // 2
    assert all(found[id].doubtful for id in back if before.job[id]["finished_at"] is None)


def test_a_queue_cut_in_half_is_no_harm_to_what_is_left(settled, before):
    """What of a job is in the lost half is told to be missing."""
    needs = wreck.pages_of_jobs(settled)
    half = settled.stat().st_size // 2
    with settled.open("r+b") as file:
        file.truncate(half)
    found = read(settled)
    assert {id for id, pages in needs.items() if max(pages) * 4096 <= half} <= whole(found, before)
    assert any(job.content for job in found.values() if job.why is not None)


@pytest.mark.parametrize("seed", range(12))
def test_damage_in_the_log_is_passed_over(filled, before, seed):
    """What was committed behind it counts, and nobody who got the message is to get it again without a question."""
    log = filled.with_name("queue.db-wal")
    random = Random(seed)
    at = random.randrange(0 if seed % 3 else 32, log.stat().st_size * 9 // 10)
    wreck.overwrite(log, at, random.randbytes(random.choice((24, 5000, 20000))))
    with Salvage(filled) as salvage:
        assert salvage.log_damaged
        found = {job.id: job for job in salvage.jobs()}
    sure = {id: job for id, job in found.items() if job.fit and not job.doubtful}
    for id, job in sure.items():
        ended = {row["position"] for row in before.recipients[id] if row["state"] != "waiting"}
        assert not ended & {row["position"] for row in job.recipients if row["state"] == "waiting"}
        assert before.job[id]["finished_at"] is None or job.job["finished_at"] is not None
    assert len(found) > NUMBER // 2


def test_a_log_without_its_header_is_read_all_the_same(filled, before):
    """Each frame tells which page it is, and fits the one before."""
    wreck.overwrite(filled.with_name("queue.db-wal"), 0, wreck.noise(32))
    assert whole(read(filled), before) == set(before.job)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.99])
def test_a_log_that_was_cut_tells_what_was_committed_before(filled, part):
    """As SQLite itself would have it."""
    log = filled.with_name("queue.db-wal")
    with log.open("r+b") as file:
        file.truncate(int(log.stat().st_size * part))
    found = read(filled)
    connection = apsw.Connection(str(wreck.copy(filled, filled.parent.parent / "cut")))
    there = connection.execute("SELECT count(*) FROM sqlite_schema").get
    assert len(found) == (connection.execute("SELECT count(*) FROM job").get if there else 0)


@pytest.mark.parametrize("seed", range(30))
def test_noise_is_no_queue(tmp_path, seed):
    """Whatever a file and its log hold: nothing is raised, and nothing made up."""
    random = Random(seed)
    database = tmp_path / "queue.db"
    start = b"SQLite format 3\0" if seed % 2 else b""
    kinds = bytes(random.choice((2, 5, 10, 13)) for _ in range(20))
    database.write_bytes(start + b"".join(bytes([kind]) + random.randbytes(4095) for kind in kinds))
    database.with_name("queue.db-wal").write_bytes(random.randbytes(random.choice((0, 10, 50_000))))
    assert not any(job.fit for job in read(database).values())


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_a_file_that_is_hardly_there_has_nothing(tmp_path, size):
    """Also without a log."""
    (tmp_path / "queue.db").write_bytes(b"S" * size)
    assert read(tmp_path / "queue.db") == {}


def test_a_newer_queue_is_not_read(settled):
    """A deferd that does not know its tables does not guess."""
    connection = apsw.Connection(str(settled))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreFailed, match="newer deferd"):
        read(settled)


@pytest.fixture
def change(settled) -> Iterator[Callable[..., None]]:
    """Change something in the database, as if octets had been overwritten."""
    connection = apsw.Connection(str(settled))
    connection.execute("PRAGMA ignore_check_constraints = 1")

    def change(statement: str, *bindings: object) -> None:
        connection.execute(statement, bindings)

    yield change
    connection.close()


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE recipient SET address = 'x@b.example' || char(13, 10) || 'RSET' WHERE job = ?", "address is damaged"),
        ("UPDATE recipient SET state = 'waitinh' WHERE job = ?", "outcome is damaged"),
        ("UPDATE recipient SET phase = 'tea' WHERE job = ?", "outcome is damaged"),
        ("UPDATE recipient SET at = 1e300 WHERE job = ?", "outcome is damaged"),
        ("DELETE FROM recipient WHERE job = ?", "some of its recipients"),
        ("UPDATE job SET tags = '{' WHERE id = ?", "the job itself"),
        ("UPDATE job SET result = '../../etc/passwd' WHERE id = ?", "the job itself"),
        ("UPDATE job SET sender = 'a b' WHERE id = ?", "the job itself"),
        ("UPDATE job SET accepted_at = 1e300 WHERE id = ?", "the job itself"),
        ("UPDATE job SET finished_at = 1 WHERE id = ?", "the job itself"),
        ("UPDATE job SET in_doubt = 'perhaps' WHERE id = ?", "the job itself"),
        ("DELETE FROM content WHERE job = ?", "content cannot be read"),
    ],
)
def test_what_cannot_be_true_is_not_believed(settled, before, change, statement, why):
    """Nothing that no reader of jobs would have let in is sent, shown, or the name of a file."""
    id = next(id for id, row in before.job.items() if row["state"] == "queued" and row["pieces"] == 1)
    change(statement, id)
    salvaged = read(settled)[id]
    assert not salvaged.fit
    assert why in str(salvaged.why)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"\r", b"\n", "content is damaged"),
        (b"\r\n", b"x\n", "content is damaged"),
        (b"a", b"\0", "content is damaged"),
        (b"a", b"\xff", "content is damaged"),
        (b"a", b"aa", "of its content"),
    ],
)
def test_content_that_cannot_be_the_message_is_not_sent(settled, before, change, old, new, why):
    """It is not what was accepted: of another length, not ready for the wire, or 8-bit where it was not."""
    id = next(id for id, row in before.job.items() if row["state"] == "queued" and not row["eight_bit"])
    change("UPDATE content SET data = ? WHERE job = ?", before.content[id].replace(old, new, 1), id)
    salvaged = read(settled)[id]
    assert not salvaged.fit
    assert why in str(salvaged.why)


def test_one_recipient_who_is_missing_is_missed(settled, before, change):
    """In the middle of them; and one at the end where the page behind is gone."""
    many = next(id for id, recipients in before.recipients.items() if len(recipients) == 90)
    change("DELETE FROM recipient WHERE job = ? AND position = 40", many)
    assert "some of its recipients" in str(read(settled)[many].why)


def test_an_id_that_is_none_is_none(settled, before, change):
    """It could not be written down as one."""
    id = next(iter(before.job))
    change("UPDATE job SET id = -5 WHERE id = ?", id)
    assert id_number("zzzzzzzzzzzz") > 0
    assert not read(settled)[-5].fit
