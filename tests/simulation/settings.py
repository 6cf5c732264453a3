"""Random configurations: a few sites with a relay or two each, and limits small enough to be met."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from config.settings import Http, Limits, Queue, Relay, Retry, Route, Settings, SiteRest, Timeouts

HOME = "home.test"
"""Where the senders are: reports go there."""


@dataclass(frozen=True)
class Plan:
    """Which sites there are: each is a tuple of relays' host names; each relay has addresses of its own."""

    sites: tuple[tuple[str, ...], ...]
    domains: tuple[str, ...]
    names: dict[str, list[str]]

    @property
    def hosts(self) -> list[str]:
        """Every address."""
        return [address for addresses in self.names.values() for address in addresses]

    def site_of(self, host: str) -> int:
        """The number of the site that an address belongs to."""
        for number, relays in enumerate(self.sites):
            if any(host in self.names[relay] for relay in relays):
                return number
        raise LookupError(host)


def draw_plan(random: Random) -> Plan:
    """Three or four sites; the first is the senders' own, with one relay."""
    sites: list[tuple[str, ...]] = [("relay0.test",)]
    names = {"relay0.test": ["10.0.0.1"]}
    for site in range(1, random.choice((3, 4))):
        relays = tuple(f"relay{site}{letter}.test" for letter in random.choice(("a", "a", "ab")))
        for number, relay in enumerate(relays):
            names[relay] = [f"10.0.{site}.{10 * number + last + 1}" for last in range(random.choice((1, 1, 2)))]
        sites.append(relays)
    return Plan(tuple(sites), tuple(f"domain{number}.test" for number in range(5)), names)


def ceiling(settings: Settings, relays: tuple[str, ...]) -> int:
    """How many connections a site may have at once."""
    own = [route.connections for route in settings.routes if tuple(relay.host for relay in route.relay) == relays]
    return max((settings.limits.connections_per_site if each is None else each for each in own), default=0)


def draw_settings(random: Random, plan: Plan, directory: Path, *, rates: bool = True) -> Settings:
    """A configuration for these sites, whose routes and limits are drawn. `rates`: whether it may say how fast."""
    paces = [random.choice((None, None, None, 0.05, 1.0)) if rates else None for _ in plan.sites]
    ceilings = [random.choice((None, None, 1, 7)) for _ in plan.sites]

    def relays(site: int) -> tuple[Relay, ...]:
        return tuple(Relay("smtp", relay, 25) for relay in plan.sites[site])

    def route(domain: str, site: int) -> Route:
        return Route(domains=(domain,), relay=relays(site), tls=tls, connections=ceilings[site], rate=paces[site])

    tls = random.choice(("none", "opportunistic"))  # one for all, so that the same relays are one site
    others = range(1, len(plan.sites))
    routes = [route(HOME, 0), *(route(domain, random.choice(others)) for domain in plan.domains[:-1])]
    routes.append(route("*", len(plan.sites) - 1))
    return Settings(
        queue=Queue(directory=str(directory)),
        hostname="deferd.test",
        routes=tuple(routes),
        retry=Retry(
            delays=random.choice(((60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0), (300.0, 3600.0), (600.0,))),
            max_age=random.choice((0.5, 1.0, 5.0)) * 86_400,
            warn_after=random.choice((None, 3600.0, 14_400.0)),
            site_rest=SiteRest(first=random.choice((1.0, 10.0)), longest=random.choice((300.0, 1800.0, 3600.0))),
        ),
        limits=Limits(
            connections=random.choice((2, 3, 5, 20)),
            connections_per_site=random.choice((1, 2, 3)),
            rate_per_site=random.choice((None, None, 0.2)) if rates else None,
            messages_per_connection=random.choice((1, 2, 5, 100)),
        ),
        timeouts=Timeouts(idle=random.choice((0.0, 10.0, 60.0))),
        http=Http(listen=random.choice((None, "127.0.0.1:8025"))),
    )
