"""`deferd demo`: a test server, the daemon and three jobs, in one process; each chain is shown as it happens."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from config.settings import Http, Queue, Relay, Retry, Route, Settings
from deferred.defer import Deferred
from deferred.failure import Failure
from deferred.reactor import Reactor
from service.cli.demo_server import DemoServer, Script
from service.daemon import Daemon

JOBS: Final = {
    "hello.eml": (
        "From: Ann <ann@shop.example>\nTo: bob@home.example\nSubject: Hello\n\nThis one goes through at once.\n"
    ),
    "order.json": (
        '{"from": "Shop <orders@shop.example>", "to": ["carol@busy.example"], "subject": "Your order",\n'
        ' "text": "The server is busy at first: the errback tries again.", "tags": {"order": 17}}\n'
    ),
    "news.yaml": (
        "from: Shop <news@shop.example>\nto: [dan@home.example, nobody@home.example]\nsubject: News\n"
        "text: One of the two does not exist, and the sender is told.\n"
    ),
}
LINKS: Final = {
    "connect": "connect",
    **dict.fromkeys(("greeting", "ehlo", "tls", "auth"), "handshake"),
    **dict.fromkeys(("mail", "rcpt", "data", "body"), "send"),
    "confirm": "confirm",
}
"""The link of the document's chain that each phase belongs to."""

PATIENCE: Final = 30.0  # seconds: the demo takes two


class ChainView:
    """A listener of the journal that shows, for each job, the chain as it goes on."""

    def __init__(self, clock: Callable[[], float], console: Console) -> None:
        self._clock = clock
        self._console = console
        self._start = clock()
        self._names: dict[object, str] = {}
        self._shown: dict[str, Callable[[dict[str, object]], None]] = {
            "job_accepted": self._accepted,
            "attempt_started": self._attempt,
            "step": self._step,
            "delivered": self._delivered,
            "deferred": self._deferred,
            "failed": self._failed,
            "bounced": self._bounced,
        }

    def __call__(self, event: str, facts: dict[str, object]) -> None:
        """Show what happened, if it is of interest here."""
        if show := self._shown.get(event):
            show(facts)

    def _line(self, facts: dict[str, object], what: str, detail: str, style: str = "") -> None:
        name = self._names.get(facts.get("id"), str(facts.get("name", "")))
        line = Text(f"{(self._clock() - self._start) * 1000:7.0f} ms  ")
        line.append(f"{name:<10} ", "bold")
        line.append(f"{what:<10} ", style)
        line.append(detail)
        self._console.print(line, soft_wrap=True)

    @staticmethod
    def _answer(facts: dict[str, object]) -> str:
        return f"{facts['recipient']}: {facts['code']} {facts['enhanced']} {facts['text']}"

    def _accepted(self, facts: dict[str, object]) -> None:
        self._names[facts["id"]] = str(facts["name"])
        self._line(facts, "accepted", "it is committed; the file may go", "cyan")

    def _step(self, facts: dict[str, object]) -> None:
        phase, seconds = str(facts["phase"]), facts["seconds"]
        assert isinstance(seconds, float)
        link = LINKS[phase]
        self._line(facts, link, f"{'' if phase == link else phase:<9}{seconds * 1000:5.1f} ms")

    def _attempt(self, facts: dict[str, object]) -> None:
        self._line(facts, "attempt", f"number {facts['attempt']}, to {facts['site']}", "cyan")

    def _delivered(self, facts: dict[str, object]) -> None:
        self._line(facts, "callback", self._answer(facts), "green")

    def _deferred(self, facts: dict[str, object]) -> None:
        delay = facts["delay"]
        assert isinstance(delay, float | int)
        self._line(facts, "errback", f"{self._answer(facts)}; again in {delay:.1f} s", "yellow")

    def _failed(self, facts: dict[str, object]) -> None:
        self._line(
            facts,
            "errback",
            f"{self._answer(facts)}; given up",
            "red",
        )

    def _bounced(self, facts: dict[str, object]) -> None:
        self._line(facts, "bounce", "its sender is told: one more message", "red")
        self._names[facts["report"]] = "bounce"


class Demo:
    """The server, the daemon and the jobs; `run` tells whether all went as it should."""

    def __init__(self, directory: Path, console: Console) -> None:
        self._reactor = Reactor()
        self._directory = directory
        self._console = console
        self._arrived = 0
        self._unfinished = len(JOBS) + 1  # the bounce is a job, too
        self._error: Failure | None = None

    def run(self) -> int:
        """0 when everything arrived that should."""
        script: Script = {
            "carol@busy.example": ["450 4.2.0 busy, try again in a second"],
            "nobody@home.example": ["550 5.1.1 no such person"],
        }
        server = self._reactor.create_server(lambda: DemoServer(script, self._count), "127.0.0.1", 0)
        host, port = server.address
        self._console.print(f"A mail server listens on {host}:{port}; three jobs are dropped.", soft_wrap=True)
        self._console.print("Each line is one link of a job's chain; the chains run side by side.\n")
        settings = Settings(
            queue=Queue(directory=str(self._directory)),
            hostname="client.example",
            routes=(Route(domains=("*",), relay=(Relay("smtp", host, port),), tls="none"),),
            retry=Retry(delays=(1.0,), jitter=0.0),
            http=Http(listen=None),
        )
        view = ChainView(self._reactor.time, self._console)
        self._daemon = Daemon(self._reactor, settings, random=random.Random(), listeners=(view, self._watch))  # noqa: S311 (jitter)
        self._reactor.call_later(PATIENCE, self._end)
        self._reactor.call_soon(self._begin)
        with self._reactor:
            self._reactor.run()
            server.close()
        return self._verdict()

    def _begin(self) -> None:
        started: Deferred[None] = self._daemon.start()
        started.add_callback(lambda _: self._drop())
        started.add_errback(self._give_up)

    def _drop(self) -> None:
        for name, content in JOBS.items():
            hidden = self._directory / "new" / f".{name}.tmp"
            hidden.write_text(content)
            hidden.rename(self._directory / "new" / name)

    def _count(self, _content: bytes) -> None:
        self._arrived += 1

    def _watch(self, event: str, _facts: dict[str, object]) -> None:
        if event == "job_finished":
            self._unfinished -= 1
            if self._unfinished == 0:
                self._reactor.call_soon(self._end)

    def _end(self) -> None:
        stopped: Deferred[None] = self._daemon.stop()
        stopped.add_errback(self._give_up)
        stopped.add_both(lambda _: self._reactor.stop())

    def _give_up(self, failure: Failure) -> None:
        self._error = failure
        self._reactor.stop()

    def _verdict(self) -> int:
        if self._error:
            self._console.print(self._error.get_error_message(), style="red", markup=False)
        expected = len(JOBS) + 1
        good = not self._error and self._unfinished == 0 and self._arrived == expected
        self._console.print(
            f"\n{self._arrived} of {expected} messages arrived (three jobs and a bounce). "
            + ("All is as it should be." if good else f"Not all ended as it should within {PATIENCE:.0f} s."),
            style="green" if good else "red",
        )
        return 0 if good else 1


def demo() -> int:
    """Run the demo in a temporary directory; the exit status."""
    with tempfile.TemporaryDirectory(prefix="deferd-demo-") as directory:
        return Demo(Path(directory), Console(file=sys.stdout, highlight=False)).run()
