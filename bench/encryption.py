"""TLS: the rate beside plain SMTP, and how many handshakes a message costs on a busy route.

The sink is the one in Python in both cases, as only that has TLS. deferd checks its certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import trustme

from bench.deferd import Deferd, cpu_of_a_start, route
from bench.mail import Mail
from bench.sink import Sink, judged
from bench.suite import Benchmark, Scale, Shown
from bench.tables import Table, number
from bench.wrong import Wrong


class Row(NamedTuple):
    """Messages a second and CPU seconds for each, in the clear or not; handshakes in all, some of them resumed."""

    way: str
    messages: int
    rate: float
    cpu: float
    handshakes: int
    resumed: int
    busy: float


def measure(scale: Scale) -> list[Row]:
    """The same queue drained in the clear, then inside TLS."""
    mail = Mail(messages=scale.of(10_000, 200))
    return [drained(mail, tls=False), drained(mail, tls=True)]


def drained(mail: Mail, *, tls: bool) -> Row:
    """A full store, then the daemon starts."""
    with Deferd() as deferd:
        log = deferd.folder / "sink.log"
        authority, certificate = certificates(deferd.folder)
        keys = {"tls": "verify", "ca_file": str(authority)} if tls else {}
        with Sink(expected=mail.messages, log=log, certificate=certificate if tls else None, in_python=True) as sink:
            deferd.configure(route(f"smtp://127.0.0.1:{sink.port}", **keys))
            deferd.fill(mail)
            deferd.start()
            report = sink.wait(600)
            used = max(0.0, deferd.cpu() - cpu_of_a_start())
            deferd.check(mail, sink)
    if tls and not report.handshakes:
        raise Wrong("there was no TLS")
    took = report.last - report.connected
    return Row(
        "TLS" if tls else "in the clear",
        mail.messages,
        mail.messages / took,
        used / mail.messages,
        report.handshakes,
        report.resumed,
        report.busy(took),
    )


def certificates(folder: Path) -> tuple[Path, Path]:
    """An authority's certificate, and a file with key and chain of a server at 127.0.0.1."""
    authority, server = folder / "authority.pem", folder / "server.pem"
    made = trustme.CA()
    made.cert_pem.write_to_path(str(authority))
    made.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(server))
    return authority, server


def show(rows: Sequence[Row]) -> Shown:
    """A line for each way."""
    plain = rows[0].rate
    lines = [
        (
            row.way,
            number(row.rate),
            number(row.rate / plain),
            number(row.cpu * 1e6),
            number(row.handshakes / row.messages),
            f"{row.resumed} of {row.handshakes}",
            judged(row.busy, "Python"),
        )
        for row in rows
    ]
    columns = ("", "messages/s", "of plain", "CPU us each", "handshakes a message", "resumed", "sink busy")
    return Shown((Table(f"{rows[0].messages:,} messages of 4096 octets, draining", columns, tuple(lines)),))


BENCHMARK: Final = Benchmark("the rate inside TLS, and handshakes", measure, show)
