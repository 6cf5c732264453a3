"""Messages at which hosts have failed, or asked for less, again and again: while others get through, it may be them.

Trouble at a server uses up no attempt, so such a message would be offered at the end of each rest, and where it goes
before the others it alone would find out whether the site is back: one that makes a server hang up would keep all mail
from a site that serves. From the second time in a row on it therefore comes a little behind the end of the rest, when
another may have found out, and where its own delay, which doubles as rests do, is longer, after that. While a site is
down the two grow alike, and nothing is later for it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from config.settings import SiteRest
from service.delivery.policy import rest_length
from service.queue.store import Claim

BEHIND: Final = 0.1
"""Seconds behind the end of the rest: enough for another message to be claimed."""

MOST: Final = 10_000
"""Messages that are remembered: beyond, the one that failed longest ago is as if it never had."""

Key = tuple[str, str]


class Setbacks:
    """How often in a row each message was set back, since the daemon's start."""

    def __init__(self) -> None:
        self._times: OrderedDict[Key, int] = OrderedDict()

    def again(self, claim: Claim, delay: float, rest: SiteRest) -> float:
        """It has happened again, and `delay` seconds are to pass for its site's sake: return those for its own."""
        key = claim.id, claim.site
        before = self._times.pop(key, 0)
        self._times[key] = before + 1
        if len(self._times) > MOST:
            self._times.popitem(last=False)
        return max(delay + BEHIND, rest_length(before, rest, 0.0, 0.0)) if before else delay

    def over(self, claim: Claim) -> None:
        """A host has answered for it."""
        if self._times:
            self._times.pop((claim.id, claim.site), None)
