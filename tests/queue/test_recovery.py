"""What was read of a damaged queue goes back into the present one: once, as it was, and never to be sent twice."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest

from service.queue.calendar import Seen
from service.queue.ids import id_text
from service.queue.recovery import NOTE, Report, recover, waiting_folders
from service.queue.schema import PIECE
from service.queue.sqlite import SQLiteStore
from service.queue.store import Source, StoreFailed
from service.queue.timekeeping import write_seen
from tests.queue import wreck


@pytest.fixture
def spool(tmp_path) -> Path:
    """The directory of the present queue, in which another was set aside."""
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


@pytest.fixture
def aside(open_store, reactor, submission, settlement, tmp_path, spool) -> Path:
    """A queue that was set aside."""
    store = open_store()
    wreck.fill(store, reactor, submission, settlement, 40)
    wreck.hold_some(tmp_path / "queue.db", reactor.wall_time())
    return wreck.copy(tmp_path / "queue.db", spool / "damaged-20260921T141320Z").parent


@pytest.fixture
def before(aside, tmp_path) -> wreck.Jobs:
    return wreck.jobs(wreck.copy(aside / "queue.db", tmp_path / "before"))


@pytest.fixture
def present(spool, reactor, told) -> Callable[[], SQLiteStore]:
    """Open the present queue."""

    def present(**options: Any) -> SQLiteStore:
        store = SQLiteStore(spool / "queue.db", reactor, told.journal, Random(3), **options)
        reactor.settle()
        return store

    return present


@pytest.fixture
def run(aside, spool, reactor) -> Callable[[], Report]:
    """Recover it."""
    return lambda: recover(aside, spool, reactor.wall_time)


def execute(database: Path, *statement: Any) -> list[Any]:
    connection = apsw.Connection(str(database))
    try:
        return connection.execute(*statement).fetchall()
    finally:
        connection.close()


def numbers(report: Report) -> dict[str, int]:
    """What a report counts, but for what is 0."""
    names = ("seen", "queued", "held", "held_in_doubt", "ended", "present", "again")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def in_doubt(jobs: wreck.Jobs, id: int) -> bool:
    """Whether the job was in flight and is not to be sent twice unasked."""
    return jobs.job[id]["in_doubt"] == "hold" and any(row["state"] == 1 for row in jobs.deliveries[id].values())


def test_all_of_an_undamaged_queue_is_there_again(run, before, spool, reactor):
    """Jobs, recipients with their outcomes, content and what is owed; the tally is right, and SQLite content."""
    report = run()
    assert report.complete
    after = wreck.jobs(spool / "queue.db")
    for id, row in before.job.items():
        if not in_doubt(before, id):  # these say why they are held
            assert after.recipients[id] == before.recipients[id]
        assert {**after.job[id], "state": row["state"]} == row
        assert before.job[id]["finished_at"] is not None or after.content[id] == before.content[id]
    states = [row["state"] for row in after.job.values()]
    assert report.queued == states.count("queued")
    assert report.held == states.count("held")
    assert report.ended == len(states) - report.queued - report.held > 0
    assert report.seen == len(states) == len(before.job)
    assert dict(execute(spool / "queue.db", "SELECT * FROM tally")) == {
        state: states.count(state) for state in ("queued", "held", "delivered", "failed", "partly")
    }
    assert execute(spool / "queue.db", "PRAGMA integrity_check") == [("ok",)]


def test_what_was_in_flight_is_due_and_what_was_held_is_held(run, before, spool, reactor):
    """A claim of a job that is not to be sent twice unasked is held instead; everything else is as it was."""
    run()
    now = reactor.wall_time()
    after = wreck.jobs(spool / "queue.db").deliveries
    seen = set()
    for id, sites in before.deliveries.items():
        assert set(after[id]) == set(sites)
        for site, row in sites.items():
            ours = after[id][site]
            hold = before.job[id]["in_doubt"] == "hold" and row.get("dot", "") is not None
            seen.add((row["state"], hold))
            if row["state"] == 1:
                assert ours["state"] == (2 if hold or row["hold"] else 0)
                assert (ours["lease"], ours["hold"]) == (0, 0)
                assert ours["due"] <= now
            else:
                assert ours == row
    assert seen >= {(0, False), (1, False), (1, True), (2, False)}


def test_a_recovered_job_is_delivered_to_whoever_waits_for_it(run, before, reactor, present):
    """The daemon's own store claims it, with its content, small or large, and its waiting recipients alone."""
    run()
    store = present()
    claims = [claim for site in "abc" for claim in reactor.wait(store.claim(f"{site}.example", 1000))]
    expected = {
        (id_text(id), row["address"])
        for id, recipients in before.recipients.items()
        for row in recipients
        if row["state"] == "waiting" and (row["site"] in before.deliveries[id])
    }
    told = {(claim.id, address) for claim in claims for address in claim.recipients}
    assert told <= expected
    assert len(told) > len(before.job)
    content = {id_text(id): data for id, data in before.content.items()}
    for claim in claims:
        parts = [reactor.wait(store.read(claim, piece)) for piece in range(claim.pieces)]
        assert b"".join(parts) == content[claim.id]
    assert any(len(content[claim.id]) > 3 * PIECE for claim in claims)
    reactor.wait(store.close())


def test_doing_it_again_changes_nothing(run, spool):
    """Every job is there already; so a recovery that was broken off is done by doing it again."""
    first = run()
    before = wreck.jobs(spool / "queue.db")
    second = run()
    assert numbers(second) == {"seen": first.seen, "present": first.seen}
    assert wreck.jobs(spool / "queue.db") == before


def test_a_job_that_has_ended_since_is_not_sent_again(run, reactor, present):
    """Recovered, delivered, and recovered once more: it stays delivered."""
    run()
    store = present()
    (claim,) = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.change("remove", [claim.id], None))
    reactor.wait(store.close())
    run()
    store = present()
    job = store.show(claim.id)
    assert job is not None
    assert job.state in ("failed", "partly")
    reactor.wait(store.close())


def test_a_file_or_key_that_was_taken_again_meanwhile_is_not_doubled(
    run, aside, reactor, present, submission, before, spool
):
    """While the queue was away, nobody knew that their jobs had been accepted already."""
    waiting = [row for row in before.job.values() if row["finished_at"] is None]
    over = next(row for row in before.job.values() if row["finished_at"] is not None)
    store = present()
    files = [Source(row["file"], row["inode"], row["mtime_ns"], row["octets"]) for row in (waiting[0], over)]
    new = [
        submission("new@a.example", name="first", source=files[0]),
        submission("new@a.example", name="second", source=files[1]),
        submission("new@a.example", name="third", key=waiting[1]["key"]),
    ]
    reactor.wait(store.accept(new))
    reactor.wait(store.close())
    report = run()
    assert report.complete
    assert report.again == 2
    after = wreck.jobs(spool / "queue.db")
    assert waiting[0]["id"] not in after.job
    assert waiting[1]["id"] not in after.job
    assert after.job[over["id"]]["inode"] is None
    assert after.job[over["id"]]["key"] == over["key"]


def test_a_recovered_key_and_file_are_known_again(run, reactor, present, submission, before):
    """The same file is not taken again, nor the same key."""
    run()
    store = present()
    for row in before.job.values():
        source = Source(row["file"], row["inode"], row["mtime_ns"], row["octets"])
        (accepted,) = reactor.wait(store.accept([submission(name="again", source=source)]))
        assert (accepted.id, accepted.known) == (id_text(row["id"]), True)
    (accepted,) = reactor.wait(store.accept([submission(name="again", key=row["key"])]))
    assert accepted.known
    reactor.wait(store.close())


@pytest.mark.parametrize(("then", "now"), [(0.0, 0.0), (31_536_000.0, 0.0), (-86_400.0, 31_536_000.0)])
def test_times_go_by_the_present_queue(run, aside, before, spool, reactor, present, then, now):
    """Though the wall clock had been set in the one or the other: nothing expires or is due any earlier or later."""
    reactor.wait(present().close())
    for database, offset in ((aside / "queue.db", then), (spool / "queue.db", now)):
        wall = reactor.wall_time()
        seen = Seen(
            queue=wall - offset, wall=wall, offset=offset, boot=None, elapsed=0.0, aligned=True, reached=wall - offset
        )
        connection = apsw.Connection(str(database))
        write_seen(connection, seen)
        connection.close()
    run()
    after = wreck.jobs(spool / "queue.db")
    for id, row in before.job.items():
        for name in ("accepted_at", "begins_at", "expires_at", "finished_at"):
            expected = None if row[name] is None else row[name] + then - now
            assert after.job[id][name] == expected
        for site, delivery in before.deliveries[id].items():
            if delivery["state"] != 1:
                assert after.deliveries[id][site]["due"] == delivery["due"] + then - now


@pytest.mark.parametrize(("then", "now", "kept"), [("a", "a", "a"), ("a", "b", "")])
def test_jobs_go_by_the_present_routes(run, aside, spool, reactor, present, then, now, kept):
    """Where the routes have changed meanwhile, the next start or reload gives all that waits its sites anew."""
    for database, routes in ((aside / "queue.db", then), (spool / "queue.db", now)):
        if not database.exists():
            reactor.wait(present().close())
        execute(database, "INSERT OR REPLACE INTO meta VALUES ('routes', ?)", (routes,))
    run()
    assert execute(spool / "queue.db", "SELECT value FROM meta WHERE name = 'routes'") == [(kept,)]


def test_results_keep_apart(run, reactor, present, submission, before, spool):
    """A result's name that a new job has got meanwhile is the new job's; what waits owes its result anew."""
    row = next(row for row in before.job.values() if row["finished_at"] is None)
    store = present()
    reactor.wait(store.accept([submission(name=row["name"])]))
    reactor.wait(store.close())
    run()
    after = wreck.jobs(spool / "queue.db").job
    assert after[row["id"]]["result"] == f"{row['name']}-{id_text(row['id'])}"
    owed = {job for (job,) in execute(spool / "queue.db", "SELECT job FROM owed")}
    assert {id for id, row in after.items() if row["finished_at"] is None} <= owed


def test_what_is_not_whole_is_written_down(run, aside, before, spool):
    """The message as a file and all that is known of its envelope beside it, for nobody else to read; the queue has
    nothing of it, and the damaged files stay as they are."""
    database = wreck.checkpointed(aside / "queue.db")
    waiting = [id for id, row in before.job.items() if row["state"] == "queued" and row["pieces"] == 1]
    no_content, no_recipients = waiting[:2]
    execute(database, "DELETE FROM content WHERE job = ?", (no_content,))
    execute(database, "DELETE FROM recipient WHERE job = ?", (no_recipients,))
    whole = database.read_bytes()
    report = run()
    assert not report.complete
    assert {trouble.id for trouble in report.parts} == {id_text(no_content), id_text(no_recipients)}
    assert report.lost == []
    saved = aside / "saved"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o700
    assert sorted(path.name for path in saved.iterdir()) == sorted(
        [f"{id_text(no_content)}.json", f"{id_text(no_recipients)}.json", f"{id_text(no_recipients)}.eml"]
    )
    eml = saved / f"{id_text(no_recipients)}.eml"
    assert eml.read_bytes() == before.content[no_recipients]
    assert stat.S_IMODE(eml.stat().st_mode) == 0o600
    known = json.loads((saved / f"{id_text(no_content)}.json").read_text())
    assert known["why"] == "its content cannot be read"
    assert known["recipients"] == before.recipients[no_content]
    assert known["job"] == before.job[no_content]
    assert set(before.job) - set(wreck.jobs(spool / "queue.db").job) == {no_content, no_recipients}
    assert database.read_bytes() == whole


def test_what_is_gone_is_told(run, aside, before):
    """A job of which no more is left than its number in an index counts as lost, with the state it was in."""
    database = wreck.checkpointed(aside / "queue.db")
    pages = [page for table in ("job", "recipient", "content") for page in wreck.leaves(database, table)[:3]]
    for page in pages:
        wreck.overwrite(database, (page - 1) * 4096, bytes(4096))
    report = run()
    assert report.lost
    assert any("it was " in trouble.why for trouble in report.lost)
    assert report.seen == len(before.job)
    fates = report.queued + report.held + report.ended + len(report.parts) + len(report.lost)
    assert fates >= report.seen


def test_what_may_be_out_of_date_is_held(run, aside, before, spool):
    """Nobody is sent a message again because the damaged queue no longer knew that it had been delivered."""
    database = wreck.checkpointed(aside / "queue.db")
    page = wreck.inner_page(database, "job", 0)
    wreck.overwrite(database, 0, bytes(100))
    wreck.overwrite(database, (page - 1) * 4096, bytes(4096))
    report = run()
    assert report.queued == 0
    assert report.held == report.held_in_doubt > 10
    after = wreck.jobs(spool / "queue.db")
    assert {row["state"] for sites in after.deliveries.values() for row in sites.values()} == {2}
    texts = {row["text"] for rows in after.recipients.values() for row in rows if row["state"] == "waiting"}
    assert any("may have been sent already: release it" in str(text) for text in texts)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_damaged_no_ended_recipient_waits_again(run, aside, before, spool, seed):
    """And the present queue is in order afterwards."""
    database = wreck.checkpointed(aside / "queue.db")
    random = Random(seed)
    wreck.overwrite_pages(database, random, 15, random.randbytes)
    report = run()
    after = wreck.jobs(spool / "queue.db")
    for id, rows in after.recipients.items():
        ended = {row["address"] for row in before.recipients[id] if row["state"] != "waiting"}
        assert not ended & {row["address"] for row in rows if row["state"] == "waiting"}
    assert execute(spool / "queue.db", "PRAGMA integrity_check") == [("ok",)]
    assert len(after.job) == report.queued + report.held + report.ended


def test_a_delivery_that_is_missing_is_made_anew(run, aside, before, spool, reactor):
    """Whoever waits is tried, with the attempts that the job has used up; one that was held stays held."""
    database = wreck.checkpointed(aside / "queue.db")
    execute(database, "DELETE FROM delivery")
    report = run()
    assert report.complete
    after = wreck.jobs(spool / "queue.db")
    for id, rows in after.recipients.items():
        assert set(after.deliveries[id]) == {row["site"] for row in rows if row["state"] == "waiting"}
        for row in after.deliveries[id].values():
            assert row["state"] == (2 if before.job[id]["state"] == "held" else 0)
            assert row["attempts"] == before.job[id]["attempts"]


def test_a_folder_is_gone_through_once(run, aside, spool, reactor):
    """Its note tells how that went; it is left out from then on, unless it is named."""
    assert waiting_folders(spool) == [aside]
    report = run()
    assert waiting_folders(spool) == []
    assert json.loads((aside / NOTE).read_text())["seen"] == report.seen
    assert numbers(recover(aside / "queue.db", spool, reactor.wall_time)) == {"seen": 40, "present": 40}


def test_what_cannot_be_recovered_is_told(spool, run, reactor, tmp_path):
    """A folder with nothing in it, and the queue itself."""
    with pytest.raises(StoreFailed, match="does not exist"):
        recover(tmp_path / "nothing", spool, reactor.wall_time)
    run()
    with pytest.raises(StoreFailed, match="is the queue itself"):
        recover(spool / "queue.db", spool, reactor.wall_time)


def test_a_locked_queue_is_told(run, spool, present, reactor, monkeypatch):
    """Nothing is marked as recovered."""
    monkeypatch.setattr("service.queue.recovery._PATIENCE", 0.0)
    reactor.wait(present().close())
    holder = apsw.Connection(str(spool / "queue.db"))
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreFailed, match="locked by another process"):
        run()
    holder.execute("ROLLBACK")
    holder.close()
    assert len(waiting_folders(spool)) == 1
