"""get_page, octet by octet: what is asked, and what becomes of each kind of answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deferred.defer import CancelledError, Deferred, fail, succeed
from deferred.failure import Failure
from deferred.testing import Clock
from deferred.web import BadURL, BrokenAnswer, HTTPError, PageTooLarge, get_page, parse_url


class Wire:
    """The transport of one connection, and the peer's end of it."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.written = b""
        self.end: str | None = None
        protocol.connection_made(self)

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self) -> None:
        self.end = self.end or "aborted"

    def answer(self, data: bytes, piece: int = 0) -> None:
        for start in range(0, len(data), piece or len(data)):
            self.protocol.data_received(data[start : start + (piece or len(data))])

    def eof(self) -> None:
        self.protocol.eof_received()
        self.protocol.connection_lost(None)

    @property
    def lines(self) -> list[str]:
        return self.written.decode().split("\r\n")


class Net(Clock):
    """A reactor with a clock of ours, on which every connection succeeds at once (or fails with `refuse`)."""

    def __init__(self) -> None:
        super().__init__()
        self.wires: list[Wire] = []
        self.calls: list[dict[str, Any]] = []
        self.looked_up: list[tuple[str, int]] = []
        self.refuse: Exception | None = None
        self.stuck: Deferred[Any] | None = None

    def getaddrinfo(self, host: str, port: int) -> Deferred[Any]:
        self.looked_up.append((host, port))
        return self.stuck or succeed([("192.0.2.1", port)])

    def create_connection(self, factory: Callable[[], Any], addresses: Any, **options: Any) -> Deferred[Any]:
        self.calls.append({"addresses": list(addresses), **options})
        if self.refuse is not None:
            return fail(self.refuse)
        self.wires.append(Wire(factory()))
        return succeed(self.wires[-1].protocol)


class Fetched:
    """A get_page under way on a `Net`, and what came of it."""

    def __init__(self, url: str, net: Net, **options: Any) -> None:
        self.results: list[Any] = []
        self.net = net
        self.d = get_page(url, reactor=net, **options)  # type: ignore[arg-type]  # Net has what get_page needs
        self.d.add_both(self.results.append)

    @property
    def wire(self) -> Wire:
        return self.net.wires[-1]

    @property
    def page(self) -> bytes:
        assert isinstance(self.results[0], bytes), self.results
        return self.results[0]

    @property
    def error(self) -> Any:
        (result,) = self.results
        assert isinstance(result, Failure)
        return result.value


@pytest.fixture
def fetch() -> Callable[..., Fetched]:
    """Start a get_page against a peer that the test plays."""
    return lambda url="http://page.example/", **options: Fetched(url, Net(), **options)


Fetch = Callable[..., Fetched]


def ok(body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), extra, body)


def test_the_request_names_the_host_and_asks_for_one_page_only(fetch: Fetch) -> None:
    """The request line has the path with its query, and the connection serves one request."""
    fetched = fetch("http://page.example/a/b?c=d#e")
    assert fetched.wire.lines[0] == "GET /a/b?c=d HTTP/1.1"
    assert {"host: page.example", "connection: close"} <= {line.lower() for line in fetched.wire.lines}


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_the_content_arrives_however_it_is_cut(fetch: Fetch, piece: int) -> None:
    """Octets that come one by one are the same page."""
    fetched = fetch()
    fetched.wire.answer(ok(b"hello, page"), piece)
    assert fetched.page == b"hello, page"
    assert fetched.wire.end == "closed"


def test_a_chunked_page_is_put_together(fetch: Fetch) -> None:
    """Transfer-Encoding: chunked is undone."""
    fetched = fetch()
    fetched.wire.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n1\r\no\r\n0\r\n\r\n", 2)
    assert fetched.page == b"hello"


def test_a_page_without_a_length_ends_with_the_connection(fetch: Fetch) -> None:
    """HTTP/1.0 style: all until the end of the stream."""
    fetched = fetch()
    fetched.wire.answer(b"HTTP/1.0 200 OK\r\n\r\nall of it")
    assert fetched.results == []
    fetched.wire.eof()
    assert fetched.page == b"all of it"


def test_what_comes_before_the_answer_is_passed_over(fetch: Fetch) -> None:
    """1xx answers are not the answer."""
    fetched = fetch()
    fetched.wire.answer(b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok(b"page"))
    assert fetched.page == b"page"


@pytest.mark.parametrize("status", [400, 404, 410, 500, 503])
def test_a_status_of_400_and_above_is_a_failure(fetch: Fetch, status: int) -> None:
    """The errback gets the status, the reason and the body."""
    fetched = fetch()
    fetched.wire.answer(b"HTTP/1.1 %d Not \x1bhere\r\nContent-Length: 4\r\n\r\nsorr" % status)
    if isinstance(fetched.error, HTTPError):
        assert fetched.error.status == status
        assert fetched.error.body == b"sorr"
    else:  # h11 may refuse the control character; then it is no HTTP
        assert isinstance(fetched.error, BrokenAnswer)


def test_an_error_says_its_status_and_reason(fetch: Fetch) -> None:
    """str(error) is what a person reads."""
    fetched = fetch()
    fetched.wire.answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert isinstance(fetched.error, HTTPError)
    assert str(fetched.error) == "404 Not Found"


def test_an_endless_error_page_is_cut(fetch: Fetch) -> None:
    """Of an error's body 64 KiB are kept, and the rest is not waited for."""
    fetched = fetch()
    fetched.wire.answer(b"HTTP/1.1 500 Oops\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000)
    assert fetched.error.status == 500
    assert len(fetched.error.body) == 65536


def test_a_3xx_that_leads_nowhere_is_a_failure(fetch: Fetch) -> None:
    """304, or a redirect without a Location, is no page."""
    fetched = fetch()
    fetched.wire.answer(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")
    assert fetched.error.status == 302


@pytest.mark.parametrize(
    "answer",
    [b"220 mail.example ESMTP\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n"],
)
def test_what_is_no_http_is_a_broken_answer(fetch: Fetch, answer: bytes) -> None:
    """A server that speaks something else goes down the errback chain, and the connection is dropped."""
    fetched = fetch()
    fetched.wire.answer(answer)
    assert isinstance(fetched.error, BrokenAnswer)
    assert fetched.wire.end == "aborted"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhal",
    ],
)
def test_an_answer_that_ends_early_is_a_broken_answer(fetch: Fetch, answer: bytes) -> None:
    """A truncated page is never taken for the page."""
    fetched = fetch()
    if answer:
        fetched.wire.answer(answer)
    fetched.wire.eof()
    assert isinstance(fetched.error, BrokenAnswer)


def test_a_lost_connection_is_told_as_it_is(fetch: Fetch) -> None:
    """A reset among the content fails with the reset."""
    fetched = fetch()
    fetched.wire.answer(b"HTTP/1.1 200 OK\r\n\r\nhalf")
    fetched.wire.protocol.connection_lost(ConnectionResetError("reset"))
    assert isinstance(fetched.error, ConnectionResetError)


FRAGMENTS = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.0 404 No\r\n",
            b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n",
            b"Content-Length: 5\r\n",
            b"Content-Length: 99999999999999999999\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Location: /x\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"hello",
        ]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAGMENTS, max_size=12))
def test_whatever_a_server_says_there_is_one_result(fragments: list[bytes]) -> None:
    """A page or one of the promised errors, once; nothing else is raised, and no timer is left."""
    fetched = Fetched("http://page.example/", Net(), max_size=10)
    for fragment in fragments:
        if fetched.wire.end is None and fragment:
            fetched.wire.answer(fragment)
    for wire in fetched.net.wires:
        wire.eof()
    (result,) = fetched.results
    if isinstance(result, Failure):
        assert result.check(HTTPError, BrokenAnswer, PageTooLarge, BadURL)
    else:
        assert len(result) <= 10
    assert fetched.net.pending == 0


def test_a_refused_connection_goes_down_the_errback_chain() -> None:
    """What create_connection fails with is what get_page fails with."""
    net = Net()
    net.refuse = ConnectionRefusedError("refused")
    assert isinstance(Fetched("http://page.example/", net).error, ConnectionRefusedError)


@pytest.mark.parametrize(
    "answer",
    [ok(b"x" * 11), b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 11, b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n"],
)
def test_a_page_beyond_the_limit_is_refused(fetch: Fetch, answer: bytes) -> None:
    """By its length if it tells one, else as soon as the limit is passed."""
    fetched = fetch(max_size=10)
    fetched.wire.answer(answer)
    assert isinstance(fetched.error, PageTooLarge)
    assert fetched.wire.end == "aborted"


def test_a_page_of_just_the_limit_is_taken(fetch: Fetch) -> None:
    """The limit is the last size allowed."""
    fetched = fetch(max_size=10)
    fetched.wire.answer(ok(b"x" * 10))
    assert fetched.page == b"x" * 10


def test_a_head_without_end_is_refused(fetch: Fetch) -> None:
    """Header fields are bounded too."""
    fetched = fetch()
    fetched.wire.answer(b"HTTP/1.1 200 OK\r\n" + b"x-filler: y\r\n" * 10_000)
    assert isinstance(fetched.error, BrokenAnswer)


def test_a_silent_server_is_given_up_after_the_timeout(fetch: Fetch) -> None:
    """TimeoutError at the very second, and the connection is dropped."""
    fetched = fetch(timeout=7)
    fetched.net.advance(6.9)
    assert fetched.results == []
    fetched.net.advance(0.2)
    assert isinstance(fetched.error, TimeoutError)
    assert fetched.wire.end == "aborted"


def test_octets_that_drip_do_not_renew_the_timeout(fetch: Fetch) -> None:
    """The timeout is for the whole page."""
    fetched = fetch(timeout=5)
    fetched.wire.answer(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(6):
        if not fetched.results:
            fetched.wire.answer(b"x")
            fetched.net.advance(1)
    assert isinstance(fetched.error, TimeoutError)


def test_a_name_that_does_not_resolve_in_time_counts_too() -> None:
    """The look-up is part of the wait."""
    net = Net()
    net.stuck = Deferred()
    fetched = Fetched("http://page.example/", net, timeout=5)
    net.advance(5)
    assert isinstance(fetched.error, TimeoutError)


def test_a_page_in_time_leaves_no_timer(fetch: Fetch) -> None:
    """Nothing is left behind that would fire later."""
    fetched = fetch(timeout=5)
    fetched.wire.answer(ok(b"page"))
    assert fetched.results == [b"page"]
    assert fetched.net.pending == 0


def test_cancelling_closes_the_connection(fetch: Fetch) -> None:
    """Whoever cancels gives up the wait, and the server is rid of us."""
    fetched = fetch()
    fetched.d.cancel()
    assert isinstance(fetched.error, CancelledError)
    assert fetched.wire.end == "aborted"
    fetched.wire.protocol.connection_lost(None)  # nothing is fired twice


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "asked"),
    [
        ("/there", ("page.example", "GET /there HTTP/1.1")),
        ("next?x=1", ("page.example", "GET /a/next?x=1 HTTP/1.1")),
        ("http://other.example:81/", ("other.example:81", "GET / HTTP/1.1")),
        ("//other.example/x", ("other.example", "GET /x HTTP/1.1")),
    ],
)
def test_a_redirect_is_followed(fetch: Fetch, status: int, location: str, asked: tuple[str, str]) -> None:
    """To where its Location leads from here."""
    fetched = fetch("http://page.example/a/b")
    fetched.wire.answer(b"HTTP/1.1 %d Moved\r\nLocation: %s\r\n\r\n" % (status, location.encode()))
    assert len(fetched.net.wires) == 2
    assert fetched.net.wires[0].end == "closed"
    host, line = asked
    assert fetched.wire.lines[0] == line
    assert f"host: {host}" in {text.lower() for text in fetched.wire.lines}
    fetched.wire.answer(ok(b"there"))
    assert fetched.page == b"there"


def test_a_circle_of_redirects_ends(fetch: Fetch) -> None:
    """After the limit the redirect itself is the failure."""
    fetched = fetch(max_redirects=3)
    for _ in range(4):
        fetched.wire.answer(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")
    assert len(fetched.net.wires) == 4
    assert isinstance(fetched.error, HTTPError)
    assert fetched.error.status == 302


@pytest.mark.parametrize(
    "location",
    [
        "http://page.example/",
        "ftp://page.example/",
        "file:///etc/passwd",
        "//u:p@h/",
        "/a b",
        "/a\\b",
        "//[",
        "//[::g]/",
    ],
)
def test_nobody_is_led_from_https_into_the_clear_or_elsewhere(fetch: Fetch, location: str) -> None:
    """Such a redirect fails; nothing is sent."""
    fetched = fetch("https://page.example/")
    fetched.wire.answer(b"HTTP/1.1 301 Moved\r\nLocation: %s\r\n\r\n" % location.encode())
    assert isinstance(fetched.error, BadURL)
    assert len(fetched.net.wires) == 1


def test_secrets_do_not_follow_to_another_host(fetch: Fetch) -> None:
    """An Authorization header is for the host that the caller named."""
    fetched = fetch(headers={"Authorization": "Bearer token", "X-Trace": "17"})
    assert "token" in fetched.wire.written.decode()
    fetched.wire.answer(b"HTTP/1.1 302 Found\r\nLocation: http://other.example/\r\n\r\n")
    assert "token" not in fetched.wire.written.decode()
    assert "17" in fetched.wire.written.decode()


@pytest.mark.parametrize("headers", [{"Host": "other"}, {"Content-Length": "5"}, {"X": "a\r\nY: b"}, {"X Y": "1"}])
def test_headers_that_would_change_the_request_are_refused(fetch: Fetch, headers: dict[str, str]) -> None:
    """Down the errback chain, with nothing sent."""
    fetched = fetch(headers=headers)
    assert isinstance(fetched.error, ValueError)
    assert fetched.net.looked_up == []


def test_https_checks_the_certificate_of_the_host_that_was_named(fetch: Fetch) -> None:
    """By default the system's authorities decide, and the name must fit."""
    fetched = fetch("https://page.example/")
    (call,) = fetched.net.calls
    assert call["server_hostname"] == "page.example"
    assert call["tls"].check_hostname
    assert call["tls"].verify_mode.name == "CERT_REQUIRED"
    assert call["addresses"] == [("192.0.2.1", 443)]


def test_an_address_is_not_looked_up(fetch: Fetch) -> None:
    """IPv6 literals go without brackets to connect, and with them into Host."""
    fetched = fetch("http://[2001:db8::1]:8080/")
    assert fetched.net.looked_up == []
    assert fetched.net.calls[0]["addresses"] == [("2001:db8::1", 8080)]
    assert "host: [2001:db8::1]:8080" in {line.lower() for line in fetched.wire.lines}


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://Page.Example", ("http", "page.example", 80, "/")),
        ("HTTPS://page.example/x", ("https", "page.example", 443, "/x")),
        ("http://page.example:8080?q", ("http", "page.example", 8080, "/?q")),
        ("http://page.example/%7Ea/é?ü=1", ("http", "page.example", 80, "/%7Ea/%C3%A9?%C3%BC=1")),
        ("https://127.0.0.1/", ("https", "127.0.0.1", 443, "/")),
        ("http://[::1]/", ("http", "::1", 80, "/")),
    ],
)
def test_a_url_is_taken_apart(text: str, url: tuple[str, str, int, str]) -> None:
    """Scheme, host, port and what stands in the request line."""
    assert tuple(parse_url(text)) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "page.example",
        "ftp://page.example/",
        "http://",
        "http:///x",
        "http://page.example:0/",
        "http://page.example:65536/",
        "http://page.example:x/",
        "http://user@page.example/",
        "http://user:secret@page.example/",
        "http://user:secret@page.example/a b",
        "ftp://user:secret@page.example/",
        "http://user:secret@page.example:x/",
        "http://page.example/a b",
        "http://page.example/\r\nX: y",
        "http://page\t.example/",
        "http://page.example/\x00",
        "http://page.example\\@other.example/",
        "http://[::1/",
        "http://[::1%25eth0]/",
        "http://[page.example]/",
        "http://-page.example/",
        "http://pägé.example/",
        "http://page..example/",
        "http://%70age.example/",
        " http://page.example/",
    ],
)
def test_what_is_no_url_goes_down_the_errback_chain(fetch: Fetch, text: str) -> None:
    """Nothing is raised at the call, nothing is looked up, and no password is repeated."""
    fetched = fetch(text)
    assert isinstance(fetched.error, BadURL)
    assert "secret" not in str(fetched.error)
    assert fetched.net.looked_up == []
