"""TLS sessions are resumed by the next connection, and that weakens nothing: what was verified is verified."""

from __future__ import annotations

import ssl
from typing import Any

import msgspec
import pytest
import trustme

from config.settings import Relay, Route, Tls
from deferred.testing import MemoryReactor
from service.delivery.encryption import MOST_SESSIONS, Sessions
from service.message.outcome import Phase, State
from tests.delivery.room import HOST, PORT, Room
from tests.fakes.smtp_server import CLOSE, PROCEED, RESET, SILENT, Do, SMTPServer


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who we trust."""
    return trustme.CA()


def serving(issuer: trustme.CA, *names: str, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(*names).configure_cert(context)
    if version is not None:
        context.maximum_version = version
    return context


def route(tls: Tls = "verify", *, domain: str = "*", scheme: Any = "smtp", ca_file: str | None = None) -> Route:
    return Route(domains=(domain,), relay=(Relay(scheme, "mx.test", PORT),), tls=tls, ca_file=ca_file)


@pytest.fixture
def room(room: Room, authority: trustme.CA) -> Room:
    """A room whose every message has a connection of its own, under TLS that is verified."""
    room.server.tls = serving(authority, "mx.test")
    room.trust = lambda context, file: authority.configure_trust(context)
    return room.configured(routes=(route(),), timeouts={"idle": 0.0})


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_the_second_connection_resumes_the_session_of_the_first(
    room: Room, authority: trustme.CA, scheme: str, version: ssl.TLSVersion
) -> None:
    """And so do the next ones, whether TLS comes from the start or by STARTTLS."""
    room.server.close()
    server = SMTPServer(room.reactor, tls=serving(authority, "mx.test", version=version))
    server.implicit_tls = scheme == "smtps"
    server.listen(HOST, PORT)
    room.configured(routes=(route(scheme=scheme),))
    for _ in range(3):
        room.deliver()
    assert (server.resumed, len(server.messages)) == ([False, True, True], 3)


@pytest.mark.parametrize("policy", ["opportunistic", "encrypt"])
def test_other_policies_resume_too(room: Room, policy: Tls) -> None:
    """They verify nothing, neither the first time nor the second."""
    room.configured(routes=(route(policy),))
    room.deliver()
    room.deliver()
    assert room.server.resumed == [False, True]


def test_connections_that_are_kept_need_no_handshake_at_all(room: Room) -> None:
    """On a busy route a handshake is a matter of every hundredth message."""
    room.configured(timeouts={"idle": 10.0}, limits={"connections_per_site": 1})
    for number in range(200):
        room.accept(f"u{number}@b.example")
    room.advance(5.0)
    assert (len(room.server.messages), room.server.resumed) == (200, [False, True])


def test_a_session_that_was_not_verified_is_not_resumed_where_it_must_be(room: Room) -> None:
    """The same host under another policy: what one route takes as it is, the other refuses, before and after."""
    room.server.tls = serving(trustme.CA(), "mx.test")
    room.configured(routes=(route("encrypt", domain="b.example"), route(domain="c.example")))
    room.deliver("bob@b.example")
    room.deliver("eve@c.example")
    assert room.outcome("bob@b.example").state is State.DELIVERED
    assert (room.outcome("eve@c.example", "j2").state, room.outcome("eve@c.example", "j2").phase) == (
        State.WAITING,
        Phase.TLS,
    )
    assert True not in room.server.resumed


def test_a_session_verified_by_other_authorities_is_not_resumed(room: Room, authority: trustme.CA) -> None:
    """After a reload with another `ca_file` the certificate is verified by that: it is not trusted any more."""
    other = trustme.CA()
    room.trust = lambda context, file: (other if file else authority).configure_trust(context)
    room.deliver()
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=(route(ca_file="/etc/other.pem"),)))
    room.deliver("eve@b.example")
    assert room.outcome().state is State.DELIVERED
    assert room.outcome("eve@b.example", "j2").phase is Phase.TLS
    assert (room.server.resumed, len(room.server.messages)) == ([False], 1)


def test_a_reload_forgets_all_sessions(room: Room) -> None:
    """Whatever has changed: authorities may have, in the same file."""
    room.deliver()
    room.delivery.configure(room.settings)
    room.deliver()
    assert room.server.resumed == [False, False]


def test_the_certificate_is_seen_again_after_an_hour(room: Room) -> None:
    """However often the session was resumed meanwhile: what has expired or is revoked does not live on."""
    for _ in range(6):
        room.deliver(seconds=900.0)
    assert room.server.resumed == [False, True, True, True, False, True]


@pytest.mark.parametrize("policy", ["verify", "opportunistic"])
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("end", [CLOSE, RESET, SILENT])
def test_a_host_that_breaks_off_what_is_resumed_is_met_with_a_full_handshake(
    room: Room, authority: trustme.CA, scheme: str, policy: Tls, end: Do
) -> None:
    """At once, for the same message, and by TLS also where it might do without; and so are the next ones."""
    room.server.close()
    server = SMTPServer(room.reactor, tls=serving(authority, "mx.test"))
    server.implicit_tls = scheme == "smtps"
    server.listen(HOST, PORT).always("resumed", end)
    room.configured(routes=(route(policy, scheme=scheme),))
    for _ in range(4):
        room.deliver(seconds=400.0)
    assert (server.resumed, len(server.messages)) == ([False, True, False, False, False], 4)
    assert [facts["tls"] for facts in room.told("connected")] == [True] * 4
    assert room.told("site_resting") == []
    room.advance(3600.0)
    room.deliver()
    room.deliver(seconds=400.0)
    assert server.resumed[5:] == [False, True, False]


def test_a_host_that_answers_says_nothing_of_the_session(room: Room) -> None:
    """What it refuses it would refuse anyhow: it is not met twice for that."""
    room.deliver()
    room.server.on("ehlo", PROCEED, "421 4.3.2 not now")
    room.deliver(seconds=30.0)
    assert (room.server.resumed, len(room.server.messages)) == ([False, True, True], 2)
    assert len(room.told("site_resting")) == 1


def test_sessions_are_found_by_host_and_context_until_they_are_forgotten(reactor: MemoryReactor) -> None:
    """None of these guards has to rely on the others."""
    sessions, key, session = Sessions(reactor), ("site", "mx.test:25"), Any
    context, other = (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(2))
    sessions.keep(key, session, context)
    assert sessions.find(key, context) is session
    assert sessions.find(key, other) is None
    assert sessions.find(("site", "other.test:25"), context) is None
    assert sessions.find(("other", "mx.test:25"), context) is None
    sessions.forget()
    assert sessions.find(key, context) is None


def test_no_more_sessions_are_kept_than_there_is_room_for(reactor: MemoryReactor) -> None:
    """The one that was verified longest ago goes; a host met again is not the oldest any more."""
    sessions, session, context = Sessions(reactor), Any, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for number in (*range(MOST_SESSIONS), 0, MOST_SESSIONS):
        sessions.keep(("site", f"mx{number}.test:25"), session, context)
    lost = [n for n in range(MOST_SESSIONS + 1) if sessions.find(("site", f"mx{n}.test:25"), context) is None]
    assert lost == [1]


def test_an_impostor_cannot_resume(room: Room) -> None:
    """It does not know the session, and so has to show a certificate."""
    room.deliver()
    room.server.tls = serving(trustme.CA(), "mx.test")
    room.deliver("eve@b.example")
    assert room.outcome("eve@b.example", "j2").phase is Phase.TLS
    assert len(room.server.messages) == 1


def test_a_server_that_has_forgotten_the_session_is_verified_again(room: Room, authority: trustme.CA) -> None:
    """After its restart, say; no message fails for it."""
    room.deliver()
    room.server.tls = serving(authority, "mx.test")
    room.deliver()
    room.deliver()
    assert (room.server.resumed, len(room.server.messages)) == ([False, False, True], 3)


def test_a_session_is_for_the_name_that_was_verified(room: Room, authority: trustme.CA) -> None:
    """The same server under another name has to prove that name."""
    room.reactor.names["other.test"] = [HOST]
    other = Route(domains=("c.example",), relay=(Relay("smtp", "other.test", PORT),), tls="verify")
    room.configured(routes=(other, route()))
    room.deliver("bob@b.example")
    room.deliver("eve@c.example")
    assert room.outcome("eve@c.example", "j2").text == "the certificate is for mx.test, not for other.test"
    assert True not in room.server.resumed
