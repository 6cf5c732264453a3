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
        click.echo(f"{settings.http.listen}: {_why(failure)}", err=True)

    def ask() -> None:
        page = get_page(f"http://{settings.http.listen}/healthz", reactor=reactor, timeout=PATIENCE)
        page.add_callbacks(well, unwell).add_both(lambda _: reactor.stop())

    with reactor:
        reactor.call_soon(ask)
        reactor.run()
    return status


def _why(failure: Failure) -> str:
    """What has become of the question, and what to do where nobody was there to be asked."""
    error = failure.value
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there: is `deferd run` started, and has it the same http.listen?"
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:.0f} s: `deferd run` is stuck, or it is another program that listens there"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return failure.get_error_message()


if __name__ == "__main__":
    sys.exit(health(None))
