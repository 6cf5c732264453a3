"""TLS for a connection: a full handshake, or the session of a connection before it, resumed.

To resume (RFC 8446, 2.2; RFC 5077) saves both sides the certificate: sending it, signing, and verifying the chain. It
weakens nothing, since a server can resume only what it has the keys of, and has had its certificate verified for:

* A session is offered to the host that it came from, under the name for which the certificate was verified.
* And only under the context that verified it, so never under another policy or by other authorities; the ssl module
  itself refuses a session of another context. A reload has new contexts, and forgets all sessions.
* It is good for an hour after the certificate was seen, however often it is resumed meanwhile: a certificate that has
  expired or is not trusted any more is found out by then.

A server that does not know the session any more answers with a full handshake, and is verified as ever. There are some
that break off instead, time and again: where a connection came to nothing that was to resume one, the next ones to this
host have a full handshake, for an hour.
"""

from __future__ import annotations

import ssl
from typing import Final, NoReturn

import msgspec

from deferred.defer import Deferred
from deferred.failure import Failure
from deferred.interfaces import TimeSource
from deferred.protocol import BufferedOctetsError, Transport
from service.delivery import tls
from service.delivery.remembered import ForAnHour, Key

_GOOD_FOR: Final = 3600.0
"""Seconds after its certificate was verified in which a session is resumed."""

MOST_SESSIONS: Final = 1000
"""That are kept, a few KiB each: beyond, the one that was verified longest ago goes."""


class NoTLS(Exception):
    """There is no TLS; `why` says it in one line, with words of whoever answered in it perhaps. `tampered`: somebody
    has put octets before the handshake."""

    def __init__(self, why: str, *, tampered: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.tampered = tampered


class _Kept(msgspec.Struct, frozen=True):
    session: ssl.SSLSession
    context: ssl.SSLContext
    verified_at: float


class Sessions:
    """A session with each host of each site."""

    def __init__(self, clock: TimeSource) -> None:
        self._clock = clock
        self._kept: dict[Key, _Kept] = {}
        self._in_vain = ForAnHour(clock)
        """Hosts to which a session was offered, and the connection came to nothing."""

    def find(self, key: Key, context: ssl.SSLContext) -> ssl.SSLSession | None:
        """The session to resume with this host under this context; None where there is none that is still good."""
        kept = self._kept.get(key)
        if kept is None or kept.context is not context or self._clock.time() - kept.verified_at >= _GOOD_FOR:
            return None
        return kept.session

    def keep(self, key: Key, session: ssl.SSLSession, context: ssl.SSLContext) -> None:
        """The next connections to this host may resume this session, whose certificate has just been verified."""
        if key in self._in_vain:
            return
        self._kept.pop(key, None)
        if len(self._kept) >= MOST_SESSIONS:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = _Kept(session, context, self._clock.time())

    def forget(self) -> None:
        """Resume nothing that was begun before now."""
        self._kept.clear()
        self._in_vain.clear()

    def in_vain(self, key: Key) -> None:
        """A session was offered to this host, and the connection came to nothing: perhaps for that."""
        self._kept.pop(key, None)
        self._in_vain.add(key)


class Encryption:
    """TLS for one connection to `key`, by the context of its route's policy, with the server named `server`."""

    __slots__ = ("_context", "_key", "_server", "_sessions", "offered")

    def __init__(self, context: ssl.SSLContext, server: str, sessions: Sessions, key: Key) -> None:
        self._context = context
        self._server = server
        self._sessions = sessions
        self._key = key
        self.offered = False
        """Whether it was to resume a session."""

    def begin(self, transport: Transport, timeout: float) -> Deferred[None]:
        """Fire when the transport has TLS. Fails with `NoTLS`."""
        session = self._sessions.find(self._key, self._context)
        self.offered = session is not None
        d = transport.start_tls(self._context, server_hostname=self._server, timeout=timeout, session=session)
        return d.add_errback(self._failed, transport)

    def _failed(self, failure: Failure, transport: Transport) -> NoReturn:
        failure.trap(OSError)  # of which ssl.SSLError, TimeoutError and ConnectionError are
        error = failure.value
        if isinstance(error, BufferedOctetsError):
            raise NoTLS("octets came before the TLS handshake, which may be anybody's", tampered=True)
        assert isinstance(error, OSError)
        raise NoTLS(tls.explain(error, self._server, transport.get_extra_info("ssl_object")))

    def failed(self) -> bool:
        """The connection came to nothing; whether it may have been for the session that was offered."""
        if self.offered:
            self._sessions.in_vain(self._key)
        return self.offered

    def remember(self, transport: Transport) -> None:
        """Let the next connections resume this one's session; to be called once the server has said something inside
        TLS, as with TLS 1.3 the ticket comes only behind the handshake.

        One that was itself resumed is not taken: the ssl module copies a session octet by octet, which costs as much
        as is saved, and the former one is as good. A server that takes each ticket once only gets a full handshake
        every other time.
        """
        inside: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        session = None if inside is None or inside.session_reused else inside.session
        if session is not None and (session.has_ticket or session.id):
            self._sessions.keep(self._key, session, self._context)
