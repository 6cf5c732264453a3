"""docs/faults.md holds what it says: every test that it names is there, and every fault that deferd answers for."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "docs" / "faults.md"
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`")

FAULTS = {
    "kill",
    "EIO",
    "ENOSPC",
    "no inodes",
    "read-only",
    "wrong permissions",
    "EMFILE",
    "damaged database",
    "two daemons",
    "SIGTERM with a stuck server",
    "SIGHUP with a broken file",
    "clock jumps",
    "refused",
    "reset",
    "black hole",
    "silent greeting",
    "drip replies",
    "TLS stall",
    "zero window",
    "close after the dot",
    "421 in every phase",
    "4xx in every phase",
    "5xx in every phase",
    "mixed recipients",
    "flood",
    "malformed replies",
    "STARTTLS stripped",
    "STARTTLS refused",
    "STARTTLS injected",
    "certificate expired",
    "certificate for another name",
    "certificate of an unknown issuer",
    "AUTH refused",
    "symlink",
    "hard link",
    "FIFO",
    "socket",
    "device",
    "directory",
    "sparse giant",
    "file that changes while it is read",
    "control characters in the name",
    "name at the length limit",
    "no permission",
    "YAML: aliases, duplicate keys, deep, oversized",
    "JSON: duplicate keys, deep, oversized",
    "CR, LF, NUL or control in an address",
    "CR, LF, NUL or control in a header's name or value",
    "CR, LF, NUL or control in a host name",
    "attachment from outside, or by a link",
    "SMTP smuggling (stray CR or LF before the dot)",
    "NUL in a message",
}


class Row(NamedTuple):
    fault: str
    answer: str
    shown_by: str


def rows() -> list[Row]:
    """The rows of all tables, without their heads."""
    lines = [line for line in TABLES.read_text().splitlines() if line.startswith("|")]
    found = [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]
    return [row for row in found if row.fault != "Fault" and not set(row.fault) <= {"-"}]


def names_in(path: str) -> set[str]:
    """The names of the tests in a file; none where it is not there."""
    file = ROOT / path
    if not file.exists():
        return set()
    nodes = ast.walk(ast.parse(file.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.fault)
def test_every_test_in_the_table_exists(row: Row) -> None:
    """By its file and name; and every fault has one, and an answer."""
    references = REFERENCE.findall(row.shown_by)
    assert references
    assert row.answer
    assert not REFERENCE.sub("", row.shown_by).strip(" ,"), "something in the row is no test's name"
    for path, name in references:
        assert names_in(path), f"{path} has no tests"
        assert not name or name in names_in(path), f"{path} has no {name}"


def test_every_fault_has_its_row() -> None:
    """Each once."""
    named = [row.fault for row in rows()]
    assert set(named) >= FAULTS
    assert len(named) == len(set(named))
