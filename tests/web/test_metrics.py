"""/metrics: each event counted once, in names that stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deferred.testing import Clock
from service.journal import EVENTS, Journal
from service.queue.store import Counts
from service.web.exchange import Request
from service.web.metrics import MEASURED, Metrics


class World:
    """Metrics behind a journal, and a queue that the test fills."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.counts = Counts(0, 0, None)
        self.in_flight = 0
        self.metrics = Metrics(self.clock.wall_time, "1.2.3", lambda: self.counts, lambda: self.in_flight)
        self.journal = Journal()
        self.journal.add(self.metrics, MEASURED)

    def text(self, **headers: str) -> str:
        return self.metrics.expose(Request("GET", "/metrics", "", headers)).body.decode()

    def samples(self) -> dict[tuple[str, ...], float]:
        """Each sample's value under its name and its labels' values."""
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items(), reverse=True))): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ("job_accepted", "deferd_jobs_accepted_total"),
        ("job_rejected", "deferd_jobs_rejected_total"),
        ("delivered", "deferd_recipients_delivered_total"),
        ("deferred", "deferd_attempts_deferred_total"),
        ("failed", "deferd_recipients_failed_total"),
        ("report_failed", "deferd_reports_failed_total"),
        ("bounced", "deferd_bounces_total"),
        ("site_resting", "deferd_site_rests_total"),
        ("reload_failed", "deferd_reload_failures_total"),
        ("unhandled_error", "deferd_unhandled_errors_total"),
    ],
)
def test_an_event_is_counted_under_its_name(world: World, event: str, name: str) -> None:
    """From 0, one by one, and nothing else moves."""
    before = world.samples()
    assert before[(name,)] == 0
    world.journal.tell(event, id="1")
    world.journal.tell(event, id="2")
    after = world.samples()
    assert after[(name,)] == 2
    moved = {key for key, value in after.items() if key[0].startswith("deferd_") and value != before[key]}
    assert moved == {(name,)}


def test_every_event_can_be_told(world: World) -> None:
    """Also those that are not counted, and those whose facts are missing."""
    for event in EVENTS:
        world.journal.tell(event)
    assert world.samples()[("deferd_jobs_accepted_total",)] == 1


def test_messages_in_doubt_are_counted_by_decision(world: World) -> None:
    """Sent again or held; no other label comes about."""
    world.journal.tell("in_doubt", id="1", decision="retry")
    world.journal.tell("in_doubt", id="2", decision="hold")
    world.journal.tell("in_doubt", id="3", decision="hold")
    samples = {key[1]: value for key, value in world.samples().items() if key[0] == "deferd_in_doubt_total"}
    assert samples == {"retry": 1, "hold": 2}


def test_the_queue_is_looked_at_when_somebody_asks(world: World) -> None:
    """Jobs by state, and the age of the oldest."""
    world.counts = Counts(7, 2, world.clock.wall_time() - 90)
    world.in_flight = 3
    samples = world.samples()
    assert samples[("deferd_queue_jobs", "queued")] == 5
    assert samples[("deferd_queue_jobs", "held")] == 2
    assert samples[("deferd_queue_oldest_age_seconds",)] == 90
    assert samples[("deferd_in_flight",)] == 3


def test_sites_that_rest_are_counted_when_somebody_asks(world: World) -> None:
    """As they are now: an alarm goes by it."""
    metrics = Metrics(world.clock.wall_time, "1", lambda: world.counts, lambda: 0, resting=lambda: 2)
    page = metrics.expose(Request("GET", "/metrics", "", {})).body.decode()
    assert "deferd_sites_resting 2.0" in page


def test_an_empty_queue_has_no_age(world: World) -> None:
    """0, also where the wall clock was set back."""
    assert world.samples()[("deferd_queue_oldest_age_seconds",)] == 0
    world.counts = Counts(1, 0, world.clock.wall_time() + 3600)
    assert world.samples()[("deferd_queue_oldest_age_seconds",)] == 0


def test_a_store_that_cannot_be_read_hides_only_the_queue(world: World) -> None:
    """The other numbers are wanted most just then."""

    def broken() -> Counts:
        raise OSError("disk on fire")

    metrics = Metrics(world.clock.wall_time, "1", broken, lambda: 0)
    text = metrics.expose(Request("GET", "/metrics")).body.decode()
    assert "deferd_jobs_accepted_total" in text
    assert "deferd_queue_jobs" not in text


def test_damaged_queues_are_counted_while_their_folders_are_there(world: World) -> None:
    """0 mostly; and no number at all where that cannot be known, beside all the others."""
    damaged = [Path("/spool/damaged-1"), Path("/spool/damaged-2")]

    def unreadable() -> list[Path]:
        raise PermissionError(13, "Permission denied")

    def text(set_aside: Callable[[], list[Path]]) -> str:
        metrics = Metrics(world.clock.wall_time, "1", lambda: world.counts, lambda: 0, set_aside=set_aside)
        return metrics.expose(Request("GET", "/metrics")).body.decode()

    assert world.samples()[("deferd_damaged_queues",)] == 0
    assert "deferd_damaged_queues 2.0" in text(lambda: damaged)
    assert "deferd_damaged_queues" not in text(unreadable)
    assert "deferd_attempt_phase_seconds" in text(unreadable)


def test_steps_fill_the_histogram_of_their_phase(world: World) -> None:
    """Each bucket has what is not longer than its end."""
    for seconds in (0.001, 0.004, 0.3, 1000):
        world.journal.tell("step", id="1", host="mx", phase="connect", seconds=seconds)
    samples = world.samples()
    buckets = {
        key[2]: value for key, value in samples.items() if key[:2] == ("deferd_attempt_phase_seconds_bucket", "connect")
    }
    assert (buckets["0.001"], buckets["0.005"], buckets["0.25"], buckets["0.5"]) == (1, 2, 2, 3)
    assert (buckets["300.0"], buckets["+Inf"]) == (3, 4)
    assert samples[("deferd_attempt_phase_seconds_count", "connect")] == 4
    assert samples[("deferd_attempt_phase_seconds_sum", "connect")] == pytest.approx(1000.305)
    assert samples[("deferd_attempt_phase_seconds_count", "confirm")] == 0


@pytest.mark.parametrize("facts", [{}, {"phase": "connect"}, {"phase": "evil", "seconds": 1.0}, {"seconds": "long"}])
def test_a_step_without_sense_is_passed_over(world: World, facts: dict[str, Any]) -> None:
    """No label comes out of a fact that is none of the phases."""
    world.journal.tell("step", **facts)
    assert "evil" not in world.text()
    assert world.samples()[("deferd_attempt_phase_seconds_count", "connect")] == 0


def test_connections_are_those_opened_less_those_closed(world: World) -> None:
    """From the journal's two events."""
    for event in ("connected", "connected", "disconnected"):
        world.journal.tell(event, site="s", host="h")
    assert world.samples()[("deferd_connections",)] == 1


def test_the_version_and_the_process_are_told(world: World) -> None:
    """deferd_info, and what Prometheus shows of any process."""
    text = world.text()
    assert 'deferd_info{version="1.2.3"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_the_format_is_the_one_asked_for(world: World) -> None:
    """Plain text unless OpenMetrics is wanted."""
    plain = world.metrics.expose(Request("GET", "/metrics"))
    assert plain.content_type.startswith("text/plain")
    wanted = {"accept": "application/openmetrics-text; version=1.0.0"}
    modern = world.metrics.expose(Request("GET", "/metrics", "", wanted))
    assert modern.content_type.startswith("application/openmetrics-text")
    assert modern.body.endswith(b"# EOF\n")


def test_two_daemons_in_one_process_do_not_meet() -> None:
    """Each has a registry of its own."""
    first, second = World(), World()
    first.journal.tell("job_accepted")
    assert second.samples()[("deferd_jobs_accepted_total",)] == 0


def test_a_report_on_several_recipients_is_one(world: World) -> None:
    """The journal tells it of each recipient; reports are counted."""
    for report in ("r1", "r1", "r2"):
        world.journal.tell("bounced", id="j", report=report)
    assert world.samples()[("deferd_bounces_total",)] == 2


def test_a_failure_of_the_store_is_counted_once_while_it_lasts(world: World) -> None:
    """It is told now and then until it is over."""
    for event in ("store_failed", "store_failed", "store_recovered", "store_failed"):
        world.journal.tell(event)
    assert world.samples()[("deferd_store_failures_total",)] == 2
