"""What the daemon has done, in numbers, for Prometheus.

`Metrics` listens to the journal, where each event costs an addition; names, labels and text are made when somebody
asks. The labels' values are few and known beforehand: no site, host or address is one of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.message.outcome import Phase
from service.queue.store import Counts
from service.web.exchange import Request, Response

_COUNTED: Final = {
    "job_accepted": ("deferd_jobs_accepted", "Jobs taken into the queue."),
    "job_rejected": ("deferd_jobs_rejected", "Files that were no job."),
    "job_known": ("deferd_jobs_known", "Jobs not taken again: the same file or key had been accepted before."),
    "delivered": ("deferd_recipients_delivered", "Recipients whose server has taken the message."),
    "deferred": ("deferd_attempts_deferred", "Attempts at a recipient that ended with another one to come."),
    "failed": ("deferd_recipients_failed", "Recipients given up."),
    "report_failed": (
        "deferd_reports_failed",
        "Recipients of reports, and of other messages from the null sender, given up: nobody is told of them.",
    ),
    "bounced": ("deferd_bounces", "Reports of failure to senders."),
    "warned": ("deferd_warnings", "Reports of delay to senders."),
    "attempt_started": ("deferd_attempts_started", "Attempts at a message for one site."),
    "attempt_failed": ("deferd_host_failures", "Hosts that did not serve an attempt."),
    "site_resting": ("deferd_site_rests", "Times that a site was given a rest because its hosts were at fault."),
    "connected": ("deferd_connections_opened", "Connections made to mail servers."),
    "possible_duplicate": ("deferd_possible_duplicates", "Recipients sent to again, though they may have the message."),
    "job_held": ("deferd_jobs_held", "Messages that the daemon held itself, as one had died over them."),
    "store_failed": ("deferd_store_failures", "Times that the store stopped committing."),
    "clock_jumped": ("deferd_clock_jumps", "Times that the wall clock was set to another time."),
    "reload_failed": ("deferd_reload_failures", "Reloads that changed nothing, as the configuration was wrong."),
    "unhandled_error": ("deferd_unhandled_errors", "Failures that no errback took: each is a bug."),
}
_TOLD_AGAIN: Final = frozenset({"bounced", "warned", "store_failed"})
_DECISIONS: Final = ("retry", "hold")
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_ENDS: Final = (*(str(end) for end in _BUCKETS), "+Inf")

MEASURED: Final = (*_COUNTED, "step", "store_recovered", "disconnected", "in_doubt")
"""The events that change a number."""


class Metrics(Collector):
    """A listener of the journal to what is `MEASURED`, and a page of metrics, with a registry of its own.

    `counts` looks at the queue, whose time is `now`, `in_flight` tells how many messages are being delivered,
    `connections` how many connections to servers are open (by default: those opened less those closed), `resting` how
    many sites rest, `set_aside` which damaged queues lie in the queue's directory.
    """

    def __init__(
        self,
        now: Callable[[], float],
        version: str,
        counts: Callable[[], Counts],
        in_flight: Callable[[], int],
        connections: Callable[[], int] | None = None,
        resting: Callable[[], int] = lambda: 0,
        set_aside: Callable[[], Sequence[Path]] = lambda: (),
    ) -> None:
        self.registry = CollectorRegistry()
        self._now = now
        self._version = version
        self._queue = counts
        self._in_flight = in_flight
        self._open = connections
        self._resting = resting
        self._set_aside = set_aside
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._closed = 0
        self._report: object = None  # the last that was told of
        self._store_failing = False
        self._in_doubt = dict.fromkeys(_DECISIONS, 0)
        self._phases = {phase.value: _Histogram() for phase in Phase}
        self.registry.register(self)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        """Count it."""
        if event == "step":
            try:
                self._phases[facts["phase"]].observe(facts["seconds"])
            except (KeyError, TypeError):
                return  # it has no sense: no phase, or no number of seconds
        elif event in self._counts:
            if event not in _TOLD_AGAIN or self._is_new(event, facts):
                self._counts[event] += 1
        elif event == "store_recovered":
            self._store_failing = False
        elif event == "disconnected":
            self._closed += 1
        elif event == "in_doubt":
            self._in_doubt["hold" if facts.get("decision") == "hold" else "retry"] += 1

    def _is_new(self, event: str, facts: dict[str, object]) -> bool:
        """Whether it is not one more word on what is counted: a report is told of each recipient, a store's failure
        now and then while it lasts."""
        if event == "store_failed":
            failing, self._store_failing = self._store_failing, True
            return not failing
        before, self._report = self._report, facts.get("report")
        return before is None or before != self._report

    @property
    def totals(self) -> dict[str, int]:
        """How often each counted event has happened since the start."""
        return dict(self._counts)

    def expose(self, request: Request) -> Response:
        """All of it, in the format that the request prefers."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(200, encode(self.registry), content_type)

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for."""
        yield InfoMetricFamily("deferd", "The daemon.", value={"version": self._version})
        for event, (name, help_text) in _COUNTED.items():
            yield CounterMetricFamily(name, help_text, value=self._counts[event])
        in_doubt = CounterMetricFamily(
            "deferd_in_doubt", "Recipients whose confirmation was lost after the final dot.", labels=["decision"]
        )
        for decision, count in self._in_doubt.items():
            in_doubt.add_metric([decision], count)
        yield in_doubt
        yield GaugeMetricFamily("deferd_in_flight", "Messages being delivered now.", value=self._in_flight())
        opened = self._counts["connected"] - self._closed if self._open is None else self._open()
        yield GaugeMetricFamily("deferd_connections", "Connections to mail servers now.", value=opened)
        yield GaugeMetricFamily("deferd_sites_resting", "Sites that rest now, as their hosts failed.", self._resting())
        yield from self._collect_queue()
        yield from self._collect_damaged()
        yield self._collect_phases()

    def _collect_queue(self) -> Iterator[Metric]:
        try:
            counts = self._queue()
        except Exception:  # noqa: BLE001 (a broken store is when the other numbers are wanted most)
            return
        jobs = GaugeMetricFamily("deferd_queue_jobs", "Jobs not finished.", labels=["state"])
        jobs.add_metric(["queued"], counts.queued - counts.held)
        jobs.add_metric(["held"], counts.held)
        yield jobs
        age = 0.0 if counts.oldest is None else max(0.0, self._now() - counts.oldest)
        yield GaugeMetricFamily(
            "deferd_queue_oldest_age_seconds", "How long the oldest unfinished job has been here.", value=age
        )

    def _collect_damaged(self) -> Iterator[Metric]:
        try:
            damaged = len(self._set_aside())
        except OSError:  # as with the queue: a number that is missing is better than a wrong one, or none at all
            return
        yield GaugeMetricFamily(
            "deferd_damaged_queues", "Damaged queues that were set aside, and whose folders are still there.", damaged
        )

    def _collect_phases(self) -> Metric:
        family = HistogramMetricFamily(
            "deferd_attempt_phase_seconds", "How long each step of an attempt took.", labels=["phase"]
        )
        for phase, histogram in self._phases.items():
            family.add_metric([phase], histogram.buckets(), histogram.sum)
        return family


class _Histogram:
    """Durations in buckets. prometheus_client's own takes a lock for each bucket, and steps are the daily bread."""

    __slots__ = ("_counts", "sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(_BUCKETS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Each bucket's end and how many were not longer than that."""
        total = 0
        filled = []
        for end, count in zip(_ENDS, self._counts, strict=True):
            total += count
            filled.append((end, float(total)))
        return filled
