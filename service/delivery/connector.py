"""Opens connections, and keeps them between messages.

A connection is opened only by somebody who holds a slot of the pool; it is kept open for as long as the pool says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec

from config.settings import Relay, Settings, Tls
from deferred.defer import CancelledError, Deferred
from deferred.failure import Failure
from deferred.interfaces import Address, Reactor, TimerHandle
from service.delivery.connection import Connection
from service.delivery.encryption import Encryption, Sessions
from service.delivery.hosts import Hosts, name_of
from service.delivery.pool import Pool
from service.delivery.receipt import describe
from service.delivery.remembered import ForAnHour
from service.delivery.resolver import Resolver
from service.delivery.routes import Site
from service.delivery.tls import Contexts
from service.journal import Journal
from service.message.outcome import Phase
from service.smtp.errors import BrokenAnswer, ChunkingRefused, HostFailure
from service.smtp.options import SessionOptions
from service.smtp.session import Session

_CONNECT: Final = Phase.CONNECT.value
_MOST_ADDRESSES: Final = 8
"""Of one host that are tried, so that no name can keep an attempt busy without end."""


class Host(msgspec.Struct, frozen=True):
    """A server: a relay, at the addresses that are left to try."""

    relay: Relay
    name: str
    """The server as operators know it."""
    addresses: tuple[Address, ...]

    def without(self, addresses: Collection[Address]) -> Host:
        """The same server, at its other addresses."""
        if not addresses:
            return self
        return Host(self.relay, self.name, tuple(address for address in self.addresses if address not in addresses))


class Connector:
    """The connections of one daemon."""

    def __init__(
        self,
        reactor: Reactor,
        journal: Journal,
        pool: Pool[Connection],
        contexts: Contexts,
        settings: Settings,
        *,
        freed: Callable[[str], object],
        introduced: Callable[[str], object],
        more: Callable[[Connection], object],
    ) -> None:
        """`freed(site)` is called when a connection is gone, so that there may be room for another; `introduced(site)`
        when a new one has been through its handshake; `more(connection)` when one takes the next envelope ahead."""
        self._freed = freed
        self._more = more
        self._introduced = introduced
        self._reactor = reactor
        self._journal = journal
        self._pool = pool
        self._open: set[Connection] = set()
        self._hosts = Hosts()
        self._resolver = Resolver(reactor)
        self._tls_sessions = Sessions(reactor)
        self._plain = ForAnHour(reactor)
        """Hosts whose TLS failed: they are met in the clear at once, where the route says `opportunistic`."""
        self._unchunked = ForAnHour(reactor)
        """Hosts that are sent DATA, as they have offered CHUNKING without knowing it."""
        self._one_by_one = ForAnHour(reactor)
        """Hosts that get no envelope ahead, as they throw away what comes behind a message before they have said what
        becomes of that."""
        self._options: dict[SessionOptions, SessionOptions] = {}
        """Those in use: thousands of connections share what is the same."""
        self._timer: TimerHandle | None = None
        self.generation = 0
        """Of the settings: what was begun under an older one is not gone on with."""
        self.closing = False
        """Whether nothing is to be opened or kept any more."""
        self.configure(contexts, settings)

    def configure(self, contexts: Contexts, settings: Settings) -> None:
        """Go by these settings for connections opened from now on. None that is open takes another message: it may have
        been opened under a password or certificate that has changed, or in the clear."""
        self.generation += 1
        self._contexts = contexts
        self._settings = settings
        self._plain.clear()
        self._tls_sessions.forget()
        self._unchunked.clear()
        self._one_by_one.clear()
        self._options.clear()
        self._resolver.forget()
        self.close_idle()

    @property
    def connections(self) -> int:
        """Open connections, at work or kept."""
        return len(self._open)

    def introduced(self, connection: Connection) -> None:
        """A new connection takes messages; that says something of its site if it is still the same."""
        self._journal.tell("connected", site=connection.site, host=connection.host, tls=connection.secure)
        if connection.generation == self.generation:
            self._introduced(connection.site)

    # which host

    def in_order(self, site: Site) -> tuple[Relay, ...]:
        """The site's relays, those that failed lately last."""
        return self._hosts.order(site.relays, self._reactor.time())

    def failed(self, host: str) -> None:
        """A host did not serve us."""
        self._hosts.failed(host, self._reactor.time(), self._settings.retry.site_rest)

    def served(self, host: str) -> None:
        """A host served us."""
        self._hosts.served(host)

    # opening

    def resolve(self, relay: Relay) -> Deferred[Host]:
        """Fire with the relay and its addresses. Fails with `HostFailure`."""

        def found(addresses: list[Address]) -> Host | Failure:
            if not addresses:
                text = f"the name {relay.host} has no address"
                return Failure(HostFailure(Phase.CONNECT, text, host=name_of(relay)))
            return Host(relay, name_of(relay), tuple(dict.fromkeys(addresses))[:_MOST_ADDRESSES])

        def not_found(failure: Failure) -> Any:
            if not isinstance(failure.value, OSError):  # of which socket.gaierror and TimeoutError are
                return failure
            text = f"the name {relay.host} cannot be resolved: {describe(failure.value)}"
            return Failure(HostFailure(Phase.CONNECT, text, host=name_of(relay)))

        d = self._resolver.resolve(relay.host, relay.port, self._settings.timeouts.connect)
        d.add_callbacks(found, not_found)
        return d  # type: ignore[return-value]  # add_callbacks has changed what it fires with

    def connect(self, site: Site, host: Host, job: str) -> Deferred[Connection]:
        """Fire with a connection to the first of the host's addresses that answers. Fails with `HostFailure`, and with
        `CancelledError` where the settings have changed meanwhile: not even a password may go out in the old way."""
        for idle in self._pool.make_room():
            idle.quit(wait=False)
        began, generation = self._reactor.time(), self.generation

        def connected(connection: Connection) -> Connection:
            self._open.add(connection)
            if generation != self.generation:
                connection.abort()
                raise CancelledError
            seconds = self._reactor.time() - began
            self._journal.tell("step", id=job, host=host.name, phase=_CONNECT, seconds=seconds)
            return connection

        def failed(failure: Failure) -> Any:
            if not isinstance(failure.value, OSError):
                return failure
            return Failure(HostFailure(Phase.CONNECT, describe(failure.value), host=host.name))

        d = self._reactor.create_connection(
            lambda: self._new(site, host), host.addresses, timeout=self._settings.timeouts.connect
        )
        d.add_callbacks(connected, failed)
        return d

    def _new(self, site: Site, host: Host) -> Connection:
        relay, key = host.relay, (site.name, host.name)
        policy = "encrypt" if relay.scheme == "smtps" and site.tls in ("none", "opportunistic") else site.tls
        options = SessionOptions(
            hostname=self._settings.hostname,
            tls=policy,
            credentials=site.credentials,
            secure=relay.scheme == "smtps",
            lmtp=relay.scheme == "lmtp",
            host=host.name,
            skip_starttls=key in self._plain,
            chunking=key not in self._unchunked,
        )
        options = self._options.setdefault(options, options)
        return Connection(
            self._reactor,
            Session(options),
            self,
            self._journal,
            site=site.name,
            generation=self.generation,
            host=host.name,
            timeouts=self._settings.timeouts,
            encryption=None if policy == "none" else self._encryption(site, host, policy),
        )

    def _encryption(self, site: Site, host: Host, policy: Tls) -> Encryption:
        context = self._contexts.get(policy, site.ca_file)
        return Encryption(context, host.relay.host, self._tls_sessions, (site.name, host.name))

    def goes_on_in_the_clear(self, site: Site, host: Host, error: HostFailure) -> bool:
        """Whether a host whose TLS has just failed is to be met again without: where TLS is opportunistic, and there
        is no password to give away. It is remembered for a while, so that the next message need not fail first."""
        key = (site.name, host.name)
        if error.phase is not Phase.TLS or isinstance(error, BrokenAnswer):  # who interferes shall not have their way
            return False
        if site.tls != "opportunistic" or site.credentials is not None:
            return False
        if host.relay.scheme == "smtps" or key in self._plain:
            return False
        self._plain.add(key)
        return True

    def goes_on_without_chunking(self, site: Site, error: HostFailure) -> bool:
        """Whether a host that does not know BDAT, though it offers it, is to be met again, and sent DATA: once. It is
        remembered for a while, so that the next message need not fail first."""
        key = (site.name, error.host)
        if not isinstance(error, ChunkingRefused) or key in self._unchunked:
            return False
        self._unchunked.add(key)
        return True

    # keeping

    def take(self, site: Site) -> Connection | None:
        """A kept connection to this site that still stands."""
        while (connection := self._pool.take(site.name)) is not None:
            if connection.usable:
                return connection
            self._leave(connection)
        return None

    def keep(self, connection: Connection) -> None:
        """Keep a connection for the next message, or retire it if there shall be none. It is said twice where a message
        and the one sent behind it end with the same read."""
        if connection.retired:
            return
        site, now = connection.site, self._reactor.time()
        outdated = connection.generation != self.generation
        if self.closing or outdated or not self._pool.keep(site, connection, connection.messages, now):
            connection.retired = True
            self._pool.retire(site, connection)
        self._watch()

    def ahead(self, connection: Connection) -> None:
        """A connection takes the next envelope ahead: if it is to have another message at all, and answers such."""
        worn = connection.messages >= self._settings.limits.messages_per_connection
        in_vain = (connection.site, connection.host) in self._one_by_one
        if not worn and not in_vain and connection.generation == self.generation:
            self._more(connection)

    def ahead_in_vain(self, connection: Connection) -> None:
        """A connection has answered a message, and then not a word of the envelope that had gone ahead. It is
        remembered for a while, so that not every other message has to wait for that."""
        self._one_by_one.add((connection.site, connection.host))

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        self._pool.gone(connection)
        self._journal.tell("disconnected", site=connection.site, host=connection.host, messages=connection.messages)
        self._freed(connection.site)

    def close_idle(self, site: str | None = None) -> None:
        """Take leave on every kept connection, or (with a site) on every one to it."""
        for connection in self._pool.empty(site):
            self._leave(connection)
        if self._timer is not None and self._pool.next_expiry() is None:
            self._timer.cancel()
            self._timer = None

    def _leave(self, connection: Connection) -> None:
        self._pool.retire(connection.site, connection)
        connection.quit()

    def _watch(self) -> None:
        if self._timer is None and (expiry := self._pool.next_expiry()) is not None:
            self._timer = self._reactor.call_later(max(0.0, expiry - self._reactor.time()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        for connection in self._pool.expire(self._reactor.time()):
            self._leave(connection)
        self._watch()
