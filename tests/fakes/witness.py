"""What a test of the real daemon drops and looks at."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tests.fakes.process import DaemonProcess, eventually
from tests.fakes.relay import Relay


def eml(name: str) -> bytes:
    """A message to NAME@b.example."""
    return f"From: ann@a.example\nTo: {name}@b.example\nSubject: {name}\n\nGood morning.\n".encode()


def prepare(process: DaemonProcess, name: str, content: bytes | None = None) -> Callable[[], None]:
    """Write a job under a hidden name, and return what drops it: that takes no room on any disk."""
    new = process.queue / "new"
    (new / f".{name}.tmp").write_bytes(content or eml(name))
    directory = os.open(new, os.O_RDONLY)  # from before any mount over it

    def drop() -> None:
        os.rename(f".{name}.tmp", f"{name}.eml", src_dir_fd=directory, dst_dir_fd=directory)
        os.close(directory)

    return drop


def in_new(process: DaemonProcess) -> set[str]:
    """The files that wait in new/."""
    return {path.name for path in (process.queue / "new").iterdir() if not path.name.startswith(".")}


def left_new(process: DaemonProcess) -> None:
    """Wait until none does."""
    eventually(lambda: in_new(process), lambda left: not left)


def told(process: DaemonProcess, *names: str) -> list[dict[str, Any]]:
    """The events of these names in the log so far."""
    process.catch_up()
    return [event for event in process.events if event["event"] in names]


def counts(process: DaemonProcess, *names: str) -> list[int]:
    """How often each of these events is in the log."""
    return [len(told(process, name)) for name in names]


def readiness(process: DaemonProcess, wanted: int, why: str = "") -> str:
    """What /readyz says as soon as it answers with this status and these words."""
    return str(eventually(lambda: process.get("/readyz"), lambda got: got[0] == wanted and why in got[1])[1])


def arrived_once(relay: Relay, *names: str) -> None:
    """Exactly these have arrived, each exactly once."""
    assert sorted(a.recipients[0] for a in relay.arrivals) == sorted(f"{name}@b.example" for name in names)


def pid(process: DaemonProcess) -> int:
    """The number of its process."""
    assert process.process
    return process.process.pid
