"""Which relay is asked first."""

from __future__ import annotations

from config.settings import Relay, SiteRest
from service.delivery.hosts import Hosts, name_of

A, B = Relay("smtp", "a.test", 25), Relay("smtp", "b.test", 25)
REST = SiteRest(first=1.0, longest=300.0)


def test_relays_are_asked_in_order() -> None:
    """As the configuration has them."""
    assert Hosts().order((A, B), 0.0) == (A, B)


def test_a_relay_that_failed_comes_last_for_a_while() -> None:
    """A second, then two, doubling while it fails; it is never left out."""
    hosts = Hosts()
    hosts.failed(name_of(A), 0.0, REST)
    assert (hosts.order((A, B), 0.9), hosts.order((A, B), 1.0)) == ((B, A), (A, B))
    hosts.failed(name_of(A), 1.0, REST)
    assert (hosts.order((A, B), 2.9), hosts.order((A, B), 3.0)) == ((B, A), (A, B))


def test_what_failed_together_counts_once() -> None:
    """Twenty conversations that die at once are one failure."""
    hosts = Hosts()
    for _ in range(20):
        hosts.failed(name_of(A), 0.0, REST)
    assert hosts.order((A, B), 1.0) == (A, B)


def test_a_relay_that_serves_is_forgiven() -> None:
    """It begins anew with the first rest."""
    hosts = Hosts()
    hosts.failed(name_of(A), 0.0, REST)
    hosts.failed(name_of(A), 1.0, REST)
    hosts.served(name_of(A))
    hosts.failed(name_of(A), 3.0, REST)
    assert hosts.order((A, B), 4.0) == (A, B)


def test_all_failed_is_in_order_again() -> None:
    """There is nobody better to ask."""
    hosts = Hosts()
    hosts.failed(name_of(A), 0.0, REST)
    hosts.failed(name_of(B), 0.0, REST)
    assert hosts.order((A, B), 0.5) == (A, B)
