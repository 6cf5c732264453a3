"""Drops jobs into new/ as an application would: a file under a name of its own, then renamed.

Each Message-ID holds the moment, in nanoseconds of `time.monotonic`, at which its file was renamed.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec

from bench.deferd import Dropped, Dropping


def drop(task: Dropping) -> Dropped:
    """Do it."""
    new = Path(task.new)
    began = time.monotonic()
    for position, number in enumerate(task.mail.numbers):
        if task.rate:
            time.sleep(max(0.0, began + position / task.rate - time.monotonic()))
        part = new / f".{number}.tmp"
        part.write_bytes(task.mail.content(number, time.monotonic_ns()))
        os.rename(part, new / f"{number}.eml")  # noqa: PTH104 (a Path would cost as much again)
    return Dropped(began, time.monotonic())


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(drop(msgspec.json.decode(sys.argv[1], type=Dropping))))
