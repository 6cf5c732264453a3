"""A daemon that was forked off a zygote is the same as one that was executed: what kills the one kills the other."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.audit import deferd
from tests.fakes.forked import Zygote
from tests.fakes.process import DaemonProcess, eventually

NOWHERE = {"routes": [{"domains": ["*"], "relay": "smtp://127.0.0.1:1", "tls": "none"}]}


@pytest.fixture
def executed(tmp_path: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path / "executed", NOWHERE) as process:
        yield process


@pytest.fixture
def forked(tmp_path: Path) -> Iterator[DaemonProcess]:
    environ = {**os.environ, "PYTHONWARNINGS": "error"}
    with Zygote(environ) as zygote, DaemonProcess(tmp_path / "forked", NOWHERE, zygote=zygote) as process:
        yield process


def surroundings(process: DaemonProcess) -> dict[str, Any]:
    """What a process has from where it comes from, and what it has made of it."""
    assert process.process
    place = Path(f"/proc/{process.process.pid}")
    status = dict(line.split(":\t", 1) for line in (place / "status").read_text().splitlines())
    opened = {int(file.name): str(file.readlink()) for file in (place / "fd").iterdir()}
    return {
        "descriptors": {number: re.sub(r"\d+", "N", what) for number, what in opened.items() if number < 3},
        "kinds": sorted(re.sub(r"\d+|.*/(?=queue\b)", "", what) for what in opened.values()),
        "signals": {name: status[name] for name in ("SigBlk", "SigIgn", "SigCgt")},
        "place": str((place / "cwd").readlink()),
        "environ": set((place / "environ").read_bytes().split(b"\0")),
    }


def all_surroundings(processes: list[DaemonProcess]) -> list[dict[str, Any]]:
    """Those of each; none where a descriptor was closed while it was looked at."""
    try:
        return [surroundings(process) for process in processes]
    except FileNotFoundError:
        return []


def test_it_has_the_same_surroundings_tells_the_same_and_ends_alike(
    executed: DaemonProcess, forked: DaemonProcess
) -> None:
    """Descriptors, signals, directory and environment, once both have come to rest; its events; and the exit status."""
    processes = [executed.start(), forked.start()]
    eventually(lambda: all_surroundings(processes), lambda found: len(found) == 2 and found[0] == found[1])
    assert [process.stop() for process in processes] == [0, 0]
    told = [[event["event"] for event in process.events] for process in processes]
    assert told[0] == told[1]
    assert "not_json" not in told[0]


def test_each_has_an_end_of_its_own(forked: DaemonProcess) -> None:
    """Killed, it says so; there is another after it; and a command that fails says why."""
    for _ in range(2):
        forked.start()
        assert forked.process
        assert forked.process.poll() is None
        forked.kill()
        assert forked.process.poll() == forked.wait() == -signal.SIGKILL
    with pytest.raises(AssertionError, match="nonsense"):
        deferd(forked, "queue", "nonsense")
