"""inotify(7): what happened in a directory, from the kernel.

Small on purpose: one file descriptor, watches on directories, and events as they are read. When the kernel's queue has
overflown, one event with `overflow` says that others are missing: whoever watches has to look for itself.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final, NamedTuple

CLOSE_WRITE: Final = 0x8
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
_GONE: Final = 0x400 | 0x800 | 0x8000  # IN_DELETE_SELF, IN_MOVE_SELF, IN_IGNORED
_IN_Q_OVERFLOW: Final = 0x4000
_IN_ONLYDIR: Final = 0x01000000
_IN_EXCL_UNLINK: Final = 0x04000000  # nothing of files that have lost their names: others may have these now
_FLAGS: Final = _IN_ONLYDIR | _IN_EXCL_UNLINK
_IN_CLOEXEC: Final = os.O_CLOEXEC
_IN_NONBLOCK: Final = os.O_NONBLOCK
_EVENT: Final = struct.Struct("iIII")
_READ: Final = 256 * 1024


class Event(NamedTuple):
    """What happened to the entry `name` of a watched directory."""

    name: str
    mask: int

    @property
    def overflow(self) -> bool:
        """Whether events were lost."""
        return bool(self.mask & _IN_Q_OVERFLOW)

    @property
    def gone(self) -> bool:
        """Whether the directory itself was removed or renamed: nothing is told any more of what has its name now."""
        return not self.name and bool(self.mask & _GONE)


class Inotify:
    """Watches one directory. `fileno()` can be read when there are events."""

    def __init__(self, directory: str | os.PathLike[str], mask: int = CLOSE_WRITE | MOVED_TO | CREATE) -> None:
        """Watch for `mask`, and for the directory's own end. Raises `OSError`: the system may have no inotify, or no
        more watches."""
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "inotify_init1"):
            raise OSError("this system has no inotify")
        self._fd: int = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        if libc.inotify_add_watch(self._fd, os.fsencode(directory), ctypes.c_uint32(mask | _GONE | _FLAGS)) < 0:
            error = ctypes.get_errno()
            self.close()
            raise OSError(error, os.strerror(error), os.fspath(directory))

    def fileno(self) -> int:
        """The file descriptor."""
        return self._fd

    def read(self) -> list[Event]:
        """What has happened since last asked; nothing where nothing has."""
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return []
        events = []
        at = 0
        while at < len(data):
            _, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            events.append(Event(os.fsdecode(name), mask))
        return events

    def close(self) -> None:
        """Stop watching. Harmless when done already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
