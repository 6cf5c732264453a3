"""Statements about what is to be known of sites also after a restart: which rest, and how fast they may be served.

So that a dead host is not tried afresh, as if nothing were known, and that a site whose rate is a message an hour does
not get one more for each restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import apsw

from deferred.defer import Deferred
from service.queue.commit import GroupCommit
from service.queue.store import Pace, Rest

Read = Callable[[apsw.Connection], list[Any]]


def read_rests(connection: apsw.Connection) -> list[Rest]:
    """Every site that has not served since it was given a rest."""
    rows: Iterable[Any] = connection.execute("SELECT site, ends, failures, since, why FROM rest")
    return [
        Rest(site=site, ends=ends, failures=failures, since=since, why=why) for site, ends, failures, since, why in rows
    ]


def read_paces(connection: apsw.Connection) -> list[Pace]:
    """Every site that is served by a rate, and has been."""
    rows: Iterable[Any] = connection.execute("SELECT site, rate, next FROM pace")
    return [Pace(site=site, rate=rate, next=next_at) for site, rate, next_at in rows]


def note_pace(connection: apsw.Connection, pace: Pace) -> None:
    """The site may have its next message then."""
    connection.execute("INSERT OR REPLACE INTO pace VALUES (?, ?, ?)", (pace.site, pace.rate, pace.next))


class SQLiteSiteNotes:
    """`SiteNotes` in the store's database."""

    def __init__(self, commit: GroupCommit, look: Callable[[Read], list[Any]]) -> None:
        """`look(read)` gives what `read(connection)` finds. Raises `StoreFailed`."""
        self._commit = commit
        self._look = look

    def rests(self) -> list[Rest]:
        """The sites whose hosts had failed when that was last noted, and that have not served since."""
        return self._look(read_rests)

    def note_rest(self, rest: Rest) -> Deferred[None]:
        """Remember that a site rests."""
        row = (rest.site, rest.ends, rest.failures, rest.since, rest.why)
        return self._do("INSERT OR REPLACE INTO rest VALUES (?, ?, ?, ?, ?)", row)

    def forget_rest(self, site: str) -> Deferred[None]:
        """The site serves."""
        return self._do("DELETE FROM rest WHERE site = ?", (site,))

    def paces(self) -> list[Pace]:
        """The sites that were served by a rate when that was last noted."""
        return self._look(read_paces)

    def note_pace(self, pace: Pace) -> Deferred[None]:
        """Remember when a site may have its next message."""
        return self._commit.submit(lambda connection, _: note_pace(connection, pace))

    def forget_pace(self, site: str) -> Deferred[None]:
        """The site has no rate any more, or is no more."""
        return self._do("DELETE FROM pace WHERE site = ?", (site,))

    def _do(self, statement: str, values: tuple[str | float, ...]) -> Deferred[None]:
        def run(connection: apsw.Connection, _: bool) -> None:
            connection.execute(statement, values)

        return self._commit.submit(run)
