"""Chunks between the session and the server that the delivery's tests talk to: each checks the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deferred.protocol import BaseProtocol, Transport
from deferred.testing import MemoryReactor
from service.message.outcome import Phase, State
from service.smtp.envelope import Envelope
from service.smtp.errors import ConfirmationLost
from service.smtp.events import BodyWanted, Event, Failed, Finished, Ready
from service.smtp.options import SessionOptions
from service.smtp.session import Session
from tests.fakes.smtp_server import CLOSE, SMTPServer

HOST, PORT = "192.0.2.1", 25
BOB, EVE = "bob@b.example", "eve@b.example"
PIECES = (b"Subject: dots\r\n\r\n.\r\n", b"..\r\n", b"")
CONTENT = b"".join(PIECES)


class Client(BaseProtocol):
    """Sends messages one after the other, or each ahead of the answers to the one before."""

    transport: Transport

    def __init__(self, recipients: list[str], ahead: bool = False) -> None:
        self.session = Session(SessionOptions(hostname="me.test", tls="none"))
        self.events: list[Event] = []
        self.writes: list[bytes] = []
        self.recipients: Iterator[str] = iter(recipients)
        self.ahead = ahead

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.react(self.session.receive_data(data))
        self.writes.append(self.session.data_to_send())
        self.transport.write(self.writes[-1])

    def connection_lost(self, error: Exception | None) -> None:
        self.react(self.session.connection_lost("EOF"))

    def react(self, events: list[Event]) -> None:
        self.events += events
        for event in events:
            if isinstance(event, BodyWanted):
                for number, piece in enumerate(PIECES, 1):
                    self.session.send_body(piece, last=number == len(PIECES))
            if isinstance(event, Ready | Finished | BodyWanted):
                self.next()

    def next(self) -> None:
        if self.session.takes_envelope if self.ahead else self.session.idle:
            recipient = next(self.recipients, None)
            if recipient is not None:
                self.react(self.session.send(Envelope("ann@a.example", (recipient,))))

    def outcomes(self) -> list[tuple[State, Phase]]:
        finished = [event for event in self.events if isinstance(event, Finished)]
        return [(outcome.state, outcome.phase) for event in finished for outcome in event.outcomes]


@pytest.fixture
def reactor() -> MemoryReactor:
    return MemoryReactor()


@pytest.fixture
def server(reactor: MemoryReactor) -> SMTPServer:
    return SMTPServer(reactor, extensions=("PIPELINING", "CHUNKING")).listen(HOST, PORT)


def talk(reactor: MemoryReactor, *recipients: str, ahead: bool = False) -> Client:
    client = Client(list(recipients), ahead)
    reactor.create_connection(lambda: client, [(HOST, PORT)])
    reactor.advance(1.0)
    return client


@pytest.mark.parametrize("ahead", [True, False])
def test_messages_in_chunks_arrive_octet_for_octet(reactor, server, ahead):
    """In one write each; and where they are sent ahead, in one write all."""
    client = talk(reactor, BOB, EVE, ahead=ahead)
    assert [message.recipients for message in server.messages] == [(BOB,), (EVE,)]
    assert {message.content for message in server.messages} == {CONTENT}
    assert [b"BDAT" in write for write in client.writes].count(True) == (1 if ahead else 2)
    assert client.session.idle


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize(
    ("word", "phase"),
    [
        ("mail", Phase.MAIL),
        ("rcpt", Phase.RCPT),
        ("body", Phase.BODY),
        ("chunk", Phase.BODY),
        ("confirm", Phase.CONFIRM),
    ],
)
def test_what_is_refused_anywhere_does_not_stand_in_the_way_of_the_next(reactor, server, word, phase, ahead):
    """The server answers 503 to whatever comes out of turn, until it is reset."""
    server.on(word, "450 4.0.0 not now")
    client = talk(reactor, BOB, EVE, ahead=ahead)
    assert client.outcomes() == [(State.WAITING, phase), (State.DELIVERED, Phase.CONFIRM)]
    assert [(message.recipients, message.content) for message in server.messages] == [((EVE,), CONTENT)]
    assert client.session.idle


def test_a_server_that_hangs_up_over_a_chunk_leaves_a_message_whose_end_was_out_in_doubt(reactor, server):
    """The client cannot know how far it has read."""
    server.on("chunk", CLOSE)
    client = talk(reactor, BOB)
    assert server.messages == []
    assert isinstance(client.events[-1], Failed)
    assert type(client.events[-1].error) is ConfirmationLost
