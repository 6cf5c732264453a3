"""Dropping a job: it is durable and whole in new/, or it is not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from secrets import token_hex


class DropError(Exception):
    """The job could not be dropped. `errno` is the system's, None where the queue is not there."""

    def __init__(self, why: str, errno: int | None = None) -> None:
        super().__init__(why)
        self.errno = errno


def drop(directory: str, content: bytes, ending: str = ".eml", *, option: str = "-c") -> str:
    """Drop a job into the queue at `directory`; return its name, without the ending, once it is on disk.

    `option` is what the command calls its configuration by. Raises `DropError`.
    """
    new = Path(directory, "new")
    name = f"send-{token_hex(8)}"
    hidden = new / f".{name}{ending}.tmp"
    try:
        if not new.is_dir():
            raise DropError(
                f"there is no queue at {directory}: start `deferd run` once, or name its configuration with {option}"
            )
        try:
            _write(hidden, content)
            hidden.rename(new / f"{name}{ending}")
        except BaseException:
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)
            raise
        _sync_directory(new)
    except OSError as error:
        raise DropError(f"cannot write into {new}: {error.strerror or error}", error.errno) from error
    return name


def _write(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        _let_the_daemon_read(file.fileno(), path.parent)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _let_the_daemon_read(fd: int, new: Path) -> None:
    """The daemon owns new/, and may be somebody else than we: then the file becomes its own, or can be read.

    new/ gives its group to what is made in it, and the daemon is of that group. Where that was undone, all can read it.
    """
    owner = new.stat()
    if owner.st_uid == os.geteuid():
        return
    if os.geteuid() == 0:
        os.fchown(fd, owner.st_uid, owner.st_gid)
    else:
        os.fchmod(fd, 0o640 if os.fstat(fd).st_gid == owner.st_gid else 0o644)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
