"""deferd as its users run it: a process with a configuration, a directory, and a log."""

from __future__ import annotations

import collections
import functools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from bench.mail import Mail, parts
from bench.place import Folder
from bench.processes import ROOT, cpu_seconds, memory, python, run
from bench.sink import Report, Sink, together
from bench.wrong import Wrong


def route(relay: str, *domains: str, **keys: object) -> dict[str, object]:
    """A route in the clear."""
    return {"domains": list(domains or ("*",)), "relay": relay, "tls": "none"} | keys


class Deferd:
    """An installation in a directory of its own; the daemon runs from `start` to `stop`."""

    def __init__(self) -> None:
        self._folder = Folder()
        self.folder = self._folder.path
        self.queue = self.folder / "queue"
        self.config = self.folder / "deferd.yaml"
        self.log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, *routes: Mapping[str, object], **sections: object) -> None:
        """Have what is started from now on go by these routes, by these sections, and else by the defaults."""
        settings = {
            "queue": {"directory": str(self.queue)},
            "hostname": "bench.example",
            "routes": routes,
            "http": {"listen": None},
        }
        self.config.write_text(json.dumps(settings | sections))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._folder.close()

    def fill(self, mail: Mail, *, not_before: float | None = None) -> None:
        """Put messages into the store while no daemon runs."""
        run("bench.fill", Filling(config=str(self.config), mail=mail, not_before=not_before), int)

    def drop(self, mail: Mail, rate: float = 0.0) -> subprocess.Popen[bytes]:
        """Begin to drop jobs into new/, so many a second, or (0) as fast as possible."""
        task = Dropping(new=str(self.queue / "new"), mail=mail, rate=rate)
        return subprocess.Popen(
            python("bench.dropper", msgspec.json.encode(task).decode()), cwd=ROOT, stdout=subprocess.PIPE
        )

    def start(self) -> float:
        """Start the daemon, and return when that was, by `time.monotonic`; it has not begun to work then."""
        with self.log.open("ab") as log:
            began = time.monotonic()
            self._process = subprocess.Popen(python("service.cli", "run", "-c", str(self.config)), cwd=ROOT, stdout=log)
        return began

    def wait_until_started(self, seconds: float = 60) -> None:
        """Wait until jobs are taken in and delivered. Raises `Wrong` where they never are."""
        end = time.monotonic() + seconds
        while not self.count("started"):
            if time.monotonic() > end or self.process.poll() is not None:
                raise Wrong(f"deferd does not start; its log says {self.log.read_text()[-1000:]!r}")
            time.sleep(0.01)

    def wait_for_results(self, jobs: int, seconds: float = 600) -> float:
        """Wait until so many jobs have their result file, and return when that was, by `time.monotonic`."""
        end = time.monotonic() + seconds
        while sum(name.endswith(".json") for name in os.listdir(self.queue / "results")) < jobs:  # noqa: PTH208 (deferd is at work)
            if time.monotonic() > end:
                raise Wrong(f"not all of {jobs} jobs have a result")
            time.sleep(0.1)
        return time.monotonic()

    def stop(self, seconds: float = 60) -> None:
        """Let the daemon end. Raises `Wrong` where it does so badly, or says that something went wrong meanwhile."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(seconds)
        troubles = [event for event in self.events() if event["event"] == "unhandled_error"]
        if status or troubles:
            raise Wrong(f"deferd has ended with status {status}, and {len(troubles)} errors: {troubles[:1]}")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The daemon."""
        assert self._process is not None
        return self._process

    def cpu(self) -> float:
        """CPU seconds that the daemon has used so far."""
        return cpu_seconds(self.process.pid)

    def memory(self, field: str = "VmRSS") -> int:
        """Octets of memory that the daemon has; with `VmHWM` the most that it has had."""
        return memory(self.process.pid, field)

    def events(self) -> Iterator[dict[str, Any]]:
        """What the log has told so far; a line that is being written is left out."""
        with self.log.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield msgspec.json.decode(line)

    def count(self, event: str) -> int:
        """How often the log has told of an event so far."""
        return collections.Counter(told["event"] for told in self.events())[event]

    def check(self, mail: Mail, *sinks: Sink) -> Report:
        """End daemon and sinks, which have logs. Raises `Wrong` unless each message came once, and deferd tells of it
        as delivered."""
        self.stop()
        report = together([sink.stop() for sink in sinks])
        report.check(mail.messages)
        if (told := self.count("delivered")) != mail.messages:
            raise Wrong(f"deferd tells of {told} deliveries, not of {mail.messages}")
        numbers = sorted(parts(one.message_id)[0] for sink in sinks for one in sink.logged())
        if numbers != list(mail.numbers):
            raise Wrong(f"{mail.messages} messages were sent, {len(set(numbers))} different ones came")
        return report


@functools.cache
def cpu_of_a_start() -> float:
    """CPU seconds of a daemon that starts, finds nothing to do, and ends."""
    with Deferd() as deferd:
        deferd.configure(route("smtp://127.0.0.1:1"))
        deferd.start()
        deferd.wait_until_started()
        used = deferd.cpu()
        deferd.stop()
        return used


class Filling(msgspec.Struct, frozen=True, kw_only=True):
    """The task of `bench.fill`: this mail into the store of this configuration."""

    config: str
    mail: Mail
    not_before: float | None = None


class Dropping(msgspec.Struct, frozen=True, kw_only=True):
    """The task of `bench.dropper`: this mail into this directory, `rate` a second, or (0) as fast as possible."""

    new: str
    mail: Mail
    rate: float = 0.0


class Dropped(msgspec.Struct, frozen=True):
    """What `bench.dropper` answers: when it began and ended, by `time.monotonic`."""

    began: float
    ended: float


def dropped(dropper: subprocess.Popen[bytes], seconds: float = 600) -> Dropped:
    """Wait for the end of a dropper. Raises `Wrong` where it fails."""
    out, _ = dropper.communicate(timeout=seconds)
    if dropper.returncode:
        raise Wrong(f"the dropper has ended with status {dropper.returncode}")
    return msgspec.json.decode(out, type=Dropped)
