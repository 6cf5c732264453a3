"""Which site's work is next, and when: limits, turns, times and rests."""

from __future__ import annotations

import pytest

from config.settings import SiteRest
from service.delivery.sites import UnderWay
from service.message.job import Job
from service.message.outcome import State
from service.queue.store import StoreFailed, Submission
from tests.delivery.room import CONTENT, HOST, PORT, SITE, Room, many, sites
from tests.fakes.smtp_server import CLOSE, SILENT, Late

# limits and turns


def test_a_site_never_has_more_connections_than_its_limit(room: Room) -> None:
    """100 messages, 5 connections, each of them used again and again."""
    room = room.configured(limits={"connections_per_site": 5})
    room.reactor.latency = 0.1
    many(room, 100)
    room.advance(60.0)
    assert len(room.server.messages) == 100
    assert (room.server.most_open, room.server.connections) == (5, 5)


def test_all_sites_together_stay_within_the_limit(room: Room) -> None:
    """And everything arrives although there are more sites than connections."""
    servers = sites(room, 10)
    room.configured(limits={"connections": 4, "connections_per_site": 3})
    room.reactor.latency = 0.1
    for count in range(10):
        many(room, 10, f"s{count}.example")
    most = 0
    for _ in range(300):
        room.advance(0.1)
        most = max(most, sum(server.open for server in servers))
    assert [len(server.messages) for server in servers] == [10] * 10
    assert most == 4


def test_sites_are_served_in_turn(room: Room) -> None:
    """A site with a thousand messages does not keep one with a single message waiting."""
    big, small = sites(room, 2)
    room.configured(limits={"connections": 10, "connections_per_site": 10})
    room.reactor.latency = 0.1
    many(room, 1000, "s0.example")
    room.advance(3.0)
    room.accept("one@s1.example")
    room.advance(1.5)
    assert len(small.messages) == 1
    assert len(big.messages) < 500


def test_silent_sites_do_not_take_the_last_connections(room: Room) -> None:
    """Two sites that hold on to their connections leave a part for the others."""
    slow, slower, quick = sites(room, 3)
    room.configured(limits={"connections": 10, "connections_per_site": 20})
    slow.always("connect", SILENT)
    slower.always("connect", SILENT)
    many(room, 50, "s0.example")
    many(room, 50, "s1.example")
    room.advance(1.0)
    assert slow.open + slower.open == 9
    many(room, 5, "s2.example")
    room.advance(1.0)
    assert len(quick.messages) == 5


def test_no_more_is_claimed_than_there_is_room_for(room: Room) -> None:
    """What waits for a slot waits in the store."""
    room = room.configured(limits={"connections_per_site": 3})
    room.server.always("connect", SILENT)
    many(room, 10)
    room.advance(1.0)
    assert room.delivery.in_flight == 3
    assert sum(delivery.claimed for delivery in room.store.deliveries.values()) == 3


# time


def test_a_job_waits_for_its_time(room: Room) -> None:
    """`not_before` is kept to within 100 ms."""
    at = room.reactor.wall_time() + 7200.25
    room.accept(not_before=at)
    room.advance(7200.2)
    assert room.told("attempt_started") == []
    room.advance(0.15)
    assert room.outcome().state is State.DELIVERED


def test_time_that_timers_slept_through_is_noticed(room: Room) -> None:
    """A job for tomorrow is due when the store's time is tomorrow, a minute later at the latest."""
    room.accept(not_before=room.reactor.wall_time() + 86_400)
    room.advance(10.0)
    room.reactor.set_wall_time(room.reactor.wall_time() + 86_400)
    room.advance(60.0)
    assert room.outcome().state is State.DELIVERED


@pytest.mark.parametrize("look", ["next_due", "backlog"])
def test_a_look_at_the_store_that_fails_is_repeated(room: Room, monkeypatch: pytest.MonkeyPatch, look: str) -> None:
    """Nothing that was claimed is lost over it, and what is due later is found a second later."""
    real = getattr(room.store, look)
    failing = [StoreFailed("disk I/O error"), StoreFailed("disk I/O error")]

    def looking(*args: str) -> object:
        if failing:
            raise failing.pop()
        return real(*args)

    monkeypatch.setattr(room.store, look, looking)
    room.accept()
    room.accept("eve@b.example", not_before=room.reactor.wall_time() + 10.0)
    room.delivery.start()
    room.advance(0.5)
    assert room.outcome().state is State.DELIVERED
    room.advance(13.0)
    assert (failing, room.outcome("eve@b.example", "j2").state) == ([], State.DELIVERED)


def test_a_due_time_that_cannot_be_looked_up_is_looked_up_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the time has come."""
    room.accept(not_before=room.reactor.wall_time() + 10.0)
    room.advance(5.0)
    real, failing = room.store.next_due, [StoreFailed("disk I/O error")]

    def looking(site: str) -> float | None:
        if failing:
            raise failing.pop()
        return real(site)

    monkeypatch.setattr(room.store, "next_due", looking)
    room.advance(6.5)
    assert room.outcome().state is State.DELIVERED


def test_work_that_nobody_told_of_is_found_within_a_minute(room: Room) -> None:
    """A slip cannot strand mail."""
    room.delivery.start()
    room.advance(1.0)
    room.store.accept(
        [Submission(job=Job(sender="", recipients=("bob@b.example",), content=CONTENT), name="old", sites=(SITE,))]
    )
    room.advance(60.0)
    assert room.outcome().state is State.DELIVERED


def test_the_schedule_is_gone_through_delay_by_delay(room: Room) -> None:
    """60 s, then 300 s, then 300 s again."""
    room.server.always("rcpt", "450 4.2.0 later")
    room.accept()
    room.advance(1000.0)
    assert room.when("attempt_started") == [pytest.approx(at, abs=0.5) for at in (0, 60, 360, 660, 960)]
    assert [facts["attempt"] for facts in room.told("attempt_started")] == [1, 2, 3, 4, 5]


def test_what_was_left_from_before_is_taken_up_at_the_start(room: Room) -> None:
    """A daemon that starts finds its work in the store, without anybody telling."""
    room.store.accept(
        [Submission(job=Job(sender="", recipients=("bob@b.example",), content=CONTENT), name="old", sites=(SITE,))]
    )
    room.advance(5.0)
    assert room.server.messages == []
    room.delivery.start()
    room.advance(0.5)
    assert len(room.server.messages) == 1


def test_a_message_expires(room: Room) -> None:
    """After its own time: one last try, then it fails with 4.4.7 and what that try said."""
    room.server.always("rcpt", "450 4.2.0 later")
    room.accept(expires=100.0)
    room.advance(99.0)
    assert room.outcome().state is State.WAITING
    room.advance(1.5)
    assert (room.outcome().state, room.outcome().enhanced, room.outcome().code) == (State.FAILED, "4.4.7", 450)
    assert room.outcome().text == "delivery time expired; the last try said: 4.2.0 later"
    assert room.when("attempt_started") == [pytest.approx(at, abs=0.5) for at in (0, 60, 100)]


def test_nothing_expires_untried(room: Room) -> None:
    """A daemon that was down for a week tries everything once before it gives anything up."""
    room.store.accept(
        [Submission(job=Job(sender="", recipients=("bob@b.example",), content=CONTENT), name="old", sites=(SITE,))]
    )
    room.advance(7 * 86_400.0)
    room.delivery.start()
    room.advance(0.5)
    assert room.outcome().state is State.DELIVERED


def test_a_relay_that_is_late_after_a_start_makes_nothing_expire_untried(room: Room) -> None:
    """A machine whose network comes up after the daemon bounces nothing but what it has tried."""
    room.configured(retry={"site_rest": SiteRest(first=60.0, longest=300.0)})
    for count in range(50):
        job = Job(sender="", recipients=(f"user{count}@b.example",), content=CONTENT, expires=100.0)
        room.store.accept([Submission(job=job, name="old", sites=(SITE,))])
    room.advance(3600.0)
    room.server.close()
    room.delivery.start()
    room.advance(30.0)
    tried = len(room.told("attempt_started"))
    assert 0 < tried < 50
    assert len(room.told("failed")) == tried
    room.server.listen(HOST, PORT)
    room.advance(60.0)
    assert len(room.server.messages) == 50 - tried


def test_a_dead_site_lets_all_its_messages_expire_together(room: Room) -> None:
    """One probe for each rest must not mean one bounce for each rest."""
    room.server.close()
    many(room, 250)
    room.advance(86_400.0 + 400.0)
    expired = [facts for facts in room.told("failed") if "expired" in str(facts["text"])]
    assert len(expired) == 250
    assert max(room.when("failed")) - min(room.when("failed")) < 1.0


# a site's rest


def test_a_resting_site_is_left_alone(room: Room) -> None:
    """New work for it waits for the end of the rest, and then for the probe."""
    room.server.always("connect", CLOSE)
    room.deliver(seconds=0.1)
    many(room, 5)
    room.advance(0.8)
    assert room.server.connections == 1
    assert [(view.name, view.health) for view in room.delivery.sites()] == [(SITE, "resting")]
    assert room.delivery.sites()[0].resting_until == pytest.approx(room.reactor.wall_time() + 0.1)


def test_one_probe_finds_out_whether_a_site_is_back(room: Room) -> None:
    """The others follow once it has served, not before."""
    room.server.always("connect", CLOSE)
    many(room, 10)
    room.advance(0.5)
    room.server.usually("connect").on("connect", Late("220 hello", 5.0))
    before = room.server.connections
    room.advance(4.0)
    assert room.server.connections == before + 1
    assert room.delivery.sites()[0].health == "probing"
    room.advance(2.0)
    assert len(room.server.messages) == 10
    assert room.delivery.sites()[0].health == "up"
    assert len(room.told("site_back")) == 1


def test_failures_of_one_moment_rest_a_site_once(room: Room) -> None:
    """Twenty connections that die together are one failure."""
    room.server.always("mail", SILENT)
    many(room, 20)
    room.advance(1.0)
    room.server.reset_all()
    room.advance(0.1)
    assert [facts["delay"] for facts in room.told("site_resting")] == [1.0]


def test_an_operator_can_end_a_rest(room: Room) -> None:
    """`queue retry` does not wait."""
    room.server.on("connect", CLOSE, CLOSE, CLOSE, CLOSE, CLOSE)
    room.accept()
    room.advance(16.0)
    assert room.delivery.sites()[0].health == "resting"
    room.store.change("retry", None, None)
    room.delivery.wake(end_rest=True)
    room.advance(0.5)
    assert room.outcome().state is State.DELIVERED


def test_of_each_site_it_is_known_what_has_been_under_way_for_longest(room: Room) -> None:
    """Since when, and at which step, at whom."""
    room.server.on("connect", Late("220 mx.test", 50.0)).on("confirm", Late("250 2.0.0 taken", 100.0))
    room.reactor.latency = 1.0
    room.accept()
    room.advance(1.0)
    room.accept()
    assert room.delivery.sites()[0].oldest == UnderWay(id="j1", since=room.store.now() - 1.0, step="connect")
    room.advance(39.0)
    view = room.delivery.sites()[0]
    assert view.oldest == UnderWay(id="j1", since=room.store.now() - 40.0, step=f"greeting at {SITE}")
    room.advance(200.0)
    assert room.delivery.sites()[0].oldest is None
