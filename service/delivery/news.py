"""What the journal is told once a plan is durable."""

from __future__ import annotations

from collections.abc import Mapping

from service.delivery.policy import Plan
from service.delivery.reports import Kind
from service.journal import Journal
from service.message.outcome import Outcome, State
from service.queue.store import Claim, Submission

_EVENTS = {State.DELIVERED: "delivered", State.FAILED: "failed", State.WAITING: "deferred"}


def tell(journal: Journal, claim: Claim, plan: Plan, reports: Mapping[Kind, Submission]) -> None:
    """Tell what became of each recipient, and what its sender is told."""
    for outcome in plan.outcomes:
        facts = _facts(claim, outcome)
        if outcome.state is State.WAITING:
            facts["delay"] = plan.delay  # None: held, until an operator decides
        journal.tell(_EVENTS[outcome.state], **facts)
    if plan.doubt is not None:
        waiting = [outcome.address for outcome in plan.waiting]
        decision = "hold" if plan.hold else "retry"
        journal.tell("in_doubt", id=claim.id, host=plan.doubt, recipients=waiting, decision=decision)
    if "bounce" in reports:
        _tell_report(journal, "bounced", claim, reports["bounce"], plan.failed)
    if "warning" in reports:
        _tell_report(journal, "warned", claim, reports["warning"], plan.waiting)


def _facts(claim: Claim, outcome: Outcome) -> dict[str, object]:
    return {
        "id": claim.id,
        "recipient": outcome.address,
        "site": claim.site,
        "host": outcome.host,
        "phase": outcome.phase.value,
        "code": outcome.code,
        "enhanced": outcome.enhanced,
        "text": outcome.text,
        "attempt": claim.attempts + 1,
    }


def _tell_report(journal: Journal, event: str, claim: Claim, report: Submission, outcomes: tuple[Outcome, ...]) -> None:
    journal.tell(event, id=claim.id, report=report.name, recipients=[outcome.address for outcome in outcomes])
