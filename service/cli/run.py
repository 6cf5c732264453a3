"""`deferd run`: the daemon as a process, with its signals, its limits and its exit status."""

from __future__ import annotations

import os
import random
import signal

import click

from config.loader import PLACES, find, load
from config.problems import ConfigError
from config.settings import Settings
from config.system import collect_seldom, raise_open_files
from deferred.defer import set_unhandled_error_hook
from deferred.failure import Failure
from deferred.reactor import Reactor
from service.cli.boot import boot_clock
from service.daemon import Daemon
from service.queue.store import StoreFailed

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Blocked from the process's first moments by the command until they can be heard."""


def run(config_path: str | None) -> int:
    """Run until SIGTERM or SIGINT. 0 after a clean end, 1 where it cannot start, also for a bad configuration."""
    try:
        path = find(config_path)
        _tell_fallback(config_path, path)
        settings = load(path)
    except ConfigError as error:
        click.echo(str(error), err=True)
        return 1
    raise_open_files(settings.limits.connections)

    def load_anew() -> Settings:
        settings = load(path, origin=_origin(config_path))
        raise_open_files(settings.limits.connections)
        return settings

    reactor = Reactor()
    daemon = Daemon(
        reactor,
        settings,
        random=random.Random(),  # noqa: S311 (for jitter and ids, which are no secrets; the system's own costs 6 us)
        load=load_anew,
        write=_print,
        file=str(path),
        boot=boot_clock(),
    )
    tell = daemon.journal.tell
    reactor.on_error = lambda error: tell("unhandled_error", error=Failure(error).get_traceback())
    set_unhandled_error_hook(
        lambda failure, detail: tell("unhandled_error", error=failure.get_traceback(), detail=detail or None)
    )
    collect_seldom()
    return _Process(reactor, daemon).run()


def _tell_fallback(config_path: str | None, path: str) -> None:
    """Say which configuration stands in where nobody has written one: mail may not go where it should."""
    system = PLACES[0]
    if not config_path and not os.environ.get("DEFERD_CONFIG") and path != system:
        click.echo(f"deferd: no -c, no $DEFERD_CONFIG and no {system}: the configuration is {path}", err=True)


def _origin(config_path: str | None) -> str:
    """Why it is this file that a reload reads."""
    if config_path:
        return "-c names it"
    if os.environ.get("DEFERD_CONFIG"):
        return "$DEFERD_CONFIG names it"
    return "it was found when deferd started, and a restart may find another"


def _print(text: str) -> None:
    """Write to standard output, past Python's own buffer: a thread that stalls here would keep its lock to the end."""
    octets = text.encode()
    while octets:
        octets = octets[os.write(1, octets) :]


class _Process:
    """The daemon between its first signal handler and its exit status."""

    def __init__(self, reactor: Reactor, daemon: Daemon) -> None:
        self._reactor = reactor
        self._daemon = daemon
        self._status = 0
        self._ending = False

    def run(self) -> int:
        self._reactor.call_soon(self._start)
        self._reactor.run()
        self._reactor.close()
        return self._status

    def _start(self) -> None:
        self._daemon.start().add_callbacks(self._listen_to_signals, self._cannot_start)

    def _listen_to_signals(self, _: None) -> None:
        self._reactor.add_signal_handler(signal.SIGTERM, self._end, False)
        self._reactor.add_signal_handler(signal.SIGINT, self._end, True)
        self._reactor.add_signal_handler(signal.SIGHUP, self._daemon.reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # those that came during the start are heard now

    def _cannot_start(self, failure: Failure) -> None:
        self._status = 1
        self._reactor.stop()
        failure.trap(StoreFailed, ConfigError, OSError)
        click.echo(f"deferd: {failure.get_error_message()}", err=True)

    def _end(self, impatient: bool) -> None:
        """Drain. A second ^C ends at once: what is in flight is due again at the next start."""
        if self._ending:
            if impatient:
                self._reactor.stop()
            return
        self._ending = True
        self._daemon.stop().add_both(lambda _: self._reactor.stop())
