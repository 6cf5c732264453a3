"""The commands. Each file is one, imported only when it is asked for: looking at the queue needs no reactor.

Exit status: 0 done, 1 failed, 2 wrong usage, 78 (EX_CONFIG) for a configuration that is wrong.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Final

import click

from service.cli.options import config_option
from service.cli.terminal import is_unwritten, unwritable

__all__ = ["main"]

_ELSEWHERE: Final = {
    "check": ("service.cli.check", "check"),
    "queue": ("service.cli.queue", "queue"),
    "send": ("service.cli.send", "send"),
}
"""The commands with options of their own, and where they are."""


class _Commands(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return sorted({*super().list_commands(ctx), *_ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command, imported now."""
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, name = _ELSEWHERE[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib import metadata  # which takes as long as all else that a command begins with

        try:
            version = metadata.version("deferd")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        click.echo(f"deferd {version}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def cli() -> None:
    """An outbound mail daemon: drop a file, and it is delivered.

    The configuration is -c FILE (after the last command word), else $DEFERD_CONFIG, else /etc/deferd/deferd.yaml,
    else config/deferd.yaml.

    \b
    Completion of commands in the shell, for bash (or zsh, fish):
      eval "$(_DEFERD_COMPLETE=bash_source deferd)"
    """


@cli.command()
@config_option
@click.pass_context
def run(ctx: click.Context, config_path: str | None) -> None:
    """Run the daemon in the foreground. SIGTERM drains, SIGHUP reloads."""
    # Before the imports, which take most of the start: a signal that comes early waits until it can be obeyed.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    ctx.exit(import_module("service.cli.run").run(config_path))


@cli.command()
@click.pass_context
def demo(ctx: click.Context) -> None:
    """Watch three jobs being delivered to a server of our own."""
    ctx.exit(import_module("service.cli.demo").demo())


@cli.command()
@config_option
@click.pass_context
def health(ctx: click.Context, config_path: str | None) -> None:
    """Ask the running daemon's /healthz whether it is well."""
    ctx.exit(import_module("service.cli.health").health(config_path))


def main() -> None:
    """The console script `deferd`."""
    try:
        cli(prog_name="deferd")
    except OSError as error:
        if not is_unwritten(error):
            raise
        unwritable(error)
        sys.exit(1)
