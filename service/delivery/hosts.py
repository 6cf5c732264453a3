"""Which of a site's relays to ask first: those that did not serve us lately come last.

Without this, a dead first relay would cost every message the time to find that out anew. It is a matter of order alone:
a relay that came last is still asked when all others fail.
"""

from __future__ import annotations

from functools import lru_cache

from config.settings import Relay, SiteRest
from service.delivery.policy import rest_length


@lru_cache(10_000)  # each message asks, and all share the text
def name_of(relay: Relay) -> str:
    """A host as operators know it: "smtp.provider.example:587"."""
    return str(relay).partition("://")[2]


class Hosts:
    """What is remembered of relays that failed; of those that serve, nothing."""

    def __init__(self) -> None:
        self._failed: dict[str, tuple[int, float]] = {}  # times in a row, until when it comes last

    def order(self, relays: tuple[Relay, ...], now: float) -> tuple[Relay, ...]:
        """The relays in the order in which to ask them."""
        if len(relays) == 1 or not self._failed:
            return relays
        return tuple(sorted(relays, key=lambda relay: self._failed.get(name_of(relay), (0, now))[1] > now))

    def failed(self, host: str, now: float, rest: SiteRest) -> None:
        """The host of that name did not serve us: it comes last for as long as a site would rest."""
        times, until = self._failed.get(host, (0, now))
        if until <= now:  # what failed together counts once
            self._failed[host] = (times + 1, now + rest_length(times + 1, rest, 0.0, 0.0))

    def served(self, host: str) -> None:
        """The host of that name served us."""
        self._failed.pop(host, None)
