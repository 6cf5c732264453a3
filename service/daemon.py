"""The daemon: puts the rooms together, and is the only file that knows them all.

start    take the directory, open the queue, listen, deliver, take jobs in: in this order, so that nothing is
         accepted that could not be kept, and a second daemon is told before it has touched anything
reload   new settings for all that can change without a restart; the old ones stay where the new are wrong
stop     take nothing more in, let conversations finish, write down what became of them, let go
"""

from __future__ import annotations

import random as randomness
import ssl
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import metadata
from typing import Any, Final

import msgspec

from config.problems import ConfigError
from config.settings import Settings
from deferred.defer import Deferred, execute, gather_results, succeed
from deferred.failure import Failure
from deferred.interfaces import Reactor, Server, TimerHandle
from service.delivery.delivery import Delivery
from service.delivery.policy import expiry
from service.delivery.reports import Kind
from service.journal import Journal, Listener
from service.log import Log
from service.message.bounce import Undelivered, bounce, delay_warning
from service.message.outcome import Outcome
from service.message.read import is_job_name
from service.queue.aftermath import tell_aftermath
from service.queue.calendar import BootClock
from service.queue.damage import REMEDY, set_aside_folders, set_aside_if_damaged
from service.queue.drop import DropDirectory
from service.queue.ids import id_text
from service.queue.intake import Intake
from service.queue.lastwork import LISTENS_TO, LastWork
from service.queue.layout import Layout, prepare
from service.queue.lock import DirectoryLock
from service.queue.orders import Order
from service.queue.poke import PokeWatch
from service.queue.reader import JobReader
from service.queue.results import ResultWriter
from service.queue.sqlite import SQLiteStore
from service.queue.store import Claim, StoreFailed, Submission
from service.web.faces import faces
from service.web.metrics import MEASURED, Metrics
from service.web.recent import TROUBLES, Recent
from service.web.server import WebServer, cannot_listen
from service.web.sitelines import site_lines

KEPT: Final = 7 * 86400.0
"""Seconds for which results, rejected files and ended jobs are kept (README, Jobs)."""

_PURGE_EVERY: Final = 3600.0
_LAST_WORDS: Final = 3.0
"""Seconds of `timeouts.drain`, a fifth of it at most, for the last outcomes and then, a third of them, the last lines
to be written where the disk is slow."""


class Daemon:
    """deferd, on any reactor: everything that it needs of the world is handed in.

    `load` reads the configuration anew for `reload`; `write` takes the log's text, in a thread; `listeners` are told
    every event of the journal, besides the log and the metrics. `file` is where the configuration was read;
    `boot` is a clock that goes on while no daemon runs.
    """

    def __init__(
        self,
        reactor: Reactor,
        settings: Settings,
        *,
        random: randomness.Random,
        load: Callable[[], Settings] | None = None,
        write: Callable[[str], object] | None = None,
        listeners: Sequence[Listener] = (),
        file: str | None = None,
        boot: BootClock | None = None,
    ) -> None:
        self.settings = settings
        self.journal = Journal(*listeners)
        self._reactor = reactor
        self._random = random
        self._file = file
        self._load = load
        self._boot = boot
        self._log: Log | None = None
        if write is not None:
            self._log = Log(reactor, write, format=settings.log.format, level=settings.log.level)
            self.journal.add(self._log, self._log.events)
        self._lock: DirectoryLock | None = None
        self._listening: tuple[str, Server] | None = None
        self._purge_timer: TimerHandle | None = None
        self._held: list[Callable[[], object]] = []  # how to let go of what the start has taken hold of so far
        self._stopping: Deferred[None] | None = None

    # start

    def start(self) -> Deferred[None]:
        """Fire once jobs are taken in and delivered.

        Fails with `StoreFailed` (the directory cannot be used, or another daemon has it), `ConfigError` (`http.listen`
        cannot be listened on) or `OSError` (a `ca_file` cannot be read); nothing is left behind then.
        """
        return execute(self._begin).add_errback(self._undo)

    def _begin(self) -> None:
        layout = prepare(self.settings.queue.directory)
        self._lock = DirectoryLock(layout.directory)
        self._held.append(self._lock.release)
        self._set_aside_if_damaged(layout)
        self._build_queue(layout)
        self._delivery = Delivery(
            self._reactor, self._store, self.journal, self._random, self.settings, trust=trust, compose=self._compose
        )
        self._build_web(layout)
        self._build_intake(layout)
        self._listen()
        self._store.on_moved(self._delivery.wake)
        self._delivery.start()
        self._poked()  # what commands asked for while no daemon ran
        self._intake.start()
        self._purge()
        self.journal.tell(
            "started",
            version=version(),
            directory=str(layout.directory),
            http=address_text(self._listening[1]) if self._listening else None,
            hostname=self.settings.hostname,
        )
        tell_aftermath(self.journal, self._store.aftermath)

    def _set_aside_if_damaged(self, layout: Layout) -> None:
        aside = set_aside_if_damaged(layout.database, self._reactor.wall_time())
        if aside is not None:
            self.journal.tell("store_damaged", why=aside.why, path=str(aside.folder), remedy=REMEDY)

    def _build_queue(self, layout: Layout) -> None:
        self._drop = DropDirectory(layout, self.settings.limits.message_size)
        self._last_work = LastWork(layout.directory, self._reactor)
        self._held.append(self._last_work.let_go)
        self._store = SQLiteStore(
            layout.database,
            self._reactor,
            self.journal,
            self._random,
            results=self.settings.queue.results,
            present=self._drop.present,
            before=self._last_work.before,
            boot=self._boot,
        )
        self._held.append(self._store.close)
        self._last_work.begin()
        self.journal.add(self._last_work, LISTENS_TO)
        self._results = ResultWriter(self._reactor, self._store, self.journal, layout)
        self._poke = PokeWatch(layout.directory, self._reactor, self._poked, self._version, self._ordered)
        self._held.append(self._poke.close)

    def _build_intake(self, layout: Layout) -> None:
        self._intake = Intake(
            self._reactor,
            self._store,
            self.journal,
            layout,
            self._drop,
            read=JobReader(lambda: self.settings, layout.new, self._reactor, self._unique),
            wants=is_job_name,
            site_of=self._delivery.site_of,
            accepted=self._accepted,
            unique=self._unique,
            last_work=self._last_work,
            deadly=self._store.aftermath.deadly,
        )

    def _build_web(self, layout: Layout) -> None:
        set_aside = partial(set_aside_folders, layout.directory)
        metrics = Metrics(
            self._store.now,
            version(),
            self._store.count,
            in_flight=lambda: self._delivery.in_flight,
            connections=lambda: self._delivery.connections,
            resting=lambda: sum(view.health == "resting" for view in self._delivery.sites()),
            set_aside=set_aside,
        )
        recent = Recent(self._store.now)
        self.journal.add(metrics, MEASURED)
        self.journal.add(recent, TROUBLES)
        handlers = faces(
            self._reactor,
            self._store,
            metrics,
            recent,
            version=version(),
            in_flight=lambda: self._delivery.in_flight,
            sites=lambda: site_lines(self._delivery.sites()),
            hostname=lambda: self.settings.hostname,
            set_aside=set_aside,
            unready=lambda: "deferd is stopping" if self._stopping else self._intake.trouble,
        )
        self._web = WebServer(self._reactor, handlers, self.journal)
        self._held.append(self._web.close)

    def _listen(self) -> None:
        """Serve the web face where the settings say, and only there. Raises `ConfigError`, and changes nothing then."""
        wanted, former = self.settings.http.listen, self._listening
        if former and former[0] == wanted:
            return
        try:
            self._listening = (wanted, self._open(wanted)) if wanted is not None else None
        except OSError as error:
            if not (former and wanted and wanted.endswith(f":{former[1].address[1]}")):
                raise ConfigError(f"http.listen: {cannot_listen(str(wanted), error)}") from error
            self._take_over(former, wanted)
        else:
            if former:
                former[1].close()

    def _open(self, place: str) -> Server:
        host, _, port = place.rpartition(":")
        return self._web.listen(host.strip("[]"), int(port))

    def _take_over(self, former: tuple[str, Server], wanted: str) -> None:
        """It may be us who use the address: 127.0.0.1:80 is in the way of 0.0.0.0:80."""
        former[1].close()
        try:
            self._listening = wanted, self._open(wanted)
        except OSError as error:
            self._listening = former[0], self._open(address_text(former[1]))
            raise ConfigError(f"http.listen: {cannot_listen(wanted, error)}") from error

    def _undo(self, failure: Failure) -> Deferred[Any]:
        """Let go of what a start that failed had taken hold of, the directory last."""
        letting_go: Deferred[Any] = succeed(None)
        for let_go in reversed(self._held):
            letting_go.add_callback(lambda _, step: step(), let_go)
        return letting_go.add_both(lambda _: failure)

    # what the rooms ask of one another

    def _unique(self) -> str:
        return id_text(self._store.mint())

    def _accepted(self, sites: Iterable[str]) -> None:
        for site in sites:
            self._delivery.wake(site)

    def _compose(self, kind: Kind, claim: Claim, outcomes: tuple[Outcome, ...], head: bytes) -> Submission | None:
        shown = self._store.calendar.wall
        facts = Undelivered(
            id=claim.id,
            sender=claim.sender,
            content=head,
            size=claim.size,
            outcomes=outcomes,
            hostname=self.settings.hostname,
            arrived=shown(claim.accepted_at),
            now=self._reactor.wall_time(),
            retry_until=shown(expiry(claim, self.settings.retry)),
        )
        job = bounce(facts) if kind == "bounce" else delay_warning(facts)
        if job is None:
            return None
        sites = tuple(self._delivery.site_of(address) for address in job.recipients)
        return Submission(job=job, name=f"{claim.name}-{kind}", sites=sites, result=False)

    def _version(self) -> object:
        try:
            return self._store.version()
        except StoreFailed:  # it tells of itself
            return None

    def _ordered(self, order: Order) -> None:
        self.journal.tell("queue_changed", **msgspec.to_builtins(order))

    def _poked(self) -> None:
        """A command has changed the queue."""

        def go(sites: list[str]) -> None:
            for site in sites:
                self._delivery.wake(site, end_rest=True)
            self._delivery.wake()
            self._results.start()

        self._store.retried().add_callback(go).add_errback(self._report, "poke")

    def _purge(self) -> None:
        """Forget what is a week old, now and every hour."""
        self._purge_timer = self._reactor.call_later(_PURGE_EVERY, self._purge)
        forgotten: Deferred[Any] = self._store.purge(self._store.now() - KEPT)
        forgotten.add_callback(lambda _: self._results.purge(self._store.calendar.earliest(KEPT))).add_errback(
            self._report, "purge"
        )

    def _report(self, failure: Failure, where: str) -> None:
        self.journal.tell("unhandled_error", where=where, error=failure.get_traceback())

    # reload

    def reload(self) -> None:
        """Go by the configuration as it is now; where it is wrong, say so and go on by the old one."""
        assert self._load is not None
        if self._stopping is not None:
            return
        old = self.settings
        try:
            new = self._load()
            if new.queue.directory != old.queue.directory:
                raise ConfigError("queue.directory: cannot be changed by a reload; stop deferd and start it again")
            self._delivery.configure(new)
            self.settings = new
            self._listen()
        except (ConfigError, OSError) as error:
            if self.settings is not old:
                self.settings = old
                self._delivery.configure(old)
            why = str(error)
            file = "" if self._file is None or self._file in why else f"{self._file}: "
            self.journal.tell("reload_failed", why=file + why)
            return
        self._drop.message_size = new.limits.message_size
        self._store.results = new.queue.results
        if self._log is not None:
            self._log.configure(new.log.format, new.log.level)
            self.journal.add(self._log, self._log.events)
        self.journal.tell("reloaded", http=address_text(self._listening[1]) if self._listening else None)

    # stop

    def stop(self) -> Deferred[None]:
        """Drain: take nothing more in, let conversations past DATA finish within `timeouts.drain`, end the others,
        write down the rest; fire when nothing is held any more. Called again, it is the same end that is waited for."""
        waiting: Deferred[None] = Deferred()
        if self._stopping is not None:
            self._stopping.add_callback(lambda _: waiting.callback(None))
            return waiting
        self._stopping = waiting
        self.journal.tell("draining", in_flight=self._delivery.in_flight)
        self._intake.stop()
        self._poke.close()
        if self._purge_timer is not None:
            self._purge_timer.cancel()
        whole = self.settings.timeouts.drain
        last = min(_LAST_WORDS, whole / 5)
        d: Deferred[Any] = self._delivery.drain(whole - last)
        d.add_callback(lambda _: self._results.stop())
        d.add_callback(lambda _: gather_results([self._store.close(), self._web.close(last / 2)], consume_errors=True))
        d.add_timeout(whole - last / 3, self._reactor, self._disk_hangs)
        d.add_errback(self._report, "stop")
        d.add_callback(self._stopped, last / 3)
        d.add_errback(self._report, "stop")
        d.add_callback(lambda _: waiting.callback(None))
        return waiting

    def _disk_hangs(self, *_: object) -> None:
        """All else ends, or is cut off, before: what could not be written is taken up at the next start."""
        self.journal.tell("store_failed", where="stop", why="it could not finish writing within timeouts.drain")

    def _stopped(self, _: object, patience: float) -> Deferred[None] | None:
        self._last_work.close()
        if self._lock is not None:
            self._lock.release()
        self.journal.tell("stopped")
        return self._log.close(patience) if self._log is not None else None


def trust(context: ssl.SSLContext, ca_file: str | None) -> None:
    """Let a TLS context trust the authorities in a file, or the system's. Raises `OSError`."""
    if ca_file is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cafile=ca_file)


def version() -> str:
    """deferd's own version."""
    return metadata.version("deferd")


def address_text(server: Server) -> str:
    """Where a TCP server listens, as it is written in a URL."""
    host, port = server.address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
