"""TLS as the routes want it: what goes out under it, what never goes out without, and clear words for what fails."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import Any

import pytest
import trustme

from config.settings import Relay, Route, Secret, Tls
from service.delivery.tls import Contexts, explain
from service.message.outcome import Phase, State
from tests.delivery.room import HOST, PORT, SITE, Room
from tests.fakes.smtp_server import RESET, SILENT, Late, SMTPServer


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who we trust."""
    return trustme.CA()


def serving(issuer: trustme.CA, *names: str, **validity: Any) -> ssl.SSLContext:
    """A server's context with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(*names, **validity).configure_cert(context)
    return context


def secured(
    room: Room, authority: trustme.CA, policy: Tls = "verify", password: str | None = None, scheme: Any = "smtp"
) -> Room:
    """The room with a route of this policy, trusting the authority."""
    room.trust = lambda context, file: authority.configure_trust(context)
    route = Route(
        domains=("*",),
        relay=(Relay(scheme, "mx.test", PORT),),
        tls=policy,
        username=None if password is None else "user",
        password=None if password is None else Secret(password),
    )
    return room.configured(routes=(route,))


def nothing_but_hello(server: SMTPServer) -> bool:
    """Whether no MAIL and no AUTH has been said."""
    return not any(command.startswith(("MAIL", "AUTH")) for command in server.commands)


def test_mail_goes_out_under_starttls(room: Room, authority: trustme.CA) -> None:
    """Handshake, a second EHLO, AUTH, and only then the message."""
    room.server.tls = serving(authority, "mx.test")
    room.server.accounts["user"] = "secret"
    secured(room, authority, password="secret").deliver()
    assert room.outcome().state is State.DELIVERED
    words = [command.split(" ")[0] for command in room.server.commands]
    assert words == ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL", "RCPT", "DATA"]
    assert [facts["phase"] for facts in room.told("step")] == [
        "connect",
        "greeting",
        "ehlo",
        "tls",
        "ehlo",
        "auth",
        "mail",
        "rcpt",
        "data",
        "body",
        "confirm",
    ]
    assert room.told("connected")[0]["tls"] is True


def test_mail_goes_out_with_tls_from_the_start(room: Room, authority: trustme.CA) -> None:
    """smtps://: the greeting comes inside TLS."""
    room.server.close()
    server = SMTPServer(room.reactor, tls=serving(authority, "mx.test"), implicit_tls=True).listen(HOST, PORT)
    secured(room, authority, scheme="smtps").deliver()
    assert (room.outcome().state, len(server.messages)) == (State.DELIVERED, 1)
    assert "STARTTLS" not in server.commands


LONG_AGO = {"not_before": datetime(2000, 1, 1, tzinfo=UTC), "not_after": datetime(2001, 1, 1, tzinfo=UTC)}
NOT_YET = {"not_before": datetime(2900, 1, 1, tzinfo=UTC), "not_after": datetime(2901, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize(
    ("names", "validity", "reason"),
    [
        (["mx.test"], LONG_AGO, "the certificate has expired (on Jan  1 00:00:00 2001 GMT)"),
        (["mx.test"], NOT_YET, "the certificate is not valid yet (from Jan  1 00:00:00 2900 GMT)"),
        (["other.test", "*.more.test"], {}, "the certificate is for other.test, *.more.test, not for mx.test"),
    ],
)
def test_a_bad_certificate_is_told_precisely(
    room: Room, authority: trustme.CA, scheme: str, names: list[str], validity: dict[str, Any], reason: str
) -> None:
    """The host is at fault, with the reason and what was seen; nothing was said in the clear."""
    room.server.close()
    server = SMTPServer(room.reactor, tls=serving(authority, *names, **validity), implicit_tls=scheme == "smtps")
    server.listen(HOST, PORT)
    secured(room, authority, password="secret", scheme=scheme).deliver()
    outcome = room.outcome()
    assert (outcome.state, outcome.phase, outcome.code, outcome.text) == (State.WAITING, Phase.TLS, None, reason)
    assert len(room.told("site_resting")) == 1
    assert nothing_but_hello(server)


def test_an_unknown_issuer_is_named(room: Room, authority: trustme.CA) -> None:
    """So that the operator knows whose certificate to put into `ca_file`."""
    other = trustme.CA(organization_name="Somebody else")
    room.server.tls = serving(other, "mx.test")
    secured(room, authority).deliver()
    assert (room.outcome().state, room.outcome().phase) == (State.WAITING, Phase.TLS)
    assert room.outcome().text.startswith("the certificate's issuer is unknown to us: Somebody else")
    assert nothing_but_hello(room.server)


@pytest.mark.parametrize("policy", ["encrypt", "opportunistic"])
def test_other_policies_do_not_look_at_the_certificate(room: Room, authority: trustme.CA, policy: Tls) -> None:
    """They encrypt, for whoever it may be."""
    room.server.tls = serving(trustme.CA(), "other.test", **LONG_AGO)
    secured(room, authority, policy).deliver()
    assert room.outcome().state is State.DELIVERED
    assert room.told("connected")[0]["tls"] is True


@pytest.mark.parametrize("policy", ["encrypt", "verify"])
@pytest.mark.parametrize("refusal", ["not offered", "454 4.7.0 not now", "502 5.5.1 what?"])
def test_no_message_goes_out_in_the_clear_where_tls_is_required(
    room: Room, authority: trustme.CA, policy: Tls, refusal: str
) -> None:
    """Whatever the server answers."""
    if refusal != "not offered":
        room.server.tls = serving(authority, "mx.test")
        room.server.always("starttls", refusal)
    secured(room, authority, policy, password="secret").deliver()
    assert (room.outcome().state, room.outcome().phase) == (State.WAITING, Phase.TLS)
    assert nothing_but_hello(room.server)


@pytest.mark.parametrize("refusal", ["not offered", "454 4.7.0 not now"])
def test_opportunistic_tls_that_is_refused_is_no_fault(room: Room, authority: trustme.CA, refusal: str) -> None:
    """The delivery goes on in the clear, on the same connection."""
    if refusal != "not offered":
        room.server.tls = serving(authority, "mx.test")
        room.server.always("starttls", refusal)
    secured(room, authority, "opportunistic").deliver()
    assert (room.outcome().state, room.server.connections) == (State.DELIVERED, 1)
    assert room.told("connected")[0]["tls"] is False


@pytest.mark.parametrize("action", [RESET, Late("this is not TLS", 0.05)], ids=["reset", "garbage"])
def test_opportunistic_tls_that_fails_goes_on_in_the_clear(room: Room, authority: trustme.CA, action: Any) -> None:
    """On a new connection; and the next message does not try again for a while."""
    room = secured(room, authority, "opportunistic").configured(timeouts={"idle": 0.0})
    room.server.tls = serving(authority, "mx.test")
    room.server.always("tls", action)
    room.deliver()
    assert (room.outcome().state, room.server.connections) == (State.DELIVERED, 2)
    assert room.told("site_resting") == []
    room.deliver()
    assert (room.outcome(id="j2").state, room.server.connections) == (State.DELIVERED, 3)
    assert room.server.commands.count("STARTTLS") == 1
    room.advance(3600.0)
    room.deliver()
    assert room.server.commands.count("STARTTLS") == 2
    room.delivery.configure(room.settings)
    room.deliver()
    assert room.server.commands.count("STARTTLS") == 3


def test_opportunistic_tls_never_gives_a_password_away(room: Room, authority: trustme.CA) -> None:
    """Where TLS fails, a route with a password waits instead."""
    room.server.tls = serving(authority, "mx.test")
    room.server.always("tls", RESET)
    secured(room, authority, "opportunistic", password="secret").deliver()
    assert (room.outcome().state, room.outcome().phase) == (State.WAITING, Phase.TLS)
    assert nothing_but_hello(room.server)


@pytest.mark.parametrize("policy", ["opportunistic", "verify"])
def test_octets_before_the_handshake_end_the_attempt(room: Room, authority: trustme.CA, policy: Tls) -> None:
    """Somebody may have put them there to be read as if TLS protected them; nor does it go on in the clear."""
    room.server.tls = serving(authority, "mx.test")
    room.server.always("starttls", "220 2.0.0 go ahead\r\n250 2.0.0 trust me")
    secured(room, authority, policy).deliver(seconds=0.2)
    assert (room.outcome().state, room.outcome().phase) == (State.WAITING, Phase.TLS)
    assert (room.server.connections, nothing_but_hello(room.server)) == (1, True)


def test_a_handshake_that_stalls_is_the_hosts_fault(room: Room, authority: trustme.CA) -> None:
    """After `timeouts.tls`."""
    room.server.tls = serving(authority, "mx.test")
    room.server.always("tls", SILENT)
    secured(room, authority).accept()
    room.advance(59.0)
    assert room.settled == []
    room.advance(1.5)
    assert (room.outcome().phase, room.outcome().text) == (Phase.TLS, "the TLS handshake took too long")
    assert room.told("site_resting")[0]["host"] == SITE


def test_a_context_is_built_once() -> None:
    """For each policy and file of authorities; only `verify` needs authorities at all."""
    read: list[str | None] = []
    contexts = Contexts(lambda context, file: read.append(file))
    assert contexts.get("verify", None) is contexts.get("verify", None)
    assert contexts.get("verify", "/ca.pem") is contexts.get("verify", "/ca.pem")
    assert contexts.get("verify", None) is not contexts.get("verify", "/ca.pem")
    assert contexts.get("encrypt", "/ca.pem") is contexts.get("opportunistic", None)
    assert read == [None, "/ca.pem"]


def test_contexts_check_what_they_promise() -> None:
    """`verify` checks chain and name, the others neither; none speaks anything older than TLS 1.2."""
    contexts = Contexts(lambda context, file: None)
    verify, encrypt = contexts.get("verify", None), contexts.get("encrypt", None)
    assert (verify.verify_mode, verify.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (encrypt.verify_mode, encrypt.check_hostname) == (ssl.CERT_NONE, False)
    assert {verify.minimum_version, encrypt.minimum_version} == {ssl.TLSVersion.TLSv1_2}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError("60 s"), "the TLS handshake took too long"),
        (ConnectionResetError(104, "Connection reset by peer"), "the TLS handshake failed: connection reset by peer"),
        (ConnectionAbortedError(), "the TLS handshake failed: ConnectionAbortedError"),
    ],
)
def test_other_failures_have_words_too(error: Exception, words: str) -> None:
    """Whatever ends a handshake can be told to an operator."""
    assert explain(error, "mx.test") == words
