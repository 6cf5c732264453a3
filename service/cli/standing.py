"""How the queue stands, site by site, as text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from config.units import rate_in_words
from service.cli.terminal import print_table

if TYPE_CHECKING:
    from service.queue.standing import RestView, Standing


def print_standing(standing: Standing, most: int = sys.maxsize) -> None:
    """Print a table of the sites, those with most mail first and `most` of them, and below it how many jobs there are
    in each state."""
    shown = standing.sites[:most]
    titles = ["site", "waiting", "due now", "in flight", "held", "next due", "rests"]
    rows: list[list[object]] = [
        [one.site, one.waiting, one.due_now, one.in_flight, one.held, one.next_due, _rest(one.rest)] for one in shown
    ]
    insert_rates(titles, rows, [one.rate for one in shown])
    print_table(titles, rows)
    if len(standing.sites) > most:
        click.echo(f"and {len(standing.sites) - most} more sites: `deferd queue count` shows them")
    if standing.jobs is not None:
        click.echo("jobs: " + ", ".join(f"{number} {state}" for state, number in standing.jobs.items() if number))


def insert_rates(titles: list[str], rows: Sequence[list[object]], rates: Sequence[float | None]) -> None:
    """A column before the last for the sites' rates, where one has any."""
    if any(rate is not None for rate in rates):
        titles.insert(-1, "at most")
        for row, rate in zip(rows, rates, strict=True):
            row.insert(-1, None if rate is None else rate_in_words(rate))


def _rest(rest: RestView | None) -> str:
    """Until when, and why; of a rest that is over, that it is not known yet what it was good for."""
    if rest is None:
        return ""
    until = f"until {rest.until}" if rest.until else "no more, but has not served yet"
    times = "failure" if rest.failures == 1 else "failures"
    return f"{until}; {rest.failures} {times} since {rest.since}: {rest.why}"
