"""Large contents on their way into the store, and out of it: a little in each transaction, so that none is long.

The pieces of a large content are put in ahead of its job; pieces without an unfinished job are left-overs of a crash,
or of a job that has ended, and are swept away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

import apsw

from service.queue.accepting import Entry, insert_piece
from service.queue.changing import drop_left_pieces
from service.queue.commit import GroupCommit
from service.queue.schema import PIECE

R = TypeVar("R")

_STAGED: Final = 4  # pieces in one operation: 1 MiB
HEAVY: Final = 200
"""What an operation costs that writes as much as so many messages."""


class Staging:
    """The pieces of one store."""

    def __init__(self, commit: GroupCommit) -> None:
        self._commit = commit
        self._jobs: set[int] = set()
        self._sweeping = False

    def stage(self, entry: Entry) -> None:
        """Put the content in, if it is a large one, ahead of the job."""
        content = memoryview(entry.submission.job.content)
        count = -(-len(content) // PIECE)
        if count > 1:
            self._jobs.add(entry.id)
            for first in range(0, count, _STAGED):
                self._stage(entry.id, content, range(first, min(first + _STAGED, count)))

    def _stage(self, job: int, content: memoryview, numbers: range) -> None:
        def run(connection: apsw.Connection, _: bool) -> None:
            for number in numbers:
                insert_piece(connection, job, number, content[number * PIECE : (number + 1) * PIECE])

        # Where this fails for good the store has been closed, and the job's own insertion fails with it.
        self._commit.submit(run, cost=HEAVY, last=True).add_errback(lambda _: None)

    def unstage(self, result: R, entries: Iterable[Entry]) -> R:
        """These are jobs by now, or never will be; hand `result` on."""
        large = self._jobs.intersection(entry.id for entry in entries)
        if large:
            self._jobs -= large
            self.sweep()
        return result

    def sweep(self) -> None:
        """Drop pieces of content that belong to no unfinished job."""
        if not self._sweeping:
            self._sweeping = True
            self._sweep_on(0)

    def _sweep_on(self, after: int | None) -> None:
        if after is None:
            self._sweeping = False
            return
        start = after

        def run(connection: apsw.Connection, _: bool) -> int | None:
            return drop_left_pieces(connection, start, self._jobs)

        d = self._commit.submit(run, cost=HEAVY)
        d.add_callbacks(self._sweep_on, lambda _: self._sweep_on(None))
