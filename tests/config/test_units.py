"""Durations, sizes and rates."""

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


@pytest.mark.parametrize(
    ("text", "a_second"),
    [
        ("10/s", 10),
        ("30/m", 0.5),
        ("1000/h", 1000 / 3600),
        ("86400/d", 1),
        ("0.5/s", 0.5),
        ("1/d", 1 / 86_400),
        ("100000/s", 1e5),
    ],
)
def test_a_rate_is_messages_a_second(text, a_second):
    """Messages, and the time in which they may go."""
    assert units.rate(text) == pytest.approx(a_second)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "30",
        "/m",
        "m",
        "30/",
        "30/m ",
        "30 / m",
        "30/min",
        "30/w",
        "30/2m",
        "-1/s",
        "1e3/s",
        "nan/s",
        "inf/s",
        "٣/s",
        "1,000/h",
    ],
)
def test_what_is_no_rate_is_refused(text):
    """Anything else raises: a number without its time, other units, signs."""
    with pytest.raises(ValueError, match="is no rate"):
        units.rate(text)


@pytest.mark.parametrize("text", ["0/s", "0.0/h", "0.9/d", "0.041/h"])
def test_a_rate_at_which_nothing_ever_leaves_is_refused(text):
    """Less than one a day: a queue that stands still is a slip of the pen."""
    with pytest.raises(ValueError, match="is too slow; the least is 1/d"):
        units.rate(text)


@pytest.mark.parametrize("text", ["100001/s", "999999999999999/d"])
def test_a_rate_that_limits_nothing_is_refused(text):
    """No limit is null."""
    with pytest.raises(ValueError, match="is too fast"):
        units.rate(text)


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (5.0, "5 a second"),
        (0.5, "30 a minute"),
        (1 / 3600, "1 an hour"),
        (1 / 86400, "1 a day"),
        (4 / 3, "80 a minute"),
        (1000 / 3600, "1000 an hour"),
        (5000 / 86400, "5000 a day"),
        (100_000.0, "100000 a second"),
        (1 / 7, "8.571 a minute"),
        (1_000_000 / 86400, "1000000 a day"),
    ],
)
def test_a_rate_is_told_in_the_unit_in_which_it_is_a_whole_number(rate, told):
    """As it was written, mostly; else in the shortest in which it is one at least."""
    assert units.rate_in_words(rate) == told
