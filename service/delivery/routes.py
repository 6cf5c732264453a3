"""Where a message goes next: routes out of the configuration, and the sites they lead to.

Every address is routed: one that no route fits goes to `UNROUTED`, a site without relays, which fails it in clear words
instead of letting it wait for ever. Nothing here waits or remembers: a table is built once and asked.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from config.settings import Relay, Route, Tls
from service.delivery.hosts import name_of
from service.message.address import domain_of
from service.smtp.auth import Credentials


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where messages go next: the relays, tried in order, and how we meet them.

    Routes that lead to the same relays in the same way share one site, and with it connections, limits and rest.
    `name` is for operators: the relays, and what else it takes to tell it from another. `connections` and `rate`
    (messages a second) are its own limits; None: those of `limits`.
    """

    name: str
    relays: tuple[Relay, ...] = ()
    tls: Tls = "verify"
    credentials: Credentials | None = None
    ca_file: str | None = None
    connections: int | None = None
    rate: float | None = None


UNROUTED: Final = Site(name="unrouted")
"""Where addresses go that no route fits."""


class Router:
    """The routes as a table: built once for each configuration."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)
        self._sites = _name(_target(route) for route in self._routes)
        self._exact: dict[str, int] = {}
        self._below: dict[str, int] = {}
        self._any: int | None = None
        for position, route in enumerate(self._routes):
            for pattern in route.domains:
                self._enter(pattern.lower(), position)

    def _enter(self, pattern: str, position: int) -> None:
        if pattern == "*":
            self._any = position if self._any is None else self._any
        elif pattern.startswith("*."):
            self._below.setdefault(pattern[2:], position)
        else:
            self._exact.setdefault(pattern, position)

    def site_for(self, address: str) -> Site:
        """The site of the first route whose pattern fits the address's domain; `UNROUTED` where none does."""
        domain = domain_of(address)
        fitting = [self._any, self._exact.get(domain)]
        while "." in domain:
            domain = domain.partition(".")[2]
            fitting.append(self._below.get(domain))
        first = min((position for position in fitting if position is not None), default=None)
        return UNROUTED if first is None else self._sites[first]

    def site_of(self, address: str) -> str:
        """The name of the site that the address is routed to."""
        return self.site_for(address).name

    def sites(self) -> dict[str, Site]:
        """Each site under its name, in the order of the routes; `UNROUTED` is one of them."""
        return {site.name: site for site in (*self._sites, UNROUTED)}

    def fingerprint(self) -> str:
        """A text that changes when some address may be routed to another site than before (`Store.reroute`)."""
        table = [(route.domains, site.name) for route, site in zip(self._routes, self._sites, strict=True)]
        return hashlib.sha256(repr(table).encode()).hexdigest()


def _target(route: Route) -> Site:
    """The route's site, named after its relays alone."""
    credentials = None
    if route.username is not None and route.password is not None:
        credentials = Credentials(route.username, route.password)
    return Site(
        name=",".join(map(name_of, route.relay)),
        relays=route.relay,
        tls=route.tls,
        credentials=credentials,
        ca_file=route.ca_file,
        connections=route.connections,
        rate=route.rate,
    )


def _name(targets: Iterable[Site]) -> list[Site]:
    """The same sites under names that tell different ones apart, by the first of these that does: who we are there,
    how it is reached, a number."""
    targets = list(targets)
    different = dict.fromkeys(targets)
    namesakes = Counter(site.name for site in different)
    of_the_user = Counter((site.name, _user(site)) for site in different)
    named: dict[Site, str] = {}
    numbers: dict[str, int] = {}  # by name: the last that was given
    for site in different:
        name = site.name
        if namesakes[site.name] > of_the_user[site.name, _user(site)]:
            name += f"/{_user(site)}"
        if of_the_user[site.name, _user(site)] > 1:
            name += f"/{site.tls}"
        named[site] = _numbered(name, numbers)
    return [msgspec.structs.replace(site, name=named[site]) for site in targets]


def _user(site: Site) -> str:
    return site.credentials.username if site.credentials else "anonymous"


def _numbered(name: str, numbers: dict[str, int]) -> str:
    """The name, or, where it was given already, with the next number that makes another one of it."""
    first, numbered = name.partition("#")[0], name
    while numbered in numbers:
        numbers[name] += 1
        numbered = f"{first}#{numbers[name]}"
    numbers[numbered] = 1
    return numbered
