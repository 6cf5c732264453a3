"""What is no job of the queue may be a file that was not taken yet, or was none."""

from __future__ import annotations

import os
from pathlib import Path

from service.cli.terminal import clean


def elsewhere(directory: Path, name: str) -> str:
    """What the files below the queue's directory say of a job of this name, to be said behind that there is none."""
    for file in _names(directory / "new"):
        if name in (file, Path(file).stem):
            return f": its file is still at {clean(directory / 'new' / file)}, and is taken once a daemon runs"
    for file in _names(directory / "rejected"):
        if file.endswith(".why") and name in (Path(file).stem, Path(Path(file).stem).stem):
            return f": its file was rejected, and {clean(directory / 'rejected' / file)} says why"
    return ""


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 (names are all that is wanted)
    except OSError:  # who may not look there learns what the queue knows
        return []
