"""One attempt: host after host, address after address, and never twice what was answered."""

from __future__ import annotations

from itertools import pairwise

import pytest

from config.settings import Relay, Route, Secret
from service.message.outcome import Phase, State
from tests.delivery.room import CONTENT, HOST, PORT, SITE, Room
from tests.fakes.smtp_server import CLOSE, SILENT, SMTPServer, Then

SECOND = "192.0.2.2"


def two_relays(room: Room) -> tuple[Room, SMTPServer]:
    """`mx.test`, then `backup.test`."""
    room.reactor.names["backup.test"] = [SECOND]
    backup = SMTPServer(room.reactor).listen(SECOND, PORT)
    relays = (Relay("smtp", "mx.test", PORT), Relay("smtp", "backup.test", PORT))
    return room.configured(routes=(Route(domains=("*",), relay=relays, tls="none"),)), backup


def test_a_message_travels_the_whole_chain(room: Room) -> None:
    """Accepted, claimed, connected, greeted, sent, confirmed, settled: and told in that order, step by step."""
    room.deliver(content=b"Subject: dots\r\n\r\n.\r\n..\r\nend\r\n")
    (message,) = room.server.messages
    assert (message.sender, message.recipients) == ("ann@a.example", ("bob@b.example",))
    assert message.content == b"Subject: dots\r\n\r\n.\r\n..\r\nend\r\n"
    assert [facts["phase"] for facts in room.told("step")] == [
        "connect",
        "greeting",
        "ehlo",
        "mail",
        "rcpt",
        "data",
        "body",
        "confirm",
    ]
    assert [name for _, name, _ in room.events if name != "step"] == [
        "attempt_started",
        "connected",
        "delivered",
        "job_finished",
    ]
    assert room.told("delivered")[0] == {
        "id": "j1",
        "recipient": "bob@b.example",
        "site": SITE,
        "host": SITE,
        "phase": "confirm",
        "code": 250,
        "enhanced": "2.0.0",
        "text": "taken",
        "attempt": 1,
    }


def test_steps_take_the_time_they_take(room: Room) -> None:
    """Seconds for each phase, on the reactor's clock."""
    room.reactor.latency = 0.5
    room.deliver(seconds=10.0)
    seconds = {facts["phase"]: facts["seconds"] for facts in room.told("step")}
    assert seconds == pytest.approx(
        {
            "connect": 1.0,
            "greeting": 0.0,
            "ehlo": 1.0,
            "mail": 1.0,
            "rcpt": 0.0,
            "data": 0.0,
            "body": 0.0,
            "confirm": 1.0,
        },
        abs=0.01,
    )


def test_each_recipient_has_its_own_fate(room: Room) -> None:
    """One delivered, one put off, one refused: one message, three outcomes; only the one put off is tried again."""
    room.server.on("rcpt:eve@b.example", "450 4.2.0 greylisted").on("rcpt:nobody@b.example", "550 5.1.1 who?")
    room.deliver("bob@b.example", "eve@b.example", "nobody@b.example")
    states = {
        address: room.outcome(address).state for address in ("bob@b.example", "eve@b.example", "nobody@b.example")
    }
    assert states == {
        "bob@b.example": State.DELIVERED,
        "eve@b.example": State.WAITING,
        "nobody@b.example": State.FAILED,
    }
    room.advance(61.0)
    assert [message.recipients for message in room.server.messages] == [("bob@b.example",), ("eve@b.example",)]


def test_the_next_relay_is_tried_when_one_does_not_serve(room: Room) -> None:
    """Relays in order; the failure of the first is told, and no site rests."""
    room, backup = two_relays(room)
    room.server.always("connect", Then("421 4.3.2 not now"))
    room.deliver()
    assert room.outcome().state is State.DELIVERED
    assert room.outcome().host == "backup.test:25"
    assert [(facts["host"], facts["code"]) for facts in room.told("attempt_failed")] == [(SITE, 421)]
    assert room.told("site_resting") == []
    assert len(backup.messages) == 1


def test_a_relay_that_failed_lately_is_asked_last(room: Room) -> None:
    """The second message goes to the backup at once; after the rest the first relay is asked again."""
    room, backup = two_relays(room)
    room = room.configured(timeouts={"idle": 0.0})
    room.server.always("connect", Then("421 4.3.2 not now"))
    room.deliver(seconds=0.1)
    room.deliver(seconds=0.1)
    assert (room.server.connections, len(backup.messages)) == (1, 2)
    room.server.usually("connect")
    room.advance(1.0)
    room.deliver()
    assert (len(room.server.messages), len(backup.messages)) == (1, 2)


def test_a_relay_that_serves_again_is_forgiven(room: Room) -> None:
    """The next failure costs it the first rest, not a longer one."""
    room, backup = two_relays(room)
    room = room.configured(timeouts={"idle": 0.0})
    for _ in range(2):
        room.server.on("connect", CLOSE)
        room.deliver(seconds=1.1)
        room.deliver(seconds=0.5)
    assert (len(room.server.messages), len(backup.messages)) == (2, 2)


def test_when_no_relay_serves_the_site_rests(room: Room) -> None:
    """The last one's failure is what recipients carry."""
    room, backup = two_relays(room)
    room.server.always("connect", CLOSE)
    backup.always("ehlo", "421 4.3.2 nor here")
    room.deliver()
    outcome = room.outcome()
    assert (outcome.state, outcome.host, outcome.code, outcome.phase) == (
        State.WAITING,
        "backup.test:25",
        421,
        Phase.EHLO,
    )
    assert [facts["host"] for facts in room.told("site_resting")] == ["backup.test:25"]


def test_a_message_in_doubt_is_not_offered_to_the_next_relay(room: Room) -> None:
    """The first may have it."""
    room, backup = two_relays(room)
    room.server.on("confirm", CLOSE)
    room.deliver()
    assert (backup.connections, len(room.told("in_doubt"))) == (0, 1)


def test_who_was_answered_is_not_asked_for_at_the_next_relay(room: Room) -> None:
    """A 550 stands, and so does a 450, though the connection died at DATA; the rest goes to the backup."""
    room, backup = two_relays(room)
    room.server.on("rcpt:eve@b.example", "550 5.1.1 who?").on("rcpt:joe@b.example", "450 4.2.0 later").on("data", CLOSE)
    room.deliver("bob@b.example", "eve@b.example", "joe@b.example")
    assert [message.recipients for message in backup.messages] == [("bob@b.example",)]
    assert {outcome.address: (outcome.state, outcome.host) for outcome in room.settled[0].outcomes} == {
        "bob@b.example": (State.DELIVERED, "backup.test:25"),
        "eve@b.example": (State.FAILED, SITE),
        "joe@b.example": (State.WAITING, SITE),
    }


def test_every_address_of_a_host_is_tried(room: Room) -> None:
    """One that answers the call but does not serve makes way for the next."""
    room.reactor.names["mx.test"] = [HOST, SECOND]
    second = SMTPServer(room.reactor).listen(SECOND, PORT)
    room.server.always("connect", Then("421 4.3.2 not now"))
    room.deliver()
    assert room.outcome().state is State.DELIVERED
    assert (room.server.connections, len(second.messages)) == (1, 1)


def test_a_host_that_refuses_to_be_connected_to(room: Room) -> None:
    """Phase connect, no code, in words."""
    room.server.close()
    room.deliver()
    outcome = room.outcome()
    assert (outcome.state, outcome.code, outcome.phase) == (State.WAITING, None, Phase.CONNECT)
    assert outcome.text.startswith("connection refused")


def test_a_host_that_does_not_answer_the_call(room: Room) -> None:
    """A black hole costs `timeouts.connect`, for all its addresses together."""
    room.reactor.names["mx.test"] = [HOST, SECOND]
    room.reactor.black_holes |= {HOST, SECOND}
    room.accept()
    room.advance(29.9)
    assert room.settled == []
    room.advance(0.2)
    assert (room.outcome().phase, room.outcome().text) == (Phase.CONNECT, "no answer in time")


def test_a_name_that_does_not_resolve_is_the_hosts_fault(room: Room) -> None:
    """DNS comes and goes: the message waits."""
    del room.reactor.names["mx.test"]
    room.deliver()
    outcome = room.outcome()
    assert (outcome.state, outcome.phase, outcome.host) == (State.WAITING, Phase.CONNECT, SITE)
    assert "mx.test" in outcome.text


def test_no_route_fails_in_clear_words(room: Room) -> None:
    """A domain that no route fits fails at once, and the sender is told."""
    room = room.configured(routes=())
    room.deliver("bob@nowhere.example")
    outcome = room.outcome("bob@nowhere.example")
    assert (outcome.state, outcome.enhanced, outcome.code) == (State.FAILED, "5.1.2", None)
    assert "no route for domain nowhere.example" in outcome.text
    assert [kind for kind, *_ in room.composed] == ["bounce"]


def test_a_large_message_is_read_a_piece_at_a_time(room: Room) -> None:
    """No piece is read before the last one is out: a slow server costs one piece of memory, not the message."""
    content = b"Subject: long\r\n\r\n" + (b"x" * 70 + b"\r\n") * 30_000
    reads: list[float] = []
    read = room.store.read
    room.store.read = lambda claim, piece: (reads.append(room.now), read(claim, piece))[1]  # type: ignore[method-assign]
    room.reactor.window = 65_536
    room.reactor.latency = 1.0
    room.deliver(content=content, seconds=200.0)
    assert room.server.messages[0].content == content
    assert len(reads) == -(-len(content) // room.store.piece)
    assert all(later - earlier >= 0.9 for earlier, later in pairwise(reads[2:]))


def test_content_that_goes_out_slowly_but_steadily_is_no_timeout(room: Room) -> None:
    """Each piece taken renews the deadline: a large message over a slow line may take longer than `write`."""
    content = b"Subject: long\r\n\r\n" + (b"x" * 70 + b"\r\n") * 10_000
    room = room.configured(timeouts={"write": 10.0})
    room.reactor.window = 65_536
    room.reactor.latency = 2.0
    room.deliver(content=content, seconds=200.0)
    assert room.outcome().state is State.DELIVERED
    assert room.when("delivered")[0] > 20.0


def test_content_that_cannot_be_read_is_not_the_hosts_fault(room: Room) -> None:
    """The connection is cut before the final dot; the message waits by the schedule, and shows why."""
    content = b"Subject: long\r\n\r\n" + (b"x" * 70 + b"\r\n") * 10_000
    room.store.broken = True
    room.deliver(content=content)
    assert (len(room.settled), room.settled[0].hold, room.told("site_resting")) == (1, False, [])
    assert (room.server.messages, room.server.open) == ([], 0)
    assert (room.outcome().state, room.outcome().phase, room.outcome().code) == (State.WAITING, Phase.BODY, None)
    assert "the disk is gone" in room.outcome().text
    room.store.broken = False
    room.advance(61.0)
    assert room.outcome().state is State.DELIVERED


def test_an_answer_in_the_middle_of_the_content_ends_it(room: Room) -> None:
    """552 while we still write: the message fails, nothing more of it is read, the connection is closed."""
    content = b"Subject: long\r\n\r\n" + (b"x" * 70 + b"\r\n") * 50_000
    room.server.on("body", "552 5.3.4 too much")
    room.deliver(content=content)
    assert (room.outcome().state, room.outcome().code) == (State.FAILED, 552)
    assert room.server.open == 0


def test_a_password_is_needed_where_the_route_says_so(room: Room) -> None:
    """AUTH under `tls: none`: the right one delivers, the wrong one rests the site (535 is the host's fault)."""
    room.server.accounts["user"] = "right"
    relays = (Relay("smtp", "mx.test", PORT),)

    def route(password: str) -> tuple[Route, ...]:
        return (Route(domains=("*",), relay=relays, tls="none", username="user", password=Secret(password)),)

    room.configured(routes=route("wrong")).deliver()
    assert (room.outcome().state, room.outcome().code, room.outcome().phase) == (State.WAITING, 535, Phase.AUTH)
    assert len(room.told("site_resting")) == 1
    room.configured(routes=route("right")).deliver("eve@b.example")
    assert room.outcome("eve@b.example", "j2").state is State.DELIVERED
    assert "right" not in str(room.events)


def test_silence_at_one_relay_does_not_hold_up_another_site(room: Room) -> None:
    """One site waits for its greeting; the other's mail goes through."""
    room.reactor.names["other.test"] = [SECOND]
    other = SMTPServer(room.reactor).listen(SECOND, PORT)
    room = room.configured(
        routes=(
            Route(domains=("b.example",), relay=(Relay("smtp", "mx.test", PORT),), tls="none"),
            Route(domains=("*",), relay=(Relay("smtp", "other.test", PORT),), tls="none"),
        )
    )
    room.server.always("connect", SILENT)
    room.deliver("bob@b.example", "joe@c.example", content=CONTENT)
    assert room.outcome("joe@c.example").state is State.DELIVERED
    assert [message.recipients for message in other.messages] == [("joe@c.example",)]
    assert room.delivery.in_flight == 1
