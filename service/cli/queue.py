"""`deferd queue`: looks at the queue and changes it, with or without a running daemon."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from service.cli.options import config_option, give_up, json_option, local_settings
from service.cli.recover import recover
from service.cli.terminal import clean, print_json, print_table

if TYPE_CHECKING:
    from service.queue.commands import CommandStore
    from service.queue.store import Change, JobState, JobView

T = TypeVar("T")

FIRST_PAGE = 100
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
    """List jobs, oldest first: what waits, why, and when it is tried next."""
    most = limit or (sys.maxsize if as_json else FIRST_PAGE)
    jobs = _with_store(config_path, lambda store: store.list(site=site, state=state, limit=most))
    if as_json:
        print_json(jobs)
        return
    if not jobs:
        click.echo("no such jobs" if site or state else "the queue is empty")
        return
    rows = [
        (job.id, job.name, job.state, job.attempts, _recipients(job), job.accepted_at, job.next_attempt, _why(job))
        for job in jobs
    ]
    print_table(("id", "name", "state", "attempts", "recipients", "accepted", "next attempt", "last answer"), rows)
    if len(jobs) == most:
        click.echo(f"the first {most}; --limit N shows more", err=True)


def _why(job: JobView) -> str:
    """What was said last of a recipient that waits, else of any."""
    tried = [recipient for recipient in job.recipients if recipient.text]
    telling = next((recipient for recipient in tried if recipient.state == "waiting"), tried[0] if tried else None)
    return _answer(telling.code, telling.enhanced, telling.text) if telling else ""


def _recipients(job: JobView) -> str:
    first = job.recipients[0].address if job.recipients else ""
    more = len(job.recipients) - 1
    return f"{first} and {more} more" if more > 0 else first


@queue.command()
@config_option
@json_option
@click.argument("id")
def show(config_path: str | None, as_json: bool, id: str) -> None:
    """Show one job with all its recipients, whether finished or not."""
    job = _with_store(config_path, lambda store: store.show(id))
    if job is None:
        give_up(f"there is no job {clean(id)}")
    if as_json:
        print_json(job)
        return
    facts = {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "attempts": job.attempts,
        "accepted": job.accepted_at,
        "next attempt": job.next_attempt,
        "finished": job.finished_at,
        "tags": ", ".join(f"{key}={value}" for key, value in job.tags.items()),
    }
    for name, value in facts.items():
        if value not in (None, ""):
            click.echo(f"{name + ':':<14}{clean(value)}")
    click.echo()
    rows = [(r.address, r.state, r.host, r.phase, _answer(r.code, r.enhanced, r.text), r.at) for r in job.recipients]
    print_table(("recipient", "state", "host", "phase", "last answer", "at"), rows)


def _answer(*parts: object) -> str:
    return " ".join(str(part) for part in parts if part)


queue.add_command(recover)


def _changing(change: Change, what: str, done: str) -> None:
    """Add the command for one kind of change."""

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
            raise click.UsageError("say which: ID..., or --site S, or --all")
        changed = _with_store(config_path, lambda store: store.change(change, ids or None, site))
        _poke(config_path)
        if as_json:
            print_json({"changed": changed})
        else:
            click.echo(f"{done} {changed} {'job' if changed == 1 else 'jobs'}")


_changing("retry", "Try jobs now, even where their site was left in peace after a failure.", "made due")
_changing("hold", "Try jobs no more until they are released.", "held")
_changing("release", "Let held jobs go on.", "released")
_changing("remove", "Give jobs up: nothing is sent, nobody told.", "removed")


def _with_store(config_path: str | None, use: Callable[[CommandStore], T]) -> T:
    """What `use` makes of the queue. Exits where there is none, or where it does not know what is asked for."""
    settings = local_settings(config_path)
    from service.cli.boot import boot_clock
    from service.queue.commands import open_for_commands
    from service.queue.store import StoreFailed, UnknownJob

    directory = Path(settings.queue.directory)
    try:
        if not directory.is_dir():
            give_up(f"there is no queue at {directory}: start `deferd run` once, or name its configuration with -c")
        with open_for_commands(directory, time.time, settings.queue.results, boot_clock()) as store:
            return use(store)
    except UnknownJob as error:
        give_up(clean(error.args[0] if error.args else error))
    except (StoreFailed, OSError) as error:
        give_up(clean(error))


def _poke(config_path: str | None) -> None:
    """Let a running daemon act on the change at once."""
    from service.queue.poke import poke

    try:
        poke(Path(local_settings(config_path).queue.directory))
    except OSError as error:
        click.echo(f"deferd: a running daemon learns of it later: {error.strerror or error}", err=True)
