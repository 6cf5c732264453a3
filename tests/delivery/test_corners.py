"""What happens seldom: at the edge of two turns, with a slow store, by a bug of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from config.settings import Relay, Retry, Route
from deferred.defer import Deferred, fail
from service.delivery.passage import Passage
from service.message.job import Job
from service.message.outcome import Phase, State
from service.queue.store import Claim, Pace, Settled, StoreFailed, Submission
from service.smtp.errors import HostFailure
from service.smtp.session import Session
from tests.delivery.room import CONTENT, HOST, PORT, Room, sites
from tests.fakes.smtp_server import CLOSE, SILENT, STALL, Late, SMTPServer, Then

LONG = b"Subject: long\r\n\r\n" + (b"x" * 70 + b"\r\n") * 800  # one piece, more than a window of 4 KiB

# the final dot


def test_nothing_is_in_doubt_while_the_final_dot_is_still_here(room: Room) -> None:
    """All is written, but not taken: the server cannot have the end, so `write` is the deadline, and no doubt is."""
    room.reactor.window = 4096
    room.server.on("body", STALL)
    room.accept(content=LONG)
    room.advance(179.0)
    assert room.settled == []
    room.advance(1.5)
    assert (room.outcome().phase, room.told("in_doubt"), room.settled[0].attempts) == (Phase.BODY, [], 0)
    room.advance(2.0)
    assert room.outcome().state is State.DELIVERED


def test_a_message_that_is_out_is_not_called_sent_once_it_has_failed() -> None:
    """Whoever waits for it hears of the failure first."""
    content: Any = None
    heard: list[Any] = []
    passage = Passage("j1", content, 0, lambda: None)
    passage.out = True
    passage.sent().add_callback(heard.append)
    passage.end = HostFailure(Phase.BODY, "gone")
    passage.sent().add_errback(lambda failure: heard.append(failure.value))
    assert heard == [passage, passage.end]


# kept connections


def test_a_kept_connection_that_has_just_failed_is_not_taken(room: Room) -> None:
    """Nor is the host blamed, in the very turn in which the next message comes."""
    room.deliver()
    room.accept()
    client: Any = room.reactor.connections[0]
    client.deliver(b"250 2.0.0 surprise\r\n")
    room.advance(0.5)
    assert room.outcome(id="j2").state is State.DELIVERED
    assert (room.server.connections, room.told("site_resting")) == (2, [])


def test_a_kept_connection_that_fails_after_an_answer_is_the_hosts_fault(room: Room) -> None:
    """The server has heard of the message: the same address is not asked again at once."""
    room.deliver()
    room.server.on("rcpt", Then("421 4.3.2 enough"))
    room.deliver()
    assert (room.server.connections, len(room.told("site_resting"))) == (1, 1)


def test_no_connection_outlives_a_goodbye_that_is_not_answered(room: Room) -> None:
    """Five seconds for QUIT, then it is cut."""
    room.server.always("quit", SILENT)
    room.deliver()
    room.advance(10.0)
    assert room.delivery.connections == 1
    room.advance(5.0)
    assert (room.delivery.connections, room.server.open) == (0, 0)


def test_a_kept_connection_that_fails_late_does_not_send_its_message_past_the_second_address(room: Room) -> None:
    """The relays keep the order that they had when the message began."""
    room.reactor.names["mx.test"] = [HOST, "192.0.2.2"]
    room.reactor.names["backup.test"] = ["192.0.2.3"]
    second, backup = (SMTPServer(room.reactor).listen(f"192.0.2.{number}", PORT) for number in (2, 3))
    relays = (Relay("smtp", "mx.test", PORT), Relay("smtp", "backup.test", PORT))
    room = room.configured(routes=(Route(domains=("*",), relay=relays, tls="none"),))
    room.deliver()
    room.server.on("rcpt", CLOSE)
    room.deliver()
    assert [len(server.messages) for server in (room.server, second, backup)] == [1, 1, 0]


def test_a_kept_connection_that_has_died_says_nothing_of_its_address(room: Room) -> None:
    """The next relay's name leads to the same one, and it is tried there."""
    room.reactor.names["backup.test"] = [HOST]
    relays = (Relay("smtp", "mx.test", PORT), Relay("smtp", "backup.test", PORT))
    room = room.configured(routes=(Route(domains=("*",), relay=relays, tls="none"),), timeouts={"idle": 1000.0})
    room.deliver()
    del room.reactor.names["mx.test"]
    room.advance(100.0)  # until it is not remembered any more
    room.server.on("mail", CLOSE)
    room.deliver()
    assert (room.outcome(id="j2").state, room.server.connections) == (State.DELIVERED, 2)


def test_a_kept_connection_makes_way(room: Room) -> None:
    """With all connections kept for other sites, the one idle longest is closed for a new one."""
    servers = sites(room, 3)
    room.configured(limits={"connections": 2}, timeouts={"idle": 1000.0})
    for server in servers:
        server.always("quit", SILENT)  # not even its goodbye is waited for
    for number in range(3):
        room.deliver(f"bob@s{number}.example")
        assert room.delivery.connections <= 2
    assert [len(server.messages) for server in servers] == [1, 1, 1]
    assert [server.open for server in servers] == [0, 1, 1]


def test_room_for_one_at_a_time(room: Room) -> None:
    """One connection, for one message: the next is opened when the last is gone."""
    room.configured(limits={"connections_per_site": 1, "messages_per_connection": 1})
    for number in range(5):
        room.accept(f"user{number}@b.example")
    room.advance(0.5)
    assert (len(room.server.messages), room.server.most_open) == (5, 1)


def test_nonsense_on_a_kept_connection_is_the_hosts_fault(room: Room) -> None:
    """It has not just hung up: it does not speak SMTP any more."""
    room.deliver()
    room.server.on("mail", "999 what")
    room.deliver()
    assert (room.server.connections, len(room.told("site_resting"))) == (1, 1)


def test_a_kept_connection_that_dies_during_a_drain_is_not_replaced(room: Room) -> None:
    """No new connection: the message waits for the next start."""
    room.deliver()
    room.server.on("mail", SILENT)
    room.deliver()
    ends: list[None] = []
    room.delivery.drain(25.0).add_callback(ends.append)
    room.server.reset_all()
    room.advance(1.0)
    assert (ends, room.server.connections, len(room.server.messages)) == ([None], 1, 1)
    assert room.outcome(id="j2").state is State.WAITING


# hosts


def test_a_host_with_many_addresses_is_not_tried_without_end(room: Room) -> None:
    """Eight of them, then the next relay's turn, or the rest."""
    addresses = [f"198.51.100.{number}" for number in range(1, 21)]
    room.reactor.names["mx.test"] = addresses
    servers = [
        SMTPServer(room.reactor).listen(address, PORT).always("connect", Then("421 4.3.2 no")) for address in addresses
    ]
    room.deliver(seconds=0.9)
    assert sum(server.connections for server in servers) == 8


def test_a_resolver_that_does_not_answer_is_the_hosts_fault(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `timeouts.connect`."""
    monkeypatch.setattr(room.reactor, "getaddrinfo", lambda host, port: Deferred())
    room.accept()
    room.advance(29.0)
    assert room.settled == []
    room.advance(1.5)
    assert room.outcome().phase is Phase.CONNECT
    assert "cannot be resolved" in room.outcome().text


@pytest.mark.parametrize("how", ["another address", "another relay", "a kept connection"])
def test_when_all_have_their_answer_nobody_else_is_asked(room: Room, how: str) -> None:
    """The only recipient is refused, and the connection dies: a receipt, not a host failure."""
    second = SMTPServer(room.reactor).listen("192.0.2.2", PORT)
    room.reactor.names["backup.test"] = ["192.0.2.2"]
    relays = (Relay("smtp", "mx.test", PORT), Relay("smtp", "backup.test", PORT))
    if how == "another address":
        room.reactor.names["mx.test"] = [HOST, "192.0.2.2"]
        relays = relays[:1]
    room.configured(routes=(Route(domains=("*",), relay=relays, tls="none"),))
    if how == "a kept connection":
        room.deliver("eve@b.example")
    room.server.on("rcpt", "550 5.1.1 who?").on("data", CLOSE)
    id = room.deliver()
    assert (room.outcome(id=id).state, room.outcome(id=id).code) == (State.FAILED, 550)
    assert (second.connections, room.told("site_resting")) == (0, [])


def test_a_refusal_stands_although_every_relay_failed(room: Room) -> None:
    """A 550 by the first relay is final; the other recipient waits with what the second did."""
    room.reactor.names["backup.test"] = ["192.0.2.2"]
    relays = (Relay("smtp", "mx.test", PORT), Relay("smtp", "backup.test", PORT))
    room.configured(routes=(Route(domains=("*",), relay=relays, tls="none"),))
    room.server.on("rcpt:eve@b.example", "550 5.1.1 who?").on("data", CLOSE)
    room.deliver("bob@b.example", "eve@b.example")
    assert {each.address: (each.state, each.host) for each in room.settled[0].outcomes} == {
        "eve@b.example": (State.FAILED, "mx.test:25"),
        "bob@b.example": (State.WAITING, "backup.test:25"),
    }


def test_an_old_failure_does_not_rest_a_site_again(room: Room) -> None:
    """One conversation hangs for minutes; the site has rested and served since."""
    room.server.on("mail", SILENT)
    room.deliver()
    room.server.on("connect", CLOSE)
    room.deliver("eve@b.example")
    room.advance(5.0)
    assert room.outcome("eve@b.example", "j2").state is State.DELIVERED
    room.advance(300.0)
    assert room.outcome().state is State.DELIVERED
    assert room.when("site_resting") == [pytest.approx(0.5, abs=0.1)]


# a slow or failing store


class SlowClaims:
    """`Store.claim` that answers when told to, with what was due when it was asked."""

    def __init__(self, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting: list[tuple[Deferred[list[Claim]], list[Claim]]] = []
        self._claim = room.store.claim
        monkeypatch.setattr(room.store, "claim", self)

    def __call__(self, site: str, limit: int, pace: Callable[[], Pace] | None) -> Deferred[list[Claim]]:
        claims: list[Claim] = []
        self._claim(site, limit, pace).add_callback(claims.extend)
        d: Deferred[list[Claim]] = Deferred()
        self.waiting.append((d, claims))
        return d

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for d, claims in waiting:
            d.callback(claims)


def test_claims_that_come_after_the_end_are_given_back(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon drains: nothing is begun any more."""
    claims = SlowClaims(room, monkeypatch)
    room.deliver()
    ends: list[None] = []
    room.delivery.drain(25.0).add_callback(ends.append)
    claims.answer()
    room.advance(1.0)
    assert [claim.id for claim in room.store.unclaimed] == ["j1"]
    assert (ends, room.told("attempt_started"), room.server.connections) == ([None], [], 0)


def test_claims_that_come_after_a_rest_has_begun_are_given_back(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim under way is no excuse for bothering a host that has just failed: they go out after the rest."""
    room.server.on("connect", Late("421 4.3.2 no", 0.5))
    room.deliver(seconds=0.1)
    claims = SlowClaims(room, monkeypatch)
    for number in range(3):
        room.accept(f"user{number}@b.example")
    room.advance(0.5)
    assert room.delivery.sites()[0].health == "resting"
    claims.answer()
    room.advance(0.1)
    assert (room.server.connections, len(room.store.unclaimed)) == (1, 3)
    monkeypatch.undo()
    room.advance(1.0)
    assert len(room.server.messages) == 4


def test_claims_that_come_after_a_rest_are_tried_one_at_a_time(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were asked for when the site was well: now one of them is the probe, and the others wait for it."""
    room.server.on("connect", Late("421 4.3.2 no", 0.5), Late("220 mx.test", 5.0))
    room.deliver(seconds=0.1)
    claims = SlowClaims(room, monkeypatch)
    for number in range(3):
        room.accept(f"user{number}@b.example")
    room.advance(1.5)
    assert room.delivery.sites()[0].health == "probing"
    claims.answer()
    room.advance(1.0)
    assert (room.server.open, len(room.store.unclaimed)) == (1, 2)
    monkeypatch.undo()
    room.advance(10.0)
    assert len(room.server.messages) == 4


def test_work_that_comes_during_a_claim_is_not_forgotten(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim under way was asked before; the next one follows at once."""
    claims = SlowClaims(room, monkeypatch)
    room.reactor.latency = 1.0
    room.deliver()
    room.deliver("eve@b.example")
    claims.answer()
    room.advance(0.0)
    assert len(claims.waiting) == 1
    claims.answer()
    room.advance(10.0)
    assert len(room.server.messages) == 2


def test_a_store_that_cannot_commit_is_not_asked_for_work(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent may not be marked as sent: nothing more may go out."""
    claims = SlowClaims(room, monkeypatch)
    room.accept()
    room.store.healthy = False
    room.advance(10.0)
    assert claims.waiting == []


def test_an_earlier_due_time_overtakes_a_later_one(room: Room) -> None:
    """A message for later has the site's timer; one that is put off comes before it."""
    room.configured(retry=Retry(delays=(10.0,), jitter=0.0))
    room.accept(not_before=room.reactor.wall_time() + 50.0)
    room.server.on("rcpt", "450 4.2.0 later")
    room.deliver("eve@b.example")
    room.advance(11.0)
    assert room.outcome("eve@b.example", "j2").state is State.DELIVERED


def test_a_claim_for_a_site_that_is_no_more_goes_back(room: Room) -> None:
    """It was claimed, or accepted, just before the routes changed; it finds its new site by itself."""
    job = Job(sender="", recipients=("bob@b.example",), content=CONTENT)
    room.store.accept([Submission(job=job, name="old", sites=("gone.test:25",))])
    room.delivery.wake("gone.test:25")
    room.advance(2.0)
    assert (len(room.store.unclaimed), room.delivery.in_flight) == (1, 0)
    assert room.outcome().state is State.DELIVERED


def test_messages_that_have_not_expired_wait_on_beside_those_that_have(room: Room) -> None:
    """What is claimed to be expired, and is not, goes back."""
    room.server.close()
    room.deliver(expires=100.0)
    room.deliver("eve@b.example", expires=100_000.0)
    room.advance(500.0)
    assert room.outcome().state is State.FAILED
    room.server.listen(HOST, PORT)
    room.advance(400.0)
    assert room.outcome("eve@b.example", "j2").state is State.DELIVERED


def test_a_job_that_is_removed_while_it_goes_out_ends_the_conversation(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left to settle, and it is no bug."""

    def read(claim: Claim, piece: int) -> Deferred[bytes]:
        return fail(LookupError("its job has ended"))

    monkeypatch.setattr(room.store, "read", read)
    room.deliver(content=CONTENT * 5000)
    assert (room.settled, room.store.unclaimed, room.delivery.in_flight, room.server.open) == ([], [], 0, 0)


def test_a_job_that_is_removed_gets_no_report(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content, of which the report is made, is gone."""
    monkeypatch.setattr(room.store, "read", lambda claim, piece: fail(LookupError("its job has ended")))
    room.server.on("rcpt", "550 5.1.1 no")
    room.deliver(content=CONTENT * 5000)
    assert (len(room.settled), room.composed) == (1, [])


def test_a_store_that_is_closed_before_the_outcome_is_no_bug(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start finds the claim."""
    monkeypatch.setattr(room.store, "settle", lambda settlements: fail(StoreFailed("it is closed")))
    room.deliver()
    assert (room.told("delivered"), room.delivery.in_flight) == ([], 0)


def test_claims_that_a_closed_store_does_not_take_back_are_no_bug(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start finds them."""
    monkeypatch.setattr(room.store, "unclaim", lambda claims: fail(StoreFailed("it is closed")))
    room.reactor.black_holes.add(HOST)
    room.deliver()
    room.delivery.drain(25.0)
    room.advance(1.0)
    assert room.delivery.in_flight == 0


# bugs of ours


def test_a_bug_in_the_session_does_not_look_like_the_hosts_fault(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, the message is held, and the site does not rest."""

    def broken(session: Session, data: bytes) -> list[Any]:
        raise ZeroDivisionError

    monkeypatch.setattr(Session, "receive_data", broken)
    room.deliver()
    assert "ZeroDivisionError" in str(room.told("unhandled_error"))
    assert ([settlement.hold for settlement in room.settled], room.told("site_resting")) == ([True], [])
    assert room.server.open == 0
    room.events.clear()


def test_a_settlement_that_fails_is_not_followed_by_another(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been decided is never decided again, nor sent: the store has it, or nobody does."""
    asked: list[Any] = []

    def settle(settlements: list[Any]) -> Deferred[None]:
        asked.append(settlements)
        return fail(ZeroDivisionError())

    monkeypatch.setattr(room.store, "settle", settle)
    room.deliver()
    room.advance(10_000.0)
    assert (len(asked), len(room.server.messages), room.told("delivered")) == (1, 1, [])
    assert "ZeroDivisionError" in str(room.told("unhandled_error"))
    room.events.clear()


def test_senders_are_warned_in_time_though_a_dead_site_is_hardly_tried(room: Room) -> None:
    """One probe for each rest finds it dead still, and speaks for all that are late by then."""
    room.server.close()
    for number in range(30):
        room.accept(f"user{number}@b.example")
    room.advance(4 * 3600 + 400.0)
    warned = {outcome.address for kind, _, outcomes, _ in room.composed if kind == "warning" for outcome in outcomes}
    assert len(warned) == 30
    assert len(room.told("attempt_started")) < 100
    assert room.told("failed") == []
    room.advance(3600.0)
    assert len([kind for kind, *_ in room.composed if kind == "warning"]) == 30


def test_of_a_job_removed_meanwhile_only_what_arrived_is_told(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told that it is tried again, or that its sender is told: it is gone."""
    settle = room.store.settle

    def removed(settlements: Any) -> Any:
        return settle(settlements).add_callback(lambda done: [Settled(None) for _ in done])

    monkeypatch.setattr(room.store, "settle", removed)
    room.server.on("rcpt:eve@b.example", "450 4.2.0 later").on("rcpt:joe@b.example", "550 5.1.1 who?")
    room.deliver("bob@b.example", "eve@b.example", "joe@b.example")
    assert [facts["recipient"] for facts in room.told("delivered")] == ["bob@b.example"]
    assert room.told("deferred") + room.told("failed") + room.told("job_finished") + room.told("bounced") == []


def test_a_bounce_does_not_depend_on_the_content_that_it_would_return(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read cannot be sent back; the sender is told all the same."""
    monkeypatch.setattr(room.store, "read", lambda claim, piece: fail(StoreFailed("the disk fails")))
    room.server.on("rcpt", "550 5.1.1 no")
    room.deliver(content=CONTENT * 5000)
    [(kind, _, outcomes, head)] = room.composed
    assert (kind, len(outcomes), head) == ("bounce", 1, b"")
    assert room.told("failed")
