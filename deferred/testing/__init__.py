"""For tests: time that passes when told to, streams in memory, and a whole reactor made of both.

`Clock` is a `TimeSource`; `memory_transport_pair` two connected streams; `MemoryReactor` a `Reactor` whose network,
names and threads are in memory; `World` several such machines with one time and one network, all drawn from a seed,
whose processes can be killed. They share their code with the real reactor where it matters: timers are the same
`Schedule`, streams the same `Stream`, TLS the same layer.
"""

from deferred.testing.clock import Clock
from deferred.testing.memory import MemoryStream, memory_stream_pair, memory_transport_pair
from deferred.testing.network import Link, Network, Path
from deferred.testing.reactor import MemoryReactor
from deferred.testing.world import SimulatedReactor, World

__all__ = [
    "Clock",
    "Link",
    "MemoryReactor",
    "MemoryStream",
    "Network",
    "Path",
    "SimulatedReactor",
    "World",
    "memory_stream_pair",
    "memory_transport_pair",
]
