"""Streams over Unix sockets."""

from __future__ import annotations

import contextlib
import errno
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from deferred import connect as happy_eyeballs
from deferred.connect import establish
from deferred.defer import Deferred, fail
from deferred.failure import Failure
from deferred.interfaces import Address, TimeSource
from deferred.protocol import StreamProtocol
from deferred.tcp import REFUSED, Listener, SocketReactor, SocketStream, accept_into, dial, open_socket, with_place

P = TypeVar("P", bound=StreamProtocol)

_REST = 0.05  # seconds before a server with a full backlog is tried again


def connect(reactor: SocketReactor, protocol_factory: Callable[[], P], path: str, timeout: float | None) -> Deferred[P]:
    """Connect to a Unix socket. Fails with `OSError`, or `TimeoutError` after `timeout` seconds."""

    def dial_once() -> Deferred[SocketStream]:
        try:
            connecting = open_socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            return fail(error)
        return dial(reactor, connecting, path, path)

    def dial_one(_: Address) -> Deferred[SocketStream]:
        return _dial_patiently(reactor, dial_once)

    stream = happy_eyeballs.connect(reactor, [(path, 0)], dial_one, SocketStream.abort, timeout=timeout)
    return stream.add_callback(establish, protocol_factory)


def _dial_patiently(clock: TimeSource, dial_once: Callable[[], Deferred[SocketStream]]) -> Deferred[SocketStream]:
    """Dial again while the server's backlog is full: a Unix socket says so (EAGAIN), where TCP would wait for us."""
    give_up: Callable[[], object]

    def attempt() -> None:
        nonlocal give_up
        dialing = dial_once()
        give_up = dialing.cancel
        dialing.add_callbacks(answered.callback, failed)

    def failed(failure: Failure) -> None:
        nonlocal give_up
        if failure.check(BlockingIOError):
            give_up = clock.call_later(_REST, attempt).cancel
        elif not answered.called:
            answered.errback(failure)

    answered: Deferred[SocketStream] = Deferred(lambda _: give_up())
    attempt()
    return answered


def listen(
    reactor: SocketReactor, protocol_factory: Callable[[], StreamProtocol], path: str, backlog: int, mode: int | None
) -> Listener:
    """Listen on a Unix socket, in place of one that a dead process left behind. Raises `OSError`.

    `mode` is the file's permissions; nobody can connect before it has them.
    """
    listening = open_socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            listening.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_dead(path):
                raise
            Path(path).unlink()
            listening.bind(path)
        ours = Path(path).lstat()
    except REFUSED as error:
        listening.close()
        raise with_place(error, path) from None

    def remove() -> None:
        with contextlib.suppress(OSError):
            there = Path(path).lstat()
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):  # not a successor's
                Path(path).unlink()

    try:
        if mode is not None:
            Path(path).chmod(mode)
        listening.listen(backlog)
    except (OSError, OverflowError) as error:
        remove()
        listening.close()
        raise with_place(error, path) from None
    return Listener(reactor, listening, accept_into(reactor, protocol_factory), remove)


def _is_dead(path: str) -> bool:
    """Whether a Unix socket is there that nobody listens on."""
    if not stat.S_ISSOCK(Path(path).lstat().st_mode):
        return False
    with open_socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED
