"""The real daemon on a disk that is full, read-only, failing or closed to it.

While it lasts nothing is acknowledged and nothing that is not kept leaves new/; what is told once is told with the
reason; and all is well by itself, and exactly once, when it is over.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import disk
from tests.fakes.process import DaemonProcess, eventually
from tests.fakes.relay import Relay
from tests.fakes.witness import arrived_once, counts, eml, in_new, left_new, pid, prepare, readiness, told

MakeDaemon = Callable[..., DaemonProcess]
Fault = Callable[[DaemonProcess], AbstractContextManager[None]]
LONG = (b"y" * 70 + b"\n") * 14_000  # more than the log has room for without growing
QUICK = {"retry": {"delays": ["1s"], "jitter": 0.0}}


def failing(calls: str, error: str, **more: Any) -> Fault:
    return lambda process: disk.failing(
        pid(process), calls, error, process.queue / "queue.db", process.queue / "queue.db-wal", **more
    )


@pytest.fixture
def small(tmp_path: Path) -> Any:
    """The queue's directory is a disk of its own, of 8 MiB."""
    with disk.small_disk(tmp_path / "daemon" / "queue") as directory:
        yield directory


@pytest.fixture
def few_inodes(tmp_path: Path) -> Any:
    """The queue's directory is a disk of its own, with room for 100 files."""
    with disk.small_disk(tmp_path / "daemon" / "queue", inodes=100) as directory:
        yield directory


def cannot_commit(process: DaemonProcess, relay: Relay, fault: Fault, why: str) -> None:
    """Put the daemon through a fault of its store: with a message in flight, one dropped meanwhile, and one waiting."""
    relay.script["waiting@b.example"] = ["450 4.2.0 not now"]
    process.drop("waiting.eml", eml("waiting"))
    process.wait_for("deferred", recipient="waiting@b.example")
    drop = prepare(process, "meanwhile")
    relay.delay = 0.3
    process.drop("flying.eml", eml("flying"))
    process.wait_for("attempt_started", recipients=["flying@b.example"])
    with fault(process):
        drop()
        assert why in process.wait_for("store_failed")["why"]
        readiness(process, 503, why)
        eventually(lambda: {a.recipients[0] for a in relay.arrivals}, lambda seen: "flying@b.example" in seen)
        assert process.get("/healthz")[0] == 200
        assert in_new(process) == {"meanwhile.eml"}
        assert not told(process, "delivered")
        assert not (process.queue / "results" / "meanwhile.json").exists()
    relay.delay = 0.0
    assert [process.result(name)["state"] for name in ("flying", "meanwhile", "waiting")] == ["delivered"] * 3
    readiness(process, 200)
    process.wait_for("store_recovered")
    left_new(process)
    assert process.stop() == 0
    arrived_once(relay, "flying", "meanwhile", "waiting")
    assert counts(process, "store_failed", "store_recovered", "job_accepted") == [1, 1, 3]
    assert not told(process, "unhandled_error")


@pytest.mark.root
def test_a_full_disk_acknowledges_nothing_and_recovers(small: Path, daemon: MakeDaemon, relay: Relay) -> None:
    """ENOSPC, from a disk that really is full: what was on its way is settled later, what came waits in new/."""
    process = daemon(relay, **QUICK).start()
    cannot_commit(process, relay, lambda process: disk.full(process.queue), "the disk is full")


@pytest.mark.strace
@pytest.mark.parametrize(
    ("calls", "error", "why"),
    [
        ("pwrite64", "EIO", "Input/output error"),
        ("fdatasync", "EIO", "Input/output error"),
        ("pwrite64", "ENOSPC", "the disk is full"),
        ("pwrite64", "EROFS", "Read-only file system"),
    ],
)
def test_a_disk_that_fails_at_commit_acknowledges_nothing_and_recovers(
    daemon: MakeDaemon, relay: Relay, calls: str, error: str, why: str
) -> None:
    """Whichever call of COMMIT fails, and for as long as it does."""
    cannot_commit(daemon(relay, **QUICK).start(), relay, failing(calls, error), why)


@pytest.mark.strace
@pytest.mark.parametrize("calls", ["pwrite64", "fdatasync"])
def test_a_commit_that_fails_once_is_repeated(daemon: MakeDaemon, relay: Relay, calls: str) -> None:
    """One I/O error among forty messages: a failed fsync is not taken for a success, and nobody gets anything twice."""
    names = [f"j{n}" for n in range(40)]
    process = daemon(relay).start()
    with failing(calls, "EIO", when="3")(process):  # strace counts for each thread
        for name in names:
            process.drop(f"{name}.eml", eml(name))
        for name in names:
            assert process.result(name)["state"] == "delivered"
        process.wait_for("store_failed")
    readiness(process, 200)
    assert process.stop() == 0
    arrived_once(relay, *names)
    assert len(told(process, "job_accepted")) == len(names)
    assert len(told(process, "store_failed")) == len(told(process, "store_recovered")) > 0


@pytest.mark.strace
def test_a_daemon_with_nothing_to_do_notices_that_the_disk_is_well_again(daemon: MakeDaemon, relay: Relay) -> None:
    """Only /readyz has met the fault; nothing waits to be written, and nothing needs to come for it to be over."""
    process = daemon(relay).start()
    with failing("pwrite64", "EIO")(process):
        readiness(process, 503, "Input/output error")
        process.wait_for("store_failed")
    process.wait_for("store_recovered")
    readiness(process, 200)


@pytest.mark.strace
def test_a_daemon_that_is_ended_while_the_disk_fails_leaves_the_rest_to_the_next(
    daemon: MakeDaemon, relay: Relay
) -> None:
    """SIGTERM is obeyed within `timeouts.drain`; what was sent before stays sent, what came meanwhile is taken next."""
    process = daemon(relay, timeouts={"drain": "2s"}).start()
    process.drop("before.eml", eml("before"))
    process.result("before")
    drop = prepare(process, "meanwhile")
    with failing("pwrite64,fdatasync", "EIO")(process):
        drop()
        process.wait_for("store_failed")
        assert process.stop() == 0
        assert in_new(process) == {"meanwhile.eml"}
    process.start()
    assert process.result("meanwhile")["state"] == "delivered"
    arrived_once(relay, "before", "meanwhile")


@pytest.mark.root
def test_no_inodes_left_delays_results_and_nothing_else(few_inodes: Path, daemon: MakeDaemon, relay: Relay) -> None:
    """The store needs no new file: mail goes on. Result files, and what is no job, wait for room, and come by
    themselves."""
    relay.delay = 0.3
    process = daemon(relay).start()
    drop, bad = prepare(process, "second"), prepare(process, "bad", b"no job")
    process.drop("first.eml", eml("first"))
    process.wait_for("attempt_started")
    with disk.no_inodes(process.queue):
        process.wait_for("result_failed", name="first", why="No space left on device")
        bad()
        assert "No space left on device" in process.wait_for("file_stuck", name="bad.eml")["why"]
        drop()
        relay.wait_for(2)
        process.wait_for("job_finished", name="second")
        assert process.get("/readyz")[0] == 200
        assert in_new(process) == {"bad.eml"}
    assert [process.result(name)["state"] for name in ("first", "second")] == ["delivered"] * 2
    eventually(lambda: (process.queue / "rejected" / "bad.eml.why").exists())
    assert in_new(process) == set()
    assert process.stop() == 0
    arrived_once(relay, "first", "second")
    assert counts(process, "result_failed", "file_stuck") == [1, 1]


@pytest.mark.root
def test_a_directory_that_becomes_read_only_is_told_of_and_put_in_order_afterwards(
    daemon: MakeDaemon, relay: Relay
) -> None:
    """The store's files are open and go on; accepted files cannot leave new/, results cannot be written: neither is
    forgotten, and no message goes out twice for it."""
    process = daemon(relay).start()
    drop = prepare(process, "meanwhile")
    with disk.read_only(process.queue):
        drop()
        assert "Read-only file system" in process.wait_for("file_stuck", name="meanwhile.eml")["why"]
        assert process.wait_for("result_failed")["why"] == "Read-only file system"
        relay.wait_for(1)
        assert in_new(process) == {"meanwhile.eml"}
    assert process.result("meanwhile")["state"] == "delivered"
    left_new(process)
    assert process.stop() == 0
    arrived_once(relay, "meanwhile")
    assert counts(process, "file_stuck", "job_accepted") == [1, 1]


@pytest.mark.root
@pytest.mark.strace
def test_a_store_that_becomes_read_only_stays_failed_until_it_can_be_opened_again(
    daemon: MakeDaemon, relay: Relay
) -> None:
    """The failed connection is given up, and none is had anew: the reason told is the one that holds now."""
    process = daemon(relay).start()
    drop = prepare(process, "meanwhile")
    with disk.read_only(process.queue):
        with failing("pwrite64", "EROFS")(process):
            drop()
            assert "Read-only file system" in process.wait_for("store_failed")["why"]
        readiness(process, 503, "cannot be written")
        assert in_new(process) == {"meanwhile.eml"}
        assert not told(process, "job_accepted")
    assert process.result("meanwhile")["state"] == "delivered"
    assert process.stop() == 0
    arrived_once(relay, "meanwhile")
    assert len(told(process, "store_failed")) == 1


def test_without_descriptors_nothing_is_lost_and_all_goes_on_when_there_are(daemon: MakeDaemon, relay: Relay) -> None:
    """EMFILE: jobs wait in new/, what is in flight is settled, results come later; no file is refused for it."""
    process = daemon(relay, **QUICK).start()
    relay.delay = 0.3
    process.drop("flying.eml", eml("flying"))
    process.wait_for("attempt_started")
    drop = prepare(process, "meanwhile")
    with disk.no_descriptors(pid(process)):
        drop()
        assert "Too many open files" in process.wait_for("intake_failed")["why"]
        process.wait_for("delivered", recipient="flying@b.example")
        assert process.wait_for("result_failed")["why"] == "Too many open files"
        assert in_new(process) == {"meanwhile.eml"}
    assert [process.result(name)["state"] for name in ("flying", "meanwhile")] == ["delivered"] * 2
    readiness(process, 200)
    assert process.stop() == 0
    arrived_once(relay, "flying", "meanwhile")
    assert counts(process, "intake_failed", "intake_recovered", "job_accepted") == [1, 1, 2]
    assert not told(process, "unhandled_error")


@pytest.mark.root
def test_a_disk_that_is_full_at_the_very_start_is_told_of(small: Path, daemon: MakeDaemon, relay: Relay) -> None:
    """Where there was no queue yet the daemon exits with 1 and the reason, and starts once there is room."""
    process = daemon(relay)
    with disk.full(small):
        disk.refuses_to_start(process, "No space left on device")
    process.start()
    process.drop("after.eml", eml("after"))
    assert process.result("after")["state"] == "delivered"


@pytest.mark.root
def test_a_disk_that_is_full_at_a_later_start_takes_nothing_in_until_there_is_room(
    small: Path, daemon: MakeDaemon, relay: Relay
) -> None:
    """The daemon starts, as there may be mail that can go, or says why it cannot; what waits is sent once."""
    process = daemon(relay).start()
    process.drop("before.eml", eml("before"))
    process.result("before")
    drop = prepare(process, "meanwhile", content=eml("meanwhile") + LONG)
    process.kill()
    with disk.full(small):
        drop()
        process.start()
        assert "the disk is full" in process.wait_for("store_failed")["why"]
        readiness(process, 503, "the disk is full")
        assert in_new(process) == {"meanwhile.eml"}
    assert process.result("meanwhile")["state"] == "delivered"
    assert process.stop() == 0
    arrived_once(relay, "before", "meanwhile")


@pytest.mark.root
def test_no_inodes_at_the_very_start_are_told_of(few_inodes: Path, daemon: MakeDaemon, relay: Relay) -> None:
    """The reason, and exit status 1."""
    with disk.no_inodes(few_inodes):
        disk.refuses_to_start(daemon(relay), "No space left on device")


@pytest.mark.root
def test_a_read_only_disk_at_the_start_is_told_of(daemon: MakeDaemon, relay: Relay) -> None:
    """By that name: it is not a matter of permissions."""
    process = daemon(relay)
    process.queue.mkdir()
    with disk.read_only(process.queue):
        disk.refuses_to_start(process, "is on a file system that can only be read")
