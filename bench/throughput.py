"""Messages a second: deferd as a whole beside Postfix, and beside clients that keep nothing.

end to end   jobs of 4 KB are dropped into new/ as fast as a process can, the daemon being idle, until the sink has them
             all. Postfix gets the same number over SMTP, in 20 sessions at once.
draining     all messages are in the queue before anything may leave; counted from the first connection to the last
             message. Postfix has them deferred, and is told to flush. The clients read their messages from files, or
             make them, and have nothing to write down.

deferd and Postfix are as durable as ever: every message is synced to the disk before it is accepted, and what became of
it before it is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from bench.deferd import Deferd, cpu_of_a_start, dropped, route
from bench.mail import Mail
from bench.place import Folder
from bench.postfix import Postfix, look_for_it
from bench.processes import Cost, run
from bench.sink import EVERYTHING, NO_CHUNKING, NO_PIPELINING, Report, Sink, judged
from bench.suite import Benchmark, Picture, Scale, Shown
from bench.svg import Bar, bars
from bench.tables import Table, number, times
from bench.task import PeerName, Task
from bench.wrong import Skipped

Way = Literal["end to end", "draining"]

SIZE: Final = 4096
CONNECTIONS: Final = 20


class Row(NamedTuple):
    """The median of some runs: messages a second, CPU seconds for each (None: not known), the sink's share of the time.
    A row that was `skipped` says why, and has no figures."""

    way: Way
    who: str
    messages: int = 0
    rate: float = 0.0
    cpu: float | None = None
    busy: float = 0.0
    connections: int = 0
    sink: str = ""
    runs: int = 1
    skipped: str = ""


def measure(scale: Scale) -> list[Row]:
    """Everybody."""
    peers = (
        deferd_end_to_end,
        deferd_with_results,
        postfix_end_to_end,
        deferd_drains,
        postfix_drains,
        bare_with_chunking,
        bare_without_chunking,
        bare_without_pipelining,
        with_aiosmtplib,
        with_threads,
    )
    return in_turn(peers, scale)


def in_turn(runs: Sequence[Callable[[int], Row]], scale: Scale) -> list[Row]:
    """Run these one after the other, several times, and give the medians."""
    messages = scale.of(10_000, 300)
    taken: list[list[Row]] = [[] for _ in runs]
    for _ in range(scale.of(3, 1)):
        for one, rows in zip(runs, taken, strict=True):
            rows.append(one(messages))
    return [median(rows) for rows in taken]


def median(rows: Sequence[Row]) -> Row:
    """The run in the middle by rate; the sink's share is the largest of all, so that one void run voids the figure."""
    middle = sorted(rows, key=lambda row: row.rate)[len(rows) // 2]
    return middle._replace(busy=max(row.busy for row in rows), runs=len(rows))


def _row(
    way: Way,
    who: str,
    sink: Sink,
    report: Report,
    since: float,
    cpu: float | None = None,
    until: float | None = None,
) -> Row:
    took = (report.last if until is None else until) - since
    each = None if cpu is None else cpu / report.messages
    rate = report.messages / took
    return Row(way, who, report.messages, rate, each, report.busy(took), report.connections, sink.kind)


def deferd_end_to_end(messages: int) -> Row:
    """Idle daemon, then jobs as fast as they come."""
    return _deferd_end_to_end(messages, "deferd", results=False)


def deferd_with_results(messages: int) -> Row:
    """The same until the last result file is there: in a burst they give way to deliveries."""
    return _deferd_end_to_end(messages, "deferd, until the last result", results=True)


def _deferd_end_to_end(messages: int, who: str, *, results: bool) -> Row:
    mail = Mail(messages=messages, size=SIZE)
    with Deferd() as deferd, Sink(expected=messages, log=deferd.folder / "sink.log") as sink:
        deferd.configure(route(f"smtp://127.0.0.1:{sink.port}"))
        deferd.start()
        deferd.wait_until_started()
        used = deferd.cpu()
        with deferd.drop(mail) as dropper:
            report = sink.wait(600)
            began = dropped(dropper).began
        ended = deferd.wait_for_results(messages) if results else report.last
        used = deferd.cpu() - used
        deferd.check(mail, sink)
        return _row("end to end", who, sink, report, began, used, ended)


def deferd_drains(messages: int) -> Row:
    """A full store, then the daemon starts. CPU is told without what any start costs."""
    mail = Mail(messages=messages, size=SIZE)
    with Deferd() as deferd, Sink(expected=messages, log=deferd.folder / "sink.log") as sink:
        deferd.configure(route(f"smtp://127.0.0.1:{sink.port}"))
        deferd.fill(mail)
        deferd.start()
        report = sink.wait(600)
        used = max(0.0, deferd.cpu() - cpu_of_a_start())
        deferd.check(mail, sink)
        return _row("draining", "deferd", sink, report, report.connected, used)


def postfix_end_to_end(messages: int) -> Row:
    """Idle Postfix, then messages as fast as it takes them."""
    try:
        look_for_it()
    except Skipped as skipped:
        return Row("end to end", "Postfix", skipped=str(skipped))
    with Sink(expected=messages) as sink, Postfix(sink.port) as postfix:
        began = time.monotonic()
        postfix.inject(messages, SIZE)
        report = sink.wait(600)
        sink.stop().check(messages)
        return _row("end to end", "Postfix", sink, report, began)


def postfix_drains(messages: int) -> Row:
    """All deferred, then flushed."""
    try:
        look_for_it()
    except Skipped as skipped:
        return Row("draining", "Postfix", skipped=str(skipped))
    with Sink(expected=messages) as sink, Postfix(sink.port) as postfix:
        postfix.hold()
        postfix.inject(messages, SIZE)
        postfix.wait_until_deferred(messages)
        postfix.go()
        report = sink.wait(600)
        sink.stop().check(messages)
        return _row("draining", "Postfix", sink, report, report.connected)


def _client(
    peer: PeerName, who: str, messages: int, *, keywords: Sequence[str] = EVERYTHING, files: bool = False
) -> Row:
    with (
        Folder() as folder,
        Sink(expected=messages, keywords=keywords) as sink,
    ):
        task = Task(
            peer=peer,
            mail=Mail(messages=messages, size=SIZE),
            connections=CONNECTIONS,
            addresses=(("127.0.0.1", sink.port),),
            folder=str(folder) if files else None,
        )
        if files:
            task.write_files()
        cost = run("bench.peers", task, Cost)
        report = sink.wait(60)
        sink.stop().check(messages)
        return _row("draining", who, sink, report, report.connected, cost.cpu)


def bare_with_chunking(messages: int) -> Row:
    """One write and one round trip a message."""
    return _client("bare", "bare loop, CHUNKING", messages, files=True)


def bare_without_chunking(messages: int) -> Row:
    """The end of a message and the next envelope in one write."""
    return _client("bare", "bare loop, PIPELINING", messages, keywords=NO_CHUNKING, files=True)


def bare_without_pipelining(messages: int) -> Row:
    """A reply awaited after each command: the loop that one writes before one has measured it."""
    return _client("bare", "bare loop, a reply at a time", messages, keywords=NO_PIPELINING, files=True)


def with_aiosmtplib(messages: int) -> Row:
    """A task for each connection."""
    return _client("aiosmtplib", "aiosmtplib", messages)


def with_threads(messages: int) -> Row:
    """A thread for each connection."""
    return _client("threads", "smtplib, 20 threads", messages)


def table(rows: Sequence[Row], where: str = "") -> Table:
    """A line for each, as messages a second and as how many times faster deferd is. The title says `where` it was."""
    ours = {row.way: row.rate for row in rows if row.who == "deferd"}
    lines = []
    notes = []
    for row in rows:
        if row.skipped:
            notes.append(f"{row.who}, {row.way}, is left out: {row.skipped}")
            continue
        ratio = "" if row.who.startswith("deferd") else times(ours[row.way] / row.rate)
        cpu = "" if row.cpu is None else number(row.cpu * 1e6)
        sink = judged(row.busy, row.sink)
        lines.append((row.who, row.way, number(row.rate), ratio, cpu, str(row.connections), sink))
    columns = ("", "way", "messages/s", "deferd is", "CPU us each", "connections made", "sink busy")
    title = f"{rows[0].messages:,} messages of {SIZE} octets, the median of {rows[0].runs}{where}"
    return Table(title, columns, tuple(lines), tuple(dict.fromkeys(notes)))


def show(rows: Sequence[Row]) -> Shown:
    """The table, and a picture of it."""
    drawn = [
        Bar(f"{row.who}, {row.way}", row.rate, ours=row.who.startswith("deferd")) for row in rows if not row.skipped
    ]
    picture = Picture("throughput.svg", "Messages a second, end to end and draining", bars("messages a second", drawn))
    return Shown((table(rows),), (picture,))


BENCHMARK: Final = Benchmark("messages a second beside Postfix, a bare loop, aiosmtplib and smtplib", measure, show)
