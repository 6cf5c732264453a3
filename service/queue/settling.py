"""Statements that hand messages out and write what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import apsw

from service.message.outcome import Outcome, State, address_of, state_of
from service.queue.ids import id_text
from service.queue.store import PRIORITIES, Claim, JobState, Settlement
from service.queue.suspects import whose_turn

REMOVED: Final = "removed from the queue by the operator"
"""How the text of a recipient begins whose job was removed."""

_CLAIM_OCTETS: Final = 4 * 1024 * 1024  # of content in one claim: it is copied on the reactor's thread
_FEW: Final = 4  # so many addresses are looked up one by one, more by a map of all

_MESSAGES: Final = """
SELECT d.job, j.name, d.site, j.sender, d.attempts, j.accepted_at, j.expires_at, d.warned, j.in_doubt, j.size,
       j.eight_bit, j.pieces, c.data, d.doubts, j.begins_at,
       (SELECT count(*) FROM recipient r WHERE r.job = d.job), d.priority,
       iif(f.state = 'waiting' AND f.site = d.site, f.address, NULL)
FROM delivery d JOIN job j ON j.id = d.job LEFT JOIN content c ON c.job = d.job
     LEFT JOIN recipient f ON f.job = d.job AND f.position = 0
"""
_DUE: Final = (
    _MESSAGES + "WHERE d.state = 0 AND d.site = ? AND d.priority = ? AND d.due <= ? AND (j.deaths = 0 OR d.job = ?)"
    " ORDER BY d.due LIMIT ?"
)
_LEASED: Final = _MESSAGES + "WHERE d.state = 1 AND d.site = ? AND d.lease = ? ORDER BY d.priority, d.due LIMIT ?"
_CLAIM: Final = """
UPDATE delivery SET state = 1, lease = ?1, due = iif(job = ?2, ?3, due) WHERE job = ?4 AND site = ?5
"""
_IN_ORDER: Final = tuple(range(len(PRIORITIES)))
_FROM_BELOW: Final = _IN_ORDER[::-1]
_FROM_THE_MIDDLE: Final = (*_IN_ORDER[1:], 0)
_WAITING: Final = "SELECT address FROM recipient WHERE job = ? AND site = ? AND state = 'waiting'"  # by position
_SET_OUTCOME: Final = """
UPDATE recipient SET state = ?, code = ?, enhanced = ?, text = ?, host = ?, phase = ?, at = ?
WHERE job = ? AND state = 'waiting' AND
"""
_STANDS: Final = "SELECT 1 FROM delivery WHERE job = ? AND site = ? AND state = 1 AND lease = ?"
_STAND: Final = """
UPDATE job SET state = ?, attempts = max(attempts, ?), finished_at = ?, deaths = iif(?, 0, deaths) WHERE id = ?
"""


def claim_due(
    connection: apsw.Connection,
    site: str,
    limit: int,
    now: float,
    lease: int,
    again: bool = False,
    *,
    favours: tuple[int, int] = (0, 0),
) -> list[Claim]:
    """Mark up to `limit` messages of `site` that are due as claimed by `lease`; return them with their content.
    Of those at which a daemon has died (`suspects`) one is claimed at a time.

    They are taken from the highest priority down, but before that so many from the lowest up, and so many from the
    middle (`favours`). `again`: an earlier try failed at COMMIT; what came back with the log is ours already.
    """
    if again:
        rows, _ = _fitting(connection, _LEASED, (site, lease, limit), _CLAIM_OCTETS)
        if rows:
            return [_claim_of(connection, row, lease) for row in rows]
    suspect = whose_turn(connection, site, now)
    claims: list[Claim] = []
    room = _CLAIM_OCTETS
    for most, order in ((favours[0], _FROM_BELOW), (sum(favours), _FROM_THE_MIDDLE), (limit, _IN_ORDER)):
        for priority in order:
            if len(claims) >= most or room <= 0:
                break
            rows, room = _fitting(connection, _DUE, (site, priority, now, suspect, most - len(claims)), room)
            if rows:
                connection.executemany(_CLAIM, [(lease, suspect, now, row[0], site) for row in rows])
                claims += [_claim_of(connection, row, lease) for row in rows]
    return claims


def _fitting(connection: apsw.Connection, query: str, bindings: tuple[Any, ...], room: int) -> tuple[list[Any], int]:
    """The rows that the query finds, one at least, as far as their contents fit into `room` octets; and what is left of
    that."""
    rows: list[Any] = []
    for row in connection.execute(query, bindings):
        octets = 0 if row[12] is None else row[9]
        if rows and octets > room:
            break
        rows.append(row)
        room -= octets
    return rows, room


def unclaim(connection: apsw.Connection, claims: Iterable[Claim]) -> None:
    """Give claims back untried."""
    connection.executemany(
        "UPDATE delivery SET state = iif(hold, 2, 0), hold = 0, lease = 0, dot = NULL"
        " WHERE job = ? AND site = ? AND state = 1 AND lease = ?",
        [(claim.number, claim.site, claim.lease) for claim in claims],
    )


def mark_dot(connection: apsw.Connection, claim: Claim, host: str) -> bool:
    """Note that the final dot of this claim may be on its way to `host`; False where the claim is gone."""
    connection.execute(
        "UPDATE delivery SET dot = ? WHERE job = ? AND site = ? AND state = 1 AND lease = ?",
        (host, claim.number, claim.site, claim.lease),
    )
    return bool(connection.changes())


def settle_all(connection: apsw.Connection, settlements: Sequence[Settlement]) -> list[JobState | None]:
    """Write what became of these claims, all but their reports; return for each what `settle_one` does.

    Nearly every message is the whole of its job and ends it: of those that is known without a look.
    """
    states: list[JobState | None] = []
    ended: list[tuple[Settlement, int, JobState]] = []
    for settlement in settlements:
        state = _ends_its_job(settlement)
        if state is not None and _let_go(connection, settlement.claim):
            ended.append((settlement, settlement.claim.number, state))
        else:
            state = settle_one(connection, settlement)
        states.append(state)
    _end(connection, ended)
    return states


def _ends_its_job(settlement: Settlement) -> JobState | None:
    """How the job ends with this settlement; None where it does not, or others have a share in it."""
    claim, outcomes = settlement.claim, settlement.outcomes
    if not claim.whole or tuple(map(address_of, outcomes)) != claim.recipients:
        return None
    states = list(map(state_of, outcomes))
    if State.WAITING in states:
        return None
    delivered = states.count(State.DELIVERED)
    return "failed" if not delivered else "delivered" if delivered == len(states) else "partly"


def _let_go(connection: apsw.Connection, claim: Claim) -> bool:
    """Drop the delivery; False where the claim's lease does not stand."""
    connection.execute(
        "DELETE FROM delivery WHERE job = ? AND site = ? AND state = 1 AND lease = ?",
        (claim.number, claim.site, claim.lease),
    )
    return bool(connection.changes())


def _end(connection: apsw.Connection, ended: Sequence[tuple[Settlement, int, JobState]]) -> None:
    """Write the outcomes of jobs that have ended, and how they did; their recipients have all positions from 0 on."""
    connection.executemany(
        "UPDATE recipient SET state = ?, code = ?, enhanced = ?, text = ?, host = ?, phase = ?, at = ?"
        " WHERE job = ? AND position = ?",
        [
            (o.state, o.code, o.enhanced, o.text, o.host, o.phase, settlement.at, job, position)
            for settlement, job, _ in ended
            for position, o in enumerate(settlement.outcomes)
        ],
    )
    connection.executemany(
        _STAND, [(state, settlement.attempts, settlement.at, True, job) for settlement, job, state in ended]
    )
    connection.executemany("DELETE FROM content WHERE job = ?", [(job,) for _, job, _ in ended])


def settle_one(connection: apsw.Connection, settlement: Settlement) -> JobState | None:
    """Write what became of one claim, all but its reports; return how the job stands, None where that was known.

    A settlement counts only while its claim's lease stands: one that came back with the log after a failed COMMIT
    changes nothing, and of one whose job was removed meanwhile only what arrived all the same is written.
    """
    claim = settlement.claim
    job = claim.number
    site, attempts = claim.site, settlement.attempts
    lease = (job, site, claim.lease)
    if not connection.execute(_STANDS, lease).fetchone():
        return _arrived_all_the_same(connection, job, settlement)
    set_outcomes(connection, job, site, settlement.outcomes, settlement.at)
    if connection.execute(_WAITING + " LIMIT 1", (job, site)).fetchone():
        due = settlement.at if settlement.due is None else settlement.due
        connection.execute(
            "UPDATE delivery SET state = iif(hold OR ?, 2, 0), hold = 0, lease = 0, dot = NULL, due = ?,"
            " attempts = ?, warned = max(warned, ?), doubts = doubts + ?, rested = ?"
            " WHERE job = ? AND site = ?",
            (settlement.hold, due, attempts, settlement.warned, settlement.doubt, settlement.rested, job, site),
        )
    else:
        connection.execute("DELETE FROM delivery WHERE job = ? AND site = ?", (job, site))
    return bring_up_to_date(connection, job, settlement.at, attempts, survived=True)


def came_back(connection: apsw.Connection, claim: Claim, found: JobState | None) -> JobState | None:
    """What was `found` when this claim was settled in a transaction that failed at COMMIT, if that has come back; None
    where it has not, and the job was removed before the next try."""
    row = connection.execute(
        "SELECT 1 FROM job WHERE id = ?1 AND state = ?2"
        " AND NOT EXISTS (SELECT 1 FROM recipient WHERE job = ?1 AND instr(text, ?3) = 1)",
        (claim.number, found, REMOVED),
    ).fetchone()
    return found if row else None


def _arrived_all_the_same(connection: apsw.Connection, job: int, settlement: Settlement) -> JobState | None:
    """A job that was removed on its way: for whom the server has taken it, has it, whatever the operator wished."""
    taken = [
        (o.code, o.enhanced, o.text, o.host, o.phase, settlement.at, job, o.address, REMOVED)
        for o in settlement.outcomes
        if o.state is State.DELIVERED
    ]
    before = connection.total_changes()
    connection.executemany(
        "UPDATE recipient SET state = 'delivered', code = ?, enhanced = ?, text = ?, host = ?, phase = ?, at = ?"
        " WHERE job = ? AND address = ? AND state = 'failed' AND instr(text, ?) = 1",
        taken,
    )
    if connection.total_changes() == before:
        return None
    return bring_up_to_date(connection, job, settlement.at, settlement.attempts)


def sites_now(connection: apsw.Connection, claim: Claim, moved: bool) -> list[str]:
    """The sites at which recipients of the claim wait now; only where they may have `moved` all are looked at."""
    job = claim.number
    if not moved:
        return [claim.site] if connection.execute(_WAITING + " LIMIT 1", (job, claim.site)).fetchone() else []
    rows = connection.execute("SELECT site, address FROM recipient WHERE job = ? AND state = 'waiting'", (job,))
    recipients = set(claim.recipients)
    return sorted({site for site, address in rows if address in recipients})


def set_outcomes(connection: apsw.Connection, job: int, site: str, outcomes: Sequence[Outcome], at: float) -> None:
    """Write each recipient's outcome; an address that does not wait at `site` is passed over."""
    if len(outcomes) <= _FEW:
        keys: dict[str, Any] = {outcome.address: outcome.address for outcome in outcomes}
        query = _SET_OUTCOME + "site = ? AND address = ?"
    else:
        rows = connection.execute("SELECT address, position FROM recipient WHERE job = ?", (job,))
        keys = dict(rows)
        query = _SET_OUTCOME + "site = ? AND position = ?"
    connection.executemany(
        query,
        [
            (o.state, o.code, o.enhanced, o.text, o.host, o.phase, at, job, site, keys[o.address])
            for o in outcomes
            if o.address in keys
        ],
    )


def bring_up_to_date(
    connection: apsw.Connection, job: int, at: float, attempts: int = 0, *, survived: bool = False
) -> JobState:
    """Derive the job's state from its deliveries; where none is left, the job ends and its content goes.

    `survived`: the daemon has come to the end of an attempt at it, so that it is not to blame for former deaths.
    """
    open_, held = connection.execute(
        "SELECT count(*), total(state = 2 OR hold) FROM delivery WHERE job = ?", (job,)
    ).get
    if open_:
        state: JobState = "held" if held else "queued"
        connection.execute(_STAND, (state, attempts, None, survived, job))
        return state
    recipients, delivered = connection.execute(
        "SELECT count(*), total(state = 'delivered') FROM recipient WHERE job = ?", (job,)
    ).get
    state = "delivered" if delivered == recipients else "partly" if delivered else "failed"
    connection.execute(_STAND, (state, attempts, at, survived, job))
    connection.execute("DELETE FROM content WHERE job = ?", (job,))
    return state


def _claim_of(connection: apsw.Connection, row: tuple[Any, ...], lease: int) -> Claim:
    """The claim that a row of `_MESSAGES` makes. Most jobs have one recipient, who is in the row already."""
    job, name, site, sender, attempts, accepted_at, expires_at, warned, in_doubt, size, *more = row
    eight_bit, pieces, content, doubts, begins_at, in_all, priority, first = more
    recipients = (first,) if in_all == 1 and first is not None else _waiting(connection, job, site)
    return Claim(  # by position, as a call with so many names is slow
        lease,
        id_text(job),
        name,
        site,
        sender,
        recipients,
        attempts,
        accepted_at,
        begins_at,
        expires_at,
        bool(warned),
        in_doubt,
        size,
        bool(eight_bit),
        pieces,
        content,
        doubts,
        in_all == len(recipients),
        PRIORITIES[priority],
        job,
    )


def _waiting(connection: apsw.Connection, job: int, site: str) -> tuple[str, ...]:
    return tuple([address for (address,) in connection.execute(_WAITING, (job, site))])
