"""The document's three models: a process, a thread, or a callback for each message, all at once.

The same conversation in each, step by step, with a server that takes 100 ms for a step: greeting, hello, MAIL, RCPT,
DATA, the message. Processes are forked, the cheapest way there is, and they and the threads use smtplib; the callback
is the document's example (deferred/examples/send_email.py) on our reactor. Memory is the process's own, or what forked
processes do not share; what the kernel has for each (stacks, page tables, sockets) comes on top, and is most for
processes and least for callbacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from bench.mail import Mail
from bench.processes import Cost, raise_open_files, run
from bench.sink import Endpoint, Sink, judged
from bench.suite import Benchmark, Picture, Scale, Shown
from bench.svg import Chart, Line, lines
from bench.tables import Table, number
from bench.task import PeerName, Task

STEP: Final = 0.1
SIZE: Final = 1024
PORTS: Final = 4
MODELS: Final[dict[str, PeerName]] = {"process": "processes", "thread": "threads", "callback": "examples"}
MOST: Final = {"process": 1_000, "thread": 10_000, "callback": 10_000}
"""In flight at once. Ten thousand processes would need more memory than small machines have."""


class Row(NamedTuple):
    """Seconds until all are sent; CPU seconds and octets of memory for each; how many were in flight at the most."""

    model: str
    messages: int
    most: int
    wall: float
    cpu: float
    memory: float
    busy: float
    sink: str


def measure(scale: Scale) -> list[Row]:
    """Each model with 10 messages at once, then with ten times as many, as far as it goes."""
    sizes = (10, 50) if scale.quick else (10, 100, 1_000, 10_000)
    raise_open_files(max(sizes) + 100)
    return [sent(model, messages) for messages in sizes for model in MODELS if messages <= MOST[model]]


def sent(model: str, messages: int) -> Row:
    """So many messages, all at once."""
    with Sink([Endpoint(delay=STEP)] * PORTS, expected=messages) as sink:
        addresses = tuple(("127.0.0.1", port) for port in sink.ports)
        mail = Mail(messages=messages, size=SIZE)
        cost = run("bench.peers", Task(peer=MODELS[model], mail=mail, connections=messages, addresses=addresses), Cost)
        report = sink.stop()
        report.check(messages)
        memory = cost.memory(report.most)
        busy = report.busy(cost.wall)
        return Row(model, messages, report.most, cost.wall, cost.cpu / messages, memory, busy, sink.kind)


def show(rows: Sequence[Row]) -> Shown:
    """A line for each model and number, and the three costs as curves."""
    cells = tuple(
        (
            row.model,
            f"{row.messages:,}",
            f"{row.most:,}",
            number(row.wall),
            number(row.cpu * 1e6),
            number(row.memory / 1024),
            judged(row.busy, row.sink),
        )
        for row in rows
    )
    columns = ("a ... for each message", "messages", "in flight", "seconds", "CPU us each", "KiB each", "sink busy")
    title = f"The three models, {STEP * 1000:.0f} ms for each step"
    charts = [
        _chart(rows, "seconds until all are sent", [row.wall for row in rows]),
        _chart(rows, "CPU, microseconds a message", [row.cpu * 1e6 for row in rows]),
        _chart(rows, "memory, KiB a message", [row.memory / 1024 for row in rows]),
    ]
    alt = "A process, a thread, a callback for each message: time, CPU and memory"
    notes = tuple(_left_out(rows, model) for model in MODELS if MOST[model] < max(row.messages for row in rows))
    return Shown((Table(title, columns, cells, notes),), (Picture("models.svg", alt, lines(charts)),))


def _left_out(rows: Sequence[Row], model: str) -> str:
    """Why this model was not tried with as many as the others."""
    last = [row for row in rows if row.model == model][-1]
    need = number(last.memory * max(MOST.values()) / 2**30)
    return f"a {model} each: no further than {last.messages:,}; {max(MOST.values()):,} would need some {need} GiB"


def _chart(rows: Sequence[Row], title: str, values: Sequence[float]) -> Chart:
    least = 1e-3  # a logarithmic axis has no place for nothing
    points: dict[str, list[tuple[float, float]]] = {model: [] for model in MODELS}
    for row, value in zip(rows, values, strict=True):
        points[row.model].append((row.messages, max(value, least)))
    drawn = (Line(model, tuple(points[model]), ours=model == "callback") for model in MODELS)
    return Chart(title, "messages at once", tuple(drawn))


BENCHMARK: Final = Benchmark("a process, a thread, a callback for each message", measure, show)
