"""`deferd check`: is the configuration right; with --connect, does each relay take our mail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from service.cli.options import config_option, json_option
from service.cli.terminal import clean, print_json, print_table

if TYPE_CHECKING:
    from service.cli.connect import Relayed


@click.command()
@config_option
@click.option(
    "--connect", is_flag=True, help="Go to each relay: does it answer, offer TLS, take the password? Sends nothing."
)
@json_option
@click.pass_context
def check(ctx: click.Context, config_path: str | None, connect: bool, as_json: bool) -> None:
    """Tell what is wrong or risky in the configuration.

    Exits with 78 where it is wrong and, with --connect, with 1 where a relay does not serve.
    """
    from config.loader import ConfigError, find, load

    try:
        path = find(config_path)
        settings = load(path)
    except ConfigError as error:
        _tell_problems(error.problems, as_json)
        ctx.exit(os.EX_CONFIG)
    from service.cli.risks import risks

    warnings = list(risks(settings))
    if not as_json:
        for warning in warnings:
            click.echo(f"warning: {clean(warning)}", err=True)
        click.echo(f"{clean(path)}: is right" + (f", with {_warnings(len(warnings))}" if warnings else ""))
    relays: list[Relayed] = []
    if connect:
        from service.cli.connect import visit

        relays = visit(settings)
        if not as_json:
            print_table(("relay", "", "what it says"), [(r.relay, "ok" if r.ok else "FAILED", r.text) for r in relays])
    if as_json:
        found = [{"relay": r.relay, "ok": r.ok, "text": r.text, "tls": r.tls} for r in relays]
        print_json({"file": path, "problems": [], "warnings": warnings, **({"relays": found} if connect else {})})
    ctx.exit(0 if all(relay.ok for relay in relays) else 1)


def _tell_problems(problems: Sequence[str], as_json: bool) -> None:
    if as_json:
        print_json({"problems": problems})
        return
    for problem in problems:
        click.echo(clean(problem), err=True)


def _warnings(number: int) -> str:
    return "1 warning" if number == 1 else f"{number} warnings"
