"""Large messages: 100 of 50 MB in flight at once, and the memory of the daemon that streams them from its store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from bench.crowd import address
from bench.deferd import Deferd, route
from bench.mail import Mail
from bench.sink import Endpoint, Sink, judged
from bench.suite import Benchmark, Scale, Shown
from bench.tables import Table, mebibytes, number

EACH: Final = 5
"""Messages for a site: as many as any is given at once from the start."""


class Row(NamedTuple):
    """How many of what size, and at once; the daemon's memory at its most; octets a second; the sink's share."""

    messages: int
    size: int
    most: int
    peak: int
    rate: float
    busy: float
    sink: str


def measure(scale: Scale) -> list[Row]:
    """All at once."""
    messages = scale.of(100, 10)
    mail = Mail(
        messages=messages,
        size=scale.of(50_000_000, 2_000_000),
        domains=tuple(f"site{n}.example" for n in range(messages // EACH)),
    )
    with Deferd() as deferd, Sink([Endpoint("0.0.0.0")], expected=messages, log=deferd.folder / "sink.log") as sink:
        deferd.configure(
            *(route(f"smtp://{address(n)}:{sink.port}", domain) for n, domain in enumerate(mail.domains)),
            limits={"message_size": "60M"},
        )
        deferd.fill(mail)
        deferd.start()
        report = sink.wait(1200)
        peak = deferd.memory("VmHWM")
        deferd.check(mail, sink)
        took = report.last - report.connected
        rate = sum(seen.octets for seen in report.endpoints) / took
        return [Row(messages, mail.size, report.most, peak, rate, report.busy(took), sink.kind)]


def show(rows: Sequence[Row]) -> Shown:
    """One line."""
    lines = tuple(
        (
            f"{row.messages} of {row.size / 1e6:.0f} MB",
            str(row.most),
            mebibytes(row.peak),
            number(row.rate / 1e6),
            judged(row.busy, row.sink),
        )
        for row in rows
    )
    columns = ("messages", "in flight", "memory, peak", "MB/s", "sink busy")
    return Shown((Table("Large messages, streamed from the store", columns, lines),))


BENCHMARK: Final = Benchmark("a hundred messages of 50 MB in flight", measure, show)
