"""The store while the wall clock jumps: what waits, waits as long as it would have; what is scheduled follows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import pytest

from service.queue.calendar import BootClock
from service.queue.commands import open_for_commands
from service.queue.sqlite import SQLiteStore
from service.queue.store import StoreFailed
from service.queue.timekeeping import SCHEDULED, read_seen
from service.timestamp import rfc3339
from tests.queue.conftest import NOW, StillReactor, Told

HOUR = 3600.0
DAY = 86_400.0
YEAR = 365 * DAY
JUMPS = [DAY, -DAY, YEAR, -YEAR]
SITE = "a.example"


@pytest.fixture
def boot(reactor: StillReactor) -> BootClock:
    return BootClock("this boot", reactor.time)


@pytest.fixture
def jump(reactor: StillReactor) -> Callable[[float], None]:
    return lambda seconds: reactor.set_wall_time(reactor.wall_time() + seconds)


@pytest.fixture
def store(open_store: Callable[..., SQLiteStore], boot: BootClock) -> SQLiteStore:
    return open_store(boot=boot)


def seconds(text: str | None) -> float:
    """What a time in a view says, in seconds since the epoch."""
    assert text is not None
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


# what waits


@pytest.mark.parametrize("by", JUMPS)
def test_what_waits_for_its_next_try_waits_on(reactor, store, submission, settlement, jump, by: float) -> None:
    """An hour is an hour: not claimed a second before, nor lost in another year."""
    reactor.wait(store.accept([submission()]))
    (claim,) = reactor.wait(store.claim(SITE, 1))
    reactor.wait(store.settle([settlement(claim, "waiting", due=store.now() + HOUR)]))
    jump(by)
    reactor.advance(HOUR - 1)
    assert reactor.wait(store.claim(SITE, 1)) == []
    reactor.advance(1.1)
    assert len(reactor.wait(store.claim(SITE, 1))) == 1


@pytest.mark.parametrize("by", JUMPS)
def test_the_age_of_a_job_is_how_long_it_has_been_here(reactor, store, submission, jump, by: float) -> None:
    """What a claim says of its acceptance and its expiry is by the store's time."""
    reactor.wait(store.accept([submission(expires=2 * HOUR)]))
    jump(by)
    reactor.advance(HOUR)
    store.now()
    reactor.settle()
    (claim,) = reactor.wait(store.claim(SITE, 1))
    assert store.now() - claim.accepted_at == pytest.approx(HOUR, abs=1e-5)
    assert claim.expires_at - store.now() == pytest.approx(HOUR, abs=1e-5)
    assert store.now() - store.count().oldest == pytest.approx(HOUR, abs=1e-5)


@pytest.mark.parametrize("by", JUMPS)
def test_people_see_the_clock_on_their_wall(reactor, store, submission, settlement, jump, tmp_path, by: float) -> None:
    """A view, from the daemon or a command, tells when it was by the clock as it is now."""
    (job,) = reactor.wait(store.accept([submission()]))
    (claim,) = reactor.wait(store.claim(SITE, 1))
    reactor.wait(store.settle([settlement(claim, "waiting", due=store.now() + HOUR)]))
    reactor.advance(60)
    jump(by)
    store.now()
    reactor.advance(1)
    view = store.show(job.id)
    assert seconds(view.accepted_at) == pytest.approx(reactor.wall_time() - 61, abs=0.002)
    assert seconds(view.next_attempt) == pytest.approx(reactor.wall_time() + HOUR - 61, abs=0.002)
    assert seconds(view.recipients[0].at) == pytest.approx(reactor.wall_time() - 61, abs=0.002)
    with open_for_commands(tmp_path, reactor.wall_time) as commands:
        (listed,) = commands.list()
    assert store.list() == [view]
    assert (listed.accepted_at, listed.next_attempt, listed.recipients) == (
        view.accepted_at, view.next_attempt, view.recipients,
    )  # fmt: skip


@pytest.mark.parametrize("by", [DAY, YEAR])
def test_a_key_is_kept_for_a_week_of_real_time(reactor, store, submission, settlement, jump, by: float) -> None:
    """A clock set ahead makes nobody's order go out twice."""
    (first,) = reactor.wait(store.accept([submission(key="order 17")]))
    (claim,) = reactor.wait(store.claim(SITE, 1))
    reactor.wait(store.settle([settlement(claim)]))
    jump(by)
    reactor.advance(6 * DAY)
    (again,) = reactor.wait(store.accept([submission(key="order 17")]))
    assert (again.id, again.known) == (first.id, True)
    reactor.wait(store.purge(store.now() - 7 * DAY))
    assert store.show(first.id) is not None
    reactor.advance(DAY + 1)
    reactor.wait(store.purge(store.now() - 7 * DAY))
    assert store.show(first.id) is None


# what is scheduled


@pytest.mark.parametrize("by", [-YEAR, -DAY, HOUR, DAY, YEAR])
def test_a_scheduled_job_keeps_to_the_wall_clock(reactor, store, submission, jump, by: float) -> None:
    """Its moment is the new clock's: later where that went back, at once where it has come; and its age counts from
    there."""
    at = NOW + 2 * HOUR
    (job,) = reactor.wait(store.accept([submission(not_before=at, expires=DAY)]))
    jump(by)
    store.now()
    reactor.settle()
    wait = max(0.0, 2 * HOUR - by)
    assert store.next_due(SITE) - store.now() == pytest.approx(wait, abs=1e-5)
    if wait:
        assert store.show(job.id).next_attempt == rfc3339(at)
        reactor.advance(wait - 0.05)
        assert reactor.wait(store.claim(SITE, 1)) == []
        reactor.advance(0.1)
    (claim,) = reactor.wait(store.claim(SITE, 1))
    assert store.now() - claim.begins_at < 0.1
    assert claim.expires_at - claim.begins_at == pytest.approx(DAY, abs=1e-5)


def test_a_job_accepted_after_a_jump_is_scheduled_by_the_clock_of_its_day(reactor, store, submission, jump) -> None:
    """Whose `not_before` says something means the clock that is on the wall."""
    jump(-YEAR)
    reactor.wait(store.accept([submission(not_before=reactor.wall_time() + HOUR)]))
    assert store.next_due(SITE) - store.now() == pytest.approx(HOUR, abs=1e-5)
    reactor.wait(store.accept([submission("x@b.example", not_before=reactor.wall_time() - HOUR)]))
    assert store.next_due("b.example") == pytest.approx(store.now(), abs=1e-5)


def test_whoever_waits_for_scheduled_jobs_is_told_that_they_were_moved(reactor, store, submission, jump) -> None:
    """After the commit that moves the last."""
    moved: list[float | None] = []
    store.on_moved(lambda: moved.append(store.next_due(SITE)))
    reactor.wait(store.accept([submission(not_before=NOW + DAY)]))
    jump(DAY)
    store.now()
    assert moved == []
    reactor.settle()
    assert moved == [pytest.approx(store.now(), abs=1e-5)]


@pytest.mark.parametrize("by", [-DAY, -YEAR])
def test_a_job_whose_time_had_come_goes_on(reactor, store, submission, jump, by: float) -> None:
    """It has begun: a clock that goes back behind its `not_before` does not hold it up."""
    reactor.wait(store.accept([submission(not_before=NOW + HOUR)]))
    reactor.advance(2 * HOUR)
    store.now()
    jump(by)
    store.now()
    reactor.settle()
    assert len(reactor.wait(store.claim(SITE, 1))) == 1


def test_a_job_that_an_operator_let_go_early_stays_due(reactor, store, submission, jump) -> None:
    """`queue retry` was said of it, whatever the clock says now."""
    (job,) = reactor.wait(store.accept([submission(not_before=NOW + HOUR)]))
    reactor.wait(store.change("retry", [job.id], None))
    jump(-DAY)
    store.now()
    reactor.settle()
    assert len(reactor.wait(store.claim(SITE, 1))) == 1


def test_a_held_job_is_moved_too(reactor, store, submission, jump) -> None:
    """It is still held, and goes when it is released."""
    reactor.wait(store.accept([submission(not_before=NOW + HOUR, expires=DAY)]))
    reactor.wait(store.change("hold", None, None))
    jump(DAY)
    store.now()
    reactor.settle()
    assert store.count().held == 1
    reactor.wait(store.change("release", None, None))
    (claim,) = reactor.wait(store.claim(SITE, 1))
    assert claim.expires_at - store.now() == pytest.approx(DAY, abs=1e-5)


def test_nothing_is_handed_out_until_scheduled_jobs_have_been_moved(reactor, store, submission, jump) -> None:
    """A clock that goes back just before the moment has come is noticed by the claim itself."""
    reactor.wait(store.accept([submission(not_before=NOW + 30), submission("x@b.example")]))
    jump(-DAY)
    reactor.advance(30)
    assert reactor.wait(store.claim(SITE, 1)) == []
    assert store.next_due(SITE) - store.now() == pytest.approx(DAY, abs=1e-5)
    assert len(reactor.wait(store.claim("b.example", 1))) == 1


def test_a_great_many_scheduled_jobs_are_moved_in_slices(reactor, store, submission, jump) -> None:
    """All of them, and what is not scheduled is not touched."""
    reactor.wait(store.accept([submission(not_before=NOW + HOUR + n) for n in range(1200)]))
    reactor.wait(store.accept([submission("x@b.example")]))
    jump(-DAY)
    store.now()
    reactor.settle()
    rows = store._look.execute("SELECT min(due), max(due), count(*) FROM delivery WHERE site = ?", (SITE,)).fetchone()
    assert rows == (pytest.approx(NOW + HOUR + DAY), pytest.approx(NOW + HOUR + DAY + 1199), 1200)
    assert store.next_due("b.example") == NOW


def test_scheduled_jobs_are_found_by_an_index_of_their_own(store) -> None:
    """However many jobs have begun, or have ended."""
    (plan,) = [row[3] for row in store._look.execute("EXPLAIN QUERY PLAN " + SCHEDULED, (1.0,))]
    assert plan.startswith("SEARCH job USING INDEX job_scheduled")


# a restart


@pytest.mark.parametrize("by", JUMPS)
def test_a_jump_while_no_daemon_runs_changes_nothing(
    reactor, open_store, submission, settlement, jump, boot, by: float
) -> None:
    """The next start knows how much time has passed; what is scheduled follows the clock."""
    store = open_store(boot=boot)
    at = NOW + 2 * HOUR
    reactor.wait(store.accept([submission(), submission("x@b.example", not_before=at)]))
    (claim,) = reactor.wait(store.claim(SITE, 1))
    reactor.wait(store.settle([settlement(claim, "waiting", due=store.now() + HOUR)]))
    reactor.wait(store.close())
    jump(by)
    reactor.advance(HOUR / 2)
    again = open_store(boot=boot)
    assert again.next_due(SITE) - again.now() == pytest.approx(HOUR / 2, abs=1e-5)
    wait = max(0.0, at - reactor.wall_time())
    assert again.next_due("b.example") - again.now() == pytest.approx(wait, abs=1e-5)


@pytest.mark.parametrize("by", [-DAY, -YEAR])
def test_a_boot_with_its_clock_behind_strands_nothing(
    reactor, open_store, submission, settlement, jump, boot, by: float
) -> None:
    """The wait goes on from what was seen last."""
    store = open_store(boot=boot)
    reactor.wait(store.accept([submission()]))
    (claim,) = reactor.wait(store.claim(SITE, 1))
    reactor.wait(store.settle([settlement(claim, "waiting", due=store.now() + HOUR)]))
    reactor.wait(store.close())
    jump(by)
    reactor.advance(HOUR / 2)
    again = open_store(boot=BootClock("another boot", lambda: 1.0))
    assert again.next_due(SITE) - again.now() == pytest.approx(HOUR, abs=1e-5)


def test_a_start_in_another_boot_is_remembered_before_anything_else(reactor, open_store, jump, boot) -> None:
    """Killed before it has done anything, it leaves to the next start what that needs to tell a jump from a year."""
    open_store(boot=boot)
    other = BootClock("another boot", reactor.time)
    open_store(boot=other)
    jump(YEAR)
    reactor.advance(5)
    assert open_store(boot=other).now() == pytest.approx(NOW + 5, abs=1e-5)


@pytest.mark.parametrize("slices", range(4))
def test_a_crash_while_scheduled_jobs_are_moved_is_made_good(
    reactor, open_store, submission, jump, boot, monkeypatch, slices: int
) -> None:
    """Wherever it comes, the next start moves the rest, and nothing twice as far."""
    store = open_store(boot=boot)
    reactor.wait(store.accept([submission(not_before=NOW + HOUR + n) for n in range(1200)]))
    jump(-DAY)
    store.now()
    move, left = store._timekeeper._move, [None] * slices

    def die(jobs: list[int]) -> Any:
        if not left:
            raise StoreFailed("the process is gone")
        left.pop()
        return move(jobs)

    monkeypatch.setattr(store._timekeeper, "_move", die)
    reactor.settle()
    assert store.calendar.aligned == (slices == 3)
    again = open_store(boot=boot)
    rows = again._look.execute("SELECT min(due), max(due), count(*) FROM delivery").fetchone()
    assert rows == (pytest.approx(NOW + HOUR + DAY), pytest.approx(NOW + HOUR + DAY + 1199), 1200)
    assert again.calendar.aligned


# what is remembered


def seen_by(path: Path) -> Any:
    with apsw.Connection(str(path / "queue.db")) as connection:
        seen = read_seen(connection)
    connection.close()
    return seen


def test_the_clocks_are_remembered_with_what_is_committed_anyhow(reactor, store, submission, tmp_path) -> None:
    """At the start, then once a minute, and at the end; an idle store writes nothing."""
    assert seen_by(tmp_path).queue == NOW
    reactor.advance(59)
    reactor.wait(store.accept([submission()]))
    assert seen_by(tmp_path).queue == NOW
    reactor.advance(DAY)
    assert seen_by(tmp_path).queue == NOW
    reactor.wait(store.accept([submission()]))
    assert seen_by(tmp_path).queue == NOW + DAY + 59
    reactor.advance(5)
    reactor.wait(store.close())
    assert seen_by(tmp_path).queue == NOW + DAY + 64


def test_a_jump_is_remembered_at_once(reactor, store, submission, jump, tmp_path) -> None:
    """Also by a store that has nothing else to write."""
    reactor.wait(store.accept([submission()]))
    jump(YEAR)
    store.now()
    reactor.settle()
    assert seen_by(tmp_path).offset == pytest.approx(YEAR)


def test_a_disk_that_is_full_does_not_forget_a_jump(
    reactor, store, submission, told: Told, jump, monkeypatch, tmp_path
) -> None:
    """It is remembered, and scheduled jobs are moved, when something can be written again."""
    reactor.wait(store.accept([submission(not_before=NOW + HOUR)]))
    real = reactor.defer_to_thread

    def full(function: Any, *args: Any) -> Any:
        def fail() -> None:
            raise apsw.FullError("database or disk is full")

        return real(fail)

    monkeypatch.setattr(reactor, "defer_to_thread", full)
    jump(DAY)
    store.now()
    reactor.advance(100)
    assert "store_failed" in told.names()
    assert store.next_due(SITE) == NOW + HOUR
    monkeypatch.setattr(reactor, "defer_to_thread", real)
    reactor.advance(10)
    assert seen_by(tmp_path).offset == pytest.approx(DAY)
    assert store.next_due(SITE) <= store.now()


@pytest.mark.parametrize("by", JUMPS)
def test_a_command_knows_of_a_jump_that_the_daemon_has_not_noticed(
    reactor, store, submission, jump, boot, tmp_path, by: float
) -> None:
    """What it makes due is due now, and what it ends ended now."""
    reactor.wait(store.accept([submission(), submission("x@b.example", not_before=NOW + DAY)]))
    jump(by)
    reactor.advance(1)
    with open_for_commands(tmp_path, reactor.wall_time, "all", boot) as commands:
        assert commands.change("retry", None, "b.example").changed == 1
        assert commands.change("remove", None, SITE).changed == 1
        (removed,) = commands.list(state="failed")
    assert seconds(removed.finished_at) == pytest.approx(reactor.wall_time(), abs=0.002)
    assert store.next_due("b.example") == pytest.approx(NOW + 1, abs=1e-5)
    store.now()
    reactor.settle()
    assert len(reactor.wait(store.claim("b.example", 1))) == 1
