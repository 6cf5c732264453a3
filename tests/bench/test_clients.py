"""The clients that are measured: each sends every message once and whole, or its speed means nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import bare, callbacks, peers
from bench.mail import Mail, message_id
from bench.sink import EVERYTHING, NO_CHUNKING, Sink, read_log
from bench.task import Task
from bench.wrong import Wrong

Client = Callable[[Task], object]


CLIENTS = [bare.send, callbacks.with_sessions, peers.with_threads]
SERVERS = {"CHUNKING": EVERYTHING, "PIPELINING": NO_CHUNKING, "neither": ()}
CASES = [
    pytest.param(client, keywords, id=f"{client.__name__}-{name}")
    for client in CLIENTS
    for name, keywords in SERVERS.items()
]


@pytest.mark.parametrize(("client", "keywords"), CASES)
def test_every_message_arrives_once_and_whole(client: Client, keywords: tuple[str, ...], tmp_path: Path) -> None:
    """Seven messages over three connections, each with its own Message-ID and of the size that was asked for."""
    mail = Mail(messages=7, size=500, first=3)
    with Sink(keywords=keywords, log=tmp_path / "log") as sink:
        client(Task(peer="bare", mail=mail, connections=3, addresses=(("127.0.0.1", sink.port),)))
        report = sink.stop()
    report.check(7)
    assert report.connections == 3
    came = sorted((one.message_id, one.octets) for one in read_log(tmp_path / "log"))
    assert came == sorted((message_id(number), 500) for number in mail.numbers)


def test_the_example_has_a_connection_for_each_message(tmp_path: Path) -> None:
    mail = Mail(messages=5)
    with Sink(log=tmp_path / "log") as sink:
        callbacks.with_examples(Task(peer="examples", mail=mail, connections=5, addresses=(("127.0.0.1", sink.port),)))
        report = sink.stop()
    report.check(5)
    assert report.connections == 5


def test_files_are_read_where_a_task_names_a_folder(tmp_path: Path) -> None:
    task = Task(peer="bare", mail=Mail(messages=4), connections=2, addresses=(("127.0.0.1", 1),), folder=str(tmp_path))
    task.write_files()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.eml", "1.eml", "2.eml", "3.eml"]
    (tmp_path / "2.eml").write_bytes(b"another")
    assert task.content(2) == b"another"
    assert [list(task.share(number)) for number in range(2)] == [[0, 2], [1, 3]]


def test_a_bare_loop_that_is_refused_ends() -> None:
    """A command that is not understood is an error, not a message that was sent quickly."""
    with Sink(keywords=NO_CHUNKING) as sink, pytest.raises(Wrong, match="500"):
        bare.send(Task(peer="bare", mail=Odd(messages=1), connections=1, addresses=(("127.0.0.1", sink.port),)))


class Odd(Mail, frozen=True):
    """Its recipient's address is a command more."""

    def recipient(self, number: int) -> str:
        return super().recipient(number) + ">\r\nHUH <"
