"""What is remembered of a site: how it does, how fast it may be served, and whether there may be work for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from config.settings import Retry
from deferred.interfaces import TimerHandle
from service.delivery.pace import Concurrency, TokenBucket
from service.delivery.policy import rest_length
from service.delivery.stock import Stock
from service.queue.store import Rest
from service.smtp.errors import HostFailure

Health = Literal["up", "resting", "probing"]


class Allowance(msgspec.Struct, frozen=True):
    """What a site may be given: `connections` at once, and `rate` messages a second (None: any number)."""

    connections: int
    rate: float | None


class UnderWay(msgspec.Struct, frozen=True, kw_only=True):
    """A message in flight: `since` when, by the store's time, and at which `step` it is, in words."""

    id: str
    since: float
    step: str


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    """A site as the page shows it. `resting_until` is by the store's time, as is `next_at`, before which it is given no
    message (None: it has no rate); `limit` is how many conversations it may have at once, as things are, `rate` how
    many messages a second, at most. `oldest` is the message that has been in flight for longest."""

    name: str
    health: Health
    resting_until: float | None
    in_flight: int
    limit: int
    rate: float | None
    next_at: float | None
    last_error: str
    oldest: UnderWay | None = None


@dataclass
class SiteState:
    """How one site does.

    `up` -> (host failure) `resting` -> (time) `probing` -> (served) `up` | (host failure) `resting`, for longer.
    While probing, one message at a time finds out whether the site is back: the others stay where they are. A site that
    asks for a password begins so: were the password wrong, twenty connections would be twenty failed logins at once,
    and the account perhaps locked. There the end of the first handshake is enough.
    """

    name: str
    concurrency: Concurrency
    pace: TokenBucket
    rate: float | None = None
    """Messages a second, at most: what `pace` keeps to."""
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
    stock: Stock = field(default_factory=Stock)
    """Claimed, and not begun yet."""
    ready: bool = False
    """Whether it stands in the scheduler's ring."""
    more: bool = False
    """Whether the store may have due work that was not claimed for want of room."""
    claiming: bool = False
    message_takes: float = 0.0
    """Seconds that a conversation needs for a message, about; 0 where that is not known."""
    ended_at: float = float("-inf")
    """When one had its answer."""
    claim_takes: float = 0.0
    """Seconds that the store took to answer when it was last asked for more."""
    noted: bool = False
    """Whether the store knows of its rest."""
    paced: bool = False
    """Whether the store knows of its rate."""
    paced_at: float = float("-inf")
    """When it was told of it last."""
    probe: str | None = None
    """The message that finds out whether the site is back; others may still hang there from before its rest."""
    timer: TimerHandle | None = None
    timer_due: float = 0.0
    rest_timer: TimerHandle | None = None
    pace_timer: TimerHandle | None = None
    stock_timer: TimerHandle | None = None

    def allow(self, allowance: Allowance) -> None:
        """Go by this allowance from now on."""
        self.concurrency.configure(allowance.connections)
        self.pace.configure(allowance.rate)
        self.rate = allowance.rate
        if self.pace_timer is not None:  # it rings for a token of the old rate
            self.pace_timer.cancel()
            self.pace_timer = None

    def ended(self, now: float, seconds: float) -> None:
        """A conversation has had a message for so many seconds."""
        self.ended_at = now
        self.message_takes = 0.7 * self.message_takes + 0.3 * seconds if self.message_takes else seconds

    def cancel_timers(self) -> None:
        """Nobody comes back to it any more."""
        for timer in (self.timer, self.rest_timer, self.pace_timer, self.stock_timer):
            if timer is not None:
                timer.cancel()
        self.timer = self.rest_timer = self.pace_timer = self.stock_timer = None

    @property
    def has_work(self) -> bool:
        """Whether there may be something to do for it: to begin, or to ask the store for."""
        return (self.more and not self.claiming) or bool(self.stock)

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

    def resume(self, rest: Rest, shift: float, now: float, longest: float) -> None:
        """Go on with a rest that a former process noted. `shift` is what the store's time has beyond ours; if more than
        `longest` seconds are left of it, the settings have changed, or a clock, and it is over."""
        self.health = "resting"
        self.failures, self.last_error, self.noted = rest.failures, rest.why, True
        self.failing_since = rest.since - shift
        self.rest_ends = rest.ends - shift if rest.ends - shift - now <= longest else now

    def as_rest(self, shift: float) -> Rest:
        """The rest, as the store is to remember it."""
        since = self.rested_at if self.failing_since is None else self.failing_since
        return Rest(
            site=self.name,
            ends=self.rest_ends + shift,
            failures=self.failures,
            since=since + shift,
            why=self.last_error,
        )

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


class Sites(dict[str, SiteState]):
    """The sites that there has been work for: one that is asked for is known from then on.

    `careful(site)` tells whether one message is to find out first how a site does that nothing is known of,
    `allowance(site)` what it may be given.
    """

    def __init__(self, careful: Callable[[str], bool], allowance: Callable[[str], Allowance]) -> None:
        super().__init__()
        self.careful = careful
        self.allowance = allowance

    def __missing__(self, name: str) -> SiteState:
        allowance = self.allowance(name)
        state = SiteState(name, Concurrency(allowance.connections), TokenBucket(allowance.rate), allowance.rate)
        state.health = "probing" if self.careful(name) else "up"
        self[name] = state
        return state
