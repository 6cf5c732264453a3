"""The log's lines: whatever was said, one line, and nothing in it that a terminal acts on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deferred.testing import MemoryReactor
from service.journal import SECONDS, Journal
from service.log import Log

HOSTILE = {
    "escape sequences": "\x1b[2J\x1b]0;title\x07",
    "NUL": "a\0b",
    "other controls": "".join(map(chr, range(32))) + "\x7f" + "".join(map(chr, range(0x80, 0xA0))),
    "line ends": 'no\r\n{"event": "delivered"}\n\u2028\u2029\x85',
    "bidi controls": "\u202e\u202d\u2066\u2067\u2069\u200f\u061c",
    "no width": "\u200b\u200c\u200d\u2060\ufeff",
    "8-bit": bytes(range(128, 256)).decode("latin-1"),
    "half a surrogate pair": "\udcff\ud800",
    "markup": "[red]no[/red] <b>no</b> %s {0} \\x1b",
    "8 KiB": "\x1b" * 8192,
}


def logged(format: Any, **facts: object) -> str:
    """What the log writes of one event."""
    reactor, written = MemoryReactor(), []
    log = Log(reactor, written.append, format=format)
    Journal(log).tell("failed", **facts)
    reactor.advance(1.0)
    return "".join(written)


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_what_a_stranger_said_is_one_line_of_what_can_be_seen(said, format):
    """As a reply's text, as a file's name, as the reason why it was no job, and in a list of recipients."""
    written = logged(format, text=said, name=said, why=f"because {said}", recipients=[said, said])
    assert written.endswith("\n")
    assert written[:-1].isprintable()
    written.encode()


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_a_line_of_json_is_ascii_and_gives_back_what_was_said(said):
    """Escaped is not lost: a program reads what the stranger said."""
    written = logged("json", text=said, recipients=[said])
    assert written.isascii()
    facts = json.loads(written)
    assert (facts["event"], facts["text"], facts["recipients"]) == ("failed", said, [said])


def test_another_level_holds_from_the_moment_it_is_set() -> None:
    """As after a reload: the log says for which events it listens, and is told of no others."""
    reactor, written = MemoryReactor(), []
    log = Log(reactor, written.append, level="info")
    journal = Journal()

    def tell() -> list[str]:
        written.clear()
        for event in ("step", "delivered", "failed"):
            journal.tell(event, id="1")
        reactor.advance(1.0)
        return [json.loads(line)["event"] for line in "".join(written).splitlines()]

    journal.add(log, log.events)
    assert tell() == ["delivered", "failed"]
    log.configure("json", "warning")
    journal.add(log, log.events)
    assert tell() == ["failed"]
    log.configure("json", "debug")
    journal.add(log, log.events)
    assert tell() == ["step", "delivered", "failed"]


@pytest.mark.parametrize("name", SECONDS)
def test_a_time_is_written_to_the_millisecond(name: str) -> None:
    assert json.loads(logged("json", **{name: 1.23456}))[name] == 1.235
