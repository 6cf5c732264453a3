"""Happy Eyeballs, in virtual time: which address is tried when, and what becomes of the losers."""

from __future__ import annotations

import pytest

from deferred.connect import connect, in_turns
from deferred.defer import CancelledError, Deferred, fail, succeed

SIX, SIX_TOO, FOUR, FOUR_TOO = ("2001:db8::1", 25), ("2001:db8::2", 25), ("192.0.2.1", 25), ("192.0.2.2", 25)


class Dialer:
    """Notes when each address is dialled, and answers when told to."""

    def __init__(self, clock):
        self.clock = clock
        self.times = {}
        self.dialling = {}
        self.given_up = []
        self.dropped = []

    def dial(self, address):
        self.times[address] = self.clock.time()
        self.dialling[address] = Deferred(lambda _: self.given_up.append(address))
        return self.dialling[address]

    def connect(self, addresses, **options):
        """Begin, and note the outcome in `outcome`."""
        self.outcome = []
        deferred = connect(self.clock, addresses, self.dial, self.dropped.append, **options)
        deferred.add_callbacks(self.outcome.append, lambda failure: self.outcome.append(failure.value))
        return deferred


@pytest.fixture
def dialer(clock):
    return Dialer(clock)


def test_families_take_turns():
    """In the order of the resolver, beginning with its favourite."""
    assert in_turns([SIX, SIX_TOO, FOUR, FOUR_TOO]) == [SIX, FOUR, SIX_TOO, FOUR_TOO]
    assert in_turns([FOUR, FOUR_TOO, SIX]) == [FOUR, SIX, FOUR_TOO]
    assert in_turns([FOUR]) == [FOUR]


def test_the_next_address_is_tried_a_quarter_of_a_second_later(dialer, clock):
    """Beside the one that has not answered yet."""
    dialer.connect([SIX, SIX_TOO, FOUR])
    clock.advance(3)
    assert dialer.times == {SIX: 0, FOUR: 0.25, SIX_TOO: 0.5}
    assert dialer.given_up == []
    dialer.dialling[SIX].callback("six")
    assert dialer.outcome == ["six"]
    assert sorted(dialer.given_up) == sorted([FOUR, SIX_TOO])
    assert clock.pending == 0


def test_a_failure_has_the_next_address_tried_at_once(dialer, clock):
    """And the one after that a full step later."""
    dialer.connect([SIX, SIX_TOO, FOUR])
    clock.advance(0.1)
    dialer.dialling[SIX].errback(OSError("no route"))
    clock.advance(1)
    assert dialer.times == {SIX: 0, FOUR: 0.1, SIX_TOO: 0.35}
    dialer.dialling[FOUR].callback("four")
    assert dialer.outcome == ["four"]
    assert dialer.given_up == [SIX_TOO]


def test_when_all_have_failed_the_last_failure_tells(dialer, clock):
    """Only then."""
    dialer.connect([SIX, FOUR])
    clock.advance(1)
    dialer.dialling[FOUR].errback(OSError("four"))
    assert dialer.outcome == []
    dialer.dialling[SIX].errback(OSError("six"))
    assert str(dialer.outcome[0]) == "six"
    assert clock.pending == 0


def test_time_runs_out_for_all_together(dialer, clock):
    """All that is under way is given up."""
    dialer.connect([SIX, FOUR], timeout=30)
    clock.advance(30)
    assert isinstance(dialer.outcome[0], TimeoutError)
    assert dialer.given_up == [SIX, FOUR]
    assert clock.pending == 0


def test_cancelling_gives_up_all_that_is_under_way(dialer, clock):
    """And tries nothing more."""
    deferred = dialer.connect([SIX, FOUR, SIX_TOO], timeout=30)
    clock.advance(0.3)
    deferred.cancel()
    clock.advance(5)
    assert isinstance(dialer.outcome[0], CancelledError)
    assert dialer.given_up == [SIX, FOUR]
    assert clock.pending == 0


def test_one_that_answers_too_late_is_closed(clock):
    """Where giving up came too late to stop it."""
    late = Deferred(lambda deferred: deferred.callback("late"))
    dropped = []
    answers = {SIX: late, FOUR: succeed("four")}
    deferred = connect(clock, [SIX, FOUR], answers.__getitem__, dropped.append)
    assert clock.run(deferred) == "four"
    assert dropped == ["late"]


def test_without_an_address_there_is_an_error(clock):
    """Not a wait without end."""
    with pytest.raises(OSError, match="no address"):
        clock.run(connect(clock, [], lambda address: succeed(address), lambda _: None))


def test_addresses_that_fail_at_once_are_gone_through(clock):
    """Without waiting in between."""
    tried = []

    def dial(address):
        tried.append(address)
        return succeed("there") if address == FOUR_TOO else fail(OSError("no"))

    assert clock.run(connect(clock, [FOUR, SIX, FOUR_TOO], dial, lambda _: None)) == "there"
    assert tried == [FOUR, SIX, FOUR_TOO]
    assert clock.time() == 0


@pytest.mark.parametrize("last", [FOUR_TOO, None])
def test_any_number_of_addresses_may_fail_at_once(clock, last):
    """A thousand of them are no calls in calls."""
    addresses = [(f"192.0.2.{number}", number) for number in range(1000)] + ([last] if last else [])

    def dial(address):
        return succeed("there") if address == FOUR_TOO else fail(OSError(f"no {address[1]}"))

    deferred = connect(clock, addresses, dial, lambda _: None)
    if last:
        assert clock.run(deferred) == "there"
    else:
        with pytest.raises(OSError, match="no 999"):
            clock.run(deferred)
    assert clock.pending == 0


def test_a_dial_that_raises_has_failed(clock):
    """The next address is tried, and the error is told if there is none."""

    def dial(address):
        if address == FOUR:
            raise OverflowError("no port")
        return succeed("there")

    assert clock.run(connect(clock, [FOUR, SIX], dial, lambda _: None)) == "there"
    with pytest.raises(OverflowError):
        clock.run(connect(clock, [FOUR], dial, lambda _: None))
