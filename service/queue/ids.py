"""Job ids: an integer in time order inside, a short text outside.

An id is the millisecond it was made in, counted from 2025, above 16 random bits; one made in the same millisecond, or
after the clock went back, is the last one plus 1, so that ids of one store never go back. The text has twelve digits of
Crockford's base 32 in lower case: it sorts as the number does, is read in either case, and is safe in a file name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from random import Random
from threading import Lock
from typing import Final

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_WIDTH: Final = 12
_PAIRS: Final = tuple(first + second for first in _DIGITS for second in _DIGITS)
# Python reads base 32 itself, in other digits; what is misread as `o`, `i` and `l` is meant, and `u` stands for none.
_PYTHON_DIGITS: Final = str.maketrans(
    _DIGITS + _DIGITS[10:].upper() + "oOiIlL" + "uU_+- ",
    "0123456789abcdefghijklmnopqrstuv" + "abcdefghijklmnopqrstuv" + "001111" + "??????",
)
_ZERO: Final = 1_735_689_600_000  # 2025-01-01 in milliseconds since the epoch
_RANDOM_BITS: Final = 16


@lru_cache(1024)
def id_text(number: int) -> str:
    """The id as users meet it. A job's is asked for several times, when it comes and when it goes."""
    return (
        _PAIRS[number >> 50 & 1023]
        + _PAIRS[number >> 40 & 1023]
        + _PAIRS[number >> 30 & 1023]
        + _PAIRS[number >> 20 & 1023]
        + _PAIRS[number >> 10 & 1023]
        + _PAIRS[number & 1023]
    )


def id_number(text: str) -> int | None:
    """The number of an id's text, None where the text is no id."""
    if len(text) != _WIDTH or not text.isascii():
        return None
    try:
        return int(text.translate(_PYTHON_DIGITS), 32)
    except ValueError:
        return None


class Ids:
    """Makes ids, each greater than the one before and than `last`. Any thread may ask."""

    def __init__(self, wall_time: Callable[[], float], random: Random, last: int = 0) -> None:
        self._wall_time = wall_time
        self._random = random
        self._last = last
        self._lock = Lock()

    def mint(self) -> int:
        """A new id."""
        elapsed = max(0, int(self._wall_time() * 1000) - _ZERO)
        with self._lock:
            number = elapsed << _RANDOM_BITS | self._random.getrandbits(_RANDOM_BITS)
            self._last = max(self._last + 1, number)
            return self._last
