"""What the journal is told once a plan is durable."""

from __future__ import annotations

from service.delivery.policy import Plan
from service.delivery.reports import Kind
from service.journal import Journal
from service.message.outcome import Outcome, State
from service.queue.store import Claim, Settled

_EVENTS = {State.DELIVERED: "delivered", State.FAILED: "failed", State.WAITING: "deferred"}


def tell(journal: Journal, claim: Claim, plan: Plan, settled: Settled, reports: tuple[Kind, ...]) -> None:
    """Tell what became of each recipient, what its sender is told by which reports, and whether the job has ended."""
    told = {outcome.address: _facts(claim, outcome) for outcome in plan.outcomes}
    removed = settled.state is None  # by an operator, meanwhile: what a server has taken stands, nothing else does
    for outcome in plan.outcomes:
        if removed and outcome.state is not State.DELIVERED:
            continue
        delay = {"delay": plan.delay} if outcome.state is State.WAITING else {}  # None: held, until an operator decides
        journal.tell(_EVENTS[outcome.state], **told[outcome.address], **delay)
        if outcome.state is State.FAILED and not claim.sender:  # a report begets no report (RFC 5321, 6.1)
            journal.tell("report_failed", **told[outcome.address])
    waiting = {outcome.address for outcome in plan.waiting} if plan.doubted else set()
    for address in plan.doubted:
        decision = "none" if removed or address not in waiting else "hold" if plan.hold else "retry"
        journal.tell("in_doubt", **told[address], decision=decision)
    for kind, report in zip(reports, settled.reports, strict=False):  # none was accepted where the job was removed
        event, concerned = ("bounced", plan.failed) if kind == "bounce" else ("warned", plan.waiting)
        for outcome in concerned:
            journal.tell(event, **told[outcome.address], report=report)
    if settled.state not in (None, "queued", "held"):
        journal.tell("job_finished", id=claim.id, name=claim.name, state=settled.state)


def _facts(claim: Claim, outcome: Outcome) -> dict[str, object]:
    return {
        "id": claim.id,
        "recipient": outcome.address,
        "site": claim.site,
        "host": outcome.host or None,
        "phase": outcome.phase.value,
        "code": outcome.code,
        "enhanced": outcome.enhanced or None,
        "text": outcome.text,
        "attempt": claim.attempts + 1,
    }
