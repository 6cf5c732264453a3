"""Each outcome's road to the store, what is told of it, and other settings on the way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from config.settings import Relay, Route
from deferred.defer import Deferred, fail
from service.message.job import Job
from service.message.outcome import State
from service.queue.store import Claim, StoreFailed, Submission
from tests.delivery.room import CONTENT, PORT, SITE, Room, sites
from tests.fakes.smtp_server import Late
from tests.fakes.store import MemoryStore

# the roads of an outcome


def test_nothing_is_told_before_it_is_durable(room: Room) -> None:
    """A full disk after the 250 looks like nothing at all: not sent again, not told, until it can be written."""
    room.server.latency = 1.0
    room.accept()
    room.advance(2.5)
    room.store.healthy = False
    room.advance(3600.0)
    assert (len(room.server.messages), room.told("delivered"), room.delivery.in_flight) == (1, [], 1)
    room.store.recover()
    room.advance(1.0)
    assert (len(room.server.messages), len(room.told("delivered")), room.delivery.in_flight) == (1, 1, 0)


def test_no_attempt_begins_while_the_store_cannot_commit(room: Room) -> None:
    """It goes on within a second or so of the store's recovery."""
    room.accept()
    room.store.healthy = False
    room.advance(60.0)
    assert room.server.connections == 0
    room.store.recover()
    room.advance(1.5)
    assert room.outcome().state is State.DELIVERED


def test_a_bounce_is_written_with_the_failure(room: Room) -> None:
    """In one settlement, for all that fail together; and it goes out by itself."""

    def compose(kind: str, claim: Claim, outcomes: tuple[Any, ...], head: bytes) -> Submission:
        assert head == CONTENT
        job = Job(sender="", recipients=(claim.sender,), content=b"Subject: failed\r\n\r\n")
        return Submission(job=job, name="bounce-1", sites=(SITE,))

    room.compose = compose
    room.server.on("rcpt", "550 5.1.1 no", "550 5.1.1 no")
    room.deliver("bob@b.example", "eve@b.example")
    (settlement, _) = room.settled
    assert [report.name for report in settlement.reports] == ["bounce-1"]
    assert [(kind, len(outcomes)) for kind, _, outcomes, _ in room.composed] == [("bounce", 2)]
    told = [(facts["recipient"], facts["code"], facts["report"]) for facts in room.told("bounced")]
    assert told == [("bob@b.example", 550, "j2"), ("eve@b.example", 550, "j2")]
    assert [(message.sender, message.recipients) for message in room.server.messages] == [("", ("ann@a.example",))]


def test_a_bounce_begets_no_bounce(room: Room) -> None:
    """What fails from the null sender is told to whoever reads the log, and to nobody else."""
    room.server.on("rcpt", "550 5.1.1 no", "250 ok", "552 5.2.2 full")
    room.deliver("bob@b.example", "eve@b.example", "ann@a.example", sender="")
    assert (room.outcome().state, room.composed) == (State.FAILED, [])
    assert room.told("report_failed") == room.told("failed")
    assert [(facts["recipient"], facts["code"]) for facts in room.told("report_failed")] == [
        ("bob@b.example", 550),
        ("ann@a.example", 552),
    ]


def test_a_report_whose_time_is_over_has_failed_too(room: Room) -> None:
    """And its being late is told to nobody before."""
    room.server.always("rcpt", "450 4.2.0 later")
    room.accept(sender="", expires=20_000.0)
    room.advance(20_500.0)
    assert (room.composed, room.told("warned")) == ([], [])
    assert [facts["enhanced"] for facts in room.told("report_failed")] == ["4.4.7"]


def test_what_fails_from_a_sender_is_no_report(room: Room) -> None:
    """It is the sender who is told."""
    room.server.on("rcpt", "550 5.1.1 no")
    room.deliver()
    assert (len(room.told("failed")), room.told("report_failed")) == (1, [])


def test_a_late_message_warns_its_sender(room: Room) -> None:
    """Once, with the first failed try after `warn_after`."""
    room.server.always("rcpt", "450 4.2.0 later")
    room.accept()
    room.advance(20_000.0)
    assert [kind for kind, *_ in room.composed] == ["warning"]
    assert [settlement.warned for settlement in room.settled].count(True) == 1


def test_a_report_that_cannot_be_made_does_not_hold_the_outcome_up(room: Room) -> None:
    """The failure is written all the same, and the bug is told."""

    def compose(*_: object) -> Submission:
        raise ZeroDivisionError

    room.compose = compose
    room.server.on("rcpt", "550 5.1.1 no")
    room.deliver()
    assert room.outcome().state is State.FAILED
    assert "ZeroDivisionError" in str(room.told("unhandled_error"))
    room.events.clear()


def test_a_bug_of_ours_holds_the_message(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and neither lost nor tried for ever; the next message is not concerned."""

    def read(claim: Claim, piece: int) -> Deferred[bytes]:
        raise ZeroDivisionError

    long = CONTENT * 5000
    monkeypatch.setattr(room.store, "read", read)
    room.deliver(content=long)
    assert "ZeroDivisionError" in str(room.told("unhandled_error"))
    assert [(settlement.hold, settlement.outcomes) for settlement in room.settled] == [(True, ())]
    room.events.clear()
    room.deliver("eve@b.example")
    assert room.outcome("eve@b.example", "j2").state is State.DELIVERED
    assert room.delivery.in_flight == 0


# other settings


def test_new_routes_take_effect_at_once(room: Room) -> None:
    """What waits moves to the site that its domain is routed to now."""
    (other,) = sites(room, 1)
    room.server.always("rcpt", "450 4.2.0 later")
    room.configured(routes=(Route(domains=("*",), relay=(Relay("smtp", "mx.test", PORT),), tls="none"),))
    room.deliver("bob@s0.example")
    routes = (Route(domains=("*",), relay=(Relay("smtp", "s0.test", PORT),), tls="none"),)
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=routes))
    assert room.delivery.site_of("bob@s0.example") == "s0.test:25"
    room.advance(61.0)
    assert [message.recipients for message in other.messages] == [("bob@s0.example",)]


@pytest.mark.parametrize("settled", [True, False])
def test_what_was_in_flight_while_its_route_changed_goes_to_the_new_site(
    room: Room, monkeypatch: pytest.MonkeyPatch, settled: bool
) -> None:
    """A site that never had work hears of it at once, whether the message was put off or given back."""
    (other,) = sites(room, 1)
    new = room.configured(retry={"delays": (10.0,)}).settings
    room.configured(routes=(Route(domains=("*",), relay=(Relay("smtp", "mx.test", PORT),), tls="none"),))
    if settled:
        room.server.on("rcpt", Late("450 4.2.0 later", 2.0))
    else:
        room.server.on("data", Late("354 go on", 2.0))
        monkeypatch.setattr(room.store, "read", lambda claim, piece: fail(StoreFailed("disk I/O error")))
    room.deliver("bob@s0.example", content=CONTENT if settled else CONTENT * 5000)
    room.delivery.configure(new)
    room.advance(2.0)
    monkeypatch.setattr(room.store, "read", MemoryStore.read.__get__(room.store))
    room.advance(11.0)
    assert [message.recipients for message in other.messages] == [("bob@s0.example",)]


def test_settings_that_cannot_be_used_change_nothing(room: Room) -> None:
    """A certificate file that is missing is told to the caller, and the old routes stay."""

    def trust(context: object, file: str | None) -> None:
        raise FileNotFoundError(2, "No such file", file)

    room.trust = trust
    routes = (Route(domains=("*",), relay=(Relay("smtp", "other.test", PORT),), ca_file="/nowhere.pem"),)
    with pytest.raises(FileNotFoundError):
        room.delivery.configure(msgspec.structs.replace(room.settings, routes=routes))
    assert room.delivery.site_of("bob@b.example") == SITE


def test_kept_connections_do_not_outlive_their_settings(room: Room) -> None:
    """A new password means a new login."""
    room.deliver()
    room.delivery.configure(room.settings)
    room.deliver()
    assert room.server.connections == 2
