"""What really happened in a simulated world, written down beside the daemon, whose own books are audited by these."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deferred.testing import SimulatedReactor
from deferred.testing.network import SimulatedStream

States = dict[tuple[str, str], str]
"""(token, recipient) -> state, as committed."""


@dataclass
class Mail:
    """A job that was dropped at a time of the world's. `not_before` is on the clock of the daemon's wall, None where
    that has shown it, or an operator did not want to wait."""

    token: str
    sender: str
    recipients: tuple[str, ...]
    not_before: float | None = None
    key: str | None = None
    in_doubt: str = "retry"
    removed: bool = False
    released: list[float] = field(default_factory=list)
    """When an operator let it go on."""
    dropped: float = 0.0
    expires: float | None = None


@dataclass
class Taking:
    """A server took a message for a recipient. `answer_end` tells how many octets it had said with its 250."""

    token: str
    recipient: str
    at: float
    life: Life
    client: SimulatedStream
    answer_end: float
    host: str

    @property
    def answered(self) -> bool:
        """Whether the daemon has read the whole 250."""
        return self.client.received >= self.answer_end


@dataclass
class Life:
    """One run of the daemon, from its start to its end; `states` is what it had committed by then."""

    number: int
    machine: SimulatedReactor
    began: float
    ended: float | None = None
    how: str = ""
    told: dict[tuple[str, str], str] = field(default_factory=dict)
    states: States = field(default_factory=dict)


@dataclass
class Report:
    """What a bounce or a warning says that arrived at its sender's."""

    token: str
    message_id: str
    action: str
    recipients: tuple[str, ...]


class Books:
    """Jobs, what became of them, and everything that was done to the daemon, counted by kind."""

    def __init__(self, directory: Path, keep: bool = False) -> None:
        self._place = str(directory)
        self.mail: dict[str, Mail] = {}
        self.takings: list[Taking] = []
        self.lives: list[Life] = []
        self.reports: list[Report] = []
        self.tokens: dict[str, str] = {}
        """A job's id -> the token in its content."""
        self.doubts: list[tuple[float, str, str]] = []
        """(time, token, recipient) of what the daemon said to be in doubt."""
        self.possible: list[tuple[float, str, str]] = []
        """(time, token, recipient) of what the daemon said that somebody may get twice."""
        self.lateness: list[float] = []
        """Seconds after its `not_before` that a job was first tried, at each of its sites."""
        self.faults: Counter[str] = Counter()
        self.duplicates: Counter[str] = Counter()
        self.violations: list[str] = []
        self.lines: list[str] = []
        self._keep = keep
        self._hash = hashlib.sha256()

    def trace(self, time: float, what: str, facts: dict[str, Any]) -> None:
        """One more line of the trace."""
        line = f"{time:15.6f} {what} " + " ".join(f"{key}={value!r}" for key, value in facts.items())
        line = line.replace(self._place, "SPOOL")
        self._hash.update(line.encode(errors="backslashreplace"))
        if self._keep:
            self.lines.append(line)

    def life_of(self, machine: SimulatedReactor) -> Life:
        """Which life it is that runs there."""
        return next(life for life in reversed(self.lives) if life.machine is machine)

    @property
    def digest(self) -> str:
        """Tells two traces apart."""
        return self._hash.hexdigest()

    def violated(self, time: float, what: str) -> None:
        """A promise was broken."""
        self.trace(time, "VIOLATION", {"what": what})
        self.violations.append(f"at {time:.3f} s: {what}")
