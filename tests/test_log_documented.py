"""docs/log.md tells of every event: how loud it is, and all that a line may have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from service.journal import EVENTS

ROOT = Path(__file__).parent.parent


class Row(NamedTuple):
    event: str
    level: str
    facts: str
    meaning: str


def rows() -> dict[str, Row]:
    """Each event's row."""
    lines = (ROOT / "docs" / "log.md").read_text().splitlines()
    found = [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines if line.startswith("| `")]
    assert len({row.event for row in found}) == len(found)
    return {row.event.strip("`"): row for row in found}


def facts(event: str) -> set[str]:
    """What a line of this event may have: `as failed, and report` is all of that, and one more."""
    text = rows()[event].facts
    like = re.match(r"as `(\w+)`", text)
    named = set(re.findall(r"`(\w+)`", text))
    return named if like is None else named - {like[1]} | facts(like[1])


def told() -> Iterator[tuple[str, str]]:
    """Each event that is told anywhere in the service by its name, and each fact that is told with it."""
    for file in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            if node.args[0].value in EVENTS and ast.unparse(node.func).endswith("tell"):
                yield from ((node.args[0].value, keyword.arg) for keyword in node.keywords if keyword.arg)


def test_every_event_has_its_row() -> None:
    assert {event: row.level for event, row in rows().items()} == EVENTS
    assert all(row.meaning for row in rows().values())


@pytest.mark.parametrize(("event", "fact"), sorted(set(told())))
def test_every_fact_is_named(event: str, fact: str) -> None:
    assert fact in facts(event)


def test_the_facts_that_are_told_are_found() -> None:
    """Else the test above would have nothing to say."""
    assert {("site_resting", "delay"), ("unhandled_error", "where"), ("step", "seconds")} <= set(told())
    assert facts("warned") >= {"recipient", "attempt", "report"}
