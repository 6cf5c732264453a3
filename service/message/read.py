"""From a dropped file's octets to a job, by the ending of its name.

Nothing here opens a file or reads a clock, and whatever the octets are, the answer is a `Job` or a `JobError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from service.message.bounded import read_json, read_yaml
from service.message.eml import read_eml
from service.message.job import Job, JobError, shown
from service.message.rules import Circumstances, ReadingRules
from service.message.structured import read_structured

__all__ = ["ENDINGS", "ReadingRules", "is_job_name", "read_job"]

ENDINGS: Final = (".eml", ".json", ".yaml", ".yml")


def is_job_name(name: str) -> bool:
    """Whether a file of this name in new/ is a job; `.tmp`, `.part`, dot files and attachments are none."""
    return name.endswith(ENDINGS) and not name.startswith(".")


def read_job(
    name: str,
    data: bytes,
    *,
    rules: ReadingRules,
    now: float,
    unique: Callable[[], str],
    open_attachment: Callable[[str], bytes],
) -> Job:
    """The job in the file `name` whose octets are `data`.

    `now` is in seconds since the epoch, for the Date field; `unique` gives a new name at each call, for the Message-ID
    (letters, digits, dots and hyphens); `open_attachment` returns the octets of a path that the job names, or raises
    `JobError`. Raises `JobError` where the file is no job: its text becomes the `.why`.
    """
    if len(data) > rules.message_size:
        raise JobError(f"the file is over {rules.message_size} octets: send less, or raise limits.message_size")
    circumstances = Circumstances(rules, now, unique, open_attachment)
    if name.endswith(".eml"):
        return read_eml(data, circumstances)
    if name.endswith(".json"):
        return read_structured(read_json(data), circumstances)
    if name.endswith((".yaml", ".yml")):
        return read_structured(read_yaml(data), circumstances)
    raise JobError(f"the ending of {shown(name)} is none of {', '.join(ENDINGS)}")
