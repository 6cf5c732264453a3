"""Times as people and programs read them: RFC 3339 in UTC, to the millisecond."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch, as `2026-11-26T08:30:00.250Z`."""
    return _to_the_millisecond(int(seconds * 1000))


@lru_cache(100)  # what happens at one moment is told in several lines
def _to_the_millisecond(milliseconds: int) -> str:
    second, millisecond = divmod(milliseconds, 1000)
    return f"{_to_the_second(second)}.{millisecond:03d}Z"


@lru_cache(1000)
def _to_the_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
