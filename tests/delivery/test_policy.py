"""What an answer means for a message and its site."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from config.settings import Retry, SiteRest
from service.delivery import policy
from service.message.outcome import Outcome, Phase, State
from service.queue.store import Claim
from service.smtp.errors import ConfirmationLost, HostFailure

RETRY = Retry(delays=(60.0, 300.0), jitter=0.2, max_age=86_400.0, warn_after=14_400.0)
HOST = "mx.test:25"


@dataclass
class Message:
    """A claim accepted at 0, for two recipients."""

    attempts: int = 0
    doubts: int = 0
    expires: float | None = None
    warned: bool = False
    in_doubt: str = "retry"

    @property
    def claim(self) -> Claim:
        return Claim(
            lease=1,
            id="j1",
            name="n",
            site="mx.test:25",
            sender="ann@a.example",
            recipients=("bob@b.example", "eve@b.example"),
            attempts=self.attempts,
            doubts=self.doubts,
            accepted_at=0.0,
            begins_at=0.0,
            expires_at=self.expires,
            warned=self.warned,
            in_doubt=self.in_doubt,  # type: ignore[arg-type]  # one of the two words, by each test
            size=10,
            eight_bit=False,
            pieces=1,
            content=b"0123456789",
        )


def outcome(address: str, state: State, code: int | None = 250, text: str = "said", enhanced: str = "") -> Outcome:
    return Outcome(address, state, code, enhanced, text, HOST, Phase.RCPT)


def both(bob: State, eve: State) -> tuple[Outcome, ...]:
    return outcome("bob@b.example", bob), outcome("eve@b.example", eve)


@pytest.mark.parametrize(
    ("attempt", "spread", "seconds"), [(1, 0, 60), (2, 0, 300), (3, 0, 300), (99, 0, 300), (1, -1, 48), (1, 1, 72)]
)
def test_delays_follow_the_schedule_and_the_last_repeats(attempt: int, spread: float, seconds: float) -> None:
    """The n-th failed attempt waits for the n-th delay, spread by the jitter."""
    assert policy.next_delay(attempt, RETRY, spread) == pytest.approx(seconds)


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (100_000, 300)])
def test_a_rest_doubles_up_to_the_longest(failures: int, seconds: float) -> None:
    """Each rest in a row is twice as long, and never beyond the longest."""
    assert policy.rest_length(failures, SiteRest(first=1.0, longest=300.0), 0.2, 0.0) == seconds


def test_a_rest_is_spread_by_the_jitter() -> None:
    """Sites that failed together do not come back together."""
    assert policy.rest_length(3, SiteRest(), 0.5, -1.0) == pytest.approx(2.0)


def test_all_delivered_means_never_due_again() -> None:
    """A receipt without anybody waiting ends the claim."""
    plan = policy.after_receipt(Message().claim, both(State.DELIVERED, State.DELIVERED), RETRY, 10.0, 0.0)
    assert (plan.due, plan.delay, plan.failed, plan.attempts) == (None, None, (), 1)


def test_who_was_put_off_waits_by_the_schedule() -> None:
    """A 4xx uses up an attempt, and the next delay is that attempt's."""
    plan = policy.after_receipt(Message(attempts=1).claim, both(State.DELIVERED, State.WAITING), RETRY, 10.0, 0.0)
    assert (plan.attempts, plan.due, plan.delay) == (2, 310.0, 300.0)
    assert [each.address for each in plan.waiting] == ["eve@b.example"]


def test_who_was_refused_fails_now() -> None:
    """A 5xx fails its recipient, and only that one."""
    plan = policy.after_receipt(Message().claim, both(State.FAILED, State.WAITING), RETRY, 10.0, 0.0)
    assert [each.address for each in plan.failed] == ["bob@b.example"]
    assert plan.due == 70.0


def test_a_host_failure_uses_up_no_attempt() -> None:
    """The message waits for as long as the site rests; recipients carry what went wrong, without a code."""
    error = HostFailure(Phase.CONNECT, "connection refused", host=HOST)
    plan = policy.after_host_failure(Message(attempts=3).claim, error, RETRY, 10.0, 4.0)
    assert (plan.attempts, plan.due) == (3, 14.0)
    assert {(each.state, each.code, each.text, each.host, each.phase) for each in plan.outcomes} == {
        (State.WAITING, None, "connection refused", HOST, Phase.CONNECT)
    }


def test_an_answer_stands_although_the_host_failed_after_it() -> None:
    """A 550 to RCPT is final, even if the connection dies right after."""
    refused = outcome("bob@b.example", State.FAILED, 550, "no such user")
    error = HostFailure(Phase.DATA, "the server closed the connection", host=HOST, outcomes=(refused,))
    plan = policy.after_host_failure(Message().claim, error, RETRY, 10.0, 4.0)
    assert plan.failed == (refused,)
    assert [each.address for each in plan.waiting] == ["eve@b.example"]


def test_a_lost_confirmation_is_the_hosts_fault() -> None:
    """No attempt is used up, and the message waits for its site's rest."""
    error = ConfirmationLost(Phase.CONFIRM, "no answer", host=HOST)
    plan = policy.after_lost_confirmation(Message(attempts=1).claim, error, RETRY, 10.0, 1.0, 0.0)
    assert (plan.attempts, plan.delay, plan.doubt, plan.hold) == (1, 1.0, HOST, False)
    assert plan.settlement(Message().claim, ()).doubt


@pytest.mark.parametrize(("doubts", "delay"), [(1, 60.0), (2, 300.0)])
def test_a_confirmation_lost_again_meets_the_schedule(doubts: int, delay: float) -> None:
    """Each retry may be a duplicate: the schedule's growing delays apply, not the host's short rest."""
    error = ConfirmationLost(Phase.CONFIRM, "no answer", host=HOST)
    plan = policy.after_lost_confirmation(Message(doubts=doubts).claim, error, RETRY, 10.0, 1.0, 0.0)
    assert (plan.attempts, plan.delay) == (0, delay)


def test_a_lost_confirmation_waits_at_least_for_the_rest() -> None:
    """A site that rests longer than the schedule says is not bothered before."""
    error = ConfirmationLost(Phase.CONFIRM, "no answer", host=HOST)
    plan = policy.after_lost_confirmation(Message(doubts=1).claim, error, RETRY, 10.0, 200.0, 0.0)
    assert plan.delay == 200.0


def test_a_job_may_ask_to_be_held_when_in_doubt() -> None:
    """`in_doubt: hold` leaves it to an operator."""
    error = ConfirmationLost(Phase.CONFIRM, "no answer", host=HOST)
    plan = policy.after_lost_confirmation(Message(in_doubt="hold").claim, error, RETRY, 10.0, 1.0, 0.0)
    assert (plan.hold, plan.doubt, plan.delay) == (True, HOST, None)
    assert plan.settlement(Message().claim, ()).hold


def test_a_message_is_due_at_the_end_of_its_time_at_the_latest() -> None:
    """The last try is at the end, not a delay beyond it."""
    plan = policy.after_receipt(Message(expires=100.0).claim, both(State.WAITING, State.WAITING), RETRY, 90.0, 0.0)
    assert (plan.due, plan.delay) == (100.0, 10.0)


@pytest.mark.parametrize("expires", [100.0, None])
def test_who_still_waits_when_the_time_is_over_fails(expires: float | None) -> None:
    """4.4.7, with what the last try said; who was delivered stays delivered."""
    at = 100.0 if expires else RETRY.max_age
    said = outcome("eve@b.example", State.WAITING, 450, "greylisted", "4.2.0")
    outcomes = (outcome("bob@b.example", State.DELIVERED), said)
    plan = policy.after_receipt(Message(expires=expires).claim, outcomes, RETRY, at, 0.0)
    assert plan.outcomes[0] is outcomes[0]
    assert plan.failed == (
        msgspec.structs.replace(
            said,
            state=State.FAILED,
            enhanced="4.4.7",
            text="delivery time expired; the last try said: 4.2.0 greylisted",
            said="4.2.0 greylisted",
        ),
    )
    assert plan.due is None


def test_a_host_failure_at_the_end_of_the_time_fails_too() -> None:
    """A dead host cannot keep a message for ever."""
    error = HostFailure(Phase.CONNECT, "connection refused", host=HOST)
    plan = policy.after_host_failure(Message(expires=50.0).claim, error, RETRY, 51.0, 4.0)
    assert {each.text for each in plan.failed} == {"delivery time expired; the last try said: connection refused"}


@pytest.mark.parametrize(
    ("warned", "at", "late"), [(False, 14_399.0, False), (False, 14_400.0, True), (True, 2e4, False)]
)
def test_a_late_message_warns_its_sender_once(warned: bool, at: float, late: bool) -> None:
    """After `warn_after`, and only if not warned before."""
    plan = policy.after_receipt(Message(warned=warned).claim, both(State.WAITING, State.WAITING), RETRY, at, 0.0)
    assert plan.late is late
    assert plan.settlement(Message().claim, ()).warned is late


@pytest.mark.parametrize(
    ("warned", "at", "due"), [(False, 14_300.0, 14_400.0), (True, 14_300.0, 14_600.0), (False, 14_400.0, 14_700.0)]
)
def test_a_message_is_tried_when_its_warning_is_due(warned: bool, at: float, due: float) -> None:
    """However long the delay: the sender is not to learn of it hours late."""
    waiting = both(State.WAITING, State.WAITING)
    plan = policy.after_receipt(Message(attempts=5, warned=warned).claim, waiting, RETRY, at, 0.0)
    assert plan.due == due


def test_warnings_can_be_off() -> None:
    """`warn_after: null` never warns."""
    retry = msgspec.structs.replace(RETRY, warn_after=None)
    plan = policy.after_receipt(Message().claim, both(State.WAITING, State.WAITING), retry, 80_000.0, 0.0)
    assert not plan.late
