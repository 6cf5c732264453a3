"""Deliberate faults in the daemon: each is found by the simulation within a few seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deferred.defer import Deferred, succeed
from deferred.failure import Failure
from deferred.testing import SimulatedReactor
from service.delivery import news
from service.delivery.books import Books
from service.delivery.connection import Connection
from service.delivery.connector import Connector
from service.delivery.content import StoredContent
from service.delivery.delivery import Delivery
from service.delivery.lookout import Lookout
from service.delivery.pace import Concurrency, TokenBucket
from service.delivery.pool import Pool
from service.delivery.reports import Reports
from service.delivery.scheduler import Scheduler
from service.delivery.sites import SiteState
from service.delivery.turns import Turns
from service.message.outcome import Phase
from service.queue import accepting, aftermath, settling, sqlite, timekeeping
from service.queue.calendar import Calendar
from service.queue.drop import DropDirectory
from service.queue.sitenotes import SQLiteSiteNotes
from service.queue.store import Settled
from service.smtp.errors import HostFailure
from tests.simulation.books import Books as Written
from tests.simulation.simulation import QUIET, Measure, Simulation

SEEDS = 20
BUSY = Measure(
    days=1, jobs=50, crashes=2, stops=5, reloads=0.5, troubles=4, disks=1, orders=0, jumps=3, bursts=3, deaths=0.03
)
LONG_LIVED = replace(BUSY, crashes=0, deaths=0.0, bursts=10)
"""For what a daemon has forgotten once it has died."""


def settle_after_telling(patch: pytest.MonkeyPatch) -> None:
    """The log is told of an outcome before the store has it."""
    commit = Books._commit

    def told_first(self: Any, reports: Any, claim: Any, plan: Any, decided: Any) -> Any:
        news.tell(self._journal, claim, plan, Settled("queued"), ())
        return commit(self, reports, claim, plan, decided)

    patch.setattr(Books, "_commit", told_first)


def forget_a_recipient(patch: pytest.MonkeyPatch) -> None:
    """When some recipients have an end, those that wait are not waited for."""
    settle = settling.settle_one

    def forgetful(connection: Any, settlement: Any) -> Any:
        state = settle(connection, settlement)
        ended = [outcome for outcome in settlement.outcomes if outcome.state.value != "waiting"]
        if ended and state == "queued":
            where = (settlement.claim.number, settlement.claim.site)
            connection.execute("DELETE FROM delivery WHERE job = ? AND site = ?", where)
            state = settling.bring_up_to_date(connection, where[0], settlement.at)
        return state

    patch.setattr(settling, "settle_one", forgetful)


def drop_a_timer(patch: pytest.MonkeyPatch) -> None:
    """Nobody comes back at the end of a site's rest."""
    call_later = SimulatedReactor.call_later

    def forgetful(self: SimulatedReactor, delay: float, function: Any, *args: Any) -> Any:
        if getattr(function, "__func__", None) is Scheduler._wake_up:
            function, args = int, ()
        return call_later(self, delay, function, *args)

    patch.setattr(SimulatedReactor, "call_later", forgetful)


def resend_after_confirmation(patch: pytest.MonkeyPatch) -> None:
    """A host that has answered for everybody is, now and then, taken for one that has not."""
    settle = Delivery._settle
    count = iter(range(10**9))

    def unsure(self: Any, receipt: Any, attempt: Any, *rest: Any) -> Any:
        if next(count) % 10 == 9:
            error = HostFailure(Phase.CONFIRM, "lost", host="somebody")
            return self._postpone(Failure(error), attempt, *rest)
        return settle(self, receipt, attempt, *rest)

    patch.setattr(Delivery, "_settle", unsure)


def ignore_the_limit(patch: pytest.MonkeyPatch) -> None:
    """Every site has room for as many connections as it likes."""
    patch.setattr(Pool, "room", lambda self, site, most: 50)
    patch.setattr(Pool, "full_at", lambda self, site, most: False)
    patch.setattr(Pool, "free", property(lambda self: 50))


def wear_no_connection_out(patch: pytest.MonkeyPatch) -> None:
    """A connection is kept for as many messages as there are."""
    keep = Pool.keep
    patch.setattr(Pool, "keep", lambda self, site, one, messages, now: keep(self, site, one, 0, now))


def disturb_a_rest(patch: pytest.MonkeyPatch) -> None:
    """A site that rests is given work."""
    patch.setattr(SiteState, "takes_work", property(lambda self: True))
    patch.setattr(Turns, "_sorted", lambda self, claims, *_: (claims, []))


def take_a_file_again(patch: pytest.MonkeyPatch) -> None:
    """A file whose job is in the store already is not known again."""
    patch.setattr(accepting, "_known_file", lambda connection, entry: None)


def remove_a_file_too_early(patch: pytest.MonkeyPatch) -> None:
    """A file leaves new/ when it has been read, not when its job is committed."""
    opened = DropDirectory.open

    def careless(self: Any, name: str) -> Any:
        file = opened(self, name)
        if file is not None:
            (self._layout.new / name).unlink()
        return file

    patch.setattr(DropDirectory, "open", careless)


def deliver_before_the_hour(patch: pytest.MonkeyPatch) -> None:
    """`not_before` is forgotten."""
    accept = sqlite.accept_job

    def at_once(connection: Any, entry: Any, again: bool = False, **facts: Any) -> Any:
        done = accept(connection, entry, again, **facts)
        connection.execute("UPDATE delivery SET due = ? WHERE job = ?", (entry.at, entry.id))
        return done

    patch.setattr(sqlite, "accept_job", at_once)


def tell_no_sender(patch: pytest.MonkeyPatch) -> None:
    """A failure is settled without its bounce."""
    patch.setattr(Reports, "owes", lambda self, claim, plan: False)


def leave_a_connection_open(patch: pytest.MonkeyPatch) -> None:
    """At the end, kept connections are forgotten."""
    patch.setattr(Connector, "close_idle", lambda self: None)


def drop_a_deferred(patch: pytest.MonkeyPatch) -> None:
    """Now and then nobody hears what became of an attempt."""
    settle = Delivery._settle
    count = iter(range(10**9))

    def lose(self: Any, receipt: Any, attempt: Any, began: Any) -> Any:
        if next(count) % 20 == 19:
            self._leave(attempt, began)
            return Deferred()
        return settle(self, receipt, attempt, began)

    patch.setattr(Delivery, "_settle", lose)


def mark_no_final_dot(patch: pytest.MonkeyPatch) -> None:
    """A job to be held in doubt is sent like any other."""
    patch.setattr(StoredContent, "mark", lambda self, host: succeed(None))


def take_a_dead_daemons_claims_for_untried(patch: pytest.MonkeyPatch) -> None:
    """What was in flight at a death is due again, and nobody remembers that it was."""
    take_back = aftermath._take_back

    def forgetful(connection: Any, *args: Any) -> Any:
        done = take_back(connection, *args)
        connection.execute("UPDATE delivery SET doubts = 0")
        return done

    patch.setattr(aftermath, "_take_back", forgetful)


def take_wall_time_for_queue_time(patch: pytest.MonkeyPatch) -> None:
    """What waits waits by the clock on the wall."""
    patch.setattr(Calendar, "now", lambda self: self._reactor.wall_time())


def forget_the_clock(patch: pytest.MonkeyPatch) -> None:
    """A start goes by whatever the clock on the wall shows."""
    patch.setattr(sqlite, "read_seen", lambda connection: None)


def leave_scheduled_jobs_where_they_are(patch: pytest.MonkeyPatch) -> None:
    """`not_before` means the clock of the day on which the job was accepted."""
    patch.setattr(timekeeping, "move_scheduled", lambda *args: None)


def take_a_slot_for_who_inherits_one(patch: pytest.MonkeyPatch) -> None:
    """The message behind another gets its slot, and one more."""
    leave = Scheduler.leave

    def greedy(self: Any, claim: Any, heir: Any = None, **more: Any) -> None:
        leave(self, claim, heir, **more)
        if heir is not None:
            self._pool.enter(heir.site)

    patch.setattr(Scheduler, "leave", greedy)


def send_content_to_whoever_was_there(patch: pytest.MonkeyPatch) -> None:
    """A connection that has been idle gets the content with the envelope."""
    patch.setattr(Connection, "_holds_back", lambda self: False)


def take_no_token(patch: pytest.MonkeyPatch) -> None:
    """A site's rate is looked at, and nobody counts."""
    patch.setattr(TokenBucket, "take", lambda self, now, most=1: most)


def ignore_the_ceiling(patch: pytest.MonkeyPatch) -> None:
    """A site that copes gets more and more."""
    patch.setattr(Concurrency, "configure", lambda self, ceiling: None)
    patch.setattr(Concurrency, "limit", property(lambda self: self._limit + 3))


def forget_rests_at_the_end(patch: pytest.MonkeyPatch) -> None:
    """A restart tries everybody afresh."""
    patch.setattr(Scheduler, "resume", lambda self: None)


def forget_paces_at_the_end(patch: pytest.MonkeyPatch) -> None:
    """A restart brings every site a token."""
    patch.setattr(SQLiteSiteNotes, "paces", lambda self: [])


MUTANTS: list[tuple[Callable[[pytest.MonkeyPatch], None], int, str]] = [
    (take_no_token, 4, "s after another, at"),
    (ignore_the_ceiling, 5, "are allowed"),
    (forget_rests_at_the_end, 3, "before the end of its rest"),
    (forget_paces_at_the_end, 3, "s after another, at"),
    (settle_after_telling, 0, "was told to be"),
    (forget_a_recipient, 0, "is waiting"),
    (drop_a_timer, 3, "the queue does not get empty"),
    (resend_after_confirmation, 0, "and sent again"),
    (ignore_the_limit, 3, "are allowed"),
    (wear_no_connection_out, 4, "messages on one connection"),
    (disturb_a_rest, 3, "before the end of its rest"),
    (take_a_file_again, 10, ""),
    (remove_a_file_too_early, 4, "is lost"),
    (deliver_before_the_hour, 3, "before its time"),
    (tell_no_sender, 0, "its sender was not told"),
    (leave_a_connection_open, 6, "left behind by a stop"),
    (drop_a_deferred, 3, "the queue does not get empty"),
    (mark_no_final_dot, 5, "it was to be held in doubt"),
    (take_a_dead_daemons_claims_for_untried, 0, "not told to be a possible duplicate"),
    (take_wall_time_for_queue_time, 4, "too early"),
    (forget_the_clock, 4, "too early"),
    (leave_scheduled_jobs_where_they_are, 5, "before its time"),
    (take_a_slot_for_who_inherits_one, 0, "slots of"),
    (send_content_to_whoever_was_there, 4, "content came at once"),
]
"""Each with a seed that finds it soon, which is tried first, and the finding."""


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize(("mutant", "soon", "finding"), MUTANTS, ids=[each[0].__name__ for each in MUTANTS])
def test_the_simulation_finds(
    spool: Path, patch: pytest.MonkeyPatch, mutant: Any, soon: int, finding: str, unhandled: list[Failure]
) -> None:
    """The fault is found, and for what it is."""

    def found(books: Written) -> bool:
        return any(finding in violation for violation in books.violations)

    measure = LONG_LIVED if mutant is take_a_slot_for_who_inherits_one else BUSY
    mutant(patch)
    for seed in sorted(range(SEEDS), key=lambda seed: seed != soon):
        books = Simulation(seed, spool, measure).run(enough=found)
        unhandled.clear()
        if found(books):
            return
    pytest.fail(f"not found in {SEEDS} seeds")


@pytest.mark.parametrize("seed", sorted({soon for _, soon, _ in MUTANTS}))
def test_without_a_fault_the_same_seeds_find_nothing(spool: Path, seed: int) -> None:
    """What the mutants are found by is the mutants'."""
    assert Simulation(seed, spool, BUSY).run().violations == []


def test_a_quiet_day_shows_who_comes_late(spool: Path, patch: pytest.MonkeyPatch) -> None:
    """With nothing but the round that finds what nobody told of, a job is up to a minute late."""
    patch.setattr(Lookout, "expect", lambda self, state, due: None)
    patch.setattr(Lookout, "look_ahead", lambda self, state: None)
    patch.setattr(Lookout, "_come_back", lambda self, state, due: self._due(state))
    lateness = [late for seed in (3, 4, 5) for late in Simulation(seed, spool, QUIET).run().lateness]
    assert 0.1 < max(lateness) < 60.1
