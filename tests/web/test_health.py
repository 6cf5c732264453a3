"""/healthz and /readyz: what they say, and how little it costs."""

from __future__ import annotations

from typing import Any

import pytest

from deferred.defer import Deferred
from deferred.testing import Clock
from service.web.exchange import Request, Response
from service.web.health import Health


class World:
    """A store whose commits the test decides on, and somebody who asks."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.probes: list[Deferred[None]] = []
        self.reason: str | None = None
        self.health = Health(self.clock, self.probe, unready=lambda: self.reason, patience=5, fresh=1)

    def probe(self) -> Deferred[None]:
        self.probes.append(Deferred())
        return self.probes[-1]

    def ask(self) -> list[Any]:
        answers: list[Any] = []
        answer = self.health.ready(Request("GET", "/readyz"))
        if isinstance(answer, Deferred):
            answer.add_both(answers.append)
        else:
            answers.append(answer)
        return answers


@pytest.fixture
def world() -> World:
    return World()


def test_being_alive_needs_no_store(world: World) -> None:
    """/healthz answers at once, and touches nothing."""
    assert world.health.alive(Request("GET", "/healthz")) == Response(200, b"ok\n")
    assert world.probes == []


def test_ready_waits_for_the_commit(world: World) -> None:
    """200 comes once the store has committed, not before."""
    answers = world.ask()
    assert answers == []
    world.probes[0].callback(None)
    assert answers == [Response(200, b"ok\n")]
    assert world.clock.pending == 0


def test_a_store_that_cannot_commit_is_not_ready(world: World) -> None:
    """503 with what is wrong, on one printable line."""
    (answers,) = [world.ask()]
    world.probes[0].errback(OSError("disk\x1b[31m\nfull"))
    (answer,) = answers
    assert answer.status == 503
    assert answer.body == b"the store cannot commit: disk [31m full\n"


def test_a_probe_that_fails_at_once_is_told_too() -> None:
    """Whether it raises or fails, asking is safe."""

    def broken() -> Deferred[None]:
        raise RuntimeError("closed")

    health = Health(Clock(), broken)
    answers: list[Any] = []
    answer = health.ready(Request("GET", "/readyz"))
    assert isinstance(answer, Deferred)
    answer.add_both(answers.append)
    assert [(a.status, a.body) for a in answers] == [(503, b"the store cannot commit: closed\n")]


def test_many_questions_cost_one_commit(world: World) -> None:
    """All who ask while a probe is under way, and for a second after, share it."""
    together = [world.ask() for _ in range(10)]
    world.probes[0].callback(None)
    world.clock.advance(0.9)
    together.append(world.ask())
    assert [answers[0].status for answers in together] == [200] * 11
    assert len(world.probes) == 1
    world.clock.advance(0.2)
    world.ask()
    assert len(world.probes) == 2


def test_a_commit_that_takes_too_long_is_not_waited_for(world: World) -> None:
    """After the patience it is 503, for later questions at once, and no second probe is piled on the first."""
    first = world.ask()
    world.clock.advance(3)
    second = world.ask()
    world.clock.advance(2)
    assert (first[0].status, second[0].status) == (503, 503)
    world.clock.advance(60)
    assert world.ask()[0].body == b"the store has not committed for 65 s\n"
    assert len(world.probes) == 1


def test_it_is_ready_again_when_the_store_is(world: World) -> None:
    """The late commit counts as soon as it comes, and a failure does not stick."""
    world.ask()
    world.clock.advance(10)
    world.probes[0].callback(None)
    assert world.ask()[0].status == 200
    world.clock.advance(2)
    world.ask()
    world.probes[1].errback(OSError("full"))
    world.clock.advance(2)
    answers = world.ask()
    world.probes[2].callback(None)
    assert answers[0].status == 200


def test_who_gives_up_takes_nobody_along(world: World) -> None:
    """A peer that goes away cancels its own wait, not the probe."""
    first = world.health.ready(Request("GET", "/readyz"))
    second = world.ask()
    assert isinstance(first, Deferred)
    first.add_errback(lambda _: Response())
    first.cancel()
    world.probes[0].callback(None)
    assert second[0].status == 200


def test_a_reason_not_to_be_ready_needs_no_probe(world: World) -> None:
    """While it drains, the daemon is not ready, whatever the store can do."""
    world.reason = "draining"
    assert world.ask() == [Response(503, b"draining\n")]
    assert world.probes == []
