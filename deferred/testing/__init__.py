"""For tests: time that passes when told to, streams in memory, and a whole reactor made of both.

`Clock` is a `TimeSource`; `memory_transport_pair` two connected streams; `MemoryReactor` a `Reactor` whose network,
names and threads are in memory. They share their code with the real reactor where it matters: timers are the same
`Schedule`, streams the same `Stream`, TLS the same layer.
"""

from deferred.testing.clock import Clock
from deferred.testing.memory import MemoryStream, memory_stream_pair, memory_transport_pair
from deferred.testing.reactor import MemoryReactor

__all__ = ["Clock", "MemoryReactor", "MemoryStream", "memory_stream_pair", "memory_transport_pair"]
