"""Streams over Unix sockets."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from deferred.defer import CancelledError
from tests.deferred.transports import Echo, Note


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A short one: a Unix socket's path has at most 107 octets."""
    monkeypatch.chdir(tmp_path)
    return "socket"


def test_octets_travel_over_a_unix_socket(reactor, run, path):
    """Both ways, and the file goes with the server."""
    server = reactor.create_unix_server(Echo, path, mode=0o600)
    assert server.address == path
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    client = run(reactor.create_unix_connection(Note, path))
    client.transport.write(b"x" * 1_000_000)
    assert len(run(client.receive(1_000_000))) == 1_000_000
    assert client.transport.get_extra_info("peername") == path
    server.close()
    assert not Path(path).exists()


def test_nobody_there_is_refused(reactor, run, path):
    """With the path in the error."""
    with pytest.raises(FileNotFoundError, match=path):
        run(reactor.create_unix_connection(Note, path))
    with pytest.raises(OSError, match="too long"):
        run(reactor.create_unix_connection(Note, "x" * 200))
    assert not reactor.open_sockets


def test_a_socket_that_a_dead_process_left_is_replaced(reactor, run, path):
    """One that somebody listens on is not."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    server = reactor.create_unix_server(Echo, path)
    run(reactor.create_unix_connection(Note, path))
    with pytest.raises(OSError, match="in use"):
        reactor.create_unix_server(Echo, path)
    server.close()


def test_a_file_that_is_no_socket_is_left_alone(reactor, path):
    """Whatever it is."""
    Path(path).write_text("precious")
    with pytest.raises(OSError, match="in use"):
        reactor.create_unix_server(Echo, path)
    assert Path(path).read_text() == "precious"


def test_a_socket_that_cannot_be_served_leaves_no_file(reactor, path, monkeypatch):
    """When its permissions cannot be set, or it cannot listen."""

    def refuse(self, mode):
        raise PermissionError(1, "no")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "chmod", refuse)
        with pytest.raises(PermissionError, match=path):
            reactor.create_unix_server(Echo, path, mode=0o600)
    assert not Path(path).exists()
    with pytest.raises(OSError, match=path):
        reactor.create_unix_server(Echo, path, backlog=1 << 80)
    assert not Path(path).exists()
    with pytest.raises(OSError, match="null"):
        reactor.create_unix_server(Echo, "nul\0")
    assert not reactor.open_sockets


@pytest.fixture
def full(path):
    """A listening socket whose backlog is full."""
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as caller:
        listening.bind(path)
        listening.listen(0)
        caller.connect(path)
        yield listening


def test_a_full_backlog_is_waited_for(reactor, run, full, path):
    """As TCP would wait by itself."""
    connecting = reactor.create_unix_connection(Note, path, timeout=10)
    reactor.call_later(0.01, lambda: full.accept()[0].close())
    run(connecting).transport.abort()
    assert not reactor.open_sockets


def test_a_full_backlog_is_not_waited_for_beyond_the_timeout(reactor, run, full, path):
    """Nor when the wait is cancelled; nothing goes on behind it."""
    with pytest.raises(TimeoutError):
        run(reactor.create_unix_connection(Note, path, timeout=0.02))
    cancelled = reactor.create_unix_connection(Note, path)
    cancelled.cancel()
    with pytest.raises(CancelledError):
        run(cancelled)
    assert not reactor.open_sockets
    assert len(reactor._schedule) == 0


def test_a_successors_socket_is_not_removed(reactor, run, path):
    """Only our own."""
    server = reactor.create_unix_server(Echo, path)
    Path(path).unlink()
    successor = reactor.create_unix_server(Echo, path)
    server.close()
    run(reactor.create_unix_connection(Note, path))
    successor.close()
    assert not Path(path).exists()
