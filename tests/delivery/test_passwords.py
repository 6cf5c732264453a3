"""A password that may be wrong: one login finds out, and no account is locked over twenty at once."""

from __future__ import annotations

import msgspec
import pytest

from config.settings import Relay, Route, Secret, SiteRest
from service.delivery.pace import START
from tests.delivery.room import PORT, SITE, Room, many
from tests.fakes.smtp_server import SILENT, Late, SMTPServer


def with_password(password: str) -> tuple[Route, ...]:
    return (
        Route(
            domains=("*",),
            relay=(Relay("smtp", "mx.test", PORT),),
            tls="none",
            username="user",
            password=Secret(password),
        ),
    )


@pytest.fixture
def guarded(room: Room) -> Room:
    """The room with a relay that asks for a password, and gets the right one."""
    room.server.accounts["user"] = "right"
    room.reactor.latency = 0.1
    return room.configured(routes=with_password("right"))


def logins(room: Room) -> int:
    return sum(command.startswith("AUTH") for command in room.server.commands)


def test_a_wrong_password_is_tried_once_for_each_rest(guarded: Room) -> None:
    """However many messages wait, one login fails, the site rests, and the next probe is one as well."""
    room = guarded.configured(routes=with_password("wrong"))
    many(room, 50)
    room.advance(0.9)
    assert logins(room) == 1
    assert [facts["code"] for facts in room.told("site_resting")] == [535]
    room.advance(30.0)
    assert logins(room) == len(room.told("site_resting"))
    assert logins(room) <= 6  # after 1, 2, 4, 8, 16 seconds


def test_a_right_password_lets_the_others_follow_at_once(guarded: Room) -> None:
    """The end of the first handshake is enough: nobody waits for the first message's confirmation."""
    guarded.server.on("confirm", SILENT)
    many(guarded, 50)
    guarded.advance(5.0)
    assert len(guarded.server.messages) == 49
    assert guarded.server.most_open >= START
    assert guarded.told("site_back") == []


def test_a_new_password_is_tried_once_again(guarded: Room) -> None:
    """After a reload nothing is known of it, whatever the old one did."""
    many(guarded, 5)
    guarded.advance(5.0)
    wrong = msgspec.structs.replace(guarded.settings, routes=with_password("wrong"))
    before = logins(guarded)
    guarded.delivery.configure(wrong)
    many(guarded, 50)
    guarded.advance(0.9)
    assert logins(guarded) == before + 1


def test_a_site_without_a_password_is_met_by_many_at_once(room: Room) -> None:
    """There is nothing to lose."""
    room.reactor.latency = 0.1
    many(room, 50)
    room.advance(0.25)
    assert room.server.open == START


def test_a_rest_of_a_site_with_a_password_ends_as_any(guarded: Room) -> None:
    """A message served brings it back, not a handshake alone: the server may take logins and refuse mail."""
    room = guarded.configured(retry={"site_rest": SiteRest(first=1.0, longest=300.0)})
    many(room, 20)
    room.server.always("mail", "421 4.3.2 not today")
    room.advance(3.6)
    assert [facts["site"] for facts in room.told("site_resting")] == [SITE, SITE]
    room.server.usually("mail")
    room.advance(60.0)
    assert len(room.server.messages) == 20
    assert len(room.told("site_back")) == 1


def test_a_refused_password_is_not_offered_at_the_relays_other_addresses(guarded: Room) -> None:
    """They are one server with one account; another relay is another server, and is asked."""
    room = guarded
    room.reactor.names["mx.test"] = [f"192.0.2.{number}" for number in range(1, 6)]
    for number in range(2, 6):
        SMTPServer(room.reactor, accounts={"user": "right"}).listen(f"192.0.2.{number}", PORT)
    room.reactor.names["backup.test"] = ["192.0.2.9"]
    backup = SMTPServer(room.reactor, accounts={"user": "wrong"}).listen("192.0.2.9", PORT)
    relays = (Relay("smtp", "mx.test", PORT), Relay("smtp", "backup.test", PORT))
    room.configured(routes=(msgspec.structs.replace(with_password("wrong")[0], relay=relays),))
    room.deliver(seconds=5.0)
    assert len([facts for facts in room.told("attempt_failed") if facts["phase"] == "auth"]) == 1
    assert len(backup.messages) == 1


def test_a_password_that_goes_bad_while_nobody_is_connected_is_tried_once(guarded: Room) -> None:
    """The site has served well, and its connections have gone; then it is changed at the provider."""
    guarded.deliver(seconds=60.0)
    assert guarded.delivery.connections == 0
    guarded.server.accounts["user"] = "another"
    before = logins(guarded)
    many(guarded, 50)
    guarded.advance(0.9)
    assert logins(guarded) == before + 1


def test_a_password_that_was_corrected_ends_the_rest(guarded: Room) -> None:
    """What waits behind it goes at once; the message that found out when it was to be tried again."""
    room = guarded.configured(routes=with_password("wrong"), retry={"site_rest": SiteRest(first=200.0, longest=300.0)})
    many(room, 3)
    room.advance(5.0)
    assert len(room.told("site_resting")) == 1
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=with_password("right")))
    room.advance(5.0)
    assert len(room.server.messages) == 2
    room.advance(200.0)
    assert len(room.server.messages) == 3


SLOW = Late("250-mx.test\r\n250 AUTH PLAIN", 5.0)


def test_a_login_under_the_old_password_does_not_rest_the_site_that_has_a_new_one(guarded: Room) -> None:
    """It was under way when the password was corrected: its message is tried anew, at once."""
    room = guarded.configured(routes=with_password("wrong"))
    room.server.on("ehlo", SLOW)
    room.accept()
    room.advance(2.0)
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=with_password("right")))
    room.advance(6.0)
    assert logins(room) == 2
    assert (len(room.server.messages), room.told("site_resting")) == (1, [])


def test_a_message_delivered_under_the_old_password_says_nothing_of_the_new_one(guarded: Room) -> None:
    """Its confirmation comes after the reload: the new password is still tried once."""
    guarded.deliver(seconds=3.0)
    guarded.server.on("confirm", Late("250 2.0.0 taken", 3.0))
    guarded.deliver("eve@b.example", seconds=1.0)
    before = logins(guarded)
    guarded.delivery.configure(msgspec.structs.replace(guarded.settings, routes=with_password("wrong")))
    guarded.server.always("ehlo", SLOW)
    many(guarded, 50)
    guarded.advance(9.5)
    assert len(guarded.server.messages) == 2
    assert logins(guarded) == before + 1


def test_a_message_that_hangs_at_the_old_site_does_not_keep_the_new_one_waiting(guarded: Room) -> None:
    """It was to find out how the site does; now another does."""
    room = guarded.configured(routes=with_password("wrong"))
    room.server.on("connect", SILENT)
    many(room, 3)
    room.advance(2.0)
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=with_password("right")))
    room.advance(10.0)
    assert len(room.server.messages) == 2


def test_a_login_under_the_old_password_says_nothing_of_the_new_one(guarded: Room) -> None:
    """It succeeds after the reload: the new password is still tried once."""
    guarded.server.always("ehlo", SLOW)
    guarded.accept()
    guarded.advance(2.0)
    guarded.delivery.configure(msgspec.structs.replace(guarded.settings, routes=with_password("wrong")))
    many(guarded, 50)
    guarded.advance(10.0)
    assert logins(guarded) == 2
