"""Where benchmarks have their files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.place import Folder, file_system, here, journaled, place
from bench.wrong import Skipped


def test_what_a_run_leaves_stays_until_its_benchmark_has_ended() -> None:
    """A run after it does not pay for its removal."""
    with place() as directory:
        with Folder() as first:
            (first / "file").write_text("of the first run")
        with Folder() as second:
            pass
        assert first.parent == second.parent == directory
        assert (first / "file").exists()
    assert not directory.exists()


def test_outside_a_benchmark_a_folder_is_removed_at_once() -> None:
    """As the tests' are."""
    before = here()
    with Folder() as folder:
        assert folder.parent == before
    assert not folder.exists()


def test_others_may_pass_through() -> None:
    """Postfix is another user, and has its queue there."""
    with place() as directory:
        assert directory.stat().st_mode & 0o777 == 0o711


def test_the_file_system_is_told() -> None:
    """By a name that the system has for it, where it tells at all."""
    known = {line.split("\t")[1] for line in Path("/proc/filesystems").read_text().splitlines()}
    assert file_system().split()[0] in known or file_system() == "an unknown file system"


def test_who_may_not_mount_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left behind."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    before = here()
    with pytest.raises(Skipped, match="only root can"), journaled():
        pass
    assert here() == before
