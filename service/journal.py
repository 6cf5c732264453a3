"""What happened, told once: an event and its facts, for the log, the metrics and whoever else listens.

An event is a constant in `EVENTS`, which says what it means and how loudly it is logged. Facts are plain values under
the names of the contract: `id`, `recipient`, `host`, `site`, `phase`, `code`, `attempt`, `delay`, ... What is no whole
number is a time in seconds, and has a name of `SECONDS`.
Passwords and message content are never facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal

Level = Literal["debug", "info", "warning", "error"]
Listener = Callable[[str, dict[str, object]], None]

EVENTS: Final[dict[str, Level]] = {
    # the daemon's life
    "started": "info",
    "draining": "info",
    "stopped": "info",
    "taken_up": "warning",  # in_flight: how many messages the former daemon had in flight when it died
    "reloaded": "info",
    "reload_failed": "error",
    "store_failed": "error",  # why; where: "stop" where the daemon has ended without it
    "store_recovered": "info",
    "clock_jumped": "warning",  # seconds (negative: back), why: the wall clock was set to another time
    "store_damaged": "error",  # why, path: where the damaged queue was set aside at the start; remedy
    "unhandled_error": "error",  # error, where or detail: a bug of ours, or an errback that is missing
    "log_dropped": "error",  # lines: how many were not written because nobody read the log
    # a job's life
    "job_accepted": "info",  # id, name, sender, recipients, size
    "job_rejected": "warning",  # name, why
    "job_known": "info",  # id, name: the same file or key again, not sent again
    "job_finished": "info",  # id, name, state
    "queue_changed": "info",  # change, jobs (how many), by; ids or site where these were named: an operator's command
    "watch_failed": "warning",  # why: no inotify; new/ is looked through again and again instead
    "intake_failed": "error",  # why: no job can be taken in (no descriptors left, new/ cannot be read)
    "intake_recovered": "info",
    "file_stuck": "error",  # name, why: accepted or rejected, but cannot be moved or removed; or cannot be read yet
    "result_failed": "error",  # name, why: a result file could not be written yet
    # an attempt's life
    "attempt_started": "info",  # id, site, attempt, recipients
    "step": "debug",  # id, host, phase, seconds: one link of the chain has been gone through
    "attempt_failed": "debug",  # id, host, phase, code, text: one host did not serve us
    "delivered": "info",  # id, recipient, host, code, text, attempt
    "deferred": "info",  # id, recipient, host, phase, code, text, attempt, delay
    "failed": "warning",  # id, recipient, host, phase, code, text, attempt
    "report_failed": "warning",  # as failed, of a message from the null sender: nobody is told, it is kept to be seen
    "bounced": "info",  # as failed; report: the id of the bounce that tells the sender
    "warned": "info",  # as deferred; report: the id of the warning
    "in_doubt": "warning",  # as deferred; decision (retry, hold; none: it has ended): the dot is out, no answer came
    "possible_duplicate": "warning",  # id, recipient, site, host, attempt: sent again, though somebody may have it
    "job_held": "warning",  # id, name, site, why: held by the daemon itself
    # a site's life
    "connected": "debug",  # site, host, tls
    "disconnected": "debug",  # site, host, messages
    "site_resting": "warning",  # site, host, phase, code, text, delay
    "site_back": "info",  # site
}

SECONDS: Final = ("seconds", "delay")


class Journal:
    """Tells each listener, in order, of each event."""

    def __init__(self, *listeners: Listener) -> None:
        self._wanted: dict[Listener, frozenset[str]] = {}
        self._listeners: dict[str, list[Listener]] = {event: [] for event in EVENTS}
        for listener in listeners:
            self.add(listener)

    def add(self, listener: Listener, events: Iterable[str] = EVENTS) -> None:
        """Tell `listener` of these events from now on, and of no others; one that is added again keeps its turn.

        Raises `KeyError` for what is none of `EVENTS`.
        """
        told = frozenset(events)
        if unknown := told - EVENTS.keys():
            raise KeyError(*unknown)
        self._wanted[listener] = told
        self._listeners = {event: [one for one, wanted in self._wanted.items() if event in wanted] for event in EVENTS}

    def tell(self, event: str, **facts: object) -> None:
        """Tell of `event`, one of `EVENTS`; raises `KeyError` for any other."""
        for listener in self._listeners[event]:
            listener(event, facts)
