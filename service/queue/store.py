"""The store's interface: accept, claim, settle, look. An engine a file; none of its words are SQL's.

A job is ours once `accept` has fired; a recipient's outcome is known once `settle` has. Every method that returns a
Deferred fires after the commit that makes its result durable, never before. While nothing can be committed the
operations wait and are tried again, `healthy` is False, and nobody is told anything.

All times are in seconds since the epoch on the store's own clock (`now`): queue time, which never jumps. People meet
wall time: a job's `not_before`, and the texts in views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from deferred.defer import Deferred
from service.message.job import InDoubt, Job, Priority
from service.message.outcome import Outcome, Phase, State

PRIORITIES: Final[tuple[Priority, ...]] = ("high", "normal", "bulk")
"""In the order in which messages of one site are handed out."""

JobState = Literal["queued", "held", "delivered", "failed", "partly"]
Change = Literal["retry", "hold", "release", "remove"]


class Source(msgspec.Struct, frozen=True):
    """The identity of a dropped file: one whose job was committed is never taken again."""

    name: str
    inode: int
    mtime_ns: int
    size: int


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A job on its way into the store.

    `name` is what its result file is to be called, without the ending; `name_taken` tells that a result of that name
    is on disk. `sites` has, for each recipient in order, the name of the site that its domain is routed to. `result`
    tells whether it gets a result file: a report to a sender has none, as nobody waits for it.
    """

    job: Job
    name: str
    sites: tuple[str, ...]
    source: Source | None = None
    name_taken: bool = False
    result: bool = True


class Accepted(msgspec.Struct, frozen=True):
    """What `accept` brought: the job's id; `known` where the source or the key had been accepted before."""

    id: str
    name: str
    known: bool = False


class Claim(msgspec.Struct, frozen=True):
    """A message for one site, ours to try until the lease ends. The recipients are those that still wait.

    Claims made together share a `lease`; `id` and `site` together name one, and only one is out at a time. `number` is
    the store's own name for the job.

    `attempts` counts those used up before this one, `doubts` how often the server vanished after the final dot, or the
    daemon died, so that somebody may have the message and nobody knows. Its age counts from `begins_at`: its
    acceptance, or its `not_before`.
    `content` is the whole content where it is small (one piece), else None: then it is read a piece at a time with
    `Store.read`. `whole` tells that nobody else has been or is to be served: its recipients are all of the job's.
    """

    lease: int
    id: str
    name: str
    site: str
    sender: str
    recipients: tuple[str, ...]
    attempts: int
    accepted_at: float
    begins_at: float
    expires_at: float | None
    warned: bool
    in_doubt: InDoubt
    size: int
    eight_bit: bool
    pieces: int
    content: bytes | None
    doubts: int = 0
    whole: bool = False
    priority: Priority = "normal"
    number: int = 0


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a claim: written in one transaction, with the reports (bounce, warning) that it owes.

    `outcomes` has each recipient that was tried or given up, `attempts` how many are used up now, `due` when those
    still waiting are tried again (None where none waits). `hold` keeps the rest until an operator decides. `doubt` adds
    one to the claim's doubts. `rested` tells that `due` is the end of the site's rest, which means nothing elsewhere.
    """

    claim: Claim
    outcomes: tuple[Outcome, ...]
    at: float
    attempts: int
    due: float | None
    reports: tuple[Submission, ...] = ()
    warned: bool = False
    hold: bool = False
    doubt: bool = False
    rested: bool = False


class Settled(msgspec.Struct, frozen=True):
    """How a settlement left its job: None where it came too late to count, the job having been removed.

    `reports` has the ids of the reports that were accepted with it, in their order. `sites` has the sites at which
    recipients of the claim wait now: others than the claim's where the routes have changed meanwhile.
    """

    state: JobState | None
    reports: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """A site that rests because its hosts failed: until when, after how many failures in a row, since when the first
    of them, and how the last is told."""

    site: str
    ends: float
    failures: int
    since: float
    why: str


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """A site that is served by a rate, in messages a second: when it may have its `next` one."""

    site: str
    rate: float
    next: float


class RecipientView(msgspec.Struct, frozen=True, kw_only=True):
    """A recipient as result files and `deferd queue` show it. `at` is RFC 3339 in UTC."""

    address: str
    state: State
    code: int | None = None
    enhanced: str | None = None
    text: str | None = None
    host: str | None = None
    phase: Phase | None = None
    at: str | None = None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as result files and `deferd queue` show it (README, Jobs). Times are RFC 3339 in UTC, by the wall clock."""

    id: str
    name: str
    state: JobState
    attempts: int
    next_attempt: str | None
    recipients: tuple[RecipientView, ...]
    accepted_at: str
    finished_at: str | None
    tags: dict[str, Any]


class SiteBacklog(msgspec.Struct, frozen=True):
    """A site that has waiting work: when its first message is due, and how many wait."""

    site: str
    due: float


class Counts(msgspec.Struct, frozen=True):
    """How much waits: jobs not finished, of them held, and when the oldest was accepted (None: none waits)."""

    queued: int
    held: int
    oldest: float | None


class SiteNotes(Protocol):
    """What is to be known of sites also after a restart. Looks raise `StoreFailed`."""

    def rests(self) -> list[Rest]:
        """The sites whose hosts had failed when that was last noted, and that have not served since."""

    def note_rest(self, rest: Rest) -> Deferred[None]:
        """Remember that a site rests."""

    def forget_rest(self, site: str) -> Deferred[None]:
        """The site serves."""

    def paces(self) -> list[Pace]:
        """The sites that were served by a rate when that was last noted."""

    def note_pace(self, pace: Pace) -> Deferred[None]:
        """Remember when a site may have its next message."""

    def forget_pace(self, site: str) -> Deferred[None]:
        """The site has no rate any more, or is no more."""


class Store(Protocol):
    """Where jobs wait. One process claims through one instance; looks may come from any."""

    @property
    def healthy(self) -> bool:
        """Whether the last commit succeeded."""

    @property
    def notes(self) -> SiteNotes:
        """What is to be known of sites also after a restart."""

    def now(self) -> float:
        """The time: it runs as real time does, whatever the wall clock is set to."""

    def accept(self, submissions: Sequence[Submission]) -> Deferred[list[Accepted]]:
        """Take these jobs, all or none; fire when they are durable."""

    def claim(self, site: str, limit: int, pace: Callable[[], Pace] | None = None) -> Deferred[list[Claim]]:
        """Lease up to `limit` messages of `site` that are due: by priority, those due first; but one in ten, over all
        claims, is bulk or normal in turn, where there is any, so that none waits for ever. With what is leased it
        is noted what `pace` says then."""

    def backlog(self) -> list[SiteBacklog]:
        """Each site with unclaimed, unheld work, and when its first is due; at a cost by sites, not by messages.
        Raises `StoreFailed`."""

    def next_due(self, site: str) -> float | None:
        """When the first unclaimed, unheld message of `site` is due; None where there is none. Raises `StoreFailed`."""

    def read(self, claim: Claim, piece: int) -> Deferred[bytes]:
        """The content's piece number `piece`, from 0."""

    def mark(self, claim: Claim, host: str) -> Deferred[None]:
        """Note that the final dot may go out to `host` now, so that the message is held, in doubt, if we die before it
        is settled. Fails with `LookupError` where the claim is gone."""

    def settle(self, settlements: Sequence[Settlement]) -> Deferred[list[Settled]]:
        """Write what became of these claims; fire, when that is durable, with how each left its job."""

    def unclaim(self, claims: Sequence[Claim]) -> Deferred[list[str]]:
        """Give claims back untried: due as they were, no attempt counted; fire with the sites at which their recipients
        wait now: others than the claims' where the routes have changed meanwhile."""

    def reroute(self, site_of: Callable[[str], str], fingerprint: str) -> Deferred[int]:
        """Give every waiting recipient the site that `site_of(address)` names, where the routes' fingerprint is not
        the one stored; fire with the number of messages that moved."""

    def change(self, change: Change, ids: Iterable[str] | None, site: str | None) -> Deferred[int]:
        """Retry, hold, release or remove the jobs with these ids, or of this site, or all (both None); fire with
        how many jobs changed. Raises `UnknownJob` by its errback where an id is not in the queue."""

    def purge(self, before: float) -> Deferred[list[str]]:
        """Forget jobs finished before then; fire with the names of their results."""

    def show(self, id: str) -> JobView | None:
        """One job, whether finished or not."""

    def list(self, *, site: str | None = None, state: JobState | None = None, limit: int = 100) -> list[JobView]:
        """Jobs, oldest first. Without `state`, those that are not finished."""

    def count(self) -> Counts:
        """How much waits. Raises `StoreFailed`."""

    def probe(self) -> Deferred[None]:
        """Commit something small: fires where the store can be written, fails with what is wrong where not."""

    def close(self) -> Deferred[None]:
        """Commit what is under way and let go."""


class UnknownJob(LookupError):
    """No such job in the queue; says which, which is `job`."""

    def __init__(self, why: str, job: str) -> None:
        super().__init__(why)
        self.job = job


class StoreFailed(Exception):
    """The store cannot be opened or written; says what and where."""
