"""What a dead daemon had in flight: due at once, held in doubt, or held as deadly."""

from __future__ import annotations

import pytest

from service.queue.aftermath import IN_DOUBT, IS_DEADLY, AtWork
from service.queue.store import Source
from service.queue.suspects import ASIDE, WorkedOn


@pytest.fixture
def die(reactor, open_store, submission):
    """A daemon claims a job, tells how far it came, and dies; returns the next one's store."""

    def die_of(before, *, marked=None, **job):
        store = open_store()
        if not store.count().queued:
            reactor.wait(store.accept([submission(**job)]))
        reactor.advance(ASIDE)
        [claim] = reactor.wait(store.claim("a.example", 1))
        if marked:
            reactor.wait(store.mark(claim, marked))
        works = () if before is None else (WorkedOn(claim.id, before),)
        return open_store(before=AtWork(works))

    return die_of


def test_what_was_in_flight_is_due_at_once_and_may_be_a_second_copy(reactor, die):
    """Nobody knows how far it had come: the next claim says that somebody may have it."""
    store = die(None)
    assert store.aftermath.in_flight == 1
    assert store.aftermath.held == ()
    [claim] = reactor.wait(store.claim("a.example", 1))
    assert (claim.doubts, claim.attempts) == (1, 0)


def test_a_job_to_be_held_in_doubt_whose_dot_was_not_sent_is_no_second_copy(reactor, die):
    """It was not marked, so its final dot had not gone out."""
    store = die(None, in_doubt="hold")
    [claim] = reactor.wait(store.claim("a.example", 1))
    assert claim.doubts == 0


def test_a_job_whose_final_dot_may_be_out_is_held(reactor, die):
    """Its recipients show why; releasing it sends it again, as a possible second copy."""
    store = die(None, in_doubt="hold", marked="mx:25")
    [held] = store.aftermath.held
    assert (held.in_doubt, held.host, held.recipients) == (True, "mx:25", ("ann@a.example",))
    [view] = store.list(state="held")
    [recipient] = view.recipients
    assert (recipient.state, recipient.code, recipient.host, recipient.phase) == ("waiting", None, "mx:25", "confirm")
    assert recipient.text == IN_DOUBT
    assert recipient.at is not None
    assert reactor.wait(store.claim("a.example", 1)) == []
    assert len(store.owed_jobs(0, 5)) == 1
    reactor.wait(store.change("release", [view.id], None))
    [claim] = reactor.wait(store.claim("a.example", 1))
    assert claim.doubts == 1


@pytest.mark.parametrize("ending", ["settled", "given back"])
def test_a_mark_ends_with_its_claim(reactor, open_store, store, submission, settlement, ending):
    """A daemon that dies in a later attempt, before its final dot, leaves no doubt."""
    reactor.wait(store.accept([submission(in_doubt="hold")]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.mark(claim, "mx:25"))
    if ending == "settled":
        reactor.wait(store.settle([settlement(claim, "waiting", due=reactor.wall_time())]))
    else:
        reactor.wait(store.unclaim([claim]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    assert open_store().aftermath.held == ()


def test_a_job_that_is_gone_cannot_be_marked(reactor, store, submission):
    """It was removed during the attempt: nothing must be sent any more."""
    reactor.wait(store.accept([submission(in_doubt="hold")]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.change("remove", [claim.id], None))
    with pytest.raises(LookupError):
        reactor.wait(store.mark(claim, "mx:25"))


def test_a_job_at_which_two_daemons_died_is_held(reactor, die):
    """Both times at the same point: it is not tried a third time, until somebody says so."""
    assert die("data").aftermath.held == ()
    store = die("data")
    [held] = store.aftermath.held
    assert (held.why, held.in_doubt) == (IS_DEADLY, False)
    [view] = store.list(state="held")
    assert view.recipients[0].text == IS_DEADLY
    assert reactor.wait(store.claim("a.example", 1)) == []


def test_deaths_at_different_points_are_no_proof(die):
    """What kills does so at the same point again; a job that was merely at hand is let alone."""
    assert die("ehlo").aftermath.held == ()
    assert die("data").aftermath.held == ()
    assert die("confirm").aftermath.held == ()


def test_a_death_while_nothing_was_worked_on_is_nobodys(reactor, die):
    """Nor does it end what was suspected before."""
    assert die("ehlo").aftermath.held == ()
    assert die(None).aftermath.held == ()
    assert [held.why for held in die("ehlo").aftermath.held] == [IS_DEADLY]


def test_a_job_that_came_to_the_end_of_an_attempt_has_done_no_harm(reactor, die, settlement):
    """Whatever the server said: the next death counts as the first."""
    store = die("data")
    reactor.advance(ASIDE)
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(claim, "waiting", due=reactor.wall_time())]))
    assert die("data").aftermath.held == ()
    assert [held.why for held in die("data").aftermath.held] == [IS_DEADLY]


def test_at_each_start_the_others_go_first(reactor, open_store, submission):
    """Whoever kills a daemon again and again just after its start does not meet the same job each time."""
    store = open_store()
    reactor.wait(store.accept([submission(name=f"j{n}") for n in range(2)]))
    first, second = reactor.wait(store.claim("a.example", 5))
    for _ in range(3):
        store = open_store(before=AtWork((WorkedOn(first.id, None),)))
        assert [claim.id for claim in reactor.wait(store.claim("a.example", 5))] == [second.id]
    reactor.advance(ASIDE)
    assert [claim.id for claim in reactor.wait(store.claim("a.example", 5))] == [first.id]


def test_only_what_was_worked_on_is_blamed(reactor, open_store, submission):
    """The jobs beside it go on."""
    store = open_store()
    reactor.wait(store.accept([submission(name=f"j{n}") for n in range(3)]))
    for _ in range(2):
        reactor.advance(ASIDE)
        claims = reactor.wait(store.claim("a.example", 3))
        store = open_store(before=AtWork((WorkedOn(min(claim.id for claim in claims), "data"),)))
    assert [view.name for view in store.list(state="held")] == ["j0"]
    assert len(reactor.wait(store.claim("a.example", 3))) == 2


def test_a_job_that_was_not_in_flight_is_not_blamed(reactor, open_store, submission, settlement):
    """It had been settled: what came after it did the harm."""
    store = open_store()
    [accepted] = reactor.wait(store.accept([submission()]))
    for _ in range(3):
        store = open_store(before=AtWork((WorkedOn(accepted.id, "data"),)))
        assert store.aftermath.held == ()


def test_what_an_operator_holds_in_flight_is_held_by_him(reactor, open_store, submission):
    """Not by us: nothing is said of it."""
    store = open_store()
    [accepted] = reactor.wait(store.accept([submission()]))
    reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.change("hold", [accepted.id], None))
    store = open_store()
    assert store.aftermath.held == ()
    assert store.show(accepted.id).state == "held"


def test_a_released_job_has_its_lives_again(reactor, die, open_store):
    """Somebody has looked at it: one more death is not enough."""
    die("data")
    store = die("data")
    [view] = store.list(state="held")
    reactor.wait(store.change("release", [view.id], None))
    assert die("data").aftermath.held == ()
    assert [held.why for held in die("data").aftermath.held] == [IS_DEADLY]


def test_a_file_over_which_two_daemons_died_is_deadly(open_store):
    """As long as it is there; another of its name is another."""
    file = Source("evil.json", 1, 2, 3)
    before = AtWork(files=(file,))
    assert open_store(before=before, present=lambda _: True).aftermath.deadly == ()
    assert open_store(present=lambda _: True).aftermath.deadly == ()
    assert open_store(before=before, present=lambda _: True).aftermath.deadly == (file,)
    assert open_store(present=lambda _: True).aftermath.deadly == (file,)
    assert open_store(present=lambda _: False).aftermath.deadly == ()
    assert open_store(before=before, present=lambda _: True).aftermath.deadly == ()
