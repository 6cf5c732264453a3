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
