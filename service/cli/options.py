"""What the commands share on their command line, and the settings that come of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

import click

from config.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

config_option: Final = click.option(
    "-c", "--config", "config_path", metavar="FILE", type=click.Path(), help="The configuration file."
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def local_settings(config_path: str | None) -> Settings:
    """The settings without the routes: all that a command needs which only touches the queue's directory.

    Says what is wrong and exits with 1 where the configuration is bad.
    """
    from config.loader import ConfigError, load

    try:
        return load(config_path, routes=False)
    except ConfigError as error:
        give_up(*error.problems)


def give_up(*why: str, status: int = 1) -> NoReturn:
    """Say why, on standard error, and exit."""
    for line in why:
        click.echo(f"deferd: {line}", err=True)
    sys.exit(status)
