"""A configuration with a queue in a temporary directory, and a way to run commands on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli import cli

HOSTNAME = "client.example"


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The queue's directory; the configuration that names it is found by DEFERD_CONFIG."""
    spool = tmp_path / "spool"
    (spool / "new").mkdir(parents=True)
    config = tmp_path / "deferd.yaml"
    config.write_text(
        f"queue: {{directory: {spool}}}\nhostname: {HOSTNAME}\nlimits: {{message_size: 1M, recipients: 5}}\n"
        "routes: [{domains: ['*'], relay: smtp://relay.example, username: u, password_file: /not/ours}]\n"
    )
    monkeypatch.setenv("DEFERD_CONFIG", str(config))
    return spool


@pytest.fixture
def deferd(spool: Path) -> Callable[..., Result]:
    """Run `deferd` with these arguments and this input."""

    def deferd(*arguments: object, input: bytes | str = b"") -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=input, prog_name="deferd")

    return deferd
