"""`deferd queue recover`: saves what can be saved of a damaged queue that was set aside."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli.options import config_option, give_up, json_option, local_settings
from service.cli.terminal import clean, print_json

if TYPE_CHECKING:
    from service.queue.recovery import Report


@click.command()
@config_option
@json_option
@click.argument("source", metavar="[FOLDER-OR-FILE]", required=False, type=click.Path(path_type=Path))
@click.pass_context
def recover(ctx: click.Context, config_path: str | None, as_json: bool, source: Path | None) -> None:
    """Save what can be saved of a damaged queue.

    Reads the folders that deferd has set aside, or the one named, and puts every job that is whole back into the
    queue. What is known of the others is written below the folder, in saved/. Nothing is deleted, and doing it again
    changes nothing. Exits with 1 if anything was lost.
    """
    settings = local_settings(config_path)
    from service.cli.boot import boot_clock
    from service.queue.poke import poke
    from service.queue.recovery import recover, waiting_folders
    from service.queue.store import StoreFailed

    directory = Path(settings.queue.directory).absolute()
    reports: list[Report] = []
    try:
        if not directory.is_dir():
            give_up(f"there is no queue at {directory}: name its configuration with -c")
        _set_aside(directory)
        for one in [source] if source is not None else waiting_folders(directory):
            reports.append(recover(one, directory, time.time, settings.queue.results, boot_clock()))
            poke(directory)
    except (StoreFailed, OSError) as error:
        _tell(reports, as_json)
        give_up(clean(error))
    _tell(reports, as_json)
    ctx.exit(0 if all(report.complete for report in reports) else 1)


def tell_set_aside(directory: Path) -> None:
    """Say on standard error which damaged queues lie in the queue's directory, and what is to be done about them."""
    from service.queue.damage import REMEDY, set_aside_folders

    folders = set_aside_folders(directory)
    if not folders:
        return
    from service.queue.recovery import waiting_folders

    waiting = waiting_folders(directory)
    for folder in folders:
        what = f"`{REMEDY}` saves what can be read of it" if folder in waiting else "recovered, as far as it could be"
        click.echo(
            f"deferd: a damaged queue was set aside as {clean(folder)}: {what};"
            " this is told until the folder has been moved or removed",
            err=True,
        )


def _set_aside(directory: Path) -> None:
    """What the daemon does at its start, where none is running: the damaged queue may not have been set aside yet."""
    from service.queue.damage import set_aside_if_damaged
    from service.queue.lock import DirectoryLock
    from service.queue.sqlite import DATABASE
    from service.queue.store import StoreFailed

    try:
        lock = DirectoryLock(directory)
    except StoreFailed:  # a daemon has the directory, and has checked it
        return
    try:
        aside = set_aside_if_damaged(directory / DATABASE, time.time())
    finally:
        lock.release()
    if aside is not None:
        click.echo(f"deferd: the queue is damaged ({clean(aside.why)}): set aside as {aside.folder}", err=True)


def _tell(reports: list[Report], as_json: bool) -> None:
    if as_json:
        print_json(reports)
        return
    if not reports:
        click.echo("nothing is set aside that has not been recovered")
    for report in reports:
        _tell_one(report)


def _tell_one(report: Report) -> None:
    saved = report.queued + report.held + report.ended
    click.echo(
        f"{clean(report.source)}: saved {saved} whole, {len(report.parts)} in part, {len(report.lost)} lost,"
        f" of {report.seen} {'job' if report.seen == 1 else 'jobs'}"
    )
    for number, what in (
        (report.queued, "wait to be sent"),
        (report.held, "are held: look at them with `deferd queue list --state held`, then release or remove them"),
        (report.held_in_doubt, "of these may have been sent already"),
        (report.ended, "have ended, and are remembered"),
        (report.present, "were in the queue already"),
        (report.again, "have been handed in again meanwhile, and were left out"),
    ):
        if number:
            click.echo(f"  {number} {what}")
    if report.log_damaged:
        click.echo("  its log was damaged: where a newer state of a job was lost with it, the job is held")
    for kind, troubles in (("in part", report.parts), ("lost", report.lost)):
        for trouble in troubles:
            files = f" ({', '.join(map(clean, trouble.files))})" if trouble.files else ""
            click.echo(f"  {kind}: {trouble.id}: {clean(trouble.why)}{files}")
