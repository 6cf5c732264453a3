"""A long queue: how soon deferd is at work, and what a message costs, with 10,000, 100,000 and a million in the store.

The store is filled, the daemon is started, and the first messages are measured; then it is stopped, and `deferd queue
list` is asked for the first page of what is left. Where nothing is done whose cost grows with the queue, the figures
are alike.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.deferd import Deferd, route
from bench.mail import Mail, parts
from bench.processes import ROOT, python
from bench.sink import Endpoint, Sink, judged, read_log
from bench.suite import Benchmark, Picture, Scale, Shown
from bench.svg import Chart, Line, lines
from bench.tables import Table, mebibytes, number, share
from bench.wrong import Wrong

SIZE: Final = 1024
SITES: Final = 5
FIRST_PAGE: Final = 100
"""Jobs that `deferd queue list` shows."""


class Row(NamedTuple):
    """With `queued` messages: seconds from the start to the first that was delivered, octets of memory then; messages a
    second and CPU seconds for each over those that were measured; seconds that `deferd queue list` takes."""

    queued: int
    measured: int
    start: float
    memory: int
    rate: float
    cpu: float
    listing: float
    busy: float
    sink: str


def measure(scale: Scale) -> list[Row]:
    """Queue after queue, each ten times as long."""
    measured = scale.of(5_000, 200)
    sizes = (300, 1_000) if scale.quick else (10_000, 100_000, 1_000_000)
    return [drained(queued, measured) for queued in sizes]


def drained(queued: int, measured: int) -> Row:
    """Fill a queue so long, and drain its beginning."""
    mail = Mail(messages=queued, size=SIZE, domains=tuple(f"site{n}.example" for n in range(SITES)))
    with Deferd() as deferd:
        log = deferd.folder / "sink.log"
        with Sink([Endpoint()] * SITES, log=log) as sink:
            routes = zip(sink.ports, mail.domains, strict=True)
            deferd.configure(*(route(f"smtp://127.0.0.1:{port}", domain) for port, domain in routes))
            deferd.fill(mail)
            began = deferd.start()
            first = sink.wait_for(1, 600)
            memory, used = deferd.memory(), deferd.cpu()
            last = sink.wait_for(measured, 600)
            used = (deferd.cpu() - used) / (last.messages - first.messages)
            deferd.stop()
            report = sink.stop()
            report.check(report.messages)
        listing = _list(deferd, queued - report.messages)
        times = _times(deferd, log, report.messages)
        steady = times[measured // 10 : measured]
        rate = (len(steady) - 1) / (steady[-1] - steady[0])
        busy = report.busy(report.last - report.connected)
        return Row(queued, measured, times[0] - began, memory, rate, used, listing, busy, sink.kind)


def _times(deferd: Deferd, log: Path, messages: int) -> list[float]:
    """When each message came. Raises `Wrong` where one came twice, or deferd does not tell of it."""
    came = list(read_log(log))
    different = len({parts(one.message_id) for one in came})
    told = deferd.count("delivered")
    if not messages == len(came) == different == told:
        raise Wrong(f"{messages} messages, {different} different ones, {told} that deferd tells of")
    return [one.at for one in came]


def _list(deferd: Deferd, left: int) -> float:
    """Seconds that it takes to show the first page of the queue, as a person would ask for it."""
    began = time.monotonic()
    done = subprocess.run(
        python("service.cli", "queue", "list", "-c", str(deferd.config)),
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    took = time.monotonic() - began
    shown = done.stdout.count(" queued ")
    if shown != min(left, FIRST_PAGE):
        raise Wrong(f"of {left} jobs `deferd queue list` shows {shown}: {done.stdout[:500]}")
    return took


def show(rows: Sequence[Row]) -> Shown:
    """A line for each length, and the cost of a message as a curve."""
    cells = tuple(
        (
            f"{row.queued:,}",
            number(row.start),
            mebibytes(row.memory),
            number(row.rate),
            share(row.rate / rows[0].rate),
            number(row.cpu * 1e6),
            number(row.listing),
            judged(row.busy, row.sink),
        )
        for row in rows
    )
    columns = (
        "queued",
        "first delivery, s",
        "memory then",
        "messages/s",
        "of the first",
        "CPU us each",
        "queue list, s",
        "sink busy",
    )
    table = Table(f"A queue of any length: the first {rows[0].measured:,} messages", columns, cells)
    charts = [
        _chart("CPU, microseconds a message", [(row.queued, row.cpu * 1e6) for row in rows]),
        _chart("messages a second", [(row.queued, row.rate) for row in rows]),
        _chart("seconds to the first delivery", [(row.queued, row.start) for row in rows]),
    ]
    alt = "What a message costs with 10,000 to a million messages in the queue"
    return Shown((table,), (Picture("million.svg", alt, lines(charts)),))


def _chart(title: str, points: Sequence[tuple[float, float]]) -> Chart:
    return Chart(title, "messages in the queue", (Line("deferd", tuple(points), ours=True),))


BENCHMARK: Final = Benchmark("a queue of 10,000 messages, and of a million", measure, show)
