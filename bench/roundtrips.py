"""Round trips: how near deferd comes to the rate that 20 connections to a far server allow.

Every group of replies leaves 50 ms after what it answers came. A message costs one round trip at least: with CHUNKING
it is one write, without it the end of a message and the next envelope are one. So 20 connections can carry no more
than 20 / 0.05 s = 400 messages a second, and what a new connection's greeting and EHLO cost comes off that.

The rate is that of the middle of a run: its first and last parts, while connections open and end, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from bench.deferd import Deferd, route
from bench.mail import Mail
from bench.place import Folder
from bench.processes import Cost, run
from bench.sink import EVERYTHING, NO_CHUNKING, Endpoint, Sink, read_log
from bench.suite import Benchmark, Picture, Scale, Shown
from bench.svg import Bar, bars
from bench.tables import Table, number, share
from bench.task import Task

ROUND_TRIP: Final = 0.05
CONNECTIONS: Final = 20
POSSIBLE: Final = CONNECTIONS / ROUND_TRIP

KEYWORDS: Final = {"CHUNKING": EVERYTHING, "PIPELINING": NO_CHUNKING}


class Row(NamedTuple):
    """Messages a second in the middle of a run, by who sent them, and by the best that the server offered."""

    who: str
    offered: str
    messages: int
    rate: float

    @property
    def share(self) -> float:
        """Of what connections and round trips allow."""
        return self.rate / POSSIBLE


def measure(scale: Scale) -> list[Row]:
    """deferd, and the bare loop, with CHUNKING and without."""
    mail = Mail(messages=scale.of(6_000, 200))
    rows = []
    for offered in KEYWORDS:
        rows.append(Row("deferd", offered, mail.messages, deferd_rate(mail, offered)))
        rows.append(Row("bare loop", offered, mail.messages, bare_rate(mail, offered)))
    return rows


def deferd_rate(mail: Mail, offered: str) -> float:
    """A full store, then the daemon starts."""
    with Deferd() as deferd:
        log = deferd.folder / "sink.log"
        with Sink([Endpoint(delay=ROUND_TRIP)], expected=mail.messages, keywords=KEYWORDS[offered], log=log) as sink:
            deferd.configure(route(f"smtp://127.0.0.1:{sink.port}"), limits={"connections_per_site": CONNECTIONS})
            deferd.fill(mail)
            deferd.start()
            sink.wait(600)
            deferd.check(mail, sink)
            return middle_rate([one.at for one in read_log(log)])


def bare_rate(mail: Mail, offered: str) -> float:
    """The bare loop over as many connections."""
    with Folder() as folder:
        log = folder / "sink.log"
        with Sink([Endpoint(delay=ROUND_TRIP)], expected=mail.messages, keywords=KEYWORDS[offered], log=log) as sink:
            run(
                "bench.peers",
                Task(peer="bare", mail=mail, connections=CONNECTIONS, addresses=(("127.0.0.1", sink.port),)),
                Cost,
            )
            sink.wait(60).check(mail.messages)
            return middle_rate([one.at for one in read_log(log)])


def middle_rate(times: Sequence[float]) -> float:
    """Messages a second between the first third and the last tenth of these times, which are in order."""
    first, last = len(times) // 3, len(times) - len(times) // 10 - 1
    return (last - first) / (times[last] - times[first])


def show(rows: Sequence[Row]) -> Shown:
    """A line for each."""
    lines = [(row.who, row.offered, number(row.rate), number(POSSIBLE), share(row.share)) for row in rows]
    far = f"{ROUND_TRIP * 1000:.0f} ms for each group of replies"
    title = f"{rows[0].messages:,} messages, {far}, {CONNECTIONS} connections"
    table = Table(title, ("", "the server offers", "messages/s", "possible", "share"), tuple(lines))
    drawn = [Bar(f"{row.who}, {row.offered}", row.rate, ours=row.who == "deferd") for row in rows]
    alt = f"Messages a second over {CONNECTIONS} connections to a server {ROUND_TRIP * 1000:.0f} ms away"
    picture = Picture("roundtrips.svg", alt, bars(f"{alt}; {POSSIBLE:.0f} are possible", drawn))
    return Shown((table,), (picture,))


BENCHMARK: Final = Benchmark("deferd and a far server: round trips a message", measure, show)
