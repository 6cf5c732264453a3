"""What a message's sender is told when it fails or is late: composed elsewhere, owed here.

A report that cannot be made is an error of ours to be told, but never a reason to leave an outcome unwritten: a message
that was delivered, and not marked, would be delivered again.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from deferred.defer import Deferred
from deferred.failure import Failure
from service.delivery.content import ContentGone, ContentUnreadable, StoredContent
from service.delivery.policy import Plan
from service.journal import Journal
from service.message.outcome import Outcome, State, state_of
from service.queue.store import Claim, Store, Submission

Kind = Literal["bounce", "warning"]


class Compose(Protocol):
    """Makes a report: `service.message.bounce`, as the daemon has wired it."""

    def __call__(self, kind: Kind, claim: Claim, outcomes: tuple[Outcome, ...], head: bytes) -> Submission | None:
        """The report on these recipients of the claim, ready for the store; None where none is owed.

        `head` is the first piece of the message's content: its headers, for all practical purposes.
        """


class Reports:
    """The reports that a plan owes: one bounce for all that fail together, one warning for all that are late."""

    def __init__(self, store: Store, journal: Journal, compose: Compose) -> None:
        self._store = store
        self._journal = journal
        self._compose = compose

    def owes(self, claim: Claim, plan: Plan) -> bool:
        """Whether the sender is to be told anything; nobody answers for the null sender (RFC 5321, 4.5.5)."""
        return bool(claim.sender) and (plan.late or State.FAILED in map(state_of, plan.outcomes))

    def compose(self, claim: Claim, plan: Plan) -> Deferred[dict[Kind, Submission]]:
        """Fire with the reports to be written together with the plan. Never fails."""
        d: Deferred[Any] = StoredContent(self._store, claim).read(0)
        d.add_errback(_nothing_to_return)
        d.add_callback(self._write, claim, plan)
        return d.add_errback(self._without)

    def _write(self, head: bytes, claim: Claim, plan: Plan) -> dict[Kind, Submission]:
        reports: dict[Kind, Submission] = {}
        if plan.failed and (bounce := self._compose("bounce", claim, plan.failed, head)) is not None:
            reports["bounce"] = bounce
        if plan.late and (warning := self._compose("warning", claim, plan.waiting, head)) is not None:
            reports["warning"] = warning
        return reports

    def _without(self, failure: Failure) -> dict[Kind, Submission]:
        if failure.check(ContentGone):
            return {}  # whoever removed the job wants no report
        self._journal.tell("unhandled_error", where="report", error=failure.get_traceback())
        return {}


def _nothing_to_return(failure: Failure) -> bytes:
    """What cannot be read cannot be sent back; the sender is told all the same."""
    failure.trap(ContentUnreadable)
    return b""
