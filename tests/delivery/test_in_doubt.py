"""From the final dot to its answer nobody knows who has the message: what is noted before, and what is told."""

from __future__ import annotations

import msgspec
import pytest

from service.message.outcome import State
from tests.delivery.room import BOTH_DIALECTS, PORT, SITE, Room, sites
from tests.fakes.smtp_server import CLOSE, SILENT


@BOTH_DIALECTS
def test_a_job_to_be_held_is_marked_before_its_final_dot(room: Room) -> None:
    """While the store cannot commit the mark, the server does not get the end of the message; then it does."""
    room.reactor.latency = 0.1
    room.accept(in_doubt="hold")
    room.advance(0.3)
    room.store.healthy = False
    room.advance(5.0)
    assert (room.server.messages, room.store.marked) == ([], [])
    room.store.recover()
    room.advance(1.0)
    assert room.store.marked == [("j1", SITE)]
    assert len(room.server.messages) == 1


@BOTH_DIALECTS
def test_a_job_to_be_sent_again_needs_no_mark(room: Room) -> None:
    """With `retry` a commit for each message is saved."""
    room.deliver(in_doubt="retry")
    assert room.store.marked == []


@BOTH_DIALECTS
def test_the_mark_names_the_host_that_may_have_the_message(room: Room) -> None:
    """At a site with several relays it is the one that was asked last."""
    first, _ = sites(room, 2)
    room.reactor.names["backup.test"] = ["192.0.2.9"]
    first.always("connect", CLOSE)
    route = room.settings.routes[1]
    relays = (*room.settings.routes[0].relay, *route.relay)
    room.configured(routes=(msgspec.structs.replace(route, domains=("*",), relay=relays),))
    room.deliver("bob@b.example", in_doubt="hold")
    assert room.store.marked == [("j1", f"s1.test:{PORT}")]


@BOTH_DIALECTS
def test_a_large_message_is_marked_before_its_last_piece_only(room: Room) -> None:
    """What comes before it may go out at any time."""
    room.store.piece = 1000
    room.accept(in_doubt="hold", content=b"Subject: x\r\n\r\n" + b"line\r\n" * 500)
    marks_at_read: list[tuple[int, int]] = []
    read = room.store.read

    def watched(claim, piece):  # type: ignore[no-untyped-def]
        marks_at_read.append((piece, len(room.store.marked)))
        return read(claim, piece)

    room.store.read = watched  # type: ignore[method-assign]
    room.advance(1.0)
    assert marks_at_read == [(0, 0), (1, 0), (2, 0), (3, 1)]
    assert len(room.server.messages) == 1


@BOTH_DIALECTS
def test_a_job_removed_before_its_final_dot_is_not_sent(room: Room) -> None:
    """The mark finds the claim gone, and the server never gets the end."""
    from deferred.defer import fail

    room.store.mark = lambda claim, host: fail(LookupError("gone"))  # type: ignore[method-assign]
    room.deliver(in_doubt="hold")
    assert room.server.messages == []
    assert room.settled == []


@BOTH_DIALECTS
@pytest.mark.parametrize("pieces", [1, 4])
def test_what_is_sent_again_is_told_as_a_possible_duplicate(room: Room, pieces: int) -> None:
    """Each recipient, before the second final dot goes out, not before and not for the first."""
    room.store.piece = 1000
    content = b"Subject: x\r\n\r\n" + b"x\r\n" * (1000 if pieces > 1 else 1)
    room.server.on("confirm", CLOSE)
    room.accept("bob@b.example", "eve@b.example", content=content)
    room.advance(0.5)
    assert room.told("possible_duplicate") == []
    room.advance(2.0)
    facts = {"id": "j1", "site": SITE, "host": SITE, "attempt": 1}
    assert room.told("possible_duplicate") == [
        {**facts, "recipient": "bob@b.example"},
        {**facts, "recipient": "eve@b.example"},
    ]
    assert max(room.when("possible_duplicate")) <= min(room.when("delivered"))


def test_an_attempt_that_does_not_come_to_the_final_dot_makes_no_duplicate(room: Room) -> None:
    """It is told when the dot goes, however often the server is asked before."""
    room.server.on("confirm", CLOSE)
    room.accept()
    room.advance(0.5)
    room.server.on("mail", "450 4.2.0 later")
    room.advance(5.0)
    assert room.told("possible_duplicate") == []
    room.advance(120.0)
    assert len(room.told("possible_duplicate")) == 1


@BOTH_DIALECTS
def test_a_recipient_that_another_host_has_answered_is_not_named(room: Room) -> None:
    """Only those whom this server is asked for."""
    room.server.on("rcpt:eve@b.example", "550 5.1.1 who?").on("confirm", SILENT)
    room.deliver("bob@b.example", "eve@b.example")
    room.advance(700.0)
    assert [facts["recipient"] for facts in room.told("possible_duplicate")] == ["bob@b.example"]


@BOTH_DIALECTS
def test_a_doubt_in_which_a_message_ends_is_told_too(room: Room) -> None:
    """It is not sent again, and its sender is told that it failed; somebody may have it all the same."""
    room.server.always("confirm", CLOSE)
    room.accept(expires=30.0)
    room.advance(200.0)
    assert room.outcome().state is State.FAILED
    doubts = room.told("in_doubt")
    assert len(doubts) == len(room.told("attempt_started")) == 3
    assert [facts["decision"] for facts in doubts] == ["retry"] * (len(doubts) - 1) + ["none"]
