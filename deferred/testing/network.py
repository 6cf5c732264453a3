"""A network of simulated hosts: what is sent takes a drawn time, and a path can stall, break, refuse and swallow.

A path leads to a host and is what goes wrong: latency is drawn for each thing that is sent, in order all the same.

    open     connections are made, octets arrive
    refuses  whoever connects is refused (or nobody listens)
    swallows whoever connects hears nothing, ever: a black hole
    cut      the same, and nothing arrives on connections that stand either, until `heal`: a partition
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from deferred.defer import Deferred
from deferred.testing.memory import WINDOW, MemoryStream, Wire
from deferred.wire import Host

if TYPE_CHECKING:
    from deferred.testing.reactor import MemoryServer
    from deferred.testing.world import SimulatedReactor


@dataclass
class Path:
    """How one host is reached. `latency` is seconds one way, of which `jitter` (0 to 1) tells how much it varies."""

    random: Random
    latency: float = 0.02
    jitter: float = 0.5
    window: int = WINDOW
    refuses: bool = False
    swallows: bool = False
    cut: bool = False
    links: dict[Link, None] = field(default_factory=dict)
    """The connections of which no end is gone, oldest first."""

    def delay(self) -> float:
        """Seconds that what is sent now takes."""
        return self.latency * (1 + self.jitter * self.random.uniform(-1.0, 1.0))


class PathWire(Wire):
    """A direction of a connection along a path."""

    def __init__(self, host: Host, path: Path) -> None:
        super().__init__(host, path.latency, path.window)
        self._path = path
        self.stalled = path.cut

    def delay(self) -> float:
        """Seconds that what is sent now takes."""
        return self._path.delay()


class Link:
    """A connection as the network sees it: its two ends, and what may happen to it on the way."""

    def __init__(self, path: Path, client: SimulatedStream, server: SimulatedStream) -> None:
        self.path = path
        self.client = client
        self.server = server
        client.link = server.link = self
        path.links[self] = None

    def reset(self) -> None:
        """Somebody on the way breaks it: both ends learn of a reset."""
        for end in (self.client, self.server):
            end.be_reset()

    def stall(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Let nothing arrive any more, one way or both."""
        if to_server:
            self.client.stall()
        if to_client:
            self.server.stall()

    def unstall(self) -> None:
        """Let what was held back go on."""
        self.client.unstall()
        self.server.unstall()


class SimulatedStream(MemoryStream):
    """One end of a connection between two simulated reactors. `received` counts the octets that were read of it."""

    __slots__ = ("link", "machine", "received")

    link: Link
    """The connection that this is an end of."""

    def __init__(self, machine: SimulatedReactor, inbox: Wire, outbox: Wire, info: dict[str, Any]) -> None:
        super().__init__(machine, inbox, outbox, info)
        self.machine = machine
        self.received = 0
        machine.streams[self] = None

    def be_reset(self) -> None:
        """A reset comes in, behind what was sent before."""
        if not self._lost:
            self._inbox.put(ConnectionResetError("the connection was reset"))

    def vanish(self, *, silently: bool) -> None:
        """Its process has died, and the system closes it; `silently`: the host has, and the peer is not told."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._discard()
        self._watch(reading=False, writing=False)
        if silently:
            self._outbox.stalled = True
            self._inbox.receiver = self._outbox.sender = None
            self._leave()
        else:
            self._release(reset=False)

    def _receive(self) -> bytes | None:
        data = super()._receive()
        self.received += len(data or b"")
        return data

    def _release(self, reset: bool) -> None:
        super()._release(reset)
        self._leave()

    def _leave(self) -> None:
        self.machine.streams.pop(self, None)
        self.link.path.links.pop(self.link, None)


class Network:
    """What lies between simulated reactors. `listening` and `names` are theirs in common."""

    def __init__(self, host: Host, random: Random) -> None:
        self._host = host
        self._random = random
        self._paths: dict[str, Path] = {}
        self._ports = 0
        self.listening: dict[Any, MemoryServer] = {}
        self.names: dict[str, list[str]] = {"localhost": ["127.0.0.1"]}

    def path(self, host: str) -> Path:
        """How `host` (an address) is reached; drawn when it is first asked for."""
        if host not in self._paths:
            self._paths[host] = Path(self._random, latency=self._random.choice((0.0005, 0.01, 0.03, 0.1, 0.3)))
        return self._paths[host]

    def links(self) -> Iterator[tuple[str, Link]]:
        """Every connection of which no end is gone, with the host that it leads to."""
        for host, path in self._paths.items():
            for link in list(path.links):
                yield host, link

    def cut(self, host: str) -> None:
        """Part `host` from everybody: nothing arrives, nobody is told."""
        path = self.path(host)
        path.cut = True
        for link in path.links:
            link.stall()

    def heal(self, host: str) -> None:
        """Undo whatever is wrong with the path to `host`; what a partition held back arrives."""
        path = self.path(host)
        if path.cut:
            for link in path.links:
                link.unstall()
        path.cut = path.swallows = path.refuses = False

    # connecting

    def dial(self, machine: SimulatedReactor, address: Any, local: Any) -> Deferred[MemoryStream]:
        """Fire with the client's end of a connection to `address`."""
        path = self.path(address[0] if isinstance(address, tuple) else address)
        deferred: Deferred[MemoryStream] = Deferred(lambda _: timer.cancel())
        timer = self._host.call_later(path.delay(), self._reach, deferred, machine, address, local, path)
        return deferred

    def _reach(
        self, deferred: Deferred[MemoryStream], machine: SimulatedReactor, address: Any, local: Any, path: Path
    ) -> None:
        """The request to connect has come to its host."""
        if deferred.called or path.swallows or path.cut or not machine.alive:
            return
        server = self.listening.get(address)
        if server is None or path.refuses:
            refused = ConnectionRefusedError(errno.ECONNREFUSED, f"{os.strerror(errno.ECONNREFUSED)}: {address}")
            self._host.call_later(path.delay(), self._answer, deferred, machine, refused)
            return
        link = self._join(machine, server.reactor, (local or (machine.address,))[0], address, path)
        self._host.call_later(path.delay(), self._answer, deferred, machine, link.client)
        server.accept(link.server)

    def _join(self, machine: SimulatedReactor, other: Any, local: str, address: Any, path: Path) -> Link:
        self._ports += 1
        here, there = (local, 1024 + self._ports % 60_000), address
        out, back = PathWire(self._host, path), PathWire(self._host, path)
        client = SimulatedStream(machine, back, out, {"sockname": here, "peername": there})
        server = SimulatedStream(other, out, back, {"sockname": there, "peername": here})
        return Link(path, client, server)

    def _answer(
        self, deferred: Deferred[MemoryStream], machine: SimulatedReactor, answer: MemoryStream | OSError
    ) -> None:
        if not machine.alive:
            return
        if isinstance(answer, OSError):
            if not deferred.called:
                machine.call_soon(self._fail, deferred, answer)
        else:
            machine.call_soon(self._hand_over, deferred, answer)

    @staticmethod
    def _fail(deferred: Deferred[MemoryStream], error: OSError) -> None:
        if not deferred.called:
            deferred.errback(error)

    @staticmethod
    def _hand_over(deferred: Deferred[MemoryStream], stream: MemoryStream) -> None:
        if deferred.called:
            stream.abort()
        else:
            deferred.callback(stream)
