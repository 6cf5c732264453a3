"""`get_page`: the content of a page, over http or https, as a Deferred.

    d = get_page("https://www.example.org/")
    d.add_callbacks(print_contents, explain)

What is not a page goes down the errback chain: a status of 400 and above, or of 3xx that leads nowhere (`HTTPError`), a
refused connection (`OSError`), an answer that is no HTTP or ends early (`BrokenAnswer`), one beyond the size limit
(`PageTooLarge`), one that does not come in time (`TimeoutError`), and an address that is none (`BadURL`). Nothing is
raised at the call.
The codec is h11's; the connection is the reactor's and serves one request. Cancelling the Deferred closes it.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import h11

from deferred.defer import Deferred, maybe_deferred, succeed
from deferred.interfaces import Address, Reactor
from deferred.protocol import BaseProtocol, Transport

TIMEOUT: Final = 30.0
"""Seconds for a page in all: name look-up, connection, handshake, redirects and content."""

MAX_SIZE: Final = 16 * 1024 * 1024
"""Octets of content."""

MAX_REDIRECTS: Final = 10

_ERROR_BODY: Final = 64 * 1024  # what an HTTPError carries: enough to read, too little to hurt
_MAX_HEAD: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_OURS: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "expect"})
_SECRET: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
_NO_URL: Final = re.compile(r"[\x00-\x20\x7f-\xa0\\]")
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
_SAFE: Final = "!#$%&'()*+,/:;=?@[]~"  # the reserved characters of RFC 3986, and % for what is quoted already


class BadURL(ValueError):
    """This is no address of a page that `get_page` can fetch, or none that it should; says why."""


class BrokenAnswer(ConnectionError):
    """The server's answer is no HTTP, or ended before it was complete."""


class PageTooLarge(Exception):
    """There is more content than the caller wants."""


class HTTPError(Exception):
    """The server answered, but not with the page.

    `status` is the answer's code (400 and above, or a 3xx that leads nowhere), `reason` the words that came with it,
    escaped, and `body` its content, at most 64 KiB of it.
    """

    def __init__(self, status: int, reason: str, body: bytes = b"") -> None:
        super().__init__(status, reason, body)
        self.status = status
        self.reason = reason
        self.body = body

    def __str__(self) -> str:
        return f"{self.status} {self.reason}".rstrip()


class URL(NamedTuple):
    """Where a page is. `host` is without brackets, `target` the path with its query, ready for the request line."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The Host field: brackets for IPv6, no port where it is the scheme's own (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


class Answer(NamedTuple):
    """A response as it came in; `location` is None where it has none."""

    status: int
    reason: str
    location: str | None
    body: bytes


def get_page(
    url: str,
    *,
    reactor: Reactor | None = None,
    timeout: float = TIMEOUT,
    tls: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
    max_size: int = MAX_SIZE,
    max_redirects: int = MAX_REDIRECTS,
) -> Deferred[bytes]:
    """Fire with the content of the page at `url` (http or https).

    `timeout` is in seconds and for all of it. `tls` says whom to trust (by default the system's authorities, and the
    certificate must name the host). `headers` are sent too; those with secrets go to no other host on a redirect.
    Redirects are followed `max_redirects` times, but never from https to http. `max_size` is in octets. `reactor` is
    by default the process's own (`deferred.reactor.get_reactor`).

    Fails with `HTTPError`, `OSError` (no such host, connection refused, lost, `ssl.SSLError`), `BrokenAnswer`,
    `PageTooLarge`, `TimeoutError`, `BadURL`, and `ValueError` for headers that cannot be sent.
    """
    if reactor is None:
        from deferred.reactor import get_reactor  # only here: under another reactor none is to be made

        reactor = get_reactor()
    fetch = _Fetch(reactor, tls, dict(headers or {}), max_size, max_redirects)
    return maybe_deferred(fetch.start, url).add_timeout(timeout, reactor)


def parse_url(text: str) -> URL:
    """Take `text` apart; raises `BadURL` for what is no http or https address.

    Refused are user names and passwords (they would end up in logs), control characters and blanks (urllib would
    drop some silently), and hosts that are neither a name in ASCII nor an IP address. Fragments stay at home.
    """
    shown = "the URL" if "@" in text else ascii(text[:200])  # what comes before an @ may be a password
    if (bad := _NO_URL.search(text)) is not None:
        raise BadURL(f"{shown}: a URL has no {bad.group()!a}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadURL(f"{shown}: {ascii(str(error))[1:-1]}") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise BadURL(f"{shown}: neither http:// nor https://")
    if "@" in parts.netloc:
        raise BadURL(f"the URL for {host!a} has a user name or password: give an Authorization header instead")
    if host is None or port == 0 or not _is_host(host, bracketed="[" in parts.netloc):
        raise BadURL(f"{shown}: no host name or address that can be connected to")
    target = quote(parts.path or "/", _SAFE) + (f"?{quote(parts.query, _SAFE)}" if parts.query else "")
    return URL(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], target)


def _is_host(host: str, bracketed: bool) -> bool:
    if bracketed:
        return _is_ip(host) and "%" not in host  # a zone means something on one machine only
    return _HOST.fullmatch(host) is not None and len(host) <= 253


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@cache
def _default_tls() -> ssl.SSLContext:
    """Reading the system's authorities takes milliseconds, so it is done once."""
    return ssl.create_default_context()


class _Fetch:
    """One `get_page`: from request to request, until an answer is no redirect."""

    def __init__(
        self, reactor: Reactor, tls: ssl.SSLContext | None, headers: dict[str, str], max_size: int, max_redirects: int
    ) -> None:
        self._reactor = reactor
        self._tls = tls
        self._headers = headers
        self._max_size = max_size
        self._redirects_left = max_redirects

    def start(self, text: str) -> Deferred[bytes]:
        return self._get(parse_url(text))

    def _get(self, url: URL) -> Deferred[bytes]:
        request = _request(url, self._headers)
        d = (
            self._find(url)
            .add_callback(self._connect, url, request)
            .add_callback(lambda conversation: conversation.answer)
        )
        return d.add_callback(self._judge, url)

    def _find(self, url: URL) -> Deferred[list[Address]]:
        if _is_ip(url.host):
            return succeed([(url.host, url.port)])
        return self._reactor.getaddrinfo(url.host, url.port)

    def _connect(self, addresses: list[Address], url: URL, request: h11.Request) -> Deferred[_Conversation]:
        secure = url.scheme == "https"
        return self._reactor.create_connection(
            lambda: _Conversation(request, self._max_size),
            addresses,
            tls=(self._tls or _default_tls()) if secure else None,
            server_hostname=url.host.rstrip(".") if secure else None,
        )

    def _judge(self, answer: Answer, url: URL) -> bytes | Deferred[bytes]:
        """Follow a redirect, take a page, refuse the rest."""
        if answer.status in _REDIRECTS and answer.location is not None:
            if self._redirects_left <= 0:
                raise HTTPError(answer.status, f"{answer.reason} (redirects too often)", answer.body)
            self._redirects_left -= 1
            return self._get(self._next(answer.location, url))
        if answer.status >= 300:
            raise HTTPError(answer.status, answer.reason, answer.body)
        return answer.body

    def _next(self, location: str, here: URL) -> URL:
        if _NO_URL.search(location):
            raise BadURL(f"{here} redirects to {location!a}, which is no URL")
        try:
            joined = urljoin(str(here), location)
        except ValueError as error:
            raise BadURL(f"{here} redirects to what is no URL: {ascii(str(error))[1:-1]}") from None
        there = parse_url(joined)
        if here.scheme == "https" and there.scheme == "http":
            raise BadURL(f"{here} redirects to {there}: from https to http nobody should be led")
        if there[:3] != here[:3]:
            self._headers = {name: value for name, value in self._headers.items() if name.lower() not in _SECRET}
        return there


def _request(url: URL, headers: dict[str, str]) -> h11.Request:
    """Raises `ValueError` for a header that is none, or that is not the caller's to give."""
    for name in headers:
        if name.lower() in _OURS:
            raise ValueError(f"the header {name} is get_page's own")
    fields = {"user-agent": "deferred", "accept": "*/*", "accept-encoding": "identity"}
    fields.update((name.lower(), value) for name, value in headers.items())
    sent = [("host", url.authority), *fields.items(), ("connection", "close")]
    try:
        return h11.Request(method="GET", target=url.target, headers=sent)
    except h11.LocalProtocolError as error:
        raise ValueError(f"a header that cannot be sent: {error}") from None


class _Conversation(BaseProtocol):
    """One request and its answer on one connection; `answer` fires with it, and the connection is closed."""

    def __init__(self, request: h11.Request, max_size: int) -> None:
        self.answer: Deferred[Answer] = Deferred(lambda _: self._abort())
        self._request = request
        self._max_size = max_size
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self._transport: Transport
        self._response: h11.Response | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._over = False

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport
        transport.write(self._http.send(self._request) or b"")
        self._http.send(h11.EndOfMessage())

    def data_received(self, data: bytes) -> None:
        self._receive(data)

    def eof_received(self) -> None:
        self._receive(b"")  # the end of a body whose length nobody told, or of one cut short: h11 knows which

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or BrokenAnswer("the server closed the connection before its answer was complete"))

    def _receive(self, data: bytes) -> None:
        if self._over:
            return
        try:
            self._http.receive_data(data)
            while not self._over and self._take(self._http.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            self._fail(BrokenAnswer(f"the server's answer is no HTTP, or was cut short: {ascii(str(error))[1:-1]}"))

    def _take(self, event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]) -> bool:
        """Whether there may be another event."""
        if isinstance(event, h11.Response):
            self._head(event)
        elif isinstance(event, h11.Data):
            self._body(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._finish()
        elif not isinstance(event, h11.InformationalResponse):
            return False
        return True

    def _head(self, response: h11.Response) -> None:
        self._response = response
        if response.status_code in _REDIRECTS:
            self._finish()  # what it says beside its Location, nobody will read
        elif response.status_code < 300 and int(_field(response, b"content-length") or 0) > self._max_size:
            self._too_large()

    def _body(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._response is not None and self._response.status_code >= 300:
            if self._size >= _ERROR_BODY:
                self._finish()
        elif self._size > self._max_size:
            self._too_large()

    def _too_large(self) -> None:
        self._fail(PageTooLarge(f"the page has more than {self._max_size} octets"))

    def _finish(self) -> None:
        response = self._response
        if response is None:
            return
        self._over = True
        self._transport.close()
        body = b"".join(self._pieces)
        location = _field(response, b"location")
        self.answer.callback(
            Answer(
                response.status_code,
                ascii(bytes(response.reason).decode("latin-1"))[1:-1],
                None if location is None else location.decode("utf-8", "backslashreplace"),
                body if response.status_code < 300 else body[:_ERROR_BODY],
            )
        )

    def _fail(self, error: Exception) -> None:
        if not self._over:
            self._abort()
            self.answer.errback(error)

    def _abort(self) -> None:
        """The answer cannot come, or nobody waits for it any more."""
        self._over = True
        self._transport.abort()


def _field(response: h11.Response, name: bytes) -> bytes | None:
    return next((value for key, value in response.headers if key == name), None)
