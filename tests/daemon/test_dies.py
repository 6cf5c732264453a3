"""The daemon dies in the middle of a message: one that is to be held in doubt is, and one that kills is not tried
again and again."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.fakes.process import DaemonProcess, eventually
from tests.fakes.relay import Relay


class Deadly(Relay):
    """A relay that kills the daemon when it hears of a certain recipient: at `moment`, "rcpt" or "taken"."""

    moment = ""
    victim: Callable[[], object] = staticmethod(lambda: None)
    heard_of = 0

    def _is_deadly(self, moment: str, recipients: list[str]) -> bool:
        return moment == self.moment and any(address.startswith("deadly") for address in recipients)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._is_deadly("rcpt", [address]):
            self.heard_of += 1
            self.victim()
            await asyncio.sleep(60)
        return await super().handle_RCPT(server, session, envelope, address, options)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        answer = await super().handle_DATA(server, session, envelope)
        if self._is_deadly("taken", envelope.rcpt_tos):
            self.victim()
            await asyncio.sleep(60)
        return answer


@pytest.fixture
def relay() -> Iterator[Deadly]:
    with Deadly() as started:
        yield started


def job(recipient: str, **more: Any) -> str:
    return json.dumps({"from": "ann@a.example", "to": [recipient], "subject": "x", "text": "Hi.", **more})


def command(process: DaemonProcess, *words: str) -> Any:
    """What `deferd queue` prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "queue", *words, "-c", str(process.config), "--json"],
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


def die_once(process: DaemonProcess, relay: Deadly) -> None:
    """Let the relay kill the daemon, and wait until it is dead."""
    assert process.process
    relay.victim = process.process.kill
    process.process.wait(30)


def test_a_job_whose_confirmation_died_with_the_daemon_is_held(
    daemon: Callable[..., DaemonProcess], relay: Deadly
) -> None:
    """With `in_doubt: hold` it is held, listed with the reason, counted, and sent again only when it is released."""
    process = daemon(relay).start()
    relay.moment = "taken"
    process.drop("precious.json", job("deadly@b.example", in_doubt="hold"))
    die_once(process, relay)
    relay.moment = ""
    process.start()
    told = process.wait_for("in_doubt", recipient="deadly@b.example")
    assert (told["decision"], told["host"]) == ("hold", f"127.0.0.1:{relay.port}")
    assert len(relay.arrivals) == 1

    [listed] = command(process, "list", "--state", "held")
    assert (listed["name"], listed["next_attempt"]) == ("precious", None)
    assert "may have the message" in listed["recipients"][0]["text"]
    held = process.result("precious", until=lambda result: result["state"] == "held")
    assert held["recipients"][0]["phase"] == "confirm"
    assert 'deferd_in_doubt_total{decision="hold"} 1.0' in process.get("/metrics")[1]

    assert command(process, "release", listed["id"]) == {"changed": 1}
    assert process.result("precious")["state"] == "delivered"
    assert len(relay.arrivals) == 2
    assert process.wait_for("possible_duplicate")["recipient"] == "deadly@b.example"


def test_a_job_that_died_with_the_daemon_before_its_final_dot_goes_on(
    daemon: Callable[..., DaemonProcess], relay: Deadly
) -> None:
    """Nobody can have it: it is due at once, and no second copy."""
    process = daemon(relay).start()
    relay.moment = "rcpt"
    process.drop("precious.json", job("deadly@b.example", in_doubt="hold"))
    die_once(process, relay)
    relay.moment = ""
    process.start()
    assert process.result("precious")["state"] == "delivered"
    assert process.stop() == 0
    assert len(relay.arrivals) == 1
    assert [event for event in process.events if event["event"] == "possible_duplicate"] == []


def test_what_the_daemon_died_over_is_sent_again_and_said_to_be(
    daemon: Callable[..., DaemonProcess], relay: Deadly
) -> None:
    """With `retry`, which is the default, the second copy is named and counted."""
    process = daemon(relay).start()
    relay.moment = "taken"
    process.drop("order.json", job("deadly@b.example"))
    die_once(process, relay)
    relay.moment = ""
    process.start()
    named = process.wait_for("possible_duplicate")
    assert named["recipient"] == "deadly@b.example"
    assert process.result("order")["id"] == named["id"]
    assert len(relay.arrivals) == 2
    assert "deferd_possible_duplicates_total 1.0" in process.get("/metrics")[1]


def test_a_job_that_has_killed_the_daemon_twice_is_held(daemon: Callable[..., DaemonProcess], relay: Deadly) -> None:
    """It is not tried a third time; everything else goes on; who releases it takes the risk."""
    process = daemon(relay).start()
    relay.moment = "rcpt"
    process.drop("poison.json", job("deadly@b.example"))
    die_once(process, relay)
    process.start()
    die_once(process, relay)
    relay.victim = lambda: None
    process.start()
    assert process.wait_for("job_held")["name"] == "poison"
    process.drop("fine.json", job("bob@b.example"))
    assert process.result("fine")["state"] == "delivered"
    assert relay.heard_of == 2
    [held] = command(process, "list", "--state", "held")
    assert "died twice" in held["recipients"][0]["text"]
    assert process.result("poison", until=lambda result: result["state"] == "held")["id"] == held["id"]

    relay.moment = ""
    command(process, "release", held["id"])
    assert process.result("poison")["state"] == "delivered"


def test_of_many_at_work_it_is_the_one_that_kills_which_is_held(
    daemon: Callable[..., DaemonProcess], relay: Deadly
) -> None:
    """It dies exactly twice, whatever goes on beside the one that kills; all the others arrive."""
    process = daemon(relay, limits={"connections_per_site": 21})
    names = [f"job-{n}" for n in range(20)]
    (process.queue / "new").mkdir(parents=True)
    for n, name in enumerate(names):
        if n == 10:
            process.drop("poison.json", job("deadly@b.example"))
        process.drop(f"{name}.json", job(f"bob-{n}@b.example"))

    def kill() -> None:
        assert process.process
        process.process.kill()

    relay.moment, relay.victim = "rcpt", kill
    for _ in range(2):
        process.spawn()
        assert process.wait() == -signal.SIGKILL
    process.start()
    assert process.wait_for("job_held")["name"] == "poison"
    assert {process.result(name)["state"] for name in names} == {"delivered"}
    assert relay.heard_of == 2
    assert [held["name"] for held in command(process, "list", "--state", "held")] == ["poison"]
    assert process.stop() == 0


@pytest.mark.parametrize("end", [DaemonProcess.kill, DaemonProcess.stop])
def test_a_sites_rate_outlives_the_daemon(
    daemon: Callable[..., DaemonProcess], relay: Deadly, end: Callable[[DaemonProcess], object]
) -> None:
    """The next one sends nothing before its time, and commands and page tell when that is."""
    process = daemon(relay, limits={"rate_per_site": "1/h"}).start()
    process.drop("first.json", job("ann@b.example"))
    assert process.result("first")["state"] == "delivered"
    end(process)
    process.start()
    for name in ("second", "third"):
        process.drop(f"{name}.json", job("bob@b.example"))
        process.wait_for("job_accepted", name=name)
    (site,) = command(process, "count")["sites"]
    assert (site["waiting"], site["due_now"], site["in_flight"]) == (2, 0, 0)
    assert site["rate"] == pytest.approx(1 / 3600)
    waiting = command(process, "list")
    assert {each["next_attempt"] for each in waiting} == {site["next_due"]}
    assert {each["waits"] for each in waiting} == {"its turn: its site is given 1 an hour"}
    assert "next in 59 min, at most 1 an hour" in process.get("/")[1]
    assert process.stop() == 0


def test_jobs_that_were_merely_under_way_are_let_alone(daemon: Callable[..., DaemonProcess]) -> None:
    """Killed again and again in the middle of twenty messages, none is blamed for it: in the end all arrive."""
    with Relay(delay=0.1) as relay:
        process = daemon(relay).start()
        for n in range(40):
            process.drop(f"job-{n}.json", job(f"bob-{n}@b.example"))
        for _ in range(4):
            process.wait_for("attempt_started")
            process.kill()
            process.start()
        eventually(lambda: len({arrival.recipients[0] for arrival in relay.arrivals}), lambda seen: seen == 40)
        assert {process.result(f"job-{n}")["state"] for n in range(40)} == {"delivered"}
