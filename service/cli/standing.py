"""How the queue stands, site by site, as text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from service.cli.terminal import print_table

if TYPE_CHECKING:
    from service.queue.standing import RestView, Standing


def print_standing(standing: Standing, most: int = sys.maxsize) -> None:
    """Print a table of the sites, those with most mail first and `most` of them, and below it how many jobs there are
    in each state."""
    rows = [
        (one.site, one.waiting, one.due_now, one.in_flight, one.held, one.next_due, _rest(one.rest))
        for one in standing.sites[:most]
    ]
    print_table(("site", "waiting", "due now", "in flight", "held", "next due", "rests"), rows)
    if len(standing.sites) > most:
        click.echo(f"and {len(standing.sites) - most} more sites: `deferd queue count` shows them")
    if standing.jobs is not None:
        click.echo("jobs: " + ", ".join(f"{number} {state}" for state, number in standing.jobs.items() if number))


def _rest(rest: RestView | None) -> str:
    """Until when, and why; of a rest that is over, that it is not known yet what it was good for."""
    if rest is None:
        return ""
    until = f"until {rest.until}" if rest.until else "no more, but has not served yet"
    times = "failure" if rest.failures == 1 else "failures"
    return f"{until}; {rest.failures} {times} since {rest.since}: {rest.why}"
