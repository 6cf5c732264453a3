"""Sites as delivery knows them, as lines of the page."""

from __future__ import annotations

from collections.abc import Iterable

from service.delivery.sites import SiteView
from service.web.page import SiteLine


def site_lines(views: Iterable[SiteView]) -> list[SiteLine]:
    """A line for each."""
    return [
        SiteLine(
            site=view.name,
            in_flight=view.in_flight,
            limit=view.limit,
            rate=view.rate,
            rest_until=view.resting_until,
            next_at=view.next_at,
            oldest="" if view.oldest is None else f"{view.oldest.id}: {view.oldest.step}",
            oldest_since=None if view.oldest is None else view.oldest.since,
            why=view.last_error,
        )
        for view in views
    ]
