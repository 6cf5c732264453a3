"""The queue's directory: what is in it, and who may touch what.

    DIRECTORY/            0750   the daemon's; others of its group may pass through
        new/              2770   applications drop jobs here: they need only be in the directory's group
        rejected/         0750   what was no job, with its .why; for the group to read
        results/          0750   for the group to read
        queue.db          0600   envelopes and content
        last-work     0600   what the daemon is at work on, for the next one should it die
        damaged-*/    0700   a queue.db that was found damaged, and what was saved of it
        deferd.lock, poke 0660

Modes are given only when a directory is made, what an operator has set stays; all but that of new/ are narrowed by the
umask.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from service.queue.sqlite import DATABASE
from service.queue.store import StoreFailed

_MODES: Final = {"": 0o750, "new": 0o2770, "rejected": 0o750, "results": 0o750}


class Layout(msgspec.Struct, frozen=True):
    """The paths below a queue's directory."""

    directory: Path

    @property
    def new(self) -> Path:
        """Where jobs are dropped."""
        return self.directory / "new"

    @property
    def rejected(self) -> Path:
        """Where files go that are no job."""
        return self.directory / "rejected"

    @property
    def results(self) -> Path:
        """Where result files appear."""
        return self.directory / "results"

    @property
    def database(self) -> Path:
        """The store."""
        return self.directory / DATABASE


def prepare(directory: str | os.PathLike[str]) -> Layout:
    """Make what is missing of the queue's directory. Raises `StoreFailed` that names the path and the remedy."""
    layout = Layout(Path(directory).absolute())
    for name, mode in _MODES.items():
        path = layout.directory / name
        try:
            _make(path, mode)
        except FileExistsError:
            raise StoreFailed(
                f"{path} is no directory: move it away, or set queue.directory to another place"
            ) from None
        except OSError as error:
            raise StoreFailed(
                f"{path} cannot be made ({error.strerror}): create it and give it to the user that runs deferd,"
                " or set queue.directory to a place it may write to"
            ) from error
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            raise StoreFailed(f"{path} is on a file system that can only be read: mount it for writing")
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise StoreFailed(
                f"{path} cannot be written: it must belong to the user that runs deferd (uid {os.geteuid()})"
            )
    return layout


def make_again(path: Path) -> None:
    """Make a folder of the queue's directory that somebody has removed, if that can be done now."""
    with contextlib.suppress(OSError):
        _make(path, _MODES[path.name])


def _make(path: Path, mode: int) -> None:
    if path.is_dir():
        return
    path.mkdir(mode=mode & 0o777, parents=True)
    if mode & 0o2000:
        # Whatever the umask: the group must be able to drop here (nobody else gets past DIRECTORY), and a dropped file
        # gets the directory's group, by which we can read it.
        path.chmod(mode)
