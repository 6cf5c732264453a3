"""Where the runs of a benchmark have their files: side by side, and there until the benchmark has ended.

Whoever makes a file on an ext4 that has no journal passes over every inode of its part of the disk that was given up in
the last minutes. So a run would pay for what the runs before it have removed, and be several times slower than the
first. That is why nothing is removed between runs, and why each directory gets a part of the disk of its own, where the
file system knows how (the attribute T of ext2 to ext4).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.wrong import Skipped, Wrong

_GET_FLAGS: Final = 0x80086601  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h
_SET_FLAGS: Final = 0x40086602
_SPREAD: Final = 0x00020000
_IMAGE: Final = 4 * 2**30  # octets, of which only those that are written take room

_places: list[Path] = []


def here() -> Path:
    """The directory in which folders are made now."""
    return _places[-1] if _places else Path(tempfile.gettempdir())


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A directory for the folders of one benchmark, removed with them at the end."""
    with tempfile.TemporaryDirectory(prefix="deferd-bench-", dir=here()) as name:
        Path(name).chmod(0o711)  # Postfix is another user
        _spread(name)
        _places.append(Path(name))
        try:
            yield _places[-1]
        finally:
            _places.pop()


@contextlib.contextmanager
def journaled() -> Iterator[Path]:
    """The same on an ext4 with a journal, as `mkfs.ext4` makes it: in an image, which only root may mount. Raises
    `Skipped` where that cannot be done."""
    if os.geteuid() or shutil.which("mkfs.ext4") is None:
        raise Skipped("only root can make and mount a file system, and it takes mkfs.ext4 (Debian: e2fsprogs)")
    with place() as folder:
        image, mounted = folder / "image", folder / "mounted"
        mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(_IMAGE)
        _command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
        try:
            _command("mount", "-o", "loop", str(image), str(mounted))
        except Wrong as error:
            raise Skipped(f"no image can be mounted here: {error}") from error
        _places.append(mounted)
        try:
            _spread(str(mounted))
            yield mounted
        finally:
            _places.pop()
            _command("umount", str(mounted))


class Folder:
    """A new directory. In a `place` it stays until that ends, else until `close`."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="deferd-bench-", dir=here()))
        self._stays = bool(_places)

    def close(self) -> None:
        """Nobody needs it any more."""
        if not self._stays:
            shutil.rmtree(self.path)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()


def file_system() -> str:
    """The kind of the file system that folders are made on: figures from tmpfs, which is no disk, are worth nothing."""
    device = here().stat().st_dev
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == f"{os.major(device)}:{os.minor(device)}":
            kind, source = rest.split()[:2]
            return kind + _journal(Path(source).name)
    return "an unknown file system"


def _journal(device: str) -> str:
    """What is to be said of an ext4 that has no journal, which is rare."""
    task = Path(f"/sys/fs/ext4/{device}/journal_task")
    return " without a journal" if task.exists() and task.read_text().strip() == "<none>" else ""


def _spread(directory: str) -> None:
    """Have what is made in this directory begin in different parts of the disk; nothing where that is not known."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, struct.pack("l", 0)))
        fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", flags | _SPREAD))
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _command(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode:
        raise Wrong(f"{' '.join(command)}: {done.stderr.strip()}")
