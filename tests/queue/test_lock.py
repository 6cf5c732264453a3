"""Whether there is a daemon, as commands see it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.queue.lock import LOCK, DirectoryLock, nobody_runs


def test_whoever_holds_it_runs(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    assert not nobody_runs(tmp_path)
    lock.release()


def test_one_that_has_died_does_not_run(tmp_path: Path) -> None:
    """However it died: the lock is the kernel's, and the file says who had it."""
    _start_and_die(tmp_path).wait()
    assert nobody_runs(tmp_path)


def test_one_that_has_died_does_not_run_though_nobody_has_asked_how_it_ended(tmp_path: Path) -> None:
    """In a container the first process may never ask."""
    died = _start_and_die(tmp_path)
    os.waitid(os.P_PID, died.pid, os.WEXITED | os.WNOWAIT)
    assert nobody_runs(tmp_path)
    died.wait()


def test_of_another_machine_nothing_is_known(tmp_path: Path) -> None:
    """Nor of another container, whose processes have numbers of their own."""
    (tmp_path / LOCK).write_text("process 999999999 on elsewhere\n")
    assert not nobody_runs(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "process 999999999 on", "garbage\n", f"process {10**30} on {os.uname().nodename}\n"]
)
def test_of_a_file_that_says_nothing_nothing_is_known(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_text(content)
    assert not nobody_runs(tmp_path)


def test_where_there_is_no_file_nothing_is_known(tmp_path: Path) -> None:
    assert not nobody_runs(tmp_path)


def _start_and_die(directory: Path) -> subprocess.Popen[bytes]:
    """A process that takes the lock, and is killed."""
    program = "import os, pathlib, sys; from service.queue.lock import DirectoryLock\n"
    program += "lock = DirectoryLock(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    return subprocess.Popen([sys.executable, "-c", program, directory])
