"""What waits follows the routes, however often these change."""

from __future__ import annotations


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
