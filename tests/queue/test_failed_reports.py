"""What becomes of a report that fails: no result file and nobody to tell, so the queue itself keeps it to be seen."""

from __future__ import annotations

from service.queue.store import Submission

DAY = 86400.0


def report(submission, **facts) -> Submission:
    """A bounce, as the daemon writes one: from nobody, without a dropped file, and with no result of its own."""
    return submission("shop@example.org", name="order-bounce", source=None, result=False, **facts)


def failed(store, reactor, submission, settlement) -> str:
    """A report that has failed; returns its id."""
    (accepted,) = reactor.wait(store.accept([report(submission)]))
    (claim,) = reactor.wait(store.claim("example.org", 1))
    reactor.wait(store.settle([settlement(claim, "failed")]))
    return accepted.id


def test_a_failed_report_is_listed_and_shown_with_what_the_server_said(store, reactor, submission, settlement):
    """By its state: what is not finished is listed without it."""
    id = failed(store, reactor, submission, settlement)
    assert store.list() == []
    (shown,) = store.list(state="failed")
    assert shown == store.show(id)
    assert (shown.name, shown.state, shown.recipients[0].code) == ("order-bounce", "failed", 550)


def test_a_failed_report_is_kept_for_as_long_as_any_other_job(store, reactor, submission, settlement):
    """It goes with those of its day, not before."""
    id = failed(store, reactor, submission, settlement)
    reactor.advance(7 * DAY)
    reactor.wait(store.purge(reactor.wall_time() - 7 * DAY))
    assert store.show(id) is not None
    reactor.advance(1.0)
    reactor.wait(store.purge(reactor.wall_time() - 7 * DAY))
    assert store.show(id) is None


def test_a_failed_report_owes_no_result_file(store, reactor, submission, settlement):
    """Nobody dropped a file of that name, so nobody waits for a result."""
    failed(store, reactor, submission, settlement)
    assert store.owed_jobs(0, 10) == []
