"""Where simulated daemons work."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.__main__ import place


@pytest.fixture
def spool() -> Iterator[Path]:
    """A directory where files cost little."""
    directory = Path(tempfile.mkdtemp(dir=place(), prefix="simulation-"))
    yield directory / "spool"
    shutil.rmtree(directory)
