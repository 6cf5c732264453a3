"""What is right in a configuration, and risky all the same."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from config.settings import Route, Settings

_SHOWN: Final = 5
"""Domains that are named."""


def risks(settings: Settings) -> Iterator[str]:
    """Each risk, with the key's path and what to do."""
    for number, route in enumerate(settings.routes):
        for risk in _of_route(route):
            yield f"routes[{number}]{risk}"
    yield from _of_order(settings.routes)
    yield from _of_waiting(settings)
    yield from _of_queue(Path(settings.queue.directory))
    if settings.hostname.startswith("["):
        yield f"hostname: is {settings.hostname}, as this machine has no full name; set the one that it has on the net"
    retry = settings.retry
    if retry.warn_after is not None and retry.warn_after >= retry.max_age:
        yield "retry.warn_after: is not less than retry.max_age, so that no sender is ever told of a delay"
    if settings.limits.connections_per_site > settings.limits.connections:
        yield "limits.connections_per_site: is more than limits.connections, which bounds it"
    for number, route in enumerate(settings.routes):
        if route.connections is not None and route.connections > settings.limits.connections:
            yield f"routes[{number}].connections: is more than limits.connections, which bounds it"


def _of_route(route: Route) -> Iterator[str]:
    if route.password is not None:
        if route.tls == "none":
            yield ".tls: is none, and the password goes out in the clear; use verify, or trust every wire on the way"
        elif route.tls == "opportunistic":
            yield ".tls: is opportunistic, and the password never goes out in the clear: without TLS, no mail does"
        elif route.tls == "encrypt":
            yield ".tls: is encrypt, and the password goes to whoever answers for the relay; use verify"
    if route.ca_file is not None and route.tls != "verify":
        yield f".ca_file: is not used, since tls is {route.tls}; use verify"
    if route.password_file is not None and (mode := _mode(route.password_file)) is not None and mode & stat.S_IROTH:
        yield f".password_file: can be read by everybody (mode {stat.S_IMODE(mode):04o}); chmod o-r it"


def _of_order(routes: tuple[Route, ...]) -> Iterator[str]:
    """Routes that no mail reaches, and mail that no route takes."""
    seen: dict[str, int] = {}
    for number, route in enumerate(routes):
        for position, pattern in enumerate(route.domains):
            path = f"routes[{number}].domains[{position}]"
            if "*" in seen:
                yield f"{path}: is never reached, since routes[{seen['*']}] takes every domain; put that last"
            elif pattern in seen:
                yield f"{path}: is never reached, since routes[{seen[pattern]}] has the same pattern"
            seen.setdefault(pattern, number)
    if "*" not in seen:
        yield 'routes: mail for other domains than these fails; add a route with domains: ["*"] if it should not'


def _of_waiting(settings: Settings) -> Iterator[str]:
    """Mail that waits now, and that these routes would fail."""
    if any("*" in route.domains for route in settings.routes):
        return
    from service.delivery.routes import UNROUTED, Router
    from service.message.address import domain_of
    from service.queue.commands import open_for_commands
    from service.queue.store import StoreFailed

    try:
        with open_for_commands(Path(settings.queue.directory), time.time) as store:
            waiting = store.waiting()
    except StoreFailed:  # there is none yet, or it cannot be read: what is wrong with it the daemon says at its start
        return
    router = Router(settings.routes)
    lost = Counter(domain_of(address) for address in waiting if router.site_of(address) == UNROUTED.name)
    if lost:
        shown = ", ".join(f"{domain} ({number})" for domain, number in lost.most_common(_SHOWN))
        yield (
            f"routes: no route fits {lost.total()} of the addresses that mail waits for in the queue, and it fails with"
            f" the next start or reload: {shown}{', …' if len(lost) > _SHOWN else ''}; add the routes that it needs"
        )


def _of_queue(directory: Path) -> Iterator[str]:
    """Whether we could work in the queue's directory, or create it."""
    there = next(path for path in (directory, *directory.parents) if path.exists())
    if not there.is_dir():
        yield f"queue.directory: {there} is no directory"
    elif not os.access(there, os.W_OK | os.X_OK):
        what = "cannot be written" if there == directory else f"does not exist, and {there} cannot be written"
        yield f"queue.directory: {directory} {what} by this user; deferd must run as one who can"


def _mode(path: str) -> int | None:
    try:
        return Path(path).stat().st_mode
    except OSError:
        return None
