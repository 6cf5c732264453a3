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
from service.queue.layout import Layout, make_again
from service.queue.store import Source

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NAME_OCTETS: Final = 255
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # or, as surrogates, octets that are no UTF-8
TAKEN: Final = ".taken-"
"""Before the name of a file that is being removed: above new/ then, or still in it."""

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
        self._new = f"{layout.new}/"
        self._aside = f"{layout.directory}/{TAKEN}"  # or in new/, where that is a file system of its own
        self._astray = True  # something taken aside may still be there

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
        """Whether the dropped file is still there."""
        return _is_at(self._new + source.name, source)

    def status(self, name: str) -> Identity | None:
        """What the name stands for now."""
        try:
            return Identity.of(os.lstat(self._new + name))
        except OSError:
            return None

    def remove(self, source: Source) -> None:
        """Remove the dropped file, unless another of its name has taken its place. Raises `Stuck`.

        Between a look and an unlink another file may be renamed over it, and would be lost: so it is taken aside first,
        and what turns out to be another goes back.
        """
        if not self.present(source):
            return
        try:
            aside = self._take_aside(source.name)
            if _is_at(aside, source):
                os.unlink(aside)  # noqa: PTH108 (as fast as can be: for every job)
            else:
                self._try_to_put_back(aside, source.name)
        except FileNotFoundError:
            return
        except OSError as error:
            self._astray = True
            raise Stuck(f"its job is accepted, but it cannot be removed ({error.strerror}): remove it") from error

    def _take_aside(self, name: str) -> str:
        """Give the file another path, and return that. It is out of new/, if it can be: whoever drops much keeps that
        directory locked, and each change in it waits for its turn."""
        if len(os.fsencode(name)) > _NAME_OCTETS - len(TAKEN):
            return self._new + name  # no room: the moment remains
        aside = self._aside + name
        try:
            os.rename(self._new + name, aside)  # noqa: PTH104 (as fast as can be: for every job)
        except OSError as error:
            if error.errno != errno.EXDEV or self._aside == self._new + TAKEN:
                raise
            self._aside = self._new + TAKEN
            return self._take_aside(name)
        return aside

    def put_all_back(self) -> None:
        """Let what was taken aside, and could be neither removed nor put back, be looked at again: at a start, and in a
        scan."""
        if not self._astray:
            return
        self._astray = False
        try:
            for name in os.listdir(self._layout.directory):  # noqa: PTH208 (names, not paths)
                if name.startswith(TAKEN):
                    self._try_to_put_back(f"{self._layout.directory}/{name}", name.removeprefix(TAKEN))
        except OSError:
            self._astray = True

    def put_back(self, name: str) -> None:
        """The same of one name in new/."""
        self._try_to_put_back(self._new + name, name.removeprefix(TAKEN))

    def _try_to_put_back(self, aside: str, name: str) -> None:
        """Give what was taken aside its name again, unless a newer file has it, which replaces it. Where that cannot be
        done now, the next scan does it."""
        try:
            self._put_back(aside, self._new + name)
        except OSError:
            self._astray = True

    def _put_back(self, aside: str, path: str) -> None:
        try:
            os.link(aside, path, follow_symlinks=False)
        except FileExistsError:
            pass
        except OSError:  # others' files may not be linked; a directory cannot be
            if not os.path.lexists(path):
                os.rename(aside, path)  # noqa: PTH104 (both are paths in text)
                return
        os.unlink(aside)  # noqa: PTH108 (as above)

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
        stem, dot, ending = os.fsencode(name).rpartition(b".")
        room = _NAME_OCTETS - len(dot + ending) - len(".why")
        taken = any(os.path.lexists(self._layout.rejected / f"{name}{more}") for more in ("", ".why"))
        if len(stem) <= room and not taken:
            return name
        tail = b"-" + unique.encode()
        cut = stem[: room - len(tail)]
        if _is_utf8(stem):
            cut = cut.decode(errors="ignore").encode()
        return os.fsdecode(cut + tail + dot + ending)


def is_passing(error: OSError) -> bool:
    """Whether it is the system's fault, which will be mended, and not the file's."""
    return error.errno in _LACKING or error.errno in _FAILING


def not_now(error: OSError) -> NotYet:
    """What to raise where a file cannot be read for this error."""
    return (Lacking if error.errno in _LACKING else Unreadable)(error.strerror)


def _is_at(path: str, source: Source) -> bool:
    """Whether the path stands for the dropped file."""
    try:
        now = os.lstat(path)
    except OSError:
        return False
    return (now.st_ino, now.st_mtime_ns, now.st_size) == (source.inode, source.mtime_ns, source.size)


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
