"""Tables, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Table(msgspec.Struct, frozen=True):
    """Rows of texts under `columns`; the first column is left-aligned, the others, which are figures, right-aligned.

    `notes` stand below.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: {row} has not {len(self.columns)} columns")

    def text(self) -> str:
        """As a terminal shows it."""
        widths = _widths([self.columns, *self.rows])
        lines = [self.title, ""]
        for row in (self.columns, *self.rows):
            cells = [
                cell.ljust(width) if n == 0 else cell.rjust(width)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *(f"* {note}" for note in self.notes)]) + "\n"

    def markdown(self) -> str:
        """As GitHub's Markdown has it."""
        marks = ["---", *(["---:"] * (len(self.columns) - 1))]
        lines = [f"| {' | '.join(map(_escaped, row))} |" for row in (self.columns, *self.rows)]
        lines.insert(1, f"|{'|'.join(marks)}|")
        notes = ["", *(f"* {note}" for note in self.notes)] if self.notes else []
        return "\n".join([f"**{self.title}**", "", *lines, *notes]) + "\n"


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def number(value: float) -> str:
    """Three digits that count: 12,300, 123, 1.23, 0.0123."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:,.0f}"
    decimals = 1 if magnitude >= 10 else 2
    while magnitude < 10 ** (1 - decimals) and decimals < 6:
        decimals += 1
    return f"{value:.{decimals}f}"


def times(value: float) -> str:
    """A ratio."""
    return f"{number(value)} x"


def share(value: float) -> str:
    """A part of a whole."""
    return f"{value:.0%}"


def mebibytes(octets: float) -> str:
    """Memory."""
    return f"{number(octets / 2**20)} MiB"
