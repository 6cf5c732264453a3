"""The simulated world itself: what it promises to whoever simulates with it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from deferred.defer import Deferred
from deferred.failure import Failure
from deferred.protocol import BaseProtocol, Transport
from deferred.testing import SimulatedReactor, World

SERVER = "10.0.0.1"


class Line(BaseProtocol):
    """Remembers what it hears; a server's end answers with the same."""

    transport: Transport

    def __init__(self, echo: bool = False) -> None:
        self.echo = echo
        self.heard = b""
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if self.echo:
            self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)


class Pair:
    """A client's machine and a server's, and a connection between them."""

    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        self.here = self.world.machine("192.0.2.1")
        self.there = self.world.machine(SERVER)
        self.servers: list[Line] = []
        self.path = self.world.network.path(SERVER)
        self.path.latency = 1.0
        self.path.jitter = 0.0
        self.there.create_server(self.serve, SERVER, 25)

    def serve(self) -> Line:
        self.servers.append(Line(echo=True))
        return self.servers[-1]

    def dial(self, timeout: float | None = None) -> list[Any]:
        outcome: list[Any] = []
        self.here.create_connection(Line, [(SERVER, 25)], timeout=timeout).add_both(outcome.append)
        return outcome

    def connect(self) -> Line:
        outcome = self.dial()
        self.world.advance(2.0)
        line: Line = outcome[0]
        return line


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_octets_take_the_paths_time(pair: Pair) -> None:
    """A connection is there after two latencies, an echo after two more."""
    outcome = pair.dial()
    pair.world.advance(1.9)
    assert outcome == []
    pair.world.advance(0.1)
    line = outcome[0]
    line.transport.write(b"hello")
    pair.world.advance(1.9)
    assert line.heard == b""
    pair.world.advance(0.1)
    assert line.heard == b"hello"


def test_a_killed_process_does_nothing_more_and_its_peers_hear_of_it(pair: Pair) -> None:
    """No timer of it fires; its connections are closed by the system, its server's port is free."""
    pair.connect()
    fired: list[str] = []
    pair.here.call_later(0.5, fired.append, "timer")
    pair.here.defer_to_thread(fired.append, "thread")
    pair.here.kill()
    pair.world.advance(10.0)
    assert (fired, pair.servers[0].lost) == ([], [None])
    assert pair.here.left_over() == []
    pair.there.kill()
    pair.world.machine(SERVER).create_server(Line, SERVER, 25)


def test_a_power_cut_tells_nobody(pair: Pair) -> None:
    """The peer's end stays half open."""
    pair.connect()
    pair.here.kill(silently=True)
    pair.world.advance(3600.0)
    assert pair.servers[0].lost == []


def test_a_partition_holds_back_what_arrives_when_it_is_healed(pair: Pair) -> None:
    """Nothing comes through, no connection is made, and nobody is told; afterwards all goes on."""
    line = pair.connect()
    pair.world.network.cut(SERVER)
    line.transport.write(b"hello")
    outcome = pair.dial(timeout=30.0)
    pair.world.advance(60.0)
    assert (line.heard, line.lost) == (b"", [])
    assert isinstance(outcome[0], Failure)
    assert outcome[0].check(TimeoutError)
    pair.world.network.heal(SERVER)
    pair.world.advance(2.0)
    assert line.heard == b"hello"


@pytest.mark.parametrize(("fault", "error"), [("refuses", ConnectionRefusedError), ("swallows", TimeoutError)])
def test_a_path_refuses_and_swallows(pair: Pair, fault: str, error: type[Exception]) -> None:
    """As a host without a server does, and as a firewall."""
    setattr(pair.path, fault, True)
    outcome = pair.dial(timeout=30.0)
    pair.world.advance(31.0)
    assert outcome[0].check(error)


def test_a_stalled_link_can_go_on_and_a_reset_one_is_lost_at_both_ends(pair: Pair) -> None:
    """A stall holds back one way; a reset comes from in between."""
    line = pair.connect()
    [(host, link)] = pair.world.network.links()
    assert host == SERVER
    link.stall(to_client=False)
    line.transport.write(b"hello")
    pair.world.advance(10.0)
    assert pair.servers[0].heard == b""
    link.unstall()
    pair.world.advance(2.0)
    assert line.heard == b"hello"
    assert link.client.received == 5
    link.reset()
    pair.world.advance(2.0)
    assert [type(line.lost[0]), type(pair.servers[0].lost[0])] == [ConnectionResetError, ConnectionResetError]
    assert list(pair.world.network.links()) == []


def test_threads_take_time_and_may_be_made_to_fail() -> None:
    """A call in a thread is made later, its result comes later still; `in_thread` decides what becomes of it."""
    world = World(1)
    machine = world.machine("192.0.2.1")
    machine.thread_time = lambda: 1.0
    calls: list[str] = []
    results: list[Any] = []

    def twice(function: Any, *args: Any) -> None:
        function(*args)
        function(*args)
        raise OSError("and then it failed")

    machine.in_thread = twice
    d: Deferred[Any] = machine.defer_to_thread(calls.append, "x")
    d.add_errback(results.append)
    world.advance(1.0)
    assert (calls, results, machine.left_over()) == (["x", "x"], [], ["1 calls", "1 calls in threads"])
    world.advance(1.0)
    assert results[0].check(OSError)
    assert machine.left_over() == []


def test_files_are_real() -> None:
    """A descriptor that can be read is noticed in the turn after the world has done something to it."""
    world = World(1)
    machine: SimulatedReactor = world.machine("192.0.2.1")
    end, other = os.pipe()
    seen: list[bytes] = []
    machine.add_reader(end, lambda: seen.append(os.read(end, 10)))
    world.call_later(5.0, os.write, other, b"x")
    world.advance(4.9)
    assert seen == []
    world.advance(0.1)
    assert seen == [b"x"]
    assert machine.left_over() == [f"a reader of {end}"]
    assert machine.remove_reader(end)
    assert not machine.remove_reader(end)
    os.close(end)
    os.close(other)


def test_each_purpose_draws_for_itself() -> None:
    """The same seed and purpose draw the same, another of either does not."""
    draws = [World(seed).draw(purpose).random() for seed in (1, 2) for purpose in ("a", "b")]
    assert len(set(draws)) == 4
    assert World(1).draw("a").random() == draws[0]


def test_a_hosts_clock_outlives_its_processes() -> None:
    """A wall clock that was set stays wrong for whatever is started there later, and right elsewhere."""
    world = World(1)
    first, other = world.machine("192.0.2.1"), world.machine(SERVER)
    right = world.wall_time()
    first.set_wall_time(right + 86_400)
    first.kill()
    world.advance(10)
    assert world.machine("192.0.2.1").wall_time() == right + 86_410
    assert other.wall_time() == world.wall_time() == right + 10
    assert other.time() == world.time()
