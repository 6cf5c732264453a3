"""Readers with everything handed in: the same in each test, so that a message can be compared octet for octet."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from service.message.job import Job, JobError
from service.message.read import ReadingRules, read_job

NOW = 1_000_000_000.0
DATE = b"Date: Sun, 09 Sep 2001 01:46:40 +0000\r\n"
MESSAGE_ID = b"Message-ID: <u1@mx.example>\r\n"
ADDED = DATE + MESSAGE_ID

Read = Callable[..., Job]


def open_nothing(path: str) -> bytes:
    raise JobError(f"{path} is not here")


def reading(
    name: str,
    data: bytes | str,
    files: dict[str, bytes] | None = None,
    recipients: int = 1000,
    message_size: int = 50 * 1024 * 1024,
) -> Job:
    """Read a job with a clock that stands still and names that count up from u1."""
    numbers = count(1)

    def open_attachment(path: str) -> bytes:
        return files[path] if files and path in files else open_nothing(path)

    return read_job(
        name,
        data.encode() if isinstance(data, str) else data,
        rules=ReadingRules("mx.example", message_size, recipients),
        now=NOW,
        unique=lambda: f"u{next(numbers)}",
        open_attachment=open_attachment,
    )


def attempt(name: str, data: bytes | str, **options: Any) -> Job | JobError:
    """The job, or the `JobError` that came instead. Any other exception is a failure of the test."""
    try:
        return reading(name, data, **options)
    except JobError as error:
        return error


@pytest.fixture
def read() -> Read:
    """`read(name, data, files=…, recipients=…, message_size=…)` returns the job."""
    return reading


@pytest.fixture
def refusal() -> Callable[..., str]:
    """As `read`, but returns the text of the `JobError` that must come."""

    def refused(name: str, data: bytes | str, **options: Any) -> str:
        with pytest.raises(JobError) as error:
            reading(name, data, **options)
        return str(error.value)

    return refused
