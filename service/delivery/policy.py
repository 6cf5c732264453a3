"""What an answer means for a message and its site: pure functions of facts, times and a drawn number.

A message that expires does so by an attempt: it is due at the end of its time at the latest, and is given up when that
attempt, too, leaves it waiting. Only at a site that has been tried, and has not served, for as long as the longest rest
are others given up with it. So nothing is given up just because the daemon was down, or up before its network.
"""

from __future__ import annotations

from typing import Final

import msgspec

from config.settings import Retry, SiteRest
from service.message.outcome import Outcome, Phase, State, state_of
from service.queue.store import Claim, Settlement, Submission
from service.smtp.errors import ConfirmationLost, HostFailure
from service.smtp.slow_down import asks_to_slow_down

EXPIRED: Final = "4.4.7"
"""Delivery time expired (RFC 3463)."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of a claim: a settlement but for its reports.

    `failed` are the recipients that fail now, together: they owe the sender one bounce. `late` tells that the sender
    is owed a warning about those still waiting. `delay` is in seconds, None where nobody waits or all are held.
    `doubt` is the host that may have the message for those `doubted`, although it never said so. `rested` tells that it
    waits for its site. `at` is when it was made, by the store's time.
    """

    outcomes: tuple[Outcome, ...]
    at: float
    attempts: int
    due: float | None
    delay: float | None
    late: bool = False
    hold: bool = False
    doubt: str | None = None
    doubted: tuple[str, ...] = ()
    rested: bool = False

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The recipients that fail now."""
        return tuple(outcome for outcome in self.outcomes if outcome.state is State.FAILED)

    @property
    def waiting(self) -> tuple[Outcome, ...]:
        """The recipients that are tried again."""
        return tuple(outcome for outcome in self.outcomes if outcome.state is State.WAITING)

    def settlement(self, claim: Claim, reports: tuple[Submission, ...]) -> Settlement:
        """The plan as the store takes it."""
        return Settlement(
            claim=claim,
            outcomes=self.outcomes,
            at=self.at,
            attempts=self.attempts,
            due=self.due,
            reports=reports,
            warned=self.late,
            hold=self.hold,
            doubt=self.doubt is not None,
            rested=self.rested,
        )


def next_delay(attempt: int, retry: Retry, spread: float) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 1); `spread` is drawn from [-1, 1]."""
    planned = retry.delays[min(attempt, len(retry.delays)) - 1]
    return planned * (1 + spread * retry.jitter)


def rest_length(failures: int, rest: SiteRest, jitter: float, spread: float) -> float:
    """Seconds that a site rests after its host failed `failures` times in a row (from 1); doubles, then stays."""
    planned = min(rest.first * 2.0 ** min(failures - 1, 64), rest.longest)
    return planned * (1 + spread * jitter)


def expiry(claim: Claim, retry: Retry) -> float:
    """When the message's time is over: its own `expires`, or `max_age` after it began; by the store's time."""
    return claim.begins_at + retry.max_age if claim.expires_at is None else claim.expires_at


def is_overdue(claim: Claim, retry: Retry, at: float) -> bool:
    """Whether the message's sender is owed word of it: its time is over, or it is late and nobody has said so."""
    late = not claim.warned and retry.warn_after is not None and at >= claim.begins_at + retry.warn_after
    return late or at >= expiry(claim, retry)


def after_receipt(claim: Claim, outcomes: tuple[Outcome, ...], retry: Retry, at: float, spread: float) -> Plan:
    """The server has answered for every recipient: those it put off wait for the next delay of the schedule."""
    attempts = claim.attempts + 1
    if State.WAITING not in map(state_of, outcomes):
        return Plan(outcomes=outcomes, at=at, attempts=attempts, due=None, delay=None)
    return _plan(claim, outcomes, retry, at, attempts=attempts, delay=next_delay(attempts, retry, spread))


def asks_for_less(outcome: Outcome) -> bool:
    """Whether the server put a recipient off because of us: we come too often, or with too much at once."""
    return outcome.state is State.WAITING and asks_to_slow_down(outcome.code, outcome.enhanced, outcome.text)


def after_slowing_down(claim: Claim, outcomes: tuple[Outcome, ...], retry: Retry, at: float, delay: float) -> Plan:
    """The server has answered for every recipient, and asks for less: whom it put off waits `delay` seconds, and no
    attempt is used up. The message's time goes on."""
    return _plan(claim, outcomes, retry, at, attempts=claim.attempts, delay=delay)


def after_host_failure(claim: Claim, error: HostFailure, retry: Retry, at: float, rest: float) -> Plan:
    """No host served us: the message waits as long as its site rests (`rest` seconds), and no attempt is used up."""
    outcomes = error.outcomes + _unserved(claim, error)
    plan = _plan(claim, outcomes, retry, at, attempts=claim.attempts, delay=rest)
    return msgspec.structs.replace(plan, rested=True)


def after_giving_up(claim: Claim, outcomes: tuple[Outcome, ...], at: float) -> Plan:
    """We gave the attempt up when some had their answer: it stands. The others are as they were, and due at once; no
    attempt is used up, and nobody is given up, even where the message's time is over."""
    return Plan(outcomes=outcomes, at=at, attempts=claim.attempts, due=at, delay=0.0)


def after_unreadable(claim: Claim, why: str, retry: Retry, at: float, spread: float) -> Plan:
    """The store could not give the content: the message waits by the schedule, whoever's fault it is, and its
    recipients show why."""
    text = f"the message cannot be read from the queue: {why}"
    outcomes = tuple(Outcome(each, State.WAITING, None, "", text, "", Phase.BODY) for each in claim.recipients)
    attempts = claim.attempts + 1
    return _plan(claim, outcomes, retry, at, attempts=attempts, delay=next_delay(attempts, retry, spread))


def after_lost_confirmation(
    claim: Claim, error: ConfirmationLost, retry: Retry, at: float, rest: float, spread: float
) -> Plan:
    """The final dot is out, the answer never came: sent again later, or held, as the job says.

    It is the host's fault and uses up no attempt; the first time the message waits, as any other, for its site. But
    each retry may be one more copy in somebody's mailbox, and the site, where others are served, comes back at once:
    so a message whose confirmation is lost again and again meets the schedule's growing delays as well.
    """
    unserved = _unserved(claim, error)
    outcomes, doubted = error.outcomes + unserved, tuple(outcome.address for outcome in unserved)
    if claim.in_doubt == "hold":
        outcomes = error.outcomes + tuple(map(_to_be_decided, unserved))
        plan = Plan(outcomes=outcomes, at=at, attempts=claim.attempts, due=at, delay=None, hold=True)
        return msgspec.structs.replace(plan, doubt=error.host, doubted=doubted)
    delay = max(rest, next_delay(claim.doubts, retry, spread)) if claim.doubts else rest
    plan = _plan(claim, outcomes, retry, at, attempts=claim.attempts, delay=delay)
    return msgspec.structs.replace(plan, doubt=error.host, doubted=doubted)


def _to_be_decided(outcome: Outcome) -> Outcome:
    """The outcome, with what an operator may do about it."""
    text = f"{outcome.text}; the server may have the message: release it to send it again, or remove it"
    return msgspec.structs.replace(outcome, text=text)


def _unserved(claim: Claim, error: HostFailure) -> tuple[Outcome, ...]:
    """The failure as the outcome of each recipient that has none of its own: it waits."""
    answered = {outcome.address for outcome in error.outcomes}
    return tuple(
        Outcome(address, State.WAITING, error.code, error.enhanced, error.text, error.host, error.phase)
        for address in claim.recipients
        if address not in answered
    )


def _plan(claim: Claim, outcomes: tuple[Outcome, ...], retry: Retry, at: float, *, attempts: int, delay: float) -> Plan:
    """Wait for those that wait, unless the message's time is over; never beyond the end of that time, nor
    beyond the time to warn the sender: the attempt that is made then does."""
    if State.WAITING not in map(state_of, outcomes):
        return Plan(outcomes=outcomes, at=at, attempts=attempts, due=None, delay=None)
    end = expiry(claim, retry)
    if at >= end:
        given_up = tuple(map(_expired, outcomes))
        return Plan(outcomes=given_up, at=at, attempts=attempts, due=None, delay=None)
    due, late = min(at + delay, end), False
    if not claim.warned and retry.warn_after is not None:
        warning = claim.begins_at + retry.warn_after
        late = at >= warning
        due = due if late else min(due, warning)
    return Plan(outcomes=outcomes, at=at, attempts=attempts, due=due, delay=due - at, late=late)


def _expired(outcome: Outcome) -> Outcome:
    """The outcome, failed if it was waiting: what the last try said stays readable, and by itself for a report; its
    code stays what it was."""
    if outcome.state is not State.WAITING:
        return outcome
    said = " ".join(part for part in (outcome.enhanced, outcome.text) if part)
    text = f"delivery time expired; the last try said: {said}" if said else "delivery time expired"
    return msgspec.structs.replace(outcome, state=State.FAILED, enhanced=EXPIRED, text=text, said=said)
