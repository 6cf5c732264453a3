"""A configuration with a queue in a temporary directory, and a way to run commands on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deferred.reactor import Reactor
from service.cli import cli
from service.journal import Journal
from service.message.job import Job
from service.queue.sqlite import DATABASE, SQLiteStore
from service.queue.store import Submission

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


@contextmanager
def opened(spool: Path) -> Iterator[tuple[Reactor, SQLiteStore]]:
    """The daemon's store, for as long as the context lasts."""
    reactor = Reactor()
    store = SQLiteStore(spool / DATABASE, reactor, Journal(), Random(1))
    try:
        yield reactor, store
    finally:
        reactor.run_until_complete(store.close(), 10)


@pytest.fixture
def accept(spool: Path) -> Callable[..., list[str]]:
    """Put jobs for these recipients into the queue, each at the site of its domain; return the ids."""

    def accept(*recipients: str, name: str = "order", **facts: Any) -> list[str]:
        submissions = [
            Submission(
                job=Job(
                    sender="ann@a.example",
                    recipients=tuple(one.split(",")),
                    content=b"Subject: x\r\n\r\n",
                    tags={"order": 17},
                    **facts,
                ),
                name=f"{name}-{number}",
                sites=tuple(address.partition("@")[2] for address in one.split(",")),
            )
            for number, one in enumerate(recipients)
        ]
        with opened(spool) as (reactor, store):
            return [accepted.id for accepted in reactor.run_until_complete(store.accept(submissions), 10)]

    return accept
