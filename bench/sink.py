"""The SMTP server that benchmarks send to: a process of its own, in C where there is a compiler, else in Python.

    with Sink([Endpoint(delay=0.05)], expected=1000) as sink:
        ...                       # send to 127.0.0.1:sink.ports[0]
        report = sink.wait(60)    # once 1,000 messages have come

It must never be what a benchmark measures: `Report.busy` tells how much of a time it was at work, and where that is
more than `MOST_BUSY` the figures are void.
"""

from __future__ import annotations

import atexit
import functools
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec

from bench.processes import ROOT, python
from bench.tables import share
from bench.wrong import Wrong

MOST_BUSY: Final = 0.8
"""The share of the wall time beyond which a run says nothing about the client."""

EVERYTHING: Final = ("PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "SIZE 104857600")
NO_CHUNKING: Final = tuple(keyword for keyword in EVERYTHING if keyword != "CHUNKING")
NO_PIPELINING: Final = tuple(keyword for keyword in NO_CHUNKING if keyword != "PIPELINING")


class Endpoint(NamedTuple):
    """Where the sink listens, and how it behaves there: each group of replies leaves `delay` seconds late; a `tarpit`
    never answers the end of a message; a `silent` one never greets."""

    address: str = "127.0.0.1"
    port: int = 0
    delay: float = 0.0
    tarpit: bool = False
    silent: bool = False

    def text(self) -> str:
        """As the sink's command line has it."""
        delay = [f"delay={self.delay * 1000:g}"] if self.delay else []
        flags = [name for name in ("tarpit", "silent") if getattr(self, name)]
        return ",".join([f"{self.address}:{self.port}", *delay, *flags])


class Seen(msgspec.Struct, frozen=True):
    """What came to one endpoint. Times are of `time.monotonic`; 0: never."""

    port: int
    messages: int
    recipients: int
    connections: int
    open: int
    most: int
    octets: int
    errors: int
    connected: float
    first: float
    last: float


class Report(msgspec.Struct, frozen=True):
    """What the sink has seen so far: `why` is expected, asked or ended; `cpu` is what it has used since its first
    connection, in seconds; `most` is how many connections were open at once; of its TLS handshakes, some were
    `resumed`."""

    why: str
    now: float
    cpu: float
    most: int
    handshakes: int
    resumed: int
    endpoints: tuple[Seen, ...]

    @property
    def messages(self) -> int:
        """All that were taken."""
        return sum(seen.messages for seen in self.endpoints)

    @property
    def connections(self) -> int:
        """All that were made."""
        return sum(seen.connections for seen in self.endpoints)

    @property
    def errors(self) -> int:
        """Commands that made no sense."""
        return sum(seen.errors for seen in self.endpoints)

    @property
    def connected(self) -> float:
        """When the first connection came."""
        return min((seen.connected for seen in self.endpoints if seen.connected), default=0.0)

    @property
    def last(self) -> float:
        """When the last message came."""
        return max(seen.last for seen in self.endpoints)

    def busy(self, seconds: float) -> float:
        """The share of these seconds in which the sink was at work."""
        return self.cpu / seconds

    def check(self, messages: int) -> None:
        """Raise `Wrong` unless exactly these many messages came, and nothing that made no sense."""
        if self.messages != messages or self.errors:
            raise Wrong(f"the sink has {self.messages} messages, not {messages}, and {self.errors} errors")


def together(reports: Sequence[Report]) -> Report:
    """What several sinks have seen, as one: at work as long as the one that was longest."""
    return Report(
        why=reports[0].why,
        now=max(report.now for report in reports),
        cpu=max(report.cpu for report in reports),
        most=sum(report.most for report in reports),
        handshakes=sum(report.handshakes for report in reports),
        resumed=sum(report.resumed for report in reports),
        endpoints=tuple(seen for report in reports for seen in report.endpoints),
    )


def judged(busy: float, kind: str) -> str:
    """The sink's share of the time, and whether the figures are void for it, as the tables say it."""
    return f"{share(busy)} ({kind}){', void: it was the limit' if busy > MOST_BUSY else ''}"


class Logged(NamedTuple):
    """A line of the sink's log: when a message had come, where, how large it was, for how many, and its Message-ID."""

    at: float
    endpoint: int
    octets: int
    recipients: int
    message_id: str


def read_log(path: Path) -> Iterator[Logged]:
    """The messages that the sink has written down. Read it after a report: before, its end may be missing."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            at, endpoint, octets, recipients, message_id = line.split()
            yield Logged(float(at), int(endpoint), int(octets), int(recipients), message_id)


@functools.cache
def compiled() -> Path | None:
    """The sink in C, compiled once for each process; None where there is no compiler, or it fails."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="deferd-sink-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    binary, source = folder / "sink", Path(__file__).with_name("sink.c")
    done = subprocess.run([compiler, "-O2", "-o", binary, source], capture_output=True, check=False, text=True)
    if done.returncode:
        print(f"bench: {compiler} cannot compile sink.c, the Python sink is used:\n{done.stderr}", file=sys.stderr)
        return None
    return binary


class Sink:
    """The server, from `with` on to its end.

    `expected` is the number of messages that `wait` waits for. `log` is where each is written down. `certificate`, a
    file with key and chain, makes it offer STARTTLS; then it is the one in Python, as with `in_python`.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint] = (Endpoint(),),
        *,
        expected: int | None = None,
        keywords: Sequence[str] = EVERYTHING,
        log: Path | None = None,
        certificate: Path | None = None,
        in_python: bool = False,
    ) -> None:
        self._log = log
        binary = None if in_python or certificate is not None else compiled()
        self.kind = "C" if binary else "Python"
        command = [str(binary)] if binary else python("bench.python_sink")
        command += ["-k", ",".join(keywords)]
        command += ["-l", str(log)] if log else []
        command += ["-n", str(expected)] if expected else []
        command += ["-c", str(certificate)] if certificate else []
        self._command = [*command, *(endpoint.text() for endpoint in endpoints)]
        self._rest = b""
        self._expected: Report | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0)
        try:
            self.ports = tuple(int(port) for port in self._line(30).split())
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()

    @property
    def port(self) -> int:
        """Of the first endpoint."""
        return self.ports[0]

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def wait(self, seconds: float) -> Report:
        """What it has seen when the last of the expected messages has come. Raises `Wrong` after that many seconds."""
        if self._expected is None:
            try:
                self._report("expected", seconds)
            except TimeoutError:
                so_far = self.report()
                if self._expected is None:
                    raise Wrong(f"after {seconds:.0f} s only {so_far.messages} messages had come") from None
        assert self._expected
        return self._expected

    def wait_for(self, messages: int, seconds: float) -> Report:
        """What it has seen once so many messages, or some more, have come. Raises `Wrong` after that many seconds."""
        end = time.monotonic() + seconds
        while (report := self.report()).messages < messages:
            if report.now > end:
                raise Wrong(f"after {seconds:.0f} s only {report.messages} messages had come")
            time.sleep(0.005)
        return report

    def report(self) -> Report:
        """What it has seen so far."""
        self._process.send_signal(signal.SIGUSR1)
        return self._report("asked", 30)

    def stop(self) -> Report:
        """End it, and hear what it has seen."""
        self._process.send_signal(signal.SIGTERM)
        report = self._report("ended", 30)
        self._process.wait(30)
        return report

    def logged(self) -> Iterator[Logged]:
        """The messages in its log. Read it after a report: before, its end may be missing."""
        assert self._log is not None
        return read_log(self._log)

    def _report(self, why: str, seconds: float) -> Report:
        """The next report of this kind; the one that `wait` waits for is kept, whenever it comes."""
        while True:
            report = msgspec.json.decode(self._line(seconds), type=Report)
            if report.why == "expected":
                self._expected = report
            if report.why in (why, "ended"):
                return report

    def _line(self, seconds: float) -> bytes:
        out = self._process.stdout
        assert out
        while b"\n" not in self._rest:
            if not select.select([out], [], [], seconds)[0]:
                raise TimeoutError("the sink says nothing")
            octets = out.read(65536)
            if not octets:
                raise Wrong(f"the sink has ended with status {self._process.wait()}")
            self._rest += octets
        line, _, self._rest = self._rest.partition(b"\n")
        return line
