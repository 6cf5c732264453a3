"""After a reload no message begins in an old way: not in the clear, not under an old password, not to an old relay."""

from __future__ import annotations

import msgspec
import pytest

from config.settings import Relay, Route, Settings, Tls
from service.message.outcome import State
from tests.delivery.room import PORT, SITE, Room
from tests.delivery.test_passwords import with_password
from tests.fakes.smtp_server import SILENT, Late, SMTPServer


def encrypted(settings: Settings, tls: Tls = "encrypt") -> Settings:
    return msgspec.structs.replace(
        settings, routes=tuple(msgspec.structs.replace(route, tls=tls) for route in settings.routes)
    )


def test_a_connection_that_was_busy_at_the_reload_takes_no_further_message(room: Room) -> None:
    """The message that was under way ends; the next one asks for TLS, which this server does not have."""
    room.server.on("confirm", Late("250 2.0.0 taken", 5.0))
    room.accept()
    room.advance(1.0)
    room.delivery.configure(encrypted(room.settings))
    room.advance(5.0)
    assert room.outcome().state is State.DELIVERED
    room.deliver("eve@b.example", seconds=5.0)
    assert len(room.server.messages) == 1
    assert room.outcome("eve@b.example", "j2").state is State.WAITING


@pytest.mark.parametrize("moment", ["connect", "ehlo"])
def test_an_attempt_that_has_not_come_to_its_message_begins_anew(room: Room, moment: str) -> None:
    """It was in the greeting, or the handshake: it is given back untried, and meets the new settings."""
    room.server.on(moment, Late("220 mx.test" if moment == "connect" else "250 mx.test", 5.0))
    room.accept()
    room.advance(1.0)
    room.delivery.configure(encrypted(room.settings))
    room.advance(10.0)
    assert room.server.messages == []
    assert len(room.store.unclaimed) == 1
    assert [command for command in room.server.commands if command.startswith("MAIL")] == []


def test_the_next_relay_is_not_met_in_the_old_way(room: Room) -> None:
    """The first fails after the reload: the second is asked under the new settings only."""
    room.reactor.names["backup.test"] = ["192.0.2.9"]
    backup = SMTPServer(room.reactor).listen("192.0.2.9", PORT)
    relays = (Relay("smtp", "mx.test", PORT), Relay("smtp", "backup.test", PORT))
    room.configured(routes=(Route(domains=("*",), relay=relays, tls="none"),))
    room.server.on("connect", SILENT)
    room.accept()
    room.advance(1.0)
    room.delivery.configure(encrypted(room.settings))
    room.server.reset_all()
    room.advance(5.0)
    assert [command for command in backup.commands if command.startswith("MAIL")] == []
    assert backup.messages == []


def test_answers_that_were_given_before_the_reload_stand(room: Room) -> None:
    """A recipient that the first relay refused is not asked for again, and fails; the other goes on."""
    room.reactor.names["backup.test"] = ["192.0.2.9"]
    SMTPServer(room.reactor).listen("192.0.2.9", PORT)
    relays = (Relay("smtp", "mx.test", PORT), Relay("smtp", "backup.test", PORT))
    room.configured(routes=(Route(domains=("*",), relay=relays, tls="none"),))
    room.server.on("rcpt:eve@b.example", "550 5.1.1 who?").on("data", Late("421 4.3.2 enough", 3.0))
    room.accept("bob@b.example", "eve@b.example")
    room.advance(1.0)
    room.delivery.configure(msgspec.structs.replace(room.settings, hostname="other.test"))
    room.advance(10.0)
    assert room.outcome("eve@b.example").state is State.FAILED
    assert room.outcome("bob@b.example").state is State.DELIVERED


def test_the_rest_of_a_site_that_is_no_more_is_forgotten(room: Room) -> None:
    """Commands would tell of it as if it still mattered."""
    room.server.close()
    room.accept()
    room.advance(10.0)
    room.delivery.configure(msgspec.structs.replace(room.settings, hostname="other.test"))
    assert set(room.store.notes.resting) == {SITE}
    other = Route(domains=("*",), relay=(Relay("smtp", "other.test", PORT),), tls="none")
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=(other,)))
    room.advance(0.5)
    assert SITE not in room.store.notes.resting


def test_a_site_that_is_no_more_when_it_fails_is_given_no_rest_that_lasts(room: Room) -> None:
    """The attempt was under way when the reload came."""
    room.delivery.start()
    room.server.on("rcpt", Late("421 4.3.2 enough", 3.0))
    room.accept()
    room.advance(1.0)
    other = Route(domains=("*",), relay=(Relay("smtp", "other.test", PORT),), tls="none")
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=(other,)))
    room.advance(5.0)
    assert [facts["site"] for facts in room.told("site_resting")][:1] == [SITE]
    assert SITE not in room.store.notes.resting


def test_no_password_goes_out_in_the_clear_on_a_connection_that_came_about_after_the_reload(room: Room) -> None:
    """It was on its way when the settings changed: it is closed before a word is said."""
    room.server.accounts["user"] = "right"
    room.reactor.latency = 2.0
    room.configured(routes=with_password("right"))
    room.accept()
    room.advance(1.0)
    assert room.server.connections == 0
    room.delivery.configure(encrypted(room.settings))
    room.advance(30.0)
    assert room.server.connections > 0
    assert [command for command in room.server.commands if command.startswith("AUTH")] == []
