"""Datagrams, over sockets and in memory."""

from __future__ import annotations

import pytest

from deferred.defer import Deferred


class Box:
    """Keeps what comes, and fires `come` once there are `wanted`."""

    def __init__(self, wanted=1):
        self.wanted = wanted
        self.datagrams = []
        self.errors = []
        self.come = Deferred()
        self.lost = Deferred()
        self.refused = Deferred()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.datagrams.append((data, address))
        if len(self.datagrams) == self.wanted:
            self.come.callback(self.datagrams)

    def error_received(self, error):
        self.errors.append(error)
        if len(self.errors) == 1:
            self.refused.callback(error)

    def connection_lost(self, error):
        self.lost.callback(error)


def test_datagrams_go_there_and_back(world):
    """Each whole, with its sender's address."""
    server, client = Box(3), Box()
    listening = world.reactor.create_datagram_endpoint(lambda: server, local_address=("127.0.0.1", 0))
    address = listening.get_extra_info("sockname")
    world.reactor.create_datagram_endpoint(lambda: client, remote_address=address)
    assert client.transport.get_extra_info("peername") == address
    for data in (b"one", b"", b"x" * 9000):
        client.transport.sendto(data)
    got = world.wait(server.come)
    assert [data for data, _ in got] == [b"one", b"", b"x" * 9000]
    server.transport.sendto(b"answer", got[0][1])
    assert world.wait(client.come)[0] == (b"answer", address)


def test_a_closed_socket_receives_nothing_more(world):
    """And says so once."""
    server, client = Box(), Box()
    listening = world.reactor.create_datagram_endpoint(lambda: server, local_address=("127.0.0.1", 0))
    address = listening.get_extra_info("sockname")
    world.reactor.create_datagram_endpoint(lambda: client, remote_address=address)
    client.transport.sendto(b"x")
    listening.close()
    listening.close()
    assert world.wait(server.lost) is None
    world.turn(3)
    assert server.datagrams == []
    client.transport.close()
    client.transport.sendto(b"ignored")
    world.wait(client.lost)


def test_a_refusal_is_told_and_ends_nothing(reactor, run):
    """The peer may come back."""
    client = Box()
    gone = reactor.create_datagram_endpoint(Box, local_address=("127.0.0.1", 0))
    address = gone.get_extra_info("sockname")
    gone.close()
    reactor.create_datagram_endpoint(lambda: client, remote_address=address)
    client.transport.sendto(b"x")
    assert isinstance(run(client.refused), ConnectionRefusedError)
    server = Box()
    reactor.create_datagram_endpoint(lambda: server, local_address=address)
    client.transport.sendto(b"again")
    assert run(server.come)[0][0] == b"again"


def test_a_datagram_that_is_too_large_is_told(reactor, run):
    """As an error of its own, later."""
    client = Box()
    reactor.create_datagram_endpoint(lambda: client, local_address=("127.0.0.1", 0))
    client.transport.sendto(b"x" * 70_000, ("127.0.0.1", 9))
    assert client.errors == []
    assert "too long" in str(run(client.refused))
    assert client.transport.get_extra_info("socket") is not None
    assert client.transport.get_extra_info("peername", "nobody") == "nobody"


def test_a_protocol_that_raises_gets_no_socket(world):
    """Nothing is left of it."""

    class Faulty(Box):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        world.reactor.create_datagram_endpoint(Faulty, local_address=("127.0.0.1", 0))
    world.turn()


def test_an_address_in_use_is_refused(world):
    """At once."""
    first = world.reactor.create_datagram_endpoint(Box, local_address=("127.0.0.1", 0))
    with pytest.raises(OSError, match="in use"):
        world.reactor.create_datagram_endpoint(Box, local_address=first.get_extra_info("sockname"))
