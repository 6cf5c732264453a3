"""What is remembered of a site while the daemon runs: how it does, and whether there may be work for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from config.settings import Retry
from deferred.interfaces import TimerHandle
from service.delivery.policy import rest_length
from service.smtp.errors import HostFailure

Health = Literal["up", "resting", "probing"]


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    """A site as the page and the metrics show it. `resting_until` is by the store's time."""

    name: str
    health: Health
    resting_until: float | None
    in_flight: int
    last_error: str


@dataclass
class SiteState:
    """How one site does.

    `up` -> (host failure) `resting` -> (time) `probing` -> (served) `up` | (host failure) `resting`, for longer.
    While probing, one message at a time finds out whether the site is back: the others stay where they are. A site that
    asks for a password begins so: were the password wrong, twenty connections would be twenty failed logins at once,
    and the account perhaps locked. There the end of the first handshake is enough.
    """

    name: str
    health: Health = "up"
    failures: int = 0
    """Rests since the site last served."""
    failing_since: float | None = None
    """When the first of these began: None while the site serves."""
    rested_at: float = float("-inf")
    since: float = float("-inf")
    """When it last became another (its relays, its password): what began before says nothing of it."""
    rest_ends: float = 0.0
    last_error: str = ""
    ready: bool = False
    """Whether it stands in the scheduler's ring."""
    more: bool = False
    """Whether the store may have due work that was not claimed for want of room."""
    claiming: bool = False
    probe: str | None = None
    """The message that finds out whether the site is back; others may still hang there from before its rest."""
    timer: TimerHandle | None = None
    timer_due: float = 0.0
    rest_timer: TimerHandle | None = None

    @property
    def takes_work(self) -> bool:
        """Whether the site may be given a message now."""
        return self.health == "up" or (self.health == "probing" and self.probe is None)

    def rest(self, error: HostFailure, began: float, now: float, retry: Retry, spread: float) -> float | None:
        """The host was at fault in an attempt that began at `began`: rest, and return for how many seconds.

        None if the attempt began before the last rest: what failed together rests the site once, not once each.
        """
        if began < self.since:
            return None
        self.last_error = str(error)
        if began < self.rested_at or self.health == "resting":
            return None
        self.failures += 1
        if self.failing_since is None:
            self.failing_since = now
        length = rest_length(self.failures, retry.site_rest, retry.jitter, spread)
        self.health = "resting"
        self.rested_at, self.rest_ends = now, now + length
        return length

    def end_rest(self) -> None:
        """The rest is over: let one message find out."""
        if self.health == "resting":
            self.health = "probing"

    def introduced(self) -> bool:
        """A host of the site has taken us in, password and all; True if more than one message may come now."""
        if self.health != "probing" or self.failures:
            return False
        self.health = "up"
        return True

    def renewed(self, now: float) -> None:
        """The site is another from now on: let one message find out, whoever else is still about to."""
        self.since, self.probe = now, None
        self.end_rest()

    def served(self, began: float) -> bool:
        """A host of the site served us, in an attempt that began at `began`; True if that was news."""
        if began < self.since:
            return False
        back = self.failures > 0
        self.health = "up"
        self.failures = 0
        self.failing_since = None
        self.last_error = ""
        return back
