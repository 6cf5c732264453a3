"""Times as people and programs read them: RFC 3339 in UTC, to the millisecond."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch, as `2026-11-26T08:30:00.250Z`."""
    second, millisecond = divmod(int(seconds * 1000), 1000)
    return f"{_to_the_second(second)}.{millisecond:03d}Z"


@lru_cache(1000)
def _to_the_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
