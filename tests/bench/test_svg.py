"""The pictures: what is drawn is what was measured."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest

from bench.svg import Bar, Chart, Line, bars, lines

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_bars_are_as_long_as_their_values() -> None:
    picture = bars("rates", [Bar("ours", 300, ours=True), Bar("theirs & others", 100)])
    drawn = list(ElementTree.fromstring(picture).iter(f"{SVG}rect"))
    assert [bar.get("class") for bar in drawn] == ["ours", "other"]
    first, second = (float(bar.get("width", "")) for bar in drawn)
    assert first / second == pytest.approx(3, rel=0.01)
    assert texts(picture) == ["rates", "ours", "300", "theirs & others", "100"]


def test_lines_are_logarithmic_both_ways() -> None:
    """Ten times as much is as far everywhere; more is higher and further to the right."""
    picture = lines([Chart("cost", "n", (Line("a <b>", ((10, 1), (100, 10), (1000, 100)), ours=True),))])
    path = next(ElementTree.fromstring(picture).iter(f"{SVG}path"))
    points = [tuple(map(float, pair)) for pair in re.findall(r"[ML]([\d.]+) ([\d.]+)", path.get("d", ""))]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert x0 < x1
    assert y0 > y1
    assert {"cost", "n", "10", "100", "1k", "a <b>"} <= set(texts(picture))


def test_everything_lies_inside_the_picture() -> None:
    several = [
        Chart(f"chart {n}", "n", (Line("one", ((1, 5), (9, 7))), Line("two", ((1, 5), (9, 7))))) for n in range(4)
    ]
    picture = ElementTree.fromstring(lines(several))
    width, height = float(picture.get("width", "")), float(picture.get("height", ""))
    for group in picture.iter(f"{SVG}g"):
        across, down = map(float, re.findall(r"[\d.]+", group.get("transform", "")))
        for text in group.iter(f"{SVG}text"):
            assert 0 <= across + float(text.get("x", "")) <= width
            assert 0 <= down + float(text.get("y", "")) <= height


def test_names_of_lines_that_end_together_do_not_cover_one_another() -> None:
    chart = Chart("cost", "n", tuple(Line(name, ((1, 5), (9, 7))) for name in ("one", "two", "three")))
    picture = ElementTree.fromstring(lines([chart]))
    heights = sorted(float(t.get("y", "")) for t in picture.iter(f"{SVG}text") if t.text in ("one", "two", "three"))
    assert all(b - a >= 14 for a, b in itertools.pairwise(heights))
