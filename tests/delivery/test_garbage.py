"""What is over is freed at once, by its counts: the garbage collector, which goes through all that is there, seldom has
to look, and does not know how large OpenSSL's part of a connection is (`collect_seldom`)."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import trustme

from tests.delivery.room import BOTH_DIALECTS, Room
from tests.delivery.test_tls import secured, serving
from tests.fakes.smtp_server import CLOSE, RESET, SILENT, Action, Then

WORDS = ("connect", "ehlo", "mail", "rcpt", "data", "body", "confirm")
ENDS = {
    "it closes": CLOSE,
    "it resets": RESET,
    "it is silent": SILENT,
    "421": Then("421 4.3.2 going down"),
    "450": "450 4.2.0 later",
    "550": "550 5.1.1 no",
    "no answer": "what?",
    "too much": "250 yes\r\n250 and again",
    "as it should be": "",
}


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What was there before does not count: a thread of an earlier test, that ends now, lets go of its reactor."""
    gc.disable()
    gc.freeze()
    yield
    gc.enable()
    gc.unfreeze()


def nothing_is_left(room: Room) -> bool:
    """Whether all is freed once a message is, or is not, delivered, and the connections are closed."""
    room.deliver("bob@b.example", "carl@b.example")
    room.advance(3600.0)
    assert room.server.open == 0
    return gc.collect() == 0


@BOTH_DIALECTS
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_conversation_that_is_over_needs_no_collector(room: Room, word: str, end: Action) -> None:
    """Whatever its end was: nothing of it points at itself."""
    if end:
        room.server.on(word, end)
    assert nothing_is_left(room)


@pytest.mark.parametrize("word", ["starttls", "tls"])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_neither_does_one_that_failed_to_be_encrypted(room: Room, word: str, end: Action) -> None:
    authority = trustme.CA()
    room.server.tls = serving(authority, "mx.test")
    secured(room, authority)
    gc.collect()
    if end:
        room.server.on(word, end)
    assert nothing_is_left(room)


def test_neither_does_one_whose_certificate_is_not_trusted(room: Room) -> None:
    room.server.tls = serving(trustme.CA(), "mx.test")
    secured(room, trustme.CA())
    gc.collect()
    assert nothing_is_left(room)
    assert room.told("attempt_failed")[0]["phase"] == "tls"


@pytest.mark.parametrize("addresses", [[], None])
def test_neither_does_a_name_without_an_address(room: Room, addresses: list[str] | None) -> None:
    del room.reactor.names["mx.test"]
    if addresses is not None:
        room.reactor.names["mx.test"] = addresses
    assert nothing_is_left(room)
    assert room.told("attempt_failed")[0]["phase"] == "connect"
