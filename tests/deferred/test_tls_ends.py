"""How a stream under TLS ends, when its octets and its end come faster than the protocol takes them."""

from __future__ import annotations

import ssl

import pytest

from deferred.protocol import Transport
from tests.deferred.transports import Note, collect


class Paused(Note):
    """Wants nothing for now, from the first moment."""

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        transport.pause_reading()


class Brief(Note):
    """Says its word and closes, so that the end travels with the last of the handshake."""

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        transport.write(b"all of it")
        transport.close()


class Cut(Note):
    """Says its word, and its wire ends without close_notify."""

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        transport.write(b"a part")
        transport._finish()


def meet(world, certificates, client):
    """A client that speaks at once, and a server that has paused since `connection_made`."""
    _, server = world.connect(
        client, Paused, client_tls=certificates.client, server_tls=certificates.server, server_hostname="mx.example"
    )
    world.turn(5)
    assert server.calls == ["made"]
    return server


def test_what_came_before_the_end_waits_for_a_paused_protocol(world, certificates):
    """A whole stream that came with the handshake's last octets is delivered whole, and its end is clean."""
    server = meet(world, certificates, Brief)
    server.transport.resume_reading()
    assert world.wait(server.lost) is None
    assert server.data == b"all of it"
    assert server.calls == ["made", "data", "eof", "lost"]


def test_a_stream_that_was_cut_short_is_delivered_first(world, certificates):
    """What was said before the cut is passed on, then the error is told."""
    server = meet(world, certificates, Cut)
    server.transport.resume_reading()
    assert isinstance(world.wait(server.lost), ssl.SSLEOFError)
    assert server.data == b"a part"
    assert "eof" not in server.calls


def test_an_end_that_is_read_during_a_pause_waits_for_what_came_before(world, certificates):
    """Nothing is told until the protocol wants it."""
    server = meet(world, certificates, Cut)
    server.transport._tls.wire_ended()
    world.turn(2)
    assert server.calls == ["made"]
    server.transport.resume_reading()
    assert isinstance(world.wait(server.lost), ssl.SSLEOFError)
    assert server.data == b"a part"


def test_closing_while_paused_ends_though_the_wire_has(world, certificates):
    """Nobody answers our close_notify any more, so it is not waited for."""
    server = meet(world, certificates, Cut)
    server.transport._tls.wire_ended()
    server.transport.close()
    world.turn(5)
    assert server.calls == ["made", "lost"]
    assert server.error is None


def test_a_paused_stream_takes_tls_and_the_end_in_one(world, certificates):
    """`start_tls` on a stream that is paused: the protocol gets what came once it wants it."""
    client, server = world.connect()
    server.transport.pause_reading()
    served = server.transport.start_tls(certificates.server, server_side=True)
    shaken = client.transport.start_tls(certificates.client, server_hostname="mx.example")
    shaken.add_callback(lambda _: (client.transport.write(b"under TLS"), client.transport.close()))
    world.wait(served)
    world.turn(5)
    assert server.data == b""
    server.transport.resume_reading()
    assert world.wait(server.lost) is None
    assert server.data == b"under TLS"
    assert world.wait(client.lost) is None


@pytest.mark.parametrize("name", ["", ".example", "x" * 70 + ".example", "mx..example", "mx\0.example"])
def test_a_name_that_cannot_be_one_fails_the_handshake(world, certificates, name):
    """Whatever the ssl module raises comes as a failure, and the connection is given up on both sides."""
    made: list[Note] = []
    served: list[Note] = []
    before = len(getattr(world.reactor, "open_sockets", ()))
    listening = world.reactor.create_server(collect(served), "127.0.0.1", 0)
    connecting = world.reactor.create_connection(
        collect(made), [listening.address], tls=certificates.client, server_hostname=name
    )
    with pytest.raises((ValueError, TypeError)):
        world.wait(connecting)
    while not served:
        world.turn()
    world.wait(served[0].lost)
    listening.close()
    assert made == []
    assert len(getattr(world.reactor, "open_sockets", ())) == before


def test_a_context_for_the_other_side_loses_the_connection(world, certificates):
    """With the ssl module's own error, and `connection_lost`."""
    client, server = world.connect()
    failures = []
    client.transport.start_tls(certificates.server).add_errback(lambda failure: failures.append(failure.value))
    assert isinstance(failures[0], ssl.SSLError)
    assert world.wait(client.lost) is failures[0]
    world.wait(server.lost)
