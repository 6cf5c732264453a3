"""Where a message goes next."""

from __future__ import annotations

import pytest

from config.settings import Relay, Route, Secret
from service.delivery.routes import UNROUTED, Router

A = Relay("smtp", "a.relay.test", 25)
B = Relay("smtp", "b.relay.test", 587)


def router(*routes: tuple[str, Relay]) -> Router:
    return Router([Route(domains=(pattern,), relay=(relay,)) for pattern, relay in routes])


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("x@example.com", "a.relay.test:25"),
        ("x@EXAMPLE.com", "a.relay.test:25"),
        ("x@sub.example.com", "unrouted"),
        ("x@sub.example.net", "b.relay.test:587"),
        ("x@deep.sub.example.net", "b.relay.test:587"),
        ("x@example.net", "unrouted"),
        ("x@notexample.net", "unrouted"),
        ("x@bücher.example", "a.relay.test:25"),
        ("x@xn--bcher-kva.example", "a.relay.test:25"),
        ('"odd@name"@example.com', "a.relay.test:25"),
    ],
)
def test_a_pattern_fits_a_domain_or_what_is_below_it(address: str, site: str) -> None:
    """Domains are compared as A-labels, ignoring case; `*.domain` is not the domain itself."""
    routes = router(("example.com", A), ("*.example.net", B), ("xn--bcher-kva.example", A))
    assert routes.site_of(address) == site


@pytest.mark.parametrize("first", [A, B])
def test_the_first_route_that_fits_counts(first: Relay) -> None:
    """Not the most exact one."""
    second = B if first is A else A
    assert router(("*.example.net", first), ("x.example.net", second)).site_for("u@x.example.net").relays == (first,)
    assert router(("*", first), ("example.net", second)).site_for("u@example.net").relays == (first,)
    assert router(("example.net", first), ("*", second)).site_for("u@example.net").relays == (first,)


def test_the_star_takes_address_literals_too() -> None:
    """`*` is anything at all."""
    assert router(("*", A)).site_of("u@[192.0.2.1]") == "a.relay.test:25"


def test_routes_to_the_same_relays_share_a_site() -> None:
    """And with it connections, limits and rest."""
    routes = router(("example.com", A), ("example.net", A))
    assert routes.site_for("u@example.com") is not UNROUTED
    assert routes.site_for("u@example.com") == routes.site_for("u@example.net")
    assert set(routes.sites()) == {"a.relay.test:25", "unrouted"}


def test_sites_that_differ_have_names_that_differ() -> None:
    """By who we are there, how it is reached, or a number; the password is never in a name or repr."""
    same = {"domains": ("*",), "relay": (A,)}
    routes = Router(
        [
            Route(**same),
            Route(**same, tls="none"),
            Route(**same, username="ann", password=Secret("s3cret")),
            Route(**same, username="ann", password=Secret("0ther")),
            Route(domains=("*",), relay=(A, B)),
        ]
    )
    assert list(routes.sites()) == [
        "a.relay.test:25/anonymous/verify",
        "a.relay.test:25/anonymous/none",
        "a.relay.test:25/ann/verify",
        "a.relay.test:25/ann/verify#2",
        "a.relay.test:25,b.relay.test:587",
        "unrouted",
    ]
    assert "s3cret" not in repr(routes.sites())


def test_the_fingerprint_changes_with_the_table() -> None:
    """What may route an address elsewhere shows; what may not does not."""
    prints = [
        router(("example.com", A)).fingerprint(),
        router(("example.com", B)).fingerprint(),
        router(("example.net", A)).fingerprint(),
        router(("example.com", A), ("*", B)).fingerprint(),
        router(("*", B), ("example.com", A)).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert router(("example.com", A)).fingerprint() == prints[0]


def test_an_ipv6_relay_is_named_in_brackets() -> None:
    """As in a URL."""
    assert router(("*", Relay("smtp", "2001:db8::1", 25))).site_of("u@example.com") == "[2001:db8::1]:25"
