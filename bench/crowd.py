"""Ten thousand at once: as many conversations in flight in one process, with servers that take 100 ms for each step.

Every client has a connection for each message, all at the same time, and says the same on it. deferd has its queue on
the disk besides: the messages wait in its store until a moment at which all are due, for 2,000 sites, five each; its
memory is what it has then beyond what it had just before. The other clients have no queue, and their memory is what
they have beyond what they had before they began, the messages included.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from bench.deferd import Deferd, route
from bench.mail import Mail
from bench.processes import Cost, raise_open_files, run
from bench.sink import MOST_BUSY, NO_CHUNKING, Endpoint, Sink, judged, together
from bench.suite import Benchmark, Picture, Scale, Shown
from bench.svg import Bar, bars
from bench.tables import Table, number, times
from bench.task import PeerName, Task

STEP: Final = 0.1
SIZE: Final = 1024
PORTS: Final = 4
SINKS: Final = 2
EACH: Final = 5
"""Messages for a site."""

PEERS: Final[dict[str, PeerName]] = {
    "bare loop": "bare",
    "deferd's session and reactor": "sessions",
    "aiosmtplib": "aiosmtplib",
    "aiosmtplib, collector as deferd's": "seldom",
}


class Row(NamedTuple):
    """Seconds from the first connection to the last message; CPU seconds and octets of memory for each; how many
    conversations were in flight at the most."""

    who: str
    messages: int
    most: int
    wall: float
    cpu: float
    memory: float
    busy: float
    sink: str


def measure(scale: Scale) -> list[Row]:
    """The daemon, then each of the others."""
    messages = scale.of(10_000, 200)
    raise_open_files(messages + 2_000)
    rows = [deferd(messages, lead=scale.of(10, 4))]
    return rows + [peer(who, messages) for who in PEERS]


def _sinks(stack: ExitStack, messages: int, logs: Path | None = None) -> list[Sink]:
    """Two servers, as one would be the limit for the quickest client. Each has several ports, at every loopback
    address, and each of these a queue of connections of its own."""
    endpoints = [Endpoint("0.0.0.0", delay=STEP)] * (PORTS // SINKS)
    return [
        stack.enter_context(
            Sink(
                endpoints,
                expected=messages // SINKS,
                keywords=NO_CHUNKING,
                log=logs and logs / f"sink{number}.log",
            )
        )
        for number in range(SINKS)
    ]


def _ports(sinks: Sequence[Sink]) -> list[int]:
    return [port for sink in sinks for port in sink.ports]


def address(number: int) -> str:
    """One of many addresses of this machine."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def peer(who: str, messages: int) -> Row:
    """A client that keeps nothing."""
    with ExitStack() as stack:
        sinks = _sinks(stack, messages)
        ports = _ports(sinks)
        addresses = tuple((address(n), ports[n % PORTS]) for n in range(10 * PORTS))
        mail = Mail(messages=messages, size=SIZE)
        cost = run("bench.peers", Task(peer=PEERS[who], mail=mail, connections=messages, addresses=addresses), Cost)
        report = together([sink.stop() for sink in sinks])
        report.check(messages)
        memory = cost.memory(report.most)
        took = report.last - report.connected
        return Row(who, messages, report.most, took, cost.cpu / messages, memory, report.busy(took), sinks[0].kind)


def deferd(messages: int, lead: float) -> Row:
    """The daemon, with everything due at one moment, so many seconds after the store begins to be filled: later where
    that is too soon for this machine."""
    while True:
        try:
            return _deferd(messages, lead)
        except TooSoon:
            lead *= 2


class TooSoon(Exception):
    """The messages were due before the daemon was there."""


def _deferd(messages: int, lead: float) -> Row:
    sites = messages // EACH
    mail = Mail(messages=messages, size=SIZE, domains=tuple(f"site{n}.example" for n in range(sites)))
    with Deferd() as deferd, ExitStack() as stack:
        sinks = _sinks(stack, messages, deferd.folder)
        ports = _ports(sinks)
        deferd.configure(
            *(route(f"smtp://{address(n)}:{ports[n % PORTS]}", f"site{n}.example") for n in range(sites)),
            limits={"connections": messages + messages // 5, "connections_per_site": 20},
        )
        due = time.time() + lead
        deferd.fill(mail, not_before=due)
        deferd.start()
        deferd.wait_until_started()
        if time.time() > due - 1:
            raise TooSoon
        time.sleep(due - 0.5 - time.time())
        idle, used = deferd.memory(), deferd.cpu()
        for sink in sinks:
            sink.wait(600)
        used, grown = deferd.cpu() - used, deferd.memory("VmHWM") - idle
        report = deferd.check(mail, *sinks)
        took = report.last - report.connected
        memory = grown / report.most
        cpu = used / messages
        return Row("deferd, durable", messages, report.most, took, cpu, memory, report.busy(took), sinks[0].kind)


def show(rows: Sequence[Row]) -> Shown:
    """A line for each, beside the bare loop: unless that was held up by the sink, and says nothing."""
    bare = next(row for row in rows if row.who == "bare loop")
    lines = tuple(
        (
            row.who,
            f"{row.most:,}",
            number(row.wall),
            times(row.wall / bare.wall) if bare.busy <= MOST_BUSY else "void",
            number(row.cpu * 1e6),
            number(row.memory / 1024),
            judged(row.busy, row.sink),
        )
        for row in rows
    )
    columns = ("", "in flight", "seconds", "of the bare loop", "CPU us each", "KiB each", "sink busy")
    title = f"{rows[0].messages:,} conversations at once, {STEP * 1000:.0f} ms for each step"
    drawn = [Bar(row.who, row.wall, ours=row.who.startswith("deferd")) for row in rows]
    theirs, tuned = (row.cpu for row in rows if row.who.startswith("aiosmtplib"))
    note = (
        f"deferd's CPU for a message, its queue included, is {times(rows[0].cpu / theirs)} that of aiosmtplib, and "
        f"{times(rows[0].cpu / tuned)} that of aiosmtplib with the garbage collector set as deferd sets it"
    )
    picture = Picture("crowd.svg", title, bars(f"{title}: seconds", drawn))
    return Shown((Table(title, columns, lines, (note,)),), (picture,))


BENCHMARK: Final = Benchmark("ten thousand conversations at once in one process", measure, show)
