"""Taking a dropped file aside before it is removed, so that it is that file which goes, and no other.

Between a look and an unlink somebody may rename another file to the same name, and that would be lost. So the file gets
a name of its own first, is looked at under that, and what turns out to be another goes back. Nothing is ever replaced,
and nothing is removed but the very file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path
from typing import Final

from service.queue.store import Source

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_UNSUPPORTED: Final = (errno.EINVAL, errno.ENOSYS)
_ASIDE: Final = re.compile(r"\.taken-[0-9a-f]+--?[0-9a-f]+-(.+)", re.DOTALL)  # a file from before 1970 has a minus


def aside_name(source: Source) -> str:
    """What the file is called in new/ while it is being removed: as no other file, not even one with its inode's number
    after it."""
    return f".taken-{source.inode:x}-{source.mtime_ns:x}-{source.name}"


def name_before(name: str) -> str | None:
    """What a file that was taken aside is called else; None where this is not the name of one."""
    found = _ASIDE.fullmatch(name)
    return found and found[1]


def is_at(path: str, source: Source) -> bool:
    """Whether the path stands for the dropped file."""
    try:
        now = os.lstat(path)
    except OSError:
        return False
    return (now.st_ino, now.st_mtime_ns, now.st_size) == (source.inode, source.mtime_ns, source.size)


def rename_to_free(path: str, target: str) -> None:
    """Rename, but over nothing: raises `FileExistsError` where there is a `target`, and `OSError` (renameat2(2)).

    A file system that cannot do that in one step is looked at before.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if rename(_AT_FDCWD, os.fsencode(path), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
            return
        error = ctypes.get_errno()
        if error not in _UNSUPPORTED:
            raise OSError(error, os.strerror(error), target)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    Path(path).rename(target)
