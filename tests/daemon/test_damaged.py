"""A damaged queue, on a real process: mail goes on, and what waited before comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.fakes.process import DaemonProcess, eventually
from tests.fakes.relay import Relay


def eml(n: int) -> bytes:
    return f"From: ann@a.example\nTo: bob-{n}@b.example\nSubject: {n}\n\nNumber {n}.\n".encode()


def recover(process: DaemonProcess) -> list[dict[str, Any]]:
    """Run `deferd queue recover`, and return its reports."""
    command = [sys.executable, "-m", "service.cli", "queue", "recover", "--json", "-c", str(process.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=process.environ)
    assert done.stderr == ""
    reports: list[dict[str, Any]] = json.loads(done.stdout)
    return reports


def break_header(queue: Path) -> None:
    """What a stray write may do."""
    with (queue / "queue.db").open("r+b") as file:
        file.write(bytes(100))


def break_log(queue: Path) -> None:
    """SQLite would take the whole queue for empty."""
    with (queue / "queue.db-wal").open("r+b") as file:
        file.write(bytes(32))


@pytest.mark.parametrize("damage", [break_header, break_log])
@pytest.mark.parametrize("running", [True, False])
def test_mail_goes_on_and_what_waited_comes_back(
    daemon: Callable[..., DaemonProcess], relay: Relay, damage: Callable[[Path], None], running: bool
) -> None:
    """The daemon sets its damaged queue aside, says so, and delivers what is new. `deferd queue recover` puts back what
    waited, with or without it running: each message arrives once, also the one that had arrived before."""
    process = daemon(relay)
    process.start()
    process.drop("before.eml", eml(0))
    process.result("before")
    relay.script = {f"bob-{n}@b.example": ["450 4.2.0 later"] for n in (1, 2)}
    for n in (1, 2):
        process.drop(f"waiting-{n}.eml", eml(n))
        process.result(f"waiting-{n}", lambda result: result["attempts"] == 1)
    process.kill()
    if damage is break_header:
        checkpoint(process.queue)
    damage(process.queue)

    process.start()
    told = process.wait_for("store_damaged")
    assert told["level"] == "error"
    assert told["remedy"] == "deferd queue recover"
    folder = Path(told["path"])
    assert (folder / "queue.db").exists()
    process.drop("new.eml", eml(3))
    assert process.result("new")["state"] == "delivered"
    assert process.get("/readyz")[0] == 200
    assert f"A damaged queue was set aside</strong> as {folder}" in process.get("/")[1]
    assert "deferd_damaged_queues 1.0" in process.get("/metrics")[1]
    if not running:
        process.stop()

    (report,) = recover(process)
    assert (report["source"], report["seen"], report["queued"], report["ended"]) == (str(folder), 3, 2, 1)
    assert recover(process) == []
    if not running:
        process.start()
    retry(process)
    for n in (1, 2):
        assert process.result(f"waiting-{n}")["state"] == "delivered"
    assert process.stop() == 0
    arrived = [arrival.recipients for arrival in relay.arrivals]
    assert sorted(arrived) == [[f"bob-{n}@b.example"] for n in range(4)]


def checkpoint(queue: Path) -> None:
    connection = apsw.Connection(str(queue / "queue.db"))
    connection.set_busy_timeout(10_000)
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('probe', 0)")  # nobody's cache is good any more
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()


def retry(process: DaemonProcess) -> None:
    """Do not wait for the retry's time."""
    command = [sys.executable, "-m", "service.cli", "queue", "retry", "--all", "-c", str(process.config)]
    subprocess.run(command, check=True, capture_output=True, env=process.environ)


def test_damage_met_while_running_says_what_to_do(daemon: Callable[..., DaemonProcess], relay: Relay) -> None:
    """/readyz and the log name the remedy, and nothing is acknowledged meanwhile. The restart does what they say,
    and takes the mail that was dropped then."""
    process = daemon(relay)
    process.start()
    process.drop("before.eml", eml(0))
    process.result("before")
    checkpoint(process.queue)
    size = (process.queue / "queue.db").stat().st_size
    with (process.queue / "queue.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    process.drop("late.eml", eml(1))
    assert "deferd queue recover" in process.wait_for("store_failed")["why"]
    status, text = eventually(lambda: process.get("/readyz"), lambda answer: answer[0] == 503)
    assert "restart deferd" in text
    assert status == 503
    assert (process.queue / "new" / "late.eml").exists()
    process.stop()
    process.start()
    process.wait_for("store_damaged")
    assert process.result("late")["state"] == "delivered"
