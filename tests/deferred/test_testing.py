"""The network in memory: what a test can make it do."""

from __future__ import annotations

import socket
import threading

import pytest

from deferred.defer import CancelledError
from deferred.testing import Clock, MemoryReactor, memory_transport_pair
from tests.deferred.transports import Echo, Note, collect

HERE = ("192.0.2.9", 25)


@pytest.fixture
def memory():
    return MemoryReactor()


def test_a_connection_takes_a_round_trip(memory):
    """And each octet half of one."""
    memory.latency = 0.05
    made: list[Note] = []
    memory.create_server(collect(made, Echo), *HERE)
    client = memory.run(memory.create_connection(Note, [HERE]))
    assert memory.time() == pytest.approx(0.1)
    client.transport.write(b"hello")
    memory.run(client.receive(5))
    assert memory.time() == pytest.approx(0.2)
    assert client.transport.get_extra_info("peername") == HERE
    assert memory.attempts == [HERE]
    assert memory.connections == [client.transport]


def test_hosts_have_their_own_latency(memory):
    """The slow ones lose to the quick ones."""
    memory.latencies["192.0.2.9"] = 3
    slow, quick = memory.create_server(Note, *HERE), memory.create_server(Note, "2001:db8::9", 25)
    client = memory.run(memory.create_connection(Note, [slow.address, quick.address]))
    assert client.transport.get_extra_info("peername") == quick.address
    memory.advance(10)
    assert len(memory.connections) == 1


def test_nobody_there_is_refused(memory):
    """After a round trip, unless the host cannot be reached at all."""
    memory.latency = 1
    with pytest.raises(ConnectionRefusedError):
        memory.run(memory.create_connection(Note, [HERE]))
    assert memory.time() == 2
    memory.unreachable.add("192.0.2.9")
    with pytest.raises(OSError, match="No route"):
        memory.run(memory.create_connection(Note, [HERE]))
    assert memory.time() == 2


def test_a_black_hole_never_answers(memory):
    """Only time ends it."""
    memory.create_server(Note, *HERE)
    memory.black_holes.add("192.0.2.9")
    with pytest.raises(TimeoutError, match="no connection within 30 s"):
        memory.run(memory.create_connection(Note, [HERE], timeout=30))
    assert memory.time() == 30


def test_connecting_can_be_cancelled_at_any_moment(memory):
    """Also when the answer is on its way: the server sees it go."""
    memory.latency = 1
    made: list[Note] = []
    memory.create_server(collect(made), *HERE)
    for moment in (0.5, 1.5):
        connecting = memory.create_connection(Note, [HERE])
        memory.advance(moment)
        connecting.cancel()
        with pytest.raises(CancelledError):
            memory.run(connecting)
        memory.advance(10)
    assert memory.connections == []
    assert made[0].calls[-1] == "lost"


def test_a_broken_connection_is_seen_by_both(memory):
    """With the error given here, and as a reset there."""
    made: list[Note] = []
    memory.create_server(collect(made), *HERE)
    client = memory.run(memory.create_connection(Note, [HERE]))
    memory.connections[0].lose(TimeoutError("line dead"), reset=True)
    memory.settle()
    assert str(client.error) == "line dead"
    assert isinstance(made[0].error, ConnectionResetError)


def test_a_stalled_end_says_nothing_until_it_is_released(memory):
    """And then all of it, in its order."""
    made: list[Note] = []
    memory.create_server(collect(made), *HERE)
    client = memory.run(memory.create_connection(Note, [HERE]))
    client.transport.write(b"one")
    memory.connections[0].stall()
    client.transport.write(b"two")
    memory.advance(1000)
    assert made[0].data == b""
    memory.connections[0].unstall()
    memory.settle()
    assert made[0].data == b"onetwo"


def test_an_address_is_given_once(memory):
    """And given back."""
    server = memory.create_server(Note, *HERE)
    with pytest.raises(OSError, match="in use"):
        memory.create_server(Note, *HERE)
    server.close()
    server.close()
    memory.create_server(Note, *HERE)
    assert memory.create_server(Note, "192.0.2.9", 0).address[1] > 0


def test_a_path_is_an_address_too(memory):
    """For what speaks over Unix sockets."""
    memory.create_unix_server(Echo, "/run/x")
    client = memory.run(memory.create_unix_connection(Note, "/run/x"))
    client.transport.write(b"hello")
    assert memory.run(client.receive(5)) == b"hello"
    with pytest.raises(ConnectionRefusedError):
        memory.run(memory.create_unix_connection(Note, "/run/y"))


def test_names_are_what_the_test_says(memory):
    """An address stands for itself; anything else is unknown."""
    memory.names["mx.example"] = ["192.0.2.9", "2001:db8::9"]
    assert memory.run(memory.getaddrinfo("mx.example", 25)) == [HERE, ("2001:db8::9", 25)]
    assert memory.run(memory.getaddrinfo("2001:db8::1", 25)) == [("2001:db8::1", 25)]
    with pytest.raises(socket.gaierror):
        memory.run(memory.getaddrinfo("nowhere.example", 25))


def test_threads_run_at_once_or_in_turn(memory):
    """On the thread that there is."""
    here = threading.get_ident()
    assert memory.run(memory.defer_to_thread(threading.get_ident)) == here
    memory.threads_wait = True
    order: list[int] = []
    first, second, third = (memory.defer_to_thread(order.append, number) for number in range(3))
    bad = memory.defer_to_thread(int, "x")
    second.add_errback(lambda _: None)
    second.cancel()
    assert memory.run_threads(1) == 1
    assert (order, first.called, third.called) == ([0], True, False)
    assert memory.run_threads() == 3
    assert order == [0, 2]
    with pytest.raises(ValueError, match="invalid"):
        memory.run(bad)


def test_files_are_only_noted(memory):
    """A test makes their calls."""
    calls: list[str] = []
    memory.add_reader(7, calls.append, "read")
    memory.add_writer(7, calls.append, "write")
    memory.readers[7]()
    memory.writers[7]()
    assert calls == ["read", "write"]
    assert (memory.remove_reader(7), memory.remove_reader(7)) == (True, False)
    assert (memory.remove_writer(7), memory.remove_writer(7)) == (True, False)
    memory.call_soon_threadsafe(calls.append, "soon")
    memory.settle()
    assert calls[-1] == "soon"


def test_two_protocols_can_be_connected_on_a_clock():
    """Without any reactor, and with a latency."""
    clock = Clock()
    client, server = Note(), Echo()
    memory_transport_pair(clock, client, server, latency=2)
    client.transport.write(b"ping")
    clock.advance(3.9)
    assert client.data == b""
    clock.advance(0.2)
    assert client.data == b"ping"
    client.transport.close()
    clock.advance(10)
    assert server.calls == ["made", "data", "eof", "lost"]


def test_a_small_window_holds_the_writer_back():
    """As the buffers of two sockets would."""
    clock = Clock()
    client, server = Note(), Note()
    memory_transport_pair(clock, client, server, window=1000)
    server.transport.pause_reading()
    client.transport.write(b"x" * 200_000)
    clock.settle()
    assert client.transport.get_write_buffer_size() == 199_000
    server.transport.resume_reading()
    clock.settle()
    assert len(server.data) == 200_000
    assert client.calls == ["made", "pause", "resume"]


def test_all_of_the_peers_last_words_are_read_after_a_failed_write():
    """More than one read's worth waits, and its reset is known to the next write."""
    clock = Clock()
    client, server = Note(), Note()
    memory_transport_pair(clock, client, server)
    client.transport.pause_reading()
    server.transport.write(b"x" * 200_000)
    clock.settle()
    server.transport.abort()
    clock.settle()
    client.transport.write(b"fails")
    client.transport.resume_reading()
    clock.settle()
    assert len(client.data) == 200_000
    assert isinstance(client.error, BrokenPipeError)


def test_the_same_program_runs_the_same_way_each_time():
    """Nothing in memory depends on anything but the calls made."""

    def story() -> list[tuple[float, str]]:
        memory = MemoryReactor(latency=0.01)
        events: list[tuple[float, str]] = []
        made: list[Note] = []
        memory.create_server(collect(made, Echo), *HERE)
        for number in range(5):
            memory.create_connection(Note, [HERE]).add_callback(
                lambda note, number=number: events.append((memory.time(), f"{number}: {note.calls}"))
            )
        memory.advance(1)
        return events

    assert story() == story()
