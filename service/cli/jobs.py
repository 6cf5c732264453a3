"""How jobs stand, as text."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from service.cli.standing import insert_rates
from service.cli.terminal import clean, print_table
from service.timestamp import rfc3339

if TYPE_CHECKING:
    from service.queue.details import JobDetails, JobSite, ListedJob


def print_jobs(jobs: list[ListedJob], nobody: bool) -> None:
    """Print a table, with a column for priorities where there is one to see. `nobody`: no daemon runs."""
    telling = any(job.priority not in ("normal", None) for job in jobs)
    titles = ["id", "name", "state", "attempts", "recipients", "accepted", "next attempt", "why"]
    rows: list[list[object]] = [
        [
            job.id,
            job.name,
            _state(job, nobody),
            job.attempts,
            _recipients(job),
            job.accepted_at,
            _when(job.next_attempt, in_flight=job.in_flight),
            _why(job),
        ]
        for job in jobs
    ]
    if telling:
        titles.insert(3, "priority")
        for job, row in zip(jobs, rows, strict=True):
            row.insert(3, job.priority)
    print_table(titles, rows)


def print_job(job: JobDetails, nobody: bool) -> None:
    """Print all of one job: its facts, its sites, its recipients. `nobody`: no daemon runs."""
    facts = {
        "id": job.id,
        "name": job.name,
        "state": _state(job, nobody),
        "priority": job.priority,
        "attempts": job.attempts,
        "sender": job.sender or "<>",
        "size": f"{job.size} octets",
        "accepted": job.accepted_at,
        "next attempt": _when(job.next_attempt, in_flight=job.in_flight),
        "waits for": job.waits,
        "expires": None if job.finished_at else job.expires_at,
        "finished": job.finished_at,
        "in doubt": job.in_doubt,
        "key": job.key,
        "tags": ", ".join(f"{key}={value}" for key, value in job.tags.items()),
    }
    for name, value in facts.items():
        if value not in (None, ""):
            click.echo(f"{name + ':':<14}{clean(value)}")
    click.echo()
    titles = ["site", "state", "attempts", "next attempt", "rests because of"]
    sites: list[list[object]] = [
        [
            one.site,
            _at_site(one, nobody),
            one.attempts,
            _when(one.next_attempt, in_flight=one.state == "in_flight"),
            one.rests,
        ]
        for one in job.sites
    ]
    insert_rates(titles, sites, [one.rate for one in job.sites])
    print_table(titles, sites)
    click.echo()
    rows = [(r.address, r.state, r.host, r.phase, _answer(r.code, r.enhanced, r.text), r.at) for r in job.recipients]
    print_table(("recipient", "state", "host", "phase", "last answer", "at"), rows)


def _when(next_attempt: str | None, *, in_flight: bool) -> str:
    """When it is tried next; where it is its time already, that it is due, or nothing if it is being tried."""
    if next_attempt is None or next_attempt > rfc3339(time.time()):
        return next_attempt or ""
    return "" if in_flight else "due now"


def _state(job: ListedJob, nobody: bool) -> str:
    """The job's state, or that it is on its way; one that is held meanwhile goes no further after that."""
    if not job.in_flight:
        return job.state
    return _sending(nobody) if job.state == "queued" else f"{job.state}, {_sending(nobody)}"


def _sending(nobody: bool) -> str:
    """What is in flight where no daemon runs was so when the last one died: the next finds out what to do with it."""
    return "interrupted" if nobody else "sending"


def _why(job: ListedJob) -> str:
    """What was said last of a recipient that waits, or what that waits for, where nothing was; else what was said of
    one that failed, else of any."""
    for state in ("waiting", "failed", "delivered"):
        answers = [_answer(each.code, each.enhanced, each.text) for each in job.recipients if each.state == state]
        if answers:
            return max(answers, key=bool) or (f"waits for {job.waits}" if job.waits else "")
    return ""


def _recipients(job: ListedJob) -> str:
    """One, who still waits if anybody does, and how many there are besides."""
    people = sorted(job.recipients, key=lambda each: each.state != "waiting")
    first = people[0].address if people else ""
    more = len(people) - 1
    return f"{first} and {more} more" if more > 0 else first


def _at_site(site: JobSite, nobody: bool) -> str:
    doubts = f", perhaps delivered ({site.doubts} in doubt)" if site.doubts else ""
    return (_sending(nobody) if site.state == "in_flight" else site.state) + doubts


def _answer(*parts: object) -> str:
    return " ".join(str(part) for part in parts if part)
