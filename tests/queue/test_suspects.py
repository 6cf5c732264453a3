"""Of many messages that a daemon was at work on when it died, the one that killed it is found at its next death."""

from __future__ import annotations

import pytest

from service.queue.aftermath import AtWork
from service.queue.suspects import ASIDE, AT_ONCE, LONGEST_ASIDE, PATIENCE, STRAYS, TURN, WorkedOn


@pytest.fixture
def accept(reactor, open_store, submission):
    """Accept jobs for these domains, named by their place; returns the store."""

    def accept_all(*domains):
        store = open_store()
        jobs = [submission(f"ann@{domain}", name=f"j{n}") for n, domain in enumerate(domains)]
        reactor.wait(store.accept(jobs))
        return store

    return accept_all


@pytest.fixture
def claim(reactor):
    """Claim all that may be had now of a site; returns the claims by the names of their jobs."""

    def claim_all(store, site="a.example"):
        return {claim.name: claim for claim in reactor.wait(store.claim(site, 99))}

    return claim_all


@pytest.fixture
def die(open_store):
    """The daemon dies at work on these, the latest first; returns the next one's store."""

    def die_of(*claims, phase="data", ago=0.0):
        return open_store(before=AtWork(tuple(WorkedOn(claim.id, phase, ago) for claim in claims)))

    return die_of


def names_held(store):
    return [held.name for held in store.aftermath.held]


def test_the_latest_comes_first_and_one_at_a_time(reactor, accept, claim, die, settlement):
    """However late it is: where many wait to be tried, the suspects' turns have come long before."""
    store = accept(*["a.example"] * 3)
    claims = claim(store)
    store = die(claims["j2"], claims["j0"], claims["j1"])
    assert claim(store) == {}
    reactor.advance(ASIDE + 10 * TURN)
    first = claim(store)
    assert list(first) == ["j2"]
    assert claim(store) == {}
    reactor.wait(store.settle([settlement(first["j2"])]))
    assert list(claim(store)) == ["j0"]


def test_between_two_turns_there_is_some_time(reactor, accept, claim, die, settlement):
    """So that who kills the daemon from outside mostly meets none of them at work."""
    store = accept("a.example", "a.example")
    claims = claim(store)
    store = die(claims["j0"], claims["j1"])
    reactor.advance(ASIDE)
    reactor.wait(store.settle([settlement(claim(store)["j0"])]))
    reactor.advance(TURN * 0.9)
    assert claim(store) == {}
    reactor.advance(TURN * 0.1)
    assert list(claim(store)) == ["j1"]


def test_a_suspect_at_another_site_waits_as_well(reactor, accept, claim, die):
    """One is at work, wherever it is."""
    store = accept("a.example", "b.example")
    store = die(claim(store)["j0"], claim(store, "b.example")["j1"])
    reactor.advance(ASIDE + TURN)
    assert list(claim(store)) == ["j0"]
    assert claim(store, "b.example") == {}


def test_a_slow_server_keeps_the_next_suspect_waiting_for_a_moment_only(reactor, accept, claim, die):
    """It would be a long wait for all."""
    store = accept("a.example", "a.example")
    claims = claim(store)
    store = die(claims["j0"], claims["j1"])
    reactor.advance(ASIDE + 10 * TURN)
    assert list(claim(store)) == ["j0"]
    reactor.advance(PATIENCE * 0.9)
    assert claim(store) == {}
    reactor.advance(PATIENCE * 0.1)
    assert list(claim(store)) == ["j1"]


def test_others_wait_for_no_suspect(reactor, accept, claim, die):
    """They are claimed all at once, before the suspects and beside one."""
    store = accept(*["a.example"] * 4)
    claims = claim(store)
    store = die(claims["j0"], claims["j1"])
    assert set(claim(store)) == {"j2", "j3"}
    store = die()
    reactor.advance(ASIDE + TURN)
    assert set(claim(store)) == {"j0", "j2", "j3"}


def test_the_last_of_very_many_suspects_does_not_wait_for_long(reactor, accept, claim, die):
    """Their turns follow the sooner one another."""
    store = accept(*["a.example"] * 400)
    store = die(*(each for _ in range(5) for each in claim(store).values()))
    dues = sorted(due for (due,) in store._look.execute("SELECT due FROM delivery"))
    assert dues[0] == store.now() + ASIDE
    assert len(set(dues)) == 400
    assert dues[-1] <= store.now() + ASIDE + LONGEST_ASIDE


def test_only_the_suspect_whose_turn_it_was_is_held(reactor, accept, claim, die):
    """The others are suspects still, and have come no further."""
    store = accept(*["a.example"] * 5)
    claims = claim(store)
    store = die(*claims.values())
    reactor.advance(ASIDE + 10 * TURN)
    store = die(claim(store)["j0"])
    assert names_held(store) == ["j0"]
    assert store.count().held == 1


def test_before_mail_is_one_point_on_a_new_connection_and_on_a_kept_one(reactor, accept, claim, die):
    """On the kept one no phase has been told yet."""
    store = accept("a.example")
    store = die(*claim(store).values(), phase=None)
    reactor.advance(ASIDE)
    store = die(*claim(store).values(), phase="ehlo")
    assert names_held(store) == ["j0"]


def test_where_death_followed_a_little_later_it_takes_three(reactor, accept, claim, die):
    """A message kills at once; whoever kills from outside meets a step that is some time ago."""
    store = accept("a.example")
    store = die(*claim(store).values(), ago=2 * AT_ONCE)
    reactor.advance(ASIDE)
    store = die(*claim(store).values(), ago=2 * AT_ONCE)
    assert names_held(store) == []
    reactor.advance(ASIDE)
    store = die(*claim(store).values(), ago=2 * AT_ONCE)
    assert names_held(store) == ["j0"]


@pytest.mark.parametrize(("strays", "deaths"), [(0, 2), (STRAYS - 1, 2), (STRAYS, 3)])
def test_after_some_deaths_that_met_no_suspect_it_takes_three(reactor, accept, claim, die, strays, deaths):
    """Somebody kills it from outside: so it may be chance that a suspect was at work. One or two may be another job's
    fault, and the first death never meets a suspect."""
    store = accept(*["a.example"] * (strays + 1))
    first, *others = claim(store).values()
    store = die(first)
    for other in others:
        claim(store)
        store = die(other)
    for _ in range(deaths - 1):
        assert names_held(store) == []
        reactor.advance(ASIDE + len(others) * TURN)
        suspect = claim(store)
        store = die(*suspect.values())
    assert names_held(store) == list(suspect)


def test_once_there_is_no_suspect_it_takes_two_again(reactor, accept, claim, die, settlement):
    """What has been before is over."""
    store = accept(*["a.example"] * (STRAYS + 2))
    *others, last = claim(store).values()
    for other in others:
        store = die(other)
        claim(store)
    store = die()
    for _ in others:
        reactor.advance(ASIDE + LONGEST_ASIDE)
        reactor.wait(store.settle([settlement(one) for one in claim(store).values() if one.id != last.id]))
    store = die()
    store = die(*claim(store).values())
    reactor.advance(ASIDE)
    store = die(*claim(store).values())
    assert names_held(store) == [last.name]
