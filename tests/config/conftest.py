"""A way to load a configuration from text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from config.loader import ConfigError, load
from config.settings import Settings

ROUTE = 'routes: [{domains: ["*"], relay: smtp://relay.example}]\n'


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Write the text into a configuration file; return its path."""

    def write(text: str) -> str:
        path = tmp_path / "deferd.yaml"
        path.write_text(dedent(text))
        return str(path)

    return write


@pytest.fixture
def loaded(write: Callable[[str], str]) -> Callable[..., Settings]:
    """Load the text, with a route added where it has none."""

    def loaded(text: str = "", /, **environ: str) -> Settings:
        text = dedent(text)
        return load(write(text if "routes:" in text else ROUTE + text), environ)

    return loaded


@pytest.fixture
def faults(write: Callable[[str], str], tmp_path: Path) -> Callable[..., list[str]]:
    """Load the text, which is wrong, and return the faults without the folder; `routes` on line 1 where it has none."""

    def faults(text: str = "", /, **environ: str) -> list[str]:
        text = dedent(text)
        path = write(text if "routes:" in text else ROUTE + text)
        with pytest.raises(ConfigError) as caught:
            load(path, environ)
        return [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return faults
