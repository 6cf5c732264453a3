"""The whole daemon as a real process, in a directory of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.fakes.forked import ROOT, Forked, Zygote

PATIENCE = 30.0


class DaemonProcess:
    """`deferd run` on `directory`, with what of the configuration `settings` says otherwise.

    `events` has every line of its log so far. Leaving the context kills what still runs. It is executed, with `environ`
    on top of ours, unless there is a `zygote` to fork it.
    """

    def __init__(
        self,
        directory: Path,
        settings: dict[str, Any],
        environ: dict[str, str] | None = None,
        zygote: Zygote | None = None,
    ) -> None:
        self.directory = directory
        self.queue = directory / "queue"
        self.config = directory / "deferd.yaml"
        self.environ = {**os.environ, "PYTHONWARNINGS": "error", **(environ or {})}
        self.zygote = zygote
        self.events: list[dict[str, Any]] = []
        self.process: subprocess.Popen[str] | Forked | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.configure(settings)

    def configure(self, settings: dict[str, Any]) -> None:
        """Write the configuration file."""
        whole = {
            "queue": {"directory": str(self.queue)},
            "hostname": "client.test",
            "http": {"listen": "127.0.0.1:0"},
            **settings,
        }
        self.config.write_text(yaml.safe_dump(whole))

    def start(self) -> DaemonProcess:
        """Start it, and wait until it says so."""
        self.spawn()
        self.wait_for("started")
        return self

    def spawn(self, *wrapper: str, stopped: bool = False) -> None:
        """Start it, under `wrapper` if it is executed; `stopped`, if it is forked: it waits for SIGCONT."""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.events = []
        words = "run", "-c", str(self.config)
        if self.zygote is not None:
            self.process = self.zygote.fork(*words, stopped=stopped)
        else:
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", "service.cli", *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.environ,
                cwd=ROOT,
            )
        self._reader = threading.Thread(target=_read, args=(self.process, self._lines), daemon=True)
        self._reader.start()

    def _take(self, line: str) -> dict[str, Any]:
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            event = {"event": "not_json", "text": line}
        self.events.append(event)
        return event

    def wait_for(self, name: str, /, **facts: object) -> dict[str, Any]:
        """The first event of that name with these facts, from the start of the log on."""
        event = self.hear(name, **facts)
        if event is None:
            raise AssertionError(f"no event {name} {facts} in:\n" + "\n".join(map(str, self.events[-50:])))
        return event

    def hear(self, name: str, /, **facts: object) -> dict[str, Any] | None:
        """As `wait_for`, but None where the log has ended without it, or it does not come."""

        def fits(event: dict[str, Any]) -> bool:
            return event["event"] == name and all(event.get(key) == value for key, value in facts.items())

        for event in self.events:
            if fits(event):
                return event
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                self._lines.put(None)  # it is still the end for whoever reads on
                break
            if fits(event := self._take(line)):
                return event
        return None

    def catch_up(self) -> None:
        """Take what it has written to its log so far into `events`."""
        while not self._lines.empty():
            line = self._lines.get()
            if line is None:
                self._lines.put(None)
                return
            self._take(line)

    @property
    def url(self) -> str:
        """Where its web face listens."""
        return f"http://{self.wait_for('started')['http']}"

    def get(self, path: str) -> tuple[int, str]:
        """Status and content of a page of its web face."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def drop(self, name: str, content: bytes | str) -> None:
        """Drop a job, the safe way."""
        new = self.queue / "new"
        hidden = new / f".{name}.tmp"
        hidden.write_bytes(content.encode() if isinstance(content, str) else content)
        hidden.rename(new / name)

    def result(self, name: str, until: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
        """The result of that name once `until` holds of it; by default, once the job has ended."""
        until = until or (lambda result: result["state"] not in ("queued", "held"))
        path = self.queue / "results" / f"{name}.json"
        result = eventually(lambda: json.loads(path.read_text()) if path.exists() else None, until)
        assert isinstance(result, dict)
        return result

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, once it has ended; the rest of its log is in `events`."""
        assert self.process
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            self._take(line)
        return status

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def __enter__(self) -> DaemonProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process and self.process.poll() is None:
            self.kill()


def _read(process: subprocess.Popen[str] | Forked, lines: queue.Queue[str | None]) -> None:
    assert process.stdout
    for line in process.stdout:
        lines.put(line)
    process.stdout.close()
    lines.put(None)


def eventually(look: Callable[[], Any], holds: Callable[[Any], bool] = bool) -> Any:
    """What `look` sees as soon as `holds` of it: another process is waited for, so it must be looked at again."""
    deadline = time.monotonic() + PATIENCE
    seen = None
    while time.monotonic() < deadline:
        seen = look()
        if seen is not None and holds(seen):
            return seen
        time.sleep(0.01)
    raise AssertionError(f"after {PATIENCE} s: {seen!r}")
