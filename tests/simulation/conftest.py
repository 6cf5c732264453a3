"""Where simulated daemons work, and the sum of what was done to them."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.__main__ import place


@pytest.fixture
def spool() -> Iterator[Path]:
    """A directory where files cost little."""
    directory = Path(tempfile.mkdtemp(dir=place(), prefix="simulation-"))
    yield directory / "spool"
    shutil.rmtree(directory)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the faults of all seeds by kind, whichever worker ran them."""
    counted: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, number in report.user_properties:
            if name.startswith("simulated: "):
                counted[name.removeprefix("simulated: ")] += int(number)
    if counted:
        terminalreporter.section("the simulated world")
        for name, number in sorted(counted.items()):
            terminalreporter.line(f"{number:7} {name}")
