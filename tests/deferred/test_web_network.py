"""get_page over real sockets: http and https, and the ways in which a network says no."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

from deferred.defer import CancelledError
from deferred.protocol import BaseProtocol, Transport
from deferred.reactor import Reactor
from deferred.web import BrokenAnswer, HTTPError, get_page


class Answering(BaseProtocol):
    """A server that answers each request, by its path, with octets of the test, and ends."""

    def __init__(self, pages: dict[bytes, bytes], guests: list[Transport]) -> None:
        self._pages = pages
        self._guests = guests
        self._received = b""

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport
        self._guests.append(transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"\r\n\r\n"):
            answer = self._pages[self._received.split()[1]]
            if answer:
                self._transport.write(answer)
                self._transport.close()


PAGES = {
    b"/page": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"/long": b"HTTP/1.1 200 OK\r\n\r\n" + b"0123456789" * 100_000,
    b"/half": b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf",
    b"/gone": b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nsorry",
    b"/moved": b"HTTP/1.1 301 Moved\r\nLocation: /page\r\nContent-Length: 0\r\n\r\n",
    b"/silent": b"",
}


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    errors: list[Exception] = []
    reactor = Reactor(on_error=errors.append)
    yield reactor
    reactor.close()
    assert errors == []


@pytest.fixture
def serve(reactor: Reactor) -> Iterator[Callable[..., str]]:
    """Listen, and tell at which URL."""
    servers: list[Any] = []
    guests: list[Transport] = []

    def listen(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> str:
        server = reactor.create_server(lambda: Answering(PAGES, guests), host, 0, tls=tls)
        servers.append(server)
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if tls else 'http'}://{shown}:{server.address[1]}"

    yield listen
    for server in servers:
        server.close()
    for guest in guests:
        guest.abort()
    reactor.run_until_complete(reactor.defer_to_thread(int))  # some turns, for them to go


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def secured(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


Serve = Callable[..., str]


@pytest.mark.parametrize(
    ("path", "content"), [("/page", b"hello"), ("/moved", b"hello"), ("/long", b"0123456789" * 100_000)]
)
def test_a_page_comes_over_http(reactor: Reactor, serve: Serve, path: str, content: bytes) -> None:
    """Short, redirected, and longer than any buffer."""
    assert reactor.run_until_complete(get_page(serve() + path, reactor=reactor), 20) == content


def test_a_host_is_looked_up_by_its_name(reactor: Reactor, serve: Serve) -> None:
    """The name goes to the resolver."""
    url = serve().replace("127.0.0.1", "localhost")
    assert reactor.run_until_complete(get_page(f"{url}/page", reactor=reactor), 20) == b"hello"


def test_an_ipv6_literal_is_connected_to(reactor: Reactor, serve: Serve) -> None:
    """http://[::1]:port/."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    assert reactor.run_until_complete(get_page(f"{serve(host='::1')}/page", reactor=reactor), 20) == b"hello"


def test_a_page_comes_over_https(reactor: Reactor, serve: Serve, authority: trustme.CA) -> None:
    """From a server whose certificate names the host."""
    url = serve(secured(authority, "localhost")).replace("127.0.0.1", "localhost")
    page = get_page(f"{url}/moved", reactor=reactor, tls=trusting(authority))
    assert reactor.run_until_complete(page, 20) == b"hello"


def test_a_certificate_for_an_address_is_checked_too(reactor: Reactor, serve: Serve, authority: trustme.CA) -> None:
    """https://127.0.0.1/ wants a certificate for 127.0.0.1."""
    url = serve(secured(authority, "127.0.0.1"))
    page = get_page(f"{url}/page", reactor=reactor, tls=trusting(authority))
    assert reactor.run_until_complete(page, 20) == b"hello"


def test_an_unknown_authority_is_refused(reactor: Reactor, serve: Serve, authority: trustme.CA) -> None:
    """Without a context of the caller's, only the system's authorities count."""
    url = serve(secured(authority, "127.0.0.1"))
    with pytest.raises(ssl.SSLCertVerificationError):
        reactor.run_until_complete(get_page(f"{url}/page", reactor=reactor), 20)


def test_a_certificate_for_another_name_is_refused(reactor: Reactor, serve: Serve, authority: trustme.CA) -> None:
    """The right authority is not enough."""
    url = serve(secured(authority, "other.example"))
    with pytest.raises(ssl.SSLCertVerificationError):
        reactor.run_until_complete(get_page(f"{url}/page", reactor=reactor, tls=trusting(authority)), 20)


class Refusing(BaseProtocol):
    """An http server to which the first octets of TLS are no request."""

    def connection_made(self, transport: Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self._transport.close()


def test_tls_to_a_server_in_the_clear_fails(reactor: Reactor) -> None:
    """https to an http port is a failure of the handshake."""
    server = reactor.create_server(Refusing, "127.0.0.1", 0)
    with pytest.raises(ssl.SSLError):
        reactor.run_until_complete(get_page(f"https://127.0.0.1:{server.address[1]}/", reactor=reactor), 20)
    server.close()


def test_nobody_listening_is_a_failure(reactor: Reactor) -> None:
    """Connection refused."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            reactor.run_until_complete(get_page(f"http://127.0.0.1:{unused.getsockname()[1]}/", reactor=reactor), 20)


@pytest.mark.parametrize(("path", "error"), [("/half", BrokenAnswer), ("/gone", HTTPError)])
def test_what_is_no_page_goes_down_the_errback_chain(
    reactor: Reactor, serve: Serve, path: str, error: type[Exception]
) -> None:
    """Cut short, or not there."""
    with pytest.raises(error):
        reactor.run_until_complete(get_page(serve() + path, reactor=reactor), 20)


def test_a_tls_stream_cut_short_is_no_page(reactor: Reactor, serve: Serve, authority: trustme.CA) -> None:
    """Under TLS as in the clear."""
    url = serve(secured(authority, "127.0.0.1"))
    with pytest.raises(OSError, match="cut short"):
        reactor.run_until_complete(get_page(f"{url}/half", reactor=reactor, tls=trusting(authority)), 20)


def test_a_silent_server_times_out(reactor: Reactor, serve: Serve) -> None:
    """The timeout runs on the reactor's own clock."""
    with pytest.raises(TimeoutError):
        reactor.run_until_complete(get_page(f"{serve()}/silent", reactor=reactor, timeout=0.05), 20)


def test_a_page_nobody_wants_any_more_is_given_up(reactor: Reactor, serve: Serve) -> None:
    """Cancelled before, or while it is connecting."""
    page = get_page(f"{serve()}/silent", reactor=reactor)
    reactor.call_later(0.02, page.cancel)
    with pytest.raises(CancelledError):
        reactor.run_until_complete(page, 20)
    at_once = get_page(f"{serve()}/silent", reactor=reactor)
    at_once.cancel()
    with pytest.raises(CancelledError):
        reactor.run_until_complete(at_once, 20)
