"""Statements about sites that rest: so that a restart does not try a dead host afresh, as if nothing were known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from service.queue.store import Rest


def read_rests(connection: apsw.Connection) -> list[Rest]:
    """Every site that has not served since it was given a rest."""
    rows: Iterable[Any] = connection.execute("SELECT site, ends, failures, since, why FROM rest")
    return [
        Rest(site=site, ends=ends, failures=failures, since=since, why=why) for site, ends, failures, since, why in rows
    ]


def note_rest(connection: apsw.Connection, rest: Rest) -> None:
    """The site rests until then."""
    row = (rest.site, rest.ends, rest.failures, rest.since, rest.why)
    connection.execute("INSERT OR REPLACE INTO rest VALUES (?, ?, ?, ?, ?)", row)


def forget_rest(connection: apsw.Connection, site: str) -> None:
    """The site serves."""
    connection.execute("DELETE FROM rest WHERE site = ?", (site,))
