"""How fast a site is served."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.delivery.pace import Concurrency, TokenBucket

# tokens


def departures(bucket: TokenBucket, start: float, end: float, late: float = 0.0) -> list[float]:
    """When messages leave of which there are always more, by a timer that is late by that much each time."""
    left = []
    now = start
    while now < end:
        taken = bucket.take(now, most=1000)
        assert taken, "the time that `when` named had no token"
        left += [now] * taken
        now = bucket.when(now) + late
        assert now > left[-1], "a scheduler would turn on the spot"
    return left


def test_thirty_a_minute_are_one_every_two_seconds() -> None:
    """Not thirty at once and then none: the first goes now, the last of a minute after 58 seconds."""
    assert departures(TokenBucket(30 / 60), 0.0, 60.0) == pytest.approx([2.0 * n for n in range(30)])


@pytest.mark.parametrize("rate", [1 / 86_400, 1000 / 3600, 0.5, 10.0])
def test_silence_saves_nothing_up(rate: float) -> None:
    """After a day without mail, or with the site away, a second message waits as after any other."""
    bucket = TokenBucket(rate)
    bucket.take(0.0)
    later = 10 * 86_400.0
    assert bucket.take(later, most=1000) == 1
    assert bucket.when(later) == pytest.approx(later + 1 / rate)


@pytest.mark.parametrize(("rate", "at_once"), [(40.0, 2), (100.0, 5), (1000.0, 50)])
def test_a_high_rate_keeps_the_tokens_of_fifty_milliseconds(rate: float, at_once: int) -> None:
    """A timer cannot ring a thousand times a second, so each time there are a few."""
    assert TokenBucket(rate).take(7.0, most=1000) == pytest.approx(at_once, abs=1)


@pytest.mark.parametrize("rate", [100.0, 1000.0])
def test_late_timers_do_not_slow_a_high_rate(rate: float) -> None:
    """What a timer is late by is made good at the next."""
    left = departures(TokenBucket(rate), 0.0, 10.0, late=0.01)
    assert len(left) == pytest.approx(10 * rate, rel=0.02)


def test_what_is_asked_for_at_most_bounds_what_is_taken() -> None:
    """The others stay for the next."""
    bucket = TokenBucket(100.0)
    assert bucket.take(5.0, most=0) == 0
    assert bucket.take(5.0, most=2) == 2
    assert bucket.take(5.0, most=1000) in (2, 3)
    assert bucket.take(5.0) == 0


def test_a_look_takes_nothing() -> None:
    """What will be there is what `take` finds then, however often it is asked for."""
    bucket = TokenBucket(64.0)
    assert [bucket.available(5.0, 10), bucket.available(5.0, 10), bucket.available(5.0, 1)] == [3, 3, 1]
    assert bucket.take(5.0, most=10) == 3
    assert [bucket.available(5.01, 10), bucket.available(5.02, 10), bucket.available(5.03, 10)] == [0, 1, 2]
    assert TokenBucket(None).available(0.0, 7) == 7


def test_without_a_rate_there_is_no_limit() -> None:
    """As many as are wanted, at any time."""
    bucket = TokenBucket(None)
    assert [bucket.take(5.0, most=500), bucket.take(5.0, most=500), bucket.take(5.0)] == [500, 500, 1]
    assert bucket.when(5.0) == 5.0


def test_a_new_rate_counts_what_went_before() -> None:
    """A reload is no new allowance, and does not make anybody wait by the old rate."""
    bucket = TokenBucket(0.5)
    bucket.take(10.0)
    bucket.configure(0.1)
    assert (bucket.take(11.0), bucket.when(11.0)) == (0, pytest.approx(20.0))
    bucket.configure(1.0)
    assert bucket.when(10.5) == pytest.approx(11.0)
    bucket.configure(None)
    assert bucket.take(10.5, most=3) == 3
    bucket.configure(0.5)
    assert (bucket.take(10.5), bucket.when(10.5)) == (0, pytest.approx(12.5, abs=0.1))


RATES = st.floats(1 / 86_400, 1000.0)


@given(RATES, st.floats(0, 1e7), st.lists(st.tuples(st.floats(0, 100), st.integers(0, 30), st.booleans()), max_size=40))
def test_in_no_time_do_more_go_than_the_rate_allows(
    rate: float, start: float, calls: list[tuple[float, int, bool]]
) -> None:
    """Whenever they are asked for, however many: in each stretch of time rate x t, and those at once."""
    bucket, now = TokenBucket(rate), start
    went: list[tuple[float, int]] = []
    for pause, most, used in calls:
        now += pause / rate
        there = bucket.available(now, most)
        assert there <= most
        if used:
            assert bucket.take(now, most) == there
            went.append((now, there))
    at_once = max(1.0, 0.05 * rate)
    for number, (first, _) in enumerate(went):
        for end, (last, _) in enumerate(went[number:], number):
            assert sum(taken for _, taken in went[number : end + 1]) <= rate * (last - first) + at_once + 1e-3


@given(RATES, st.floats(0, 1e7))
@example(10.0, 0.3)
@example(1 / 3, 1e7)
def test_who_comes_at_the_time_that_was_named_gets_a_token(rate: float, start: float) -> None:
    """To the last bit: else a scheduler would come again and again at the same moment."""
    bucket = TokenBucket(rate)
    moments = departures(bucket, start, start + 20 / rate)
    assert len(set(moments)) >= 2
    assert all(later - earlier <= 1 / rate + 1e-6 for earlier, later in pairwise(moments))


# conversations at once


def served(concurrency: Concurrency, times: int, began: float = 1.0) -> int:
    """The limit after so many conversations that were served while all of it was in use."""
    for _ in range(times):
        concurrency.succeeded(began, concurrency.limit)
    return concurrency.limit


def test_a_site_of_which_nothing_is_known_gets_five() -> None:
    """Or as many as it may have at most, if these are fewer."""
    assert Concurrency(20).limit == 5
    assert Concurrency(3).limit == 3


def test_until_something_fails_each_round_doubles_the_limit() -> None:
    """One more for each that was served: ten thousand are a matter of seconds."""
    concurrency = Concurrency(10_000)
    assert [served(concurrency, times) for times in (1, 4, 10, 20)] == [6, 10, 20, 40]


def test_after_a_failure_each_round_that_is_served_adds_one() -> None:
    """Five conversations at five, then six at six."""
    concurrency = Concurrency(20)
    served(concurrency, 5)
    concurrency.failed(1.0, 2.0)
    assert [served(concurrency, times, began=3.0) for times in (4, 1, 5, 1)] == [5, 6, 6, 7]


def test_the_limit_goes_up_to_the_ceiling_and_stays() -> None:
    """However well the site serves."""
    concurrency = Concurrency(20)
    assert served(concurrency, 14) == 19
    assert served(concurrency, 1) == 20
    assert served(concurrency, 10_000) == 20


def test_a_failure_halves_the_limit() -> None:
    """And the round begins anew."""
    concurrency = Concurrency(20)
    served(concurrency, 3)
    assert concurrency.failed(1.0, 2.0)
    assert concurrency.limit == 4
    assert served(concurrency, 3, began=3.0) == 4
    assert served(concurrency, 1, began=3.0) == 5


def test_one_is_always_allowed() -> None:
    """Somebody must find out whether the site is back, and from one it goes up again."""
    concurrency = Concurrency(20)
    for now in range(1, 10):
        assert concurrency.failed(now, now + 0.5)
    assert concurrency.limit == 1
    assert [served(concurrency, 1, began=10.0), served(concurrency, 2, began=10.0)] == [2, 3]


def test_what_fails_together_counts_once() -> None:
    """Twenty conversations that die with their server halve the limit, not divide it by a million."""
    concurrency = Concurrency(20)
    served(concurrency, 1000)
    assert [concurrency.failed(began, 8.0 + began / 10) for began in (3.0, 1.0, 2.0, 8.3)] == [
        True,
        False,
        False,
        False,
    ]
    assert concurrency.limit == 10
    assert concurrency.failed(8.4, 9.0)
    assert concurrency.limit == 5


def test_what_began_and_failed_at_the_same_moment_counts_once() -> None:
    """A port that refuses does so at once, and all find it out within one turn."""
    concurrency = Concurrency(20)
    assert [concurrency.failed(1.0, 1.0) for _ in range(5)] == [True, False, False, False, False]
    assert concurrency.limit == 2


def test_a_success_from_before_the_failure_does_not_raise_the_limit() -> None:
    """It tells how the site was, not how it is."""
    concurrency = Concurrency(20)
    concurrency.failed(1.0, 2.0)
    assert served(concurrency, 100, began=1.9) == 2
    assert served(concurrency, 2, began=2.1) == 3


def test_a_limit_that_is_not_used_does_not_go_up() -> None:
    """A message now and then for a week shows nothing of how the site would cope with twenty at once."""
    concurrency = Concurrency(20)
    for began in range(10_000):
        concurrency.succeeded(float(began), 2)
    assert concurrency.limit == 5
    for began in range(5):
        concurrency.succeeded(float(began), 3)
    assert concurrency.limit == 6, "three of six are half, not more"
    for began in range(10_000):
        concurrency.succeeded(float(began), 3)
    assert concurrency.limit == 6, "half of it is in use, not more"


def test_a_lower_ceiling_holds_at_once_and_a_higher_one_is_worked_for() -> None:
    """After a reload."""
    concurrency = Concurrency(20)
    served(concurrency, 1000)
    concurrency.configure(4)
    assert concurrency.limit == 4
    concurrency.configure(100)
    assert concurrency.limit == 4
    assert served(concurrency, 1) == 5


@pytest.mark.parametrize("capacity", [1, 3, 8, 15])
def test_what_a_site_copes_with_is_found_and_kept_near(capacity: int) -> None:
    """A site that refuses those beyond its capacity with 421 is never asked for more than one too many."""
    concurrency, now, limits, accepted = Concurrency(20), 0.0, [], 0
    for _ in range(200):  # rounds, in each of which all that may be is under way
        now += 1.0
        limits.append(concurrency.limit)
        for number in range(limits[-1]):
            if number < capacity:
                concurrency.succeeded(now, limits[-1])
                accepted += 1
        if limits[-1] > capacity:
            concurrency.failed(now, now + 0.5)
    settled = limits[20:]
    assert max(settled) == capacity + 1
    assert min(settled) == max(1, (capacity + 1) // 2)
    assert accepted > 0.6 * capacity * 200


@given(
    st.integers(1, 30),
    st.lists(st.tuples(st.sampled_from("sfc"), st.floats(0, 10), st.integers(1, 40)), max_size=100),
)
def test_the_limit_is_always_from_one_to_the_ceiling(ceiling: int, events: list[tuple[str, float, int]]) -> None:
    """Whatever is told, in whatever order."""
    concurrency, now = Concurrency(ceiling), 0.0
    for event, since, number in events:
        now += 1.0
        before = concurrency.limit
        if event == "s":
            concurrency.succeeded(now - since, number)
            assert before <= concurrency.limit <= before + 1
        elif event == "f":
            told = concurrency.failed(now - since, now)
            assert concurrency.limit == (max(1, before // 2) if told else before)
        else:
            ceiling = number
            concurrency.configure(ceiling)
        assert 1 <= concurrency.limit <= ceiling
