"""What the daemon shows to the outside: each path with what answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from deferred.defer import Deferred
from deferred.interfaces import TimeSource
from service.queue.store import Counts, SiteBacklog
from service.web.exchange import Handler, Request, Response
from service.web.health import Health
from service.web.metrics import Metrics
from service.web.page import Overview, SiteLine, page
from service.web.recent import Recent

T = TypeVar("T")

GLANCE: Final = 1.0
"""Seconds for which one look at the queue serves everybody who asks."""

_TILES: Final = (
    ("accepted", "job_accepted"),
    ("delivered", "delivered"),
    ("deferred", "deferred"),
    ("failed", "failed"),
    ("rejected", "job_rejected"),
)


class StoreView(Protocol):
    """What of the store is looked at."""

    @property
    def healthy(self) -> bool:
        """Whether the last commit succeeded."""

    def now(self) -> float:
        """The time that the store's times are by."""

    def count(self) -> Counts:
        """How much waits."""

    def backlog(self) -> list[SiteBacklog]:
        """The sites with work."""

    def probe(self) -> Deferred[None]:
        """Commit something small."""


class Glance(Generic[T]):
    """A look that is not taken anew for each who asks: its result serves for `GLANCE` seconds."""

    def __init__(self, clock: TimeSource, look: Callable[[], T]) -> None:
        self._clock = clock
        self._look = look
        self._seen: tuple[float, T] | None = None

    def __call__(self) -> T:
        """What is seen now, or was a moment ago. Raises what the look raises."""
        now = self._clock.time()
        if self._seen is None or now - self._seen[0] >= GLANCE:
            self._seen = (now, self._look())
        return self._seen[1]


def faces(
    clock: TimeSource,
    store: StoreView,
    metrics: Metrics,
    recent: Recent,
    *,
    version: str,
    in_flight: Callable[[], int],
    sites: Callable[[], Iterable[SiteLine]] = lambda: (),
    hostname: Callable[[], str] = lambda: "",
    set_aside: Callable[[], Sequence[Path]] = lambda: (),
    unready: Callable[[], str | None] = lambda: None,
) -> dict[str, Handler]:
    """The handlers for a `WebServer`: /healthz, /readyz, /metrics and the page.

    `sites` tells what delivery knows of the sites it serves or rests (`due` may be left out: the store knows).
    `unready` gives a reason why the daemon is not at its work, or None. `set_aside` names the folders of damaged
    queues, and may raise `OSError`.
    """
    health = Health(clock, store.probe, unready=unready)
    counts = Glance(clock, store.count)
    backlog = Glance(clock, store.backlog)
    damaged = Glance(clock, lambda: _set_aside(set_aside))

    def overview(_: Request) -> Response:
        wrong = unready() or ("" if store.healthy else "the store cannot commit")
        folders, unread = damaged()
        queue, lines = _look(counts, backlog, sites)
        totals = metrics.totals
        return page(
            Overview(
                version=version,
                now=store.now(),
                wall=clock.wall_time(),
                hostname=hostname(),
                wrong=wrong or ("" if queue else "the store cannot be read") or unread,
                set_aside=folders,
                queued=queue.queued - queue.held if queue else None,
                held=queue.held if queue else None,
                oldest=queue.oldest if queue else None,
                in_flight=in_flight(),
                totals=[(name, totals[event]) for name, event in _TILES],
                sites=lines,
                troubles=recent.troubles(),
            )
        )

    return {"/healthz": health.alive, "/readyz": health.ready, "/metrics": metrics.expose, "/": overview}


def _set_aside(look: Callable[[], Sequence[Path]]) -> tuple[Sequence[Path], str]:
    """The folders of damaged queues, and why it is not known which there are, "" where it is."""
    try:
        return look(), ""
    except OSError as error:
        return (), f"the queue's directory cannot be read: {error.strerror or error}"


def _look(
    counts: Callable[[], Counts],
    backlog: Callable[[], Sequence[SiteBacklog]],
    sites: Callable[[], Iterable[SiteLine]],
) -> tuple[Counts | None, list[SiteLine]]:
    """The queue, as far as it can be read, and the sites: those that rest or are worked on first."""
    try:
        queue, waiting = counts(), {entry.site: entry.due for entry in backlog()}
    except Exception:  # noqa: BLE001 (a broken store is when the page is wanted most; it says so)
        queue, waiting = None, {}
    known = {line.site: line for line in sites()}
    lines = [
        msgspec.structs.replace(line, due=waiting.get(line.site, line.due))
        for line in known.values()
        if line.in_flight or line.rest_until is not None or line.site in waiting
    ]
    lines.extend(SiteLine(site=site, due=due) for site, due in waiting.items() if site not in known)
    lines.sort(key=lambda line: (line.rest_until is None, not line.in_flight, line.due or 0.0, line.site))
    return queue, lines
