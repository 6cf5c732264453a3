"""A simulated world: one time, one network, several machines with a reactor each, everything drawn from one seed.

What runs on a `SimulatedReactor` cannot tell it from the real one: its timers and streams are the same, its threads
run (in turn, after a drawn time), and the files that it waits for are real. What a test can do that no system offers:
let a day pass in a moment, part two hosts, and kill a process in the middle of whatever it is doing.

    world = World(seed=7)
    here, there = world.machine("192.0.2.1"), world.machine("192.0.2.2")
    there.create_server(...)
    world.advance(86_400)
    here.kill()                     # no goodbye; whatever it still wanted to do is not done

The same seed gives the same world, to the microsecond.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from deferred.defer import Deferred, execute
from deferred.interfaces import Reactor
from deferred.testing.clock import TURNS, Clock, raise_error
from deferred.testing.memory import MemoryStream
from deferred.testing.network import Network, SimulatedStream
from deferred.testing.reactor import MemoryReactor
from deferred.timers import Schedule

T = TypeVar("T")


class World(Clock):
    """The time and the network of several machines. Its own timers are for what happens to them.

    `clocks` has, by address, the seconds by which a host's wall clock is ahead of the world's: it stays wrong for
    whatever runs there later.
    """

    def __init__(
        self,
        seed: int | str,
        *,
        time: float = 0.0,
        wall_time: float = 1_750_000_000.0,
        on_error: Callable[[Exception], object] = raise_error,
    ) -> None:
        super().__init__(time=time, wall_time=wall_time, on_error=on_error)
        self.seed = seed
        self.network = Network(self, self.draw("network"))
        self.machines: list[SimulatedReactor] = []
        self.clocks: dict[str, float] = {}

    def draw(self, purpose: str) -> Random:
        """A source of randomness of its own for each purpose, so that a draw more for one does not change another."""
        return Random(f"{self.seed} {purpose}")  # noqa: S311 - drawn to be repeated, not to be secret

    def machine(self, address: str, *, on_error: Callable[[Exception], object] = raise_error) -> SimulatedReactor:
        """A new process on the host of this address."""
        machine = SimulatedReactor(self, address, on_error=on_error)
        self.machines.append(machine)
        return machine

    def next_time(self) -> float | None:
        """When something may be due next, here or on a machine."""
        first = super().next_time()
        for machine in self.machines:
            when = machine.next_time()
            if when is not None and (first is None or when < first):
                first = when
        return first

    def turn(self) -> None:
        """One turn of the world, then one of each machine that has something to do."""
        self._turn_what_is_due()

    def settle(self) -> None:
        """Turn until nothing is due at this moment. Raises `RuntimeError` if there is no end to it."""
        for _ in range(TURNS):
            if not self._turn_what_is_due():
                return
        raise RuntimeError("calls keep asking for calls at the same moment")

    def _turn_what_is_due(self) -> bool:
        """Whether anything was. After each turn of its own, in which a test may have touched files, the machines look
        at theirs."""
        now = self._now
        when = super().next_time()
        acts = turned = when is not None and when <= now
        if acts:
            super().turn()
        for machine in self.machines.copy():
            when = machine.next_time()
            due = when is not None and when <= now
            if acts or due:
                machine.turn()
                turned = turned or due
        return turned


class SimulatedReactor(MemoryReactor):
    """The reactor of one process in a world, at one address.

    * `in_thread(function, *args, **kwargs)` makes the calls of `defer_to_thread`, in turn: a test may have one fail
      before it is made, or after. `thread_time()` draws the seconds that a call waits for its thread, and its result
      for the reactor.
    * `streams` are the ends of connections that this process has open, `working` the calls that wait for a thread.
    """

    def __init__(self, world: World, address: str, *, on_error: Callable[[Exception], object] = raise_error) -> None:
        self.world = world
        super().__init__(time=world.time(), wall_time=world.wall_time(), on_error=on_error)
        self.address = address
        self.alive = True
        self.listening = world.network.listening
        self.names = world.network.names
        self.streams: dict[SimulatedStream, None] = {}
        self.working = 0
        self.in_thread: Callable[..., Any] = _call
        random = world.draw(f"threads of {address} from {world.time()}")
        self.thread_time: Callable[[], float] = lambda: random.expovariate(1000.0)
        self._poll = select.poll()

    # time is the world's

    def time(self) -> float:
        """Seconds, the same on every machine."""
        return self.world.time()

    def wall_time(self) -> float:
        """Seconds since the epoch, as this host has them."""
        return self.world.wall_time() + self.world.clocks.get(self.address, 0.0)

    def set_wall_time(self, wall_time: float) -> None:
        """Let this host's wall clock jump, for this process and those to come."""
        self.world.clocks[self.address] = wall_time - self.world.wall_time()

    def next_time(self) -> float | None:
        """When this machine may have something to do."""
        schedule = self._schedule
        return self.world.time() if schedule.busy else schedule.next_time()

    def turn(self) -> None:
        """Look at the files that are waited for, then make the calls that are due."""
        self._now = self.world.time()
        if self.readers or self.writers:
            for fd, _ in self._poll.poll(0):
                for watched in (self.readers, self.writers):
                    if fd in watched and self.alive:
                        self.call_soon(watched[fd])
        super().turn()

    def settle(self) -> None:
        """Turn the world until nothing is due at this moment."""
        self.world.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass for the whole world."""
        self.world.advance(seconds)

    def run(self, deferred: Deferred[T], limit: float = 86_400.0) -> T:
        """Let time pass for the whole world until `deferred` fires."""
        return self.world.run(deferred, limit)

    # the end

    def kill(self, *, silently: bool = False) -> None:
        """The process dies here and now: nothing that it has asked for is done, its connections are closed.

        `silently`: the whole host loses power, and its peers are told nothing.
        """
        self.alive = False
        self._schedule = Schedule(self.time)
        self.readers.clear()
        self.writers.clear()
        self.working = 0
        for stream in list(self.streams):
            stream.vanish(silently=silently)
        for server in [server for server in self.listening.values() if server.reactor is self]:
            server.close()
        if self in self.world.machines:
            self.world.machines.remove(self)

    def left_over(self) -> list[str]:
        """What this process has not let go of, in words: nothing, once it has been stopped in good order."""
        left = [f"{self.pending} calls"] if self.pending else []
        left += [f"a reader of {fd}" for fd in self.readers] + [f"a writer of {fd}" for fd in self.writers]
        left += [f"a connection to {stream.get_extra_info('peername')}" for stream in self.streams]
        left += [f"listening on {server.address}" for server in self.listening.values() if server.reactor is self]
        return left + ([f"{self.working} calls in threads"] if self.working else [])

    # the network is the world's, the threads are one

    def _dial(self, address: Any, local_address: Any) -> Deferred[MemoryStream]:
        return self.world.network.dial(self, address, local_address)

    def defer_to_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Deferred[T]:
        """Call `function` after a while, by `in_thread`; a while after that, fire."""
        deferred: Deferred[T] = Deferred()
        self.working += 1
        self.call_later(self.thread_time(), self._make_call, deferred, function, args, kwargs)
        return deferred

    def _make_call(
        self, deferred: Deferred[T], function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        results: list[Any] = []
        made: Deferred[T] = execute(self.in_thread, function, *args, **kwargs)
        made.add_both(results.append)
        self.call_later(self.thread_time(), self._call_made, deferred, results[0])

    def _call_made(self, deferred: Deferred[T], result: Any) -> None:
        self.working -= 1
        if not deferred.called:  # else it was cancelled
            deferred.callback(result)  # which takes a Failure for what it is

    # files are real

    def add_reader(self, fd: int, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` whenever `fd` can be read."""
        super().add_reader(fd, function, *args)
        self._watch(fd)

    def remove_reader(self, fd: int) -> bool:
        """Stop watching; True if it was watched."""
        removed = super().remove_reader(fd)
        self._watch(fd)
        return removed

    def add_writer(self, fd: int, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` whenever `fd` can be written."""
        super().add_writer(fd, function, *args)
        self._watch(fd)

    def remove_writer(self, fd: int) -> bool:
        """Stop watching; True if it was watched."""
        removed = super().remove_writer(fd)
        self._watch(fd)
        return removed

    def _watch(self, fd: int) -> None:
        wanted = (select.POLLIN if fd in self.readers else 0) | (select.POLLOUT if fd in self.writers else 0)
        if wanted:
            self._poll.register(fd, wanted)
        else:
            with contextlib.suppress(KeyError):  # it was not watched
                self._poll.unregister(fd)


def _call(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return function(*args, **kwargs)


if TYPE_CHECKING:
    _is_a_reactor: type[Reactor] = SimulatedReactor
