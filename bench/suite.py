"""What a benchmark is: a module that measures rows, and one that shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bench.tables import Table


class Scale(msgspec.Struct, frozen=True):
    """How much is measured: `quick` proves that a benchmark works, and its figures mean nothing."""

    quick: bool = False

    def of(self, full: int, quick: int) -> int:
        """The one of these numbers that is meant."""
        return quick if self.quick else full


class Picture(msgspec.Struct, frozen=True):
    """An SVG file for the documentation, and the words for those who cannot see it."""

    file: str
    alt: str
    svg: str


class Shown(msgspec.Struct, frozen=True):
    """What a benchmark has to show."""

    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...] = ()


class Benchmark(msgspec.Struct, frozen=True):
    """`measure(scale)` raises `Wrong` where the run is no measurement, `Skipped` where it cannot be done here; what it
    returns, rows of the benchmark's own type, is for `show`. `title` says in a line what is measured."""

    title: str
    measure: Callable[[Scale], Sequence[Any]]
    show: Callable[[Sequence[Any]], Shown]
