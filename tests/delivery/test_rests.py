"""A site's rest: it outlives the daemon, and its end is no stampede."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from config.settings import SiteRest
from deferred.testing import MemoryReactor
from service.delivery.delivery import Delivery
from service.journal import Journal
from service.message.job import Job
from service.queue.sqlite import SQLiteStore
from service.queue.store import Submission
from tests.delivery.room import CONTENT, HOST, PORT, SETTINGS, SITE, Room, many, sites
from tests.fakes.smtp_server import CLOSE, SMTPServer


def again(room: Room, **changes: Any) -> Room:
    """The daemon was stopped, and is started again on the same store; its clock begins anew."""
    room.delivery.drain(25.0)
    room.advance(30.0)
    room.events.clear()
    room.configured(**changes)
    room.delivery.start()
    return room


# across a restart


def test_a_site_that_rested_at_the_end_rests_at_the_start(room: Room) -> None:
    """It is left alone until then, and the page shows why."""
    room.server.close()
    room.accept()
    room.advance(300.0)  # the next try is at 511 s
    until = room.delivery.sites()[0].resting_until
    again(room)
    view = room.delivery.sites()[0]
    assert (view.health, view.resting_until) == ("resting", pytest.approx(until))
    assert "refused" in view.last_error
    many(room, 5)
    room.advance(511.0 - 330.0 - 1.0)
    assert room.told("attempt_started") == []
    room.advance(2.0)
    assert len(room.told("attempt_started")) == 1


def test_its_rests_go_on_growing_where_they_were(room: Room) -> None:
    """As if the daemon had never been away; and it goes on counting since when the site has been dead."""
    room.server.close()
    room.accept()
    room.advance(120.0)
    again(room)
    room.advance(300.0)
    assert [facts["delay"] for facts in room.told("site_resting")] == [128.0, 256.0]
    assert room.store.notes.resting[SITE].failures == 9
    assert room.store.notes.resting[SITE].since == pytest.approx(1_700_000_000.0)


def test_who_ends_a_rest_has_it_noted(room: Room) -> None:
    """An order, or a reload that changes the site: it is over, also for a daemon that starts then, and for who looks.
    What is known of its failures stays, until it serves."""
    room.server.close()
    room.accept()
    room.advance(300.0)
    noted = room.store.notes.resting[SITE]
    room.reactor.latency = 100.0
    room.delivery.wake(SITE, end_rest=True)
    ended = msgspec.structs.replace(noted, ends=room.store.now())
    assert room.store.notes.resting[SITE] == ended
    room.advance(300.0)  # it has failed once more, and rests
    assert room.store.notes.resting[SITE].ends > room.store.now()
    (route,) = room.settings.routes
    changed = (msgspec.structs.replace(route, tls="opportunistic"),)
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=changed))
    assert room.store.notes.resting[SITE].ends == room.store.now()


def test_a_rest_that_ended_meanwhile_is_over(room: Room) -> None:
    """One message finds out; when it serves, nothing is remembered."""
    room.server.close()
    many(room, 10)
    room.advance(20.0)
    room.server.listen(HOST, PORT)
    room.delivery.drain(1.0)
    room.advance(3600.0)
    room.configured()
    room.server.latency = 0.1
    room.delivery.start()
    room.advance(0.25)
    assert room.delivery.sites()[0].in_flight == 1
    room.advance(10.0)
    assert (len(room.server.messages), room.store.notes.resting) == (10, {})
    assert len(room.told("site_back")) == 1


def test_a_retry_ends_a_rest_that_came_from_before(room: Room) -> None:
    """An operator does not need to know when it began."""
    room.server.close()
    room.accept()
    room.advance(300.0)
    again(room)
    room.server.listen(HOST, PORT)
    room.store.change("retry", None, None)
    room.delivery.wake(SITE, end_rest=True)
    room.advance(0.5)
    assert (len(room.server.messages), room.store.notes.resting) == (1, {})
    again(room)
    assert [view for view in room.delivery.sites() if view.health != "up"] == []


def test_a_rest_that_is_longer_than_any_can_be_now_is_over(room: Room) -> None:
    """The settings have become shorter, or a clock has jumped."""
    room.server.close()
    room.accept()
    room.advance(300.0)
    room.accept()
    again(room, retry={"site_rest": SiteRest(first=1.0, longest=60.0)})
    room.advance(0.5)
    assert len(room.told("attempt_started")) == 1


def test_the_rest_of_a_site_that_is_no_more_is_forgotten(room: Room) -> None:
    """No timer, and nothing on the page."""
    room.server.close()
    room.accept()
    room.advance(300.0)
    sites(room, 1)
    room.delivery.start()
    assert SITE not in room.store.notes.resting
    assert SITE not in [view.name for view in room.delivery.sites()]


def test_a_reload_that_changes_the_site_ends_its_rest(room: Room) -> None:
    """What was wrong with it may be mended; one that says the same leaves it alone."""
    room.server.always("connect", CLOSE)
    many(room, 2)
    room.advance(1.0)
    many(room, 5)
    room.advance(100.0)
    before = room.server.connections
    room.delivery.configure(room.settings)
    room.advance(1.0)
    assert room.server.connections == before
    routes = tuple(msgspec.structs.replace(route, tls="opportunistic") for route in room.settings.routes)
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=routes))
    room.advance(1.0)
    assert room.server.connections == before + 1


def test_another_rate_or_ceiling_is_no_other_site(room: Room) -> None:
    """They say nothing of why it rests."""
    room.server.always("connect", CLOSE)
    room.accept()
    room.advance(100.0)
    before = room.server.connections
    routes = tuple(msgspec.structs.replace(route, connections=2, rate=1.0) for route in room.settings.routes)
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=routes))
    room.advance(1.0)
    assert room.server.connections == before


# the real store


@pytest.fixture
def start(tmp_path: Path, reactor: MemoryReactor, server: SMTPServer) -> Callable[[], tuple[SQLiteStore, Delivery]]:
    """Start a delivery on the database in `tmp_path`, as the next daemon would."""

    def begin() -> tuple[SQLiteStore, Delivery]:
        store = SQLiteStore(tmp_path / "queue.db", reactor, Journal(), random.Random(1))
        delivery = Delivery(
            reactor,
            store,
            Journal(),
            random.Random(7),
            SETTINGS,
            trust=lambda context, file: None,
            compose=lambda *_: None,
        )
        delivery.start()
        return store, delivery

    return begin


def test_a_killed_daemon_has_noted_its_rests(
    start: Callable[[], tuple[SQLiteStore, Delivery]], reactor: MemoryReactor, server: SMTPServer
) -> None:
    """They are durable as soon as they begin: the next daemon, whose monotonic clock means something else, keeps them,
    and forgets them when the site serves."""
    store, delivery = start()
    server.always("connect", CLOSE)
    job = Job(sender="", recipients=("bob@b.example",), content=CONTENT)
    store.accept([Submission(job=job, name="hello", sites=(SITE,))])
    delivery.wake(SITE)
    reactor.advance(100.0)
    assert server.connections == 7
    delivery.drain(0.0)
    reactor.advance(1.0)
    store.close()
    reactor.advance(1.0)
    store, delivery = start()
    (view,) = delivery.sites()
    assert (view.health, view.resting_until) == ("resting", pytest.approx(store.now() + 127.0 - 102.0, abs=0.5))
    server.usually("connect")
    reactor.advance(20.0)
    assert server.connections == 7
    reactor.advance(10.0)
    assert (server.connections, len(server.messages), store.notes.rests()) == (8, 1, [])
    delivery.drain(0.0)
    reactor.advance(1.0)
    store.close()
    reactor.advance(1.0)


# the end of a rest


def test_a_backlog_leaves_in_its_order(room: Room) -> None:
    """Those that had been tried wait to the end of the rest; all others come as they were accepted."""
    room.configured(limits={"connections_per_site": 1})
    room.server.close()
    many(room, 60)
    room.advance(600.0)
    room.server.listen(HOST, PORT)
    room.server.latency = 0.02
    room.advance(600.0)
    tried = {facts["id"] for facts in room.told("deferred")}
    order = [int(message.recipients[0][4:].partition("@")[0]) for message in room.server.messages]
    untried = [number for number in order if f"j{number + 1}" not in tried]
    assert len(order) == 60
    assert untried == sorted(untried)
    assert len(untried) > 40


def test_a_site_that_is_back_is_not_stormed(room: Room) -> None:
    """One finds out, then two at once, three, and never more than the ceiling."""
    room.configured(limits={"connections_per_site": 8})
    room.server.close()
    many(room, 300)
    room.advance(3600.0)
    room.server.listen(HOST, PORT)
    room.server.latency = 0.2
    seen = []
    for _ in range(3000):
        room.advance(0.1)
        seen.append(room.server.open)
    assert len(room.server.messages) == 300
    first = next(number for number, busy in enumerate(seen) if busy)
    assert max(seen[first : first + 6]) == 1
    assert max(seen[first : first + 12]) <= 3
    assert max(seen) == room.server.most_open == 8


def test_no_attempt_is_used_up_over_a_rest(room: Room) -> None:
    """An outage of hours costs nobody a try."""
    room.server.close()
    many(room, 20)
    room.advance(4 * 3600.0)
    room.server.listen(HOST, PORT)
    room.advance(600.0)
    assert {settlement.attempts for settlement in room.settled if settlement.due is None} == {1}
    assert {settlement.attempts for settlement in room.settled if settlement.due is not None} == {0}
