"""The next envelope goes ahead, with the end of the content before it: what becomes of each, whatever happens.

A starter takes the one connection of the site; the two that are claimed when it ends are `front`, and `behind` it.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from config.settings import Relay, Route
from deferred.defer import fail
from service.message.outcome import Phase, State
from service.smtp.session import Session
from tests.delivery.room import CONTENT, PORT, SITE, Room
from tests.fakes.smtp_server import CLOSE, PROCEED, RESET, SILENT, Action, Late, SMTPServer, Then

FRONT, BEHIND = "front@b.example", "behind@b.example"
DOT = CONTENT + b".\r\n"


@pytest.fixture
def room(room: Room) -> Room:
    """A room with one connection at once, which takes a millisecond each way."""
    room.reactor.latency = 0.001
    return room.configured(limits={"connections_per_site": 1})


def envelope(recipient: str) -> bytes:
    return b"MAIL FROM:<ann@a.example> SIZE=26\r\nRCPT TO:<%b>\r\nDATA\r\n" % recipient.encode()


def line_up(room: Room, seconds: float = 0.5, front: dict[str, Any] | None = None, **behind: Any) -> None:
    """Three messages: j1 is the starter, j2 the front, j3 the one behind it, which has these facts."""
    room.accept("starter@b.example")
    room.accept(FRONT, **(front or {}))
    room.accept(*behind.pop("recipients", (BEHIND,)), **behind)
    room.advance(seconds)


def third(room: Room, word: str, *actions: Action) -> None:
    """Do this when the word comes for the third time, that is for the one behind."""
    room.server.on(word, PROCEED, PROCEED, *actions)


def front_fails(room: Room, action: Action) -> None:
    """Do this at the front's final dot."""
    room.server.on("confirm", PROCEED, action)


def went_ahead(room: Room) -> bool:
    """Whether the envelope of the one behind came in one piece with the front's final dot."""
    return any(DOT + envelope(BEHIND) in read for read in room.server.reads)


def states(room: Room) -> list[State]:
    return [room.outcome(FRONT, "j2").state, room.outcome(BEHIND, "j3").state]


def nothing_is_left(room: Room) -> None:
    """Every slot is free, and a connection is kept once or not at all."""
    pool = room.delivery._pool
    assert (pool.busy, room.delivery.in_flight, room.delivery._heirs) == (0, 0, {})
    assert pool.idle == room.delivery.connections
    room.advance(60.0)
    assert (pool.idle, pool.unused_at(SITE), room.delivery.connections, room.server.open) == (0, True, 0, 0)


# what goes ahead


def test_what_follows_hides_nothing_that_has_hung_for_longer(room: Room) -> None:
    """It began before that, and waited for nobody until the one in front of it was answered."""
    room.configured(limits={"connections_per_site": 2})
    slow = Late("250 2.0.0 taken", 30.0)
    room.server.on("confirm", PROCEED, PROCEED, slow, PROCEED, PROCEED, slow)
    for n in range(6):  # two begin, two follow, of which one is slow, and two are behind those
        room.accept(f"user{n}@b.example")
    room.advance(0.5)
    room.server.on("mail", Late("250 2.1.0 ok", 300.0))
    hanging = room.accept("hangs@b.example")
    room.advance(1.0)
    assert (room.delivery.in_flight, len(room.server.messages)) == (3, 5)
    room.advance(40.0)
    assert (room.delivery.in_flight, len(room.server.messages)) == (2, 6)
    oldest = room.delivery.sites()[0].oldest
    assert oldest is not None
    assert (oldest.id, oldest.step) == (hanging, f"mail at {SITE}")


def test_what_waits_for_the_disk_alone_is_not_blamed(room: Room) -> None:
    """It has its answer, and its connection is another's."""
    room.accept("quick@b.example")
    room.advance(0.002)
    room.store.healthy = False
    room.advance(10.0)
    assert (len(room.server.messages), room.delivery.in_flight) == (1, 1)
    assert room.delivery.sites()[0].oldest is None


def test_what_went_ahead_is_under_way_since_the_front_has_its_answer(room: Room) -> None:
    """Until then it waits for nobody; the front is what has been under way for longest."""
    room.server.on("confirm", PROCEED, Late("250 2.0.0 taken", 100.0), Late("250 2.0.0 taken", 100.0))
    line_up(room, 50.0)
    assert went_ahead(room)
    oldest = room.delivery.sites()[0].oldest
    assert oldest is not None
    assert (oldest.id, oldest.step) == ("j2", f"confirm at {SITE}")
    assert oldest.since == pytest.approx(room.store.now() - 50.0, abs=0.1)
    room.advance(100.0)
    oldest = room.delivery.sites()[0].oldest
    assert oldest is not None
    assert (oldest.id, oldest.step) == ("j3", f"confirm at {SITE}")
    assert oldest.since == pytest.approx(room.store.now() - 50.0, abs=0.1)


def test_the_end_of_the_content_and_the_next_envelope_are_one_write(room: Room) -> None:
    """So that a message costs one round trip for all its commands, and none for its dot: that is the next one's."""
    line_up(room)
    assert room.server.reads[-3:] == [envelope(FRONT), DOT + envelope(BEHIND), DOT]
    assert states(room) == [State.DELIVERED, State.DELIVERED]
    nothing_is_left(room)


def test_messages_go_in_their_order_and_in_one_slot(room: Room) -> None:
    """However many there are: the one behind takes over the slot of the one in front."""
    most: list[int] = []
    room.journal.add(lambda event, facts: most.extend(view.in_flight for view in room.delivery.sites()))
    for number in range(50):
        room.accept(f"user{number}@b.example")
    room.advance(1.0)
    assert [message.recipients[0] for message in room.server.messages] == [f"user{n}@b.example" for n in range(50)]
    assert (room.server.connections, max(most)) == (1, 1)
    assert sum(b"\r\n.\r\nMAIL" in read for read in room.server.reads) >= 45
    nothing_is_left(room)


def test_the_stack_does_not_grow_with_the_messages(room: Room) -> None:
    """A server that answers at once, with always a next message at hand."""
    depths: list[int] = []

    def depth(event: str, facts: dict[str, object]) -> None:
        import inspect

        if event == "attempt_started":
            depths.append(len(inspect.stack(0)))

    room.reactor.latency = 0.0
    room.configured(limits={"connections_per_site": 1, "messages_per_connection": 10_000})
    room.journal.add(depth)
    for number in range(500):
        room.accept(f"user{number}@b.example")
    room.advance(1.0)
    assert (len(room.server.messages), room.server.connections) == (500, 1)
    assert max(depths[400:]) == max(depths[2:100])


def test_each_message_is_told_its_own_steps(room: Room) -> None:
    """Each command that was answered, though the answers to two messages come in one read."""
    line_up(room)
    steps = [(facts["id"], facts["phase"]) for facts in room.told("step") if facts["id"] != "j1"]
    assert steps == [(id, phase) for id in ("j2", "j3") for phase in ("mail", "rcpt", "data", "body", "confirm")]


# what does not go ahead


def test_a_server_without_pipelining_gets_nothing_ahead(room: Room) -> None:
    """It may throw away what it did not wait for."""
    room.server.extensions = ("SIZE 52428800",)
    line_up(room)
    assert states(room) == [State.DELIVERED, State.DELIVERED]
    assert DOT in room.server.reads
    assert not any(read.startswith(DOT) and read != DOT for read in room.server.reads)


def test_a_worn_connection_takes_nothing_ahead(room: Room) -> None:
    """The front is its last message: the one behind gets a new connection."""
    room.configured(limits={"connections_per_site": 1, "messages_per_connection": 2})
    line_up(room)
    assert (went_ahead(room), room.server.connections) == (False, 2)
    assert (states(room), room.server.commands.count("QUIT")) == ([State.DELIVERED, State.DELIVERED], 1)
    nothing_is_left(room)


def test_nothing_goes_ahead_of_a_message_without_content(room: Room) -> None:
    """Its refusal costs the next one nothing: it begins when that has been heard."""
    room.server.on("mail", PROCEED, "550 5.7.1 no")
    line_up(room)
    assert states(room) == [State.FAILED, State.DELIVERED]
    assert not went_ahead(room)
    assert room.server.connections == 1
    nothing_is_left(room)


def test_nothing_is_begun_ahead_at_the_end_of_the_daemon(room: Room) -> None:
    """What is claimed, and not begun, goes back."""
    room.server.on("data", PROCEED, Late("354 go on", 0.3))
    line_up(room, seconds=0.2)
    ends: list[None] = []
    room.delivery.drain(25.0).add_callback(ends.append)
    room.advance(5.0)
    assert (went_ahead(room), room.outcome(FRONT, "j2").state) == (False, State.DELIVERED)
    assert ([claim.id for claim in room.store.unclaimed], ends, room.reactor.pending) == (["j3"], [None], 0)


# the front fails


@pytest.mark.parametrize(("reply", "state"), [("450 4.3.0 full", State.WAITING), ("550 5.7.1 spam", State.FAILED)])
def test_a_refusal_of_the_front_is_its_own(room: Room, reply: str, state: State) -> None:
    """The one behind goes on over the same connection."""
    front_fails(room, reply)
    line_up(room)
    assert (went_ahead(room), states(room), room.server.connections) == (True, [state, State.DELIVERED], 1)
    assert room.told("site_resting") == []
    room.advance(61.0)
    nothing_is_left(room)


@pytest.mark.parametrize("action", [CLOSE, RESET, "999 what"])
def test_a_connection_lost_before_the_first_answer_leaves_only_the_front_in_doubt(room: Room, action: Action) -> None:
    """The one behind is given back untried: no attempt, no doubt, no possible duplicate. The site rests once."""
    front_fails(room, action)
    line_up(room)
    assert went_ahead(room)
    assert [facts["id"] for facts in room.told("in_doubt")] == ["j2"]
    assert [claim.id for claim in room.store.unclaimed] == ["j3"]
    assert len(room.told("site_resting")) == 1
    room.advance(5.0)
    assert states(room) == [State.DELIVERED, State.DELIVERED]
    assert [facts["id"] for facts in room.told("possible_duplicate")] == ["j2"]
    assert [(each.claim.id, each.attempts, each.doubt) for each in room.settled if each.claim.id == "j3"] == [
        ("j3", 1, False)
    ]
    nothing_is_left(room)


def test_a_server_that_is_silent_at_the_front_is_waited_for_once(room: Room) -> None:
    """The deadline is that of the confirmation, for both; the one behind has lost no attempt over it."""
    front_fails(room, SILENT)
    line_up(room)
    room.advance(598.0)
    assert room.told("in_doubt") == []
    room.advance(2.0)
    assert [facts["id"] for facts in room.told("in_doubt")] == ["j2"]
    room.advance(5.0)
    assert room.outcome(BEHIND, "j3").state is State.DELIVERED
    assert room.told("in_doubt")[1:] == []


def test_a_server_that_takes_leave_at_the_front_has_neither(room: Room) -> None:
    """421 is an answer: no doubt. The site rests, and then both go, with no attempt used up before."""
    front_fails(room, Then("421 4.3.2 going down"))
    line_up(room)
    assert (room.told("in_doubt"), len(room.told("site_resting"))) == ([], 1)
    assert [claim.id for claim in room.store.unclaimed] == ["j3"]
    room.advance(5.0)
    assert states(room) == [State.DELIVERED, State.DELIVERED]
    assert [each.attempts for each in room.settled if each.claim.id != "j1"] == [0, 1, 1]
    assert room.told("possible_duplicate") == []
    nothing_is_left(room)


def test_an_answer_that_the_one_behind_has_is_kept_when_the_connection_dies(room: Room) -> None:
    """Its envelope was refused in part by us, as the server cannot take it: that stands. The rest is due at once."""
    front_fails(room, CLOSE)
    line_up(room, recipients=("j\u00f6rg@b.example", BEHIND))
    (settled,) = [each for each in room.settled if each.claim.id == "j3"]
    assert [(each.address, each.enhanced) for each in settled.outcomes] == [("j\u00f6rg@b.example", "5.6.7")]
    assert (settled.attempts, settled.due) == (0, settled.at)
    room.advance(5.0)
    assert states(room) == [State.DELIVERED, State.DELIVERED]


def test_the_front_goes_on_to_the_next_relay_alone(room: Room) -> None:
    """It keeps the slot; the one behind comes when there is one for it."""
    room.reactor.names["backup.test"] = ["192.0.2.2"]
    backup = SMTPServer(room.reactor).listen("192.0.2.2", PORT)
    relays = (Relay("smtp", "mx.test", PORT), Relay("smtp", "backup.test", PORT))
    room.configured(routes=(Route(domains=("*",), relay=relays, tls="none"),))
    front_fails(room, Then("421 4.3.2 going down"))
    line_up(room, seconds=5.0)
    assert [message.recipients for message in backup.messages] == [(FRONT,), (BEHIND,)]
    assert backup.most_open == 1
    nothing_is_left(room)


# the one behind fails


def test_a_connection_lost_between_the_two_answers_hurts_nobody(room: Room) -> None:
    """It died before it answered the one behind: that goes out on a fresh connection, at once."""
    third(room, "mail", CLOSE)
    line_up(room)
    assert (went_ahead(room), states(room)) == (True, [State.DELIVERED, State.DELIVERED])
    assert (room.server.connections, room.told("site_resting"), room.told("in_doubt")) == (2, [], [])
    nothing_is_left(room)


def test_a_421_to_the_envelope_behind_hurts_nobody(room: Room) -> None:
    """As on a kept connection."""
    third(room, "mail", Then("421 4.4.2 enough for one connection"))
    line_up(room)
    assert (states(room), room.server.connections) == ([State.DELIVERED, State.DELIVERED], 2)
    assert room.told("site_resting") == []
    nothing_is_left(room)


def test_what_was_answered_for_the_one_behind_stands_when_the_connection_dies_then(room: Room) -> None:
    """The 550 is for good; the other waits, and the host is at fault."""
    room.server.on("rcpt:eve@b.example", "550 5.1.1 who?")
    third(room, "data", CLOSE)
    line_up(room, recipients=("eve@b.example", BEHIND))
    assert (room.outcome("eve@b.example", "j3").code, room.outcome(BEHIND, "j3").phase) == (550, Phase.DATA)
    assert (len(room.told("site_resting")), room.told("in_doubt")) == (1, [])
    room.advance(5.0)
    assert states(room) == [State.DELIVERED, State.DELIVERED]
    nothing_is_left(room)


@pytest.mark.parametrize("word", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("late", [0.0, 0.1], ids=["in one read", "later"])
def test_the_one_behind_is_refused_wholly(room: Room, word: str, late: float) -> None:
    """Also in one read with the front's answer: each has its own, and the connection, reset, is kept once."""
    if late:
        front_fails(room, Late("250 2.0.0 taken", late))
    third(room, word, "550 5.7.1 no")
    line_up(room)
    assert (went_ahead(room), states(room)) == (True, [State.DELIVERED, State.FAILED])
    for number in range(3):
        room.accept(f"user{number}@b.example")
    room.advance(0.5)
    assert (len(room.server.messages), room.server.connections) == (5, 1)
    nothing_is_left(room)


def test_the_one_behind_is_too_large_for_the_server(room: Room) -> None:
    """It is never offered, and has its answer with the front's."""
    room.server.extensions = ("PIPELINING", "SIZE 100")
    front_fails(room, Late("250 2.0.0 taken", 0.1))
    line_up(room, content=CONTENT + b"x" * 1000)
    assert states(room) == [State.DELIVERED, State.FAILED]
    assert room.outcome(BEHIND, "j3").enhanced == "5.3.4"
    room.deliver("user@b.example")
    assert (len(room.server.messages), room.server.connections) == (3, 1)
    nothing_is_left(room)


# both


def test_lmtp_answers_for_each_recipient_and_goes_on(room: Room) -> None:
    """The front has two answers to its dot; only behind both come those to the next envelope."""
    room.configured(routes=(Route(domains=("*",), relay=(Relay("lmtp", "mx.test", PORT),), tls="none"),))
    room.server.on("confirm", PROCEED, "250 2.0.0 one\r\n450 4.2.2 two is full")
    room.accept("starter@b.example")
    room.accept(FRONT, "two@b.example")
    room.accept(BEHIND)
    room.advance(0.5)
    assert (room.outcome(FRONT, "j2").state, room.outcome("two@b.example", "j2").code) == (State.DELIVERED, 450)
    assert (room.outcome(BEHIND, "j3").state, room.server.connections) == (State.DELIVERED, 1)
    assert any(DOT + b"MAIL" in read for read in room.server.reads)


def test_quit_waits_for_the_commits_of_both(room: Room) -> None:
    """The connection is worn after the one behind; it is left once, in good order, when both outcomes are durable."""
    room.configured(limits={"connections_per_site": 1, "messages_per_connection": 3})
    front_fails(room, Late("250 2.0.0 taken", 0.1))
    line_up(room, seconds=0.05)
    assert went_ahead(room)
    room.store.healthy = False
    room.advance(1.0)
    assert (len(room.server.messages), "QUIT" in room.server.commands) == (3, False)
    commit, done = room.store._waiting.pop(0)
    done.callback(commit())
    room.advance(0.1)
    assert ([facts["id"] for facts in room.told("delivered")], "QUIT" in room.server.commands) == (["j1", "j2"], False)
    room.store.recover()
    room.advance(1.0)
    assert (room.server.commands.count("QUIT"), room.server.ends) == (1, [None])
    nothing_is_left(room)


def test_a_reload_between_gives_the_one_behind_back(room: Room) -> None:
    """Its content would have gone in the old way: in the clear. The front, whose content is out, gets its answer."""
    front_fails(room, Late("250 2.0.0 taken", 0.1))
    line_up(room, seconds=0.05)
    assert went_ahead(room)
    routes = tuple(msgspec.structs.replace(route, tls="encrypt") for route in room.settings.routes)
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=routes))
    room.advance(0.3)
    assert room.outcome(FRONT, "j2").state is State.DELIVERED
    assert [claim.id for claim in room.store.unclaimed] == ["j3"]
    assert len(room.server.messages) == 2
    room.advance(30.0)
    assert (len(room.server.messages), room.outcome(BEHIND, "j3").phase) == (2, Phase.TLS)


def test_what_the_one_behind_was_answered_before_it_is_given_back_stands(room: Room) -> None:
    """In one read with the front's answer, after a reload: it has failed, and is not tried again in the new way."""
    front_fails(room, Late("250 2.0.0 taken", 0.1))
    third(room, "mail", "550 5.7.1 no")
    line_up(room, seconds=0.05)
    assert went_ahead(room)
    room.delivery.configure(room.settings)
    room.advance(0.5)
    assert (states(room), room.store.unclaimed) == ([State.DELIVERED, State.FAILED], [])
    nothing_is_left(room)


@pytest.mark.parametrize("late", [0.1, 3.0], ids=["within the grace", "after it"])
def test_a_drain_between_waits_for_the_front_alone(room: Room, late: float) -> None:
    """The one behind has not been asked for its content: it is given back untried when the front has its answer."""
    front_fails(room, Late("250 2.0.0 taken", late))
    third(room, "data", Late("354 go on", 1.0))
    line_up(room, seconds=0.05)
    assert went_ahead(room)
    ends: list[float] = []
    room.delivery.drain(25.0).add_callback(lambda _: ends.append(room.now))
    room.advance(5.0)
    assert (room.outcome(FRONT, "j2").state, len(ends)) == (State.DELIVERED, 1)
    assert ends == [pytest.approx(late, abs=0.05)]
    assert [claim.id for claim in room.store.unclaimed] == ["j3"]
    assert (room.server.open, room.reactor.pending, room.told("site_resting")) == (0, 0, [])


def test_a_drain_between_lets_the_one_behind_go_on_that_is_asked_for_its_content(room: Room) -> None:
    """In one read with the front's answer: it may finish as any other."""
    front_fails(room, Late("250 2.0.0 taken", 3.0))
    line_up(room, seconds=0.05)
    ends: list[None] = []
    room.delivery.drain(25.0).add_callback(ends.append)
    room.advance(5.0)
    assert (states(room), ends, room.reactor.pending) == ([State.DELIVERED, State.DELIVERED], [None], 0)


def test_a_drain_that_cuts_off_leaves_only_the_front_in_doubt(room: Room) -> None:
    """Both are cut off, since neither has an answer in time."""
    front_fails(room, SILENT)
    line_up(room, seconds=0.05)
    ends: list[None] = []
    room.delivery.drain(25.0).add_callback(ends.append)
    room.advance(25.0)
    assert (ends, [facts["id"] for facts in room.told("in_doubt")]) == ([None], ["j2"])
    assert [claim.id for claim in room.store.unclaimed] == ["j3"]
    assert room.reactor.pending == 0


def test_the_end_of_the_job_in_front_does_not_stop_the_one_behind(room: Room) -> None:
    """Somebody removes the front, whose content is out: its answer comes, and the next one's content goes."""
    front_fails(room, Late("250 2.0.0 taken", 0.1))
    line_up(room, seconds=0.05)
    assert went_ahead(room)
    room.store.change("remove", ["j2"], None)
    room.advance(0.5)
    assert room.outcome(BEHIND, "j3").state is State.DELIVERED
    nothing_is_left(room)


def test_a_job_to_be_held_in_doubt_is_marked_when_its_own_dot_may_go(room: Room) -> None:
    """Not when its envelope goes ahead: until the front is answered nothing of it is out."""
    front_fails(room, Late("250 2.0.0 taken", 0.1))
    line_up(room, seconds=0.05, in_doubt="hold")
    assert (went_ahead(room), room.store.marked) == (True, [])
    room.store.healthy = False
    room.advance(0.5)
    assert (room.store.marked, len(room.server.messages)) == ([], 2)
    room.store.recover()
    room.advance(0.5)
    assert (room.store.marked, states(room)) == ([("j3", SITE)], [State.DELIVERED, State.DELIVERED])
    nothing_is_left(room)


def test_a_job_removed_while_its_envelope_was_ahead_is_not_sent(room: Room) -> None:
    """The mark finds it gone when its content is asked for; the front has its answer by then."""
    room.store.mark = lambda claim, host: fail(LookupError("gone"))  # type: ignore[method-assign]
    line_up(room, in_doubt="hold")
    assert (went_ahead(room), room.outcome(FRONT, "j2").state) == (True, State.DELIVERED)
    assert len(room.server.messages) == 2
    nothing_is_left(room)


# bugs of ours


def bugs(room: Room) -> list[str]:
    """The unhandled errors, in words; they are expected here."""
    found = [str(facts["error"]).strip().splitlines()[-1] for facts in room.told("unhandled_error")]
    room.events[:] = [event for event in room.events if event[1] != "unhandled_error"]
    return found


def test_a_bug_in_sending_ahead_does_not_touch_the_front(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered as if nothing had been; the job with the bug is held, and the connection not used again."""
    send = Session.send

    def buggy(self: Session, envelope: Any) -> Any:
        if BEHIND in envelope.recipients:
            raise RuntimeError("a bug")
        return send(self, envelope)

    monkeypatch.setattr(Session, "send", buggy)
    line_up(room)
    room.deliver("user@b.example")
    assert room.outcome(FRONT, "j2").state is State.DELIVERED
    assert [each.claim.id for each in room.settled if each.hold] == ["j3"]
    assert (room.server.connections, len(room.server.messages)) == (2, 3)
    assert bugs(room) == ["RuntimeError: a bug"]
    nothing_is_left(room)


def test_a_bug_in_hearing_the_front_does_not_touch_the_one_behind(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The front is held, as nobody knows who has it; nothing of the one behind can have arrived: it is sent anew."""
    receive = Session.receive_data

    def buggy(self: Session, data: bytes) -> Any:
        if b"wonderful" in data:
            raise RuntimeError("a bug")
        return receive(self, data)

    monkeypatch.setattr(Session, "receive_data", buggy)
    front_fails(room, "250 2.0.0 wonderful")
    line_up(room)
    room.advance(5.0)
    assert [(each.claim.id, each.doubt) for each in room.settled if each.hold] == [("j2", True)]
    assert room.outcome(BEHIND, "j3").state is State.DELIVERED
    assert bugs(room) == ["RuntimeError: a bug"]
    nothing_is_left(room)


def test_a_server_that_throws_away_what_goes_ahead_gets_it_no_more(room: Room) -> None:
    """For an hour, or until a reload: one message waits for an answer that never comes, and not every other one."""
    room.server.forgetful = True
    for number in range(100):
        room.accept(f"u{number}@b.example")
    room.advance(room.settings.timeouts.command + 10.0)
    assert len(room.server.messages) == 100
    assert (room.server.connections, room.told("site_resting")) == (2, [])
    room.advance(3600.0)
    connections = room.server.connections
    for number in range(3):
        room.accept(f"v{number}@b.example")
    room.advance(room.settings.timeouts.command + 10.0)
    assert (len(room.server.messages), room.server.connections - connections) == (103, 2)


def test_a_server_that_takes_leave_behind_a_message_gets_more_ahead(room: Room) -> None:
    """It has heard what went ahead, and wants it on another connection."""
    room.server.on("confirm", PROCEED, Then("250 2.0.0 taken"))
    line_up(room)
    room.accept("u1@b.example")
    room.accept("u2@b.example")
    room.accept("u3@b.example")
    room.advance(0.5)
    assert [message.recipients[0] for message in room.server.messages][-3:] == [f"u{n}@b.example" for n in (1, 2, 3)]
    assert any(b".\r\nMAIL FROM" in read for read in room.server.reads[-4:])
