"""A password that may be wrong: one login finds out, and no account is locked over twenty at once."""

from __future__ import annotations

import msgspec
import pytest

from config.settings import Relay, Route, Secret, SiteRest
from tests.delivery.room import PORT, SITE, Room, many
from tests.fakes.smtp_server import SILENT


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
    assert guarded.server.most_open > 10
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
    assert room.server.open == room.settings.limits.connections_per_site


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
