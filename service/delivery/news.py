"""What the journal is told once a plan is durable."""

from __future__ import annotations

from service.delivery.policy import Plan
from service.delivery.reports import Kind
from service.journal import Journal
from service.message.outcome import Outcome, State
from service.queue.store import Claim, Settled


def tell(journal: Journal, claim: Claim, plan: Plan, settled: Settled, reports: tuple[Kind, ...]) -> None:
    """Tell what became of each recipient, what its sender is told by which reports, and whether the job has ended."""
    removed = settled.state is None  # by an operator, meanwhile: what a server has taken stands, nothing else does
    for outcome in plan.outcomes:
        if outcome.state is State.DELIVERED:
            journal.tell("delivered", **_facts(claim, outcome))
        elif not removed:
            _tell_of_trouble(journal, claim, plan, outcome)
    if plan.doubted:
        _tell_of_doubts(journal, claim, plan, removed)
    for kind, report in zip(reports, settled.reports, strict=False):  # none was accepted where the job was removed
        event, concerned = ("bounced", plan.failed) if kind == "bounce" else ("warned", plan.waiting)
        for outcome in concerned:
            journal.tell(event, **_facts(claim, outcome), report=report)
    if settled.state not in (None, "queued", "held"):
        journal.tell("job_finished", id=claim.id, name=claim.name, state=settled.state)


def _tell_of_trouble(journal: Journal, claim: Claim, plan: Plan, outcome: Outcome) -> None:
    facts = _facts(claim, outcome)
    if outcome.state is State.WAITING:
        journal.tell("deferred", **facts, delay=plan.delay)  # None: held, until an operator decides
        return
    journal.tell("failed", **facts)
    if not claim.sender:  # a report begets no report (RFC 5321, 6.1)
        journal.tell("report_failed", **facts)


def _tell_of_doubts(journal: Journal, claim: Claim, plan: Plan, removed: bool) -> None:
    waiting = {outcome.address for outcome in plan.waiting}
    told = {outcome.address: _facts(claim, outcome) for outcome in plan.outcomes}
    for address in plan.doubted:
        decision = "none" if removed or address not in waiting else "hold" if plan.hold else "retry"
        journal.tell("in_doubt", **told[address], decision=decision)


def _facts(claim: Claim, outcome: Outcome) -> dict[str, object]:
    return {
        "id": claim.id,
        "recipient": outcome.address,
        "site": claim.site,
        "host": outcome.host or None,
        "phase": str(outcome.phase),
        "code": outcome.code,
        "enhanced": outcome.enhanced or None,
        "text": outcome.text,
        "attempt": claim.attempts + 1,
    }
