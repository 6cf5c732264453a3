"""One daemon for one queue directory.

The lock is the kernel's (flock): it ends with the process that holds it, however that ends. The file's content only
tells who that is, and stays when the lock is gone.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import Final

from service.queue.store import StoreFailed

LOCK: Final = "deferd.lock"
_LOCKS: Final = Path("/proc/locks")
_ENDED: Final = ("Z", "X")  # the state of a process that is no more, but for those who have not asked yet how it ended
_HOLDER: Final = re.compile(r"process (\d{1,9}) on (.*)\n")


def nobody_runs(directory: Path) -> bool:
    """Whether it is certain that no daemon is at work in the directory. It may be one on another machine, or in another
    container, of which nothing is seen from here; and to try the lock would keep one out that is about to start."""
    try:
        holder = _HOLDER.fullmatch((directory / LOCK).read_text())
        inode = (directory / LOCK).stat().st_ino
        locked = {line.split()[-3].rpartition(":")[2] for line in _LOCKS.read_text().splitlines()}
        if holder is None or holder[2] != os.uname().nodename or str(inode) in locked:
            return False
        os.kill(int(holder[1]), 0)
        state = Path(f"/proc/{holder[1]}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return state in _ENDED


class DirectoryLock:
    """Held from its making until `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        """Take the directory. Raises `StoreFailed`, with who has it."""
        path = directory / LOCK
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
        except OSError as error:
            raise StoreFailed(f"{path} cannot be opened ({error.strerror}): is {directory} writable?") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holder = f"process {os.getpid()} on {os.uname().nodename}\n".encode()
            os.truncate(self._fd, 0)
            os.pwrite(self._fd, holder, 0)
        except BlockingIOError:
            holder = os.pread(self._fd, 300, 0)
            os.close(self._fd)
            who = "".join(c for c in holder.decode(errors="replace") if c.isprintable()) or "another process"
            raise StoreFailed(f"a deferd is running in {directory} already: {who}") from None
        except OSError as error:
            os.close(self._fd)
            raise StoreFailed(f"{path} cannot be locked ({error.strerror})") from error

    def release(self) -> None:
        """Let the next daemon in. Harmless when done already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
