"""One seed: a few days of a daemon's life, with everything that can happen to it, and an audit at the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deferred.testing import World
from deferred.testing.memory import WINDOW
from service.queue.calendar import resumed
from service.queue.commands import CommandStore
from service.queue.poke import poke
from service.queue.timekeeping import read_seen
from service.timestamp import rfc3339
from tests.simulation.audit import audit
from tests.simulation.books import Books, Mail
from tests.simulation.letters import draw_recipients, write_job
from tests.simulation.listener import Listener
from tests.simulation.process import Disk, Host, Process
from tests.simulation.servers import MailServer
from tests.simulation.settings import HOME, draw_plan, draw_settings

DAY = 86_400.0
HOUR = 3600.0


@dataclass(frozen=True)
class Measure:
    """How much happens, in events a day; a burst is a dozen jobs at once. `rates`: whether sites may be given so much
    in a time; `mishaps`: whether servers make mistakes; `deaths`: how often the daemon dies just before or after a
    COMMIT or a final dot (None: drawn)."""

    days: float = 2.0
    jobs: float = 5.0
    crashes: float = 0.6
    stops: float = 0.4
    reloads: float = 0.4
    troubles: float = 2.5
    disks: float = 0.4
    orders: float = 0.8
    jumps: float = 0.4
    bursts: float = 0.4
    rates: bool = True
    mishaps: bool = True
    deaths: float | None = None


QUIET = Measure(
    days=1.0,
    jobs=20.0,
    crashes=0,
    stops=0,
    reloads=0,
    troubles=0,
    disks=0,
    orders=0,
    jumps=0,
    bursts=0,
    rates=False,
    mishaps=False,
)


class Simulation:
    """A world drawn from `seed`, in `directory`, which is emptied before."""

    def __init__(self, seed: int, directory: Path, measure: Measure = Measure(), *, keep: bool = False) -> None:
        self.seed = seed
        self.measure = measure
        self.world = World(seed)
        self.books = Books(directory, keep)
        self.random = self.world.draw("plan")
        self.directory = directory
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "new").mkdir(parents=True)
        self.plan = draw_plan(self.random)
        self.settings = draw_settings(self.random, self.plan, directory, rates=measure.rates)
        self.world.network.names.update(self.plan.names)
        self.host = Host(self.world)
        self.clock_draw = self.world.draw("clock")
        self.dialects = self.world.draw("dialects")
        self.disk = Disk(self.world, self.books)
        self.disk.die = lambda: self.crash()
        self.listener = Listener(self.world, self.books, self.plan)
        self.process: Process | None = None
        self.over = False
        self._servers()

    def _servers(self) -> None:
        machine = self.world.machine("10.0.0.0")
        rates = (0.0, 0.005, 0.02, 0.1, 0.3) if self.measure.mishaps else (0.0,)
        self.servers = {
            host: MailServer(
                machine,
                self.books,
                self.world.draw(f"server {host}"),
                host,
                mishaps=self.random.choice(rates),
                gentle=number == 0,
                pipelining=self.random.random() < 0.7,
                chunking=self.dialects.random() < 0.5,
                watch=self.listener.watch_step,
            )
            for number, host in enumerate(self.plan.hosts)
        }
        for server in self.servers.values():
            server.boot()
        self.listener.crash_soon = self._crash_soon
        self.listener.stopping = self._stops_on_a_bad_disk
        if self.measure.crashes:
            self.disk.mishaps = self.random.choice((0.0, 0.0, 0.01, 0.05))
            self.disk.deaths = self.random.choice((0.0, 0.0, 0.002, 0.02))
            self.listener.deaths = self.random.choice((0.0, 0.02, 0.1))
        if self.measure.deaths is not None:
            self.disk.deaths = self.listener.deaths = self.measure.deaths

    # the days

    def run(self, enough: Callable[[Books], bool] | None = None) -> Books:
        """Live through it; what was not as it should be is in the books. It ends at once after an hour that has brought
        `enough`."""
        measure, span = self.measure, self.measure.days * DAY
        drops = [self.random.uniform(0.0, span) for _ in range(self._number(measure.jobs / 2 * measure.days))]
        for at in drops:
            self.world.call_later(at, self.drop_jobs)
        for what, often in (
            (self.crash, measure.crashes),
            (self.stop, measure.stops),
            (self.reload, measure.reloads),
            (self.trouble, measure.troubles),
            (self.disk_trouble, measure.disks),
            (self.order, measure.orders),
        ):
            for _ in range(self._number(often * measure.days)):
                at = self.random.uniform(0.0, span)
                if (
                    self.random.random() < 0.6
                ):  # most days are quiet: while something is under way there is more to break
                    at = min(span, self.random.choice(drops) + self.random.expovariate(0.1))
                self.world.call_later(at, what)
        for _ in range(
            int(measure.jumps * measure.days * self.clock_draw.uniform(0.5, 1.5) + self.clock_draw.random())
        ):
            at = self.clock_draw.choice((0.0, *drops)) + self.clock_draw.expovariate(1 / HOUR)
            self.world.call_later(min(span, at), self.jump)
        for _ in range(int(measure.bursts * measure.days + self.dialects.random())):
            self.world.call_later(self.dialects.uniform(0.0, span), self.burst)
        self.boot()
        while self.world.time() < span:
            self.world.advance(min(HOUR, span - self.world.time()))
            if enough is not None and enough(self.books):
                if self.process is not None:
                    self.process.kill("it was enough")
                return self.books
        self.finish()
        audit(self)
        return self.books

    def _number(self, mean: float) -> int:
        return int(mean * self.random.uniform(0.5, 1.5) + self.random.random())

    def note(self, fault: str, **facts: object) -> None:
        """Something is done to the daemon."""
        self.books.faults[fault] += 1
        self.books.trace(self.world.time(), fault, facts)

    # the daemon

    def boot(self) -> None:
        """Start the daemon, unless it runs."""
        if self.process is None:
            self.host.boot()
            self.listener.begin()
            self.process = Process(self.world, self.books, self.settings, self.disk, self.host, self.listener)
            self.listener.limits_changed(self.settings)
            if self.process.start():
                self.listener.resume(self.process.noted_rests(), self.settings.retry)

    def crash(self) -> None:
        """Kill it; it is started again after a while."""
        if self.process is None or self.over:
            return
        silently = self.random.random() < 0.3 and self._clock_is_known()
        self.note("power cut" if silently else "SIGKILL")
        process, self.process = self.process, None
        process.kill("killed", silently=silently)
        if silently:
            self.host.cut_power()
        self._boot_later()

    def _crash_soon(self) -> None:
        self.world.call_later(self.random.expovariate(10.0), self.crash)

    def stop(self) -> None:
        """SIGTERM; it is started again after a while."""
        if self.process is not None and self.process.stopping_since is None:
            self.note("SIGTERM")
            self.process.stop(self._stopped)

    def _stopped(self) -> None:
        self.process = None
        self.books.trace(self.world.time(), "exited", {})
        if not self.over:
            self._boot_later()

    def _stops_on_a_bad_disk(self) -> bool:
        process = self.process
        return process is not None and process.stopping_since is not None and not process.daemon._store.healthy

    def _boot_later(self) -> None:
        self.world.call_later(self.random.choice((0.1, 1.0, 60.0, 600.0, 7200.0)), self.boot)

    def reload(self) -> None:
        """SIGHUP, with a new configuration or a mistake in it."""
        if self.process is None or self.process.stopping_since is not None:
            return
        if self.random.random() < 0.2:
            self.note("reload: a mistake")
            self.process.next_settings = None
        else:
            self.note("reload")
            self.settings = draw_settings(self.random, self.plan, self.directory, rates=self.measure.rates)
            self.process.next_settings = self.settings
            self.listener.limits_changed(self.settings)
            self.listener.orders_given()  # a site that is met in another way from now on is tried at once
        self.process.daemon.reload()

    # the clock

    def jump(self) -> None:
        """Somebody sets the wall clock of the daemon's host. While the power is off it can only lose time: one that is
        ahead after another boot tells that much time has passed."""
        if self.over:
            return
        ways = {"a day": DAY, "a year": 365 * DAY}
        what, ahead = self.clock_draw.choice(tuple(ways)), self.clock_draw.random() < 0.5 and self.host.on
        wall = self.host.wall_time()
        for mail in self.books.mail.values():
            if mail.not_before is not None and mail.not_before <= wall:
                mail.not_before = None
        self.note(f"clock: {what} {'ahead' if ahead else 'back'}")
        self.host.jump(ways[what] if ahead else -ways[what])

    def _clock_is_known(self) -> bool:
        """Whether the store knows of the last jump. If it did not, after another boot nobody would."""
        with CommandStore(self.directory, self.host.wall_time) as store:
            seen = read_seen(store._reader)
        offset = 0.0 if seen is None else seen.offset
        return not self.host.jumped or resumed(seen, self.host.wall_time(), self.host.boot_clock()) == offset

    # jobs and orders

    def drop_jobs(self) -> None:
        """Somebody drops a few jobs at once."""
        for _ in range(self.random.choice((1, 1, 2, 4))):
            self.drop_job()

    def burst(self) -> None:
        """Somebody drops many: enough to be sent ahead of each other's answers."""
        for _ in range(12):
            self.drop_job()

    def drop_job(self) -> None:
        random, books = self.random, self.books
        token = f"j{len(books.mail):04d}"
        wall = self.host.wall_time()
        mail = Mail(
            token,
            sender=random.choice((f"owner@{HOME}", f"owner@{HOME}", "")),
            recipients=draw_recipients(random, token, list(self.plan.domains)),
            not_before=round(wall + random.uniform(1.0, 0.5 * DAY), 3) if random.random() < 0.2 else None,
            dropped=self.world.time(),
        )
        mail.expires = random.choice((600.0, 6 * HOUR, DAY)) if random.random() < 0.2 else None
        if random.random() < 0.05 and books.mail:
            former = random.choice(list(books.mail.values()))
            if former.key is not None:
                mail.key = former.key
        if mail.key is None and random.random() < 0.2:
            mail.key = f"key {token}"
        books.mail[token] = mail
        name = write_job(random, self.directory, mail, mail.expires)
        books.trace(self.world.time(), "dropped", {"name": name, "recipients": mail.recipients})

    def order(self) -> None:
        """An operator changes the queue by a command."""
        if self.process is None:
            return
        if self.process.in_transaction:  # a command waits for the lock; here nothing would happen meanwhile
            self.world.call_later(0.01, self.order)
            return
        change = self.random.choice(("retry", "retry", "hold", "release", "remove"))
        with self._command() as store:
            jobs = [job for job in store.list(limit=50) if job.name in self.books.mail]
            if not jobs:
                return
            job = self.random.choice(jobs)
            self.note(f"order: {change}", name=job.name)
            if change == "remove":
                self.books.mail[job.name].removed = True
            one = change == "remove" or self.random.random() < 0.7
            store.change(change, [job.id] if one else None)
            for each in [job] if one else jobs:
                if change in ("retry", "release"):  # due now, whatever was said before
                    self.books.mail[each.name].not_before = None
                if change == "release":
                    self.books.mail[each.name].released.append(self.world.time())
        self._poke()

    def _command(self) -> CommandStore:
        return CommandStore(self.directory, self.host.wall_time, boot=self.host.boot_clock())

    def _let_far_jobs_go(self, store: CommandStore) -> None:
        """A job that was scheduled when the clock was a year ahead would have its day in a year."""
        tomorrow = rfc3339(self.host.wall_time() + DAY)
        far = [job for job in store.list(limit=1000) if job.next_attempt is not None and job.next_attempt > tomorrow]
        if far:
            for job in far:
                self.books.mail[job.name].not_before = None
            store.change("retry", [job.id for job in far])
            self._poke()

    def _poke(self) -> None:
        self.listener.orders_given()
        poke(self.directory)

    # trouble

    def trouble(self) -> None:
        """Something happens to a host or to the connections to it, for a while."""
        host = self.random.choice(self.plan.hosts)
        path, server = self.world.network.path(host), self.servers[host]
        links = [link for at, link in self.world.network.links() if at == host]
        kind = self.random.choice(("refuses", "swallows", "cut", "crash", "crash", "stall", "reset", "narrow"))
        self.note(f"host: {kind}", host=host)
        server.troubled = True
        if kind in ("refuses", "swallows"):
            setattr(path, kind, True)
        elif kind == "cut":
            self.world.network.cut(host)
        elif kind == "crash":
            server.crash()
        elif kind == "narrow":
            path.window = self.random.choice((100, 1000))
        elif links:
            link = self.random.choice(links)
            link.reset() if kind == "reset" else link.stall(to_server=self.random.random() < 0.5)
        lasts = self.random.choice((5.0, 60.0, 900.0, 2 * HOUR, 6 * HOUR))
        self.world.call_later(lasts, self.heal, host)

    def heal(self, host: str) -> None:
        """The host is as it was."""
        self.world.network.heal(host)
        self.world.network.path(host).window = WINDOW
        self.servers[host].boot()

    def disk_trouble(self) -> None:
        """The disk is full, or fails, for a while."""
        self.disk.mode = self.random.choice(("full", "io"))
        self.note(f"disk: {self.disk.mode}")
        self.world.call_later(self.random.choice((1.0, 60.0, 1800.0)), setattr, self.disk, "mode", "")

    # the end

    def finish(self) -> None:
        """Heal everything, then let time pass until nothing waits any more."""
        self.over = True
        for host in self.plan.hosts:
            self.heal(host)
            self.servers[host].mishaps = 0.0
        self.disk.mode, self.disk.mishaps, self.disk.deaths = "", 0.0, 0.0
        self.world.advance(7210.0)  # a daemon that is down comes up
        assert self.process is not None
        for _ in range(36):
            with self._command() as store:
                if store.count().queued == 0 and not list((self.directory / "new").iterdir()):
                    break
                if not self.process.in_transaction:
                    self._let_far_jobs_go(store)
                if store.count().held and not self.process.in_transaction:
                    for mail in self.books.mail.values():
                        mail.not_before = None
                        mail.released.append(self.world.time())
                    store.change("release")
                    self._poke()
            self.world.advance(HOUR)
        else:
            self.books.violated(self.world.time(), "the queue does not get empty")
        self.world.advance(20.0)
        self.process.stop(self._stopped)
        self.world.advance(60.0)
