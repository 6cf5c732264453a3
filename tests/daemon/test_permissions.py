"""The real daemon in a directory that is closed to it, while it runs and at its start.

As root the tests start it without the capability to pass over permissions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import pytest

from service.queue.inotify import Event, Inotify
from tests.fakes import disk
from tests.fakes.process import DaemonProcess, eventually
from tests.fakes.relay import Relay
from tests.fakes.witness import arrived_once, counts, eml, in_new, left_new, pid, prepare, readiness, told

MakeDaemon = Callable[..., DaemonProcess]

OPENED: Final = 0x20  # IN_OPEN


def bound(process: DaemonProcess) -> DaemonProcess:
    """Started so that permissions hold for it, whoever runs the tests."""
    process.spawn(*disk.UNPRIVILEGED)
    process.wait_for("started")
    return process


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="who drops into a directory closed to the daemon has to be root")
def test_files_that_may_not_be_removed_from_new_are_sent_once_and_removed_later(
    daemon: MakeDaemon, relay: Relay
) -> None:
    """new/ is closed for writing: told of once for each file, none is sent again, and they go when they may."""
    process = bound(daemon(relay))
    with disk.closed_to(process.queue / "new", 0o555):
        for name in ("one", "two"):
            process.drop(f"{name}.eml", eml(name))
            assert process.result(name)["state"] == "delivered"
            assert "Permission denied" in process.wait_for("file_stuck", name=f"{name}.eml")["why"]
        assert in_new(process) == {"one.eml", "two.eml"}
    left_new(process)
    assert process.stop() == 0
    arrived_once(relay, "one", "two")
    assert len(told(process, "file_stuck")) == 2


STRANGER = """
import os, sys
os.setuid(12345)
with open("slow.eml", "wb", opener=lambda name, flags: os.open(name, flags, 0o644, dir_fd=int(sys.argv[1]))) as file:
    for line in sys.stdin.buffer:
        file.write(line)
        file.flush()
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="to drop as another user takes root")
def test_another_users_file_counts_once_its_writer_has_closed_it(daemon: MakeDaemon, relay: Relay) -> None:
    """The kernel does not tell a daemon without privileges that somebody still writes it."""
    process = daemon(relay)
    process.spawn("setpriv", "--bounding-set=-lease")
    process.wait_for("started")
    new = os.open(process.queue / "new", os.O_RDONLY)
    os.fchmod(new, 0o2770)
    stranger = subprocess.Popen(
        [sys.executable, "-c", STRANGER, str(new)], stdin=subprocess.PIPE, bufsize=0, pass_fds=(new,)
    )
    os.close(new)
    assert stranger.stdin is not None
    whole = eml("slow")
    stranger.stdin.write(whole[: len(whole) // 2])
    eventually(lambda: in_new(process) == {"slow.eml"})
    looks: list[Event] = []
    watch = Inotify(process.queue / "new", OPENED)
    eventually(lambda: looks.extend(watch.read()) or len(looks) > 3)
    watch.close()
    assert in_new(process) == {"slow.eml"}
    stranger.stdin.write(whole[len(whole) // 2 :])
    stranger.stdin.close()
    stranger.wait()
    assert process.result("slow")["state"] == "delivered"
    assert process.stop() == 0
    arrived_once(relay, "slow")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="who drops into a directory closed to the daemon has to be root")
def test_a_new_that_may_not_be_looked_into_is_told_of_once_and_read_when_it_may(
    daemon: MakeDaemon, relay: Relay
) -> None:
    """/readyz says so as well; what is dropped meanwhile waits."""
    process = bound(daemon(relay))
    with disk.closed_to(process.queue / "new", 0):
        process.drop("meanwhile.eml", eml("meanwhile"))
        why = process.wait_for("intake_failed")["why"]
        assert f"{process.queue / 'new'} cannot be read: Permission denied" == why
        readiness(process, 503, why)
        assert in_new(process) == {"meanwhile.eml"}
    assert process.result("meanwhile")["state"] == "delivered"
    readiness(process, 200)
    assert process.stop() == 0
    arrived_once(relay, "meanwhile")
    assert counts(process, "intake_failed", "intake_recovered") == [1, 1]


def test_results_that_may_not_be_written_are_written_later(daemon: MakeDaemon, relay: Relay) -> None:
    """results/ is closed for writing: mail goes on, the trouble is told of once, no result is forgotten."""
    process = bound(daemon(relay))
    with disk.closed_to(process.queue / "results", 0o555):
        for name in ("one", "two"):
            process.drop(f"{name}.eml", eml(name))
            process.wait_for("job_finished", name=name)
        assert process.wait_for("result_failed")["why"] == "Permission denied"
        assert list((process.queue / "results").iterdir()) == []
    assert [process.result(name)["state"] for name in ("one", "two")] == ["delivered"] * 2
    assert process.stop() == 0
    arrived_once(relay, "one", "two")
    assert len(told(process, "result_failed")) == 1


def test_what_may_not_be_put_aside_is_put_aside_later(daemon: MakeDaemon, relay: Relay) -> None:
    """rejected/ is closed for writing: the file stays in new/, is told of once, and harms no other."""
    process = bound(daemon(relay))
    with disk.closed_to(process.queue / "rejected", 0o555):
        process.drop("bad.eml", b"no job")
        process.wait_for("file_stuck", name="bad.eml")
        process.drop("good.eml", eml("good"))
        assert process.result("good")["state"] == "delivered"
        assert in_new(process) == {"bad.eml"}
    eventually(lambda: (process.queue / "rejected" / "bad.eml.why").exists())
    assert in_new(process) == set()
    assert process.stop() == 0
    assert counts(process, "file_stuck", "job_rejected") == [1, 1]


@pytest.mark.strace
def test_a_running_daemon_does_not_mind_the_permissions_of_its_database(daemon: MakeDaemon, relay: Relay) -> None:
    """Its files are open, and stay so where one I/O error has it begin anew."""
    process = bound(daemon(relay))
    with disk.closed_to(process.queue / "queue.db", 0):
        drop = prepare(process, "meanwhile")
        with disk.failing(pid(process), "pwrite64", "EIO", process.queue / "queue.db-wal"):
            drop()
            process.wait_for("store_failed")
            assert in_new(process) == {"meanwhile.eml"}
        assert process.result("meanwhile")["state"] == "delivered"
    assert process.stop() == 0
    arrived_once(relay, "meanwhile")


def test_a_start_without_the_permissions_says_which_are_missing(daemon: MakeDaemon, relay: Relay) -> None:
    """The path, what is wrong with it and whose it should be; exit status 1, and it starts when that is mended."""
    process = daemon(relay).start()
    process.stop()
    for place, mode in (("new", 0o555), ("results", 0o555), ("rejected", 0), ("queue.db", 0o400)):
        with disk.closed_to(process.queue / place, mode):
            disk.refuses_to_start(process, f"{process.queue / place} cannot be written")
            assert "must belong to the user that runs deferd" in str(process.events)
    bound(process)
