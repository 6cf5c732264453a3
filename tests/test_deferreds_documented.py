"""docs/deferreds.md does what it says: each piece of Python is run, in order, and prints what stands below it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "deferreds.md"
PIECE = re.compile(r"```python\n(?P<code>.*?)```\n\n```text\n(?P<printed>.*?)```", re.DOTALL)


def test_every_piece_of_python_prints_what_stands_below_it() -> None:
    """All in one namespace, as a reader would type them."""
    text = PAGE.read_text()
    pieces = list(PIECE.finditer(text))
    assert len(pieces) == text.count("```python") == text.count("```text")
    names: dict[str, object] = {}
    for piece in pieces:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(piece["code"], str(PAGE), "exec"), names)
        assert printed.getvalue() == piece["printed"]


def test_every_file_that_it_points_at_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE.read_text())
    assert len(links) > 5
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
