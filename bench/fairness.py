"""Fairness: what healthy mail pays for a backlog that is none of its concern.

Jobs for five healthy sites are dropped at a steady pace; the latency of each runs from the rename in new/ to the sink's
having it whole. Once with nothing else in the queue; once with 20,000 messages waiting for a tarpit, which takes
messages and never answers, and others for 50 dead sites (half of them refuse connections, half take them and say
nothing) and for 20 slow ones, which take two seconds for each step.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.deferd import Deferd, dropped, route
from bench.mail import Mail, parts
from bench.sink import Endpoint, Sink, read_log
from bench.suite import Benchmark, Picture, Scale, Shown
from bench.svg import Bar, bars
from bench.tables import Table, number
from bench.wrong import Wrong

HEALTHY: Final = 5
FIRST_HEALTHY: Final = 10_000_000
"""The number of the first healthy message: those of the backlog are smaller."""
MOST_TIMES: Final = 1.2
MORE: Final = 0.02


class Trouble(NamedTuple):
    """A backlog: sites of each kind, and messages for each site of the kind."""

    tarpit: int
    dead: int
    slow: int
    each: int


NOTHING: Final = Trouble(0, 0, 0, 0)


class Row(NamedTuple):
    """Latencies of healthy mail, in seconds, and how much waited for others."""

    case: str
    messages: int
    backlog: int
    median: float
    p99: float
    worst: float


def measure(scale: Scale) -> list[Row]:
    """Without a backlog, and with one."""
    healthy = scale.of(6_000, 150)
    rate = scale.of(200, 100)
    trouble = Trouble(tarpit=scale.of(20_000, 300), dead=scale.of(50, 6), slow=scale.of(20, 2), each=scale.of(40, 5))
    return [delivered("nothing else", healthy, rate, NOTHING), delivered("the backlog", healthy, rate, trouble)]


def delivered(case: str, healthy: int, rate: float, trouble: Trouble) -> Row:
    """Healthy mail at a steady rate, beside that trouble."""
    mail = Mail(messages=healthy, domains=tuple(f"healthy{n}.example" for n in range(HEALTHY)), first=FIRST_HEALTHY)
    silent = trouble.dead // 2
    endpoints = [
        *[Endpoint()] * HEALTHY,
        *[Endpoint(tarpit=True)] * bool(trouble.tarpit),
        *[Endpoint(silent=True)] * silent,
        *[Endpoint(delay=2.0)] * trouble.slow,
    ]
    with Deferd() as deferd, closed_ports(trouble.dead - silent) as refusing:
        log = deferd.folder / "sink.log"
        with Sink(endpoints, log=log) as sink:
            ports = iter([*sink.ports, *refusing])
            named = [f"healthy{n}" for n in range(HEALTHY)]
            named += ["tarpit"] * bool(trouble.tarpit) + [f"silent{n}" for n in range(silent)]
            named += [f"slow{n}" for n in range(trouble.slow)] + [f"refusing{n}" for n in range(len(refusing))]
            deferd.configure(
                *(route(f"smtp://127.0.0.1:{next(ports)}", f"{name}.example") for name in named),
                timeouts={"drain": "2s"},  # the tarpit holds on to the end
            )
            backlog = _fill(deferd, named[HEALTHY:], trouble)
            deferd.start()
            deferd.wait_until_started()
            time.sleep(min(5.0, 1 + backlog / 1000))  # until the trouble is in full swing
            with deferd.drop(mail, rate) as dropper:
                dropped(dropper)
            latencies = _latencies(sink, log, mail)
            deferd.stop()
    return Row(case, healthy, backlog, *quantiles(latencies))


class closed_ports:  # noqa: N801 (used as a word)
    """Ports that refuse connections, kept from others meanwhile: bound, and not listened on."""

    def __init__(self, count: int) -> None:
        self._sockets = [socket.socket() for _ in range(count)]

    def __enter__(self) -> list[int]:
        for one in self._sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in self._sockets]

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()


def _fill(deferd: Deferd, troubled: Sequence[str], trouble: Trouble) -> int:
    """Put the backlog into the store, and tell its length."""
    if not troubled:
        return 0
    others = tuple(f"{name}.example" for name in troubled if name != "tarpit")
    deferd.fill(Mail(messages=trouble.tarpit, domains=("tarpit.example",)))
    deferd.fill(Mail(messages=trouble.each * len(others), domains=others, first=trouble.tarpit))
    return trouble.tarpit + trouble.each * len(others)


def _latencies(sink: Sink, log: Path, mail: Mail) -> list[float]:
    """Seconds that each healthy message took. Raises `Wrong` unless each has come once."""
    end = time.monotonic() + 120
    while sum(seen.messages for seen in sink.report().endpoints[:HEALTHY]) < mail.messages:
        if time.monotonic() > end:
            raise Wrong("healthy mail has not come")
        time.sleep(0.1)
    taken: dict[int, float] = {}
    for one in read_log(log):
        if one.endpoint < HEALTHY:
            message, renamed = parts(one.message_id)
            if message in taken:
                raise Wrong(f"message {message} came twice")
            taken[message] = one.at - renamed / 1e9
    if set(taken) != set(mail.numbers):
        raise Wrong(f"{mail.messages} healthy messages were dropped, and others came")
    return sorted(taken.values())


def quantiles(latencies: Sequence[float]) -> tuple[float, float, float]:
    """The median, the latency that one in a hundred exceeds, and the worst, of latencies in their order."""
    return latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100], latencies[-1]


def show(rows: Sequence[Row]) -> Shown:
    """A line for each case, in milliseconds."""
    lines = tuple(
        (
            row.case,
            f"{row.backlog:,}",
            number(row.median * 1000),
            number(row.p99 * 1000),
            number(row.worst * 1000),
        )
        for row in rows
    )
    alone, beside = rows
    allowed = MOST_TIMES * alone.p99 + MORE
    verdict = "is" if beside.p99 <= allowed else "is NOT"
    bound = f"{MOST_TIMES} times what it is alone, and {MORE * 1000:.0f} ms: {number(allowed * 1000)} ms"
    note = f"p99 {verdict} within {bound}"
    columns = ("in the queue besides", "messages", "median, ms", "p99, ms", "worst, ms")
    title = f"Latency of {alone.messages:,} healthy messages"
    drawn = [Bar(f"{row.case}, p99", row.p99 * 1000, ours=True) for row in rows]
    picture = Picture("fairness.svg", title, bars(f"{title}, ms", drawn))
    return Shown((Table(title, columns, lines, (note,)),), (picture,))


BENCHMARK: Final = Benchmark("healthy mail beside a tarpit, dead and slow sites", measure, show)
