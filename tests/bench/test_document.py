"""docs/performance.md: sections that benchmarks write anew."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS
from bench.document import DOCUMENT, replaced, write
from bench.suite import Picture, Shown
from bench.tables import Table

TEXT = "By hand.\n\n<!-- bench:a -->\nold\n<!-- /bench:a -->\n\nAlso by hand.\n<!-- bench:b -->\n<!-- /bench:b -->\n"


def test_only_what_lies_between_the_markers_is_replaced() -> None:
    once = replaced(TEXT, "a", "new\n")
    assert once.replace("\nnew\n\n", "old\n") == TEXT
    assert replaced(once, "a", "new\n") == once


@pytest.mark.parametrize("text", ["", "<!-- bench:a -->\n", "<!-- /bench:a -->\n", TEXT.replace("bench:a", "bench:aa")])
def test_a_document_without_a_place_for_it_is_told_of(text: str) -> None:
    with pytest.raises(LookupError, match="no place for a"):
        replaced(text, "a", "new")


def test_tables_and_pictures_are_written(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(TEXT)
    shown = Shown((Table("Title", ("x",), (("1",),)),), (Picture("p.svg", "a picture", "<svg/>"),))
    write("b", shown, document)
    text = document.read_text()
    assert "| 1 |" in text
    assert "![a picture](p.svg)" in text
    assert "`python -m bench b`" in text
    assert (tmp_path / "p.svg").read_text() == "<svg/>"


def test_the_document_has_a_place_for_every_benchmark() -> None:
    text = DOCUMENT.read_text()
    assert {name for name in BENCHMARKS if replaced(text, name, "")} == set(re.findall(r"<!-- bench:(\w+) -->", text))


@pytest.mark.parametrize("module", BENCHMARKS.values())
def test_every_benchmark_is_there(module: str) -> None:
    assert importlib.util.find_spec(module)
