"""What waits follows the routes, however often these change."""

from __future__ import annotations

import apsw
import pytest

from service.queue.store import StoreFailed


def to(site):
    """Routes that send all to one site."""
    return lambda _: site


def test_routes_that_come_back_during_a_pass_win(reactor, store, submission):
    """From A to B and back to A before the pass to B is over: all goes to A, and the store knows that."""
    reactor.wait(store.accept([submission(name=f"m{i}", sites=("a",)) for i in range(450)]))
    reactor.wait(store.reroute(to("a"), "A"))
    away = store.reroute(to("b"), "B")
    while not any(one.site == "b" for one in store.backlog()):
        reactor.turn()
    assert not away.called
    reactor.wait(store.reroute(to("a"), "A"))
    assert away.called
    assert [one.site for one in store.backlog()] == ["a"]
    assert reactor.wait(store.reroute(to("b"), "B")) == 450


def test_routes_that_come_back_before_a_pass_begins_win(reactor, store, submission):
    """The earlier pass finds itself outdated before its first transaction."""
    reactor.wait(store.accept([submission(sites=("a",))]))
    reactor.wait(store.reroute(to("a"), "A"))
    away, back = store.reroute(to("b"), "B"), store.reroute(to("a"), "A")
    assert (reactor.wait(away), reactor.wait(back)) == (0, 0)
    assert [one.site for one in store.backlog()] == ["a"]


def test_a_pass_that_a_crash_cut_short_is_taken_up_by_the_former_routes_too(reactor, open_store, submission):
    """From its first transaction on the queue is as no routes have it."""
    store = open_store()
    reactor.wait(store.accept([submission(name=f"m{i}", sites=("a",)) for i in range(450)]))
    reactor.wait(store.reroute(to("a"), "A"))
    store.reroute(to("b"), "B").add_errback(lambda _: None)
    while not any(one.site == "b" for one in store.backlog()):
        reactor.turn()
    reactor.wait(store.close())
    after = open_store()
    reactor.wait(after.reroute(to("a"), "A"))
    assert [one.site for one in after.backlog()] == ["a"]


def test_a_claim_made_during_a_pass_moves_when_it_lands(reactor, store, submission, settlement):
    """It may have been made of what the pass had not reached."""
    reactor.wait(store.accept([submission(name=f"m{i}", sites=("a",)) for i in range(3)]))
    moving, claiming = store.reroute(to("b"), "B"), store.claim("a", 3)
    claims = reactor.wait(claiming)
    reactor.wait(moving)
    reactor.wait(store.settle([settlement(claim, "waiting") for claim in claims[:1]]))
    reactor.wait(store.unclaim(claims[1:]))
    assert [one.site for one in store.backlog()] == ["b"]


def test_who_settles_hears_where_the_rest_waits_now(reactor, store, submission, settlement, outcome):
    """The site that nobody has woken: where the waiting recipients of the claim have gone, and only those."""
    reactor.wait(store.accept([submission("x@b", "y@b", "z@b", "v@c", sites=("a", "a", "a", "c"))]))
    [claim] = reactor.wait(store.claim("a", 1))
    reactor.wait(store.reroute(lambda address: f"to-{address[0]}", "2"))
    outcomes = (outcome("x@b", "delivered"), outcome("y@b", "waiting"), outcome("z@b", "waiting"))
    [settled] = reactor.wait(store.settle([settlement(claim, "waiting", outcomes=outcomes)]))
    assert settled.sites == ("to-y", "to-z")


def test_a_settlement_names_the_claims_own_site_only_where_somebody_waits_there(reactor, store, submission, settlement):
    """Without new routes it is one look into an index."""
    reactor.wait(store.accept([submission("x@a", sites=("a",)), submission("y@b", "v@c", sites=("a", "c"))]))
    claims = reactor.wait(store.claim("a", 2))
    one, two = reactor.wait(store.settle([settlement(claims[0], "waiting"), settlement(claims[1])]))
    assert (one.sites, two.sites, two.state) == (("a",), (), "queued")


def test_who_gives_claims_back_hears_where_they_wait_now(reactor, store, submission):
    """Once each, whether they moved or not; a removed job waits nowhere."""
    reactor.wait(store.accept([submission(name=f"m{i}", sites=("a",)) for i in range(3)]))
    assert reactor.wait(store.unclaim(reactor.wait(store.claim("a", 1)))) == ["a"]
    claims = reactor.wait(store.claim("a", 3))
    reactor.wait(store.reroute(to("b"), "2"))
    reactor.wait(store.change("remove", [claims[0].id], None))
    assert reactor.wait(store.unclaim(claims[:1])) == []
    assert reactor.wait(store.unclaim(claims[1:])) == ["b"]


@pytest.mark.parametrize(
    ("going", "there", "after"),
    [
        ("ready", "ready", "queued"),
        ("ready", "held", "held"),
        ("held", "ready", "held"),
        ("held", "held", "held"),
        ("ready", "in flight", "queued"),
        ("held", "in flight", "held"),
    ],
)
def test_what_is_held_stays_held_where_it_joins_others(reactor, store, submission, settlement, going, there, after):
    """Two parts of a job that new routes bring together: held wins, over what is in flight once that lands."""
    [job] = reactor.wait(store.accept([submission("x@a", "y@b", sites=("a", "b"))]))
    claims = reactor.wait(store.claim("b", 1)) if there == "in flight" else []
    for site, state in (("a", going), ("b", there)):
        if state == "held":
            reactor.wait(store.change("hold", None, site))
    reactor.wait(store.reroute(to("b"), "2"))
    reactor.wait(store.settle([settlement(claim, "waiting") for claim in claims]))
    assert store.show(job.id).state == after
    reactor.advance(100)
    assert [claim.recipients for claim in reactor.wait(store.claim("b", 9))] == [("x@a", "y@b")] * (after == "queued")
    reactor.wait(store.change("release", None, None))
    assert len(reactor.wait(store.claim("b", 9))) == (after == "held")


def test_what_joins_others_is_due_with_the_first_and_counts_the_most(reactor, store, submission, settlement):
    """Neither loses attempts, doubts or a warning by it."""
    reactor.wait(store.accept([submission("x@a", "y@b", sites=("a", "b"))]))
    [a], [b] = reactor.wait(store.claim("a", 1)), reactor.wait(store.claim("b", 1))
    soon, late = reactor.wall_time() + 5, reactor.wall_time() + 500
    tried = settlement(a, "waiting", due=late, doubt=True, warned=True)
    reactor.wait(store.settle([tried, settlement(b, "waiting", due=soon)]))
    reactor.wait(store.reroute(to("b"), "2"))
    assert store.next_due("b") == soon
    reactor.advance(6)
    [claim] = reactor.wait(store.claim("b", 1))
    assert (claim.attempts, claim.doubts, claim.warned) == (1, 1, True)


def test_a_slice_of_a_pass_is_bounded_by_its_recipients(reactor, store, submission):
    """Large jobs go one by one, small ones together, and a domain is looked up once in each."""
    many = [f"u{i}@many" for i in range(600)]
    jobs = [submission(*many, name=f"m{i}", sites=("a",) * 600) for i in range(3)]
    reactor.wait(store.accept(jobs + [submission(name=f"s{i}", sites=("a",)) for i in range(5)]))
    asked = []

    def site_of(address):
        asked.append(address)
        return "b"

    assert reactor.wait(store.reroute(site_of, "2")) == 8
    assert len(asked) == 4


def test_a_look_that_the_disk_fails_says_so_in_the_stores_words(store):
    """Nobody outside knows the engine's errors."""

    class Failing:
        def execute(self, *_):
            raise apsw.IOError("disk I/O error")

    look, store._look = store._look, Failing()
    try:
        for ask in (store.backlog, lambda: store.next_due("a"), store.count, lambda: store.show("0" * 12), store.list):
            with pytest.raises(StoreFailed, match=r"queue\.db: disk"):
                ask()
    finally:
        store._look = look
