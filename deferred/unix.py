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
from deferred.interfaces import Address
from deferred.protocol import StreamProtocol
from deferred.tcp import Listener, SocketReactor, SocketStream, accept_into, dial, open_socket, with_place

P = TypeVar("P", bound=StreamProtocol)


def connect(reactor: SocketReactor, protocol_factory: Callable[[], P], path: str, timeout: float | None) -> Deferred[P]:
    """Connect to a Unix socket. Fails with `OSError`, or `TimeoutError` after `timeout` seconds."""

    def dial_one(_: Address) -> Deferred[SocketStream]:
        try:
            connecting = open_socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            return fail(error)
        return dial(reactor, connecting, path, path)

    stream = happy_eyeballs.connect(reactor, [(path, 0)], dial_one, SocketStream.abort, timeout=timeout)
    return stream.add_callback(establish, protocol_factory)


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
        if mode is not None:
            Path(path).chmod(mode)
        listening.listen(backlog)
        ours = Path(path).lstat()
    except OSError as error:
        listening.close()
        raise with_place(error, path) from None

    def remove() -> None:
        with contextlib.suppress(OSError):
            there = Path(path).lstat()
            if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):  # not a successor's
                Path(path).unlink()

    return Listener(reactor, listening, accept_into(reactor, protocol_factory), remove)


def _is_dead(path: str) -> bool:
    """Whether a Unix socket is there that nobody listens on."""
    if not stat.S_ISSOCK(Path(path).lstat().st_mode):
        return False
    with open_socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED
