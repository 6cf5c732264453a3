"""The audit at the end of a seed: what the daemon says became of each recipient, against what really happened."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from service.queue.looking import view
from service.queue.timekeeping import read_seen
from tests.simulation.books import Books, Life, States, Taking
from tests.simulation.process import DATABASE, look_at_states

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


def audit(simulation: Simulation) -> None:
    """Write into the books whatever was not as promised."""
    books = simulation.books
    states = look_at_states(simulation.directory / DATABASE, books)
    now = simulation.world.time()
    if simulation.process is not None:
        books.violated(now, "it does not stop")
    found = [
        *_nothing_is_lost(books, states),
        *_nothing_is_forgotten(books, states),
        *_deliveries_are_true(books, states),
        *_duplicates_are_explained(books),
        *_senders_are_told(books, states, simulation),
        *_results_agree(simulation),
    ]
    for what in found:
        books.violated(now, what)


def _nothing_is_lost(books: Books, states: States) -> list[str]:
    """Each recipient of each job has come to an end; a key is used once."""
    found = []
    keys = defaultdict(list)
    for mail in books.mail.values():
        ends = [states.get((mail.token, recipient)) for recipient in mail.recipients]
        if mail.key is not None:
            keys[mail.key].append(all(end is not None for end in ends))
            if all(end is None for end in ends):
                continue
        found += [
            f"{mail.token}: {recipient} is {end or 'lost'}"
            for recipient, end in zip(mail.recipients, ends, strict=True)
            if end not in ("delivered", "failed")
        ]
    found += [f"{key!r}: taken {sum(taken)} times" for key, taken in keys.items() if sum(taken) != 1]
    return found


def _nothing_is_forgotten(books: Books, states: States) -> list[str]:
    """What was committed stays, whatever happens after; what was told was committed."""
    found = []
    ends: list[Life | None] = [*books.lives, None]
    before: States = {}
    for life in ends:
        after = states if life is None else life.states
        name = "the end" if life is None else f"the end of life {life.number} ({life.how})"
        for key, state in before.items():
            if after.get(key) != state and state != "waiting":
                found.append(f"{key} was {state}, and at {name} is {after.get(key)}")
            elif key not in after:
                found.append(f"{key} is gone at {name}")
        for key, told in life.told.items() if life is not None else ():
            mail = books.mail.get(key[0])  # none for a report; an attempt that was under way outlives its removed job
            if after.get(key) != told and mail is not None and not mail.removed:
                found.append(f"{key} was told to be {told}, and at {name} is {after.get(key)}")
        before = after
    return found


def _deliveries_are_true(books: Books, states: States) -> list[str]:
    """Delivered is what a server took and said so; what it took, and was heard to, is delivered."""
    confirmed: dict[tuple[str, str], list[Taking]] = defaultdict(list)
    for taking in books.takings:
        if taking.answered:
            confirmed[taking.token, taking.recipient].append(taking)
    found = []
    for key, state in states.items():
        if state == "delivered" and key not in confirmed:
            found.append(f"{key} is delivered, but no server said so")
        if state == "failed" and key in confirmed and not books.mail[key[0]].removed:
            last = confirmed[key][-1]
            if not _died_with(last):
                found.append(f"{key} has failed, but {last.host} confirmed it at {last.at:.3f} s")
    return found


def _died_with(taking: Taking) -> bool:
    """Whether the daemon's life ended before it had written down that this was taken."""
    life = taking.life
    return life.ended is not None and life.states.get((taking.token, taking.recipient)) != "delivered"


def _duplicates_are_explained(books: Books) -> list[str]:
    """Sent twice is only what nobody heard the answer to, or what the daemon died before writing down."""
    found = []
    last: dict[tuple[str, str], Taking] = {}
    for taking in books.takings:
        key = (taking.token, taking.recipient)
        former, last[key] = last.get(key), taking
        if former is None:
            continue
        if not _said(books.possible, former, taking):
            found.append(f"{key} was sent again at {taking.at:.3f} s, and not told to be a possible duplicate")
        mail = books.mail.get(taking.token)
        if mail and mail.in_doubt == "hold" and not any(former.at <= at <= taking.at for at in mail.released):
            found.append(f"{key} was sent again at {taking.at:.3f} s, though it was to be held in doubt")
        if not former.answered:
            books.duplicates["the answer was not heard"] += 1
            if former.life is taking.life and not _said(books.doubts, former, taking):
                found.append(f"{key} was sent again at {taking.at:.3f} s, and not told to be in doubt")
        elif former.life is not taking.life and _died_with(former):
            books.duplicates[f"{former.life.how} before the outcome was written"] += 1
        else:
            found.append(f"{key} was taken by {former.host} at {former.at:.3f} s, and sent again at {taking.at:.3f} s")
    return found


def _said(told: list[tuple[float, str, str]], former: Taking, taking: Taking) -> bool:
    """Whether this was told of the recipient between the two."""
    return any(
        former.at <= time <= taking.at and (token, recipient) == (taking.token, taking.recipient)
        for time, token, recipient in told
    )


def _senders_are_told(books: Books, states: States, simulation: Simulation) -> list[str]:
    """Each failure is told once, and to whoever sent it; nobody is told of a failure that is none."""
    told: dict[tuple[str, str], set[str]] = defaultdict(set)
    for report in books.reports:
        if report.action == "failed":
            for recipient in report.recipients:
                told[report.token, recipient].add(report.message_id)
    lost = _unsent_reports(simulation)
    found = []
    for key, state in states.items():
        mail = books.mail[key[0]]
        bounces = len(told.get(key, ()))
        if state == "delivered" and bounces:
            found.append(f"{key} is delivered, and its sender was told that it failed")
        if bounces > 1:
            found.append(f"{key}: its sender was told {bounces} times")
        if state == "failed" and not bounces and mail.sender and not mail.removed and mail.token not in lost:
            found.append(f"{key} has failed, and its sender was not told")
        if bounces and not mail.sender:
            found.append(f"{key} has no sender, who was told")
    return found


def _unsent_reports(simulation: Simulation) -> set[str]:
    """Jobs of which a bounce failed itself."""
    connection = apsw.Connection(str(simulation.directory / DATABASE), flags=apsw.SQLITE_OPEN_READONLY)
    rows = connection.execute("SELECT name FROM job WHERE NOT shown AND state <> 'delivered'").fetchall()
    connection.close()
    return {name.removesuffix("-bounce") for (name,) in rows}


def _without_times(result: bytes) -> Any:
    """A result but for its times: a file keeps those of the clock on the wall when it was written."""
    facts = msgspec.json.decode(result or b"null") or {"recipients": []}
    times = dict.fromkeys(("accepted_at", "finished_at", "next_attempt", "at"))
    return {**facts, **times, "recipients": [{**each, **times} for each in facts["recipients"]]}


def _results_agree(simulation: Simulation) -> list[str]:
    """Each job's result file shows how it stands in the store."""
    found = []
    connection = apsw.Connection(str(simulation.directory / DATABASE), flags=apsw.SQLITE_OPEN_READONLY)
    seen = read_seen(connection)
    offset = 0.0 if seen is None else seen.offset
    results = {path.name: path.read_bytes() for path in (simulation.directory / "results").iterdir()}
    named = "SELECT id, result FROM job WHERE shown UNION ALL SELECT job, result FROM alias"
    for id, claimed in connection.execute(named).fetchall():
        standing = view(connection, id, offset)
        result = results.pop(f"{claimed}.json", b"null")
        shown = b"" if standing is None else msgspec.json.encode(standing[1]) + b"\n"
        if shown != result and not (simulation.host.jumped and _without_times(shown) == _without_times(result)):
            found.append(f"the result of {claimed} says {result!r}, the store {standing}")
    flying = connection.execute("SELECT count(*) FROM delivery").get
    connection.close()
    found += [f"a result of nothing: {name}" for name in results]
    return found + ([f"{flying} deliveries are left"] if flying else [])
