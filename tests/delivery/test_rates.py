"""A site's rate is kept message by message: however many connections there are, and whatever happens in between."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from service.message.outcome import State
from service.queue.store import Pace
from tests.delivery.room import PORT, SITE, Room, many, sites
from tests.fakes.smtp_server import Then


def begun(room: Room) -> list[float]:
    """When attempts began, in seconds since the room was made."""
    return room.when("attempt_started")


def rated(room: Room, rate: float | None, **limits: int) -> Room:
    return room.configured(limits={"rate_per_site": rate, **limits})


def started(room: Room, rate: float | None) -> None:
    """The daemon is started, which knows what a former one has noted."""
    rated(room, rate).delivery.start()


def again(room: Room, rate: float | None, *, away: float) -> None:
    """It was stopped, and is started again on the same store after a while."""
    room.delivery.drain(1.0)
    room.advance(away)
    started(room, rate)


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


@pytest.mark.parametrize("commit_time", [0.0, 0.05])
def test_thirty_a_minute_leave_one_by_one(room: Room, commit_time: float) -> None:
    """One every two seconds, each at its time, though the disk needs its own; no thirty in a row and then none."""
    rated(room, 0.5)
    room.store.commit_time = commit_time
    many(room, 40)
    room.advance(59.5)
    assert gaps(begun(room)) == pytest.approx([2.0] * 29, abs=0.001)
    assert len(room.server.messages) == 30


def test_slow_conversations_do_not_slow_the_rate(room: Room) -> None:
    """Each takes some seconds, so that several are under way at a time, and the rate is one for all of them."""
    rated(room, 1.0)
    room.server.latency = 1.0
    many(room, 100)
    room.advance(60.0)
    assert gaps(begun(room)) == pytest.approx([1.0] * 60, abs=0.001)
    assert room.server.most_open >= 3


@pytest.mark.parametrize("rate", [10.0, 100.0])
def test_a_high_rate_is_reached_and_kept(room: Room, rate: float) -> None:
    """In no second more than it allows, and those of 50 ms; over a while, what it allows."""
    rated(room, rate)
    room.store.commit_time = 0.005
    room.server.latency = 0.01
    many(room, 1000)
    room.advance(8.0)
    times = begun(room)
    assert len(times) == pytest.approx(8 * rate, rel=0.05)
    burst = max(1.0, 0.05 * rate)
    for second in range(80):
        within = [at for at in times if second / 10 <= at < second / 10 + 1]
        assert len(within) <= rate + burst


def test_nothing_is_saved_up(room: Room) -> None:
    """After an hour without mail, no more than ever."""
    rated(room, 0.5)
    many(room, 1)
    room.advance(3600.0)
    many(room, 5)
    room.advance(20.0)
    assert gaps(begun(room))[1:] == pytest.approx([2.0] * 4, abs=0.001)


def test_a_site_that_is_back_has_no_arrears(room: Room) -> None:
    """An outage of an hour, and then one every two seconds; tries count as messages."""
    rated(room, 0.5)
    room.server.close()
    many(room, 100)
    room.advance(3600.0)
    assert min(gaps(begun(room))) > 1.999
    before = len(begun(room))
    room.server.listen("192.0.2.1", PORT)
    room.advance(360.0)
    assert min(gaps(begun(room))) > 1.999
    assert len(begun(room)) - before > 50


@pytest.mark.parametrize(("old", "new"), [(1 / 3600, 1.0), (1.0, 0.1), (1.0, None), (None, 1.0)])
def test_a_new_rate_counts_at_once(room: Room, old: float | None, new: float | None) -> None:
    """After a reload nobody waits for the time of the old one, and nobody gets a second first message."""
    rated(room, old, connections_per_site=1)
    room.server.latency = 0.1
    many(room, 200)
    room.advance(5.5)
    before = len(begun(room))
    limits = msgspec.structs.replace(room.settings.limits, rate_per_site=new)
    room.delivery.configure(msgspec.structs.replace(room.settings, limits=limits))
    at = room.now
    room.advance(20.0)
    after = [time for time in begun(room) if time > at]
    if new is None:
        assert len(after) > 40
    else:
        assert len(after) == pytest.approx(20 * new, abs=1)
        assert gaps(after) == pytest.approx([1 / new] * (len(after) - 1), abs=0.001)
        assert after[0] - begun(room)[before - 1] == pytest.approx(1 / new, abs=0.4) or old in (None, 1 / 3600)


def test_what_no_route_fits_waits_for_no_token(room: Room) -> None:
    """No server is asked, so none has to be spared: the senders learn of it at once."""
    (route,) = room.settings.routes
    rated(room, 1 / 60).configured(routes=(msgspec.structs.replace(route, domains=("b.example",)),))
    many(room, 30, "nowhere.example")
    room.advance(1.0)
    assert len(room.told("failed")) == 30


def test_a_routes_own_rate_counts(room: Room) -> None:
    """Another route's site goes as fast as it can."""
    slow, quick = sites(room, 2)
    first, second = room.settings.routes
    room.configured(routes=(msgspec.structs.replace(first, rate=1.0), second))
    many(room, 30, "s0.example")
    many(room, 30, "s1.example")
    room.advance(9.5)
    assert (len(slow.messages), len(quick.messages)) == (10, 30)


def test_nothing_lies_claimed_until_its_time_has_come(room: Room) -> None:
    """At one message an hour: what is urgent overtakes it, an order reaches it, and a death finds nothing in flight."""
    rated(room, 1 / 3600)
    room.store.commit_time = 0.005
    many(room, 10)
    room.advance(1800.0)
    assert sum(delivery.claimed for delivery in room.store.deliveries.values()) == 0
    room.accept("urgent@b.example", priority="high")
    room.advance(1801.0)
    assert [message.recipients[0] for message in room.server.messages] == ["user0@b.example", "urgent@b.example"]


def test_a_claim_that_brings_nothing_costs_nobody_time(room: Room) -> None:
    """The messages were held, and the round finds nothing: the next that comes goes at once."""
    rated(room, 1 / 60)
    many(room, 3)
    room.store.change("hold", None, None)
    room.delivery.wake()
    room.advance(600.0)
    before = len(begun(room))
    room.accept("bob@b.example")
    room.advance(0.1)
    assert (before <= 1, len(begun(room)) - before) == (True, 1)


def test_tries_that_fail_count(room: Room) -> None:
    """What a server refuses has reached it."""
    rated(room, 1.0)
    room.server.always("rcpt", "450 4.2.0 later")
    many(room, 20)
    room.advance(9.5)
    assert gaps(begun(room)) == pytest.approx([1.0] * 9, abs=0.001)


def test_what_is_sent_ahead_takes_its_token(room: Room) -> None:
    """On a busy connection the next message goes with the end of the one before: not before its time."""
    rated(room, 200.0, connections_per_site=1)
    room.server.latency = 0.01
    many(room, 300)
    room.advance(1.0)
    room.server.latency = 0.0
    room.advance(0.5)
    for start in range(0, 1400, 100):
        assert sum(start / 1000 <= at < start / 1000 + 0.1 for at in begun(room)) <= 31


def test_a_rate_and_a_rest_go_together(room: Room) -> None:
    """The probe waits for its token, and takes it."""
    rated(room, 0.1)
    room.server.on("connect", Then("421 4.3.2 not now"))
    many(room, 3)
    room.advance(35.0)
    assert begun(room) == pytest.approx([0.0, 10.0, 20.0, 30.0], abs=0.001)
    assert all(room.outcome(f"user{n}@b.example", f"j{n + 1}").state is State.DELIVERED for n in range(3))
    room.advance(60.0)
    assert len(begun(room)) == 4


# across a restart


def test_a_restart_brings_no_token(room: Room) -> None:
    """However often it comes: from one message to the next it takes as long as the rate says."""
    started(room, 1 / 60)
    many(room, 10)
    for _ in range(19):
        room.advance(3.0)
        again(room, 1 / 60, away=7.0)
    assert gaps(begun(room)) == pytest.approx([60.0] * 3, abs=0.001)


def test_who_dies_with_a_message_has_used_its_token(room: Room) -> None:
    """It is noted with the claim: before anything of it can have gone."""
    started(room, 1 / 60)
    room.advance(100.0)
    room.store.commit_time = 0.5
    many(room, 3)
    room.advance(0.25)
    assert (begun(room), room.store.notes.paced[SITE].next) == ([], pytest.approx(room.store.now() + 59.75, abs=0.01))


@pytest.mark.parametrize(("old", "new"), [(1 / 3600, 1 / 60), (1 / 60, 1 / 3600)])
def test_a_rate_that_is_new_after_a_restart_counts_from_the_last_message(room: Room, old: float, new: float) -> None:
    """However often it is restarted meanwhile; and from the start on it is told by the new one."""
    started(room, old)
    many(room, 2)
    for _ in range(4):
        room.advance(1.0)
        again(room, new, away=7.0)
    noted = room.store.notes.paced[SITE]
    assert (noted.rate, noted.next - room.store.now() + room.now) == (new, pytest.approx(1 / new))
    room.advance(1 / new)
    assert begun(room) == pytest.approx([0.0, 1 / new], abs=0.001)


def test_the_page_is_told_when_the_next_may_go(room: Room) -> None:
    """By the store's time, which goes on where the reactor's begins anew; nothing where there is no rate."""
    started(room, 1 / 60)
    many(room, 2)
    room.advance(20.0)
    assert room.delivery.sites()[0].next_at == pytest.approx(room.store.now() + 40.0)
    again(room, None, away=1.0)
    room.accept("bob@b.example")
    assert room.delivery.sites()[0].next_at is None


def test_the_end_notes_it_to_the_moment(room: Room) -> None:
    """The claim was durable only after a while, and the message begun then."""
    started(room, 1 / 60)
    room.store.commit_time = 5.0
    many(room, 2)
    room.advance(6.0)
    again(room, 1 / 60, away=2.0)
    room.store.commit_time = 0.0
    room.advance(100.0)
    assert gaps(begun(room)) == pytest.approx([60.0], abs=0.001)


def test_a_time_that_cannot_be_is_no_reason_to_wait(room: Room) -> None:
    """The store was put back from a copy, say, and its time with it: one interval, and no more."""
    room.store.notes.paced[SITE] = Pace(site=SITE, rate=1 / 60, next=room.store.now() + 1e6)
    started(room, 1 / 60)
    many(room, 1)
    room.advance(61.0)
    assert begun(room) == pytest.approx([60.0], abs=0.001)


def test_a_high_rate_that_is_new_after_a_restart_is_told(room: Room) -> None:
    """Though it is not noted with each message."""
    started(room, 1 / 3600)
    many(room, 2)
    room.advance(1.0)
    again(room, 50.0, away=2.0)
    room.advance(1.0)
    assert (len(begun(room)), room.store.notes.paced[SITE].rate) == (2, 50.0)


def test_what_went_before_a_new_rate_counts_after_a_restart(room: Room) -> None:
    """The reload that brought it has noted it, though no message has gone by it yet."""
    room.delivery.start()
    many(room, 1)
    room.advance(1.0)
    limits = msgspec.structs.replace(room.settings.limits, rate_per_site=1 / 60)
    room.delivery.configure(msgspec.structs.replace(room.settings, limits=limits))
    room.advance(1.0)
    again(room, 1 / 60, away=2.0)
    many(room, 1)
    room.advance(60.0)
    assert gaps(begun(room)) == pytest.approx([60.0], abs=0.06)


def test_all_that_is_claimed_is_counted(room: Room) -> None:
    """At ten a second, with a disk that needs its time: the next that another daemon may begin is behind them all."""
    started(room, 10.0)
    room.store.commit_time = 0.03
    many(room, 40)
    for _ in range(150):
        room.advance(0.013)
        claimed = sum(delivery.claimed or not delivery.waiting() for delivery in room.store.deliveries.values())
        if begun(room):
            next_at = room.store.notes.paced[SITE].next - room.store.now() + room.now
            assert next_at >= begun(room)[0] + 0.1 * claimed - 0.061, claimed  # tokens are kept for 0.05 s


@pytest.mark.parametrize("how", ["a reload", "a restart", "both"])
def test_a_site_without_a_rate_has_none_noted(room: Room, how: str) -> None:
    """Commands would tell of it."""
    started(room, 1 / 60)
    many(room, 5)
    room.advance(1.0)
    assert set(room.store.notes.paced) == {SITE}
    if how == "both":
        again(room, 1 / 60, away=2.0)
    if how != "a restart":
        limits = msgspec.structs.replace(room.settings.limits, rate_per_site=None)
        room.delivery.configure(msgspec.structs.replace(room.settings, limits=limits))
    else:
        again(room, None, away=2.0)
    room.advance(1.0)
    assert (len(begun(room)), room.store.notes.paced) == (5, {})


def test_a_site_that_is_no_more_has_none_noted(room: Room) -> None:
    """Its relay has been taken out of the configuration meanwhile."""
    room.store.notes.paced["gone.example:25"] = Pace(site="gone.example:25", rate=1.0, next=0.0)
    started(room, 1 / 60)
    assert (room.store.notes.paced, room.delivery.sites()) == ({}, [])


def test_a_claim_that_is_given_back_gives_its_token_back(room: Room) -> None:
    """An order came in between: nothing has gone, and nobody has to wait after a restart."""
    started(room, 1 / 60)
    room.store.commit_time = 0.5
    many(room, 3)
    room.advance(0.25)
    room.store.change("hold", None, None)
    room.delivery.wake()
    room.advance(2.0)
    assert (begun(room), room.store.notes.paced[SITE].next) == ([], 0.0)


@pytest.mark.parametrize("rate", [10.5, 1000.0])
def test_a_high_rate_is_noted_once_a_second(room: Room, rate: float) -> None:
    """For those who look, and for a lower one that comes with the next start: not for each message."""
    started(room, rate)
    many(room, 5000)
    seen: list[Pace] = []
    for _ in range(300):
        room.advance(0.01)
        noted = room.store.notes.paced[SITE]
        if noted not in seen:
            seen.append(noted)
    assert len(seen) == pytest.approx(3, abs=1)
    assert {noted.rate for noted in seen} == {rate}


def test_a_lower_rate_that_comes_with_a_restart_counts_from_the_last_message_also_where_that_was_long_ago(
    room: Room,
) -> None:
    """Its time has come meanwhile: the end of an idle daemon is no message."""
    started(room, 1.0)
    many(room, 1)
    room.advance(100.0)
    again(room, 1 / 60, away=2.0)
    many(room, 1)
    room.advance(0.5)
    assert len(begun(room)) == 2
