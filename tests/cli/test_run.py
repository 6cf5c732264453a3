"""`deferd run`, as far as it comes before the daemon is there."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from config import loader

command = import_module("service.cli.run")  # by its name, which in service.cli is the click command's

FALLBACK = "no -c, no $DEFERD_CONFIG and no "


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the system's configuration would be. Nothing can start here: the queue would have to be inside a file."""
    etc, local, file = tmp_path / "etc.yaml", tmp_path / "local.yaml", tmp_path / "file"
    file.touch()
    for module in (loader, command):
        monkeypatch.setattr(module, "PLACES", (str(etc), str(local)))
    monkeypatch.setenv("DEFERD_QUEUE__DIRECTORY", str(file / "queue"))
    monkeypatch.delenv("DEFERD_CONFIG", raising=False)
    return etc


def test_it_says_when_nobody_has_written_its_configuration(etc: Path, tmp_path: Path, capsys) -> None:
    """The working directory's config/deferd.yaml, or the reference that comes with deferd, stands in, and is named."""
    assert command.run(None) == 1
    assert f"{FALLBACK}{etc}: the configuration is {loader.REFERENCE}\n" in capsys.readouterr().err
    local = tmp_path / "local.yaml"
    local.write_text("hostname: mail.example\n")
    assert command.run(None) == 1
    assert f"{FALLBACK}{etc}: the configuration is {local}\n" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["-c", "DEFERD_CONFIG", "/etc"])
def test_it_says_nothing_where_somebody_has(
    etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, named: str
) -> None:
    """Named by whatever means, be it the very file that would stand in."""
    config = etc if named == "/etc" else tmp_path / "local.yaml"
    config.write_text("hostname: mail.example\n")
    if named == "DEFERD_CONFIG":
        monkeypatch.setenv("DEFERD_CONFIG", str(config))
    assert command.run(str(config) if named == "-c" else None) == 1
    assert FALLBACK not in capsys.readouterr().err
