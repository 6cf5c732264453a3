"""Durations, sizes and rates as people write them.

A duration is a number with a unit, or several: `90s`, `1h30m`, `0.5s`, `250ms`, `5d`; a bare number is seconds. A size
is octets, or with K, M, G in powers of 1024: `50M` (also `50MB`, `50MiB`) is 52,428,800, as mail servers count. A rate
is messages in one second, minute, hour or day: `30/m`.
"""

from __future__ import annotations

import re
from typing import Final

SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
OCTETS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
LONGEST: Final = 10 * 365 * 86_400.0
FASTEST: Final = 100_000.0
"""Messages a second."""
_EACH: Final = {"s": "a second", "m": "a minute", "h": "an hour", "d": "a day"}
_NEARLY: Final = 1e-6
"""As near to a whole number as one comes that was divided and multiplied again."""

_NUMBER: Final = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_PART: Final = re.compile(rf"({_NUMBER})(ms|s|m|h|d|w)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")
_RATE: Final = re.compile(rf"({_NUMBER})/([smhd])")
_SIZE: Final = re.compile(rf"({_NUMBER}) ?([kmgt]?)(?:i?b)?", re.IGNORECASE)


def duration(text: str) -> float:
    """Seconds. Raises `ValueError`, with what to write, for what is no duration or beyond ten years."""
    if text.startswith("-"):
        raise ValueError("is negative; a duration is 0 or more")
    if re.fullmatch(_NUMBER, text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(float(number) * SECONDS[unit] for number, unit in _PART.findall(text))
    else:
        raise ValueError("is no duration; write 90s, 5m, 1h30m or 5d")
    if seconds > LONGEST:
        raise ValueError("is beyond ten years")
    return seconds


def size(text: str) -> int:
    """Octets. Raises `ValueError`, with what to write, for what is no size."""
    if text.startswith("-"):
        raise ValueError("is negative; a size is 1 or more")
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("is no size; write octets, or 500K, 50M, 1G")
    octets = float(match[1]) * OCTETS[match[2].lower()]
    if octets != int(octets):
        raise ValueError("is no whole number of octets")
    return int(octets)


def rate(text: str) -> float:
    """Messages a second. Raises `ValueError`, with what to write, for what is no rate or beyond the possible ones."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError("is no rate; write 10/s, 30/m, 1000/h or 5000/d")
    messages, seconds = float(match[1]), SECONDS[match[2]]
    if messages / seconds < 1 / SECONDS["d"]:
        raise ValueError("is too slow; the least is 1/d, and null is no limit")
    if messages / seconds > FASTEST:
        raise ValueError(f"is too fast; the most is {FASTEST:.0f}/s, and null is no limit")
    return messages / seconds


def rate_in_words(rate: float) -> str:
    """Messages a second, in the unit in which that is a number to remember: "30 a minute"."""
    amounts = [(rate * SECONDS[unit], each) for unit, each in _EACH.items()]
    for amount, each in amounts:
        if round(amount) >= 1 and abs(amount - round(amount)) < _NEARLY:
            return f"{round(amount)} {each}"
    amount, each = next((one for one in amounts if one[0] >= 1), amounts[-1])
    return f"{amount:.4g} {each}"
