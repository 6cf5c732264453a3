"""`deferd run`, as far as it comes before the daemon is there."""

from __future__ import annotations

from collections.abc import Callable
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


@pytest.mark.parametrize(
    ("named", "origin"),
    [
        ("-c", "-c names it"),
        ("DEFERD_CONFIG", "$DEFERD_CONFIG names it"),
        ("/etc", "it was found when deferd started, and a restart may find another"),
    ],
)
def test_a_reload_whose_file_is_gone_says_where_its_name_came_from(
    etc: Path, monkeypatch: pytest.MonkeyPatch, named: str, origin: str
) -> None:
    """Who has not given -c does not look for it."""

    def reloading(*_: object, load: Callable[[], object], **__: object) -> None:
        etc.unlink()
        load()

    etc.write_text("routes: [{domains: '*', relay: smtp://relay.example}]\n")
    monkeypatch.setattr(command, "Reactor", object)
    monkeypatch.setattr(command, "Daemon", reloading)
    if named == "DEFERD_CONFIG":
        monkeypatch.setenv("DEFERD_CONFIG", str(etc))
    with pytest.raises(loader.ConfigError) as caught:
        command.run(str(etc) if named == "-c" else None)
    assert str(caught.value) == f"{etc}: there is no such file; {origin}"
