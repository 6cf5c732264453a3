"""In which order the store hands messages out: by priority, then by time, and nobody waits for ever."""

from __future__ import annotations

import itertools

import apsw
import pytest

from service.queue import commit

SITE = "a.example"


@pytest.fixture
def fill(reactor, store, submission):
    """Accept so many messages of each priority, a moment apart; they are named by it."""

    def some(**numbers):
        for priority, number in numbers.items():
            for _ in range(number):
                reactor.wait(store.accept([submission(name=priority, priority=priority)]), 0.001)

    return some


@pytest.fixture
def claimed(reactor, store):
    """Claim; return the names."""

    def claim(limit):
        return [found.name for found in reactor.wait(store.claim(SITE, limit))]

    return claim


def test_the_more_urgent_goes_first(fill, claimed):
    """Whoever was there before."""
    fill(bulk=2, normal=2, high=2)
    assert claimed(9) == ["high", "high", "normal", "normal", "bulk", "bulk"]


def test_among_equals_who_is_due_first_goes_first(reactor, store, submission):
    """By due time, not by arrival."""
    for name, later in (("third", 30.0), ("first", 10.0), ("second", 20.0)):
        reactor.wait(store.accept([submission(name=name, not_before=reactor.wall_time() + later)]))
    reactor.advance(60.0)
    assert [claim.name for claim in reactor.wait(store.claim(SITE, 9))] == ["first", "second", "third"]


def test_what_is_not_due_is_nobodys_obstacle(reactor, store, submission, fill, claimed):
    """A high one for tomorrow lets the others go, a bulk one for tomorrow is not favoured."""
    reactor.wait(store.accept([submission(name="tomorrow", priority="high", not_before=reactor.wall_time() + 86_400)]))
    reactor.wait(store.accept([submission(name="tomorrow", priority="bulk", not_before=reactor.wall_time() + 86_400)]))
    fill(normal=20)
    assert claimed(20) == ["normal"] * 20


@pytest.mark.parametrize("limit", [1, 3, 10, 100])
def test_one_in_ten_is_not_the_most_urgent(fill, claimed, limit):
    """Bulk and normal in turn, however few are asked for at a time; among themselves in order."""
    fill(high=200, normal=20, bulk=20)
    names = list(itertools.chain.from_iterable(claimed(limit) for _ in range(100 // limit + 1)))[:100]
    assert (names.count("high"), names.count("normal") in (4, 5, 6), names.count("bulk") in (4, 5, 6)) == (
        90,
        True,
        True,
    )


def test_where_there_is_no_bulk_normal_gets_its_part(fill, claimed):
    """And the other way round; where there is neither, nothing is lost over it."""
    fill(high=140, normal=20)
    assert claimed(100).count("normal") == 10
    assert claimed(60).count("normal") == 10
    assert claimed(100) == []


def test_normal_does_not_starve_between_the_two(fill, claimed):
    """With a stream of urgent mail and a mountain of bulk."""
    fill(bulk=300, normal=3)
    seen = []
    for _ in range(10):
        fill(high=10)
        seen += claimed(10)
    assert seen.count("normal") == 3
    assert seen.count("bulk") >= 5


def test_a_priority_belongs_to_each_site(reactor, store, submission):
    """What one site has in plenty shifts nobody's turn at another."""
    for _ in range(20):
        reactor.wait(store.accept([submission(name="high", priority="high")]))
        reactor.wait(store.accept([submission("x@b.example", name="high", priority="high")]))
    reactor.wait(store.accept([submission("x@b.example", name="bulk", priority="bulk")]))
    reactor.wait(store.claim(SITE, 9))
    assert [claim.name for claim in reactor.wait(store.claim("b.example", 9))] == ["high"] * 9
    assert [claim.name for claim in reactor.wait(store.claim("b.example", 1))] == ["bulk"]


def test_a_claim_tells_its_priority_and_keeps_it(reactor, store, submission, settlement, fill):
    """Also after it was given back, put off, or taken back at the next start."""
    fill(bulk=1, high=1)
    high, bulk = reactor.wait(store.claim(SITE, 2))
    assert (high.priority, bulk.priority) == ("high", "bulk")
    reactor.wait(store.unclaim([high]))
    reactor.wait(store.settle([settlement(bulk, "waiting")]))
    reactor.advance(61.0)
    assert [claim.priority for claim in reactor.wait(store.claim(SITE, 2))] == ["high", "bulk"]


def test_a_claim_that_came_back_with_the_log_is_not_made_twice(reactor, store, fill, monkeypatch):
    """COMMIT failed and had reached the log all the same: the same messages, each once."""

    fill(bulk=5, normal=5, high=5)
    real, failing = commit._commit, [OSError]

    def fails_once(connection):
        real(connection)
        if failing:
            failing.pop()
            raise apsw.IOError("disk I/O error")

    monkeypatch.setattr(commit, "_commit", fails_once)
    claims = reactor.wait(store.claim(SITE, 12), 1.0)
    assert sorted(claim.name for claim in claims) == ["bulk"] * 2 + ["high"] * 5 + ["normal"] * 5
    assert len({claim.id for claim in claims}) == 12
    assert len(reactor.wait(store.claim(SITE, 12))) == 3
