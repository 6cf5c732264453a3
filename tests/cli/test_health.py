"""`deferd health`, where no daemon answers."""

from __future__ import annotations

import socket
from importlib import import_module

import pytest

command = import_module("service.cli.health")  # by its name, which in service.cli is the click command's


@pytest.fixture
def health(deferd, monkeypatch: pytest.MonkeyPatch):
    """What it says of this address."""

    def health(place: str) -> str:
        monkeypatch.setenv("DEFERD_HTTP__LISTEN", place)
        monkeypatch.setenv("DEFERD_ROUTES__0__PASSWORD_FILE", "null")
        monkeypatch.setenv("DEFERD_ROUTES__0__PASSWORD", "p")
        result = deferd("health")
        assert result.exit_code == 1
        return result.stderr

    return health


def test_where_nobody_listens_it_asks_whether_the_daemon_runs(health) -> None:
    """The address is told once."""
    why = "nobody listens there: is `deferd run` started, and has it the same http.listen?"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # so that nobody else comes to listen there meanwhile
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert health(place) == f"{place}: {why}\n"


def test_where_somebody_listens_and_says_nothing_it_tells_how_long_it_has_waited(health, monkeypatch) -> None:
    """A daemon that is stuck, or another program."""
    monkeypatch.setattr(command, "PATIENCE", 0.6)
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        assert health(place).startswith(f"{place}: no answer within 1 s: ")
