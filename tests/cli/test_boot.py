"""The machine's boot clock."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from service.cli import boot
from service.cli.boot import boot_clock


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no such clock")
def test_it_is_the_same_for_every_process_of_one_boot() -> None:
    """Its time is what the system has been up for."""
    first, second = boot_clock(), boot_clock()
    assert first is not None
    assert second is not None
    assert first.boot == second.boot
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= first.time() <= second.time() <= before + 10


def test_where_boots_cannot_be_told_apart_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A time since an unknown boot would be worse than none."""
    monkeypatch.setattr(boot, "Path", lambda path: tmp_path / "missing")
    assert boot_clock() is None


def test_where_the_system_has_no_such_clock_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """deferd goes by the reactor's own, then."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert boot_clock() is None
