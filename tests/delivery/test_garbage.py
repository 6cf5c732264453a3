"""What is over is freed at once, by its counts: the garbage collector, which goes through all that is there, seldom has
to look (`collect_seldom`)."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from service.delivery.connection import Connection
from service.smtp.errors import DeliveryError
from tests.delivery.room import BOTH_DIALECTS, Room
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
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left() -> int:
    return sum(isinstance(each, Connection | DeliveryError) for each in gc.get_objects())


@BOTH_DIALECTS
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_conversation_that_is_over_needs_no_collector(room: Room, word: str, end: Action) -> None:
    """Whatever its end was: nothing of it points at itself."""
    before = left()
    if end:
        room.server.on(word, end)
    room.deliver("bob@b.example", "carl@b.example")
    room.advance(3600.0)
    assert left() == before
    assert room.server.open == 0
