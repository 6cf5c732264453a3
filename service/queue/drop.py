"""The drop directory: opening what strangers have put there, and getting rid of it.

Files in new/ are untrusted. What is wanted of a file is checked on its open descriptor, so that nobody can swap it
between the look and the read; a link, FIFO, socket, device or directory is refused without being opened. Nothing here
blocks, but for the disk itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import signal
import stat
from pathlib import Path
from typing import Final, NamedTuple

from service.message.job import shown
from service.queue.aside import aside_name, is_at, rename_to_free
from service.queue.layout import Layout, make_again
from service.queue.store import Source

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NAME_OCTETS: Final = 255
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # or, as surrogates, octets that are no UTF-8

_KINDS: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_LACKING: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_FAILING: Final = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT}


class Refused(Exception):
    """The file is no job and never will be; says why, and what to do."""


class NotYet(Exception):
    """The file cannot be taken now: it is being changed, or (see below) cannot be read."""


class Lacking(NotYet):
    """The system is short of what it takes to read any file; says of what."""


class Unreadable(NotYet):
    """The disk does not give this file now; says why."""


class Stuck(Exception):
    """The file cannot be moved or removed; says why."""


class Identity(NamedTuple):
    """Tells whether a name still means the file that was looked at. With `ctime_ns`, also new owners and modes do."""

    inode: int
    mtime_ns: int
    size: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """The identity that a stat shows."""
        return cls(status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns)

    def same_content(self, other: Identity) -> bool:
        """Whether both are one file with one content, whoever may read it."""
        return self[:3] == other[:3]


class DroppedFile:
    """An open file of new/, checked. Close it."""

    def __init__(self, name: str, fd: int, status: os.stat_result) -> None:
        self.name = name
        self.size = status.st_size
        self.identity = Identity.of(status)
        self.source = Source(name, status.st_ino, status.st_mtime_ns, status.st_size)
        """By what the store knows it again."""
        self._fd = fd

    def being_written(self) -> bool | None:
        """Whether somebody has it open for writing; None where the system does not tell us.

        A read lease is only given on a file that nobody has open for writing: we ask for one and give it back at once.
        Whoever opens the file for writing in between has the kernel signal us, which by default is SIGIO and kills;
        SIGURG is ignored by default. Leases are for the file's owner and for CAP_LEASE: for others' files, None.
        """
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except (OSError, AttributeError) as error:
            return True if getattr(error, "errno", None) == errno.EAGAIN else None
        return False

    def read(self) -> bytes:
        """All of it. Raises `NotYet` where it is changed meanwhile, or cannot be read now."""
        parts = []
        left = self.size
        try:
            while left > 0 and (part := os.read(self._fd, left)):
                parts.append(part)
                left -= len(part)
            now = Identity.of(os.fstat(self._fd))
        except OSError as error:
            raise not_now(error) from error
        if left or not now.same_content(self.identity):
            raise NotYet("it was changed while it was read")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Let go of it. Harmless when done already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DropDirectory:
    """new/ and rejected/. `message_size` is the largest file that is read, in octets."""

    def __init__(self, layout: Layout, message_size: int) -> None:
        self.message_size = message_size
        self._layout = layout
        self.returned: set[str] = set()
        """Names of files that were put back, and of which inotify tells as if their writers had renamed them."""
        self._new = f"{layout.new}/"

    def open(self, name: str) -> DroppedFile | None:
        """The file of this name, checked; None where there is none. Raises `Refused`, `NotYet`."""
        path = self._new + name
        try:
            self._check(name, os.lstat(path))
            fd = os.open(path, _FLAGS)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise Refused(
                f"the file may not be read ({error.strerror}): make it readable for the user that runs deferd"
                f" (uid {os.geteuid()}), then drop it again"
            ) from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # it was swapped after the look
                raise Refused("it is no regular file: drop the message itself") from error
            raise not_now(error) from error
        try:
            status = os.fstat(fd)
            self._check(name, status)
        except BaseException:
            os.close(fd)
            raise
        return DroppedFile(name, fd, status)

    def _check(self, name: str, status: os.stat_result) -> None:
        if _UNPRINTABLE.search(name):
            raise Refused("the name holds control characters or is not UTF-8: give the file another name")
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is not None:
            raise Refused(f"it is {kind}, not a file: drop the message itself")
        if status.st_nlink > 1:
            raise Refused(f"it has {status.st_nlink} links: drop a file of its own (a copy, or renamed into place)")
        if status.st_size > self.message_size:
            raise Refused(
                f"it has {status.st_size} octets, and at most {self.message_size} are taken:"
                " send less, or raise limits.message_size"
            )

    def present(self, source: Source) -> bool:
        """Whether the dropped file is still there, be it on its way out."""
        return is_at(self._new + source.name, source) or is_at(self._new + aside_name(source), source)

    def status(self, name: str) -> Identity | None:
        """What the name stands for now."""
        try:
            return Identity.of(os.lstat(self._new + name))
        except OSError:
            return None

    def remove(self, source: Source) -> None:
        """Remove the dropped file, unless another of its name has taken its place (`aside`). Raises `Stuck`."""
        path = self._new + source.name
        if not is_at(path, source):
            return
        try:
            aside = self._take_aside(source)
            path = self._new + aside
            if aside == source.name or is_at(path, source):
                os.unlink(path)  # noqa: PTH108 (as fast as can be: for every job)
            else:
                self.put_back(aside, source.name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Stuck(f"its job is accepted, but {path} cannot be removed ({error.strerror}): remove it") from error

    def _take_aside(self, source: Source) -> str:
        """Give the file a name of its own, and return that; where there is no room for it, its old one."""
        aside = aside_name(source)
        try:
            os.rename(self._new + source.name, self._new + aside)  # noqa: PTH104 (as fast as can be: for every job)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return source.name  # the moment remains
        return aside

    def put_back(self, aside: str, name: str) -> None:
        """Give what was taken aside its name again, or where a newer file has that a free one. Raises `Stuck`."""
        path = self._new + aside
        try:
            another = _with_tail(name, f"-{os.lstat(path).st_ino}")
            try:
                rename_to_free(path, self._new + name)
                self.returned.add(name)
            except FileExistsError:
                rename_to_free(path, self._new + another)
                self.returned.add(another)
        except FileNotFoundError:
            return
        except OSError as error:
            why = f"{path} is {name}, and cannot be given that name again ({error.strerror}): rename it"
            raise Stuck(why) from error

    def reject(self, name: str, read: Identity, why: str, unique: str) -> str:
        """Move the file to rejected/ with its `.why`; return its name there. Raises `Stuck`, or `NotYet` where the name
        stands for another file than was `read`.

        The note comes first: there is never a rejected file that nobody explains.
        """
        kept = self._free_name(name, unique)
        target = self._layout.rejected / kept
        note = self._layout.rejected / f"{kept}.why"
        try:
            _write_note(note, why, unique)
            now = self.status(name)
            if now is not None and not now.same_content(read):
                note.unlink()
                raise NotYet("another file has taken its place")
            (self._layout.new / name).rename(target)
        except OSError as error:
            note.unlink(missing_ok=True)
            if error.errno == errno.ENOENT:
                if self.status(name) is None:
                    return kept
                make_again(self._layout.rejected)  # for the next try
            raise Stuck(f"it is no job ({why}), and cannot be moved to rejected/ ({error.strerror})") from error
        return kept

    def _free_name(self, name: str, unique: str) -> str:
        room = _NAME_OCTETS - len(os.fsencode(name)) - len(".why")
        taken = any(os.path.lexists(self._layout.rejected / f"{name}{more}") for more in ("", ".why"))
        return name if room >= 0 and not taken else _with_tail(name, f"-{unique}", ".why")


def is_passing(error: OSError) -> bool:
    """Whether it is the system's fault, which will be mended, and not the file's."""
    return error.errno in _LACKING or error.errno in _FAILING


def not_now(error: OSError) -> NotYet:
    """What to raise where a file cannot be read for this error."""
    return (Lacking if error.errno in _LACKING else Unreadable)(error.strerror)


def _with_tail(name: str, tail: str, more: str = "") -> str:
    """The name with `tail` before its ending, cut where there would be no room for `more` behind it."""
    stem, dot, ending = os.fsencode(name).rpartition(b".")
    cut = stem[: _NAME_OCTETS - len(dot + ending) - len(tail) - len(more)]
    if _is_utf8(stem):
        cut = cut.decode(errors="ignore").encode()
    return os.fsdecode(cut + tail.encode() + dot + ending)


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _write_note(path: Path, why: str, unique: str) -> None:
    temporary = path.with_name(f".why-{unique}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    with os.fdopen(fd, "wb") as file:
        file.write(why.encode(errors="backslashreplace") + b"\n")
    temporary.rename(path)


def printable(name: str) -> str:
    """A file's name for the journal: as it is, or escaped where it holds what cannot be printed."""
    return name if name.isprintable() else shown(name, 300)


def remove_rejected(path: Path) -> None:
    """Remove what was rejected, whatever it is, and its `.why`; what cannot be removed stays."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.why").unlink(missing_ok=True)
    except OSError:
        return
