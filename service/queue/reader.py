"""Makes jobs of dropped files, by the settings as they are at that moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from config.settings import Settings
from deferred.interfaces import TimeSource
from service.message.job import Job
from service.message.read import ReadingRules, read_job
from service.queue.attachments import Attachments


class JobReader:
    """`settings()` are those to go by, `new` is the drop directory, `unique()` gives a new id's text."""

    def __init__(
        self, settings: Callable[[], Settings], new: Path, clock: TimeSource, unique: Callable[[], str]
    ) -> None:
        self._settings = settings
        self._new = new
        self._clock = clock
        self._unique = unique
        self._follow(settings())

    def _follow(self, settings: Settings) -> None:
        limits, folders = settings.limits, [Path(folder) for folder in settings.queue.attachments]
        self._followed = settings
        self._rules = ReadingRules(settings.hostname, limits.message_size, limits.recipients)
        self._attachments = Attachments(self._new, folders, most=limits.message_size)

    def __call__(self, name: str, octets: bytes) -> Job:
        """The job in the file of this name. Raises `JobError`, and what reading an attachment raises."""
        settings = self._settings()
        if settings is not self._followed:
            self._follow(settings)
        return read_job(
            name,
            octets,
            rules=self._rules,
            now=self._clock.wall_time(),
            unique=self._unique,
            open_attachment=self._attachments.read,
        )
