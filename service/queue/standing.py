"""Statements that tell how each site stands: how much waits there, is due, in flight or held, whether it rests, and how
fast it is served."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, get_args

import apsw
import msgspec

from service.queue.looking import rfc3339_wall
from service.queue.schema import CLAIMED, HELD, READY
from service.queue.sitenotes import read_paces, read_rests
from service.queue.store import JobState, Pace, Rest

_GROUPS: Final = (
    "SELECT site, state, count(*), count(*) FILTER (WHERE due <= ?1), min(due) FROM delivery {}GROUP BY state, site"
)
ALL_SITES: Final = _GROUPS.format("")
"""One walk along the index, which has all that it takes: a tenth of a second for a million messages."""
ONE_SITE: Final = _GROUPS.format("WHERE state IN (0, 1, 2) AND site = ?2 ")


class RestView(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a site that has not served since `since`: how often its hosts have failed, what was said
    last, and `until` when it rests; None where that is over, and it is to be tried. Times are RFC 3339 in UTC."""

    until: str | None
    failures: int
    since: str | None
    why: str


class SiteStanding(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of a site: `waiting`, of these `due_now`, none while it rests or its next is not to go yet by its `rate`
    (messages a second; None: no limit); the first is tried at `next_due`, not before that is over. `in_flight`: claimed
    by the daemon; `held`."""

    site: str
    waiting: int = 0
    due_now: int = 0
    in_flight: int = 0
    held: int = 0
    next_due: str | None = None
    rest: RestView | None = None
    rate: float | None = None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How the queue stands: the sites with unfinished mail or a rest, those with most mail first. `jobs` has how many
    jobs are in each state, those that have ended while they are remembered; None where one site was asked for."""

    jobs: dict[JobState, int] | None
    sites: tuple[SiteStanding, ...]


def standing(connection: apsw.Connection, site: str | None, now: float, offset: float) -> Standing:
    """How the whole queue stands at `now`, or one site. `offset` is what the wall clock has beyond the store's times.

    Each statement is read to its end at once: no snapshot keeps the log from being reset.
    """
    groups: Iterable[Any] = connection.execute(*((ALL_SITES, (now,)) if site is None else (ONE_SITE, (now, site))))
    counted: dict[str, dict[int, tuple[int, int, float]]] = {}
    for name, state, messages, due_now, first in groups:
        counted.setdefault(name, {})[state] = (messages, due_now, first)
    rests = {rest.site: rest for rest in read_rests(connection) if site in (None, rest.site)}
    paces = {pace.site: pace for pace in read_paces(connection)}
    sites = [
        _site(name, counted.get(name, {}), rests.get(name), paces.get(name), now, offset)
        for name in {**counted, **rests}
    ]
    sites.sort(key=lambda one: (-(one.waiting + one.in_flight + one.held), one.site))
    return Standing(jobs=_jobs(connection) if site is None else None, sites=tuple(sites))


def _jobs(connection: apsw.Connection) -> dict[JobState, int]:
    tally: dict[Any, Any] = dict(connection.execute("SELECT state, jobs FROM tally"))
    return {state: tally[state] for state in get_args(JobState)}


def _site(
    name: str,
    counted: dict[int, tuple[int, int, float]],
    rest: Rest | None,
    pace: Pace | None,
    now: float,
    offset: float,
) -> SiteStanding:
    waiting, due_now, first = counted.get(READY, (0, 0, None))
    if first is not None:
        first = max(first, rest.ends if rest else first, pace.next if pace else first)
        due_now = due_now if first <= now else 0
    return SiteStanding(
        site=name,
        waiting=waiting,
        due_now=due_now,
        in_flight=counted[CLAIMED][0] if CLAIMED in counted else 0,
        held=counted[HELD][0] if HELD in counted else 0,
        next_due=rfc3339_wall(first, offset),
        rest=None if rest is None else _rest(rest, now, offset),
        rate=None if pace is None else pace.rate,
    )


def _rest(rest: Rest, now: float, offset: float) -> RestView:
    return RestView(
        until=rfc3339_wall(rest.ends, offset) if rest.ends > now else None,
        failures=rest.failures,
        since=rfc3339_wall(rest.since, offset),
        why=rest.why,
    )
