"""The store in dictionaries: no disk, no delay of its own, but healthy or not as a test wants it.

Its time is the wall clock's, and jumps with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

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


class MemoryStore:
    """A `Store` whose commits succeed while `healthy`, and wait while not; `broken` makes reads fail."""

    def __init__(self, clock: TimeSource, piece: int = 65536) -> None:
        self.healthy = True
        self.broken = False
        self.piece = piece
        self.jobs: dict[str, Entry] = {}
        self.deliveries: dict[int, Delivery] = {}
        self.settled: list[Settlement] = []
        self.unclaimed: list[Claim] = []
        self.resting: dict[str, Rest] = {}
        self.marked: list[tuple[str, str]] = []
        self.reports: list[Submission] = []
        self._clock = clock
        self._lease = 0
        self._waiting: list[tuple[Callable[[], object], Deferred[object]]] = []

    def recover(self) -> None:
        """Let commits succeed again, those that waited first."""
        self.healthy = True
        waiting, self._waiting = self._waiting, []
        for operation, d in waiting:
            d.callback(operation())

    def _commit(self, operation: Callable[[], object]) -> Deferred:  # type: ignore[type-arg]  # one for all results
        if self.healthy:
            return succeed(operation())
        d: Deferred[object] = Deferred()
        self._waiting.append((operation, d))
        return d

    def rests(self) -> list[Rest]:
        return list(self.resting.values())

    def note_rest(self, rest: Rest) -> Deferred[None]:
        return self._commit(lambda: self.resting.update({rest.site: rest}))

    def forget_rest(self, site: str) -> Deferred[None]:
        return self._commit(lambda: self.resting.pop(site, None) and None)

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
            number = len(self.deliveries) + 1
            due = max(now, submission.job.not_before or now)
            self.deliveries[number] = Delivery(number, entry, site, recipients, due)
        return Accepted(entry.id, submission.name)

    def claim(self, site: str, limit: int) -> Deferred[list[Claim]]:
        return self._commit(lambda: self._claim(site, limit))

    def _claim(self, site: str, limit: int) -> list[Claim]:
        now = self.now()
        due = [d for d in self.deliveries.values() if d.site == site and d.open and not d.claimed and d.due <= now]
        by_priority = [(PRIORITIES.index(d.entry.submission.job.priority), d.due, d.number, d) for d in due]
        chosen = [delivery for *_, delivery in sorted(by_priority)[:limit]]
        self._lease += 1  # shared by all that are claimed together, as the real stores do it
        for delivery in chosen:
            delivery.claimed = True
        return [self._claim_of(delivery) for delivery in chosen]

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
        sites = dict.fromkeys(delivery.site for delivery in self.deliveries.values())
        return [SiteBacklog(site, due) for site in sites if (due := self.next_due(site)) is not None]

    def next_due(self, site: str) -> float | None:
        return min(
            (d.due for d in self.deliveries.values() if d.site == site and d.open and not d.claimed), default=None
        )

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
        delivery = self._claimed(settlement.claim)
        if delivery is None:
            return Settled(None)
        assert delivery.claimed, "settled without a claim"
        delivery.claimed = False
        delivery.attempts = settlement.attempts
        delivery.doubts += settlement.doubt
        delivery.held = settlement.hold
        delivery.warned = delivery.warned or settlement.warned
        for outcome in settlement.outcomes:
            delivery.entry.outcomes[outcome.address] = outcome
        if settlement.due is not None:
            delivery.due = settlement.due
        assert settlement.due is not None or not delivery.waiting(), "somebody waits, and is never due"
        self.reports += settlement.reports
        reports = tuple([self._accept(report).id for report in settlement.reports])
        view = self.show(delivery.entry.id)
        sites = (delivery.site,) if delivery.waiting() else ()
        return Settled(view.state if view else None, reports, sites)

    def _claimed(self, claim: Claim) -> Delivery | None:
        """The claim's delivery; None where the job has been removed."""
        found = (d for d in self.deliveries.values() if (d.entry.id, d.site) == (claim.id, claim.site))
        return next(found, None)

    def unclaim(self, claims: Sequence[Claim]) -> "Deferred[list[str]]":  # noqa: UP037  # our own `list` hides it
        return self._commit(lambda: sorted({self._unclaim(claim) for claim in claims}))

    def _unclaim(self, claim: Claim) -> str:
        self.unclaimed.append(claim)
        delivery = self._claimed(claim)
        if delivery is None:
            return claim.site
        delivery.claimed = False
        return delivery.site

    def reroute(self, site_of: Callable[[str], str], fingerprint: str) -> Deferred[int]:
        moved = 0
        for delivery in self.deliveries.values():
            site = site_of(delivery.recipients[0])
            moved += site != delivery.site
            delivery.site = site
        return succeed(moved)

    def change(self, change: Change, ids: Iterable[str] | None, site: str | None) -> Deferred[int]:
        wanted = set(self.jobs) if ids is None else set(ids)
        if not wanted <= set(self.jobs):
            return fail(UnknownJob(min(wanted - set(self.jobs))))
        changed = [
            delivery
            for delivery in self.deliveries.values()
            if delivery.entry.id in wanted and site in (None, delivery.site) and delivery.waiting()
        ]
        for delivery in changed:
            delivery.held = change == "hold"
            delivery.due = self.now() if change == "retry" else delivery.due
            if change == "remove":
                del self.deliveries[delivery.number]
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
            attempts=max(d.attempts for d in self.deliveries.values() if d.entry is entry),
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
