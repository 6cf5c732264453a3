"""A visit to each relay, by the delivery's own connection, up to where it would take mail. Nothing is sent."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from config.settings import Relay, Settings, Timeouts, Tls
from deferred.defer import Deferred, gather_results
from deferred.failure import Failure
from deferred.interfaces import Address
from deferred.protocol import Transport
from deferred.reactor import Reactor
from service.daemon import trust
from service.delivery.conversation import Conversation
from service.delivery.encryption import Encryption, Sessions
from service.delivery.receipt import describe
from service.delivery.routes import Router, Site
from service.delivery.tls import Contexts
from service.journal import Journal
from service.message.outcome import Phase
from service.smtp.errors import HostFailure
from service.smtp.options import SessionOptions
from service.smtp.session import Session

PATIENCE: Final = 30.0
"""Seconds for each step at most: a person is waiting."""

SOON: Final = 14 * 86_400.0
"""Seconds before its end at which a certificate is called to mind."""


class Relayed(msgspec.Struct, frozen=True):
    """What a visit brought. `tls` is the protocol's version, "" in the clear."""

    relay: str
    ok: bool
    text: str
    tls: str = ""


def visit(settings: Settings) -> list[Relayed]:
    """Visit each relay of each site once, all at the same time; tell of them in the order of the routes."""
    contexts = Contexts(trust)
    with Reactor() as reactor:
        visits = [
            Visit(reactor, contexts, settings, site, relay).begin()
            for site in Router(settings.routes).sites().values()
            for relay in site.relays
        ]
        return reactor.run_until_complete(gather_results(visits))


class _Visitor(Conversation):
    """A conversation whose transport can be asked about TLS."""

    transport: Transport

    def connection_made(self, transport: Transport) -> None:
        """The stream is there."""
        self.transport = transport
        super().connection_made(transport)


class Visit:
    """One relay, visited as deliveries for its site do it."""

    def __init__(self, reactor: Reactor, contexts: Contexts, settings: Settings, site: Site, relay: Relay) -> None:
        self._reactor = reactor
        self._contexts = contexts
        self._settings = settings
        self._site = site
        self._relay = relay
        self._timeouts = Timeouts(
            **{name: min(seconds, PATIENCE) for name, seconds in msgspec.structs.asdict(settings.timeouts).items()}
        )
        self._name = str(relay) if site.credentials is None else f"{relay} as {site.credentials.username}"
        self._plain_because = ""

    def begin(self) -> Deferred[Relayed]:
        """Fire with what came of it, good or bad."""
        d: Deferred[Any] = self._reactor.getaddrinfo(self._relay.host, self._relay.port)
        d.add_timeout(self._timeouts.connect, self._reactor)
        d.add_callback(self._connect)
        d.add_errback(self._in_the_clear)
        d.add_callbacks(self._served, self._refused)
        return d

    def _connect(self, addresses: list[Address]) -> Deferred[_Visitor]:
        d = self._reactor.create_connection(self._visitor, addresses, timeout=self._timeouts.connect)
        return d.add_callback(lambda visitor: visitor.handshake().add_callback(lambda _: visitor))

    def _visitor(self) -> _Visitor:
        site, relay = self._site, self._relay
        secure = relay.scheme == "smtps"
        policy = "encrypt" if secure and site.tls in ("none", "opportunistic") else site.tls
        session = self._session = Session(
            SessionOptions(
                hostname=self._settings.hostname,
                tls=policy,
                credentials=site.credentials,
                secure=secure,
                lmtp=relay.scheme == "lmtp",
                host=str(relay),
                skip_starttls=bool(self._plain_because),
            )
        )
        return _Visitor(
            self._reactor,
            session,
            Journal(),
            host=str(relay),
            timeouts=self._timeouts,
            encryption=None if policy == "none" else self._encryption(policy),
        )

    def _encryption(self, policy: Tls) -> Encryption:
        context = self._contexts.get(policy, self._site.ca_file)
        return Encryption(context, self._relay.host, Sessions(self._reactor), (self._site.name, self._name))

    def _in_the_clear(self, failure: Failure) -> Any:
        """Where TLS failed and need not be: once more without, as a delivery would."""
        error = failure.value
        may = self._site.tls == "opportunistic" and self._site.credentials is None and self._relay.scheme != "smtps"
        if not (isinstance(error, HostFailure) and error.phase is Phase.TLS and may):
            return failure
        self._plain_because = error.text
        return self._reactor.getaddrinfo(self._relay.host, self._relay.port).add_callback(self._connect)

    def _served(self, visitor: _Visitor) -> Relayed:
        told = Relayed(self._name, True, ", ".join(self._findings(visitor)), self._tls_version(visitor))
        visitor.quit()
        return told

    def _refused(self, failure: Failure) -> Relayed:
        error = failure.value
        if isinstance(error, HostFailure):
            return Relayed(self._name, False, str(error))
        if isinstance(error, OSError):
            return Relayed(self._name, False, f"connect: {describe(error)}")
        return failure.raise_exception()

    def _findings(self, visitor: _Visitor) -> Iterator[str]:
        if visitor.secure:
            yield from self._about_tls(visitor.transport)
        else:
            why = self._plain_because or self._session.tls_refusal
            yield f"in the clear ({why})" if why else "in the clear"
        if self._site.credentials is not None:
            yield "the password is taken"
        limit = self._session.extensions.size_limit
        if limit is not None and limit < self._settings.limits.message_size:
            yield f"takes at most {limit} octets, less than limits.message_size"

    def _about_tls(self, transport: Transport) -> Iterator[str]:
        cipher = transport.get_extra_info("cipher")
        yield f"{self._version(transport)} {cipher[0] if cipher else ''}".strip()
        certificate = transport.get_extra_info("peercert") or {}
        ends = certificate.get("notAfter")
        if ends is None:
            yield "certificate not checked"
            return
        names = [value for _, value in certificate.get("subjectAltName", ())]
        yield f"certificate for {' '.join(names[:5])} until {ends}"
        if ssl.cert_time_to_seconds(ends) - self._reactor.wall_time() < SOON:
            yield "WHICH IS SOON"

    def _tls_version(self, visitor: _Visitor) -> str:
        return self._version(visitor.transport) if visitor.secure else ""

    @staticmethod
    def _version(transport: Transport) -> str:
        return str(transport.get_extra_info("ssl_object").version())
