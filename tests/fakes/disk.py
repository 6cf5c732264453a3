"""Real faults of a real disk, begun and ended while the daemon runs.

    small_disk     a file system of its own, of so many octets and inodes             needs root
    read_only      a directory that can only be read by whoever opens a path now      needs root
    failing        system calls on some files fail, as the kernel would fail them     needs strace
    closed_to      a file or directory with other permissions
    no_descriptors no file can be opened any more

Each is a context: the fault ends with it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.process import DaemonProcess

UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner") if os.geteuid() == 0 else ()
"""In front of a command: permissions hold for it, even where the tests run as root."""


def _mount(*arguments: str) -> None:
    """Mount; skip the test where that is not permitted."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


def _unmount(directory: Path) -> None:
    # A daemon of a test that failed may still be ending: what it holds is let go of with it.
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextlib.contextmanager
def small_disk(directory: Path, *, octets: int = 8 << 20, inodes: int = 0) -> Iterator[Path]:
    """A file system of its own at `directory`; `inodes` 0 is as many as one likes."""
    directory.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={octets},nr_inodes={inodes},mode=0750", "tmpfs", str(directory))
    try:
        yield directory
    finally:
        _unmount(directory)


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Whatever is opened, made, renamed or removed below `directory` is refused: EROFS. What is open already is not
    concerned: the kernel makes nothing read-only that somebody has open for writing."""
    _mount("--bind", str(directory), str(directory))
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(directory)], check=True)
        yield
    finally:
        _unmount(directory)


@contextlib.contextmanager
def full(directory: Path, *, left: int = 0) -> Iterator[None]:
    """The file system has `left` octets of room, or less than a page more."""
    ballast = directory / ".ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
        file.truncate(max(0, file.tell() // 4096 * 4096 - left))
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def no_inodes(directory: Path) -> Iterator[None]:
    """The file system has no room for another file, whatever its size."""
    ballast = directory / ".inodes"
    ballast.mkdir()
    with contextlib.suppress(OSError):
        for number in range(1_000_000):
            (ballast / str(number)).touch()
    try:
        yield
    finally:
        shutil.rmtree(ballast)


@contextlib.contextmanager
def failing(pid: int, calls: str, error: str, *paths: Path, when: str = "1+") -> Iterator[None]:
    """These system calls (`pwrite64,fdatasync`) of the process on these files fail with `error`, or those of them that
    `when` counts: `1` the first only."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    wanted = [word for path in paths for word in ("-P", str(path))]
    tracing = [f"--trace={calls}", f"--inject={calls}:error={error}:when={when}"]
    tracer = subprocess.Popen(
        ["strace", "-f", *wanted, *tracing, "-o", "/dev/null", "-p", str(pid)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert tracer.stderr
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace may not watch a process here: {said.strip()}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=20)


@contextlib.contextmanager
def closed_to(path: Path, mode: int) -> Iterator[None]:
    """`path` has these permissions: nothing to whom they give nothing."""
    before = path.stat().st_mode & 0o7777
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


@contextlib.contextmanager
def no_descriptors(pid: int) -> Iterator[None]:
    """The process cannot open anything: EMFILE."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def refuses_to_start(process: DaemonProcess, why: str) -> None:
    """It exits with 1 and says why, in its own words."""
    process.spawn(*UNPRIVILEGED)
    assert process.wait() == 1
    assert why in str(process.events)
    assert "Traceback" not in str(process.events)
