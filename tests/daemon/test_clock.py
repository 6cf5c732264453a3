"""The real daemon on a machine whose clock is set to another year: libfaketime moves what it takes for the time of day.

Its other clocks go on, as a machine's do.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.process import DaemonProcess, eventually
from tests.fakes.relay import Relay

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
YEAR = 365 * 86_400
DELAY = 2.0
LATER = "450 4.2.0 later"
EML = "X-Sender: <ann@a.example>\nX-Receiver: <bob@b.example>\nSubject: hello\n\nGood morning.\n"

pytestmark = [
    pytest.mark.faketime,
    pytest.mark.skipif(not LIBRARIES, reason="needs libfaketime, as Debian's package faketime has it"),
]


class Clock:
    """The clock on the wall of the daemon, and of the commands beside it."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self._ahead = 0
        self.jump(0)
        self.environ = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: int) -> None:
        """Somebody sets it."""
        self._ahead += seconds
        new = self._file.with_suffix(".new")
        new.write_text(f"{self._ahead:+d}\n")
        new.rename(self._file)

    def now(self) -> datetime:
        """What it shows."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def start(daemon: Callable[..., DaemonProcess], clock: Clock, relay: Relay) -> Callable[[], DaemonProcess]:
    """Start a daemon whose recipients are tried again every two seconds, for an hour."""
    retry = {"delays": [f"{DELAY:.0f}s"], "jitter": 0.0, "max_age": "1h", "warn_after": None}
    return lambda: daemon(relay, environ=clock.environ, retry=retry).start()


def times(process: DaemonProcess) -> list[float]:
    """When each attempt was made, by the clock on the wall."""
    started = [event for event in process.events if event["event"] == "attempt_started"]
    return [datetime.fromisoformat(event["timestamp"]).timestamp() for event in started]


def show(process: DaemonProcess) -> list[dict[str, Any]]:
    """What `deferd queue list` says."""
    command = [sys.executable, "-m", "service.cli", "queue", "list", "--json", "-c", str(process.config)]
    done = subprocess.run(command, env=process.environ, capture_output=True, text=True, check=True)
    jobs: list[dict[str, Any]] = json.loads(done.stdout)
    return jobs


@pytest.mark.parametrize("by", [YEAR, -YEAR])
def test_a_deferred_message_is_neither_hammered_nor_given_up(
    start: Callable[[], DaemonProcess], clock: Clock, relay: Relay, by: int
) -> None:
    """The clock is set by a year while it waits: the next tries come two seconds apart, and it is delivered."""
    relay.script["bob@b.example"] = [LATER] * 2
    process = start()
    process.drop("job.eml", EML)
    process.wait_for("deferred", attempt=1)
    clock.jump(by)
    assert abs(process.wait_for("clock_jumped")["seconds"] - by) < 1
    process.wait_for("delivered", attempt=3)
    seen = times(process)
    gaps = [after - before for before, after in itertools.pairwise(seen)]
    gaps[0] -= by
    assert len(seen) == 3
    assert min(gaps) > DELAY - 0.1
    assert max(gaps) < DELAY + 10
    assert not [event for event in process.events if event["event"] in ("failed", "unhandled_error")]
    assert len([event for event in process.events if event["event"] == "clock_jumped"]) == 1
    result = process.result("job")
    finished = datetime.fromisoformat(result["finished_at"])
    assert abs(finished - clock.now()) < timedelta(seconds=60)


@pytest.mark.parametrize("by", [YEAR, -YEAR])
def test_a_clock_set_while_no_daemon_runs_changes_nothing(
    start: Callable[[], DaemonProcess], clock: Clock, relay: Relay, by: int
) -> None:
    """The next start knows by the machine's boot clock how long that was; so does a command before it."""
    relay.script["bob@b.example"] = [LATER] * 2
    process = start()
    process.drop("job.eml", EML)
    process.wait_for("deferred", attempt=1)
    process.kill()
    clock.jump(by)
    (job,) = show(process)
    assert abs(datetime.fromisoformat(job["accepted_at"]) - clock.now()) < timedelta(seconds=60)
    process.start()
    assert abs(process.wait_for("clock_jumped")["seconds"] - by) < 1
    process.wait_for("deferred", attempt=2)
    assert process.result("job")["state"] == "delivered"
    assert not [event for event in process.events if event["event"] == "failed"]


def test_a_scheduled_job_goes_when_the_clock_shows_its_time(
    start: Callable[[], DaemonProcess], clock: Clock, relay: Relay
) -> None:
    """Also where that is a year early."""
    relay.script["bob@b.example"] = [LATER] * 100
    process = start()
    at = (clock.now() + timedelta(seconds=YEAR)).strftime("%Y-%m-%dT%H:%M:%SZ")
    job = {"sender": "", "recipients": ["eve@b.example"], "message": "Subject: x\n\nx\n", "not_before": at}
    process.drop("scheduled.json", json.dumps(job))
    process.drop("job.eml", EML)  # it is tried every two seconds: so soon a jump is noticed
    process.wait_for("deferred", attempt=2)
    assert eventually(lambda: process.result("scheduled", lambda _: True))["next_attempt"] == at.replace("Z", ".000Z")
    clock.jump(YEAR + 1)
    arrival = relay.wait_for(1)[0]
    assert arrival.recipients == ["eve@b.example"]


def test_the_library_moves_the_time_of_day_alone(clock: Clock) -> None:
    """What these tests rest on."""
    code = "import time; print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))"
    seen = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **clock.environ},
            capture_output=True,
            text=True,
            check=True,
        )
        seen.append([float(word) for word in done.stdout.split()])
        clock.jump(YEAR)
    wall, monotonic, boot = (after - before for before, after in zip(*seen, strict=True))
    assert wall > YEAR - 60
    assert max(monotonic, boot) < 60
