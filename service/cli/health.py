"""`deferd health`: asks the running daemon whether it turns; for a container's health check."""

from __future__ import annotations

import os
import sys

import click

from config.loader import ConfigError, find, load
from deferred.failure import Failure
from deferred.reactor import Reactor
from deferred.web import get_page

PATIENCE = 4.0  # seconds: less than a health check usually has


def health(config_path: str | None) -> int:
    """0 when /healthz of the daemon with this configuration answers, else 1."""
    try:
        settings = load(find(config_path, os.environ), os.environ)
    except ConfigError as error:
        click.echo(str(error), err=True)
        return 1
    if settings.http.listen is None:
        click.echo("http.listen is null: there is nothing to ask", err=True)
        return 1
    reactor = Reactor()
    status = 1

    def well(_: bytes) -> None:
        nonlocal status
        status = 0

    def unwell(failure: Failure) -> None:
        click.echo(f"{settings.http.listen}: {failure.get_error_message()}", err=True)

    def ask() -> None:
        page = get_page(f"http://{settings.http.listen}/healthz", reactor=reactor, timeout=PATIENCE)
        page.add_callbacks(well, unwell).add_both(lambda _: reactor.stop())

    with reactor:
        reactor.call_soon(ask)
        reactor.run()
    return status


if __name__ == "__main__":
    sys.exit(health(None))
