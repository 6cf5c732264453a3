"""Durations and sizes."""

from __future__ import annotations

import pytest

from config import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("250ms", 0.25),
        ("90s", 90),
        ("1m", 60),
        ("1h30m", 5400),
        ("5d", 432_000),
        ("2w", 1_209_600),
    ],
)
def test_a_duration_is_seconds(text, seconds):
    """A number with a unit, or several, or alone."""
    assert units.duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "5 m", "1y", "-5m", "5m-", "1e3", "nan", "inf", "0x10", "99999d", "5M", "٣s"]
)
def test_what_is_no_duration_is_refused(text):
    """Anything else raises, and so does what is beyond ten years."""
    with pytest.raises(ValueError):
        units.duration(text)


@pytest.mark.parametrize(
    ("text", "octets"),
    [("1", 1), ("500K", 512_000), ("50M", 52_428_800), ("50MB", 52_428_800), ("50 MiB", 52_428_800), ("1.5k", 1536)],
)
def test_a_size_is_octets(text, octets):
    """Letters are powers of 1024."""
    assert units.size(text) == octets


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5", "50Q", "1e3", "٣M"])
def test_what_is_no_size_is_refused(text):
    """Anything else raises."""
    with pytest.raises(ValueError):
        units.size(text)
