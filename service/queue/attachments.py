"""Attachments that a job names by path: opened below new/ or an allowed folder, step by step, without links."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from service.message.job import JobError, shown
from service.queue.drop import is_passing, not_now

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


_IN_THREAD_ONLY: Final = ContextVar("in_thread_only", default=False)
T = TypeVar("T")


class InThread(Exception):
    """An attachment is wanted where nothing may block: what wants it is to be done once more, in a thread."""


def without_attachments(read: Callable[[str, bytes], T], name: str, octets: bytes) -> T:
    """`read(name, octets)` on the reactor's thread. Raises `InThread` as soon as it asks for an attachment."""
    token = _IN_THREAD_ONLY.set(True)
    try:
        return read(name, octets)
    finally:
        _IN_THREAD_ONLY.reset(token)


class Attachments:
    """Reads attachments. A relative path is below `new`; an absolute one has to be below it or one of `allowed`."""

    def __init__(self, new: Path, allowed: Sequence[Path] = (), *, most: int) -> None:
        self._new = new
        self._allowed = tuple(PurePosixPath(folder) for folder in allowed)
        self._most = most

    def read(self, path: str) -> bytes:
        """The octets of the attachment at `path`. Raises `JobError`, with what is wrong and how to mend it, or `NotYet`
        where nothing is, but the system cannot give it now.

        Below `without_attachments` it raises `InThread` instead.
        """
        if _IN_THREAD_ONLY.get():
            raise InThread(path)
        if "\0" in path:
            raise JobError(f"the attachment {shown(path)} has NUL in its path")
        folder, parts = self._place(path)
        try:
            fd = self._open(folder, parts)
        except OSError as error:
            if is_passing(error):
                raise not_now(error) from error
            raise JobError(
                f"the attachment {shown(path)} cannot be opened ({error.strerror}):"
                " it must be a file below new/ or an allowed folder, reached without links, and readable for deferd"
            ) from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise JobError(f"the attachment {shown(path)} is no regular file")
            if status.st_nlink > 1:
                raise JobError(f"the attachment {shown(path)} has more than one link: give it a file of its own")
            if status.st_size > self._most:
                raise JobError(
                    f"the attachment {shown(path)} has {status.st_size} octets: at most {self._most} are taken"
                )
            return _read(fd, self._most, path)
        finally:
            os.close(fd)

    def _place(self, path: str) -> tuple[PurePosixPath, tuple[str, ...]]:
        wanted = PurePosixPath(path)
        folder = PurePosixPath(self._new)
        if wanted.is_absolute():
            for candidate in (folder, *self._allowed):
                if wanted.is_relative_to(candidate):
                    folder, wanted = candidate, wanted.relative_to(candidate)
                    break
            else:
                raise JobError(
                    f"the attachment {shown(path)} is outside new/ and outside every allowed folder:"
                    " put it beside the job and name it by a relative path"
                )
        if not wanted.parts or ".." in wanted.parts:
            raise JobError(f"the attachment {shown(path)} is no path below its folder: name a file, without '..'")
        return folder, wanted.parts

    def _open(self, folder: PurePosixPath, parts: Sequence[str]) -> int:
        # The folder itself is the operator's and may be a link; what is in it is not trusted.
        fd = os.open(folder, _DIRECTORY & ~os.O_NOFOLLOW)
        for index, part in enumerate(parts):
            try:
                below = os.open(part, _FILE if index == len(parts) - 1 else _DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd


def _read(fd: int, most: int, path: str) -> bytes:
    parts = []
    left = most + 1
    try:
        while left > 0 and (part := os.read(fd, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        if is_passing(error):
            raise not_now(error) from error
        raise JobError(f"the attachment {shown(path)} cannot be read ({error.strerror})") from error
    if left <= 0:
        raise JobError(f"the attachment {shown(path)} grew over {most} octets while it was read")
    return b"".join(parts)
