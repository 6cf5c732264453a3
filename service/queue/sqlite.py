"""The queue on SQLite: the store's interface over one database file.

A job is ours once the transaction that inserts it has committed; nobody is told before. Everything that writes goes
through the group commit; everything that only looks has a connection of its own, which sees what is committed and keeps
no snapshot across a wait. Nothing here knows about the network.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

import apsw

from deferred.defer import Deferred, execute, gather_results, inline_callbacks
from deferred.interfaces import Reactor
from service.journal import Journal
from service.queue import changing, looking, owing
from service.queue.accepting import Entry, accept_job, is_taken
from service.queue.aftermath import NOTHING, Aftermath, AtWork, sort_out
from service.queue.calendar import BootClock, Calendar
from service.queue.commit import GroupCommit
from service.queue.damage import as_store_failed, note_damage
from service.queue.ids import Ids, id_number
from service.queue.owing import Changed, OwedResult, ResultPolicy
from service.queue.schema import FAULTS, open_reader
from service.queue.settlements import OPEN, Settle
from service.queue.settling import claim_due, mark_dot, sites_now, unclaim
from service.queue.sitenotes import SQLiteSiteNotes, note_pace
from service.queue.staging import HEAVY, Staging
from service.queue.store import (
    Accepted,
    Change,
    Claim,
    Counts,
    JobState,
    JobView,
    Pace,
    Settled,
    Settlement,
    SiteBacklog,
    Source,
    StoreFailed,
    Submission,
)
from service.queue.timekeeping import Timekeeper, read_seen

T = TypeVar("T")

DATABASE: Final = "queue.db"
_LOOK_TIMEOUT: Final = 0.05  # a look waits only while another process recovers the log
_ALL_LEASES: Final = 1 << 63
_ONE_IN: Final = 10  # messages is handed out to those who would be last


class SQLiteStore:
    """`Store` on the database at `path`.

    `results` says which jobs are owed a result file; it may be changed at any time. `changed` is called after each
    commit with the jobs whose result is to be written anew. `present` tells whether a dropped file is still there: its
    job is not forgotten before it. `boot` tells how much time passed while no daemon ran. `calendar` has the store's
    time, `notes` what is to be known of sites also after a restart.
    """

    def __init__(
        self,
        path: Path,
        reactor: Reactor,
        journal: Journal,
        random: Random,
        *,
        results: ResultPolicy = "all",
        present: Callable[[Source], bool] = lambda _: False,
        before: AtWork = NOTHING,
        boot: BootClock | None = None,
    ) -> None:
        """Open the database, and take back what a former process had in flight: due at once, or held (`aftermath`).

        `before` is what that process was at work on when it died. Raises `StoreFailed`.
        """
        self.results: ResultPolicy = results
        self.changed: Callable[[Sequence[Changed]], None] = lambda _: None
        self.present = present
        self._path = path
        self._reactor = reactor
        self._commit = GroupCommit(path, reactor, journal)
        self._look = open_reader(path, busy_timeout=_LOOK_TIMEOUT)
        self.notes = SQLiteSiteNotes(self._commit, self._looked)
        self._timekeeper = Timekeeper(reactor, journal, self._commit, read_seen(self._look), boot)
        self.calendar: Calendar = self._timekeeper.calendar
        last = self._look.execute(
            "SELECT max(ifnull(max(id), 0), (SELECT ifnull(max(job), 0) FROM piece)) FROM job"
        ).get
        self._ids = Ids(reactor.wall_time, random, last or 0)
        self._site_of: Callable[[str], str] = lambda address: address
        self._rerouted = 0  # claims with an older lease were made by former routes
        self._pass = 0  # the number of the latest reroute
        self._asked_for: dict[str, int] = {}  # messages of each site, so far
        self._staging = Staging(self._commit)
        self.aftermath: Aftermath = self._commit.now(lambda connection: self._take_back(connection, before))
        self._timekeeper.start()
        self._staging.sweep()

    def _take_back(self, connection: apsw.Connection, before: AtWork) -> Aftermath:
        self._timekeeper.record(connection)
        aftermath = sort_out(connection, before, self.now(), self.present)
        self._owe(connection, [(number, False) for held in aftermath.held if (number := id_number(held.id))])
        return aftermath

    @property
    def healthy(self) -> bool:
        """Whether the last commit succeeded."""
        return self._commit.healthy

    def mint(self) -> int:
        """A new number for a job."""
        return self._ids.mint()

    def now(self) -> float:
        """The time: it runs as real time does, whatever the wall clock is set to."""
        return self.calendar.now()

    def on_moved(self, moved: Callable[[], object]) -> None:
        """Call `moved` when scheduled jobs have followed a jump of the wall clock."""
        self._timekeeper.moved = moved

    # Taking in

    def accept(self, submissions: Sequence[Submission]) -> Deferred[list[Accepted]]:
        """Take these jobs, all or none; fire when they are durable."""
        entries = [self._entry(submission) for submission in submissions]

        def run(connection: apsw.Connection, again: bool) -> tuple[list[Accepted], Sequence[Changed]]:
            done = [accept_job(connection, entry, again, offset=self.calendar.offset) for entry in entries]
            changed = [*self._owe(connection, [new for taken, new in done if new is not None and not taken.known])]
            for taken, first in done:
                if taken.known and first is not None:
                    changed += owing.owe_one(connection, first, taken.name, self.results, self._ids.mint())
            return [taken for taken, _ in done], changed

        def tell(done: tuple[list[Accepted], Sequence[Changed]]) -> list[Accepted]:
            self._tell(done[1], False)
            return done[0]

        self._timekeeper.keep()
        d = self._commit.submit(run, cost=len(entries))
        return d.add_both(self._staging.unstage, entries).add_callback(tell)

    def _entry(self, submission: Submission) -> Entry:
        """Settle what is decided once, and put a large content into the store ahead, a little in each transaction."""
        entry = Entry(self._ids.mint(), self.now(), submission)
        self._staging.stage(entry)
        return entry

    # Handing out and settling

    def claim(self, site: str, limit: int, pace: Callable[[], Pace] | None = None) -> Deferred[list[Claim]]:
        """Lease up to `limit` messages of `site` that are due, by priority and time; fewer where they are large. With
        what is leased it is noted what `pace` says then."""
        lease = self._ids.mint()
        before = self._asked_for.get(site, 0)
        self._asked_for[site] = before + limit
        first, end = before // _ONE_IN, (before + limit) // _ONE_IN  # favours: in turn to the lowest and to the middle
        favours = (end + 1) // 2 - (first + 1) // 2, end // 2 - first // 2

        def run(connection: apsw.Connection, again: bool) -> list[Claim]:
            claims = claim_due(connection, site, limit, self._timekeeper.due_by(), lease, again, favours=favours)
            if claims and pace is not None:
                note_pace(connection, pace())
            return claims

        # mostly there are fewer, and time bounds the batch as well
        return self._commit.submit(run, cost=1 + limit // 10)

    def read(self, claim: Claim, piece: int) -> Deferred[bytes]:
        """The content's piece number `piece`, from 0. Fails with `LookupError` where it is gone, with `StoreFailed`."""
        return execute(self._read, claim.number, claim.pieces, piece).add_errback(as_store_failed, self._path)

    def _read(self, job: int, pieces: int, piece: int) -> bytes:
        if pieces == 1:
            row = self._look.execute("SELECT data FROM content WHERE job = ? AND ? = 0", (job, piece)).fetchone()
        else:
            row = self._look.execute("SELECT data FROM piece WHERE job = ? AND number = ?", (job, piece)).fetchone()
        if row is None:
            raise LookupError(f"piece {piece} of the message is gone: its job has ended")
        data: bytes = row[0]
        return data

    def mark(self, claim: Claim, host: str) -> Deferred[None]:
        """Note that the final dot may go out to `host` now. Fails with `LookupError` where the claim is gone."""

        def run(connection: apsw.Connection, _: bool) -> None:
            if not mark_dot(connection, claim, host):
                raise LookupError("the message is gone: its job has ended")

        return self._commit.submit(run)

    def settle(self, settlements: Sequence[Settlement]) -> Deferred[list[Settled]]:
        """Write what became of these claims; fire, when that is durable, with how each left its job."""
        reports = [list(map(self._entry, one.reports)) for one in settlements]
        settle = Settle(settlements, reports, self._land, self._sites_now)

        def run(connection: apsw.Connection, again: bool) -> tuple[list[Settled], Sequence[Changed]]:
            settled, changed = settle(connection, again)
            return settled, self._owe(connection, changed)

        def tell(done: tuple[list[Settled], Sequence[Changed]]) -> list[Settled]:
            self._tell(done[1], any(one.claim.pieces > 1 for one in settlements))
            return done[0]

        self._timekeeper.keep()
        d = self._commit.submit(run, cost=len(settlements), last=True)
        d.add_both(self._staging.unstage, chain.from_iterable(reports))
        return d.add_callback(tell)

    def unclaim(self, claims: Sequence[Claim]) -> Deferred[list[str]]:
        """Give claims back untried: due as they were, no attempt counted; fire with their recipients' sites now."""
        given = list(claims)

        def run(connection: apsw.Connection, _: bool) -> list[str]:
            unclaim(connection, given)
            for claim in given:
                self._land(connection, claim)
            return sorted({site for claim in given for site in self._sites_now(connection, claim)})

        return self._commit.submit(run, cost=len(given), last=True)

    def _land(self, connection: apsw.Connection, claim: Claim, state: JobState = "queued") -> None:
        """Move what is left of a claim that former routes made."""
        if claim.lease < self._rerouted and state in OPEN:
            changing.reroute_job(connection, claim.number, self._site_of, self.now())

    def _sites_now(self, connection: apsw.Connection, claim: Claim) -> Sequence[str]:
        return sites_now(connection, claim, claim.lease < self._rerouted)

    # What operators, new routes and the calendar change

    def change(self, change: Change, ids: Iterable[str] | None, site: str | None) -> Deferred[int]:
        """Retry, hold, release or remove these jobs, a slice in each transaction; fire with how many changed."""
        d = execute(changing.jobs_to_change, self._look, ids, site)
        return d.add_callback(self._change_all, change, site)

    def _change_all(self, jobs: list[int], change: Change, site: str | None) -> Deferred[int]:
        def one(part: list[int]) -> Deferred[int]:
            def run(connection: apsw.Connection, _: bool) -> tuple[int, Sequence[Changed]]:
                changed = changing.change_jobs(connection, change, part, site, self.now())
                return len(changed), self._owe(connection, changed)

            def tell(done: tuple[int, Sequence[Changed]]) -> int:
                self._tell(done[1], change == "remove")
                return done[0]

            return self._commit.submit(run, cost=len(part)).add_callback(tell)

        slices = [jobs[at : at + changing.SLICE] for at in range(0, len(jobs), changing.SLICE)]
        return gather_results([one(part) for part in slices], consume_errors=True).add_callback(sum)

    def retried(self) -> Deferred[list[str]]:
        """The sites that `retry` was said of, by this process or another, since last asked."""

        def run(connection: apsw.Connection, _: bool) -> list[str]:
            return [str(site) for (site,) in connection.execute("DELETE FROM retried RETURNING site").fetchall()]

        self._staging.sweep()  # another process may have removed large jobs
        return self._commit.submit(run)

    @inline_callbacks
    def reroute(self, site_of: Callable[[str], str], fingerprint: str) -> Generator[Deferred[Any], Any, int]:
        """Give every waiting recipient the site that `site_of(address)` names, unless `fingerprint` is the one stored;
        fire with the number of messages that moved. A later call stops an earlier one. What is in flight moves when it
        is settled, and with something in flight the next start goes through the queue again, lest a crash forget it."""
        self._pass = this = self._pass + 1
        self._site_of, self._rerouted = site_of, _ALL_LEASES  # until the end claims may still be made by former routes

        going: bool = yield self._commit.submit(
            lambda connection, _: this == self._pass and changing.begin_rerouting(connection, fingerprint)
        )
        moved, passed = 0, False
        for state in ("held", "queued"):
            after: int | None = 0
            while going and after is not None:

                def run(connection: apsw.Connection, _: bool, state: str = state, after: int = after) -> Any:
                    if this != self._pass:
                        return None, 0, False
                    return changing.reroute_slice(connection, state, after, site_of, self.now())

                after, slice_moved, slice_passed = yield self._commit.submit(run, cost=HEAVY)
                moved += slice_moved
                passed = passed or slice_passed
        if this == self._pass:
            self._rerouted = self._ids.mint()
            if going and not passed:
                yield self._set("routes", fingerprint)  # a later pass clears it after this
        return moved

    @inline_callbacks
    def purge(self, before: float) -> Generator[Deferred[Any], Any, list[str]]:
        """Forget jobs finished before then; fire with the names of their results."""

        def run(connection: apsw.Connection, _: bool) -> tuple[list[str], bool]:
            return changing.purge_slice(connection, before, self.now(), self.present)

        names: list[str] = []
        more = True
        while more:
            gone, more = yield self._commit.submit(run, cost=HEAVY)
            names += gone
        return names

    # Results

    def owed_jobs(self, after: int, limit: int) -> list[int]:
        """The next jobs after number `after` (0: from the first) whose result file is to be written."""
        return owing.owed_jobs(self._look, after, limit)

    def owed_results(self, jobs: Sequence[int]) -> list[OwedResult]:
        """What is to be written for these jobs."""
        return owing.owed_results(self._look, jobs, self.calendar.offset)

    def reported(self, written: Sequence[OwedResult]) -> Deferred[None]:
        """These results are on disk."""
        results = list(written)
        return self._commit.submit(lambda connection, _: owing.discharge(connection, results), cost=len(results))

    def keeps(self, result: str) -> bool:
        """Whether a job whose result has this name is still known."""
        return is_taken(self._look, result)

    # Looking

    def version(self) -> object:
        """Another one after each commit, whoever made it."""
        return self._looked(lambda look: look.pragma("data_version"))

    def backlog(self) -> list[SiteBacklog]:
        """Each site with unclaimed, unheld work, and when its first is due; at a cost by sites, not by messages."""
        return self._looked(looking.backlog)

    def next_due(self, site: str) -> float | None:
        """When the first unclaimed, unheld message of `site` is due; None where there is none."""
        return self._looked(looking.next_due, site)

    def show(self, id: str) -> JobView | None:
        """One job, whether finished or not."""
        return self._looked(looking.show, id, self.calendar.offset)

    def list(self, *, site: str | None = None, state: JobState | None = None, limit: int = 100) -> list[JobView]:
        """Jobs, oldest first. Without `state`, those that are not finished."""
        return self._looked(looking.list_jobs, site, state, limit, self.calendar.offset)

    def count(self) -> Counts:
        """How much waits."""
        return self._looked(looking.count)

    def _looked(self, look: Callable[..., T], *arguments: Any) -> T:
        try:
            return look(self._look, *arguments)
        except FAULTS as error:
            raise StoreFailed(note_damage(self._path, error)) from error

    # Keeping

    def probe(self) -> Deferred[None]:
        """Commit something small: fires where the store can be written, fails with what is wrong where not."""
        return self._set("probe", self.now(), patient=False)

    def close(self) -> Deferred[None]:
        """Commit what is under way and let go."""
        self._timekeeper.save()
        return self._commit.close().add_callback(lambda _: self._look.close())

    def _set(self, name: str, value: str | float, *, patient: bool = True) -> Deferred[None]:
        def run(connection: apsw.Connection, _: bool) -> None:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

        return self._commit.submit(run, patient=patient)

    def _owe(self, connection: apsw.Connection, changed: Sequence[Changed]) -> Sequence[Changed]:
        return owing.owe(connection, changed, self.results, self._ids.mint())

    def _tell(self, changed: Sequence[Changed], sweep: bool) -> None:
        if changed:
            self.changed(changed)
        if sweep:
            self._staging.sweep()
