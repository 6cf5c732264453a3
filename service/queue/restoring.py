"""Statements that put a job back into the queue which was read from a damaged one.

What was in flight is due now, or held where the job wants that when nobody knows whether it was sent. A job whose id
is there already is left as it is. Where the application has handed a message in again meanwhile (the same file, the
same key), the one that waits since then is not joined by its former self.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import apsw

from service.queue.accepting import KEY_KEPT, insert_piece, is_taken, unused_name
from service.queue.ids import id_text
from service.queue.salvage import Row, Salvaged
from service.queue.schema import HELD, PIECE, READY
from service.queue.settling import bring_up_to_date

Fate = Literal["queued", "held", "ended", "present", "again"]
"""How a job stands in the queue: `present` before already, `again` handed in once more meanwhile and not put back."""

IN_DOUBT: Final = "read from a damaged queue, and may have been sent already: release it to send it again, or remove it"
_CLAIMED: Final = 1
_TIMES: Final = ("accepted_at", "begins_at", "expires_at", "finished_at", "at", "due")  # not `not_before`
_SOURCE: Final = ("inode", "mtime_ns", "octets", "file")


class Restorer:
    """Puts jobs back, on a connection that is in a transaction.

    `shift` is what the present queue's time is ahead of the damaged one's: the wall clock may have been set since.
    """

    def __init__(self, connection: apsw.Connection, shift: float = 0.0) -> None:
        self._shift = shift
        self._connection = connection
        self._columns = {
            table: [str(name) for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
            for table in ("job", "recipient", "delivery", "alias")
        }

    def put_back(self, salvaged: Salvaged, now: float, *, hold: bool) -> Fate:
        """Put back a job that is fit for it; with `hold` it is held until somebody has looked at it."""
        id, job = salvaged.id, salvaged.job
        assert job is not None
        if self._one("SELECT 1 FROM job WHERE id = ?", id):
            return "present"
        ended = job["finished_at"] is not None
        row = self._shifted(job)
        if self._handed_in_again(row, now):
            if not ended:
                return "again"
            row |= dict.fromkeys(_SOURCE)  # the file is the other job's now
        if is_taken(self._connection, row["result"]):
            row["result"] = unused_name(self._connection, row["name"], id_text(id))
        content = salvaged.content or b""
        if not ended:
            row["pieces"] = max(1, -(-len(content) // PIECE))
        self._insert("job", row)
        for recipient in salvaged.recipients:
            self._insert("recipient", self._shifted(recipient))
        for result in salvaged.aliases:
            if not is_taken(self._connection, result):
                self._insert("alias", {"result": result, "job": id})
        if ended:
            return "ended"
        return self._make_due(salvaged, row, content, now, hold)

    def _make_due(self, salvaged: Salvaged, job: Row, content: bytes, now: float, hold: bool) -> Fate:
        known = {row["site"]: self._shifted(row) for row in salvaged.deliveries}
        for delivery in _deliveries(salvaged, job, known, now):
            said = delivery.pop("in_doubt")
            doubt = hold or said
            more = {"state": HELD, "doubts": delivery.get("doubts", 0) + (not said)} if doubt else {}
            self._insert("delivery", delivery | more)
            if doubt:
                self._explain(salvaged.id, delivery["site"], now)
        self._insert_content(salvaged.id, content)
        state = bring_up_to_date(self._connection, salvaged.id, now, job["attempts"])
        if state == "queued" or state == "held":
            return state
        return "ended"

    def _shifted(self, row: Row) -> Row:
        """The row, or its copy, with its times in the present queue's time."""
        return row | {name: row[name] + self._shift for name in _TIMES if row.get(name) is not None}

    def _explain(self, job: int, site: str, now: float) -> None:
        """Let `deferd queue list` say why it is held."""
        self._connection.execute(
            "UPDATE recipient SET code = NULL, enhanced = NULL, host = NULL, phase = NULL, text = ?, at = ?"
            " WHERE job = ? AND site = ? AND state = 'waiting'",
            (IN_DOUBT, now, job, site),
        )

    def _handed_in_again(self, job: Row, now: float) -> bool:
        """Whether a job of the present queue is the same: of the same file, or with the same key and not too old."""
        if job["inode"] is not None and self._one(
            "SELECT 1 FROM job WHERE inode = ? AND mtime_ns = ? AND octets = ? AND file = ?",
            *(job[name] for name in _SOURCE),
        ):
            return True
        return (
            job["finished_at"] is None
            and job["key"] is not None
            and self._one(
                "SELECT 1 FROM job WHERE key = ? AND (accepted_at > ? OR finished_at IS NULL)",
                job["key"],
                now - KEY_KEPT,
            )
        )

    def _insert_content(self, id: int, content: bytes) -> None:
        if len(content) <= PIECE:
            self._connection.execute("INSERT INTO content (job, data) VALUES (?, ?)", (id, content))
            return
        # All in this transaction: a daemon beside us takes pieces without a job for left-overs.
        view = memoryview(content)
        for number, first in enumerate(range(0, len(content), PIECE)):
            insert_piece(self._connection, id, number, view[first : first + PIECE])

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        """Insert what this deferd has a column for; what it has more has its default."""
        names = [name for name in self._columns[table] if name in row]
        self._connection.execute(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",  # noqa: S608 (our names)
            [row[name] for name in names],
        )

    def _one(self, query: str, *bindings: object) -> bool:
        return self._connection.execute(query, bindings).fetchone() is not None


def _deliveries(salvaged: Salvaged, job: Row, known: dict[str, Row], now: float) -> Iterator[Row]:
    """One for each site at which a recipient waits, made anew where none was found; `in_doubt` tells that it may have
    been sent and is not to be sent again unasked."""
    for site in dict.fromkeys(row["site"] for row in salvaged.recipients if row["state"] == "waiting"):
        if site not in known:
            state = HELD if job["state"] == "held" else READY
            due = max(now, job["begins_at"])
            attempts = job["attempts"]
            yield {
                "job": salvaged.id,
                "site": site,
                "state": state,
                "due": due,
                "attempts": attempts,
                "in_doubt": False,
            }
            continue
        row = known[site] | {"hold": 0, "lease": 0, "in_doubt": False}
        if row["state"] == _CLAIMED:
            # Where no mark of the final dot is kept, any claim may have come as far as that.
            out = row.get("dot", "") is not None
            row |= {
                "state": HELD if known[site]["hold"] else READY,
                "due": min(row["due"], now),
                "doubts": row["doubts"] + (out or job["in_doubt"] == "retry"),
                "in_doubt": out and job["in_doubt"] == "hold",
            }
        if "dot" in row:
            row["dot"] = None
        yield row
