"""The whole daemon while the clock on its wall is set by a day or a year, either way: mail does not notice."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from config.settings import Http, Queue, Relay, Retry, Route, Settings, SiteRest
from deferred.testing import SimulatedReactor, World
from deferred.web import get_page
from service.daemon import Daemon
from tests.fakes.smtp_server import CLOSE, SMTPServer
from tests.simulation.process import ADDRESS, Host

HOUR = 3600.0
DAY = 86_400.0
YEAR = 365 * DAY
JUMPS = [DAY, -DAY, YEAR, -YEAR]
LATER = "450 4.2.0 later"


class House:
    """A daemon on a host whose clock is anybody's, and a mail server elsewhere."""

    def __init__(self, directory: Path) -> None:
        self.world = World("clock")
        self.host = Host(self.world)
        self.directory = directory
        self.server = SMTPServer(self.world.machine("10.0.0.1")).listen("10.0.0.1", 25)
        self.settings = Settings(
            queue=Queue(directory=str(directory)),
            hostname="client.test",
            routes=(Route(domains=("*",), relay=(Relay("smtp", "10.0.0.1", 25),), tls="none"),),
            retry=Retry(
                delays=(HOUR,),
                jitter=0.0,
                max_age=2 * DAY,
                warn_after=4 * HOUR,
                site_rest=SiteRest(first=60.0, longest=600.0),
            ),
            http=Http(listen="127.0.0.1:8025"),
        )
        self.events: list[tuple[float, str, dict[str, Any]]] = []

    def start(self) -> House:
        self.host.boot()
        self.machine: SimulatedReactor = self.world.machine(ADDRESS)
        self.daemon = Daemon(
            self.machine,
            self.settings,
            random=random.Random(1),
            listeners=[lambda event, facts: self.events.append((self.world.time(), event, facts))],
            boot=self.host.boot_clock(),
        )
        started: list[None] = []
        self.daemon.start().add_callback(started.append)
        assert started
        self.world.advance(1.0)
        return self

    def stop(self) -> None:
        self.daemon.stop()
        self.world.advance(30.0)
        self.machine.kill()

    def power_cut(self) -> None:
        self.stop()
        self.host.cut_power()

    def drop(self, **facts: Any) -> None:
        self.world.call_soon(self._drop, facts)
        self.world.advance(2.0)

    def _drop(self, facts: dict[str, Any]) -> None:
        job = {"sender": "ann@a.example", "recipients": ["bob@b.example"], "message": "Subject: x\n\nx\n", **facts}
        hidden = self.directory / "new" / "job.tmp"
        hidden.write_text(json.dumps(job))
        hidden.rename(self.directory / "new" / "job.json")

    def when(self, event: str) -> list[float]:
        """When it was told, in seconds of real time."""
        return [at for at, name, _ in self.events if name == event]

    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self.directory / "results" / "job.json").read_text())
        return result


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


@pytest.fixture
def house(spool: Path) -> Iterator[House]:
    house = House(spool).start()
    yield house
    house.stop()
    assert "unhandled_error" not in [event for _, event, _ in house.events]


@pytest.mark.parametrize("by", JUMPS)
def test_a_message_is_tried_again_after_its_delay_and_once(house: House, by: float) -> None:
    """An hour after it was put off, by any clock but the one on the wall."""
    house.server.on("rcpt", LATER)
    house.drop()
    house.world.advance(600.0)
    house.host.jump(by)
    house.world.advance(2 * HOUR)
    first, second = house.when("attempt_started")
    assert second - first == pytest.approx(HOUR, abs=1.0)
    assert len(house.when("clock_jumped")) == 1
    assert house.result()["state"] == "delivered"
    finished = datetime.fromisoformat(house.result()["finished_at"]).timestamp()
    assert house.host.wall_time() - finished == pytest.approx(house.world.time() - second, abs=1.0)


@pytest.mark.parametrize("by", JUMPS)
def test_a_message_expires_after_its_age_and_not_before(house: House, by: float) -> None:
    """Two days of trying once an hour; the warning after four hours, the failure at the end, one of each."""
    house.server.always("rcpt", LATER)
    house.drop()
    accepted = house.when("job_accepted")[0]
    house.world.advance(2 * HOUR)
    house.host.jump(by)
    house.world.advance(20 * HOUR)
    house.host.jump(-by / 2)
    house.world.advance(2 * DAY)
    assert house.when("warned") == [pytest.approx(accepted + 4 * HOUR, abs=2.0)]
    assert house.when("failed")[0] == pytest.approx(accepted + 2 * DAY, abs=2.0)
    attempts = [at for at, event, facts in house.events if event == "attempt_started" and "bob" in str(facts)]
    assert len(attempts) == pytest.approx(49, abs=1)
    assert min(after - before for before, after in itertools.pairwise(attempts)) > HOUR - 60


@pytest.mark.parametrize("by", JUMPS)
def test_a_dead_site_is_not_hammered(house: House, by: float) -> None:
    """Its rests are as long as they were."""
    house.server.always("connect", CLOSE)
    house.drop()
    house.world.advance(HOUR)
    before = house.server.connections
    house.world.advance(HOUR)
    hourly = house.server.connections - before
    house.host.jump(by)
    house.world.advance(HOUR)
    assert house.server.connections - before - hourly <= hourly + 1


@pytest.mark.parametrize("by", [DAY, YEAR, HOUR, -HOUR, -DAY])
def test_a_scheduled_job_goes_when_the_clock_shows_its_time(house: House, by: float) -> None:
    """Within 100 ms, also where the clock is set meanwhile; where that makes it come, within a minute."""
    at = round(house.host.wall_time() + 5 * HOUR, 3)
    house.drop(not_before=rfc3339(at))
    house.world.advance(HOUR)
    house.host.jump(by)
    jumped = house.world.time()
    house.world.advance(60.0)
    left = at - house.host.wall_time()
    if left > 0:
        assert house.when("attempt_started") == []
        house.world.advance(left + 1.0)
        assert house.when("attempt_started") == [pytest.approx(house.world.time() - 1.0, abs=0.1)]
    else:
        assert jumped < house.when("attempt_started")[0] < jumped + 60.1
    assert house.result()["state"] == "delivered"


@pytest.mark.parametrize("by", JUMPS)
def test_a_restart_goes_on_whatever_the_clock_did_meanwhile(house: House, by: float) -> None:
    """A message that waited half an hour waits the other half."""
    house.server.on("rcpt", LATER)
    house.drop()
    house.world.advance(600.0)
    house.stop()
    house.host.jump(by)
    house.world.advance(600.0)
    house.start()
    house.world.advance(2 * HOUR)
    first, second = house.when("attempt_started")
    assert second - first == pytest.approx(HOUR, abs=1.0)
    assert house.result()["state"] == "delivered"


@pytest.mark.parametrize("by", [-DAY, -YEAR])
def test_a_boot_with_a_clock_that_is_behind_strands_nothing(house: House, by: float) -> None:
    """Nobody knows how long the machine was off: the wait goes on from where it was; so it does when the clock is set
    right."""
    house.server.on("rcpt", LATER, LATER)
    house.drop()
    house.world.advance(600.0)
    house.power_cut()
    off = house.world.time()
    house.host.jump(by)
    house.world.advance(1200.0)
    off -= house.world.time()
    house.start()
    house.world.advance(HOUR)
    house.host.jump(-by)
    house.world.advance(2 * HOUR)
    first, second, third = house.when("attempt_started")
    assert second - first == pytest.approx(HOUR - off, abs=31.0)  # those in which it stops
    assert third - second == pytest.approx(HOUR, abs=1.0)
    assert house.result()["state"] == "delivered"


def test_a_boot_with_a_clock_that_is_ahead_tries_before_it_gives_up(house: House) -> None:
    """The machine was off for a year, as far as anybody knows: each message is tried once more."""
    house.server.on("rcpt", LATER)
    house.drop()
    house.power_cut()
    house.world.advance(HOUR)
    house.host.jump(YEAR)
    house.start()
    assert house.result()["state"] == "delivered"
    assert house.when("failed") == []


@pytest.mark.parametrize("by", JUMPS)
def test_the_page_and_the_metrics_tell_how_long_it_has_been(house: House, by: float) -> None:
    """Ages and waits by real time, the moment by the wall."""
    house.server.always("rcpt", LATER)
    house.drop()
    house.world.advance(2.5 * HOUR)
    house.host.jump(by)
    house.world.advance(60.0)
    page = house.world.run(get_page("http://127.0.0.1:8025/", reactor=house.machine)).decode()
    assert "<dt>oldest</dt><dd>2 h</dd>" in page
    assert "next in 28 min" in page
    assert "<strong>clock jumped</strong>" in page
    assert rfc3339(house.host.wall_time())[:16].replace("T", " ") in page
    metrics = house.world.run(get_page("http://127.0.0.1:8025/metrics", reactor=house.machine)).decode()
    assert "deferd_clock_jumps_total 1.0" in metrics
    (age,) = [line.split()[1] for line in metrics.splitlines() if line.startswith("deferd_queue_oldest_age_seconds")]
    assert float(age) == pytest.approx(2.5 * HOUR + 60, abs=5.0)


@pytest.mark.parametrize("by", [DAY, YEAR])
def test_results_are_kept_for_a_week_of_real_time(house: House, by: float) -> None:
    """A clock set ahead removes none early, nor lets any stay."""
    result = house.directory / "results" / "job.json"
    house.drop()
    os.utime(result, (house.host.wall_time(),) * 2)  # the disk has a clock of its own here
    house.world.advance(60.0)
    house.host.jump(by)
    house.world.advance(7 * DAY - 120.0)
    assert house.daemon._store.keeps("job")
    assert result.exists()
    house.world.advance(2 * HOUR)
    assert not house.daemon._store.keeps("job")
    assert not result.exists()
