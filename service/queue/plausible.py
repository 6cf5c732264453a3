"""Whether what was read from a damaged database can be a job of ours.

The file has no checksums: octets that were overwritten within a value are only seen where the value cannot be one.
Nothing is sent, shown or used as a file's name that the readers of jobs would not have let in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, get_args

import msgspec

from service.message.address import check_address, check_sender, first_control
from service.message.job import InDoubt, JobError
from service.message.outcome import Phase, State
from service.queue.store import JobState

_LATEST: Final = 253402300799.0  # the end of the year 9999, in seconds since the epoch
_LARGEST_ID: Final = 1 << 60
_TIMES: Final = ("accepted_at", "begins_at", "finished_at")
_STATES: Final = frozenset(get_args(JobState))
_OUTCOMES: Final = frozenset(state.value for state in State)
_PHASES: Final = frozenset(phase.value for phase in Phase)


def fault_of_job(id: int, row: dict[str, Any]) -> str | None:
    """What cannot be true in a job's row, or None."""
    if not 0 < id < _LARGEST_ID:
        return "its id is none"
    if row["state"] not in _STATES or (row["finished_at"] is None) != (row["state"] in ("queued", "held")):
        return "its state is none"
    if row["in_doubt"] not in get_args(InDoubt) or row["size"] < 0 or row["attempts"] < 0:
        return "its facts are impossible"
    if not all(row[name] is None or 0 <= row[name] <= _LATEST for name in _TIMES):
        return "its times are none"
    if row["expires_at"] is not None and not math.isfinite(row["expires_at"]):
        return "its times are none"
    for name in ("name", "result"):
        if not row[name] or "/" in row[name] or "\0" in row[name] or len(row[name].encode("utf-8", "replace")) > 255:
            return "its name is none"
    try:
        check_sender(row["sender"])
        msgspec.json.decode(row["tags"], type=dict[str, Any])
    except (JobError, msgspec.DecodeError):
        return "its sender or its tags are damaged"
    return None


def fault_of_recipient(row: dict[str, Any]) -> str | None:
    """What cannot be true of a recipient, or None."""
    try:
        check_address(row["address"])
    except JobError:
        return "an address is damaged"
    if row["state"] not in _OUTCOMES or (row["phase"] is not None and row["phase"] not in _PHASES) or not row["site"]:
        return "a recipient's outcome is damaged"
    if row["at"] is not None and not 0 <= row["at"] <= _LATEST:
        return "a recipient's outcome is damaged"
    if any(first_control(row[name]) is not None for name in ("text", "host", "enhanced", "site") if row[name]):
        return "a recipient's outcome is damaged"
    return None


def fault_of_recipients(rows: Iterable[dict[str, Any]]) -> str | None:
    """What cannot be true of any of the recipients, or None."""
    return next((fault for row in rows if (fault := fault_of_recipient(row))), None)


def fault_of_content(content: bytes, size: int, eight_bit: bool) -> str | None:
    """Why this cannot be the message that was accepted, or None."""
    if len(content) != size:
        return f"of its content {len(content)} of {size} octets can be read"
    lines = content.count(b"\r\n")
    if b"\0" in content or lines != content.count(b"\r") or lines != content.count(b"\n"):
        return "its content is damaged"
    if content.isascii() == eight_bit:
        return "its content is damaged"
    return None
