"""How many conversations there may be, and which connections are kept."""

from __future__ import annotations

from config.settings import Limits
from service.delivery.pool import Pool


def pool(total: int = 500, messages: int = 100, idle: float = 10.0) -> Pool[str]:
    limits = Limits(connections=total, messages_per_connection=messages)
    return Pool(limits, idle)


def test_a_site_has_room_up_to_its_limit() -> None:
    """Each slot taken is one less, each given back one more."""
    slots = pool()
    assert slots.room("a", 3) == 3
    slots.enter("a")
    slots.enter("a")
    assert slots.room("a", 3) == 1
    slots.enter("a")
    assert (slots.room("a", 3), slots.full_at("a", 3)) == (0, True)
    slots.leave("a")
    assert (slots.room("a", 3), slots.full_at("a", 3)) == (1, False)


def test_a_part_of_the_limit_is_kept_for_sites_that_have_none() -> None:
    """Busy sites cannot take the last tenth; a new one gets a first slot out of it."""
    slots = pool(total=20)
    assert slots.room("a", 100) == 18
    for _ in range(18):
        slots.enter("a")
    assert slots.room("a", 100) == 0
    assert slots.room("b", 100) == 1
    slots.enter("b")
    assert slots.room("b", 100) == 0
    slots.enter("c")
    assert (slots.free, slots.room("d", 100)) == (0, 0)


def test_a_limit_of_one_still_delivers() -> None:
    """With one connection in all there is nothing to keep back."""
    slots = pool(total=1)
    assert slots.room("a", 20) == 1
    slots.enter("a")
    assert slots.room("b", 20) == 0


def test_a_kept_connection_is_taken_by_its_site_alone() -> None:
    """The one last used first: the others may then grow old."""
    kept = pool()
    assert kept.keep("a", "first", 1, 0.0)
    assert kept.keep("a", "second", 1, 1.0)
    assert kept.take("b") is None
    assert kept.take("a") == "second"
    assert kept.take("a") == "first"
    assert kept.take("a") is None


def test_a_worn_connection_is_closed_not_kept() -> None:
    """After `messages_per_connection`."""
    kept = pool(messages=2)
    assert kept.keep("a", "young", 1, 0.0)
    assert not kept.keep("a", "worn", 2, 0.0)
    assert kept.idle == 1


def test_nothing_is_kept_when_the_idle_time_is_zero() -> None:
    """`idle: 0` turns keeping off."""
    assert not pool(idle=0.0).keep("a", "one", 1, 0.0)


def test_a_kept_connection_expires() -> None:
    """When its own idle time is over, and not a moment before."""
    kept = pool(idle=10.0)
    kept.keep("a", "first", 1, 0.0)
    kept.keep("b", "second", 1, 5.0)
    assert kept.next_expiry() == 10.0
    assert kept.expire(9.9) == []
    assert kept.expire(10.0) == ["first"]
    assert kept.next_expiry() == 15.0
    assert kept.expire(15.0) == ["second"]
    assert kept.next_expiry() is None


def test_the_longest_idle_makes_way_when_all_are_used_up() -> None:
    """Kept connections count, but never keep anybody from opening one."""
    kept = pool(total=2)
    kept.keep("a", "old", 1, 0.0)
    kept.keep("b", "young", 1, 1.0)
    assert kept.make_room() == []
    kept.enter("c")
    assert kept.make_room() == ["old"]
    kept.enter("d")
    assert kept.make_room() == ["young"]


def test_a_lost_connection_is_forgotten() -> None:
    """Whether it was kept or not."""
    kept = pool()
    kept.keep("a", "one", 1, 0.0)
    kept.gone("one")
    kept.gone("another")
    assert (kept.take("a"), kept.idle) == (None, 0)


def test_a_connection_that_is_closing_counts_until_it_is_gone() -> None:
    """The server still has it."""
    slots = pool(total=2)
    slots.enter("a")
    slots.retire("a", "worn")
    slots.leave("a")
    assert (slots.full_at("a", 1), slots.room("a", 1), slots.free) == (True, 0, 1)
    slots.gone("worn")
    assert (slots.full_at("a", 1), slots.room("a", 1), slots.free) == (False, 1, 2)


def test_emptying_closes_all_that_is_kept() -> None:
    """As before the end, or after a change of passwords."""
    kept = pool()
    kept.keep("a", "one", 1, 0.0)
    kept.keep("b", "two", 1, 0.0)
    assert kept.empty() == ["one", "two"]
    assert kept.idle == 0


def test_who_has_little_gets_what_who_has_much_must_leave() -> None:
    """With nine sites at work on 90 of 100 slots a tenth is free: for one that has none, or few, not for the greedy."""
    slots = pool(total=100)
    for site in "abcdefghi":
        for _ in range(10):
            slots.enter(site)
    assert [slots.room(site, 50) for site in "abcdefghi"] == [0] * 9
    assert slots.room("new", 50) == 5
    for _ in range(5):
        slots.enter("new")
    assert (slots.room("new", 50), slots.free) == (0, 5)
    slots.leave("a")
    slots.leave("b")
    assert (slots.room("a", 50), slots.room("b", 50), slots.room("new", 50)) == (0, 0, 1)


def test_equal_sites_get_equal_shares_and_leave_a_tenth() -> None:
    """However many they are."""
    for number in (1, 2, 5, 30):
        slots = pool(total=500)
        sites = [str(site) for site in range(number)]
        while any(slots.room(site, 1000) for site in sites):
            for site in sites:
                if slots.room(site, 1000):
                    slots.enter(site)
        taken = [slots.busy_at(site) for site in sites]
        assert max(taken) - min(taken) <= 1
        assert 40 <= slots.free <= 70


def test_one_slot_in_all_is_anybodys() -> None:
    """The first conversation is always allowed."""
    slots = pool(total=1)
    assert slots.room("a", 20) == 1
    slots.enter("a")
    assert (slots.room("a", 20), slots.room("b", 20)) == (0, 0)


def test_a_slot_is_kept_only_where_it_would_be_given_again() -> None:
    """A conversation that could go on at once gives way where others have less."""
    slots = pool(total=20)
    for _ in range(18):
        slots.enter("a")
    assert slots.keeps("a")
    slots.enter("b")
    assert (slots.keeps("a"), slots.keeps("b")) == (False, True)
    assert not slots.exceeds("a", 18)
    assert slots.exceeds("a", 17)


def test_a_connection_that_is_given_back_twice_is_kept_once() -> None:
    """A message and the one sent behind it may end with the same read."""
    slots = pool()
    assert slots.keep("a", "one", 1, 0.0)
    assert slots.keep("a", "one", 2, 0.0)
    assert (slots.take("a"), slots.take("a")) == ("one", None)
