"""TCP: what only sockets do."""

from __future__ import annotations

import errno
import os
import resource
import socket

import pytest

from deferred.defer import CancelledError, Deferred
from deferred.protocol import BaseProtocol
from tests.deferred.transports import Echo, Note, collect


def wait(reactor, run, seconds):
    """Let the reactor turn for a moment."""
    done: Deferred[None] = Deferred()
    reactor.call_later(seconds, done.callback, None)
    run(done)


def test_nothing_waits_for_nagle(reactor, run):
    """TCP_NODELAY is set at both ends."""
    made: list[Note] = []
    server = reactor.create_server(collect(made), "127.0.0.1", 0)
    client = run(reactor.create_connection(Note, [server.address]))
    client.transport.write(b"x")
    while not made:
        wait(reactor, run, 0.001)
    for end in (client, made[0]):
        sock = end.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert "127.0.0.1" in repr(end.transport)


def test_ipv6_is_spoken(reactor, run):
    """A server on ::1 does not take IPv4 calls for its own."""
    try:
        server = reactor.create_server(Echo, "::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    client = run(reactor.create_connection(Note, [server.address]))
    client.transport.write(b"six")
    assert run(client.receive(3)) == b"six"
    with pytest.raises(ConnectionRefusedError):
        run(reactor.create_connection(Note, [("127.0.0.1", server.address[1])]))


def test_the_next_address_is_tried_when_one_refuses(reactor, run):
    """And the error of the last names it."""
    server = reactor.create_server(Note, "127.0.0.1", 0)
    gone = reactor.create_server(Note, "127.0.0.1", 0)
    gone.close()
    client = run(reactor.create_connection(Note, [gone.address, server.address]))
    assert client.transport.get_extra_info("peername") == server.address
    with pytest.raises(ConnectionRefusedError, match=f"127.0.0.1:{gone.address[1]}"):
        run(reactor.create_connection(Note, [gone.address]))


def test_a_local_address_can_be_chosen(reactor, run):
    """Loopback has more than one."""
    server = reactor.create_server(Note, "127.0.0.1", 0)
    client = run(reactor.create_connection(Note, [server.address], local_address=("127.0.0.2", 0)))
    assert client.transport.get_extra_info("sockname")[0] == "127.0.0.2"
    with pytest.raises(OSError, match="address"):
        run(reactor.create_connection(Note, [server.address], local_address=("192.0.2.77", 0)))


@pytest.fixture
def silent():
    """A listening socket whose backlog is full: further calls get no answer."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        callers = [socket.socket() for _ in range(3)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(listening.getsockname())
        yield listening.getsockname()
        for caller in callers:
            caller.close()


def test_a_host_that_never_answers_is_given_up(reactor, run, silent):
    """After the time that the caller gives."""
    with pytest.raises(TimeoutError):
        run(reactor.create_connection(Note, [silent], timeout=0.05))
    assert not reactor.open_sockets


def test_connecting_can_be_cancelled(reactor, run, silent):
    """Its socket is closed at once."""
    connecting = reactor.create_connection(Note, [silent])
    assert len(reactor.open_sockets) == 1
    connecting.cancel()
    assert not reactor.open_sockets
    with pytest.raises(CancelledError):
        run(connecting)


@pytest.mark.parametrize("host", ["localhost", "mx.example", "", "1.2.3", "127.0.0.1%eth0", "1.2.3.4\0"])
def test_a_name_is_no_address(reactor, run, host):
    """Looking it up would block the reactor."""
    with pytest.raises(OSError, match="numeric"):
        run(reactor.create_connection(Note, [(host, 25)]))
    with pytest.raises(OSError, match="numeric"):
        reactor.create_server(Note, host, 25)


def test_a_port_that_is_none_fails(reactor, run):
    """As any other reason does, and the next address is tried; no socket is left."""
    server = reactor.create_server(Note, "127.0.0.1", 0)
    run(reactor.create_connection(Note, [("127.0.0.1", 99999), server.address]))
    before = len(reactor.open_sockets)
    for local in (None, ("127.0.0.1", 99999), ("127.0.0.1\0", 0)):
        with pytest.raises(OSError, match=r"99999|null"):
            run(reactor.create_connection(Note, [("127.0.0.1", 99999)], local_address=local))
    with pytest.raises(OSError, match="99999"):
        reactor.create_server(Note, "127.0.0.1", 99999)
    assert len(reactor.open_sockets) == before


def test_a_port_in_use_is_an_error_that_names_it(reactor):
    """At once, and no socket is left."""
    server = reactor.create_server(Note, "127.0.0.1", 0)
    with pytest.raises(OSError, match=f"127.0.0.1:{server.address[1]}") as caught:
        reactor.create_server(Note, *server.address)
    assert caught.value.errno == errno.EADDRINUSE


@pytest.fixture
def no_descriptors():
    """Calling it takes all but `spare` of the descriptors that are left; `giving_back()` returns them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    class Shortage:
        def __call__(self, spare):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
            while True:
                try:
                    taken.append(os.dup(0))
                except OSError:
                    break
            for _ in range(spare):
                os.close(taken.pop())

        def give_back(self):
            while taken:
                os.close(taken.pop())

    shortage = Shortage()
    yield shortage
    shortage.give_back()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_accepting_rests_and_recovers(reactor, run, errors, no_descriptors):
    """It does not spin, tells once, and serves the callers who waited in the backlog."""
    made: list[Note] = []
    server = reactor.create_server(collect(made, Echo), "127.0.0.1", 0)
    with socket.socket() as caller:
        caller.setblocking(False)
        no_descriptors(0)
        caller.connect_ex(server.address)
        turns = count_polls(reactor)
        wait(reactor, run, 0.25)
        assert [error.errno for error in errors] == [errno.EMFILE]
        assert made == []
        assert len(turns) < 20
        errors.clear()
        no_descriptors.give_back()
        wait(reactor, run, 0.15)
        assert len(made) == 1


def count_polls(reactor):
    """A list that grows with each turn of the reactor from now on."""
    polls = []
    files = reactor._files

    class Counting:
        def poll(self, timeout):
            polls.append(timeout)
            return files.poll(timeout)

        def __getattr__(self, name):
            return getattr(files, name)

    reactor._files = Counting()
    return polls


def test_a_server_can_be_closed_while_it_rests(reactor, run, errors, no_descriptors):
    """Nothing of it is left."""
    server = reactor.create_server(Note, "127.0.0.1", 0)
    with socket.socket() as caller:
        caller.setblocking(False)
        no_descriptors(0)
        caller.connect_ex(server.address)
        wait(reactor, run, 0.02)
        assert len(errors) == 1
        errors.clear()
        server.close()
        no_descriptors.give_back()
        wait(reactor, run, 0.15)
        assert not reactor.open_sockets


def test_without_descriptors_connecting_fails(reactor, run, no_descriptors):
    """Down the errback, like any other reason."""
    server = reactor.create_server(Note, "127.0.0.1", 0)
    no_descriptors(0)
    with pytest.raises(OSError, match="Too many open files"):
        run(reactor.create_connection(Note, [server.address]))
    no_descriptors.give_back()
    run(reactor.create_connection(Note, [server.address]))


def test_one_read_a_turn_lets_the_others_have_theirs(reactor, run):
    """A flood on one connection does not starve another."""

    class Counter(BaseProtocol):
        sizes: list[int]

        def __init__(self):
            self.sizes = []

        def data_received(self, data):
            self.sizes.append(len(data))

    made: list[Counter] = []
    server = reactor.create_server(lambda: made.append(Counter()) or made[-1], "127.0.0.1", 0)
    flood = run(reactor.create_connection(Note, [server.address]))
    other = run(reactor.create_connection(Note, [server.address]))
    flood.transport.write(b"x" * 10_000_000)
    other.transport.write(b"y")
    while len(made) < 2 or not made[1].sizes:
        wait(reactor, run, 0)
    assert sum(made[0].sizes) < 5_000_000
    assert max(made[0].sizes, default=0) <= 65_536


def test_a_silent_peer_costs_no_turn(reactor, run):
    """A paused stream whose peer hung up is not watched, and does not make the reactor spin."""
    made: list[Note] = []
    server = reactor.create_server(collect(made), "127.0.0.1", 0)
    client = run(reactor.create_connection(Note, [server.address]))
    while not made:
        wait(reactor, run, 0.001)
    made[0].transport.pause_reading()
    client.transport.abort()
    wait(reactor, run, 0.01)
    polls = count_polls(reactor)
    wait(reactor, run, 0.05)
    assert len(polls) < 5
    assert "lost" not in made[0].calls
    made[0].transport.resume_reading()
    assert isinstance(run(made[0].lost), ConnectionResetError)


@pytest.mark.parametrize("reading", [True, False])
def test_an_error_of_the_wire_keeps_nothing_alive(reactor, run, reading):
    """Whether a read or a write has met it: it is told by its words, and whoever keeps it keeps no frames of ours."""
    made: list[Note] = []
    server = reactor.create_server(collect(made), "127.0.0.1", 0)
    client = run(reactor.create_connection(Note, [server.address]))
    while not made:
        wait(reactor, run, 0.001)
    if not reading:
        client.transport.pause_reading()
    made[0].transport.abort()
    while "lost" not in client.calls:
        wait(reactor, run, 0.001)
        if not reading:
            client.transport.write(b"x")
    error = run(client.lost)
    assert isinstance(error, ConnectionError)
    assert (error.__traceback__, error.__context__) == (None, None)
