"""The store in dictionaries: no disk, no delay but `commit_time`, healthy or not as a test wants it.

Its time is the wall clock's, and jumps with it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from deferred.defer import Deferred, fail, succeed
from deferred.interfaces import TimeSource
from service.message.outcome import Outcome, State
from service.queue.store import (
    PRIORITIES,
    Accepted,
    Change,
    Claim,
    Counts,
    JobState,
    JobView,
    Pace,
    RecipientView,
    Rest,
    Settled,
    Settlement,
    SiteBacklog,
    StoreFailed,
    Submission,
    UnknownJob,
)


@dataclass
class Entry:
    """A job as accepted, and what became of each of its recipients."""

    id: str
    submission: Submission
    accepted_at: float
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)

    def waits(self, address: str) -> bool:
        return address not in self.outcomes or self.outcomes[address].state is State.WAITING


@dataclass
class Delivery:
    """A message for one site."""

    number: int
    entry: Entry
    site: str
    recipients: tuple[str, ...]
    due: float
    attempts: int = 0
    doubts: int = 0
    claimed: bool = False
    held: bool = False
    warned: bool = False

    def waiting(self) -> tuple[str, ...]:
        return tuple(address for address in self.recipients if self.entry.waits(address))

    @property
    def open(self) -> bool:
        return bool(self.waiting()) and not self.held


_ONE_IN = 10
_ALL_LEASES = 1 << 63

Ready = tuple[list[tuple[float, int]], ...]
"""For each priority the messages of a site that may be claimed: when they are due, and their numbers, in order."""


class MemoryNotes:
    """`SiteNotes` in dictionaries."""

    def __init__(self, commit: Callable[[Callable[[], object]], Deferred[Any]]) -> None:
        self.resting: dict[str, Rest] = {}
        self.paced: dict[str, Pace] = {}
        self._commit = commit

    def rests(self) -> list[Rest]:
        return list(self.resting.values())

    def note_rest(self, rest: Rest) -> Deferred[None]:
        return self._commit(lambda: self.resting.update({rest.site: rest}))

    def forget_rest(self, site: str) -> Deferred[None]:
        return self._commit(lambda: self.resting.pop(site, None) and None)

    def paces(self) -> list[Pace]:
        return list(self.paced.values())

    def note_pace(self, pace: Pace) -> Deferred[None]:
        return self._commit(lambda: self.paced.update({pace.site: pace}))

    def forget_pace(self, site: str) -> Deferred[None]:
        return self._commit(lambda: self.paced.pop(site, None) and None)


class MemoryStore:
    """A `Store` whose commits succeed while `healthy`, and wait while not; `broken` makes reads fail. A commit takes
    `commit_time` seconds: what it does is done at once, and told when it is over. To go through the queue for new
    routes takes `reroute_time` seconds."""

    def __init__(self, clock: TimeSource, piece: int = 65536) -> None:
        self.healthy = True
        self.commit_time = self.reroute_time = 0.0
        self.broken = False
        self.piece = piece
        self.jobs: dict[str, Entry] = {}
        self.deliveries: dict[int, Delivery] = {}
        self.settled: list[Settlement] = []
        self.unclaimed: list[Claim] = []
        self.notes = MemoryNotes(self._commit)
        self.marked: list[tuple[str, str]] = []
        self.reports: list[Submission] = []
        self._clock = clock
        self._lease = self._numbered = self._rerouted = 0
        self._site_of: Callable[[str], str] = str
        self._ready: dict[str, Ready] = {}
        self._by_claim: dict[tuple[str, str], Delivery] = {}
        self._asked_for: defaultdict[str, int] = defaultdict(int)
        self._waiting: list[tuple[Callable[[], object], Deferred[object]]] = []

    def recover(self) -> None:
        """Let commits succeed again, those that waited first."""
        self.healthy = True
        waiting, self._waiting = self._waiting, []
        for operation, d in waiting:
            d.callback(operation())

    def _commit(self, operation: Callable[[], object]) -> Deferred:  # type: ignore[type-arg]  # one for all results
        d: Deferred[object] = Deferred()
        if not self.healthy:
            self._waiting.append((operation, d))
        elif self.commit_time:
            self._clock.call_later(self.commit_time, d.callback, operation())
        else:
            d.callback(operation())
        return d

    def _let_wait(self, delivery: Delivery) -> None:
        """It may be claimed when it is due."""
        if delivery.open and not delivery.claimed:
            insort(self._ready_at(delivery), (delivery.due, delivery.number))

    def _let_not_wait(self, delivery: Delivery) -> None:
        """It may not, for the time being."""
        ready, entry = self._ready_at(delivery), (delivery.due, delivery.number)
        at = bisect_left(ready, entry)
        if ready[at : at + 1] == [entry]:
            del ready[at]

    def _ready_at(self, delivery: Delivery) -> list[tuple[float, int]]:
        priority = PRIORITIES.index(delivery.entry.submission.job.priority)
        return self._ready.setdefault(delivery.site, tuple([] for _ in PRIORITIES))[priority]

    def now(self) -> float:
        return self._clock.wall_time()

    def accept(self, submissions: Sequence[Submission]) -> Deferred[list[Accepted]]:
        return self._commit(lambda: [self._accept(submission) for submission in submissions])

    def _accept(self, submission: Submission) -> Accepted:
        now = self.now()
        entry = Entry(f"j{len(self.jobs) + 1}", submission, now)
        self.jobs[entry.id] = entry
        for site in dict.fromkeys(submission.sites):
            recipients = tuple(
                address for address, its in zip(submission.job.recipients, submission.sites, strict=True) if its == site
            )
            self._numbered += 1
            due = max(now, submission.job.not_before or now)
            delivery = Delivery(self._numbered, entry, site, recipients, due)
            self.deliveries[delivery.number] = self._by_claim[entry.id, site] = delivery
            entry.deliveries.append(delivery)
            self._let_wait(delivery)
        return Accepted(entry.id, submission.name)

    def claim(self, site: str, limit: int, pace: Callable[[], Pace] | None = None) -> Deferred[list[Claim]]:
        def run() -> list[Claim]:
            claims = self._claim(site, limit)
            if claims and pace is not None:
                self.notes.paced[site] = pace()
            return claims

        return self._commit(run)

    def _claim(self, site: str, limit: int) -> list[Claim]:
        before = self._asked_for[site]
        self._asked_for[site] += limit
        favours = range(before // _ONE_IN, (before + limit) // _ONE_IN)
        self._lease += 1  # shared by all that are claimed together, as the real stores do it
        by_priority = tuple(range(len(PRIORITIES)))
        orders = [(2, 1, 0) if number % 2 == 0 else (1, 2, 0) for number in favours]
        orders += [by_priority] * (limit - len(orders))
        return [claim for order in orders for claim in self._claim_one(site, order)]

    def _claim_one(self, site: str, order: tuple[int, ...]) -> list[Claim]:
        for priority in order:
            ready = self._ready[site][priority] if site in self._ready else []
            if ready and ready[0][0] <= self.now():
                delivery = self.deliveries[ready.pop(0)[1]]
                delivery.claimed = True
                return [self._claim_of(delivery)]
        return []

    def _claim_of(self, delivery: Delivery) -> Claim:
        job = delivery.entry.submission.job
        size = len(job.content)
        pieces = max(1, -(-size // self.piece))
        return Claim(
            lease=self._lease,
            id=delivery.entry.id,
            name=delivery.entry.submission.name,
            site=delivery.site,
            sender=job.sender,
            recipients=delivery.waiting(),
            attempts=delivery.attempts,
            doubts=delivery.doubts,
            accepted_at=delivery.entry.accepted_at,
            begins_at=max(delivery.entry.accepted_at, job.not_before or 0),
            expires_at=None if job.expires is None else delivery.entry.accepted_at + job.expires,
            warned=delivery.warned,
            in_doubt=job.in_doubt,
            size=size,
            eight_bit=not job.content.isascii(),
            pieces=pieces,
            content=job.content if pieces == 1 else None,
            priority=job.priority,
        )

    def backlog(self) -> list[SiteBacklog]:
        return [SiteBacklog(site, due) for site in self._ready if (due := self.next_due(site)) is not None]

    def next_due(self, site: str) -> float | None:
        return min((ready[0][0] for ready in self._ready.get(site, ()) if ready), default=None)

    def read(self, claim: Claim, piece: int) -> Deferred[bytes]:
        if self.broken:
            return fail(StoreFailed("the disk is gone"))
        content = self.jobs[claim.id].submission.job.content
        return succeed(content[piece * self.piece : (piece + 1) * self.piece])

    def mark(self, claim: Claim, host: str) -> Deferred[None]:
        return self._commit(lambda: self.marked.append((claim.id, host)))

    def settle(self, settlements: Sequence[Settlement]) -> Deferred[list[Settled]]:
        return self._commit(lambda: [self._settle(settlement) for settlement in settlements])

    def _settle(self, settlement: Settlement) -> Settled:
        self.settled.append(settlement)
        claim = settlement.claim
        delivery = self._by_claim.get((claim.id, claim.site))
        if delivery is None:  # removed meanwhile
            return Settled(None)
        assert delivery.claimed, "settled without a claim"
        delivery.claimed = False
        delivery.attempts = settlement.attempts
        delivery.doubts += settlement.doubt
        delivery.held = delivery.held or settlement.hold
        delivery.warned = delivery.warned or settlement.warned
        for outcome in settlement.outcomes:
            delivery.entry.outcomes[outcome.address] = outcome
        if settlement.due is not None:
            delivery.due = settlement.due
        assert settlement.due is not None or not delivery.waiting(), "somebody waits, and is never due"
        self._land(delivery, claim)
        self.reports += settlement.reports
        reports = tuple([self._accept(report).id for report in settlement.reports])
        view = self.show(delivery.entry.id)
        sites = (delivery.site,) if delivery.waiting() else ()
        return Settled(view.state if view else None, reports, sites)

    def _land(self, delivery: Delivery, claim: Claim) -> None:
        """A claim has ended: what is left waits, at another site where it was made by former routes."""
        if claim.lease <= self._rerouted and delivery.waiting():
            self._move(delivery)
        self._let_wait(delivery)

    def _move(self, delivery: Delivery) -> bool:
        new = self._site_of(delivery.recipients[0])
        if new == delivery.site:
            return False
        del self._by_claim[delivery.entry.id, delivery.site]
        delivery.site = new
        self._by_claim[delivery.entry.id, new] = delivery
        return True

    def unclaim(self, claims: Sequence[Claim]) -> "Deferred[list[str]]":  # noqa: UP037  # our own `list` hides it
        return self._commit(lambda: sorted({site for claim in claims for site in self._unclaim(claim)}))

    def _unclaim(self, claim: Claim) -> Sequence[str]:
        self.unclaimed.append(claim)
        delivery = self._by_claim.get((claim.id, claim.site))
        if delivery is None:
            return ()
        delivery.claimed = False
        self._land(delivery, claim)
        return (delivery.site,)

    def reroute(self, site_of: Callable[[str], str], fingerprint: str) -> Deferred[int]:
        """What is in flight, or claimed before it is over, moves when it lands."""
        self._site_of, self._rerouted = site_of, _ALL_LEASES
        if not self.reroute_time:
            return succeed(self._reroute())
        d: Deferred[int] = Deferred()
        self._clock.call_later(self.reroute_time, lambda: d.callback(self._reroute()))
        return d

    def _reroute(self) -> int:
        waiting = [delivery for delivery in self.deliveries.values() if not delivery.claimed and delivery.waiting()]
        for delivery in waiting:
            self._let_not_wait(delivery)
        moved = sum(map(self._move, waiting))
        for delivery in waiting:
            self._let_wait(delivery)
        self._rerouted = self._lease
        return moved

    def change(self, change: Change, ids: Iterable[str] | None, site: str | None) -> Deferred[int]:
        wanted = set(self.jobs) if ids is None else set(ids)
        if not wanted <= set(self.jobs):
            unknown = min(wanted - set(self.jobs))
            return fail(UnknownJob(unknown, unknown))
        changed = [
            delivery
            for delivery in self.deliveries.values()
            if delivery.entry.id in wanted and site in (None, delivery.site) and delivery.waiting()
        ]
        for delivery in changed:
            self._let_not_wait(delivery)
            delivery.held = change == "hold"
            delivery.due = self.now() if change == "retry" else delivery.due
            if change == "remove":
                del self.deliveries[delivery.number]
                del self._by_claim[delivery.entry.id, delivery.site]
            else:
                self._let_wait(delivery)
        return succeed(len({delivery.entry.id for delivery in changed}))

    def show(self, id: str) -> JobView | None:
        entry = self.jobs.get(id)
        if entry is None:
            return None
        job = entry.submission.job
        states = {entry.outcomes[a].state if a in entry.outcomes else State.WAITING for a in job.recipients}
        ends: dict[frozenset[State], JobState] = {
            frozenset({State.DELIVERED}): "delivered",
            frozenset({State.FAILED}): "failed",
            frozenset({State.DELIVERED, State.FAILED}): "partly",
        }
        return JobView(
            id=id,
            name=entry.submission.name,
            state=ends.get(frozenset(states), "queued"),
            attempts=max(delivery.attempts for delivery in entry.deliveries),
            next_attempt=None,
            recipients=tuple(self._recipient(entry, address) for address in job.recipients),
            accepted_at=str(entry.accepted_at),
            finished_at=None,
            tags=job.tags,
        )

    def _recipient(self, entry: Entry, address: str) -> RecipientView:
        outcome = entry.outcomes.get(address)
        if outcome is None:
            return RecipientView(address=address, state=State.WAITING)
        return RecipientView(
            address=address,
            state=outcome.state,
            code=outcome.code,
            enhanced=outcome.enhanced,
            text=outcome.text,
            host=outcome.host,
            phase=outcome.phase,
        )

    def list(self, *, site: str | None = None, state: JobState | None = None, limit: int = 100) -> list[JobView]:
        views = [view for id in self.jobs if (view := self.show(id)) is not None]
        return [view for view in views if view.state == (state or "queued")][:limit]

    def count(self) -> Counts:
        queued = [d.entry.accepted_at for d in self.deliveries.values() if d.waiting()]
        return Counts(len(queued), sum(d.held for d in self.deliveries.values()), min(queued, default=None))

    def probe(self) -> Deferred[None]:
        return succeed(None) if self.healthy else fail(StoreFailed("cannot commit"))

    def purge(self, before: float) -> "Deferred[list[str]]":  # noqa: UP037  # our own `list` hides the builtin
        return succeed([])

    def close(self) -> Deferred[None]:
        return succeed(None)
