"""`deferd queue`: looks at the queue and changes it, with or without a running daemon."""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from config.settings import Settings
from service.cli.elsewhere import elsewhere
from service.cli.jobs import print_job, print_jobs
from service.cli.options import config_option, give_up, json_option, local_settings
from service.cli.recover import recover, tell_set_aside
from service.cli.standing import print_standing
from service.cli.terminal import clean, print_json

if TYPE_CHECKING:
    from service.queue.commands import CommandStore, Done
    from service.queue.store import Change, JobState

FIRST_PAGE = 100
MOST_SITES = 20
_OF_MANY: Final = {"retry": "held: release them first", "hold": "held already", "release": "not held"}
"""Why a change has left jobs as they were that were not named one by one."""

STATES = ("queued", "held", "delivered", "failed", "partly")


@click.group()
def queue() -> None:
    """Look at the queue and change it.

    Works with or without a running daemon, which acts on changes at once.
    """


@queue.command("list")
@config_option
@click.option("--site", metavar="S", help="Only jobs with mail for this site.")
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state; else all that are not finished.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="At most N jobs. [default: 100; with --json, all]"
)
@json_option
def list_jobs(
    config_path: str | None, site: str | None, state: JobState | None, limit: int | None, as_json: bool
) -> None:
    """List jobs, oldest first: what waits, why, and when it is tried next.

    Below them stands how many messages wait at each site (or at the one asked for), as `deferd queue count` tells.
    """
    most = limit or (sys.maxsize if as_json else FIRST_PAGE)
    with _opened(config_path, telling=True) as (store, settings):
        jobs = store.list(site=site, state=state, limit=most)
        standing = None if as_json else store.standing(site)
        alike = "" if standing is None or standing.sites else _alike(store, site)
    if standing is None:
        print_json(jobs)
        return
    if jobs:
        print_jobs(jobs, _nobody_runs(settings))
    else:
        click.echo(f"no such jobs{alike}" if site or state else "the queue is empty")
    if standing.sites:
        click.echo()
        print_standing(standing, MOST_SITES)
    if len(jobs) == most:
        click.echo(f"the first {most}; --limit N shows more", err=True)
    _tell_of_nobody(settings)


@queue.command()
@config_option
@click.option("--site", metavar="S", help="Only this site.")
@json_option
def count(config_path: str | None, site: str | None, as_json: bool) -> None:
    """Count the messages at each site: those that wait, are due now, in flight, held; and tell whether it rests.

    In flight is what the daemon has claimed: it is being sent, or about to be. A job with recipients at several sites
    counts at each. A rest is as the daemon last noted it.
    """
    with _opened(config_path, telling=True) as (store, settings):
        standing = store.standing(site)
        alike = "" if standing.sites else _alike(store, site)
    if as_json:
        print_json(standing)
        return
    if not standing.sites:
        click.echo("the queue is empty" if site is None else f"no mail waits for {clean(site)}{alike}")
    else:
        print_standing(standing)
    _tell_of_nobody(settings)


@queue.command()
@config_option
@json_option
@click.argument("job_id", metavar="ID")
def show(config_path: str | None, as_json: bool, job_id: str) -> None:
    """Show one job with its sites and all its recipients, whether finished or not.

    ID may also be the NAME of its result file, results/NAME.json.
    """
    with _opened(config_path) as (store, settings):
        job = store.show(job_id, settings.retry.max_age)
    if job is None:
        give_up(f"there is no job {clean(job_id)}{elsewhere(Path(settings.queue.directory), job_id)}")
    if as_json:
        print_json(job)
        return
    print_job(job, _nobody_runs(settings))
    if not job.finished_at:
        _tell_of_nobody(settings)


queue.add_command(recover)


def _changing(change: Change, what: str, done: str) -> None:
    """Add the command for one kind of change."""
    what += "\n\nAn ID may also be the NAME of its result file, results/NAME.json."

    @queue.command(change, help=what)
    @config_option
    @click.option("--site", metavar="S", help="All mail for this site.")
    @click.option("--all", "everything", is_flag=True, help="All jobs.")
    @json_option
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    def command(
        config_path: str | None, site: str | None, everything: bool, as_json: bool, ids: tuple[str, ...]
    ) -> None:
        if [bool(ids), site is not None, everything].count(True) != 1:
            raise click.UsageError("say which: ID..., or --site S, or --all, and only one of them")
        with _opened(config_path) as (store, settings):
            result = store.change(change, ids or None, site)
            alike = "" if result.changed or result.unchanged else _alike(store, site)
        _poke(Path(settings.queue.directory), change, result.changed, result.ids, site)
        if as_json:
            print_json({"changed": result.changed, **({"unchanged": result.why} if result.why else {})})
        else:
            click.echo(f"{done} {_jobs(result.changed)}")
            if change in ("hold", "remove") and result.in_flight:
                click.echo(f"deferd: being sent at this moment, and may arrive: {_jobs(result.in_flight)}", err=True)
        _tell_unchanged(change, result, f" for {clean(site)}{alike}" if site else "")
        if not as_json and change != "remove":
            _tell_of_nobody(settings)


def _alike(store: CommandStore, site: str | None) -> str:
    """Where there is mail for sites whose names begin with this one: a relay that is reached in several ways is as many
    sites."""
    names = [one.site for one in store.standing().sites if one.site.startswith(site)] if site else []
    return f", but for {clean(', '.join(names[:MOST_SITES]))}" if names else ""


def _tell_unchanged(change: Change, done: Done, for_site: str) -> None:
    """Say why jobs that were asked for are as they were."""
    for id, why in done.why.items():
        click.echo(f"deferd: {id} unchanged, {why}", err=True)
    if done.why or (done.changed and change != "retry"):  # where many are asked for, those that it fits are meant
        return
    if done.unchanged:
        click.echo(f"deferd: {_jobs(done.unchanged)} unchanged, {_OF_MANY.get(change, 'ended meanwhile')}", err=True)
    elif not done.changed:
        click.echo(f"deferd: no mail waits{for_site}", err=True)


def _jobs(number: int) -> str:
    return f"{number} {'job' if number == 1 else 'jobs'}"


_changing("retry", "Try jobs now, even where their site was left in peace after a failure.", "made due")
_changing("hold", "Try jobs no more until they are released.", "held")
_changing("release", "Let held jobs go on.", "released")
_changing("remove", "Give jobs up: nothing is sent, nobody told.", "removed")


@contextmanager
def _opened(config_path: str | None, *, telling: bool = False) -> Iterator[tuple[CommandStore, Settings]]:
    """The queue, and the settings that name it. Exits where there is none, or it does not know what is asked for.

    With `telling` the command's last words, whatever its end, are about damaged queues that were set aside.
    """
    settings = local_settings(config_path)
    from service.cli.boot import boot_clock
    from service.queue.commands import open_for_commands
    from service.queue.store import StoreFailed, UnknownJob

    directory = Path(settings.queue.directory)
    if telling:
        click.get_current_context().call_on_close(lambda: tell_set_aside(directory))
    try:
        if not directory.is_dir():
            give_up(f"there is no queue at {directory}: start `deferd run` once, or name its configuration with -c")
        with open_for_commands(directory, time.time, settings.queue.results, boot_clock()) as store:
            yield store, settings
    except UnknownJob as error:
        give_up(clean(error) + elsewhere(directory, error.job), "nothing was changed")
    except (StoreFailed, OSError) as error:
        give_up(clean(error))


def _tell_of_nobody(settings: Settings) -> None:
    """Say so where nothing is being sent, whatever the table says of messages in flight."""
    if _nobody_runs(settings):
        directory = settings.queue.directory
        click.echo(f"deferd: no daemon is running in {directory}: nothing is sent until one is", err=True)


def _nobody_runs(settings: Settings) -> bool:
    from service.queue.lock import nobody_runs

    return nobody_runs(Path(settings.queue.directory))


def _poke(directory: Path, change: Change, jobs: int, ids: tuple[str, ...], site: str | None) -> None:
    """Let a running daemon act on the change at once, and log who has made it."""
    from service.queue.orders import MOST_IDS, Order
    from service.queue.poke import poke

    try:
        by = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # the user has no name
        by = f"uid {os.getuid()}"
    try:
        poke(directory, Order(change=change, jobs=jobs, ids=ids[:MOST_IDS], site=site, by=by) if jobs else None)
    except OSError as error:
        click.echo(f"deferd: a running daemon learns of it later: {error.strerror or error}", err=True)
