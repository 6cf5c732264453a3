"""Pictures of figures, as SVG: bars and lines, without a library, to be read on light and on dark paper.

    bars("messages a second", [Bar("deferd", 4100, ours=True), Bar("Postfix", 1300)])
    lines([Chart("seconds", "in flight", [Line("callback", ((10, 0.6), (100, 0.7)), ours=True)])])

Both axes of a line chart are logarithmic, as is what they are to show: how a cost grows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

import msgspec

from bench.tables import number

_STYLE: Final = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
text.title { font-weight: 600 } text.faint { fill: #59636e }
line { stroke: #d1d9e0 } rect.ours { fill: #0969da } rect.other { fill: #8c959f }
path, circle { stroke-width: 2; fill: none } .c { stroke: #0969da }
.c0 { stroke: #bc4c00 } .c1 { stroke: #1a7f37 } .c2 { stroke: #8250df } .c3 { stroke: #59636e }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } text.faint { fill: #9198a1 }
line { stroke: #3d444d } rect.ours { fill: #4493f8 } rect.other { fill: #656c76 } .c { stroke: #4493f8 }
.c0 { stroke: #db6d28 } .c1 { stroke: #3fb950 } .c2 { stroke: #ab7df8 } .c3 { stroke: #9198a1 }
}"""
_LETTER: Final = 6.6
"""Pixels of a letter, about."""


class Bar(msgspec.Struct, frozen=True):
    """A bar; `ours` stands out."""

    label: str
    value: float
    ours: bool = False


class Line(msgspec.Struct, frozen=True):
    """A line through points (x, y), all above 0; `ours` stands out."""

    label: str
    points: tuple[tuple[float, float], ...]
    ours: bool = False


class Chart(msgspec.Struct, frozen=True):
    """Lines over the same axes."""

    title: str
    x: str
    lines: tuple[Line, ...]


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Bars below one another, as long as their values, each with its name and its figure. All values are above 0."""
    left = 20 + _LETTER * max(len(row.label) for row in rows)
    right, step, top = 80.0, 26.0, 40.0
    width = 720.0
    longest = max(row.value for row in rows)
    drawn = [_text(10, 20, title, "title")]
    for position, row in enumerate(rows):
        y = top + position * step
        length = max(1.0, (width - left - right) * row.value / longest)
        place = f'x="{left:.1f}" y="{y:.1f}" width="{length:.1f}" height="18"'
        drawn += [
            _text(left - 8, y + 13, row.label, anchor="end"),
            f'<rect class="{"ours" if row.ours else "other"}" {place}/>',
            _text(left + length + 6, y + 13, number(row.value), "faint"),
        ]
    return _whole(width, top + len(rows) * step + 8, title, drawn)


def lines(charts: Sequence[Chart]) -> str:
    """Charts beside one another, three in a row."""
    width, height, across = 330.0, 270.0, min(3, len(charts))
    drawn: list[str] = []
    for position, chart in enumerate(charts):
        down, right = divmod(position, 3)
        drawn.append(f'<g transform="translate({right * width:.0f} {down * height:.0f})">')
        drawn += _chart(chart, width, height)
        drawn.append("</g>")
    title = "; ".join(chart.title for chart in charts)
    return _whole(across * width, -(-len(charts) // 3) * height, title, drawn)


class _Axis:
    """Where a value is on a logarithmic axis between two pixels; it reaches over whole decades."""

    def __init__(self, values: Iterable[float], start: float, end: float, *, tight: bool = False) -> None:
        values = list(values)
        low, high = math.log10(min(values)), math.log10(max(values))
        self.low = low if tight else math.floor(low)
        self.high = high if tight else max(math.ceil(high), math.floor(low) + 1)
        if self.high == self.low:
            self.high += 1
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self._start + (self._end - self._start) * (math.log10(value) - self.low) / (self.high - self.low)

    def decades(self) -> list[float]:
        """The powers of ten on it."""
        return [10.0**power for power in range(math.ceil(self.low), math.floor(self.high) + 1)]


def _chart(chart: Chart, width: float, height: float) -> list[str]:
    points = [point for line in chart.lines for point in line.points]
    room = 18 + _LETTER * max(len(line.label) for line in chart.lines)
    left, right, top, bottom = 52.0, width - room, 40.0, height - 44
    x = _Axis((x for x, _ in points), left, right, tight=True)
    y = _Axis((y for _, y in points), bottom, top)
    drawn = [_text(10, 20, chart.title, "title"), _text((left + right) / 2, height - 8, chart.x, "faint", "middle")]
    for value in y.decades():
        at = y.at(value)
        drawn.append(f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>')
        drawn.append(_text(left - 6, at + 4, _short(value), "faint", "end"))
    where = sorted({x for x, _ in points})
    drawn += [_text(x.at(value), bottom + 16, _short(value), "faint", "middle") for value in where]
    ways = [[(x.at(a), y.at(b)) for a, b in line.points] for line in chart.lines]
    ends = _apart([way[-1] for way in ways], 14)
    others = itertools.count()
    for line, way, (across, down) in zip(chart.lines, ways, ends, strict=True):
        style = "c" if line.ours else f"c{next(others) % 4}"
        path = " ".join(f"{'L' if n else 'M'}{a:.1f} {b:.1f}" for n, (a, b) in enumerate(way))
        drawn.append(f'<path class="{style}" d="{path}"/>')
        drawn += [f'<circle class="{style}" cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>' for a, b in way]
        drawn.append(_text(across + 8, down + 4, line.label, "title" if line.ours else ""))
    return drawn


def _apart(wanted: Sequence[tuple[float, float]], distance: float) -> list[tuple[float, float]]:
    """The same places, moved down where two stand below one another, nearer than that."""
    placed = list(wanted)
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    for before, after in itertools.pairwise(order):
        across, down = placed[after]
        if placed[before][0] == across:
            placed[after] = across, max(down, placed[before][1] + distance)
    return placed


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _whole(width: float, height: float, title: str, drawn: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{escape(title)}</title>'
    return "\n".join([head, f"<style>{_STYLE}</style>", *drawn, "</svg>"]) + "\n"
