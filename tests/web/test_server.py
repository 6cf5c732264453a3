"""The web server: what it answers, and what nobody can do to it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deferred.defer import Deferred, fail
from service.web.connection import Limits
from service.web.exchange import Request, Response

BuildHouse = Callable[..., Any]


def hello(request: Request) -> Response:
    return Response(200, f"hello {request.path} {request.query}".encode())


PAGES = {"/page": hello}


def test_a_page_is_answered_with_its_length_and_type(house: BuildHouse) -> None:
    """GET of a known path gets what its handler made."""
    visitor = house(PAGES).visit().ask("/page?a=b")
    assert visitor.head.startswith("HTTP/1.1 200 OK\r\n")
    assert visitor.body == b"hello /page a=b"
    assert "Content-Length: 15" in visitor.head
    assert "Date: " in visitor.head


def test_every_answer_forbids_what_no_page_here_needs(house: BuildHouse) -> None:
    """No sniffing, no framing, no scripts, no caches: also where the answer is an error."""
    for path in ("/page", "/nowhere"):
        head = house(PAGES).visit().ask(path).head.lower()
        for field in ("nosniff", "x-frame-options: deny", "default-src 'none'", "no-store", "no-referrer"):
            assert field in head


def test_a_connection_serves_request_after_request(house: BuildHouse) -> None:
    """Keep-alive, one after the other."""
    visitor = house(PAGES).visit()
    for _ in range(3):
        visitor.ask()
    assert visitor.statuses == [200, 200, 200]
    assert visitor.end is None


def test_requests_sent_at_once_are_answered_in_turn(house: BuildHouse) -> None:
    """Pipelining: each answer comes, in order, also where a handler takes its time."""
    waiting: Deferred[Response] = Deferred()
    h = house({"/slow": lambda _: waiting, **PAGES})
    visitor = h.visit()
    visitor.send("GET /slow HTTP/1.1\nHost: x\n\nGET /page?2 HTTP/1.1\nHost: x\n\nGET /page?3 HTTP/1.1\nHost: x\n\n")
    assert visitor.statuses == []
    assert not visitor.reading
    waiting.callback(Response(200, b"slow"))
    for _ in range(4):
        h.net.advance(0)
    assert visitor.statuses == [200, 200, 200]
    assert visitor.received.index(b"slow") < visitor.received.index(b"/page 2") < visitor.received.index(b"/page 3")
    assert visitor.reading


def test_head_gets_the_head_alone(house: BuildHouse) -> None:
    """The length of the page, and no page; the connection goes on."""
    visitor = house(PAGES).visit().ask(method="HEAD")
    assert "Content-Length: 12" in visitor.head
    assert visitor.body == b""
    assert visitor.ask().statuses == [200, 200]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_any_other_method_is_refused(house: BuildHouse, method: str) -> None:
    """405, and which methods would do."""
    visitor = house(PAGES).visit().ask(method=method)
    assert visitor.statuses == [405]
    assert "Allow: GET, HEAD" in visitor.head


@pytest.mark.parametrize("path", ["/nowhere", "/page/", "//page", "/%70age", "/page/../page"])
def test_an_unknown_path_is_not_found(house: BuildHouse, path: str) -> None:
    """Paths are what they are, letter by letter."""
    assert house(PAGES).visit().ask(path).statuses == [404]


def test_the_absolute_form_is_understood(house: BuildHouse) -> None:
    """A request line with a whole URL asks for the same page."""
    assert house(PAGES).visit().ask("http://anything.test/page").statuses == [200]


def test_http_1_0_is_served_and_closed(house: BuildHouse) -> None:
    """An old client gets its page, and the end."""
    visitor = house(PAGES).visit().send("GET /page HTTP/1.0\n\n")
    assert visitor.statuses == [200]
    assert visitor.saw_eof


def test_connection_close_is_obeyed(house: BuildHouse) -> None:
    """Our side ends after the answer, and all of it once the peer has ended too."""
    visitor = house(PAGES).visit().ask(extra="Connection: close\n")
    assert visitor.statuses == [200]
    assert visitor.saw_eof
    visitor.eof()
    assert visitor.end == "closed"


@pytest.mark.parametrize("body", ["Content-Length: 5\n\nhello", "Transfer-Encoding: chunked\n\n5\nhello\n0\n\n"])
@pytest.mark.parametrize(("method", "status"), [("GET", 413), ("POST", 405)])
def test_a_request_with_a_body_ends_the_connection(house: BuildHouse, method: str, status: int, body: str) -> None:
    """What is not read cannot be taken for the next request."""
    visitor = house(PAGES).visit().send(f"{method} /page HTTP/1.1\nHost: x\n{body}")
    assert visitor.statuses == [status]
    assert visitor.saw_eof
    visitor.send(b"x" * 100_000)
    assert visitor.statuses == [status]


@pytest.mark.parametrize(
    "garbage",
    [
        b"EHLO client.example\r\n\r\n",
        b"GET /page HTTP/1.1\r\n\r\n",
        b"GET /page HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /page HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /page HTTP/1.1\r\nHost : a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(house: BuildHouse, garbage: bytes) -> None:
    """400, and the connection ends; nothing is told to the journal, since nothing is wrong with us."""
    h = house(PAGES)
    visitor = h.visit().send(garbage)
    assert visitor.statuses == [400]
    assert visitor.saw_eof
    assert h.events == []


def test_of_what_is_no_request_nothing_is_left_to_the_collector(house: BuildHouse) -> None:
    """Its buffers would wait for that: strangers choose how many and how large they are."""
    h = house(PAGES)
    gc.collect()
    gc.disable()
    try:
        visitor = h.visit().send(b"\0" * 1000 + b"\r\n\r\n")
        h.net.advance(60.0)
        del visitor.protocol  # as a stream lets go of it
        assert not [each for each in gc.get_objects() if isinstance(each, h11.Connection)]
    finally:
        gc.enable()


def test_an_endless_head_is_refused(house: BuildHouse) -> None:
    """431 beyond the limit."""
    visitor = house(PAGES, Limits(head=1000)).visit()
    visitor.send(b"GET /page HTTP/1.1\r\nHost: x\r\n" + b"X-Filler: y\r\n" * 100)
    assert visitor.statuses == [431]


def test_octets_that_drip_do_not_renew_the_deadline(house: BuildHouse) -> None:
    """A request has so long from its first octet on, however it comes."""
    h = house(PAGES, Limits(request=10, idle=100))
    visitor = h.visit()
    h.net.advance(50)
    for letter in "GET /page H":
        assert visitor.statuses == []
        visitor.send(letter)
        h.net.advance(0.99)
    assert visitor.statuses == [408]


def test_a_connection_on_which_nothing_is_asked_is_dropped(house: BuildHouse) -> None:
    """Before the first request, and between two."""
    h = house(PAGES, Limits(idle=30))
    silent, served = h.visit(), h.visit()
    h.net.advance(29)
    served.ask()
    h.net.advance(2)
    assert silent.end == "aborted"
    assert served.end is None
    h.net.advance(30)
    assert served.end == "aborted"
    assert h.server.connections == 0


def test_a_peer_that_never_closes_is_dropped(house: BuildHouse) -> None:
    """After our last answer it has so long to read it and to end."""
    h = house(PAGES, Limits(reading=20))
    visitor = h.visit().ask(extra="Connection: close\n")
    h.net.advance(19)
    assert visitor.end is None
    h.net.advance(2)
    assert visitor.end == "aborted"


def test_a_peer_that_does_not_read_gets_no_further_answers(house: BuildHouse) -> None:
    """While the answers before are not taken, the next request waits."""
    h = house(PAGES)
    visitor = h.visit().ask()
    visitor.protocol.pause_writing()
    visitor.ask()
    assert visitor.statuses == [200]
    visitor.protocol.resume_writing()
    assert visitor.statuses == [200, 200]


def test_the_connection_that_waited_longest_makes_room(house: BuildHouse) -> None:
    """Connections that ask for nothing cannot shut others out."""
    h = house(PAGES, Limits(connections=3))
    first, second, third = h.visit(), h.visit(), h.visit()
    first.ask()
    assert h.visit().ask().statuses == [200]
    h.net.advance(0)
    assert [visitor.end for visitor in (first, second, third)] == [None, "aborted", None]
    assert h.server.connections == 3


def test_a_connection_that_is_being_answered_is_not_dropped_for_another(house: BuildHouse) -> None:
    """With all of them at work, it is the new one that has to go."""
    answers: list[Deferred[Response]] = []

    def slow(_: Request) -> Deferred[Response]:
        answers.append(Deferred())
        return answers[-1]

    h = house({"/slow": slow}, Limits(connections=2))
    busy = [h.visit().ask("/slow") for _ in range(2)]
    assert h.visit().end == "aborted"
    for answer in answers:
        answer.callback(Response())
    assert [visitor.statuses for visitor in busy] == [[200], [200]]


def boom(_: Request) -> Response:
    raise RuntimeError("the password is hunter2")


@pytest.mark.parametrize("handler", [boom, lambda _: fail(RuntimeError("the password is hunter2"))])
def test_a_handler_that_fails_gives_nothing_away(house: BuildHouse, handler: Callable[..., Any]) -> None:
    """500 without details for the peer, and the whole story for the journal; the connection goes on."""
    h = house({"/boom": handler, **PAGES})
    visitor = h.visit().ask("/boom")
    assert visitor.statuses == [500]
    assert b"hunter2" not in visitor.received
    ((event, facts),) = h.events
    assert event == "unhandled_error"
    assert facts["where"] == "http /boom"
    assert "RuntimeError" in str(facts["error"])
    assert visitor.ask().statuses == [500, 200]


def test_a_handler_that_never_answers_is_given_up(house: BuildHouse) -> None:
    """503 after the deadline; its Deferred is cancelled."""
    cancelled: list[object] = []
    h = house({"/never": lambda _: Deferred(cancelled.append)}, Limits(handler=20))
    visitor = h.visit().ask("/never")
    h.net.advance(19)
    assert visitor.statuses == []
    h.net.advance(2)
    assert visitor.statuses == [503]
    assert len(cancelled) == 1
    assert h.events == []


def test_a_peer_that_goes_away_cancels_what_it_asked_for(house: BuildHouse) -> None:
    """Nobody works on for it."""
    cancelled: list[object] = []
    h = house({"/never": lambda _: Deferred(cancelled.append)})
    visitor = h.visit().ask("/never")
    visitor.protocol.connection_lost(ConnectionResetError())
    assert len(cancelled) == 1
    assert h.server.connections == 0
    assert h.net.pending == 0


def test_a_peer_that_has_asked_may_close_its_side(house: BuildHouse) -> None:
    """As `printf ... | nc` does: it gets the answer all the same."""
    waiting: Deferred[Response] = Deferred()
    h = house({"/slow": lambda _: waiting})
    visitor = h.visit().ask("/slow")
    visitor.eof()
    assert visitor.end is None
    waiting.callback(Response(200, b"slow"))
    assert visitor.statuses == [200]
    assert visitor.end == "closed"


def test_a_peer_that_ends_among_its_request_is_let_go(house: BuildHouse) -> None:
    """Half a request is none."""
    visitor = house(PAGES).visit().send("GET /pa")
    visitor.eof()
    assert visitor.statuses in ([], [400])
    assert visitor.end == "closed"


def test_closing_lets_answers_finish_and_drops_the_rest(house: BuildHouse) -> None:
    """close() fires once the last connection is gone."""
    waiting: Deferred[Response] = Deferred()
    h = house({"/slow": lambda _: waiting})
    idle, busy = h.visit(), h.visit().ask("/slow")
    closed: list[object] = []
    h.server.close().add_callback(closed.append)
    h.net.advance(0)
    assert not h.net.listening
    assert idle.end == "closed"
    assert closed == []
    waiting.callback(Response(200, b"slow"))
    assert busy.statuses == [200]
    assert "Connection: close" in busy.head
    busy.eof()
    assert closed == [None]


def test_closing_does_not_wait_for_ever(house: BuildHouse) -> None:
    """After the grace everything is dropped."""
    h = house({"/never": lambda _: Deferred()})
    visitor = h.visit().ask("/never")
    closed: list[object] = []
    h.server.close(grace=2).add_callback(closed.append)
    h.net.advance(1.9)
    assert closed == []
    h.net.advance(0.2)
    h.net.advance(0)
    assert visitor.end == "aborted"
    assert closed == [None]


def test_closing_without_connections_is_done_at_once(house: BuildHouse) -> None:
    """Nothing to wait for; whoever comes too late is dropped."""
    h = house(PAGES)
    assert h.server.close().called
    assert h.visit().end == "aborted"


def test_no_timer_outlives_its_connection(house: BuildHouse) -> None:
    """A peer that came and went leaves nothing behind."""
    h = house(PAGES)
    visitor = h.visit().ask()
    visitor.eof()
    h.net.advance(0)
    assert h.server.connections == 0
    assert visitor.end == "closed"
    assert h.net.pending == 0


FRAGMENTS = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n",
            b"HEAD /boom HTTP/1.1\r\nHost: x\r\n",
            b"POST /slow HTTP/1.0\r\n",
            b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
            b"Expect: 100-continue\r\n",
            b"\r\n",
            b"3\r\nabc\r\n0\r\n\r\n",
        ]
    ),
)


@settings(max_examples=300, deadline=None)
@given(fragments=st.lists(FRAGMENTS, max_size=12), hangs_up=st.booleans())
def test_whatever_a_peer_sends_the_connection_ends(house: BuildHouse, fragments: list[bytes], hangs_up: bool) -> None:
    """Nothing is raised, what is answered is HTTP, and in the end neither connection nor timer is left."""
    h = house({"/boom": boom, "/slow": lambda _: Deferred(), **PAGES})
    visitor = h.visit()
    for fragment in fragments:
        if visitor.end is None:
            visitor.send(fragment)
    if hangs_up and visitor.end is None:
        visitor.eof()
    h.net.advance(1000)
    assert visitor.end is not None
    assert h.server.connections == 0
    assert h.net.pending == 0
    assert visitor.received == b"" or visitor.received.startswith(b"HTTP/1.1 ")
    assert {event for event, facts in h.events if facts["where"] != "http /boom"} == set()
