"""The steps of a conversation: how long each may take, and how long it took."""

from __future__ import annotations

from typing import Final

from config.settings import Timeouts
from deferred.interfaces import TimeSource
from service.journal import Journal
from service.message.outcome import Phase

_IN_ONE_GO: Final = (Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.BODY, Phase.CONFIRM)
"""Phases that pipelining lets pass within one read: each is still a step to tell."""


def _passed(before: Phase, phase: Phase) -> tuple[str, ...]:
    if before in _IN_ONE_GO and phase in _IN_ONE_GO[_IN_ONE_GO.index(before) :]:
        return tuple(each.value for each in _IN_ONE_GO[_IN_ONE_GO.index(before) : _IN_ONE_GO.index(phase)])
    return (before.value,)


_PASSED: Final = {(before, phase): _passed(before, phase) for before in Phase for phase in Phase}
"""The names of the phases that a conversation has gone through which was in one before and is in another now."""


def deadline(phase: Phase, full: bool, timeouts: Timeouts) -> float:
    """Seconds that a wait in this phase may take: for one whole reply, or for one piece of content to go out.

    `full`: some of what was written has not gone out, so that it is our turn to write, not the server's to answer.
    """
    match phase:
        case Phase.GREETING:
            return timeouts.greeting
        case Phase.DATA:
            return timeouts.data
        case Phase.BODY:
            return timeouts.write
        case Phase.CONFIRM:
            return timeouts.write if full else timeouts.confirm
        case _:
            return timeouts.command


class Steps:
    """Tells the journal of each phase that a conversation has gone through, and of the seconds it took."""

    __slots__ = ("_began", "_clock", "_host", "_journal", "_phase", "job")

    def __init__(self, clock: TimeSource, journal: Journal, host: str, phase: Phase) -> None:
        self.job = ""
        """The id of the job that the conversation is held for."""
        self._clock = clock
        self._journal = journal
        self._host = host
        self._phase = phase
        self._began = clock.time()

    def begin(self, job: str, phase: Phase) -> None:
        """A message begins, in this phase: there was nothing to do before."""
        self.job = job
        self._phase = phase
        self._began = self._clock.time()

    def end(self, job: str) -> None:
        """The message has its answers; what comes now is done for this job, whose envelope has gone ahead, if any."""
        self.reach(Phase.MAIL)
        self.job = job

    def reach(self, phase: Phase) -> None:
        """The conversation waits in `phase` now."""
        before = self._phase
        if phase is before:
            return
        time = self._clock.time()
        seconds, self._began = time - self._began, time
        self._phase = phase
        for name in _PASSED[before, phase]:
            self._journal.tell("step", id=self.job, host=self._host, phase=name, seconds=seconds)
            seconds = 0.0  # the others took none
