"""The operation that settles a batch of claims, with the reports that they owe.

A COMMIT that failed may have come back when the operation is run again: then what it found at the try before still
holds, and is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import apsw

from service.queue.accepting import Entry, accept_job
from service.queue.ids import id_text
from service.queue.owing import Changed
from service.queue.settling import came_back, settle_all
from service.queue.store import Claim, JobState, Settled, Settlement

OPEN: Final = ("queued", "held")
"""States of a job that has not ended."""


class Settle:
    """Run in a transaction, it returns how each claim left its job, and which jobs have changed.

    `reports` are those of each settlement, in turn. `land(connection, claim, state)` moves what former routes have left
    at the wrong site; `sites_now(connection, claim)` are the sites at which the claim's recipients wait then.
    """

    def __init__(
        self,
        settlements: Sequence[Settlement],
        reports: Sequence[Sequence[Entry]],
        land: Callable[[apsw.Connection, Claim, JobState], object],
        sites_now: Callable[[apsw.Connection, Claim], Sequence[str]],
    ) -> None:
        self._settlements = settlements
        self._reports = reports
        self._land = land
        self._sites_now = sites_now
        self._states: list[JobState | None] = [None] * len(settlements)

    def __call__(self, connection: apsw.Connection, again: bool) -> tuple[list[Settled], list[Changed]]:
        """Write what became of the claims, and accept their reports."""
        changed: list[Changed] = []
        states: list[JobState | None] = []
        found = settle_all(connection, self._settlements)
        for settlement, reports, before, state in zip(
            self._settlements, self._reports, self._states, found, strict=True
        ):
            stands = came_back(connection, settlement.claim, before) if state is None and again else state
            states.append(stands)
            if stands is None:
                continue
            changed.append((settlement.claim.number, stands not in OPEN))
            if state is not None:
                self._land(connection, settlement.claim, state)
                for entry in reports:
                    accept_job(connection, entry)
        self._states = states
        settled = [
            Settled(
                state,
                tuple([id_text(entry.id) for entry in reports]) if state and reports else (),
                tuple(self._sites_now(connection, settlement.claim)) if state in OPEN else (),
            )
            for state, settlement, reports in zip(states, self._settlements, self._reports, strict=True)
        ]
        return settled, changed
