"""The daemon as a process of the simulated world: it is started, stopped, and killed at any moment.

Killing leaves its files as they are at that moment: nothing is closed, rolled back or tidied up on the daemon's behalf.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw

from config.problems import ConfigError
from config.settings import Settings
from deferred.failure import Failure
from deferred.testing import SimulatedReactor, World
from service.daemon import Daemon
from service.queue.calendar import BootClock
from service.queue.commit import _commit
from service.queue.ids import id_text
from tests.simulation.books import Books, Life, States

ADDRESS = "192.0.2.1"
DATABASE = "queue.db"

_CLOSER = ThreadPoolExecutor(1)
"""Closes what a killed process had open: with inotify the kernel takes milliseconds over it."""

_LEAVE_TAKING = 6.0
"""Seconds in which a server has to answer QUIT, and a little."""


class Host:
    """The machine that the daemon runs on: its wall clock jumps, and it is booted anew."""

    def __init__(self, world: World) -> None:
        self.jumped = False
        self.on = True
        self._world = world
        self._boots = 0
        self._booted = 0.0

    def wall_time(self) -> float:
        """What its clock shows."""
        return self._world.wall_time() + self._world.clocks.get(ADDRESS, 0.0)

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock."""
        self.jumped = True
        self._world.clocks[ADDRESS] = self._world.clocks.get(ADDRESS, 0.0) + seconds

    def cut_power(self) -> None:
        """What comes is another boot."""
        self.on = False

    def boot(self) -> None:
        """It is switched on, unless it is."""
        if not self.on:
            self.on = True
            self._boots += 1
            self._booted = self._world.time()

    def boot_clock(self) -> BootClock:
        """The clock of this boot."""
        booted = self._booted
        return BootClock(f"boot {self._boots}", lambda: self._world.time() - booted)


class Disk:
    """What may go wrong at a COMMIT. `mode`: "" well, "full", or "io" (fails, and may have reached the log)."""

    def __init__(self, world: World, books: Books) -> None:
        self.mode = ""
        self.mishaps = 0.0
        self.deaths = 0.0
        self.die: Callable[[], object] = lambda: None
        self._world = world
        self._books = books
        self._random = world.draw("disk")

    def in_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a call of the daemon's threads: a COMMIT may fail, before or after, and the daemon may die with it."""
        if function is not _commit:
            return function(*args, **kwargs)
        mode = self.mode
        if not mode and self._random.random() < self.mishaps:
            mode = self._random.choice(("full", "io"))
        dies = self._random.random() < self.deaths
        if dies and self._random.random() < 0.5:
            self._books.faults["killed before COMMIT"] += 1
            self._world.call_soon(self.die)
            raise apsw.IOError("the process is gone")
        if mode == "full":
            self._books.faults["COMMIT: the disk is full"] += 1
            raise apsw.FullError("database or disk is full")
        if mode == "io" and self._random.random() < 0.5:
            self._books.faults["COMMIT: I/O error, lost"] += 1
            raise apsw.IOError("disk I/O error")
        result = function(*args, **kwargs)
        if mode == "io":
            self._books.faults["COMMIT: I/O error, yet in the log"] += 1
            raise apsw.IOError("disk I/O error")
        if dies:
            self._books.faults["killed after COMMIT"] += 1
            self._world.call_soon(self.die)
        return result


class Process:
    """One life of the daemon."""

    def __init__(
        self,
        world: World,
        books: Books,
        settings: Settings,
        disk: Disk,
        host: Host,
        listener: Callable[[str, dict[str, object]], None],
    ) -> None:
        self.world = world
        self.books = books
        self.settings = settings
        self.next_settings: Settings | None = settings
        self.directory = Path(settings.queue.directory)
        self.disk = disk
        number = len(books.lives)
        self.machine: SimulatedReactor = world.machine(ADDRESS, on_error=self._raised)
        self.machine.in_thread = disk.in_thread
        self.life = Life(number, self.machine, world.time())
        books.lives.append(self.life)
        self.daemon = Daemon(
            self.machine,
            settings,
            random=world.draw(f"daemon {number}"),
            load=self._load,
            listeners=[listener],
            boot=host.boot_clock(),
        )
        self.stopping_since: float | None = None
        self.stopped: Callable[[], object] = lambda: None

    def start(self) -> bool:
        """Start it; False if it would not."""
        failures: list[Failure] = []
        self.daemon.start().add_errback(failures.append)
        if failures:
            self.books.violated(self.world.time(), f"it does not start: {failures[0].get_traceback()}")
        return not failures

    def noted_rests(self) -> dict[str, float]:
        """How many seconds are left, by what the store knows, of each site's rest."""
        store = self.daemon._store
        return {rest.site: rest.ends - store.now() for rest in store.notes.rests()}

    def _load(self) -> Settings:
        if self.next_settings is None:
            raise ConfigError("a mistake in the configuration")
        self.settings = self.next_settings
        return self.settings

    def _raised(self, error: Exception) -> None:
        self.books.violated(self.world.time(), f"a callback raised {Failure(error).get_traceback()}")

    # looking

    def connections(self) -> list[apsw.Connection]:
        """The daemon's connections to its database."""
        return [each for each in apsw.connections() if each.filename == str(self.directory / DATABASE)]

    @property
    def in_transaction(self) -> bool:
        """Whether a command would have to wait for it."""
        return any(each.in_transaction for each in self.connections())

    # ending

    def stop(self, stopped: Callable[[], object]) -> None:
        """SIGTERM; `stopped` is called when the process has exited."""
        if self.stopping_since is not None:
            return
        self.stopping_since = self.world.time()
        self.stopped = stopped
        self.daemon.stop().add_callback(self._exit)

    def _exit(self, _: None) -> None:
        self.world.call_soon(self._exited)

    def _exited(self) -> None:
        if not self.machine.alive:
            return
        assert self.stopping_since is not None
        now, drain = self.world.time(), self.settings.timeouts.drain
        if now > self.stopping_since + drain + 0.2:
            self.books.violated(now, f"it took {now - self.stopping_since:.1f} s to stop")
        left = [] if self.disk.mode else [f"{each!r}" for each in self.connections()]
        left += [] if self.machine.streams else self.machine.left_over()
        delivery = self.daemon._delivery
        left += [] if delivery is None else [f"slots of {one.name}" for one in delivery.sites() if one.in_flight]
        if left:
            self.books.violated(now, f"left behind by a stop: {left}")
        self._close_files("stopped")
        # A process that has stopped exits; if connections take leave still, here they may, to show that they end.
        self.world.call_later(_LEAVE_TAKING, self._gone)
        self.stopped()

    def _gone(self) -> None:
        left = self.machine.left_over()
        if left:
            self.books.violated(self.world.time(), f"left behind by a stop {_LEAVE_TAKING} s ago: {left}")
        self.machine.kill()

    def kill(self, how: str, *, silently: bool = False) -> None:
        """SIGKILL; `silently`: a power cut, of which no peer is told."""
        for fd in self.machine.readers:
            _CLOSER.submit(os.close, fd)
        self.machine.kill(silently=silently)
        self._close_files(how)

    def _close_files(self, how: str) -> None:
        self.life.ended, self.life.how = self.world.time(), how
        database, log, index = (self.directory / f"{DATABASE}{more}" for more in ("", "-wal", "-shm"))
        left = {path: path.read_bytes() for path in (database, log) if path.exists()}
        for connection in self.connections():
            connection.close(True)
        self.life.states = look_at_states(database, self.books)
        for path in (log, index):
            path.unlink(missing_ok=True)
        for path, data in left.items():
            path.write_bytes(data)
        if self.daemon._lock is not None:
            self.daemon._lock.release()


def look_at_states(database: Path, books: Books) -> States:
    """What is committed about each recipient of each dropped job."""
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    rows = connection.execute(
        "SELECT job.id, job.name, address, recipient.state FROM recipient JOIN job ON job.id = job WHERE shown"
    ).fetchall()
    connection.close()
    books.tokens.update((id_text(id), name) for id, name, _, _ in rows)
    return {(name, address): state for _, name, address, state in rows}
